//! A client's connection: its transport, its deadline, and the bytes that were read and not used yet.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::head::Scanner;
use super::limits::HttpLimits;
use super::reject::Reject;
use crate::net::{Buf, NEWCOMER, Timer, Transport, Worker};

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum Cut {
    /// Orderly: the peer closed between messages, or we drain.
    Closed,
    /// A deadline passed.
    Timeout,
    /// The peer broke off, or the network did.
    Broken(#[expect(dead_code, reason = "shown by Debug")] io::Error),
    /// What came is not taken; the peer is told.
    Rejected(Reject),
    /// The peer begins to speak HTTP/2; what it said is the input.
    Http2,
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Reject> for Cut {
    fn from(reject: Reject) -> Self {
        Self::Rejected(reject)
    }
}

/// A head at the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its bytes.
    pub(crate) len: usize,
    /// It came whole, and was parsed.
    pub(crate) parsed: bool,
}

/// A connection and what it needs of its thread.
pub(crate) struct Conn<T> {
    pub(crate) io: T,
    pub(crate) timer: Timer,
    pub(crate) worker: Rc<Worker>,
    /// Bytes read; None while there are none and nothing waits in the kernel.
    input: Option<Buf>,
    /// The last read filled its buffer: the next one gets a large one.
    busy: bool,
}

/// A read of so many bytes is one of many: the next gets a large buffer.
const BUSY_BYTES: usize = 16 * 1024;

/// How long a kept-alive connection may still bring a request once we drain.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// How long a peer's last bytes are thrown away before its connection is closed.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

impl<T: Transport> Conn<T> {
    pub(crate) fn new(io: T, worker: Rc<Worker>) -> Self {
        Self::with_timer(io, worker.clock.timer(), worker)
    }

    pub(crate) fn with_timer(io: T, timer: Timer, worker: Rc<Worker>) -> Self {
        Self {
            io,
            timer,
            worker,
            input: None,
            busy: false,
        }
    }

    /// Bytes that were read and not used yet.
    pub(crate) fn input(&self) -> &[u8] {
        self.input.as_ref().map_or(&[], Buf::filled)
    }

    /// Uses up `count` bytes of the input; the buffer goes back when it is empty.
    pub(crate) fn consume(&mut self, count: usize) {
        if let Some(input) = &mut self.input {
            input.consume(count);
            if input.is_empty() {
                self.input = None;
            }
        }
    }

    /// Reads more bytes behind the input, at most `room` (which bounds what a head can make us hold).
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        if self.input.is_none() {
            // A buffer is taken only when there is something to put into it. Without room for more it is the begin of a message.
            std::task::ready!(match room {
                0 => self.io.poll_arrival(cx),
                _ => self.io.poll_readable(cx),
            })?;
        }
        let busy = self.busy;
        let input = self
            .input
            .get_or_insert_with(|| if busy { Buf::large() } else { Buf::small() });
        if input.spare().is_empty() {
            input.reserve(room.max(1));
        }
        let read = self.io.poll_read(cx, input);
        if let Poll::Ready(Ok(count)) = read {
            self.busy = count >= BUSY_BYTES;
        }
        if input.is_empty() {
            self.input = None;
        }
        read
    }

    /// Waits for more bytes until the deadline. 0 is the end.
    pub(crate) async fn fill(&mut self, room: usize) -> Result<usize, Cut> {
        poll_fn(|cx| match self.poll_fill(cx, room) {
            Poll::Ready(result) => Poll::Ready(result.map_err(Cut::from)),
            Poll::Pending if self.timer.expired(cx) => Poll::Ready(Err(Cut::Timeout)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Waits for a request's head: idle until its first byte, then within the head timeout. The start of the first head of a
    /// connection counts from now. `take` parses a head that came whole, and is asked once.
    pub(crate) async fn head(
        &mut self,
        limits: &HttpLimits,
        first: bool,
        mut take: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Found, Cut> {
        let mut scanner = Scanner::default();
        let mut skipped = false;
        let mut tried = false;
        let mut begun = first;
        if !self.input().is_empty() {
            // Who sends many requests at once, and is answered without waiting for anybody, leaves others their turn.
            tokio::task::coop::consume_budget().await;
        }
        if first {
            self.timer.arm_for(limits.head_timeout);
        }
        loop {
            // An empty line before a request is skipped (RFC 9112 section 2.2); a second one is refused with the head.
            if !skipped && self.input().starts_with(b"\r\n") {
                self.consume(2);
                skipped = true;
                scanner = Scanner::default();
            }
            let input = self.input();
            if !input.is_empty() {
                let whole = if tried { None } else { take(input) };
                tried = true;
                if let Some(len) = whole.filter(|len| *len <= limits.head_bytes()) {
                    return Ok(Found { len, parsed: true });
                }
                if let Some(len) = scanner.find(input, true)? {
                    if len <= limits.head_bytes() {
                        return Ok(Found { len, parsed: false });
                    }
                    return Err(too_long(&scanner, limits).into());
                }
                if input.len() >= limits.head_bytes() {
                    return Err(too_long(&scanner, limits).into());
                }
                if !begun {
                    begun = true;
                    self.timer.arm_for(limits.head_timeout);
                }
            }
            let count = match (&self.input, first) {
                (None, false) => self.waiting(DRAIN_GRACE).await?,
                (None, true) => self.waiting(NEWCOMER).await?,
                (Some(_), _) => {
                    let filled = self.fill(limits.head_bytes()).await;
                    filled.map_err(|cut| match cut {
                        Cut::Timeout => Cut::Rejected(Reject::HeadTimeout),
                        cut => cut,
                    })?
                }
            };
            if count == 0 {
                return Err(match self.input.is_none() {
                    true => Cut::Closed,
                    false => Cut::Broken(io::ErrorKind::UnexpectedEof.into()),
                });
            }
        }
    }

    /// Waits for the first bytes of a request, until the caller's deadline. When we drain, not longer than `grace`: a request
    /// may be on its way, and is answered with `Connection: close`, which no client takes for a failure; who only holds a
    /// connection open must not hold the drain up.
    async fn waiting(&mut self, grace: Duration) -> Result<usize, Cut> {
        let mut asked = false;
        poll_fn(|cx| {
            // What is there at once counts against the task's budget, what had to be waited for does not.
            let there = std::mem::replace(&mut asked, true)
                || self.input.is_some()
                || self.io.poll_readable(cx).is_ready();
            if there && let Poll::Ready(result) = self.poll_fill(cx, 0) {
                return Poll::Ready(result.map_err(Cut::from));
            }
            if self.worker.draining() {
                self.timer.shorten(grace);
            }
            match self.timer.expired(cx) {
                true => Poll::Ready(Err(Cut::Closed)),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Sends all of `parts` and flushes; each pause may last `pause`.
    pub(crate) async fn send(&mut self, parts: &[&[u8]], pause: Duration) -> Result<(), Cut> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut sent = 0;
        let mut armed = false;
        poll_fn(|cx| {
            loop {
                let step = if sent < total {
                    poll_write_from(&mut self.io, cx, parts, sent)
                } else {
                    self.io.poll_flush(cx).map_ok(|()| 0)
                };
                match step {
                    Poll::Ready(Ok(0)) if sent == total => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                    }
                    Poll::Ready(Ok(count)) => {
                        sent += count;
                        armed = false;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => {
                        if !armed {
                            self.timer.arm_for(pause);
                            armed = true;
                        }
                        return match self.timer.expired(cx) {
                            true => Poll::Ready(Err(Cut::Timeout)),
                            false => Poll::Pending,
                        };
                    }
                }
            }
        })
        .await
    }

    /// The bytes that were read and not used yet, for who takes over.
    pub(crate) fn take_input(&mut self) -> Option<Buf> {
        self.input.take()
    }

    /// Closes a connection on which nothing is awaited.
    pub(crate) async fn close(&mut self) {
        self.timer.arm_for(LINGER);
        // Gone is gone; there is nobody to tell.
        drop(self.say(T::poll_farewell).await);
    }

    async fn say(
        &mut self,
        mut end: impl FnMut(&mut T, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> io::Result<()> {
        poll_fn(|cx| match end(&mut self.io, cx) {
            Poll::Pending if self.timer.expired(cx) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            other => other,
        })
        .await
    }

    /// Closes after the last answer: says that nothing more comes, then throws away what the peer is still sending, for
    /// a while. Closing at once would reset the connection and could take the answer with it (RFC 9112 section 9.6).
    pub(crate) async fn finish(&mut self) {
        let until = Instant::now() + LINGER;
        self.timer.arm(until);
        let mut left = LINGER_BYTES;
        self.input = None;
        if self.say(T::poll_close_write).await.is_err() {
            return;
        }
        while let Ok(count @ 1..) = self.fill(0).await {
            self.input = None;
            left = left.saturating_sub(count);
            if left == 0 || self.worker.draining() {
                break;
            }
        }
    }
}

fn too_long(scanner: &Scanner, limits: &HttpLimits) -> Reject {
    match scanner.is_first_line_over(limits.head_bytes()) {
        true => Reject::UriTooLong,
        false => Reject::HeadTooLarge,
    }
}

/// Writes what of `parts` comes after their first `sent` bytes.
pub(crate) fn poll_write_from<T: Transport>(
    io: &mut T,
    cx: &mut Context<'_>,
    parts: &[&[u8]],
    sent: usize,
) -> Poll<io::Result<usize>> {
    const MOST: usize = 4;
    let mut slices = [IoSlice::new(&[]); MOST];
    let (mut skip, mut count) = (sent, 0);
    for part in parts {
        if skip >= part.len() {
            skip -= part.len();
        } else if count < MOST {
            slices[count] = IoSlice::new(&part[skip..]);
            skip = 0;
            count += 1;
        }
    }
    io.poll_write(cx, &slices[..count])
}
