//! RestartAllContainers of `restartPolicyRules`: the end of one container is that of all, and the pod begins anew in the same sandbox, with
//! the same volumes. (KEP-5532)
//!
//! As with the kubelet, whatever runs is killed, without preStop hooks and without grace. When nothing runs any more the containers begin in
//! their order, init containers too; the wait before that is the back-off of the container whose end asked for it.

use std::time::Instant;

use super::{Action, Id, Machine, Now, Phase, Stage, State};

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AllAgain {
    /// Never asked for.
    Never,
    /// They end; at this time at the earliest they begin anew.
    Ending { begins: Instant },
    /// They have begun anew.
    Begun,
}

impl Machine {
    /// The condition `AllContainersRestarting`; none: it never came to that.
    pub(crate) fn restarts_all(&self) -> Option<bool> {
        match self.all_again {
            AllAgain::Never => None,
            AllAgain::Ending { .. } => Some(true),
            AllAgain::Begun => Some(false),
        }
    }

    pub(super) fn ends_all(&self) -> bool {
        matches!(self.all_again, AllAgain::Ending { .. }) && self.stop.is_none()
    }

    /// Whether the end of a container with `code` is that of all.
    pub(super) fn asks_for_all(&self, id: Id, code: i32) -> bool {
        let plan = &self.containers[id].plan;
        plan.containers[id].restarts_all(code)
    }

    /// The end of this one was that of all.
    pub(super) fn restart_all(&mut self, now: Now, id: Id) {
        let container = &mut self.containers[id];
        container.ended = Some(now.at);
        let begins = now.at + container.backoff.wait(now.at);
        let message = format!(
            "Container {} has ended: all containers restart",
            container.name
        );
        self.all_again = AllAgain::Ending { begins };
        self.event(false, "RestartAllContainers", Some(id), message);
        (self.phase, self.ready) = (Phase::Pending, false);
        self.actions.push(Action::PodChanged {
            phase: self.phase,
            ready: self.ready,
        });
        for id in 0..self.containers.len() {
            let container = &mut self.containers[id];
            match &container.stage {
                Stage::Up { .. } | Stage::Stopping(_) => self.kill(now, id),
                Stage::Pulling | Stage::PullWait(_) | Stage::CreateWait { .. } => {
                    self.actions.push(Action::StopProbes { id });
                    container.stage = Stage::Idle;
                }
                Stage::BackOff { .. } => self.never_again(id),
                Stage::Starting | Stage::Idle | Stage::Ended => {}
            }
        }
        self.begin_all(now);
    }

    /// Begins anew when it is time, and nothing runs any more.
    pub(super) fn begin_all(&mut self, now: Now) {
        let AllAgain::Ending { begins } = self.all_again else {
            return;
        };
        if begins > now.at || !self.all_down() || self.stop.is_some() {
            return;
        }
        self.all_again = AllAgain::Begun;
        self.cursor = 0;
        for id in 0..self.containers.len() {
            let container = &mut self.containers[id];
            if !container.wanted {
                continue;
            }
            if container.change.take().is_some() {
                container.define(id);
            }
            if let State::Terminated(end) = &container.status.state {
                container.status.last = Some(end.clone());
                container.run += 1;
            }
            container.stage = Stage::Idle;
            container.status.state = State::initializing();
            self.changed(id);
        }
    }

    /// When [`Self::begin_all`] is to be asked again.
    pub(super) fn all_due(&self) -> Option<Instant> {
        match self.all_again {
            AllAgain::Ending { begins } if self.all_down() && self.stop.is_none() => Some(begins),
            _ => None,
        }
    }

    fn all_down(&self) -> bool {
        let mut stages = self.containers.iter().map(|container| &container.stage);
        stages.all(|stage| matches!(stage, Stage::Idle | Stage::Ended))
    }
}
