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
mod again;
mod change;
mod console;
mod container;
mod definition;
mod descriptors;
mod detach;
mod etc;
mod ids;
mod images;
mod job;
mod layout;
mod log_files;
mod logs;
mod machine;
mod many;
mod message;
mod network;
mod oom;
mod output;
mod prepare;
mod probing;
mod pulls;
mod resolv;
mod signals;
mod state;
mod supervise;
#[cfg(test)]
mod testing;
mod wait;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use podkit_foundation::error::Failure;

pub use again::NameSeed;
pub(crate) use console::{Console, SLOW_MAX, Typing};
pub(crate) use layout::Layout;
pub use machine::FIRST_STEP as BACKOFF_FIRST_STEP;
pub use output::Screen;
pub(crate) use supervise::Subject;

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
    /// `--watch`: edited files are applied to what runs.
    pub watch: bool,
    /// `--only-pod NAMESPACE/NAME` (hidden): which pod of the files this process supervises; set by the process that
    /// started it as one of several. Standard input is then that process's pipe: its end means stop.
    pub only_pod: Option<String>,
    /// `--job-pod NAMESPACE/JOB/POD[/INDEX]` (hidden): a pod of one of the files' Jobs, for `only_pod`.
    pub job_pod: Option<String>,
    /// `-d`: go on in the background; [`run`] returns when all pods have begun.
    pub detach: bool,
    /// `--wait`: with `detach`, return when all pods are ready, or fail.
    pub wait: bool,
    /// `--wait-timeout`: for how long.
    pub wait_timeout: Duration,
    /// `--log-max-size` and `--log-max-files`: how much is kept of the log of a container's run.
    pub log_max_size: u64,
    /// See `log_max_size`.
    pub log_max_files: u32,
    /// Shows pulls on the terminal below the output's lines. None: one of several, which another process shows, or nobody looks.
    pub screen: Option<Arc<dyn Screen>>,
    /// `--detached` (hidden): this process goes on in the background, and reports on standard output to the one that started it.
    pub detached: bool,
    /// `--name-seed N` (hidden): what the names follow from that the files leave to podkit.
    pub name_seed: NameSeed,
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
            watch: false,
            only_pod: None,
            job_pod: None,
            detach: false,
            wait: false,
            wait_timeout: Duration::from_secs(300),
            log_max_size: 10 << 20,
            log_max_files: 5,
            screen: None,
            detached: false,
            name_seed: NameSeed::random(),
        }
    }
}

impl RunOptions {
    fn log_limits(&self) -> log_files::Limits {
        log_files::Limits {
            size: self.log_max_size,
            files: usize::try_from(self.log_max_files).unwrap_or(usize::MAX),
        }
    }
}

/// Takes away what there is of a pod whose supervisor has ended: its status, its logs, and what a killed one left. False when its
/// supervisor lives: that one is to be asked. `key`: see [`Found`](crate::control::Found).
pub fn remove(state_dir: Option<&Path>, key: &str) -> Result<bool, Failure> {
    prepare::remove(state_dir, key)
}

/// Runs the pods of the files in the foreground, to their end; or starts them with `detach`. To be called before any thread is
/// started.
///
/// Gives the exit code: 0 when all went well or the pod was asked to stop, 1 when it failed, was evicted or had to be
/// killed at once; with `exit_code_from` that container's. An error is one line (or a line for each finding) and says that
/// nothing was started, or nothing is left of it.
pub fn run(options: &RunOptions) -> Result<u8, Failure> {
    if options.detach && !options.detached {
        return detach::launch(options);
    }
    if options.detached {
        detach::leave_session();
    }
    let pods = prepare::read(options)?;
    prepare::suits(options, &pods)?;
    if options.detached && options.only_pod.is_none() {
        detach::report_pods(pods.names())?;
    }
    // Under --watch pods come and go, and one that is restarted as a whole has to be started by somebody.
    let many = pods.names().len() > 1 || !pods.jobs().is_empty() || options.watch;
    match options.only_pod {
        None if many => many::run(options, &pods),
        _ => prepare::run(options, &pods),
    }
}
