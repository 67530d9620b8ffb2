//! The generic cell rate algorithm: what a key may do, as one number (no I/O; time is an argument).
//!
//! A key's *theoretical arrival time* (TAT) is when all that it has asked for would be paid off at the rate. A request of `cost`
//! moves it by `cost` intervals; it conforms when the TAT then lies at most `burst` intervals ahead of now. This is a token
//! bucket of `burst` tokens that is filled at the rate, without a token count that must be brought up to date: a key whose
//! TAT has passed is a full bucket, and needs no memory (ITU-T I.371 annex A; ATM Forum Traffic Management 4.0 section 4.4.2).
//!
//! Times are nanoseconds since a beginning of the caller's, which last for 584 years.

use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// A rate and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gcra {
    /// Nanoseconds that pay for one unit of cost.
    interval: u64,
    /// Nanoseconds that the TAT may lie ahead of now.
    tolerance: u64,
    burst: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// It conforms, and was counted.
    pub(super) allowed: bool,
    /// Whole units that may be asked for at once now.
    pub(super) remaining: u64,
    /// Nanoseconds until all of the burst is there again.
    pub(super) full_after: u64,
    /// Nanoseconds until one unit more may be asked for than now; 0 when all may.
    pub(super) more_after: u64,
    /// Nanoseconds until the same request would conform; 0 when it does.
    pub(super) retry_after: u64,
}

impl Outcome {
    /// [`Outcome::retry_after`] in whole seconds, rounded up: who comes then is let in.
    pub(super) fn retry_seconds(&self) -> u64 {
        self.retry_after.div_ceil(SECOND)
    }

    /// [`Outcome::more_after`] in whole seconds, rounded up: never later than [`Outcome::retry_seconds`] of a refusal.
    pub(super) fn more_seconds(&self) -> u64 {
        self.more_after.div_ceil(SECOND)
    }

    /// [`Outcome::full_after`] in whole seconds, rounded up.
    pub(super) fn full_seconds(&self) -> u64 {
        self.full_after.div_ceil(SECOND)
    }
}

impl Gcra {
    /// Units a second at most: an interval is a whole number of nanoseconds, and the rate of it true to 0.05 %.
    pub(super) const MOST_PER_SECOND: u64 = 1_000_000;

    /// `count` units `per` time, `burst` of them at once. None when one of them is 0, when the rate is above
    /// [`Gcra::MOST_PER_SECOND`], or when the burst takes more than a hundred years to pay for.
    pub(super) fn new(count: u64, per: Duration, burst: u64) -> Option<Self> {
        const LONGEST: u64 = 100 * 365 * 86_400 * SECOND;
        let per = u64::try_from(per.as_nanos()).ok()?;
        let rounded = per.checked_add(count / 2)?.checked_div(count)?;
        let tolerance = rounded.checked_mul(burst)?;
        let right = rounded >= SECOND / Self::MOST_PER_SECOND && burst > 0 && tolerance <= LONGEST;
        right.then_some(Self {
            interval: rounded,
            tolerance,
            burst,
        })
    }

    /// Of an interval in nanoseconds; None where [`Gcra::new`] makes none such.
    pub(super) fn of_interval(interval: u64, burst: u64) -> Option<Self> {
        Self::new(1, Duration::from_nanos(interval), burst)
    }

    /// The TAT after a request of `cost` at `now`, and what became of it. A request that does not conform leaves the TAT.
    pub(super) fn ask(&self, tat: u64, now: u64, cost: u64) -> (u64, Outcome) {
        let from = tat.max(now);
        let asked = from.saturating_add(self.interval.saturating_mul(cost));
        let over = (asked - now).saturating_sub(self.tolerance);
        let allowed = over == 0;
        let tat = if allowed { asked } else { from };
        let owed = tat - now;
        let remaining = self.tolerance.saturating_sub(owed) / self.interval;
        let outcome = Outcome {
            allowed,
            remaining,
            full_after: owed,
            more_after: match owed {
                0 => 0,
                _ => (owed + (remaining + 1) * self.interval).saturating_sub(self.tolerance),
            },
            retry_after: over,
        };
        (tat, outcome)
    }

    /// Nanoseconds that pay for one unit.
    pub(super) fn interval(&self) -> u64 {
        self.interval
    }

    /// Units at once.
    pub(super) fn burst(&self) -> u64 {
        self.burst
    }

    /// Whole seconds, rounded up, in which an empty burst is full again.
    pub(super) fn window_seconds(&self) -> u64 {
        self.tolerance.div_ceil(SECOND)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let gcra = Gcra::new(10, Duration::from_secs(1), 3).unwrap();
        let tenth = SECOND / 10;
        let mut tat = 0;
        let mut check = |now, cost, allowed, remaining, full_after, more_after, retry_after| {
            let (next, outcome) = gcra.ask(tat, now, cost);
            tat = next;
            let expected = Outcome {
                allowed,
                remaining,
                full_after,
                more_after,
                retry_after,
            };
            assert_eq!(outcome, expected, "at {now}");
        };
        check(SECOND, 1, true, 2, tenth, tenth, 0);
        check(SECOND, 1, true, 1, 2 * tenth, tenth, 0);
        check(SECOND, 1, true, 0, 3 * tenth, tenth, 0);
        check(SECOND, 1, false, 0, 3 * tenth, tenth, tenth);
        check(SECOND + tenth - 1, 1, false, 0, 2 * tenth + 1, 1, 1);
        check(SECOND + tenth, 1, true, 0, 3 * tenth, tenth, 0);
        // What costs more waits for longer, and what costs more than the burst never passes.
        check(SECOND + 2 * tenth, 2, false, 1, 2 * tenth, tenth, tenth);
        check(SECOND + 3 * tenth, 2, true, 0, 3 * tenth, tenth, 0);
        check(9 * SECOND, 4, false, 3, 0, 0, tenth);
    }

    #[test]
    fn what_can_not_be_counted_is_refused() {
        let second = Duration::from_secs(1);
        for (count, burst) in [(0, 1), (1, 0), (1_000_001 * 2, 1), (1, u64::MAX)] {
            assert_eq!(Gcra::new(count, second, burst), None, "{count} {burst}");
        }
        assert!(Gcra::new(1_000_000, second, 1).is_some());
    }

    proptest! {
        /// Over any time no more passes than burst and rate give, and what a retry was told is true.
        #[test]
        fn never_more_than_the_rate(
            count in 1_u64..5_000,
            burst in 1_u64..500,
            steps in prop::collection::vec((0_u64..40_000_000, 1_u64..4), 1..300),
        ) {
            let gcra = Gcra::new(count, Duration::from_secs(1), burst).unwrap();
            let (mut tat, mut now, mut passed) = (0, SECOND, 0_u64);
            for (pause, cost) in steps {
                now += pause;
                let (next, outcome) = gcra.ask(tat, now, cost);
                if !outcome.allowed && cost <= burst {
                    prop_assert!(gcra.ask(next, now + outcome.retry_after, cost).1.allowed);
                    prop_assert!(!gcra.ask(next, now + outcome.retry_after - 1, cost).1.allowed);
                }
                tat = next;
                passed += if outcome.allowed { cost } else { 0 };
                prop_assert!(passed <= burst + (now - SECOND) / gcra.interval + 1);
            }
        }
    }
}
