//! The pod as the supervisor holds it: its init, and the processes started inside.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::mount::MountAttrFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::plan::Propagation;

use super::error::{Doing, Failed, SandboxError, StartError};
use super::launch::run_stage;
use super::private::tree::{attach, new_filesystem};
use super::private::{self, AREA, PrivateMounts};
use super::process::{Process, wait_until};
use super::reaper::Reaper;
use super::spec::{ContainerStart, ExecSpec, MountSource, SandboxSpec, Stdio};
use super::sysctl;
use super::wire::{Access, Host, Identity, Job, MountJob, PodJob, Run, SourceJob, StdioJob};

/// Looks at `/proc` for what a container has left: each finds whoever was there at its beginning.
const LOOKS_MAX: usize = 64;

/// A running pod without containers, or with them.
#[derive(Debug)]
pub struct PodSandbox {
    private: PrivateMounts,
    spec: SandboxSpec,
    init: Process,
    /// The init lives while this is open.
    pipe: Mutex<Option<OwnedFd>>,
    network: OwnedFd,
    /// Its place in the private mounts; none: the machine's.
    shm: Option<String>,
    /// The place of its `/proc`, where its containers share PIDs that are its own.
    proc: Option<String>,
    reaper: Reaper,
}

impl PodSandbox {
    /// Makes the namespaces and the init that holds them.
    pub fn create(private: &PrivateMounts, spec: SandboxSpec) -> Result<Self, SandboxError> {
        if spec.hostname.is_empty() || spec.hostname.len() > 64 {
            return Err(SandboxError::Hostname(spec.hostname));
        }
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .doing(|| "make the init's pipe".into())?;
        let job = Job::Pod(PodJob {
            hostname: spec.hostname.clone(),
            host: host(&spec),
            shared_pids: spec.share_process_namespace && !spec.host.pid,
            sysctls: sysctl::of_pod(&spec, private.ids())?,
            pipe: read.as_raw_fd(),
            pause: private.pause().as_raw_fd(),
            cgroups: spec.cgroups.clone(),
        });
        let keep = [read.as_fd(), private.pause()];
        let identity = Arc::new(Identity::of_init());
        let (init, proc) = match run_stage(private, None, &keep, &job) {
            Ok(mut started) => {
                let proc = started.take_proc();
                (started.into_process(identity)?, proc)
            }
            Err(StartError::Step { step, errno }) => {
                return Err(SandboxError::Step { step, errno });
            }
            Err(error) => return Err(SandboxError::Stage(error.to_string())),
        };
        drop(read);
        let reaper = Reaper::start(&init).doing(|| "start the pod's reaper".into())?;
        let shm = match spec.host.ipc {
            true => None,
            false => Some(make_shm(private, spec.shm_bytes)?),
        };
        let proc = proc.map(|proc| put(private, "proc", &proc)).transpose()?;
        let path = format!("/proc/{}/ns/net", init.pid());
        let network = std::fs::File::open(&path)
            .doing(|| format!("open {path}"))?
            .into();
        Ok(Self {
            private: private.clone(),
            spec,
            init,
            pipe: Mutex::new(Some(write)),
            network,
            shm,
            proc,
            reaper,
        })
    }

    /// The pod's init. Its end is the end of the pod.
    pub fn init(&self) -> &Process {
        &self.init
    }

    /// The pod's network namespace: a new descriptor of `/proc/INIT/ns/net`.
    pub fn netns_fd(&self) -> io::Result<OwnedFd> {
        self.network.try_clone()
    }

    /// Starts a container: returns when its program has been executed, or why it has not. Blocks for some milliseconds.
    pub fn start(&self, start: &ContainerStart) -> Result<Process, StartError> {
        let identity = Identity::of_container(start, &self.spec, self.private.ids())?;
        let mut mounts: Vec<MountJob> = Vec::new();
        let mut keep: Vec<BorrowedFd<'_>> = vec![self.init.pidfd()];
        for mount in &start.mounts {
            if !mount.target.is_absolute() {
                let target = mount.target.display();
                return Err(StartError::Invalid(format!(
                    "the mount path {target} must be absolute"
                )));
            }
            let source = match &mount.source {
                MountSource::Path(path) => SourceJob::Path(path.clone()),
                MountSource::Fd(fd) => {
                    keep.push(fd.as_fd());
                    SourceJob::Fd(fd.as_raw_fd())
                }
            };
            mounts.push(MountJob {
                source,
                target: mount.target.clone(),
                read_only: mount.read_only,
                recursive_read_only: mount.recursive_read_only,
                propagation: mount.propagation,
                optional: mount.optional,
            });
        }
        let both_ways = |mount: &MountJob| mount.propagation == Propagation::Bidirectional;
        let machine = mounts.iter().any(both_ways).then(|| {
            keep.push(self.private.machine());
            self.private.machine().as_raw_fd()
        });
        // Parents before children, otherwise in the order given.
        mounts.sort_by_key(|mount| mount.target.components().count());
        let job = Job::Container {
            init: self.init.pidfd().as_raw_fd(),
            own_pids: !self.shares_pids(),
            root: start.root.clone(),
            binary: self
                .private
                .mountable_binary()
                .doing(|| "keep podkit's binary".into())?
                .into(),
            mounts,
            machine,
            read_only_root: start.security.read_only_root,
            access: match (start.security.privileged, start.security.unmasked_proc) {
                (true, _) => Access::Privileged,
                (false, true) => Access::UnmaskedProc,
                (false, false) => Access::Usual,
            },
            host: host(&self.spec),
            shm: match &self.shm {
                Some(place) => Path::new(AREA).join(place),
                None => "/dev/shm".into(),
            },
            proc: self.proc.as_ref().map(|place| Path::new(AREA).join(place)),
            run: Run {
                argv: start.argv.clone(),
                stdio: keep_stdio(&start.stdio, &mut keep),
                identity: identity.clone(),
            },
        };
        self.run(&keep, &job, Arc::new(identity))
    }

    /// Runs a command in a container: the same namespaces, user, capabilities, environment and cgroups.
    pub fn exec(&self, container: &Process, exec: &ExecSpec) -> Result<Process, StartError> {
        if container.has_ended() {
            return Err(StartError::NotRunning);
        }
        let mut keep = vec![container.pidfd()];
        let job = Job::Exec {
            container: container.pidfd().as_raw_fd(),
            run: Run {
                argv: exec.argv.clone(),
                stdio: keep_stdio(&exec.stdio, &mut keep),
                identity: container.identity().as_ref().clone(),
            },
        };
        match self.run(&keep, &job, Arc::clone(container.identity())) {
            Err(_) if container.has_ended() => Err(StartError::NotRunning),
            started => started,
        }
    }

    /// Whether containers see each other's processes.
    fn shares_pids(&self) -> bool {
        self.spec.share_process_namespace || self.spec.host.pid
    }

    fn run(
        &self,
        keep: &[BorrowedFd<'_>],
        job: &Job,
        identity: Arc<Identity>,
    ) -> Result<Process, StartError> {
        let argv = match job {
            Job::Container { run, .. } | Job::Exec { run, .. } => &run.argv,
            Job::Pod(_) => return Err(StartError::Invalid("not a container".into())),
        };
        if argv.first().is_none_or(String::is_empty) {
            return Err(StartError::NoCommand);
        }
        if argv.iter().any(|word| word.contains('\0'))
            || identity
                .env
                .iter()
                .any(|(name, value)| name.contains('\0') || value.contains('\0'))
        {
            return Err(StartError::Invalid(
                "a NUL byte in the command or its environment".into(),
            ));
        }
        // A stage is nowhere that a container could see it; in the pod's PID namespace there are none that has not its own.
        let inside = matches!(job, Job::Container { own_pids: true, .. });
        let init = inside.then(|| self.init.pidfd());
        let started = match run_stage(&self.private, init, keep, job) {
            Err(error) if self.is_ending(&error) => return Err(StartError::SandboxGone),
            started => started?,
        };
        let process = started.into_process(identity)?;
        let added = self.reaper.add(&process);
        if added.is_err() {
            process.signal(Signal::KILL).ok();
        }
        added.doing(|| "watch the new process".into())?;
        Ok(process)
    }

    /// Whether a start failed because the pod is ending. The kernel lets nobody join the namespaces of an init that
    /// is about to end (`ESRCH`; `EPERM` without root), makes no process there (`ENOMEM`), and kills what is there; the end of the init itself comes
    /// a little later.
    fn is_ending(&self, error: &StartError) -> bool {
        let telling = match error {
            StartError::Step { errno, .. } => {
                [libc::ENOMEM, libc::ESRCH, libc::EPERM].contains(errno)
            }
            error => matches!(error, StartError::Stage(_)),
        };
        if telling {
            self.init
                .wait_timeout(Duration::from_secs(1))
                .is_ok_and(|status| status.is_some())
        } else {
            self.init.has_ended()
        }
    }

    /// Kills what a container left behind when its first process ended. In a shared PID namespace (and without cgroups that
    /// could be killed) its other processes live on; they are known by their mount namespace. Returns how many there were.
    ///
    /// One that forks may have a child that a look at `/proc` misses, so it is looked until a look finds nobody new: what has
    /// been killed forks no more. An error when new ones go on coming. Called once, at the end of the container: with the namespace its mounts
    /// go as well.
    pub fn kill_rest(&self, container: &Process) -> io::Result<usize> {
        if !self.shares_pids() {
            // The kernel has killed them with their first.
            return Ok(0);
        }
        let Some(namespace) = container.take_mount_namespace() else {
            return Ok(0);
        };
        let inode = rustix::fs::fstat(&namespace)?.st_ino;
        let mut killed = HashSet::new();
        for _ in 0..LOOKS_MAX {
            let before = killed.len();
            kill_all_of(inode, &mut killed)?;
            if killed.len() == before {
                return Ok(before);
            }
        }
        Err(io::Error::other(format!(
            "it goes on making processes: {} were killed",
            killed.len()
        )))
    }

    /// Kills everything in the pod and waits until it is gone, for at most `timeout`. Blocks. Can be called again.
    pub fn destroy(&self, timeout: Duration) -> Result<(), SandboxError> {
        let deadline = Instant::now() + timeout;
        self.pipe
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The init ends last.
        let ended = wait_until(self.init.pidfd(), deadline, || self.init.try_wait());
        if !ended.is_ok_and(|status| status.is_some()) {
            return Err(SandboxError::NotGone(self.reaper.living()));
        }
        self.reaper.join();
        for place in self.shm.iter().chain(&self.proc) {
            match private::remove(self.private.area(), place) {
                // Gone by an earlier call.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {
                }
                result => result.doing(|| format!("unmount {AREA}/{place}"))?,
            }
        }
        Ok(())
    }
}

impl Drop for PodSandbox {
    /// The pipe closes, so that everything dies; who wants to know when calls [`PodSandbox::destroy`].
    fn drop(&mut self) {
        if let Err(error) = self.destroy(Duration::from_secs(1)) {
            tracing::warn!(%error, "the pod's sandbox was not ended cleanly");
        }
    }
}

/// Kills all processes of a mount namespace that are not among those killed already.
fn kill_all_of(namespace: u64, killed: &mut HashSet<Pid>) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw)
        else {
            continue;
        };
        let same = || {
            let link = format!("/proc/{}/ns/mnt", pid.as_raw_pid());
            std::fs::metadata(link).is_ok_and(|link| link.ino() == namespace)
        };
        if killed.contains(&pid) || !same() {
            continue;
        }
        // Looked at again behind the pidfd: the number may have been given anew in between.
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
            && same()
            && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
        {
            killed.insert(pid);
        }
    }
    Ok(())
}

fn host(spec: &SandboxSpec) -> Host {
    Host {
        network: spec.host.network,
        pid: spec.host.pid,
        ipc: spec.host.ipc,
    }
}

/// The pod's `/dev/shm`; its place below the private mounts.
fn make_shm(private: &PrivateMounts, bytes: u64) -> Result<String, Failed> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("mode", "1777"), ("size", &bytes.to_string())];
    let shm = new_filesystem("tmpfs", &options, attributes).doing(|| "mount /dev/shm".into())?;
    put(private, "shm", &shm)
}

/// Mounts what a pod's containers share below `directory` of the private mounts; its place there.
fn put(private: &PrivateMounts, directory: &str, mount: &OwnedFd) -> Result<String, Failed> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let place = format!("{directory}/{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(private.area(), &place, mode)
        .map_err(io::Error::from)
        .and_then(|()| attach(mount, private.area(), &place))
        .doing(|| format!("mount {AREA}/{place}"))?;
    Ok(place)
}

fn keep_stdio<'a>(stdio: &'a Stdio, keep: &mut Vec<BorrowedFd<'a>>) -> StdioJob {
    let (stdin, stdout, stderr) = match stdio {
        Stdio::Terminal(size) => return StdioJob::Terminal(*size),
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => (stdin, stdout, stderr),
    };
    StdioJob::Fds([stdin, stdout, stderr].map(|fd| {
        fd.as_ref().map(|fd| {
            keep.push(fd.as_fd());
            fd.as_raw_fd()
        })
    }))
}
