//! The kubelet's restart back-off, one per container.
//!
//! The first restart is at once; then the wait is the first step and doubles up to the cap. It counts from the
//! *end* of the container, and whoever has run for twice the cap starts over. (Kubernetes:
//! `kuberuntime_manager.doBackOff` over `client-go/util/flowcontrol.Backoff`.)
//!
//! `--backoff` scales the whole schedule, because in development a cap of five minutes after a first step of one
//! second would be worse than none: the cap stays 30 times and the reset 60 times the first step, as 10 s, 5 m and
//! 10 m are.

use std::time::{Duration, Instant};

/// The kubelet's first step.
pub const FIRST_STEP: Duration = Duration::from_secs(10);
/// The cap, in first steps.
const CAP: u32 = 30;
/// After how long a run, in first steps, the back-off starts over.
const RESET: u32 = 60;

/// When a container that has ended may start again.
#[derive(Debug, Clone)]
pub(crate) struct BackOff {
    first: Duration,
    /// What the next wait is, and when the last restart was. None: no restart yet.
    next: Option<(Duration, Instant)>,
}

impl BackOff {
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, next: None }
    }

    /// How long a container that ended at `ended` waits.
    pub(crate) fn wait(&self, ended: Instant) -> Duration {
        match self.next {
            Some((step, restarted))
                if ended.saturating_duration_since(restarted) <= self.first * RESET =>
            {
                step
            }
            _ => Duration::ZERO,
        }
    }

    /// Notes that the container that ended at `ended` starts again at `now`.
    pub(crate) fn restarted(&mut self, ended: Instant, now: Instant) {
        let step = match self.wait(ended) {
            Duration::ZERO => self.first,
            waited => (waited * 2).min(self.first * CAP),
        };
        self.next = Some((step, now));
    }
}
