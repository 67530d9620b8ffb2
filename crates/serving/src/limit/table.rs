//! The keys of all rules and what they have asked for: a table of fixed size that all workers share, without locks.
//!
//! ```text
//!   rule, key ─ keyed hash ─► 64 bits: the tag ─┬─► line A: 4 slots of (tag, TAT)      64 bytes, one cache line
//!                                                  ╰─► line B: 4 slots
//! ```
//!
//! A key lives in one of eight slots, in two lines that its hash names. What is kept of it is the hash: 16 bytes a slot, two slots
//! for each key that is to fit (`--max-keys`), so 32 bytes a key however long keys are. The hash ([`super::tag`]) is keyed: nobody outside can make two keys meet (64 bits; with ten million keys the chance that any two meet is 1 in
//! 370,000), so an attacker can't use up a victim's rate.
//!
//! When all eight slots are taken, a key whose TAT has passed is as good as none and makes room; else the one whose TAT is
//! the smallest, which has been idle for the longest and loses the least. So a flood of keys can win their owners a burst, never
//! more memory, and never a refusal for somebody else.
//!
//! One rate for all workers needs one number: the TAT is changed by compare-and-swap. What two workers do to one slot in the
//! same instant can cost exactness, never memory: both may take a slot for a new key (it gets two bursts), or charge a key
//! that has just taken the slot over (by one request). What was rejected: a table for each worker (the rate times workers, or
//! an n-th of it when connections are not spread evenly), and a lock for each line.

use std::sync::atomic::{AtomicU64, Ordering};

use super::gcra::{Gcra, Outcome};

const SLOTS: usize = 4;

#[derive(Debug, Default)]
struct Slot {
    /// 0: free.
    tag: AtomicU64,
    tat: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([Slot; SLOTS]);

/// What the keys of all rules have asked for.
#[derive(Debug)]
pub(super) struct Table {
    lines: Box<[Line]>,
    /// Keys that lost what they owed to make room.
    evicted: AtomicU64,
}

impl Table {
    /// With room for `keys` keys, 32 bytes each.
    pub(super) fn new(keys: usize) -> Self {
        let lines = (keys.max(1) * 2).div_ceil(SLOTS);
        Self {
            lines: (0..lines).map(|_| Line::default()).collect(),
            evicted: AtomicU64::new(0),
        }
    }

    /// Bytes that it takes, whatever is in it.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// Keys that lost what they owed since the table was full.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// A request of `cost` at `now` by the key of this tag (not 0).
    pub(super) fn ask(&self, tag: u64, gcra: &Gcra, now: u64, cost: u64) -> Outcome {
        let slot = self.find(tag, now);
        let mut tat = slot.tat.load(Ordering::Acquire);
        loop {
            let (next, outcome) = gcra.ask(tat, now, cost);
            if !outcome.allowed {
                return outcome;
            }
            match slot
                .tat
                .compare_exchange_weak(tat, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return outcome,
                Err(found) => tat = found,
            }
        }
    }

    /// The slot of `tag`; taken for it when it has none.
    fn find(&self, tag: u64, now: u64) -> &Slot {
        // The high bits name one line, the low bits the other, for any number of lines (Lemire, "Fast Random Integer Generation
        // in an Interval", 2019).
        #[expect(clippy::cast_possible_truncation, reason = "less than the count")]
        let line =
            |hash: u64| ((u128::from(hash) * self.lines.len() as u128) >> u64::BITS) as usize;
        let (a, b) = (line(tag), line(tag.rotate_left(32)));
        let slots = || self.lines[a].0.iter().chain(&self.lines[b].0);
        loop {
            if let Some(slot) = slots().find(|slot| slot.tag.load(Ordering::Acquire) == tag) {
                return slot;
            }
            // Of two free slots the one in the emptier line: that is what lets eight slots be enough.
            let free = |line: &Line| {
                let free = line.0.iter();
                free.filter(|slot| slot.tat.load(Ordering::Relaxed) <= now)
                    .count()
            };
            let first = if free(&self.lines[b]) > free(&self.lines[a]) {
                b
            } else {
                a
            };
            let in_order = self.lines[first].0.iter().chain(slots());
            let Some(slot) = in_order.min_by_key(|slot| slot.tat.load(Ordering::Relaxed).max(now))
            else {
                unreachable!("a line has slots")
            };
            let (old, owed) = (
                slot.tag.load(Ordering::Acquire),
                slot.tat.load(Ordering::Acquire),
            );
            // Another worker may have taken it meanwhile, perhaps for this very key.
            let taken = slot
                .tag
                .compare_exchange(old, tag, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_err() {
                continue;
            }
            if owed > now {
                self.evicted.fetch_add(1, Ordering::Relaxed);
                // When it has changed since, somebody of this key was here first.
                slot.tat
                    .compare_exchange(owed, now, Ordering::AcqRel, Ordering::Relaxed)
                    .ok();
            }
            return slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use podkit_dataplane::upstream::pick::{fnv, mix};

    use super::super::tag::Tags;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// What the table is asked with stands for a key.
    fn tag(rule: u64, key: &str) -> u64 {
        mix(fnv(key.as_bytes()) ^ rule)
    }

    fn gcra(count: u64, burst: u64) -> Gcra {
        Gcra::new(count, Duration::from_secs(1), burst).unwrap()
    }

    #[test]
    fn keys_and_rules_are_apart() {
        let (table, one) = (Table::new(100), gcra(1, 1));
        let ask = |rule, key: &str| table.ask(tag(rule, key), &one, SECOND, 1).allowed;
        assert_eq!((ask(0, "a"), ask(0, "b"), ask(1, "a")), (true, true, true));
        assert_eq!(
            (ask(0, "a"), ask(0, "b"), ask(1, "a")),
            (false, false, false)
        );
    }

    #[test]
    fn as_many_keys_as_asked_for_keep_what_they_owe() {
        let (keys, one) = (200_000_u32, gcra(1, 1));
        let table = Table::new(keys as usize);
        assert_eq!(table.bytes(), keys as usize * 32);
        for round in [true, false] {
            let allowed = (0..keys).filter(|key| {
                table.ask(mix(u64::from(*key) + 1), &one, SECOND, 1).allowed == round
            });
            // Two lines of four slots for each: as good as none is pushed out.
            let right = allowed.count();
            assert!(right >= keys as usize / 1_000 * 999, "{right} of {keys}");
        }
    }

    #[test]
    fn a_full_table_forgets_who_owes_the_least_and_refuses_nobody_new() {
        let (table, slow) = (Table::new(2), gcra(1, 100));
        assert_eq!(table.bytes(), 64);
        let ask = |key: &str, cost| table.ask(tag(0, key), &slow, SECOND, cost);
        for (key, cost) in [("a", 50), ("b", 5), ("c", 50), ("d", 50)] {
            assert!(ask(key, cost).allowed);
        }
        assert_eq!(ask("new", 1).remaining, 99);
        assert_eq!(table.evicted(), 1);
        assert_eq!(ask("a", 1).remaining, 49, "a kept what it owes");
        // And a key that has paid makes room without a loss.
        assert!(table.ask(tag(0, "later"), &slow, 20 * SECOND, 1).allowed);
        assert_eq!(table.evicted(), 1);
    }

    /// Sixty seconds by a simulated clock: what all workers together let through is what one would.
    #[test]
    fn workers_together_allow_one_rate() {
        for workers in [1, 2, 4, 8] {
            let (table, rule) = (Table::new(1_000), gcra(1_000, 100));
            let allowed = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for worker in 0..workers {
                    let (table, allowed) = (&table, &allowed);
                    scope.spawn(move || {
                        // Each worker asks 4,000 times a second.
                        for step in 0..60 * 4_000_u64 {
                            let now = SECOND + step * (SECOND / 4_000) + worker;
                            let outcome = table.ask(tag(0, "key"), &rule, now, 1);
                            allowed.fetch_add(outcome.allowed.into(), Ordering::Relaxed);
                        }
                    });
                }
            });
            let exact = 60 * 1_000 + 100;
            let off = allowed.into_inner().abs_diff(exact);
            assert!(off <= exact / 100, "{workers} workers: off by {off}");
        }
    }

    /// What ten million keys cost, and a decision. The times are those of a debug build without
    /// `--config profile.dev.package.podkit-serving.opt-level=3 --config profile.dev.package.siphasher.opt-level=3` of cargo.
    #[test]
    #[ignore = "a measurement; --run-ignored only --no-capture"]
    fn figures_of_ten_million_keys() {
        const KEYS: u64 = 10_000_000;
        let (tags, rule) = (Tags::new(&[7; 16]), gcra(10, 100));
        let table = Table::new(KEYS as usize);
        let ask = |key: u64, now| {
            let ip = key.to_be_bytes();
            let tag = tags.tag(1, &ip);
            table.ask(tag, &rule, now, 10)
        };
        let mut kept = 0;
        for (round, fresh) in [true, false].into_iter().enumerate() {
            let begin = std::time::Instant::now();
            for key in 0..KEYS {
                let remaining = ask(key, SECOND).remaining;
                kept += u64::from(!fresh && remaining == 80);
            }
            let each = begin.elapsed().as_nanos() / u128::from(KEYS);
            println!("round {round}: {each} ns for a decision, all keys in turn");
        }
        let begin = std::time::Instant::now();
        for turn in 0..KEYS {
            ask(turn % 1_000, 2 * SECOND + turn);
        }
        let each = begin.elapsed().as_nanos() / u128::from(KEYS);
        println!("{each} ns for a decision, a thousand keys");
        let bytes = table.bytes() as u64 / KEYS;
        println!("{bytes} bytes for a key; {kept} of {KEYS} keys were remembered");
        assert!(bytes <= 64, "{bytes}");
        assert!(kept >= KEYS / 1_000 * 999, "{kept}");
    }
}
