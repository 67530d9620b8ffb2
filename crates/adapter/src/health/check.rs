//! One check: what its results make of it. No clock, no socket: results and times come in as arguments.
//!
//! ```text
//!               success × N                     p50 or p99 above its budget
//!   unknown ──────────────▶ healthy ◀────────────────────────────────▶ degraded
//!      │                       │  ▲     both at most 80 % of it           │
//!      │ failure × M           │  ╰──────────── success × N ──╮           │
//!      ╰─────────────────────▶ unhealthy ◀── failure × M ─────┴───────────╯
//! ```
//!
//! Results are judged in a row, so that one that fails or succeeds by chance changes nothing; latencies are judged over a window, so
//! that one that is slow changes nothing either.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::latency::{Budget, Latencies};
use super::phases::Times;

/// Bytes of an error or a detail that are kept of a result.
const TEXT_BYTES: usize = 512;

/// How many times a period and a timeout may pass without a result before the verdict counts no more.
const STALE_ROUNDS: u32 = 3;

/// What a check is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    /// Failures in a row that make it unhealthy.
    pub(crate) failure: u32,
    /// Successes in a row that make it healthy.
    pub(crate) success: u32,
    pub(crate) budget: Budget,
    /// Results that are kept for `/why`.
    pub(crate) history: usize,
}

/// What is thought of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Too few results came yet.
    Unknown,
    Healthy,
    /// It works, and is slower than it may be.
    Degraded,
    Unhealthy,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [
        Self::Unknown,
        Self::Healthy,
        Self::Degraded,
        Self::Unhealthy,
    ];

    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How one try went.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// What was found; or why it failed, a clause.
    pub(crate) said: Result<String, String>,
    pub(crate) took: Duration,
    pub(crate) times: Times,
}

/// An outcome, and when it came.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) at: Instant,
    pub(crate) outcome: Outcome,
}

/// One check's results and what they make of it.
#[derive(Debug)]
pub(crate) struct Check {
    rules: Rules,
    /// Without latency: that is judged apart.
    works: Option<bool>,
    /// Results in a row that are as the last one.
    row: u32,
    latencies: Latencies,
    kept: VecDeque<Kept>,
    /// It was healthy or degraded once.
    started: bool,
    /// When the state became what it is.
    since: Option<(State, Instant)>,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

impl Check {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            latencies: Latencies::new(rules.budget.clone()),
            rules,
            works: None,
            row: 0,
            kept: VecDeque::new(),
            started: false,
            since: None,
            succeeded: 0,
            failed: 0,
        }
    }

    /// A result has come. True when the state has changed by it.
    pub(crate) fn record(&mut self, at: Instant, mut outcome: Outcome) -> bool {
        let good = outcome.said.is_ok();
        let (Ok(text) | Err(text)) = &mut outcome.said;
        cut(text);
        let same = self
            .last()
            .is_some_and(|last| last.outcome.said.is_ok() == good);
        self.row = if same { self.row.saturating_add(1) } else { 1 };
        match good {
            true => {
                self.succeeded += 1;
                self.latencies.add(at, outcome.took);
                if self.row >= self.rules.success {
                    self.works = Some(true);
                    self.started = true;
                }
            }
            false => {
                self.failed += 1;
                self.latencies.age(at);
                if self.row >= self.rules.failure {
                    self.works = Some(false);
                }
            }
        }
        while self.kept.len() >= self.rules.history {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { at, outcome });
        let state = self.judged();
        let changed = self.since.is_none_or(|(known, _)| known != state);
        if changed {
            self.since = Some((state, at));
        }
        changed
    }

    fn judged(&self) -> State {
        match self.works {
            None => State::Unknown,
            Some(false) => State::Unhealthy,
            Some(true) if self.latencies.over() => State::Degraded,
            Some(true) => State::Healthy,
        }
    }

    /// What is thought of it now, and why when that is not healthy.
    pub(crate) fn state(&self, now: Instant) -> (State, String) {
        if let Some(age) = self.age(now).filter(|age| *age > self.lifetime()) {
            let why = format!("has no result since {} s", age.as_secs());
            return (State::Unhealthy, why);
        }
        let state = self.judged();
        let failed = || {
            let last = self.kept.iter().rev();
            last.map(|kept| &kept.outcome.said)
                .find_map(|said| said.as_ref().err().cloned())
        };
        let why = match state {
            State::Healthy => String::new(),
            State::Degraded => self.latencies.told(),
            State::Unhealthy => failed().unwrap_or_default(),
            State::Unknown => failed().unwrap_or_else(|| "has no result yet".to_owned()),
        };
        (state, why)
    }

    /// How old the last result is.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        let last = self.last()?;
        Some(now.saturating_duration_since(last.at))
    }

    /// How long a result counts: who was stopped for long knows nothing of the present.
    fn lifetime(&self) -> Duration {
        (self.rules.period + self.rules.timeout) * STALE_ROUNDS
    }

    /// Its last results failed, however old they are.
    pub(crate) fn is_known_bad(&self) -> bool {
        self.works == Some(false)
    }

    /// It was healthy once.
    pub(crate) fn started(&self) -> bool {
        self.started
    }

    /// Since when the state is what it is.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since.map(|(_, at)| at)
    }

    /// The last result.
    pub(crate) fn last(&self) -> Option<&Kept> {
        self.kept.back()
    }

    /// The last results, the newest first.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().rev()
    }

    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }
}

/// Shortens a text, between characters.
fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES {
        let end = (0..=TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            period: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            failure: 3,
            success: 2,
            budget: Budget {
                p50: Some(Duration::from_millis(100)),
                p99: None,
                window: Duration::from_secs(60),
            },
            history: 4,
        }
    }

    fn outcome(good: bool, millis: u64) -> Outcome {
        Outcome {
            said: match good {
                true => Ok("pong".to_owned()),
                false => Err("refused".to_owned()),
            },
            took: Duration::from_millis(millis),
            times: Times::default(),
        }
    }

    /// What comes of results, `+` and `-`, one each period.
    #[track_caller]
    fn check(results: &str, expected: State) {
        let mut check = Check::new(rules());
        let mut now = Instant::now();
        for result in results.chars() {
            now += Duration::from_secs(5);
            check.record(now, outcome(result == '+', 1));
        }
        assert_eq!(check.state(now).0, expected, "{results}");
    }

    #[test]
    fn results_in_a_row_change_the_state_and_single_ones_do_not() {
        check("", State::Unknown);
        check("+", State::Unknown);
        check("++", State::Healthy);
        check("++--", State::Healthy);
        check("++--+--", State::Healthy);
        check("++---", State::Unhealthy);
        check("++---+", State::Unhealthy);
        check("++---+-+-+", State::Unhealthy);
        check("++---++", State::Healthy);
        check("--", State::Unknown);
        check("---", State::Unhealthy);
        check("+-+-+-", State::Unknown);
    }

    #[test]
    fn a_change_is_told_once_and_with_its_time() {
        let mut check = Check::new(rules());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(check.record(at(0), outcome(false, 1)), "it was nothing");
        assert!(!check.record(at(5), outcome(false, 1)));
        assert!(check.record(at(10), outcome(false, 1)));
        assert!(!check.record(at(15), outcome(false, 1)));
        assert_eq!(check.since(), Some(at(10)));
        assert_eq!(
            check.state(at(16)),
            (State::Unhealthy, "refused".to_owned())
        );
        assert_eq!(check.age(at(16)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn who_is_slow_is_degraded_until_it_is_well_below_its_budget() {
        let mut check = Check::new(rules());
        let mut now = Instant::now();
        let mut feed = |count: u32, millis: u64| {
            for _ in 0..count {
                now += Duration::from_secs(5);
                check.record(now, outcome(true, millis));
            }
            check.state(now)
        };
        assert_eq!(feed(12, 50).0, State::Healthy);
        assert_eq!(feed(5, 300).0, State::Healthy, "half of them are fast");
        let (state, why) = feed(8, 300);
        assert_eq!(state, State::Degraded);
        assert_eq!(why, "p50 is 300 ms, its budget 100 ms (over 60 s)");
        assert_eq!(feed(13, 90).0, State::Degraded, "90 is not 80");
        assert_eq!(feed(13, 80).0, State::Healthy);
    }

    #[test]
    fn a_verdict_without_new_results_counts_no_more() {
        let mut check = Check::new(rules());
        let start = Instant::now();
        check.record(start, outcome(true, 1));
        check.record(start, outcome(true, 1));
        assert_eq!(
            check.state(start + Duration::from_secs(18)).0,
            State::Healthy
        );
        let (state, why) = check.state(start + Duration::from_secs(19));
        assert_eq!(state, State::Unhealthy);
        assert_eq!(why, "has no result since 19 s");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut check = Check::new(rules());
        let now = Instant::now();
        let long = "ä".repeat(1000);
        for turn in 0..100 {
            let said = Err(long.clone());
            let took = Duration::from_millis(turn);
            let times = Times::default();
            check.record(now, Outcome { said, took, times });
        }
        let kept: Vec<_> = check
            .kept()
            .map(|kept| kept.outcome.took.as_millis())
            .collect();
        assert_eq!(kept, [99, 98, 97, 96]);
        assert!(check.state(now).1.len() <= TEXT_BYTES + 3);
    }
}
