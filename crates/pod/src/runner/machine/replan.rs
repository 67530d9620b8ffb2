//! Another plan for a pod that runs: what changed is restarted, what is new begins, what is gone ends, and the others don't notice.
//!
//! A container keeps its id for the pod's life: one that is taken out keeps its place, and new ones come last. (Kubernetes changes
//! nothing of a running container but its image; the order of the steps is that of `computePodActions`, which kills a container whose
//! definition changed, and starts it in the next round.)
//!
//! The image of the new definition is there before the present run is ended: a registry that is slow, or a tag that does not exist,
//! costs the application nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::BackOff;
use super::pull::{PullFailure, Pulled};
use super::stop::Why;
use super::{
    Action, Container, ContainerStatus, EndedBy, Id, Machine, Now, ProbeGrace, Stage, State,
    at_hand,
};
use crate::plan::{ImageSource, PodPlan, ProbePlan};

/// The plan that is in force from now on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replan {
    /// Every container that there was stands where it stood, those that were taken out as they were; new ones stand after them.
    pub(crate) plan: Arc<PodPlan>,
    /// Whose definition is another, or who is back.
    pub(crate) changed: Vec<Id>,
    /// Who was taken out.
    pub(crate) removed: Vec<Id>,
}

/// How far the next definition of a container that runs has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Its image is asked for.
    Pulling,
    /// Its image can't be had; it will be asked for again.
    PullWait(Instant),
    /// It begins when the present run has ended.
    Due,
}

impl Change {
    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Self::PullWait(until) => Some(until),
            Self::Pulling | Self::Due => None,
        }
    }
}

impl Container {
    /// One that has not begun.
    pub(super) fn new(plan: &Arc<PodPlan>, id: Id, first_step: Duration) -> Self {
        let defined = &plan.containers[id];
        let mut container = Self {
            name: defined.name.clone(),
            role: defined.role,
            plan: Arc::clone(plan),
            wanted: true,
            change: None,
            image: String::new(),
            at_hand: None,
            mounts_images: false,
            pull_step: None,
            unmade: None,
            post_start: false,
            pre_stop: false,
            startup: None,
            readiness: false,
            liveness: None,
            stage: Stage::Idle,
            run: 0,
            started_at: None,
            ended: None,
            backoff: BackOff::new(first_step),
            status: ContainerStatus {
                state: State::initializing(),
                last: None,
                image_id: String::new(),
                restarts: 0,
                ready: false,
                started: false,
            },
        };
        container.define(id);
        container
    }

    /// Takes over what the plan says of it.
    pub(super) fn define(&mut self, id: Id) {
        let grace = |probe: &Option<ProbePlan>| probe.as_ref().map(|probe| ProbeGrace(probe.grace));
        let defined = &self.plan.containers[id];
        self.image = defined.image.clone();
        self.at_hand = at_hand(defined);
        self.mounts_images = self.plan.image_volumes(defined).next().is_some();
        self.post_start = defined.post_start.is_some();
        self.pre_stop = defined.pre_stop.is_some();
        self.startup = grace(&defined.startup);
        self.readiness = defined.readiness.is_some();
        self.liveness = grace(&defined.liveness);
    }
}

impl Machine {
    pub(super) fn replan(&mut self, now: Now, replan: Replan) {
        // What is on its way out is not changed any more.
        if self.stop.is_some() {
            return;
        }
        let Replan {
            plan,
            changed,
            removed,
        } = replan;
        self.grace = plan.grace;
        self.active_deadline = plan.active_deadline;
        let begun = self.begun_at.zip(plan.active_deadline);
        self.deadline = begun.map(|(at, after)| at + after);
        let before = self.containers.first().map(|one| Arc::clone(&one.plan));
        for container in &mut self.containers {
            container.plan = Arc::clone(&plan);
        }
        for id in self.containers.len()..plan.containers.len() {
            let container = Container::new(&plan, id, self.first_step);
            self.containers.push(container);
            self.changed(id);
        }
        for id in changed {
            let source = before.as_ref().map(|before| &before.containers[id].source);
            let other_image = source != Some(&plan.containers[id].source);
            self.redefine(now, id, other_image);
        }
        for id in removed {
            self.remove(now, id);
        }
        // When all restart, all have ended for a while.
        if self.begun && self.mains_ended() && !self.ends_all() {
            self.stop_pod(now, EndedBy::Completion, self.grace);
        }
    }

    fn redefine(&mut self, now: Now, id: Id, other_image: bool) {
        // When all restart, the turns begin anew.
        let turn_has_come = id < self.cursor && !self.ends_all();
        let container = &mut self.containers[id];
        container.wanted = true;
        match container.stage {
            Stage::Idle => container.define(id),
            // Taken out before it has begun, and back.
            Stage::Ended if !turn_has_come => {
                container.define(id);
                container.stage = Stage::Idle;
            }
            Stage::Pulling => {
                self.actions.push(Action::StopProbes { id });
                self.renew(now, id);
            }
            Stage::PullWait(_)
            | Stage::CreateWait { .. }
            | Stage::BackOff { .. }
            | Stage::Ended => {
                self.renew(now, id);
            }
            // It is ended as soon as it can be.
            Stage::Starting | Stage::Stopping(_) => container.change = Some(Change::Due),
            Stage::Up { .. } => {
                let defined = &container.plan.containers[id];
                let pulls = matches!(defined.source, ImageSource::Image(_));
                let waits = matches!(
                    container.change,
                    Some(Change::Pulling | Change::PullWait(_))
                );
                if pulls && (other_image || waits) {
                    container.pull_step = None;
                    self.prefetch(id);
                } else {
                    container.change = Some(Change::Due);
                    self.end_outdated(now, id);
                }
            }
        }
    }

    fn remove(&mut self, now: Now, id: Id) {
        let container = &mut self.containers[id];
        container.wanted = false;
        container.change = None;
        match container.stage {
            Stage::Up { .. } => self.end_outdated(now, id),
            Stage::Idle
            | Stage::Pulling
            | Stage::PullWait(_)
            | Stage::CreateWait { .. }
            | Stage::BackOff { .. } => {
                self.never_again(id);
            }
            Stage::Starting | Stage::Stopping(_) | Stage::Ended => {}
        }
    }

    /// Whether its present run is one that should not be.
    pub(super) fn outdated(&self, id: Id) -> bool {
        let container = &self.containers[id];
        !container.wanted || container.change.is_some()
    }

    /// Ends the run that should not be.
    pub(super) fn end_outdated(&mut self, now: Now, id: Id) {
        let why = match self.containers[id].wanted {
            true => Why::Changed,
            false => Why::Removed,
        };
        self.stop_container(now, id, why, self.grace);
    }

    /// The run that should not be has ended: the next one begins, when there is to be one.
    pub(super) fn renew(&mut self, now: Now, id: Id) {
        let first_step = self.first_step;
        let container = &mut self.containers[id];
        if !container.wanted {
            container.stage = Stage::Ended;
            if self.mains_ended() {
                self.stop_pod(now, EndedBy::Completion, self.grace);
            }
            return;
        }
        container.change = None;
        container.define(id);
        container.pull_step = None;
        (container.unmade, container.ended) = (None, None);
        // Who has failed before has not failed as what it is now.
        container.backoff = BackOff::new(first_step);
        if let State::Terminated(end) = &container.status.state {
            container.status.last = Some(end.clone());
        }
        container.run += 1;
        container.stage = Stage::Idle;
        self.start(now, id);
    }

    fn prefetch(&mut self, id: Id) {
        let container = &mut self.containers[id];
        container.change = Some(Change::Pulling);
        let run = container.run + 1;
        self.actions.push(Action::Pull { id, run });
    }

    /// It runs, and the image of that next run is asked for.
    pub(super) fn prefetches(&self, id: Id, run: u32) -> bool {
        let container = &self.containers[id];
        let up = matches!(container.stage, Stage::Up { .. });
        up && container.change == Some(Change::Pulling) && run == container.run + 1
    }

    pub(super) fn prefetched(
        &mut self,
        now: Now,
        id: Id,
        pulled: Result<Option<Pulled>, PullFailure>,
    ) {
        let failure = match pulled {
            Ok(_) => {
                self.containers[id].change = Some(Change::Due);
                return self.end_outdated(now, id);
            }
            Err(failure) => failure,
        };
        let message = format!(
            "{}: {}; the container goes on as it is",
            failure.reason, failure.message
        );
        self.event(true, "Failed", Some(id), message);
        let first_step = self.first_step;
        let container = &mut self.containers[id];
        let step = container.next_pull_step(first_step);
        container.change = Some(Change::PullWait(now.at + step));
    }

    pub(super) fn tick_change(&mut self, now: Now, id: Id) {
        let container = &self.containers[id];
        let up = matches!(container.stage, Stage::Up { .. });
        let due = container.change.and_then(Change::due);
        if up && due.is_some_and(|due| due <= now.at) {
            self.prefetch(id);
        }
    }
}
