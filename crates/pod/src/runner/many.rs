//! Several pods in the files: one supervisor process for each, and this process over them.
//!
//! Each is podkit itself with one more option. Its standard output comes here and goes on line by line; its standard
//! input is a pipe whose end means stop, so that none outlives this process. They are in process groups of their own: a
//! Ctrl-C reaches them once, from here.

use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, SystemTime};

use podkit_foundation::error::Failure;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::unix::pipe::Receiver;
use tokio::task::LocalSet;

use super::detach;
use super::logs::Lines;
use super::output::{Queue, harmless};
use super::prepare::Pods;
use super::signals::{Ask, Signals};
use super::{OutputFormat, RunOptions};

/// A supervisor's own lines are at most 16 KiB of a log, which JSON may make six times as long.
const LINE_MAX: usize = 128 * 1024;
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

/// A supervisor that was started.
struct Supervisor {
    pod: String,
    child: Child,
    pidfd: OwnedFd,
    /// Its end asks for a stop.
    _stdin: Option<ChildStdin>,
}

/// Runs all pods to their end. The exit code is the worst, or that of the pod with the container of `--exit-code-from`.
pub(super) fn run(options: &RunOptions, pods: &Pods) -> Result<u8, Failure> {
    if options.files.iter().any(|file| file.as_os_str() == "-") {
        return Err(Failure::Usage(
            "several pods can't come from standard input, which can be read once only: give a file"
                .to_owned(),
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime("starting the supervisors", error))?;
    let queue = Queue::to_stdout();
    if options.detached {
        detach::warn(pods.remarks());
    } else {
        for remark in pods.remarks() {
            queue.push(remark_line(options.output, remark).as_bytes());
        }
    }
    let result = LocalSet::new().block_on(&runtime, supervise(options, pods, &queue));
    queue.finish(OUTPUT_PATIENCE);
    result
}

/// A remark about the files, which are all pods'.
fn remark_line(format: OutputFormat, remark: &str) -> String {
    match format {
        OutputFormat::Text => format!("podkit ! Warning: {remark}\n"),
        OutputFormat::Json => {
            let ts = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            format!(
                "{}\n",
                serde_json::json!({"ts": ts, "type": "warning", "message": remark})
            )
        }
    }
}

async fn supervise(options: &RunOptions, pods: &Pods, queue: &Queue) -> Result<u8, Failure> {
    let mut signals =
        Signals::new(None).map_err(|error| Failure::runtime("taking signals", error))?;
    let failed = |error| Failure::runtime("starting a supervisor", error);
    let mut supervisors = Vec::new();
    let mut ends = tokio::task::JoinSet::new();
    for (color, pod) in pods.names().iter().enumerate() {
        let mut supervisor = start(pod, options.detached).map_err(failed)?;
        let show = Show::new(options.output, color, queue);
        if let Some(stdout) = supervisor.child.stdout.take() {
            let at = supervisors.len();
            // Nobody but the supervisor holds the other end: it closes when that process ends.
            ends.spawn_local(async move {
                pass_on(stdout.into(), show).await;
                at
            });
        } else {
            let at = supervisors.len();
            let pidfd = supervisor.pidfd.try_clone().map_err(failed)?;
            let pidfd = crate::sys::watch_readable(pidfd).map_err(failed)?;
            ends.spawn_local(async move {
                // An error would come again and again: its end is waited for below.
                let _ended = pidfd.readable().await;
                at
            });
        }
        supervisors.push(supervisor);
    }
    if options.detached {
        detach::fall_silent().map_err(failed)?;
    }
    let chosen = options
        .exit_code_from
        .as_deref()
        .and_then(|name| pods.pod_of(name));
    let (mut worst, mut chosen_code) = (0, None);
    loop {
        tokio::select! {
            ask = signals.next() => {
                let times = if ask == Ask::Kill { "again" } else { "once" };
                tracing::debug!(times, "asked to stop");
                // A supervisor that is asked a second time kills.
                ask_all(&supervisors);
            }
            end = ends.join_next() => {
                // None: that was the last.
                let Some(end) = end else {
                    return Ok(chosen_code.unwrap_or(worst));
                };
                let Ok(at) = end else {
                    worst = worst.max(1);
                    continue;
                };
                let supervisor = &mut supervisors[at];
                let code = code(supervisor.child.wait());
                worst = worst.max(code);
                if chosen == Some(supervisor.pod.as_str()) {
                    chosen_code = Some(code);
                    ask_all(&supervisors);
                }
            }
        }
    }
}

/// `detached`: it reports on our standard output, and shows nothing.
fn start(pod: &str, detached: bool) -> io::Result<Supervisor> {
    let mut child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .args(["--only-pod", pod])
        .stdin(Stdio::piped())
        .stdout(match detached {
            true => Stdio::inherit(),
            false => Stdio::piped(),
        })
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without an id"))?;
    Ok(Supervisor {
        pod: pod.to_owned(),
        pidfd: pidfd_open(pid, PidfdFlags::empty())?,
        _stdin: child.stdin.take(),
        child,
    })
}

fn ask_all(supervisors: &[Supervisor]) {
    for supervisor in supervisors {
        match pidfd_send_signal(&supervisor.pidfd, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::error!(pod = supervisor.pod, %error, "could not be stopped"),
        }
    }
}

fn code(status: io::Result<std::process::ExitStatus>) -> u8 {
    let code = status.ok().and_then(|status| status.code());
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// How one pod's lines are shown.
struct Show {
    terminal: bool,
    color: Option<&'static str>,
    queue: Queue,
}

impl Show {
    fn new(format: OutputFormat, at: usize, queue: &Queue) -> Self {
        const COLORS: [&str; 4] = ["36", "33", "32", "35"];
        let terminal = format == OutputFormat::Text && io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            terminal,
            color: (terminal && !plain).then_some(COLORS[at % COLORS.len()]),
            queue: queue.clone(),
        }
    }

    fn line(&self, line: &[u8], to: &mut Vec<u8>) {
        if !self.terminal {
            to.extend_from_slice(line);
            to.push(b'\n');
            return;
        }
        // The name, and the mark after it.
        let name = line.iter().position(|byte| *byte == b' ').unwrap_or(0);
        let (name, rest) = line.split_at(name);
        if let Some(color) = self.color {
            to.extend_from_slice(format!("\x1b[{color}m").as_bytes());
            to.extend_from_slice(name);
            to.extend_from_slice(b"\x1b[0m");
        } else {
            to.extend_from_slice(name);
        }
        if harmless(&String::from_utf8_lossy(rest), self.color.is_some(), to) {
            to.extend_from_slice(b"\x1b[0m");
        }
        to.push(b'\n');
    }
}

/// Shows what a supervisor says, until its end.
async fn pass_on(pipe: OwnedFd, show: Show) {
    let mut lines = Lines::new(LINE_MAX);
    let mut buffer = vec![0; 16 * 1024];
    let Ok(pipe) = Receiver::from_owned_fd(pipe) else {
        return;
    };
    loop {
        show.queue.room().await;
        if pipe.readable().await.is_err() {
            return;
        }
        let mut shown = Vec::new();
        match pipe.try_read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let lines = lines.feed(&buffer[..count]).into_iter();
                for line in lines.filter(|line| !line.end_only) {
                    show.line(&line.bytes, &mut shown);
                }
            }
        }
        show.queue.push(&shown);
        tokio::task::yield_now().await;
    }
}
