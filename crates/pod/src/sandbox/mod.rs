//! The sandbox of a pod: one process that holds its namespaces, and containers that are started inside them.
//!
//! ```text
//! supervisor ──(pipe)── init            PID 1 of the pod's PID namespace; holds net, ipc, uts; reaps; ends with the pipe
//!     │ posix_spawn       ┊
//!     ├── stage ──────────┊             one thread: joins the namespaces, forks the container beside itself, ends
//!     │                   ┊
//!     └── container ······┘             a direct child of the supervisor: mounts, pivot_root, privileges, exec
//! ```
//!
//! - The supervisor never forks itself: it has threads. The stage is this same binary, executed anew from a read-only
//!   mount, not dumpable, so that no container can reach the file on the host (CVE-2019-5736).
//! - Containers are the supervisor's own children (`CLONE_PARENT`): there is no monitor process, and exits come by pidfd.
//! - Mounts are made in the supervisor's own mount namespace and in the containers': they end with their processes.
//! - When the supervisor dies, even by SIGKILL, its end of the pipe closes, the init exits and the kernel kills the rest.
//!   PR_SET_PDEATHSIG was rejected: it fires when the spawning thread ends, and setuid clears it.

mod capability;
mod error;
mod identity;
mod launch;
pub(crate) mod overlay;
mod pod;
mod private;
mod process;
mod reaper;
mod seccomp;
mod spec;
mod stage;
mod streams;
mod sysctl;
mod terminal;
mod user_namespace;
mod wire;

pub use capability::{CapabilityError, effective_set};
pub use error::{SandboxError, StartError};
pub use pod::PodSandbox;
pub use private::{PrivateMounts, enter_private_mounts};
pub use process::{ExitStatus, Process};
pub use rustix::process::Signal;
pub use seccomp::SeccompError;
pub use spec::{
    ContainerStart, ExecSpec, Mount, MountSource, Rlimit, RlimitKind, SandboxSpec, Stdio,
    WindowSize,
};
pub use stage::run_if_stage;
pub(crate) use streams::{Sink, Source};
pub(crate) use terminal::Terminal;
pub use terminal::resize;
pub(crate) use user_namespace::Ids;
pub use user_namespace::{enter_user_namespace, in_user_namespace, invoker};

#[cfg(test)]
mod tests;
