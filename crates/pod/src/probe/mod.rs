//! Probes and hooks, as the kubelet does them.
//!
//! When to look and what follows from what was seen is [`ProbeState`], without I/O; looking is [`attempt`]. The two meet in
//! the runner:
//!
//! ```text
//!   wake_at ─► take_due ─► attempt (http, tcp, grpc, exec; its own timeout) ─► record ─► Started | Ready | Restart
//! ```
//!
//! Requests come from inside the pod, to the pod's own address, so that a service that listens on loopback only fails its
//! probe here as it would on a cluster. What people read are the kubelet's (Go's) words: they are what is searched for.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::net::PodNet;
use crate::plan::Action;
use connect::{Step, bare, connect};

mod connect;
mod grpc;
mod health;
mod http;
mod response;
mod state;
#[cfg(test)]
mod tests;
mod tls;
mod url;

pub use state::{Change, ProbeKind, ProbeState};

/// What is kept of a command's output or a response's body. (Kubernetes: `maxReadLength`, `maxRespBodyLength`.)
pub const OUTPUT_BYTES_MAX: usize = 10 * 1024;
/// An attempt that could not be made is made again at once. (Kubernetes: `maxProbeRetries`.)
const ATTEMPTS_MAX: usize = 3;
const PROBE_AGENT: &str = "kube-probe/1.37";
const HOOK_AGENT: &str = "kube-lifecycle/1.37";

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is well.
    Success,
    /// It counts as well, but someone should know: a redirect to another host is not followed.
    Warning(String),
    /// It is not.
    Failure(String),
    /// The attempt itself failed: says nothing about the container and is not counted.
    Unknown(String),
}

impl Outcome {
    /// The event that the kubelet records for it; none for a success.
    pub fn event(&self, kind: ProbeKind) -> Option<String> {
        match self {
            Self::Success => None,
            Self::Warning(text) => Some(format!("{kind} probe warning: {text}")),
            Self::Failure(text) => Some(format!("{kind} probe failed: {text}")),
            Self::Unknown(text) => Some(format!(
                "{kind} probe errored and resulted in unknown state: {text}"
            )),
        }
    }
}

/// Who makes connections for probes: the pod's network, or a test's.
pub trait Dial {
    /// Where a probe without `host` goes.
    fn address(&self) -> IpAddr;

    /// Connects.
    fn dial(&self, target: SocketAddr) -> impl Future<Output = io::Result<TcpStream>>;

    /// The addresses of a name, in the order to be tried; the error says why there is none. This machine's resolver, whoever dials.
    fn lookup(&self, name: &str) -> impl Future<Output = Result<Vec<IpAddr>, String>> {
        podkit_dataplane::upstream::lookup(name)
    }
}

impl Dial for PodNet {
    fn address(&self) -> IpAddr {
        IpAddr::V4(PodNet::address(self))
    }

    /// From inside the pod to its own address; to any other from the machine, as the kubelet does from its node.
    async fn dial(&self, target: SocketAddr) -> io::Result<TcpStream> {
        if target.ip() == IpAddr::V4(PodNet::address(self)) {
            self.connect(target).await
        } else {
            TcpStream::connect(target).await
        }
    }
}

/// Who runs commands in a container.
pub trait Exec {
    /// Runs a command to its end, standard output and error together. When the time is over the command is killed and
    /// reaped before this returns [`ExecEnd::TimedOut`]. An error: it could not be started.
    fn exec(
        &self,
        argv: &[String],
        time: Option<Duration>,
    ) -> impl Future<Output = io::Result<ExecOutcome>>;
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// How it ended.
    pub end: ExecEnd,
    /// The first [`OUTPUT_BYTES_MAX`] bytes that it wrote.
    pub output: Vec<u8>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecEnd {
    /// With this code; 128 + N after signal N.
    Exit(i32),
    /// It was killed when its time was over.
    TimedOut,
}

/// Looks once, for at most `time`.
pub async fn attempt(
    action: &Action,
    time: Duration,
    dial: &impl Dial,
    exec: &impl Exec,
) -> Outcome {
    let mut outcome = once(action, time, dial, exec).await;
    for _ in 1..ATTEMPTS_MAX {
        if !matches!(outcome, Outcome::Unknown(_)) {
            break;
        }
        outcome = once(action, time, dial, exec).await;
    }
    outcome
}

async fn once(action: &Action, time: Duration, dial: &impl Dial, exec: &impl Exec) -> Outcome {
    match action {
        Action::Exec(argv) => match exec.exec(argv, Some(time)).await {
            Ok(outcome) => judge_exec(argv, time, &outcome),
            Err(error) => Outcome::Unknown(error.to_string()),
        },
        Action::Http {
            tls,
            host,
            port,
            path,
            headers,
        } => {
            let url = http_url(*tls, host.as_deref(), *port, path, dial);
            http::get(&url, headers, PROBE_AGENT, time, dial).await
        }
        Action::Tcp { host, port } => {
            let step = RefCell::new(None);
            let begin = |begun: Step| *step.borrow_mut() = Some(begun);
            match timeout(time, connect(host.as_deref(), *port, dial, begin)).await {
                Ok(Ok(_)) => Outcome::Success,
                Ok(Err(text)) => Outcome::Failure(text),
                Err(_) => Outcome::Failure(match step.into_inner() {
                    Some(step) => format!("{step}: i/o timeout"),
                    None => "dial tcp: i/o timeout".to_owned(),
                }),
            }
        }
        Action::Grpc { tls, port, service } => {
            let target = SocketAddr::new(dial.address(), *port);
            grpc::check(target, *tls, service, time, dial).await
        }
        // Hooks only; as a probe it says that time passes.
        Action::Sleep(length) => {
            tokio::time::sleep((*length).min(time)).await;
            Outcome::Success
        }
    }
}

/// Runs a `postStart` or `preStop` hook, for at most `time` (preStop: what is left of the grace period). Any HTTP
/// response is good, as with the kubelet. The error is the text of a `FailedPostStartHook` or `FailedPreStopHook` event.
pub async fn hook(
    action: &Action,
    time: Option<Duration>,
    dial: &impl Dial,
    exec: &impl Exec,
) -> Result<(), String> {
    let run = async {
        match action {
            Action::Exec(argv) => {
                let outcome = exec.exec(argv, time).await.map_err(|e| e.to_string())?;
                match judge_exec(argv, time.unwrap_or_default(), &outcome) {
                    Outcome::Success => Ok(()),
                    _ => Err(exec_text(argv, &outcome)),
                }
            }
            Action::Http {
                tls,
                host,
                port,
                path,
                headers,
            } => {
                let url = http_url(*tls, host.as_deref(), *port, path, dial);
                http::call(&url, headers, HOOK_AGENT, dial).await
            }
            Action::Tcp { host, port } => {
                let connected = connect(host.as_deref(), *port, dial, |_| {}).await;
                connected.map(drop)
            }
            // The API has it for probes only.
            Action::Grpc { .. } => Err("a hook can't be a grpc call".to_owned()),
            Action::Sleep(length) => {
                tokio::time::sleep(*length).await;
                Ok(())
            }
        }
    };
    match (action, time) {
        // It keeps the time itself, for it has something to kill.
        (Action::Exec(_), _) | (_, None) => run.await,
        (_, Some(time)) => timeout(time, run)
            .await
            .unwrap_or_else(|_| Err("context deadline exceeded".to_string())),
    }
}

fn judge_exec(argv: &[String], time: Duration, outcome: &ExecOutcome) -> Outcome {
    match outcome.end {
        ExecEnd::Exit(0) => Outcome::Success,
        ExecEnd::Exit(_) => Outcome::Failure(text_of(&outcome.output)),
        ExecEnd::TimedOut => Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}",
            argv.join(" "),
            go_duration(time)
        )),
    }
}

fn exec_text(argv: &[String], outcome: &ExecOutcome) -> String {
    let command = argv.join(" ");
    let message = text_of(&outcome.output);
    match outcome.end {
        ExecEnd::Exit(code) => {
            format!("command '{command}' exited with {code}: {message}")
        }
        ExecEnd::TimedOut => {
            format!("command '{command}' was killed when its time was over: {message}")
        }
    }
}

fn text_of(output: &[u8]) -> String {
    let kept = &output[..output.len().min(OUTPUT_BYTES_MAX)];
    String::from_utf8_lossy(kept).trim_end().to_string()
}

/// `1m2.345s`, `345ms`, `0s`: as Go writes a duration that was cut to milliseconds.
pub(crate) fn go_duration(time: Duration) -> String {
    let millis = time.as_millis();
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let (seconds, rest) = (millis / 1000 % 60, millis % 1000);
    let fraction = match rest {
        0 => String::new(),
        _ => format!(".{rest:03}").trim_end_matches('0').to_owned(),
    };
    match millis {
        0 => "0s".to_owned(),
        1..1000 => format!("{rest}ms"),
        1000..60_000 => format!("{seconds}{fraction}s"),
        60_000..3_600_000 => format!("{minutes}m{seconds}{fraction}s"),
        _ => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

fn http_url(tls: bool, host: Option<&str>, port: u16, path: &str, dial: &impl Dial) -> url::Url {
    let host = match host {
        None | Some("") => dial.address().to_string(),
        Some(host) => bare(host).to_owned(),
    };
    url::Url::new(tls, &host, port, path)
}

/// `connection refused`: the C library's words as Go writes them.
fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
