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

mod machine;

use std::path::PathBuf;
use std::time::Duration;

pub use machine::FIRST_STEP as BACKOFF_FIRST_STEP;

/// What `podkit run` was asked to do.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The manifests, in order.
    pub files: Vec<PathBuf>,
    /// `--without CONTAINER`: leave it out.
    pub without: Vec<String>,
    /// `--image CONTAINER=SOURCE`: where its root file system comes from, over what the file says.
    pub images: Vec<(String, String)>,
    /// `--allow-privileged`: accept what would own the machine.
    pub allow_privileged: bool,
    /// Publish the declared ports on loopback (not `--no-publish`).
    pub publish: bool,
    /// `--backoff`: the first step of the restart back-off, [`BACKOFF_FIRST_STEP`] when not given.
    pub backoff: Duration,
    /// `-o`.
    pub output: OutputFormat,
    /// `--exit-code-from CONTAINER`: the pod stops when it ends, and its exit code is podkit's.
    pub exit_code_from: Option<String>,
    /// `--state-dir DIR` (hidden): in place of `/run/podkit` and `/var/lib/podkit`.
    pub state_dir: Option<PathBuf>,
    /// `--only-pod NAME` (hidden): which pod of the files this process supervises; set by the process that
    /// supervises the supervisors of several.
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
