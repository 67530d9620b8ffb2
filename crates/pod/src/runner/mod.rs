//! The supervisor: one process per pod, no daemon.
//!
//! ```text
//!   signals, exits (pidfd), probes, hooks, limits ──▶ machine (sans-IO) ──▶ start, signal, probe, tell
//!                                                        │
//!                 state.json, pod.json ◀── status ───────┴── events ──▶ output ◀── logs of the containers
//! ```
//!
//! `machine` decides; everything else here is the rim around it. One thread does it all (a tokio
//! `current_thread` runtime), so that a pod costs little; one more writes to the terminal, so that a terminal
//! that is stopped or slow holds up nobody but those who print.

mod addresses;
mod container;
mod etc;
mod images;
mod layout;
mod logs;
mod machine;
mod many;
mod message;
mod network;
mod output;
mod prepare;
mod probing;
mod signals;
mod state;
mod supervise;
#[cfg(test)]
mod testing;

use std::path::PathBuf;
use std::time::Duration;

use podkit_foundation::error::Failure;

pub use machine::FIRST_STEP as BACKOFF_FIRST_STEP;

/// What `podkit run` was asked to do.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The manifests, in order; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// `--without CONTAINER`: leave it out.
    pub without: Vec<String>,
    /// `--image CONTAINER=SOURCE`: where its root file system comes from, over what the file says.
    pub images: Vec<(String, String)>,
    /// `--allow-privileged`: accept what would own the machine.
    pub allow_privileged: bool,
    /// Publish the declared ports on loopback (not `--no-publish`).
    pub publish: bool,
    /// `--backoff`: the first step of the restart back-off, [`BACKOFF_FIRST_STEP`] when not given. The cap is 30 times and
    /// the reset 60 times as long, as the kubelet's 5 m and 10 m are to its 10 s.
    pub backoff: Duration,
    /// `-o`.
    pub output: OutputFormat,
    /// `--exit-code-from CONTAINER`: the pod stops when it ends, and its exit code is podkit's.
    pub exit_code_from: Option<String>,
    /// `--seccomp-dir DIR`: where the files of `localhostProfile` are, in place of `seccomp` below the state.
    pub seccomp_dir: Option<PathBuf>,
    /// `--state-dir DIR` (hidden): in place of `/run/podkit` and `/var/lib/podkit`.
    pub state_dir: Option<PathBuf>,
    /// `--only-pod NAMESPACE/NAME` (hidden): which pod of the files this process supervises; set by the process that
    /// started it as one of several. Standard input is then that process's pipe: its end means stop.
    pub only_pod: Option<String>,
}

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for RunOptions {
    /// What holds when the command line says nothing; no files.
    fn default() -> Self {
        Self {
            files: Vec::new(),
            without: Vec::new(),
            images: Vec::new(),
            allow_privileged: false,
            publish: true,
            backoff: BACKOFF_FIRST_STEP,
            output: OutputFormat::Text,
            exit_code_from: None,
            seccomp_dir: None,
            state_dir: None,
            only_pod: None,
        }
    }
}

/// Runs the pods of the files in the foreground, to their end. To be called before any thread is started.
///
/// Gives the exit code: 0 when all went well or the pod was asked to stop, 1 when it failed, was evicted or had to be
/// killed at once; with `exit_code_from` that container's. An error is one line (or a line for each finding) and says that
/// nothing was started, or nothing is left of it.
pub fn run(options: &RunOptions) -> Result<u8, Failure> {
    let pods = prepare::read(options)?;
    match pods.names() {
        [_, _, ..] if options.only_pod.is_none() => many::run(options, &pods),
        _ => prepare::run(options, &pods),
    }
}
