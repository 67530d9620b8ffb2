//! When a container is probed and what follows: the kubelet's `prober.worker` as a state machine.
//!
//! ```text
//!   start ──► startup probe (if any) ── success ──► readiness and liveness probes, each at its own period
//!                   │ failureThreshold                   readiness: Ready | not, both ways by thresholds
//!                   ▼                                    liveness: failureThreshold ──► restart
//!                restart
//! ```
//!
//! One value belongs to one run of a container: after a restart a new one is made. That is the kubelet's "on hold until a
//! new container id": however many probes fail while the container is being stopped, it is restarted once.

use std::fmt;
use std::time::{Duration, Instant};

use super::Outcome;
use crate::plan::{ContainerPlan, ProbePlan};

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// `startupProbe`.
    Startup,
    /// `readinessProbe`.
    Readiness,
    /// `livenessProbe`.
    Liveness,
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        })
    }
}

/// What a result has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The startup probe has succeeded: the container counts as started, and without a readiness probe as ready.
    Started,
    /// The readiness probe says something else than before.
    Ready(bool),
    /// The liveness or the startup probe has failed for good: the container is to be restarted.
    Restart {
        /// Which of the two.
        kind: ProbeKind,
        /// The probe's own `terminationGracePeriodSeconds`, before the pod's.
        grace: Option<Duration>,
    },
}

/// The probes of one run of a container.
#[derive(Debug)]
pub struct ProbeState {
    probes: Vec<Worker>,
    started: bool,
    ready: bool,
}

#[derive(Debug)]
struct Worker {
    kind: ProbeKind,
    plan: ProbePlan,
    /// When the next attempt is due; while one is under way, when that was.
    due: Instant,
    under_way: bool,
    /// No more attempts in this run.
    over: bool,
    /// The last result that counted, and how often in a row.
    last: Option<bool>,
    in_a_row: u32,
}

impl ProbeState {
    /// The container has just started.
    pub fn new(container: &ContainerPlan, now: Instant) -> Self {
        let worker = |kind, plan: &Option<ProbePlan>| {
            plan.as_ref().map(|plan| Worker {
                kind,
                due: now + plan.initial_delay,
                plan: plan.clone(),
                under_way: false,
                over: false,
                last: None,
                in_a_row: 0,
            })
        };
        let probes = [
            worker(ProbeKind::Startup, &container.startup),
            worker(ProbeKind::Readiness, &container.readiness),
            worker(ProbeKind::Liveness, &container.liveness),
        ];
        Self {
            probes: probes.into_iter().flatten().collect(),
            started: container.startup.is_none(),
            ready: container.readiness.is_none(),
        }
    }

    /// The startup probe has succeeded, or there is none. (Kubernetes: `containerStatuses[].started`.)
    pub fn started(&self) -> bool {
        self.started
    }

    /// Started, and the readiness probe agrees or there is none. (Kubernetes: `containerStatuses[].ready`.)
    pub fn ready(&self) -> bool {
        self.started && self.ready
    }

    /// The plan of a probe, for the attempt.
    pub fn plan(&self, kind: ProbeKind) -> Option<&ProbePlan> {
        let found = self.probes.iter().find(|p| p.kind == kind);
        found.map(|p| &p.plan)
    }

    /// When the next attempt is due; none while all are under way, over, or wait for the startup probe.
    pub fn wake_at(&self) -> Option<Instant> {
        let open = self.probes.iter().filter(|p| self.is_open(p));
        open.map(|p| p.due).min()
    }

    /// A probe that is due, if there is one; it counts as under way until [`ProbeState::record`]. To be asked until there is none.
    pub fn take_due(&mut self, now: Instant) -> Option<ProbeKind> {
        let at = self
            .probes
            .iter()
            .position(|p| self.is_open(p) && p.due <= now)?;
        self.probes[at].under_way = true;
        Some(self.probes[at].kind)
    }

    fn is_open(&self, probe: &Worker) -> bool {
        let waits = probe.kind != ProbeKind::Startup && !self.started;
        !probe.under_way && !probe.over && !waits
    }

    /// What came of an attempt.
    pub fn record(&mut self, kind: ProbeKind, outcome: &Outcome, now: Instant) -> Option<Change> {
        let probe = self.probes.iter_mut().find(|p| p.kind == kind)?;
        probe.under_way = false;
        // At its period, whatever an attempt took; one that took longer is followed at once.
        probe.due = (probe.due + probe.plan.period).max(now);
        let good = match outcome {
            Outcome::Success | Outcome::Warning(_) => true,
            Outcome::Failure(_) => false,
            Outcome::Unknown(_) => return None,
        };
        if probe.over {
            return None;
        }
        if probe.last == Some(good) {
            probe.in_a_row = probe.in_a_row.saturating_add(1);
        } else {
            probe.last = Some(good);
            probe.in_a_row = 1;
        }
        let threshold = match good {
            true => probe.plan.success_threshold,
            false => probe.plan.failure_threshold,
        };
        if probe.in_a_row < threshold {
            return None;
        }
        let grace = probe.plan.grace;
        match (kind, good) {
            (ProbeKind::Startup, true) => {
                probe.over = true;
                self.started = true;
                // The others need not wait out a period that began before they could run.
                for other in &mut self.probes {
                    other.due = other.due.max(now);
                }
                Some(Change::Started)
            }
            (ProbeKind::Readiness, good) => {
                let changed = self.ready != good;
                self.ready = good;
                changed.then_some(Change::Ready(good))
            }
            (ProbeKind::Liveness, true) => None,
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                probe.over = true;
                Some(Change::Restart { kind, grace })
            }
        }
    }

    /// A try out of turn has succeeded: it counts like an attempt, and the next is due a period from now.
    pub fn record_early(&mut self, kind: ProbeKind, now: Instant) -> Option<Change> {
        let probe = self.probes.iter_mut().find(|p| p.kind == kind)?;
        probe.due = now;
        self.record(kind, &Outcome::Success, now)
    }

    /// The container is being stopped: it is no more restarted for its probes, but still says whether it is ready.
    pub fn stop(&mut self) {
        for probe in &mut self.probes {
            probe.over |= probe.kind != ProbeKind::Readiness;
        }
    }
}
