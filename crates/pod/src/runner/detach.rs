//! `run -d`: the same `podkit run`, going on in the background.
//!
//! ```text
//!   podkit run -d ──▶ podkit run --detached        reads, checks, claims, makes the sandbox, still on the caller's
//!        │                  │                      standard error; a session of its own from the first moment
//!        │ ◀── stdout ──────┤ {"pods":["default/web"]}, {"started":"default/web"}
//!        ▼                  ▼
//!   says so, ends      standard output and error: /dev/null and supervisor.log
//! ```
//!
//! Nothing forks: the process in the background is executed anew, so that it may make its threads and namespaces. With several
//! pods it is over their supervisors, as in the foreground; each reports for itself. What goes wrong before a pod has begun is
//! said, and ends, as in the foreground.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::SystemTime;

use podkit_foundation::error::Failure;
use serde_json::{Value, json};

use super::again::again;
use super::{OutputFormat, RunOptions};

/// Starts the process in the background, and says which pods have begun. The exit code is its own when it has failed.
pub(super) fn launch(options: &RunOptions) -> Result<u8, Failure> {
    let failed = |error| Failure::runtime("starting the supervisor", error);
    // Whoever waits for the end of something that the caller has open (a lock, a pipe) does not wait for the pod.
    crate::sys::mark_all_close_on_exec(3).map_err(failed)?;
    let from_stdin = options.files.iter().any(|file| file.as_os_str() == "-");
    let mut child = again(options)
        .arg("--detached")
        .stdin(match from_stdin {
            true => Stdio::inherit(),
            false => Stdio::null(),
        })
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut waited: BTreeSet<String> = BTreeSet::new();
    let mut started = Vec::new();
    let mut named = false;
    let report = child.stdout.take();
    // Its end: every supervisor has reported, or ended.
    for line in report
        .into_iter()
        .flat_map(|out| BufReader::new(out).lines())
    {
        let Ok(line) = line else { break };
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(pods) = line["pods"].as_array() {
            named = true;
            waited.extend(pods.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        if let Some(pod) = line["started"].as_str() {
            waited.remove(pod);
            say(options.output, "started", pod)?;
            started.push(pod.to_owned());
        }
    }
    if named && waited.is_empty() {
        return match options.wait {
            true => super::wait::until_ready(options, &started),
            false => Ok(0),
        };
    }
    if !started.is_empty() {
        // The others have said why on standard error.
        return Ok(1);
    }
    let status = child.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.filter(|code| *code != 0).unwrap_or(1))
}

/// One line about a pod, `NAMESPACE/NAME`.
pub(super) fn say(format: OutputFormat, what: &str, pod: &str) -> Result<(), Failure> {
    let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
    let line = match format {
        OutputFormat::Text => format!("pod/{name} {what}\n"),
        OutputFormat::Json => {
            let ts = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            let line = json!({"ts": ts, "type": what, "pod": name, "namespace": namespace});
            format!("{line}\n")
        }
    };
    let written = std::io::stdout().write_all(line.as_bytes());
    written.map_err(|error| Failure::runtime("writing to standard output", error))
}

/// What a terminal does to its processes is no longer done to this one.
pub(super) fn leave_session() {
    // Fails only for the leader of a process group: a supervisor among several, whose parent has left.
    let _led = rustix::process::setsid();
}

/// Says which pods are to be waited for.
pub(super) fn report_pods(names: &[String]) -> Result<(), Failure> {
    report(&json!({"pods": names}))
}

/// What is to be known of the files, on the caller's standard error.
pub(super) fn warn(remarks: &[String]) {
    for remark in remarks {
        eprintln!("Warning: {remark}");
    }
}

/// Says that the pod has begun, and lets go of the caller's terminal. `alone`: standard input is the caller's, too, and not the
/// pipe of a process above.
pub(super) fn begun(pod: &str, log: &Path, alone: bool) -> Result<(), Failure> {
    report(&json!({"started": pod}))?;
    let doing = |error: &dyn std::fmt::Display| Failure::runtime("going to the background", error);
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    let log = options.open(log).map_err(|error| doing(&error))?;
    rustix::stdio::dup2_stderr(&log).map_err(|error| doing(&error))?;
    let null = null().map_err(|error| doing(&error))?;
    if alone {
        rustix::stdio::dup2_stdin(&null).map_err(|error| doing(&error))?;
    }
    rustix::stdio::dup2_stdout(&null).map_err(|error| doing(&error))
}

/// The process over several supervisors, which has started them, has nothing to say.
pub(super) fn fall_silent() -> std::io::Result<()> {
    let null = null()?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

fn null() -> std::io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}

/// An error: whoever asked for the pod has gone, and does not know of it.
fn report(line: &Value) -> Result<(), Failure> {
    let line = format!("{line}\n");
    rustix::io::write(std::io::stdout(), line.as_bytes())
        .map(drop)
        .map_err(|error| Failure::runtime("reporting to the caller", error))
}
