//! What can go wrong, in the words of Kubernetes where it has some.

use std::io;

use super::capability::CapabilityError;
use super::seccomp::SeccompError;

/// Why a sandbox could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Not root, and the machine makes no user namespace for others.
    #[error(
        "without root, pods need user namespaces, which this machine refuses: {0}; or run podkit as root"
    )]
    UserNamespace(String),
    /// A mount namespace of its own can be made only before any thread.
    #[error("private mounts must be entered before any thread is started")]
    Threads,
    /// The host name is empty or too long for the kernel.
    #[error("the host name {0:?} must have 1 to 64 bytes")]
    Hostname(String),
    /// A kernel parameter that would be changed for the whole machine.
    #[error("the sysctl {0} is not the pod's own: it is the machine's")]
    Sysctl(String),
    /// A step failed.
    #[error("{step}: {}", reason(*errno))]
    Step {
        /// What was being done.
        step: String,
        /// The kernel's error number.
        errno: i32,
    },
    /// The stage ended without a word (killed, or out of memory).
    #[error("the pod's init could not be started: the stage ended with {0}")]
    Stage(String),
    /// Something in the pod did not die in time.
    #[error("{0} of the pod's processes did not end in time")]
    NotGone(usize),
}

/// Why a container, or a command in one, did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Before or while the program was executed: what was being done, and the kernel's answer.
    #[error("{step}: {}", reason(*errno))]
    Step {
        /// Such as `mount /data` or `exec /bin/foo`.
        step: String,
        /// The kernel's error number.
        errno: i32,
    },
    /// The program is in none of the directories of `PATH`.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotFound(String),
    /// The command is empty.
    #[error("no command: neither the container's command nor its image says what to run")]
    NoCommand,
    /// A string with a NUL byte, a relative mount path and the like.
    #[error("{0}")]
    Invalid(String),
    /// What the container asks for can't be given, in the kubelet's words: it waits with this reason and does not start.
    #[error("{0}")]
    Config(String),
    /// Its profile can't be used.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// A capability that Linux does not have.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// The container that the command should run in has ended.
    #[error("the container is not running")]
    NotRunning,
    /// The pod's init has ended.
    #[error("the pod's sandbox has ended")]
    SandboxGone,
    /// The stage ended without a word (killed, or out of memory), or was stopped because it took too long.
    #[error("the container could not be started: {0}")]
    Stage(String),
}

impl StartError {
    /// `state.terminated.reason` of a container that did not start.
    pub const REASON: &'static str = "StartError";
    /// Its `exitCode`.
    pub const EXIT_CODE: i32 = 128;

    /// `state.waiting.reason` of a container that could not even be made; none when its start was tried and failed
    /// ([`REASON`](Self::REASON)). (kubelet: `ErrCreateContainerConfig`, `ErrCreateContainer`)
    pub fn waiting_reason(&self) -> Option<&'static str> {
        match self {
            Self::Config(_) => Some("CreateContainerConfigError"),
            Self::Seccomp(_) | Self::Capability(_) | Self::NoCommand | Self::Invalid(_) => {
                Some("CreateContainerError")
            }
            _ => None,
        }
    }
}

/// A failed step, before it is known whose it is.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) step: String,
    pub(super) errno: i32,
}

impl From<Failed> for SandboxError {
    fn from(failed: Failed) -> Self {
        Self::Step {
            step: failed.step,
            errno: failed.errno,
        }
    }
}

impl From<Failed> for StartError {
    fn from(failed: Failed) -> Self {
        Self::Step {
            step: failed.step,
            errno: failed.errno,
        }
    }
}

/// Says what was being done when a call failed.
pub(super) trait Doing<T> {
    /// The step, in a few words: `mount /data`.
    fn doing(self, step: impl FnOnce() -> String) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, step: impl FnOnce() -> String) -> Result<T, Failed> {
        self.map_err(|error| Failed {
            step: step(),
            errno: error.into().raw_os_error().unwrap_or(libc::EIO),
        })
    }
}

/// The kernel's error in words, without the number that std appends.
pub(super) fn reason(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
