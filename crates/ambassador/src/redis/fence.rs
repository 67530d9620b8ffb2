//! Fences: how far a replica has to be before it may answer for a key, so that who has written reads what it wrote.
//!
//! Behind each batch of writes the primary says how far its stream of replication is. That place is kept for the slot of each key that
//! the batch named: a replica that has done as much has the writes. While the place is not known, only the primary answers. The fences are
//! the process's, not a connection's: an application writes by one connection of its pool and reads by another.
//!
//! A place is a number of two parts: the term (which primary, and which of its histories) and the offset within it. A later term is behind
//! all of an earlier one, since with it all fences begin at the offset that its primary had then.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::shard::place::slots::{SLOTS, slot};
use crate::shard::place::tag::HashTag;

/// What may touch any key (FLUSHALL, a script without keys).
pub(super) const ALL: u16 = SLOTS as u16;
/// Whatever is written: for reads that name no key.
const ANY: u16 = SLOTS as u16 + 1;
/// Bits of an offset: 256 TiB of writes; above them is the term.
const OFFSET_BITS: u32 = 48;

/// A place in the stream of a term.
pub(super) fn place(term: u64, offset: u64) -> u64 {
    (term << OFFSET_BITS) | offset.min((1 << OFFSET_BITS) - 1)
}

/// The number of a key: its slot.
pub(super) fn number(key: &[u8]) -> u16 {
    slot(HashTag::BRACES.part(key)) as u16
}

#[derive(Debug, Default)]
struct Fence {
    place: AtomicU64,
    /// Batches whose place is not known.
    open: AtomicU32,
}

/// Those of the process, for one primary.
#[derive(Debug)]
pub(super) struct Fences {
    /// Those of slots, which may share one; then [`ALL`] and [`ANY`].
    all: Box<[Fence]>,
    /// What every replica must have.
    floor: AtomicU64,
    /// Batches whose place was never told; and up to which of them the floor makes up for that.
    lost: AtomicU64,
    made_up: AtomicU64,
}

impl Fences {
    /// So many for the slots: a power of two. Fewer take less room, and keep a replica from answering for a slot that shares one.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            all: (0..slots + 2).map(|_| Fence::default()).collect(),
            floor: AtomicU64::new(u64::MAX),
            lost: AtomicU64::new(0),
            made_up: AtomicU64::new(0),
        }
    }

    fn at(&self, number: u16) -> &Fence {
        let slots = self.all.len() - 2;
        let number = usize::from(number);
        match number.checked_sub(SLOTS) {
            None => &self.all[number % slots],
            Some(special) => &self.all[slots + special],
        }
    }

    /// Writes that touch these numbers are about to be sent.
    pub(super) fn begin(&self, numbers: &[u16]) {
        for number in numbers {
            self.at(*number).open.fetch_add(1, Ordering::SeqCst);
        }
        let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        self.at(ANY).open.fetch_add(count, Ordering::SeqCst);
    }

    /// The place behind them; None: it will not be known.
    pub(super) fn settle(&self, numbers: &[u16], place: Option<u64>) {
        match place {
            Some(place) => {
                self.at(ANY).place.fetch_max(place, Ordering::SeqCst);
                for number in numbers {
                    self.at(*number).place.fetch_max(place, Ordering::SeqCst);
                }
            }
            None => self.lose(),
        }
        for number in numbers {
            self.at(*number).open.fetch_sub(1, Ordering::SeqCst);
        }
        let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        self.at(ANY).open.fetch_sub(count, Ordering::SeqCst);
    }

    /// How far a replica must be to answer for these numbers (none: for whatever there is). None: only the primary can.
    pub(super) fn needed(&self, numbers: &[u16]) -> Option<u64> {
        if self.lost.load(Ordering::SeqCst) != self.made_up.load(Ordering::SeqCst) {
            return None;
        }
        let floor = self.floor.load(Ordering::SeqCst);
        let of = |number: u16| {
            let fence = self.at(number);
            match fence.open.load(Ordering::SeqCst) {
                0 => Some(fence.place.load(Ordering::SeqCst)),
                _ => None,
            }
        };
        if numbers.is_empty() {
            return Some(floor.max(of(ANY)?));
        }
        let mut needed = floor.max(of(ALL)?);
        for number in numbers {
            needed = needed.max(of(*number)?);
        }
        Some(needed)
    }

    /// What a replica that has all writes has reached; None while that is not known.
    pub(super) fn newest(&self) -> Option<u64> {
        self.needed(&[])
    }

    /// Something was written in another way: no replica answers before the primary has said again where it is.
    pub(super) fn lose(&self) {
        self.lost.fetch_add(1, Ordering::SeqCst);
    }

    /// A term begins.
    pub(super) fn begin_term(&self, place: u64) {
        self.floor.store(place, Ordering::SeqCst);
    }

    /// How many batches were lost, to be asked for before the primary is asked where it is.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::SeqCst)
    }

    /// The primary said that it is at `place`, after `lost` batches had been lost: what they wrote, if anything, is before it.
    pub(super) fn make_up(&self, lost: u64, place: u64) {
        if self.made_up.load(Ordering::SeqCst) < lost {
            self.floor.fetch_max(place, Ordering::SeqCst);
            self.made_up.store(lost, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fences() -> Fences {
        let fences = Fences::new(SLOTS);
        fences.begin_term(place(1, 100));
        fences
    }

    #[test]
    fn a_slot_is_that_of_redis_cluster() {
        // From its specification, and `CLUSTER KEYSLOT`.
        for (key, slot) in [
            ("123456789", 12_739),
            ("foo", 12_182),
            ("a{foo}b{c}", 12_182),
        ] {
            assert_eq!(number(key.as_bytes()), slot, "{key}");
        }
        assert_ne!(number(b"{}foo"), number(b""));
    }

    #[test]
    fn nothing_is_far_enough_before_there_is_a_primary() {
        assert_eq!(Fences::new(SLOTS).needed(&[7]), Some(u64::MAX));
    }

    #[test]
    fn slots_that_share_a_fence_wait_for_each_other() {
        let fences = Fences::new(1024);
        fences.begin_term(place(1, 100));
        fences.begin(&[7, 7 + 1024]);
        assert_eq!(fences.needed(&[7 + 2048]), None);
        assert_eq!(fences.needed(&[8]), Some(place(1, 100)));
        fences.settle(&[7, 7 + 1024], Some(place(1, 150)));
        assert_eq!(fences.needed(&[7 + 2048]), Some(place(1, 150)));
        fences.begin(&[ALL]);
        assert_eq!(fences.needed(&[8]), None);
        assert_eq!(fences.needed(&[]), None);
    }

    #[test]
    fn a_write_is_fenced_from_when_it_is_sent() {
        let fences = fences();
        assert_eq!(fences.needed(&[7]), Some(place(1, 100)));
        fences.begin(&[7]);
        assert_eq!(fences.needed(&[7]), None);
        assert_eq!(fences.needed(&[6, 7]), None);
        assert_eq!(fences.needed(&[]), None);
        assert_eq!(fences.needed(&[6]), Some(place(1, 100)));
        fences.begin(&[7, 8]);
        fences.settle(&[7], Some(place(1, 150)));
        assert_eq!(fences.needed(&[7]), None);
        fences.settle(&[7, 8], Some(place(1, 140)));
        assert_eq!(fences.needed(&[7]), Some(place(1, 150)));
        assert_eq!(fences.needed(&[8]), Some(place(1, 140)));
        assert_eq!(fences.needed(&[]), Some(place(1, 150)));
        fences.begin(&[ALL]);
        assert_eq!(fences.needed(&[6]), None);
        fences.settle(&[ALL], Some(place(1, 160)));
        assert_eq!(fences.needed(&[6]), Some(place(1, 160)));
    }

    #[test]
    fn what_was_never_told_is_made_up_for_by_what_is_asked_later() {
        let fences = fences();
        fences.begin(&[7]);
        let before = fences.lost();
        fences.settle(&[7], None);
        // It was asked before the batch was lost: that says nothing.
        fences.make_up(before, place(1, 120));
        assert_eq!(fences.needed(&[6]), None);
        fences.make_up(fences.lost(), place(1, 130));
        assert_eq!(fences.needed(&[6]), Some(place(1, 130)));
    }

    #[test]
    fn a_new_term_is_behind_all_of_the_former() {
        let fences = fences();
        fences.begin(&[7]);
        fences.settle(&[7], Some(place(1, 9_000)));
        // Its primary is a replica that had not come so far: the rest is lost.
        fences.begin_term(place(2, 8_000));
        assert_eq!(fences.needed(&[7]), Some(place(2, 8_000)));
        // A late answer of the former primary.
        fences.begin(&[7]);
        fences.settle(&[7], Some(place(1, 9_999)));
        assert_eq!(fences.needed(&[7]), Some(place(2, 8_000)));
    }

    proptest! {
        /// Whatever the order in which batches are settled: a replica that may answer for a slot has all writes to it that were sent.
        #[test]
        fn who_may_answer_has_all_that_was_written(
            steps in prop::collection::vec((0u16..4, any::<bool>(), any::<bool>()), 1..60),
        ) {
            let fences = fences();
            let (mut offset, mut open, mut last) = (100, Vec::new(), [100u64; 4]);
            for (number, sends, loses) in steps {
                if sends || open.is_empty() {
                    offset += 10;
                    last[usize::from(number)] = offset;
                    fences.begin(&[number]);
                    open.push((number, offset));
                } else {
                    let (number, at) = open.swap_remove(usize::from(number) % open.len());
                    fences.settle(&[number], (!loses).then_some(place(1, at)));
                    if loses && offset % 3 == 0 {
                        fences.make_up(fences.lost(), place(1, offset));
                    }
                }
                for number in 0..4 {
                    if let Some(needed) = fences.needed(&[number]) {
                        prop_assert!(needed >= place(1, last[usize::from(number)]));
                    }
                }
                if let Some(needed) = fences.needed(&[]) {
                    prop_assert!(last.iter().all(|last| needed >= place(1, *last)));
                }
            }
        }
    }
}
