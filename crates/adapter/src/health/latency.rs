//! Latency as health: quantiles over a window, held against a budget.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Latencies that are kept at most; older ones go first, so that a window of more is shorter than it was asked to be. `spec` refuses
/// such a window.
pub(crate) const MOST: usize = 1000;

/// Fewer than so many say nothing.
const FEWEST: usize = 5;

/// Percent of a budget below which who was above it has to come to be within it again.
const BACK_PERCENT: u32 = 80;

/// How long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    pub(crate) window: Duration,
}

/// The latencies of what succeeded in the last window.
#[derive(Debug)]
pub(crate) struct Latencies {
    budget: Budget,
    recent: VecDeque<(Instant, Duration)>,
    over: bool,
}

impl Latencies {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            recent: VecDeque::new(),
            over: false,
        }
    }

    /// Adds one, and judges.
    pub(crate) fn add(&mut self, at: Instant, took: Duration) {
        if self.recent.len() == MOST {
            self.recent.pop_front();
        }
        self.recent.push_back((at, took));
        self.age(at);
    }

    /// Forgets what is older than the window, and judges.
    pub(crate) fn age(&mut self, now: Instant) {
        while let Some((at, _)) = self.recent.front()
            && now.saturating_duration_since(*at) >= self.budget.window
        {
            self.recent.pop_front();
        }
        if self.recent.len() < FEWEST {
            return;
        }
        let percent = if self.over { BACK_PERCENT } else { 100 };
        self.over = self
            .quantiles()
            .into_iter()
            .any(|(_, found, budget)| budget.is_some_and(|budget| found > budget * percent / 100));
    }

    /// How many are in the window.
    pub(crate) fn len(&self) -> usize {
        self.recent.len()
    }

    /// They are above a budget, or were and are not yet well below it.
    pub(crate) fn over(&self) -> bool {
        self.over
    }

    /// Which, by how much: a clause.
    pub(crate) fn told(&self) -> String {
        let percent = if self.over { BACK_PERCENT } else { 100 };
        let above = self
            .quantiles()
            .into_iter()
            .find_map(|(of, found, budget)| {
                let budget = budget?;
                (found > budget * percent / 100).then(|| {
                    format!(
                        "p{of} is {} ms, its budget {} ms (over {} s)",
                        found.as_millis(),
                        budget.as_millis(),
                        self.budget.window.as_secs()
                    )
                })
            });
        above.unwrap_or_else(|| "was slower than its budget".to_owned())
    }

    /// Percent, what was found (by nearest rank), its budget. Empty when there is nothing.
    pub(crate) fn quantiles(&self) -> Vec<(u32, Duration, Option<Duration>)> {
        let mut sorted: Vec<Duration> = self.recent.iter().map(|(_, took)| *took).collect();
        sorted.sort_unstable();
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).max(1) - 1;
        let of = |percent: u32, budget| {
            let found = sorted.get(rank(percent as usize))?;
            Some((percent, *found, budget))
        };
        [of(50, self.budget.p50), of(99, self.budget.p99)]
            .into_iter()
            .flatten()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank_over_the_window() {
        let budget = Budget {
            p50: None,
            p99: Some(Duration::from_millis(98)),
            window: Duration::from_secs(100),
        };
        let mut latencies = Latencies::new(budget);
        let start = Instant::now();
        let found = |latencies: &Latencies| -> Vec<u128> {
            let all = latencies.quantiles().into_iter();
            all.map(|(_, found, _)| found.as_millis()).collect()
        };
        assert!(found(&latencies).is_empty());
        for turn in 1..=100 {
            let at = start + Duration::from_secs(turn);
            latencies.add(at, Duration::from_millis(turn));
            assert_eq!(latencies.over(), turn > 98, "{turn}");
        }
        assert_eq!(found(&latencies), [50, 99]);
        latencies.age(start + Duration::from_secs(150));
        assert_eq!(found(&latencies), [75, 100]);
    }

    #[test]
    fn a_few_say_nothing_and_many_are_bounded() {
        let budget = Budget {
            p50: Some(Duration::from_millis(1)),
            p99: None,
            window: Duration::from_secs(86_400),
        };
        let mut latencies = Latencies::new(budget);
        let now = Instant::now();
        for turn in 1..=3 * MOST {
            latencies.add(now, Duration::from_secs(1));
            assert_eq!(latencies.over(), turn >= FEWEST);
        }
        assert_eq!(latencies.recent.len(), MOST);
    }
}
