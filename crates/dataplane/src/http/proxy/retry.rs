//! When a request may be sent again, and how often (no I/O; time is an argument).
//!
//! A request that was never sent costs its next endpoint nothing that it would not have cost anyway, and is only bounded by
//! `--retries`. One that may have been acted upon is sent again only if its method says that this changes nothing (RFC 9110 section
//! 9.2.2), and only within a budget: when everything fails, retries must not multiply the load (as Finagle's
//! RetryBudget: each request earns a part of a retry, and a few a second are free).

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// How often a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retries {
    /// More tries than the first, at most.
    pub most: u32,
    /// Retries per hundred requests, on average over all; a few a second are free.
    pub budget_percent: u16,
    /// How long one try waits for the head of the answer; None: as long as the request may.
    pub try_timeout: Option<Duration>,
}

impl Retries {
    /// One endpoint, one try.
    pub const NONE: Self = Self {
        most: 0,
        budget_percent: 0,
        try_timeout: None,
    };
}

/// Retries a second that are free, so that a service with little traffic has any.
const FREE_PER_SECOND: f64 = 10.0;

/// Retries that can be saved up: what is in flight at an endpoint that dies all at once.
const SAVED: f64 = 100.0;

/// A retry, in the unit of what is left.
const ONE: f64 = 100.0;

/// A worker's retries.
#[derive(Debug)]
pub(super) struct Budget {
    each: f64,
    /// In hundredths of a retry.
    left: Cell<f64>,
    filled: Cell<Option<Instant>>,
}

impl Budget {
    pub(super) fn new(retries: Retries) -> Self {
        Self {
            each: retries.budget_percent.into(),
            left: Cell::new(SAVED * ONE),
            filled: Cell::new(None),
        }
    }

    /// A request came.
    pub(super) fn earn(&self) {
        self.left
            .set((self.left.get() + self.each).min(SAVED * ONE));
    }

    /// Takes a retry, if one is left at `now`.
    pub(super) fn spend(&self, now: Instant) -> bool {
        if let Some(then) = self.filled.replace(Some(now)) {
            let free = now.saturating_duration_since(then).as_secs_f64() * FREE_PER_SECOND;
            self.left
                .set((self.left.get() + free * ONE).min(SAVED * ONE));
        }
        let left = self.left.get();
        if left < ONE {
            return false;
        }
        self.left.set(left - ONE);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_part_of_the_requests_and_a_few_a_second() {
        let budget = Budget::new(Retries {
            most: 3,
            budget_percent: 20,
            try_timeout: None,
        });
        let start = Instant::now();
        let spend = |at: Duration| (0..1000).take_while(|_| budget.spend(start + at)).count();
        assert_eq!(spend(Duration::ZERO), 100);
        (0..50).for_each(|_| budget.earn());
        assert_eq!(spend(Duration::ZERO), 10);
        assert_eq!(spend(Duration::from_secs(2)), 20);
        // What is saved up is bounded, by time and by requests.
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!(spend(Duration::from_secs(3600)), 100);
    }
}
