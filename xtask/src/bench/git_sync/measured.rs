//! What a command takes until it ends, it and all that it starts: time, CPU, and memory by what it is made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podkit_testkit::machine::tree;
use podkit_testkit::program;

/// Between two looks at the memory of what runs.
const LOOK: Duration = Duration::from_millis(10);

/// What a command took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    pub(super) ended_well: bool,
    pub(super) wall_seconds: f64,
    pub(super) cpu_seconds: f64,
    /// Of the largest process, as the kernel has counted it (VmHWM).
    pub(super) largest_megabytes: f64,
    /// Of all processes together: their own pages, at the highest look.
    pub(super) anonymous_megabytes: f64,
    /// The same with mapped files.
    pub(super) resident_megabytes: f64,
}

/// Runs a command to its end, in a cgroup if there is one.
pub(super) fn measure(dir: &Path, command: &Command, within: Option<&Bound>) -> Result<Taken> {
    let said = dir.join("time");
    let mut shell = Command::new("/bin/sh");
    let enter = match within {
        Some(bound) => format!("echo $$ > {} && ", bound.dir.join("cgroup.procs").display()),
        None => String::new(),
    };
    shell.args(["-c", &format!("{enter}exec \"$@\""), "sh"]);
    shell.arg(program("time").context("it was asked for")?);
    shell.args(["--format", "%U %S %M", "--output"]).arg(&said);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(Stdio::null()).stdout(Stdio::null());
    let errors = fs::File::create(dir.join("errors"))?;
    shell.stderr(errors);
    let started = Instant::now();
    let mut child = shell.spawn()?;
    let mut taken = Taken::default();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let (mut anonymous, mut resident) = (0.0, 0.0);
        // The first is GNU time.
        for pid in tree(child.id()).into_iter().skip(1) {
            let memory = Memory::of(pid);
            anonymous += memory.anonymous;
            resident += memory.resident;
        }
        taken.anonymous_megabytes = taken.anonymous_megabytes.max(anonymous);
        taken.resident_megabytes = taken.resident_megabytes.max(resident);
        std::thread::sleep(LOOK);
    };
    taken.wall_seconds = started.elapsed().as_secs_f64();
    taken.ended_well = status.success();
    let text = fs::read_to_string(&said)?;
    // What comes before says that a signal ended it.
    let numbers: Vec<f64> = text
        .lines()
        .last()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    let [user, system, largest_kib] = numbers[..] else {
        anyhow::bail!("time said {text:?}");
    };
    taken.cpu_seconds = user + system;
    taken.largest_megabytes = largest_kib * 1024.0 / 1e6;
    let errors = fs::read_to_string(dir.join("errors"))?;
    ensure!(
        within.is_some() || taken.ended_well,
        "{command:?}: {status}: {errors}"
    );
    Ok(taken)
}

/// What a process has in memory, in MB. Nothing, when it has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) anonymous: f64,
    pub(super) resident: f64,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            let kib: f64 = number.and_then(|kib| kib.parse().ok()).unwrap_or_default();
            kib * 1024.0 / 1e6
        };
        Self {
            anonymous: field("RssAnon:"),
            resident: field("VmRSS:"),
        }
    }
}

/// A cgroup of our own whose memory is bounded, the page cache included; of version 1 or 2.
#[derive(Debug)]
pub(super) struct Bound {
    dir: PathBuf,
}

impl Bound {
    /// None where no cgroup with the controller can be made.
    pub(super) fn new(bytes: u64) -> Option<Self> {
        let name = format!("podkit-bench-{}", std::process::id());
        let roots = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];
        roots.iter().find_map(|root| {
            let dir = PathBuf::from(root).join(&name);
            fs::create_dir(&dir).ok()?;
            let bound = Self { dir };
            let limits = ["memory.limit_in_bytes", "memory.max"];
            let mut set = limits.iter().map(|limit| {
                let file = bound.dir.join(limit);
                file.exists() && fs::write(file, bytes.to_string()).is_ok()
            });
            set.any(|set| set).then_some(bound)
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.dir) {
            eprintln!("xtask: {}: {error}", self.dir.display());
        }
    }
}
