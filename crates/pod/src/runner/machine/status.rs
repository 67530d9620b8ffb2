//! What is known of a pod and its containers at a moment, in Kubernetes' words.
//! (Kubernetes API: v1 PodStatus and ContainerStatus.)

use std::time::SystemTime;

use std::time::Instant;

/// `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    /// As `kubectl get` writes it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Nothing of the pod runs any more, or will.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// One entry of `status.containerStatuses`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerStatus {
    /// `state`.
    pub(crate) state: State,
    /// `lastState.terminated`.
    pub(crate) last: Option<Terminated>,
    /// `imageID`; empty before it is known.
    pub(crate) image_id: String,
    /// `restartCount`.
    pub(crate) restarts: u32,
    /// `ready`.
    pub(crate) ready: bool,
    /// `started`: running, its postStart done and its startup probe passed.
    pub(crate) started: bool,
}

/// `state`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// `waiting`.
    Waiting {
        /// `PodInitializing`, `ContainerCreating`, `CrashLoopBackOff`, or why there is no image or it can't be made.
        reason: &'static str,
        /// For people; may be empty.
        message: String,
        /// When the back-off ends.
        until: Option<Instant>,
    },
    /// `running`.
    Running {
        /// `startedAt`.
        since: SystemTime,
    },
    /// `terminated`.
    Terminated(Terminated),
}

impl State {
    /// On its way.
    pub(super) fn creating() -> Self {
        Self::Waiting {
            reason: "ContainerCreating",
            message: String::new(),
            until: None,
        }
    }

    /// Its turn has not come.
    pub(super) fn initializing() -> Self {
        Self::Waiting {
            reason: "PodInitializing",
            message: String::new(),
            until: None,
        }
    }
}

/// `state.terminated`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terminated {
    /// `exitCode`: of the process, or 128 + signal.
    pub(crate) code: i32,
    /// `signal`.
    pub(crate) signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled` or `StartError`.
    pub(crate) reason: &'static str,
    /// For people; may be empty.
    pub(crate) message: String,
    /// `startedAt`.
    pub(crate) started: Option<SystemTime>,
    /// `finishedAt`.
    pub(crate) finished: SystemTime,
}

/// How a container's first process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit code, or 128 + signal.
    pub(crate) code: i32,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// The kernel's out-of-memory killer struck in its cgroup during this run.
    pub(crate) oom: bool,
    /// Its termination message; may be empty.
    pub(crate) message: String,
}

impl Exit {
    /// The word of `state.terminated.reason`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            // A child may have been the victim while the first process went on and ended well.
            Self {
                oom: true, code, ..
            } if *code != 0 => "OOMKilled",
            Self { code: 0, .. } => "Completed",
            _ => "Error",
        }
    }
}

impl Terminated {
    /// One line for people: `OOMKilled (exit code 137)`.
    pub(crate) fn line(&self) -> String {
        let mut line = match self.signal {
            Some(signal) => format!("{} (exit code {}, signal {signal})", self.reason, self.code),
            None => format!("{} (exit code {})", self.reason, self.code),
        };
        if !self.message.is_empty() {
            line.push_str(": ");
            line.push_str(&self.message);
        }
        line
    }
}
