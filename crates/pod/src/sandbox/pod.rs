//! The pod as the supervisor holds it: its init, and the processes started inside.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::mount::MountAttrFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use super::error::{Doing, Failed, SandboxError, StartError};
use super::private::tree::{attach, new_filesystem};
use super::private::{self, AREA, PrivateMounts};
use super::process::{ExitStatus, Process, pid_of, reap, wait_readable};
use super::reaper::Reaper;
use super::spec::{ContainerStart, ExecSpec, MountSource, SandboxSpec, Stdio};
use super::stage::STAGE;
use super::wire::{self, Identity, Job, MountJob, Reply, Run, SourceJob};
use crate::sys;

/// A stage that takes longer hangs on something (a dead network file system) and is killed.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running pod without containers, or with them.
#[derive(Debug)]
pub struct PodSandbox {
    private: PrivateMounts,
    spec: SandboxSpec,
    init: Process,
    /// The init lives while this is open.
    pipe: Mutex<Option<OwnedFd>>,
    network: OwnedFd,
    shm: String,
    reaper: Reaper,
}

impl PodSandbox {
    /// Makes the namespaces and the init that holds them.
    pub fn create(private: &PrivateMounts, spec: SandboxSpec) -> Result<Self, SandboxError> {
        if spec.hostname.is_empty() || spec.hostname.len() > 63 {
            return Err(SandboxError::Hostname(spec.hostname));
        }
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .doing(|| "make the init's pipe".into())?;
        let job = Job::Pod {
            hostname: spec.hostname.clone(),
            pipe: read.as_raw_fd(),
            pause: private.pause().as_raw_fd(),
            cgroups: spec.cgroups.clone(),
        };
        let keep = [read.as_fd(), private.pause()];
        let identity = Arc::new(Identity::of_init());
        let init = match run_stage(private, None, &keep, &job) {
            Ok(started) => Process::new(started.pidfd, started.warnings, identity)
                .doing(|| "look at the pod's init".into())?,
            Err(StartError::Step { step, errno }) => {
                return Err(SandboxError::Step { step, errno });
            }
            Err(error) => return Err(SandboxError::Stage(error.to_string())),
        };
        drop(read);
        let reaper = Reaper::start(&init).doing(|| "start the pod's reaper".into())?;
        let shm = make_shm(private, spec.shm_bytes)?;
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
        let mut identity = Identity::of_container(start)?;
        self.complete(&mut identity);
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
            let (read_only, optional) = (mount.read_only, mount.optional);
            mounts.push(MountJob {
                source,
                target: mount.target.clone(),
                read_only,
                optional,
            });
        }
        // Parents before children, otherwise in the order given.
        mounts.sort_by_key(|mount| mount.target.components().count());
        let job = Job::Container {
            init: self.init.pidfd().as_raw_fd(),
            own_pids: !self.spec.share_process_namespace,
            root: start.root.clone(),
            mounts,
            read_only_root: start.security.read_only_root,
            shm: PathBuf::from(format!("{AREA}/{}", self.shm)),
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
        if container.try_wait().is_ok_and(|status| status.is_some()) {
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
        self.run(&keep, &job, Arc::clone(container.identity()))
    }

    fn run(
        &self,
        keep: &[BorrowedFd<'_>],
        job: &Job,
        identity: Arc<Identity>,
    ) -> Result<Process, StartError> {
        let argv = match job {
            Job::Container { run, .. } | Job::Exec { run, .. } => &run.argv,
            Job::Pod { .. } => return Err(StartError::Invalid("not a container".into())),
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
        let started = run_stage(&self.private, Some(self.init.pidfd()), keep, job)?;
        let process = Process::new(started.pidfd, started.warnings, identity)
            .doing(|| "look at the new process".into())?;
        let added = self.reaper.add(&process);
        if added.is_err() {
            process.signal(Signal::KILL).ok();
        }
        added.doing(|| "watch the new process".into())?;
        Ok(process)
    }

    /// Kills what a container left behind when its first process ended. In a shared PID namespace (and without cgroups that
    /// could be killed) its other processes live on; they are known by their mount namespace. Returns how many there were.
    pub fn kill_rest(&self, container: &Process) -> io::Result<usize> {
        use std::os::unix::fs::MetadataExt;
        let Some(namespace) = container.mount_namespace() else {
            return Ok(0);
        };
        let mut killed = 0;
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
            if !same() {
                continue;
            }
            // Looked at again behind the pidfd: the number may have been given anew in between.
            if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
                && same()
                && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
            {
                killed += 1;
            }
        }
        Ok(killed)
    }

    /// Kills everything in the pod and waits until it is gone, for at most `timeout`. Blocks. Can be called again.
    pub fn destroy(&self, timeout: Duration) -> Result<(), SandboxError> {
        let deadline = Instant::now() + timeout;
        self.pipe
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The init ends last.
        let ended = wait_readable(self.init.pidfd(), deadline).and_then(|()| self.init.try_wait());
        if !ended.is_ok_and(|status| status.is_some()) {
            return Err(SandboxError::NotGone(self.reaper.living()));
        }
        self.reaper.join();
        match private::remove(self.private.area(), &self.shm) {
            // Gone by an earlier call.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {
                Ok(())
            }
            result => Ok(result.doing(|| "unmount /dev/shm".into())?),
        }
    }

    /// What the image and the caller left open.
    fn complete(&self, identity: &mut Identity) {
        let has =
            |identity: &Identity, name: &str| identity.env.iter().any(|(known, _)| known == name);
        if !has(identity, "PATH") {
            let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            identity.env.insert(0, ("PATH".into(), path.into()));
        }
        if !has(identity, "HOSTNAME") {
            identity
                .env
                .push(("HOSTNAME".into(), self.spec.hostname.clone()));
        }
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

/// The pod's `/dev/shm`; its place below the private mounts.
fn make_shm(private: &PrivateMounts, bytes: u64) -> Result<String, Failed> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let place = format!("shm/{}", NEXT.fetch_add(1, Ordering::Relaxed));
    rustix::fs::mkdirat(
        private.area(),
        &place,
        rustix::fs::Mode::from_raw_mode(0o755),
    )
    .doing(|| "make the place of /dev/shm".into())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    new_filesystem(
        "tmpfs",
        &[("mode", "1777"), ("size", &bytes.to_string())],
        attributes,
    )
    .and_then(|shm| attach(&shm, private.area(), &place))
    .doing(|| "mount /dev/shm".into())?;
    Ok(place)
}

fn keep_stdio<'a>(stdio: &'a Stdio, keep: &mut Vec<BorrowedFd<'a>>) -> [Option<i32>; 3] {
    [&stdio.stdin, &stdio.stdout, &stdio.stderr].map(|fd| {
        fd.as_ref().map(|fd| {
            keep.push(fd.as_fd());
            fd.as_raw_fd()
        })
    })
}

struct Started {
    pidfd: OwnedFd,
    warnings: Vec<String>,
}

/// Runs a stage to its end and gives the process that it made.
fn run_stage(
    private: &PrivateMounts,
    init: Option<BorrowedFd<'_>>,
    keep: &[BorrowedFd<'_>],
    job: &Job,
) -> Result<Started, StartError> {
    let (ours, theirs) = UnixStream::pair().doing(|| "make the stage's socket".into())?;
    let number =
        CString::new(theirs.as_raw_fd().to_string()).doing(|| "name the stage's socket".into())?;
    let argv = [STAGE.into(), number];
    let keep: Vec<_> = keep.iter().copied().chain([theirs.as_fd()]).collect();
    let spawn = || sys::spawn(private.binary(), &argv, &keep).doing(|| "start the stage".into());
    let pid = match init {
        None => spawn()?,
        Some(init) => spawn_inside(private, init, spawn)?,
    };
    let stage = pidfd_open(pid, PidfdFlags::empty()).doing(|| "look at the stage".into())?;
    drop(theirs);
    ours.set_read_timeout(Some(START_TIMEOUT))
        .doing(|| "set the stage's time limit".into())?;
    // A stage that dies at once has its reason in the replies or its status: a broken pipe here says less.
    let mut collected = Collected::default();
    let outcome = wire::send_job(&ours, job).and_then(|()| collected.read_from(&ours));
    if outcome.is_err() {
        for process in [Some(&stage), collected.pidfd.as_ref()]
            .into_iter()
            .flatten()
        {
            // What can't be killed has ended; the waits below see that.
            pidfd_send_signal(process, Signal::KILL).ok();
        }
    }
    let status = wait_end(stage.as_fd());
    let failure = match outcome {
        Ok(()) => collected.failure,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(StartError::Stage(
            format!("not started after {} s", START_TIMEOUT.as_secs()),
        )),
        Err(error) => Some(StartError::Stage(format!(
            "{error}; the stage ended with {}",
            say(&status)
        ))),
    };
    match (collected.pidfd, failure) {
        (Some(pidfd), None) => Ok(Started {
            pidfd,
            warnings: collected.warnings,
        }),
        (pidfd, failure) => {
            if let Some(pidfd) = pidfd {
                drop(wait_end(pidfd.as_fd()));
            }
            Err(failure.unwrap_or_else(|| {
                StartError::Stage(format!("the stage ended with {}", say(&status)))
            }))
        }
    }
}

fn say(status: &io::Result<Option<ExitStatus>>) -> String {
    match status {
        Ok(Some(status)) => status.to_string(),
        Ok(None) => "nothing: it still runs".into(),
        Err(error) => error.to_string(),
    }
}

/// Waits for a child that is about to end.
fn wait_end(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    wait_readable(pidfd, Instant::now() + Duration::from_secs(5))?;
    reap(pidfd)
}

/// Spawns with the pod's PID namespace as that of our next child. Only this thread is concerned, and only children. (The
/// stage must be *in* the namespace: from outside it could not make a nested one.)
fn spawn_inside(
    private: &PrivateMounts,
    init: BorrowedFd<'_>,
    spawn: impl FnOnce() -> Result<Pid, Failed>,
) -> Result<Pid, StartError> {
    if pid_of(init).is_err() {
        return Err(StartError::SandboxGone);
    }
    match move_into_thread_name_spaces(init, ThreadNameSpaceType::PROCESS_ID) {
        Err(rustix::io::Errno::SRCH) => return Err(StartError::SandboxGone),
        result => result.doing(|| "enter the pod's PID namespace".into())?,
    }
    let spawned = spawn();
    move_into_link_name_space(private.pid_namespace(), Some(LinkNameSpaceType::ProcessID))
        .expect("a process may always return to its own PID namespace");
    match spawned {
        // The kernel makes no process in a namespace whose init has ended.
        Err(Failed {
            errno: libc::ENOMEM,
            ..
        }) if init_ended(init) => Err(StartError::SandboxGone),
        spawned => Ok(spawned?),
    }
}

fn init_ended(init: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(&init, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

#[derive(Default)]
struct Collected {
    pidfd: Option<OwnedFd>,
    warnings: Vec<String>,
    failure: Option<StartError>,
}

impl Collected {
    /// Reads replies until the program has been executed or the start has failed.
    fn read_from(&mut self, socket: &UnixStream) -> io::Result<()> {
        while let Some((reply, fd)) = wire::receive_reply(socket)? {
            match reply {
                Reply::Started => self.pidfd = fd,
                Reply::Warning(line) => self.warnings.push(line),
                Reply::Failed { step, errno } => {
                    self.failure = Some(StartError::Step { step, errno })
                }
                Reply::NotFound(program) => self.failure = Some(StartError::NotFound(program)),
            }
        }
        Ok(())
    }
}

impl Identity {
    /// The init does nothing and may nothing.
    fn of_init() -> Self {
        Self {
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            uid: None,
            gid: None,
            groups: Vec::new(),
            capabilities: 0,
            wanted: 0,
            no_new_privileges: true,
            oom_score_adj: None,
            rlimits: Vec::new(),
            cgroups: Vec::new(),
        }
    }

    fn of_container(start: &ContainerStart) -> Result<Self, StartError> {
        let security = &start.security;
        let (add, drop) = (&security.add_capabilities, &security.drop_capabilities);
        let named: Vec<String> = add.iter().filter(|name| *name != "ALL").cloned().collect();
        let wanted = super::effective_set(&named, &["ALL".to_owned()])?;
        Ok(Self {
            env: start.env.clone(),
            cwd: start.cwd.clone().unwrap_or_else(|| PathBuf::from("/")),
            uid: security.uid,
            gid: security.gid,
            groups: start.groups.clone(),
            capabilities: super::effective_set(add, drop)?,
            wanted,
            no_new_privileges: security.no_new_privileges,
            oom_score_adj: start.oom_score_adj,
            rlimits: start.rlimits.clone(),
            cgroups: start.cgroups.clone(),
        })
    }
}
