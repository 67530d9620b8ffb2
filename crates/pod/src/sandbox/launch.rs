//! Running a stage: spawned where it belongs, told its job, listened to until the program runs or the start has failed.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_passcred;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::error::{Doing, Failed, StartError};
use super::private::PrivateMounts;
use super::process::{ExitStatus, Process, pids_of, reap, wait_until};
use super::stage::STAGE;
use super::wire::{self, Identity, Job, Received, Reply};
use crate::sys;

/// A stage that is silent for so long hangs on something (a dead network file system) and is killed.
const SILENCE: Duration = Duration::from_secs(60);

/// Of the thread that spawns: two system calls.
const STACK: usize = 64 << 10;

/// How long something that is about to end may take.
const END: Duration = Duration::from_secs(5);

/// A process that a stage has made and whose program runs.
pub(super) struct Started {
    pidfd: OwnedFd,
    told: Told,
}

impl Started {
    /// The `/proc` that came along.
    pub(super) fn take_proc(&mut self) -> Option<OwnedFd> {
        self.told.proc.take()
    }

    pub(super) fn into_process(self, identity: Arc<Identity>) -> Result<Process, Failed> {
        Process::new(
            self.pidfd,
            self.told.mount_namespace,
            self.told.terminal,
            self.told.warnings,
            identity,
        )
        .doing(|| "look at the new process".into())
    }
}

/// The pidfds of what has been started. What that is the stages say alone: the new process has the socket too, and in some PID namespaces
/// there are others who can make it say what they want.
struct Made {
    /// One, and the one that goes on in its place; all are to be reaped.
    stages: Vec<(Pid, OwnedFd)>,
    process: Option<OwnedFd>,
}

/// What a stage and its child have said beside the pidfds.
#[derive(Default)]
struct Told {
    proc: Option<OwnedFd>,
    mount_namespace: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    executing: bool,
    warnings: Vec<String>,
    failure: Option<StartError>,
}

/// Runs a stage to its end, in the PID namespace of `init` when there is one, and gives the process that it made.
pub(super) fn run_stage(
    private: &PrivateMounts,
    init: Option<BorrowedFd<'_>>,
    keep: &[BorrowedFd<'_>],
    job: &Job,
) -> Result<Started, StartError> {
    let (ours, theirs) = UnixStream::pair().doing(|| "make the stage's socket".into())?;
    ours.set_read_timeout(Some(SILENCE))
        .doing(|| "set the stage's time limit".into())?;
    set_socket_passcred(&ours, true).doing(|| "have the stage's messages signed".into())?;
    let number =
        CString::new(theirs.as_raw_fd().to_string()).doing(|| "name the stage's socket".into())?;
    let argv = [STAGE.into(), number];
    let keep: Vec<_> = keep.iter().copied().chain([theirs.as_fd()]).collect();
    let spawn = || sys::spawn(private.binary(), &argv, &keep).doing(|| "start the stage".into());
    let pid = match init {
        None => spawn()?,
        Some(init) => spawn_inside(init, spawn)?,
    };
    let stage = pidfd_open(pid, PidfdFlags::empty()).doing(|| "look at the stage".into())?;
    drop(theirs);

    let mut made = Made {
        stages: vec![(pid, stage)],
        process: None,
    };
    let mut told = Told::default();
    let heard = wire::send_job(&ours, job).and_then(|()| told.listen(&ours, &mut made));
    let Made { stages, process } = made;
    if heard.is_err() {
        for process in stages.iter().map(|(_, stage)| stage).chain(&process) {
            // What can't be killed has ended; the waits below see that.
            pidfd_send_signal(process, Signal::KILL).ok();
        }
    }
    let mut status = Ok(None);
    for (_, stage) in &stages {
        status = wait_end(stage.as_fd());
    }
    let failure = match heard {
        Ok(()) => told.failure.take(),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(StartError::Stage(
            format!("nothing happened for {} s", SILENCE.as_secs()),
        )),
        Err(error) => Some(StartError::Stage(format!(
            "{error}; {}",
            ended("the stage", &status)
        ))),
    };
    match (process, failure) {
        (Some(pidfd), None) if told.executing => Ok(Started { pidfd, told }),
        (Some(pidfd), failure) => {
            let status = wait_end(pidfd.as_fd());
            Err(failure.unwrap_or_else(|| StartError::Stage(ended("the new process", &status))))
        }
        (None, failure) => {
            Err(failure.unwrap_or_else(|| StartError::Stage(ended("the stage", &status))))
        }
    }
}

fn ended(what: &str, status: &io::Result<Option<ExitStatus>>) -> String {
    match status {
        Ok(Some(ExitStatus::Signal(libc::SIGSYS))) => format!(
            "its seccomp profile killed {what}: it must allow prctl, capget, capset, sendmsg, clone and exit_group"
        ),
        Ok(Some(status)) => format!("{what} ended with {status}"),
        Ok(None) => format!("{what} can't be killed"),
        Err(error) => format!("{what}: {error}"),
    }
}

impl Told {
    /// Takes replies until the program has been executed or the start has failed.
    fn listen(&mut self, socket: &UnixStream, made: &mut Made) -> io::Result<()> {
        while let Some(Received { reply, fd, sender }) = wire::receive_reply(socket)? {
            let by_stage = made.stages.iter().any(|(pid, _)| Some(*pid) == sender);
            match (reply, fd) {
                (Reply::Stage, Some(fd)) if by_stage => {
                    let (pid, _) = pids_of(fd.as_fd())?;
                    made.stages.extend(Pid::from_raw(pid).map(|pid| (pid, fd)));
                }
                (Reply::Started, fd) if by_stage => made.process = fd,
                (Reply::Stage | Reply::Started, _) => {}
                (Reply::Proc, fd) => self.proc = fd,
                // The first counts: who could be traced by a neighbour is born later.
                (Reply::MountNamespace, fd) => {
                    self.mount_namespace = self.mount_namespace.take().or(fd);
                }
                (Reply::Terminal, fd) => self.terminal = self.terminal.take().or(fd),
                (Reply::Executing, _) => self.executing = true,
                (Reply::Warning(line), _) => self.warnings.push(line),
                (Reply::Failed { step, errno }, _) => {
                    self.failure = Some(StartError::Step { step, errno })
                }
                (Reply::NotFound(program), _) => {
                    self.failure = Some(StartError::NotFound(program));
                }
            }
        }
        Ok(())
    }
}

/// Waits for a child that is about to end, and reaps it.
fn wait_end(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    wait_until(pidfd, Instant::now() + END, || reap(pidfd))
}

/// Spawns with the pod's PID namespace as that of the next child. (The stage must be *in* the namespace: from outside it could
/// not make a nested one.) By a thread that ends with it: only that thread is concerned, and without root there is no way back
/// into the machine's PID namespace.
fn spawn_inside(
    init: BorrowedFd<'_>,
    spawn: impl FnOnce() -> Result<Pid, Failed> + Send,
) -> Result<Pid, Failed> {
    let step = || "enter the pod's PID namespace".to_owned();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("spawn".into())
            .stack_size(STACK)
            .spawn_scoped(scope, || {
                move_into_thread_name_spaces(init, ThreadNameSpaceType::PROCESS_ID).doing(step)?;
                spawn()
            })
            .doing(step)?;
        thread.join().expect("neither call panics")
    })
}

#[cfg(test)]
mod tests;
