//! Byte buffers that are lent: a connection holds one only while bytes are on their way.
//!
//! Each thread keeps the few that were used last, so that the next request finds them warm in the cache and initialised
//! (reading into memory that is not needs `unsafe`, which only `pod::sys` may use). Dropping a buffer gives it back. Those that
//! nobody needs any more go when the load does ([`ebb`]).

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

/// Bytes of an ordinary buffer: a TLS record with what protects it.
pub(crate) const SMALL_BYTES: usize = 17 * 1024;
/// Bytes of a buffer for a large body: eight TLS records with what protects them, sent in one system call.
pub(crate) const LARGE_BYTES: usize = 132 * 1024;

/// Kept per thread at most: 2 MiB of small ones, 2 MiB of large ones.
const SMALL_KEPT: usize = 128;
const LARGE_KEPT: usize = 16;
/// Large ones in use per thread at most, 33 MiB; who asks for more gets small ones: slow readers must not be able to make
/// us hold whatever they want.
const LARGE_LENT: usize = 256;

/// How long a buffer may be kept and not used.
const EBB: Duration = Duration::from_secs(1);
/// So many that were kept at once are the sign of a load.
const LOAD: usize = 8;

thread_local! {
    static KEPT: RefCell<Kept> = const {
        RefCell::new(Kept { small: Stack::new(), large: Stack::new(), large_lent: 0, ebb: None })
    };
}

struct Kept {
    small: Stack,
    large: Stack,
    large_lent: usize,
    /// Who is woken when the first is kept.
    ebb: Option<Waker>,
}

/// Buffers of one size; the last used is the next to be used.
struct Stack {
    kept: Vec<Box<[u8]>>,
    /// So many at its bottom were not used since this was last looked at.
    unused: usize,
}

impl Stack {
    const fn new() -> Self {
        Self {
            kept: Vec::new(),
            unused: 0,
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Box<[u8]>> {
        let last = self.kept.pop();
        self.unused = self.unused.min(self.kept.len());
        last
    }

    /// Drops what was not used.
    fn sink(&mut self) {
        drop(self.kept.drain(..self.unused));
        self.unused = self.kept.len();
    }
}

impl Kept {
    fn count(&self) -> usize {
        self.small.kept.len() + self.large.kept.len()
    }
}

/// Drops what this thread keeps and does not use, forever. When nothing is left of a load, `settled` is called: what else it needed can
/// go too. Wakes nobody while nothing is kept.
pub async fn ebb(settled: fn()) {
    loop {
        poll_fn(|cx| {
            KEPT.with_borrow_mut(|kept| match kept.count() {
                0 => {
                    kept.ebb = Some(cx.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            })
        })
        .await;
        let mut most = 0;
        while let count @ 1.. = KEPT.with_borrow(Kept::count) {
            most = most.max(count);
            tokio::time::sleep(EBB).await;
            KEPT.with_borrow_mut(|kept| {
                kept.small.sink();
                kept.large.sink();
            });
        }
        if most >= LOAD {
            settled();
        }
    }
}

/// A buffer with its filled part: bytes are added at the end and consumed at the start.
#[derive(Debug)]
pub struct Buf {
    data: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buf {
    /// An empty buffer of [`SMALL_BYTES`].
    pub fn small() -> Self {
        let kept = KEPT.with(|kept| kept.borrow_mut().small.pop());
        Self::of(kept.unwrap_or_else(|| vec![0; SMALL_BYTES].into_boxed_slice()))
    }

    /// An empty buffer of [`LARGE_BYTES`], or of [`SMALL_BYTES`] when many are in use.
    pub fn large() -> Self {
        let kept = KEPT.with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.large_lent >= LARGE_LENT {
                return None;
            }
            kept.large_lent += 1;
            let fresh = || vec![0; LARGE_BYTES].into_boxed_slice();
            Some(kept.large.pop().unwrap_or_else(fresh))
        });
        kept.map_or_else(Self::small, Self::of)
    }

    fn of(data: Box<[u8]>) -> Self {
        Self {
            data,
            start: 0,
            end: 0,
        }
    }

    /// What is in it.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// What is in it, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// Room behind the filled part.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.data[self.end..]
    }

    /// Counts the first `count` bytes of [`Buf::spare`] as filled.
    #[inline]
    pub fn added(&mut self, count: usize) {
        assert!(
            count <= self.data.len() - self.end,
            "more added than there was room"
        );
        self.end += count;
    }

    /// Takes `count` bytes off the start.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        assert!(
            count <= self.end - self.start,
            "more consumed than there was"
        );
        self.start += count;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Cuts the filled part to its first `count` bytes.
    pub fn truncate(&mut self, count: usize) {
        self.end = self.end.min(self.start + count);
    }

    /// Makes it empty.
    #[inline]
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Bytes in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Nothing is in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Makes room for the rest of something of at most `count` bytes that begins where the filled part does.
    pub(crate) fn reserve_for(&mut self, count: usize) {
        self.reserve(count.saturating_sub(self.len()));
    }

    /// Makes room for `count` bytes behind the filled part: by moving it to the front, else by growing.
    #[inline]
    pub fn reserve(&mut self, count: usize) {
        if self.data.len() - self.end < count {
            self.make_room(count);
        }
    }

    #[cold]
    fn make_room(&mut self, count: usize) {
        let len = self.len();
        if self.data.len() - len >= count {
            self.data.copy_within(self.start..self.end, 0);
        } else {
            let size = (len + count).next_power_of_two();
            let mut grown = Self::of(vec![0; size].into_boxed_slice());
            grown.data[..len].copy_from_slice(self.filled());
            std::mem::swap(&mut self.data, &mut grown.data);
        }
        self.start = 0;
        self.end = len;
    }

    /// Appends bytes, making room for them.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        match self.data.get_mut(self.end..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.end = end;
            }
            None => self.put_behind(bytes),
        }
    }

    #[cold]
    fn put_behind(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.put(bytes);
    }

    /// Appends a whole number in decimal.
    pub fn put_decimal(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.put(&digits[at..]);
    }

    /// Appends a whole number in lower-case hexadecimal, without leading zeros.
    pub fn put_hex(&mut self, number: u64) {
        let mut digits = [0; 16];
        let mut at = digits.len();
        let mut left = number;
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[usize::try_from(left & 15).expect("a nibble")];
            left >>= 4;
            if left == 0 {
                break;
            }
        }
        self.put(&digits[at..]);
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.data));
    }
}

fn give_back(data: Box<[u8]>) {
    // Fails only while the thread ends, when nobody needs it any more.
    KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        match data.len() {
            SMALL_BYTES if kept.small.kept.len() < SMALL_KEPT => kept.small.kept.push(data),
            LARGE_BYTES => {
                kept.large_lent = kept.large_lent.saturating_sub(1);
                if kept.large.kept.len() < LARGE_KEPT {
                    kept.large.kept.push(data);
                }
            }
            _ => {}
        }
        if let Some(ebb) = kept.ebb.take() {
            ebb.wake();
        }
    })
    .ok();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static SETTLED: AtomicUsize = AtomicUsize::new(0);

    fn kept() -> usize {
        KEPT.with_borrow(Kept::count)
    }

    fn load(buffers: usize) {
        drop((0..buffers).map(|_| Buf::small()).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_load_leaves_goes_when_it_has_ended() {
        let settled = || {
            SETTLED.fetch_add(1, Ordering::Relaxed);
        };
        let passes = async |millis| tokio::time::sleep(Duration::from_millis(millis)).await;
        let test = async {
            load(1);
            passes(3000).await;
            assert_eq!(kept(), 0);
            assert_eq!(SETTLED.load(Ordering::Relaxed), 0, "one is no load");
            drop(Buf::large());
            load(20);
            // Between two looks they are used at least twice.
            for _ in 0..25 {
                load(2);
                passes(400).await;
            }
            assert_eq!(kept(), 2, "those that are used stay");
            passes(3000).await;
            assert_eq!((kept(), SETTLED.load(Ordering::Relaxed)), (0, 1));
        };
        tokio::select! {
            () = ebb(settled) => {}
            () = test => {}
        }
    }
}
