//! What a worker has of keys that others own: units that the owner has charged already, and refusals (no I/O).
//!
//! A batch is one request's units at first and doubles when it was spent within [`QUICK`], up to an eighth of the burst or what the
//! rate pays for in a tenth of a second, whichever is less: a low rate asks its owner each time, and what is leased and
//! never spent stays far below what the owner would have allowed. The cache has a fixed size; a key that takes another one's place
//! costs the other its few units, so too little is allowed rather than too much.

use super::super::gcra::{Gcra, Outcome};
use super::wire::{Answer, Ask};

/// Keys that a worker remembers, a power of two.
const KEYS: usize = 4096;
/// A batch that was spent sooner (nanoseconds) was too small.
const QUICK: u64 = 100_000_000;
/// Units that were not spent for so long (nanoseconds) were paid for by a past that is over.
const STALE: u64 = 1_000_000_000;
/// A refusal is remembered for so long at least (nanoseconds), unless an eighth of the burst is less.
const REFUSED: u64 = 20_000_000;

#[derive(Debug, Clone, Copy)]
struct Lease {
    tag: u64,
    /// Units left.
    left: u64,
    /// Units that were asked for last.
    batch: u64,
    /// When the last batch came.
    since: u64,
    /// Nothing before: the owner has refused.
    refused_until: u64,
    /// Where the key stood then.
    outcome: Outcome,
}

/// Leases of one worker.
#[derive(Debug)]
pub(super) struct Leases(Box<[Option<Lease>]>);

/// What a worker knows of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Known(Outcome),
    /// The owner must be asked for so many units.
    Ask(u64),
}

impl Leases {
    pub(super) fn new() -> Self {
        Self(vec![None; KEYS].into())
    }

    fn at(&mut self, tag: u64) -> &mut Option<Lease> {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
        let at = tag as usize % KEYS;
        &mut self.0[at]
    }

    /// A request of `cost` at `now` (nanoseconds of any clock).
    pub(super) fn take(&mut self, tag: u64, gcra: &Gcra, now: u64, cost: u64) -> Taken {
        let slot = self.at(tag);
        let Some(lease) = slot.as_mut().filter(|lease| lease.tag == tag) else {
            return Taken::Ask(cost);
        };
        let age = now.saturating_sub(lease.since);
        let passed = |nanos: u64| nanos.saturating_sub(age);
        if now < lease.refused_until {
            return Taken::Known(Outcome {
                full_after: passed(lease.outcome.full_after),
                more_after: passed(lease.outcome.more_after).max(1),
                retry_after: passed(lease.outcome.retry_after).max(1),
                ..lease.outcome
            });
        }
        if lease.left >= cost && age < STALE {
            lease.left -= cost;
            return Taken::Known(Outcome {
                remaining: lease.outcome.remaining + lease.left,
                full_after: passed(lease.outcome.full_after),
                more_after: passed(lease.outcome.more_after),
                ..lease.outcome
            });
        }
        let most = (gcra.burst() / 8).min(QUICK / gcra.interval());
        let next = match age < QUICK && lease.outcome.allowed {
            true => lease.batch.saturating_mul(2),
            false => lease.batch / 2,
        };
        // Whole requests.
        Taken::Ask((next.min(most) / cost * cost).max(cost))
    }

    /// The owner has answered `ask`.
    pub(super) fn put(&mut self, ask: &Ask, answer: &Answer, now: u64) {
        let allowed = answer.granted >= ask.cost;
        let outcome = Outcome {
            allowed,
            remaining: answer.remaining,
            full_after: answer.full_after,
            more_after: answer.more_after,
            retry_after: answer.retry_after,
        };
        let pause = REFUSED.min(ask.interval.saturating_mul(ask.burst) / 8);
        let refused_until = match allowed {
            true => 0,
            false => now.saturating_add(answer.retry_after.max(pause)),
        };
        let slot = self.at(ask.tag);
        let kept = slot.filter(|lease| lease.tag == ask.tag && now < lease.since + STALE);
        *slot = Some(Lease {
            tag: ask.tag,
            left: kept.map_or(0, |lease| lease.left) + answer.granted,
            batch: ask.wanted,
            since: now,
            refused_until,
            outcome,
        });
    }
}
