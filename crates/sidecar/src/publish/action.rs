//! What is done about a version besides publishing it: a validation, a reload, a confirmation.

use std::fmt;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use podkit_foundation::params::{Addr, ParamType};
use rustix::process::{Pid, Signal, kill_process_group};

use super::client::{Client, Url};
use super::signal;
use crate::agent::client::{self as agent, NotDone};

/// An action, as `--validate`, `--reload` and `--confirm` name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `exec:CMD`: a program of this container.
    Exec(Vec<String>),
    /// `http:POST:URL`, or `http:URL` for GET: wants a 2xx answer.
    Http(String, Url),
    /// `signal:SIG:PROCESS`: a signal to a process of the PID namespace that the pod shares.
    Signal(Signal, String),
    /// `agent:CMD`: a program of the application's container, run by `podkit agent` there.
    Agent(Vec<String>),
    /// `tcp:ADDR`: wants a connection.
    Tcp(Addr),
}

/// What an action is run with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What `{}` stands for.
    pub tree: &'a Path,
    /// The agent's socket.
    pub agent: &'a Path,
    /// How long it may take.
    pub timeout: Duration,
}

impl ParamType for Action {
    const TYPE_NAME: &'static str = "action";
    const EXPECTED: &'static str =
        "exec:CMD, agent:CMD, http:POST:URL, http:URL, signal:SIG:PROCESS or tcp:ADDR";

    fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').ok_or_else(String::new)?;
        match kind {
            "exec" => words(rest).map(Self::Exec),
            "agent" => words(rest).map(Self::Agent),
            "signal" => match rest.split_once(':') {
                Some((_, "")) | None => Err(format!("\"{rest}\" is not SIG:PROCESS")),
                Some((name, process)) => {
                    signal::parse(name).map(|signal| Self::Signal(signal, process.to_owned()))
                }
            },
            "tcp" => Addr::parse(rest).map(Self::Tcp),
            "http" | "https" if rest.starts_with("//") => {
                Ok(Self::Http("GET".to_owned(), Url::parse(text)?))
            }
            "http" => match rest.split_once(':') {
                Some((method @ ("GET" | "POST" | "PUT"), url)) => {
                    Ok(Self::Http(method.to_owned(), Url::parse(url)?))
                }
                Some(("http" | "https", _)) => Ok(Self::Http("GET".to_owned(), Url::parse(rest)?)),
                Some((method, _)) => Err(format!("\"{method}\" is not GET, POST or PUT")),
                None => Err(format!("\"{rest}\" is not a URL")),
            },
            _ => Err(format!("there is no action \"{kind}\"")),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec(words) => write!(f, "exec:{}", words.join(" ")),
            Self::Agent(words) => write!(f, "agent:{}", words.join(" ")),
            Self::Signal(signal, process) => {
                write!(f, "signal:{}:{process}", signal::name(*signal))
            }
            Self::Http(method, url) => write!(f, "http:{method}:{url}"),
            Self::Tcp(addr) => write!(f, "tcp:{addr}"),
        }
    }
}

/// A validation must be able to see what it is about: a command that never names `{}` judges the version in force.
pub fn check_validations(actions: &[Action]) -> Result<(), String> {
    for action in actions {
        if let Action::Exec(words) | Action::Agent(words) = action
            && !words.iter().any(|word| word.contains("{}"))
        {
            return Err(format!(
                "\"{action}\" never names the staged files; expected {{}} where their directory goes"
            ));
        }
    }
    Ok(())
}

impl Action {
    /// Does it. Blocks. An error is one line that says what failed.
    pub fn run(&self, context: Context<'_>) -> Result<(), NotDone> {
        let done = match self {
            Self::Agent(words) => {
                return agent::run_words(context.agent, words, Some(context.tree), context.timeout);
            }
            Self::Exec(words) => execute(words, context).map_err(|why| format!("{self}: {why}")),
            Self::Signal(signal, process) => {
                let sent = signal::send(*signal, process, context.timeout);
                sent.map_err(|why| format!("{self}: {why}"))
            }
            Self::Http(method, url) => {
                Client::default().expect_success(method, url, context.timeout)
            }
            Self::Tcp(addr) => connect(addr, context.timeout)
                .map_err(|error| format!("{addr} can't be connected to ({error})")),
        };
        Ok(done?)
    }
}

fn connect(addr: &Addr, timeout: Duration) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let dialled = podkit_dataplane::upstream::dial(addr);
    let done = runtime.block_on(async { tokio::time::timeout(timeout, dialled).await });
    match done {
        Ok(dialled) => dialled.map(drop).map_err(|error| error.to_string()),
        Err(_) => Err(format!("no connection within {} ms", timeout.as_millis())),
    }
}

/// Runs a command in a process group of its own, which ends with it when it takes too long.
fn execute(words: &[String], context: Context<'_>) -> Result<(), String> {
    let tree = context.tree.to_string_lossy();
    let mut words = words.iter().map(|word| word.replace("{}", &tree));
    let program = words.next().unwrap_or_default();
    let (mut reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let both = writer.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(&program);
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(both)
        .process_group(0);
    let spawned = command.spawn();
    // It holds the pipe's other end.
    drop(command);
    let mut child = spawned.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no program {program} in this container"),
        _ => format!("can't be started ({error})"),
    })?;
    let (said, heard) = mpsc::channel();
    // Not awaited: what the command leaves running may hold the pipe.
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..count]);
            let excess = kept.len().saturating_sub(SAID);
            kept.drain(..excess);
        }
        said.send(kept).ok();
    });
    let end = Instant::now() + context.timeout;
    let mut rest = Duration::from_millis(1);
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if Instant::now() >= end => {
                let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                if let Some(group) = group {
                    kill_process_group(group, Signal::KILL).ok();
                }
                child.wait().ok();
                return Err(format!(
                    "not done within {} ms",
                    context.timeout.as_millis()
                ));
            }
            None => std::thread::sleep(rest),
        }
        rest = (rest * 2).min(Duration::from_millis(20));
    };
    if status.success() {
        return Ok(());
    }
    let said = heard
        .recv_timeout(Duration::from_secs(1))
        .unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.is_empty() {
        true => Err(format!("{status}")),
        false => Err(format!("{status}: {}", lines.join("; "))),
    }
}

/// The most of a command's output that is told.
const SAID: usize = 1024;

/// The words of a command line, as a shell splits them: quotes and backslashes count, nothing is expanded.
pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('"') | None, '\\') => {
                let next = chars.next().ok_or("it ends in a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_ascii_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("a {quote} is not closed"));
    }
    words.extend(word);
    match words.is_empty() {
        true => Err("the command is missing".to_owned()),
        false => Ok(words),
    }
}
