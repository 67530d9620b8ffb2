//! All checks together: what the endpoints answer. No clock, no socket.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::check::{Check, Outcome, Rules, State};
use super::spec::CountsFor;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Live,
    Ready,
    Startup,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 3] = [Self::Live, Self::Ready, Self::Startup];

    /// As in its path.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::Ready => "readyz",
            Self::Startup => "startupz",
        }
    }

    fn takes(self, counts_for: CountsFor) -> bool {
        match self {
            Self::Live => counts_for.live,
            Self::Ready => counts_for.ready,
            Self::Startup => counts_for.startup,
        }
    }
}

/// A check, and what it counts for.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As it was given, for people.
    pub(crate) shown: String,
    pub(crate) counts_for: CountsFor,
    pub(crate) slow_fails: bool,
    pub(crate) check: Check,
}

/// What is known of a check, for an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// It lets the endpoint pass.
    pub(crate) passes: bool,
    pub(crate) state: State,
    /// Empty when there is nothing to say.
    pub(crate) why: String,
    pub(crate) age: Option<Duration>,
}

/// What an endpoint answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) passes: bool,
    /// Of the worst check.
    pub(crate) state: State,
    pub(crate) lines: Vec<Line>,
    /// Of the oldest result that it rests on.
    pub(crate) age: Duration,
    /// Drained by hand, since when.
    pub(crate) drained: Option<Duration>,
    /// The process is stopping.
    pub(crate) stopping: bool,
}

/// All checks by name.
#[derive(Debug, Default)]
pub(crate) struct Board {
    checks: BTreeMap<String, Entry>,
    drained: Option<Instant>,
    /// When the last drain ended.
    undrained: Option<Instant>,
    stopping: bool,
    /// Start-up was over once: it stays so.
    begun: bool,
}

impl Board {
    /// Puts a check there, in the place of one of the same name.
    pub(crate) fn put(&mut self, name: &str, entry: Entry) {
        self.checks.insert(name.to_owned(), entry);
    }

    /// Takes a check away.
    pub(crate) fn remove(&mut self, name: &str) {
        self.checks.remove(name);
    }

    /// A result of a check; the new state and why when it has changed by it.
    pub(crate) fn record(
        &mut self,
        name: &str,
        at: Instant,
        outcome: Outcome,
    ) -> Option<(State, String)> {
        let check = &mut self.checks.get_mut(name)?.check;
        let changed = check.record(at, outcome);
        let now = check.state(at);
        if !self.begun {
            let waits = |entry: &Entry| entry.counts_for.startup && !entry.check.started();
            self.begun = !self.checks.values().any(waits);
        }
        changed.then_some(now)
    }

    /// Drains by hand, or ends that. False when it was so already.
    pub(crate) fn drain(&mut self, drained: bool, now: Instant) -> bool {
        match (drained, self.drained) {
            (true, None) => self.drained = Some(now),
            (false, Some(_)) => {
                self.drained = None;
                self.undrained = Some(now);
            }
            _ => return false,
        }
        true
    }

    /// The process is stopping: nothing is ready any more.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// How long ago the last drain ended; None while one is on, or when there was none.
    pub(crate) fn undrained(&self, now: Instant) -> Option<Duration> {
        let at = self.undrained.filter(|_| self.drained.is_none())?;
        Some(now.saturating_duration_since(at))
    }

    /// What an endpoint answers; `only`: by this check alone (None when there is none of that name).
    pub(crate) fn verdict(
        &self,
        endpoint: Endpoint,
        only: Option<&str>,
        now: Instant,
    ) -> Option<Verdict> {
        let counts = |name: &str, entry: &Entry| match only {
            Some(only) => name == only,
            None => endpoint.takes(entry.counts_for),
        };
        let those = self.checks.iter();
        let lines: Vec<Line> = those
            .filter(|(name, entry)| counts(name, entry))
            .map(|(name, entry)| self.line(endpoint, name, entry, now))
            .collect();
        if only.is_some() && lines.is_empty() {
            return None;
        }
        let state = [State::Unhealthy, State::Unknown, State::Degraded]
            .into_iter()
            .find(|state| lines.iter().any(|line| line.state == *state));
        let whole = only.is_none() && endpoint == Endpoint::Ready;
        let drained = self.drained.filter(|_| whole);
        let stopping = self.stopping && whole;
        let passes = lines.iter().all(|line| line.passes) && drained.is_none() && !stopping;
        Some(Verdict {
            passes,
            state: state.unwrap_or(State::Healthy),
            age: lines
                .iter()
                .filter_map(|line| line.age)
                .max()
                .unwrap_or_default(),
            lines,
            drained: drained.map(|at| now.saturating_duration_since(at)),
            stopping,
        })
    }

    fn line(&self, endpoint: Endpoint, name: &str, entry: &Entry, now: Instant) -> Line {
        let (state, why) = entry.check.state(now);
        let passes = match (endpoint, state) {
            (Endpoint::Startup, _) => self.begun || entry.check.started(),
            (_, State::Healthy) => true,
            (_, State::Degraded) => endpoint == Endpoint::Live || !entry.slow_fails,
            // Who is not known to be dead lives.
            (endpoint, State::Unknown) => endpoint == Endpoint::Live,
            (Endpoint::Live, State::Unhealthy) => !entry.check.is_known_bad(),
            (Endpoint::Ready, State::Unhealthy) => false,
        };
        Line {
            name: name.to_owned(),
            passes,
            state,
            why,
            age: entry.check.age(now),
        }
    }

    /// All checks.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.checks
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }
}

impl Entry {
    /// One without results.
    pub(crate) fn new(
        shown: String,
        counts_for: CountsFor,
        slow_fails: bool,
        rules: Rules,
    ) -> Self {
        Self {
            shown,
            counts_for,
            slow_fails,
            check: Check::new(rules),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::latency::Budget;
    use crate::health::phases::Times;

    fn counts(text: &str) -> CountsFor {
        CountsFor {
            live: text.contains("live"),
            ready: text.contains("ready"),
            startup: text.contains("startup"),
        }
    }

    /// A board with a check for each of `checks`: failure threshold 2, success threshold 1.
    fn board(checks: &[(&str, &str)]) -> Board {
        let mut board = Board::default();
        for (name, counts_for) in checks {
            let rules = Rules {
                period: Duration::from_secs(5),
                timeout: Duration::from_secs(1),
                failure: 2,
                success: 1,
                budget: Budget {
                    p50: None,
                    p99: Some(Duration::from_millis(100)),
                    window: Duration::from_secs(60),
                },
                history: 10,
            };
            let slow_fails = counts_for.contains("slow");
            let entry = Entry::new(String::new(), counts(counts_for), slow_fails, rules);
            board.put(name, entry);
        }
        board
    }

    fn outcome(good: bool, millis: u64) -> Outcome {
        Outcome {
            said: if good {
                Ok(String::new())
            } else {
                Err("no".to_owned())
            },
            took: Duration::from_millis(millis),
            times: Times::default(),
        }
    }

    #[track_caller]
    fn check(board: &Board, now: Instant, live: bool, ready: bool, startup: bool) {
        let passes = |endpoint| board.verdict(endpoint, None, now).unwrap().passes;
        let found = Endpoint::ALL.map(passes);
        assert_eq!(found, [live, ready, startup]);
    }

    #[test]
    fn each_endpoint_has_its_checks() {
        let mut board = board(&[("a", "live startup"), ("b", "ready")]);
        let now = Instant::now();
        check(&board, now, true, false, false);
        board.record("b", now, outcome(true, 1));
        check(&board, now, true, true, false);
        board.record("a", now, outcome(false, 1));
        check(&board, now, true, true, false);
        let changed = board.record("a", now, outcome(false, 1));
        assert_eq!(changed, Some((State::Unhealthy, "no".to_owned())));
        check(&board, now, false, true, false);
        board.record("a", now, outcome(true, 1));
        check(&board, now, true, true, true);
        for _ in 0..2 {
            board.record("a", now, outcome(false, 1));
        }
        check(&board, now, false, true, true);
        let line = &board.verdict(Endpoint::Live, None, now).unwrap().lines[0];
        assert_eq!((line.name.as_str(), line.why.as_str()), ("a", "no"));
    }

    #[test]
    fn nothing_to_check_passes() {
        check(&board(&[]), Instant::now(), true, true, true);
    }

    #[test]
    fn a_drain_takes_readiness_away_and_nothing_else() {
        let mut board = board(&[("a", "live ready startup")]);
        let now = Instant::now();
        board.record("a", now, outcome(true, 1));
        check(&board, now, true, true, true);
        assert!(board.drain(true, now));
        assert!(!board.drain(true, now));
        check(&board, now, true, false, true);
        let verdict = board.verdict(Endpoint::Ready, None, now + Duration::from_secs(3));
        assert_eq!(verdict.unwrap().drained, Some(Duration::from_secs(3)));
        assert!(
            board
                .verdict(Endpoint::Ready, Some("a"), now)
                .unwrap()
                .passes
        );
        assert!(board.drain(false, now));
        check(&board, now, true, true, true);
        assert_eq!(board.undrained(now), Some(Duration::ZERO));
        board.stop();
        check(&board, now, true, false, true);
    }

    #[test]
    fn who_is_slow_is_ready_unless_that_is_not_wanted() {
        let mut board = board(&[("a", "live ready"), ("b", "live ready slow")]);
        let now = Instant::now();
        for name in ["a", "b"] {
            for _ in 0..5 {
                board.record(name, now, outcome(true, 500));
            }
        }
        check(&board, now, true, false, true);
        let of = |name| board.verdict(Endpoint::Ready, Some(name), now).unwrap();
        assert_eq!((of("a").passes, of("a").state), (true, State::Degraded));
        assert_eq!((of("b").passes, of("b").state), (false, State::Degraded));
        assert!(board.verdict(Endpoint::Ready, Some("c"), now).is_none());
    }

    #[test]
    fn a_verdict_is_as_old_as_the_oldest_result() {
        let mut board = board(&[("a", "live ready"), ("b", "ready")]);
        let now = Instant::now();
        board.record("a", now, outcome(true, 1));
        board.record("b", now + Duration::from_secs(4), outcome(true, 1));
        let at = now + Duration::from_secs(6);
        let verdict = board.verdict(Endpoint::Ready, None, at).unwrap();
        assert_eq!(verdict.age, Duration::from_secs(6));
        // Without results for long it is not ready; what is alive is not known to be dead.
        check(&board, now + Duration::from_secs(3600), true, false, true);
    }
}
