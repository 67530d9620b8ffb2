//! How many requests of a key are in flight: a table of counts that all workers share, without locks.
//!
//! A slot is one word, 48 bits of the key's hash and 16 of its count, so that both change together. A key without a request in
//! flight has no slot, and one with a request is never pushed out: there are four slots for each connection that may be open.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

const COUNT_BITS: u32 = 16;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Slots that a key may be in.
const NEAR: usize = 16;

/// What one key can hold at most.
pub(super) const MOST: u64 = COUNT - 1;

/// Requests in flight, by key.
#[derive(Debug)]
pub(super) struct Flight {
    slots: Box<[AtomicU64]>,
    hash: RandomState,
}

impl Flight {
    /// For `requests` in flight at most.
    pub(super) fn new(requests: usize) -> Self {
        let slots = (requests.max(NEAR) * 4).next_power_of_two();
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            hash: RandomState::new(),
        }
    }

    /// One more of `key`, if that makes at most `most`. What is returned goes to [`Flight::leave`].
    pub(super) fn enter(&self, rule: u16, key: &[u8], most: u64) -> Option<u64> {
        let hash = self.hash.hash_one((rule, key));
        let tag = hash & !COUNT;
        #[expect(clippy::cast_possible_truncation, reason = "masked to an index")]
        let start = hash.rotate_left(32) as usize;
        let near = || (0..NEAR).map(|step| start.wrapping_add(step) & (self.slots.len() - 1));
        loop {
            let load = |at: usize| self.slots[at].load(Ordering::Acquire);
            let is_ours = |at: &usize| load(*at) & !COUNT == tag && load(*at) & COUNT > 0;
            let is_free = |at: &usize| load(*at) & COUNT == 0;
            // More keys in flight near this one than there are slots: it is not counted rather than refused.
            let Some(at) = near().find(is_ours).or_else(|| near().find(is_free)) else {
                return Some(u64::MAX);
            };
            let old = load(at);
            let next = match old & COUNT {
                0 => tag | 1,
                _ if old & !COUNT != tag => continue,
                count if count >= most => return None,
                _ => old + 1,
            };
            let changed =
                self.slots[at].compare_exchange(old, next, Ordering::AcqRel, Ordering::Relaxed);
            if changed.is_ok() {
                return Some(at as u64);
            }
        }
    }

    /// One less.
    pub(super) fn leave(&self, held: u64) {
        let at = usize::try_from(held).unwrap_or(usize::MAX);
        if let Some(slot) = self.slots.get(at) {
            slot.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_so_many_at_once() {
        let flight = Flight::new(10);
        let held: Vec<_> = (0..3).map(|_| flight.enter(0, b"a", 2)).collect();
        assert!(held[0].is_some() && held[1].is_some());
        assert_eq!(held[2], None);
        let other = flight.enter(1, b"a", 1).unwrap();
        flight.leave(held[0].unwrap());
        assert!(flight.enter(0, b"a", 2).is_some());
        flight.leave(other);
        assert!(flight.enter(1, b"a", 1).is_some());
    }

    #[test]
    fn nothing_is_left_when_all_have_ended() {
        let flight = Flight::new(64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..20_000_u32 {
                        let key = (turn % 7).to_be_bytes();
                        if let Some(held) = flight.enter(0, &key, 3) {
                            flight.leave(held);
                        }
                    }
                });
            }
        });
        let left: u64 = flight
            .slots
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed) & COUNT)
            .sum();
        assert_eq!(left, 0);
    }
}
