//! How many requests (or connections) of a key there are at once: a table of counts that all workers share, without locks.
//!
//! A slot is one word, 48 bits of the key's hash and 16 of its count, so that both change together. A key without a request in
//! flight has no slot, and one with a request is never pushed out: there are four slots for each connection that may be open.

use std::sync::atomic::{AtomicU64, Ordering};

const COUNT_BITS: u32 = 16;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Slots that a key may be in.
const NEAR: usize = 16;

/// Requests in flight, by key.
#[derive(Debug)]
pub struct Flight {
    slots: Box<[AtomicU64]>,
}

impl Flight {
    /// What one key can hold at most.
    pub const MOST: u64 = COUNT - 1;

    /// For `requests` in flight at most.
    pub fn new(requests: usize) -> Self {
        let slots = (requests.max(NEAR) * 4).next_power_of_two();
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// One more of the key of tag `key`, if that makes at most `most`. What is returned goes to [`Flight::leave`], and how many
    /// there are now.
    pub fn enter(&self, key: u64, most: u64) -> Option<(u64, u64)> {
        let tag = key & !COUNT;
        #[expect(clippy::cast_possible_truncation, reason = "masked to an index")]
        let start = key.rotate_left(32) as usize;
        let near = || (0..NEAR).map(|step| start.wrapping_add(step) & (self.slots.len() - 1));
        loop {
            let load = |at: usize| self.slots[at].load(Ordering::Acquire);
            let is_ours = |at: &usize| load(*at) & !COUNT == tag && load(*at) & COUNT > 0;
            let is_free = |at: &usize| load(*at) & COUNT == 0;
            // More keys in flight near this one than there are slots: it is not counted rather than refused.
            let Some(at) = near().find(is_ours).or_else(|| near().find(is_free)) else {
                return Some((u64::MAX, 1));
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
                return Some((at as u64, next & COUNT));
            }
        }
    }

    /// One less.
    pub fn leave(&self, held: u64) {
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
        let (a, b) = (1 << 60, 2 << 60);
        let held: Vec<_> = (0..3).map(|_| flight.enter(a, 2)).collect();
        let counts: Vec<_> = held.iter().map(|held| held.map(|it| it.1)).collect();
        assert_eq!(counts, [Some(1), Some(2), None]);
        let other = flight.enter(b, 1).unwrap().0;
        flight.leave(held[0].unwrap().0);
        assert!(flight.enter(a, 2).is_some());
        flight.leave(other);
        assert!(flight.enter(b, 1).is_some());
    }

    #[test]
    fn nothing_is_left_when_all_have_ended() {
        let flight = Flight::new(64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..20_000_u64 {
                        if let Some((held, _)) = flight.enter((turn % 7) << 50, 3) {
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
