//! Bringing containers down: preStop, turn, SIGTERM, SIGKILL; one of them, or the whole pod in order.
//!
//! At a pod's stop all preStop hooks run at once, sidecars' too; the grace period counts from then. A sidecar's
//! SIGTERM waits until the main containers and the sidecars after it have ended, or until the grace period is
//! over. Whoever gets its SIGTERM late still has [`MINIMUM`] before SIGKILL. (Kubernetes: `killContainer`,
//! `terminationOrdering.waitForTurn`.)

use std::time::{Duration, Instant};

use super::{Action, EndedBy, Id, Machine, Now, PodStop, Stage, State};
use crate::plan::Role;
use crate::probe::go_duration;

/// The kubelet's `minimumGracePeriodInSeconds`.
const MINIMUM: Duration = Duration::from_secs(2);

/// The exit code of a container that was killed.
const KILLED: i32 = 137;

/// Why one container is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The pod stops.
    Pod,
    PostStart,
    Startup,
    Liveness,
    /// Its definition is another.
    Changed,
    /// It is in the plan no more.
    Removed,
}

/// How far a container's end has come.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stopping {
    why: Why,
    /// When its grace period is over.
    deadline: Instant,
    /// How long that was, for people.
    grace: Duration,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Its hook runs.
    PreStop,
    /// A sidecar waits for those that need it.
    AwaitTurn,
    /// SIGTERM was sent.
    Term { kill_at: Instant },
    /// SIGKILL was sent; nothing is left to do but wait.
    Killed,
}

impl Stopping {
    pub(super) fn due(&self) -> Option<Instant> {
        match self.step {
            Step::PreStop | Step::AwaitTurn => Some(self.deadline),
            Step::Term { kill_at } => Some(kill_at),
            Step::Killed => None,
        }
    }
}

impl Machine {
    /// The pod is to end. What is under way for an earlier reason goes on.
    pub(super) fn stop_pod(&mut self, now: Now, by: EndedBy, grace: Duration) {
        let deadline = now.at + grace;
        match &mut self.stop {
            None => {
                self.stop = Some(PodStop {
                    by,
                    message: String::new(),
                    deadline,
                    failed_before: self.main_failed_for_good(),
                    forced: false,
                });
            }
            Some(stop) if deadline < stop.deadline => stop.deadline = deadline,
            Some(_) => return,
        }
        for id in 0..self.containers.len() {
            match &mut self.containers[id].stage {
                Stage::Up { .. } => self.stop_container(now, id, Why::Pod, grace),
                Stage::Stopping(stopping) => {
                    stopping.deadline = stopping.deadline.min(deadline);
                    if let Step::Term { kill_at } = &mut stopping.step {
                        *kill_at = (*kill_at).min(deadline.max(now.at + MINIMUM));
                    }
                }
                Stage::Idle
                | Stage::Pulling
                | Stage::PullWait(_)
                | Stage::CreateWait { .. }
                | Stage::BackOff { .. } => {
                    self.never_again(id);
                }
                Stage::Starting | Stage::Ended => {}
            }
        }
        self.give_turns(now);
    }

    /// The pod is to end, now.
    pub(super) fn kill_pod(&mut self, now: Now) {
        let failed_before = self.main_failed_for_good();
        let stop = self.stop.get_or_insert(PodStop {
            by: EndedBy::Request,
            message: String::new(),
            deadline: now.at,
            failed_before,
            forced: true,
        });
        stop.forced = true;
        stop.deadline = now.at;
        for id in 0..self.containers.len() {
            match &self.containers[id].stage {
                Stage::Up { .. } | Stage::Stopping(_) => self.kill(now, id),
                // A start under way may hang on something; the sandbox's end is that of whatever comes of it.
                Stage::Idle
                | Stage::Pulling
                | Stage::PullWait(_)
                | Stage::Starting
                | Stage::CreateWait { .. }
                | Stage::BackOff { .. } => self.never_again(id),
                Stage::Ended => {}
            }
        }
    }

    /// A container whose start was under way when the pod's stop began is there now.
    pub(super) fn stop_late_starter(&mut self, now: Now, id: Id) {
        if let Some(stop) = &self.stop {
            let left = stop.deadline.saturating_duration_since(now.at);
            self.stop_container(now, id, Why::Pod, left);
        }
    }

    /// One container is to end within `grace`.
    pub(super) fn stop_container(&mut self, now: Now, id: Id, why: Why, grace: Duration) {
        let container = &mut self.containers[id];
        let was_ready = std::mem::replace(&mut container.status.ready, false);
        let pre_stop = container.pre_stop && !grace.is_zero();
        container.stage = Stage::Stopping(Stopping {
            why,
            deadline: now.at + grace,
            grace,
            step: Step::PreStop,
        });
        let run = container.run;
        self.actions.push(Action::StopProbes { id });
        if was_ready {
            self.changed(id);
        }
        if pre_stop {
            self.killing_event(id, why);
            let limit = grace;
            self.actions.push(Action::PreStop { id, run, limit });
        } else {
            self.await_turn(now, id, false);
        }
    }

    pub(super) fn pre_stop_done(&mut self, now: Now, id: Id, failed: bool) {
        if let Stage::Stopping(Stopping {
            step: Step::PreStop,
            ..
        }) = self.containers[id].stage
        {
            if failed {
                let message = "PreStopHook failed".to_owned();
                self.event(true, "FailedPreStopHook", Some(id), message);
            }
            self.await_turn(now, id, true);
        }
    }

    /// `told`: the Killing event is out already.
    fn await_turn(&mut self, now: Now, id: Id, told: bool) {
        let turn = self.is_turn(id);
        let container = &mut self.containers[id];
        let Stage::Stopping(stopping) = &mut container.stage else {
            return;
        };
        let waits = stopping.why == Why::Pod && container.role == Role::Sidecar && !turn;
        if waits && now.at < stopping.deadline {
            stopping.step = Step::AwaitTurn;
            return;
        }
        stopping.step = Step::Term {
            kill_at: stopping.deadline.max(now.at + MINIMUM),
        };
        let (why, run) = (stopping.why, container.run);
        // The kubelet tells of all containers at the start of a pod's stop; told when it is so, the events show
        // the order.
        if !told {
            self.killing_event(id, why);
        }
        let kill = false;
        self.actions.push(Action::Signal { id, run, kill });
    }

    /// Whether everything that needs this sidecar has ended.
    fn is_turn(&self, id: Id) -> bool {
        let needs_it =
            |(other, role): (Id, Role)| role == Role::Main || (role == Role::Sidecar && other > id);
        self.containers
            .iter()
            .enumerate()
            .filter(|(other, container)| needs_it((*other, container.role)))
            .all(|(_, container)| container.stage == Stage::Ended)
    }

    /// After an end during the pod's stop: whose turn is it now?
    pub(super) fn give_turns(&mut self, now: Now) {
        for id in (0..self.containers.len()).rev() {
            let awaits = matches!(
                &self.containers[id].stage,
                Stage::Stopping(stopping) if stopping.step == Step::AwaitTurn
            );
            if awaits && self.is_turn(id) {
                self.await_turn(now, id, !self.containers[id].tells_at_turn());
            }
        }
    }

    pub(super) fn tick_stop(&mut self, now: Now, id: Id) {
        let container = &self.containers[id];
        let Stage::Stopping(stopping) = &container.stage else {
            return;
        };
        match stopping.step {
            Step::PreStop if stopping.deadline <= now.at => self.await_turn(now, id, true),
            Step::AwaitTurn if stopping.deadline <= now.at => {
                self.await_turn(now, id, !container.tells_at_turn());
            }
            Step::Term { kill_at } if kill_at <= now.at => {
                let message = format!(
                    "Container {} did not stop within its grace period of {}, killing it",
                    container.name,
                    go_duration(stopping.grace)
                );
                self.event(true, "ExceededGracePeriod", Some(id), message);
                self.kill(now, id);
            }
            _ => {}
        }
    }

    pub(super) fn kill(&mut self, now: Now, id: Id) {
        let container = &mut self.containers[id];
        let (mut why, mut grace) = (Why::Pod, Duration::ZERO);
        if let Stage::Stopping(stopping) = &container.stage {
            if stopping.step == Step::Killed {
                return;
            }
            (why, grace) = (stopping.why, stopping.grace);
        }
        container.stage = Stage::Stopping(Stopping {
            why,
            deadline: now.at,
            grace,
            step: Step::Killed,
        });
        let run = container.run;
        let was_ready = std::mem::replace(&mut container.status.ready, false);
        if was_ready {
            self.changed(id);
        }
        self.actions.push(Action::StopProbes { id });
        let kill = true;
        self.actions.push(Action::Signal { id, run, kill });
    }

    /// A container that does not run will not run again.
    pub(super) fn never_again(&mut self, id: Id) {
        let container = &mut self.containers[id];
        if container.stage == Stage::Pulling {
            self.actions.push(Action::StopProbes { id });
        }
        container.stage = Stage::Ended;
        // How it ended is of more use than that it waited; it has been told already.
        if let Some(end) = container.status.last.take() {
            container.status.state = State::Terminated(end);
        }
    }

    fn main_failed_for_good(&self) -> bool {
        self.containers.iter().any(|container| {
            container.role == Role::Main
                && container.wanted
                && container.stage == Stage::Ended
                && matches!(&container.status.state, State::Terminated(end) if end.code != 0)
        })
    }

    fn killing_event(&mut self, id: Id, why: Why) {
        let name = &self.containers[id].name;
        let failed = match why {
            // The kubelet's words (kuberuntime_container.go, `startContainer`).
            Why::PostStart => {
                return self.event(false, "Killing", Some(id), "FailedPostStartHook".to_owned());
            }
            Why::Pod | Why::Removed => None,
            // (Kubernetes: `computePodActions`)
            Why::Changed => {
                let message = format!("Container {name} definition changed, will be restarted");
                return self.event(false, "Killing", Some(id), message);
            }
            Why::Startup => Some("startup probe"),
            Why::Liveness => Some("liveness probe"),
        };
        let message = match failed {
            None => format!("Stopping container {name}"),
            Some(what) if self.runs_again(id, KILLED) => {
                format!("Container {name} failed {what}, will be restarted")
            }
            Some(what) => format!("Container {name} failed {what}"),
        };
        self.event(false, "Killing", Some(id), message);
    }
}

impl super::Container {
    /// Without a preStop hook the Killing event comes with SIGTERM.
    fn tells_at_turn(&self) -> bool {
        !self.pre_stop
    }
}
