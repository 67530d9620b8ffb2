//! The process's life: the application's start, the signals that go on to it, whatever ends, and the exit code.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use podkit_foundation::error::Failure;
use podkit_foundation::telemetry::log::{self, LogFormat};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpgrp, getpid, kill_process, kill_process_group,
    set_child_subreaper, wait,
};
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::params::AgentParams;
use super::serve::{Desk, Door};

/// The signals that go on to the application. Real-time signals have no safe name here.
const PASSED: &[Signal] = &[
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::WINCH,
    Signal::CONT,
];

/// The processes that were started and have not ended, with who waits for them.
#[derive(Default)]
pub(super) struct Children {
    waiting: RefCell<HashMap<Pid, oneshot::Sender<WaitStatus>>>,
}

impl Children {
    /// Starts a process. Everything here is one thread, so it can't be reaped before it is known.
    pub(super) fn start(
        &self,
        command: &mut Command,
    ) -> io::Result<(Pid, oneshot::Receiver<WaitStatus>)> {
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("a process id is a positive i32");
        let (tell, told) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, tell);
        Ok((pid, told))
    }

    /// Takes leave of all that have ended: of those that were started here, and as the first process of a PID namespace of
    /// everybody's orphans.
    fn reap(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(tell) = self.waiting.borrow_mut().remove(&pid) {
                // An ask that was given up does not listen any more.
                tell.send(status).ok();
            }
        }
    }

    fn kill_all(&self) {
        for pid in self.waiting.borrow().keys() {
            kill_process_group(*pid, Signal::KILL).ok();
        }
    }
}

/// Runs the application to its end; gives its exit code. `settled` is called when there is nothing to do for now.
pub fn run(params: AgentParams, command: &[OsString], settled: fn()) -> Result<ExitCode, Failure> {
    let by_terminal = match io::stderr().is_terminal() {
        true => LogFormat::Text,
        false => LogFormat::Json,
    };
    let format = params.log_format.unwrap_or(by_terminal);
    log::init("agent", params.log_level, format);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::runtime("starting", cause))?;
    tokio::task::LocalSet::new().block_on(&runtime, live(params, command, settled))
}

async fn live(
    params: AgentParams,
    command: &[OsString],
    settled: fn(),
) -> Result<ExitCode, Failure> {
    let failed = |cause: io::Error| Failure::runtime("taking signals", cause);
    let mut ended = signal(SignalKind::child()).map_err(failed)?;
    let mut passed = signals().map_err(failed)?;
    // Orphans come here even when another is the first process of the namespace.
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        warn!(why = %error, "orphans of the application are left to the first process");
    }
    let door = Door::open(&params.socket)?;
    let children = Rc::new(Children::default());
    let (application, mut status) = match application(&children, command) {
        Ok(started) => started,
        Err(error) => return Ok(not_started(command, &error)),
    };
    info!(
        version = podkit_foundation::VERSION,
        pid = application.as_raw_nonzero().get(),
        socket = %params.socket.display(),
        rules = params.allow.len(),
        "started the application"
    );
    let desk = Rc::new(Desk {
        params,
        children: Rc::clone(&children),
        settled,
        asking: Cell::new(0),
    });
    settle(settled);
    let status = loop {
        tokio::select! {
            status = &mut status => break status,
            _ = ended.recv() => children.reap(),
            Some(signal) = passed.recv() => {
                // It may have ended just now.
                kill_process(application, signal).ok();
            }
            asker = door.accept() => match asker {
                Ok(asker) => {
                    let desk = Rc::clone(&desk);
                    tokio::task::spawn_local(async move { desk.serve(asker).await });
                }
                Err(error) => {
                    warn!(why = %error, "accepting");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    };
    children.kill_all();
    let code = status.map_or(1, exit_code);
    info!(code, "the application has ended");
    Ok(ExitCode::from(code))
}

/// Calls it when the first turns of what waits are over too: they touch more of the program than waiting does.
pub(super) fn settle(settled: fn()) {
    tokio::task::spawn_local(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        settled();
    });
}

/// In a process group of its own, which has the terminal when there is one.
fn application(
    children: &Children,
    command: &[OsString],
) -> io::Result<(Pid, oneshot::Receiver<WaitStatus>)> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let started = children.start(Command::new(program).args(args).process_group(0))?;
    let terminal = io::stdin();
    if tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()) {
        if let Err(error) = tcsetpgrp(&terminal, started.0) {
            warn!(why = %error, "the application does not have the terminal");
        }
        // It may have been stopped because it did not have it yet.
        kill_process(started.0, Signal::CONT).ok();
    }
    Ok(started)
}

fn not_started(command: &[OsString], error: &io::Error) -> ExitCode {
    let program = command.first().map(|word| word.to_string_lossy());
    let program = program.unwrap_or_default();
    let (why, code) = match error.kind() {
        io::ErrorKind::NotFound => ("there is no such program".to_owned(), 127),
        _ => (format!("it can't be executed ({error})"), 126),
    };
    eprintln!("podkit agent: {program}: {why}");
    ExitCode::from(code)
}

/// As a shell tells it.
pub(super) fn exit_code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(1)
}

fn signals() -> io::Result<mpsc::Receiver<Signal>> {
    let (tell, told) = mpsc::channel(16);
    for passed in PASSED.iter().copied() {
        let mut comes = signal(SignalKind::from_raw(passed.as_raw()))?;
        let tell = tell.clone();
        tokio::task::spawn_local(async move {
            while comes.recv().await.is_some() && tell.send(passed).await.is_ok() {}
        });
    }
    Ok(told)
}
