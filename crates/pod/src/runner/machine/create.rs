//! A container that can't be made: it waits with the kubelet's reason and is tried again, whatever the restart policy. Nothing of it ran,
//! and so nothing is counted as a restart. (Kubernetes: `kuberuntime_container.startContainer`)
//!
//! It is tried again when the kubelet would look at the pod again, 10 s later; one that has run before waits for as long as before a
//! restart, when that is longer. What is said again with the same words is counted and not shown.

use std::time::Duration;

use super::{Id, Machine, Now, Stage, State};
use crate::image::ImageError;
use crate::sandbox::StartError;

/// Why a container was not started.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StartFailure {
    /// `state.waiting.reason` of one that could not be made, such as `CreateContainerConfigError`; none: it was made, and its program
    /// could not be executed.
    pub(crate) waiting: Option<&'static str>,
    /// One line.
    pub(crate) message: String,
}

impl StartFailure {
    /// What it is to be made of can't be had, such as a volume. (kubelet: `generateContainerConfig`)
    pub(crate) fn config(error: &dyn std::error::Error) -> Self {
        Self {
            waiting: Some("CreateContainerConfigError"),
            message: error.to_string(),
        }
    }

    /// A step on the way failed.
    pub(crate) fn step(doing: &str, error: &dyn std::error::Error) -> Self {
        Self {
            waiting: None,
            message: format!("{doing}: {error}"),
        }
    }
}

impl From<StartError> for StartFailure {
    fn from(error: StartError) -> Self {
        Self {
            waiting: error.waiting_reason(),
            message: error.to_string(),
        }
    }
}

impl From<ImageError> for StartFailure {
    fn from(error: ImageError) -> Self {
        Self {
            waiting: Some("CreateContainerError"),
            message: error.to_string(),
        }
    }
}

impl Machine {
    /// It could not be made, for a reason that the kubelet has a word for.
    pub(super) fn create_failed(
        &mut self,
        now: Now,
        id: Id,
        reason: &'static str,
        message: String,
    ) {
        let failure = (reason, message);
        let container = &mut self.containers[id];
        let again = container.unmade.as_ref() == Some(&failure);
        let event = format!("Error: {}", failure.1);
        let until = now.at + self.first_step.max(self.left_of_back_off(now, id));
        let container = &mut self.containers[id];
        container.stage = Stage::CreateWait { until };
        container.status.state = State::Waiting {
            reason,
            message: failure.1.clone(),
            until: Some(until),
        };
        container.unmade = Some(failure);
        if !again {
            self.changed(id);
        }
        self.event_again(true, "Failed", Some(id), event, again);
        if self.stop.is_some() {
            self.never_again(id);
            self.give_turns(now);
        } else if self.ends_all() {
            self.containers[id].stage = Stage::Idle;
            self.begin_all(now);
        } else if self.outdated(id) {
            self.renew(now, id);
        }
    }

    /// How much of the wait before a restart is left to one that has run.
    fn left_of_back_off(&self, now: Now, id: Id) -> Duration {
        let container = &self.containers[id];
        container.ended.map_or(Duration::ZERO, |ended| {
            let due = ended + container.backoff.wait(ended);
            due.saturating_duration_since(now.at)
        })
    }
}
