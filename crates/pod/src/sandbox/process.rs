//! A process in the pod: the first of a container, or a command in one. A direct child of the supervisor.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::wire::Identity;
use crate::sys;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The code as containers have it: 128 and the signal's number for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Whether it ended with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// A process of the pod. A handle: copies mean the same process, and dropping them does not end it.
#[derive(Debug, Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pid: i32,
    pid_in_pod: Option<i32>,
    pidfd: OwnedFd,
    mount_namespace: Mutex<Option<OwnedFd>>,
    terminal: Mutex<Option<OwnedFd>>,
    status: Mutex<Option<ExitStatus>>,
    warnings: Vec<String>,
    identity: Arc<Identity>,
}

impl Process {
    pub(super) fn new(
        pidfd: OwnedFd,
        mount_namespace: Option<OwnedFd>,
        terminal: Option<OwnedFd>,
        warnings: Vec<String>,
        identity: Arc<Identity>,
    ) -> io::Result<Self> {
        let (pid, pid_in_pod) = pids_of(pidfd.as_fd())?;
        let inner = Inner {
            pid,
            pid_in_pod,
            pidfd,
            mount_namespace: Mutex::new(mount_namespace),
            terminal: Mutex::new(terminal),
            status: Mutex::new(None),
            warnings,
            identity,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Its id as the host sees it.
    pub fn pid(&self) -> i32 {
        self.inner.pid
    }

    /// Its id in the pod's PID namespace; none when it had ended before that could be read.
    pub fn pid_in_pod(&self) -> Option<i32> {
        self.inner.pid_in_pod
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.inner.pidfd.as_fd()
    }

    /// What was asked for and could not be had, a line each.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Our end of its terminal, for the first who asks; none when it was not started with
    /// [`Stdio::Terminal`](super::Stdio::Terminal). Blocking, close-on-exec. Reading fails with EIO when nobody has the
    /// other end open any more; closing it hangs the terminal up (SIGHUP). [`resize`](super::resize) sets its size.
    pub fn take_terminal(&self) -> Option<OwnedFd> {
        self.inner
            .terminal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(super) fn identity(&self) -> &Arc<Identity> {
        &self.inner.identity
    }

    /// Its mount namespace, for the first who asks; none where the kernel ends what a container leaves. It tells a container's processes
    /// from others in a shared PID namespace: while it is held, its number is nobody else's.
    pub(super) fn take_mount_namespace(&self) -> Option<OwnedFd> {
        self.inner
            .mount_namespace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Sends a signal. A process that has ended is not an error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.inner.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.try_wait().is_ok_and(|status| status.is_some())
    }

    /// How it ended, if it has. Reaps it the first time.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        let mut status = self
            .inner
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if status.is_none() {
            *status = reap(self.pidfd())?;
        }
        Ok(*status)
    }

    /// Waits for its end and says how it ended. Can be called again, from many places, and dropped.
    ///
    /// Needs a tokio runtime with I/O.
    pub async fn exited(&self) -> io::Result<ExitStatus> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        // A descriptor of its own: epoll takes each only once, and there may be several who wait.
        let pidfd = sys::watch_readable(self.inner.pidfd.try_clone()?)?;
        loop {
            let mut ready = pidfd.readable().await?;
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            ready.clear_ready();
        }
    }

    /// The same without a runtime, for at most `timeout`; none when it still runs.
    pub fn wait_timeout(&self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        wait_until(self.pidfd(), Instant::now() + timeout, || self.try_wait())
    }
}

/// Waits until `reap` tells how the process of a pidfd has ended, or until `deadline`.
pub(super) fn wait_until(
    pidfd: BorrowedFd<'_>,
    deadline: Instant,
    reap: impl Fn() -> io::Result<Option<ExitStatus>>,
) -> io::Result<Option<ExitStatus>> {
    loop {
        wait_readable(pidfd, deadline)?;
        let status = reap()?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        // Somebody in the pod traces it, and is told first.
        std::thread::sleep(TRACED_PAUSE);
    }
}

/// Between two looks at one that has ended, and of whose end only its tracer knows.
const TRACED_PAUSE: Duration = Duration::from_millis(1);

/// Waits until a pidfd says that its process has ended, or until `deadline`.
pub(super) fn wait_readable(pidfd: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Reaps a child that has ended; none when it runs.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    let status = waitid(
        WaitId::PidFd(pidfd),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    )?;
    Ok(status.map(
        |status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, signal) => ExitStatus::Signal(signal.unwrap_or(0)),
        },
    ))
}

/// The ids of the process that a pidfd stands for: in this process's PID namespace, and in the pod's. (proc(5), fdinfo)
pub(super) fn pids_of(pidfd: BorrowedFd<'_>) -> io::Result<(i32, Option<i32>)> {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    pids(&info).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// The first number of `NSpid` is the host's (and the only one in a pod that has the host's PIDs), the second the pod's, the third
/// (if any) the container's own. One that has ended has none.
pub(super) fn pids(info: &str) -> Option<(i32, Option<i32>)> {
    let field = |name| info.lines().find_map(|line| line.strip_prefix(name));
    let pid = field("Pid:")?.trim().parse().ok().filter(|pid| *pid > 0)?;
    let mut numbers = field("NSpid:").unwrap_or_default().split_whitespace();
    let first = numbers.next();
    let in_pod = numbers
        .next()
        .or(first)
        .and_then(|number| number.parse().ok());
    Some((pid, in_pod))
}
