//! What the caller says about a pod, a container and a command in it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::image::Root;
use crate::plan::{HostNamespaces, Propagation, Security};

/// A pod to be: what all its containers share.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// The host name, at most 64 bytes.
    pub hostname: String,
    /// One PID namespace for all containers, with the pod's init as its PID 1. Otherwise each has its own, below the pod's.
    pub share_process_namespace: bool,
    /// Namespaces of the machine in place of the pod's own. With its PIDs, containers share them, and an own process kills what
    /// is in the pod's UTS namespace at the pod's end, since no PID namespace does it.
    pub host: HostNamespaces,
    /// Kernel parameters by name (`net.core.somaxconn`), only such as are the pod's own: those of its network and IPC namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Where the profiles of `localhostProfile` are.
    pub seccomp_dir: PathBuf,
    /// The `cgroup.procs` files of the cgroups that the pod's init runs in.
    pub cgroups: Vec<PathBuf>,
    /// The size of the shared `/dev/shm`, in bytes.
    pub shm_bytes: u64,
}

impl SandboxSpec {
    /// What Kubernetes gives a pod that asks for nothing: PIDs apart, 64 MiB of shared memory.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            share_process_namespace: false,
            host: HostNamespaces::default(),
            sysctls: Vec::new(),
            seccomp_dir: PathBuf::new(),
            cgroups: Vec::new(),
            shm_bytes: 64 << 20,
        }
    }
}

/// A container to be.
#[derive(Debug)]
pub struct ContainerStart {
    /// Where its root file system comes from.
    pub root: Root,
    /// The program and its arguments; a program without a slash is looked up in `PATH`, inside the root.
    pub argv: Vec<String>,
    /// The environment. `PATH`, `HOME` and `HOSTNAME` are added where missing.
    pub env: Vec<(String, String)>,
    /// The working directory, `/` when none; made when absent.
    pub cwd: Option<PathBuf>,
    /// Volumes and files, in any order: parents are mounted first.
    pub mounts: Vec<Mount>,
    /// User, capabilities, read-only root.
    pub security: Security,
    /// The image's `User`, which holds when `security` has none: `name`, `uid`, either with `:group`. Names are those of the
    /// image's own `/etc/passwd`. The group is ignored, as under the kubelet, which hands on the user alone
    /// (kubernetes/kubernetes#61967).
    pub image_user: Option<String>,
    /// Supplementary groups, beside those that the image's `/etc/group` gives the user: `supplementalGroups` and `fsGroup`.
    pub groups: Vec<u32>,
    /// `supplementalGroupsPolicy: Strict`: the image's `/etc/group` gives none.
    pub groups_strict: bool,
    /// The `cgroup.procs` files (of any hierarchy) of the cgroups that it runs in.
    pub cgroups: Vec<PathBuf>,
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// `oom_score_adj`, -1000 to 1000. Without the right to lower it, it stays what this process has.
    pub oom_score_adj: Option<i32>,
    /// Resource limits. What the machine does not permit is clamped, with a warning.
    pub rlimits: Vec<Rlimit>,
}

impl ContainerStart {
    /// A container with nothing but a root and a command.
    pub fn new(root: Root, argv: Vec<String>) -> Self {
        Self {
            root,
            argv,
            env: Vec::new(),
            cwd: None,
            mounts: Vec::new(),
            security: Security::default(),
            image_user: None,
            groups: Vec::new(),
            groups_strict: false,
            cgroups: Vec::new(),
            stdio: Stdio::default(),
            oom_score_adj: None,
            rlimits: Vec::new(),
        }
    }
}

/// A command to be run in a container that runs, as the same user, with the same environment and limits.
#[derive(Debug)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Standard input, output and error.
    pub stdio: Stdio,
}

/// Standard input, output and error.
#[derive(Debug)]
pub enum Stdio {
    /// Descriptors; `/dev/null` where none. A pipe is given to the container's user, so that `/dev/stdout` can be opened by
    /// its path.
    Fds {
        /// Descriptor 0.
        stdin: Option<OwnedFd>,
        /// Descriptor 1.
        stdout: Option<OwnedFd>,
        /// Descriptor 2.
        stderr: Option<OwnedFd>,
    },
    /// All three are a new terminal of the container's own `/dev/pts`, the controlling one of the process. The caller gets
    /// its other end from [`Process::take_terminal`](super::Process::take_terminal).
    Terminal(WindowSize),
}

impl Default for Stdio {
    /// `/dev/null`.
    fn default() -> Self {
        Self::Fds {
            stdin: None,
            stdout: None,
            stderr: None,
        }
    }
}

/// The size of a terminal, in characters. Zero: unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Something of the host that a container sees at a path.
#[derive(Debug)]
pub struct Mount {
    /// What is seen.
    pub source: MountSource,
    /// Where, absolute; resolved inside the container's root and made when absent.
    pub target: PathBuf,
    /// Not writable through this mount.
    pub read_only: bool,
    /// Nor through any below it (`recursiveReadOnly`).
    pub recursive_read_only: bool,
    /// Whether mounts that are made later below it are seen on the other side.
    pub propagation: Propagation,
    /// When the target can't be made (a read-only directory of the `host` image), go on with a warning.
    pub optional: bool,
}

impl Mount {
    /// A writable mount of a host path.
    pub fn path(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self {
            source: MountSource::Path(source.into()),
            target: target.into(),
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::None,
            optional: false,
        }
    }

    /// A writable mount of an opened file or directory.
    pub fn fd(source: OwnedFd, target: impl Into<PathBuf>) -> Self {
        Self {
            source: MountSource::Fd(source),
            target: target.into(),
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::None,
            optional: false,
        }
    }

    /// The same, read-only when `read_only`.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The same, with all mounts below it read-only too when `recursive_read_only`.
    pub fn recursive_read_only(mut self, recursive_read_only: bool) -> Self {
        self.recursive_read_only = recursive_read_only;
        self
    }

    /// The same, with mounts made later seen so.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// The same, skipped with a warning where the target can't be made.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// What a [`Mount`] shows.
#[derive(Debug)]
pub enum MountSource {
    /// A file or directory by its path, as the supervisor's mount namespace has it; links are followed.
    Path(PathBuf),
    /// A file or directory that the supervisor opened (`O_PATH` is enough), such as a subPath whose links were resolved
    /// inside its volume; or a detached mount.
    Fd(OwnedFd),
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which.
    pub kind: RlimitKind,
    /// The soft limit; none: unlimited.
    pub soft: Option<u64>,
    /// The hard limit; none: unlimited.
    pub hard: Option<u64>,
}

/// The resource limits that can be set. (setrlimit(2))
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RlimitKind {
    /// `RLIMIT_NOFILE`, descriptors.
    Nofile,
    /// `RLIMIT_NPROC`, processes of the user.
    Nproc,
    /// `RLIMIT_CORE`, bytes of a core file.
    Core,
    /// `RLIMIT_MEMLOCK`, bytes of locked memory.
    Memlock,
}
