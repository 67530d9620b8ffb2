//! What a try is doing, so that a result can say how long each part of it took, and one that was given up where it hung.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// A part of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Dns,
    Connect,
    Tls,
    /// Saying who one is, and all else that a new connection begins with.
    Auth,
    /// What is asked, and the answer.
    Query,
}

/// All of them, in order.
pub(crate) const PHASES: [Phase; 5] = [
    Phase::Dns,
    Phase::Connect,
    Phase::Tls,
    Phase::Auth,
    Phase::Query,
];

impl Phase {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Query => "query",
        }
    }
}

/// How long each took. None: there was no need for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Times([Option<Duration>; PHASES.len()]);

impl Times {
    /// Those that there were.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Phase, Duration)> {
        let each = PHASES.into_iter().zip(self.0);
        each.filter_map(|(phase, time)| Some((phase, time?)))
    }
}

/// Watches a try.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    now: Cell<Option<(Phase, Instant)>>,
    times: Cell<Times>,
}

impl Phases {
    /// What comes now is `phase`.
    pub(crate) fn enter(&self, phase: Phase) {
        self.leave();
        self.now.set(Some((phase, Instant::now())));
    }

    /// What it is in.
    pub(crate) fn current(&self) -> Option<Phase> {
        self.now.get().map(|(phase, _)| phase)
    }

    /// It is over, one way or the other.
    pub(crate) fn end(&self) -> Times {
        self.leave();
        self.times.get()
    }

    fn leave(&self) {
        if let Some((phase, since)) = self.now.take() {
            let mut times = self.times.get();
            *times.0[phase as usize].get_or_insert_default() += since.elapsed();
            self.times.set(times);
        }
    }
}
