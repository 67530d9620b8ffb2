//! Starts `podkit run` and reads what it says.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use podkit_pod::runner::{self, NameSeed, OutputFormat, RunOptions};
use serde_json::Value;

/// The `run` command, as far as the cases need it.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let mut options = RunOptions {
        backoff: Duration::from_millis(200),
        output: OutputFormat::Json,
        ..RunOptions::default()
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().expect("a value").clone();
        match arg.as_str() {
            "--state-dir" => options.state_dir = Some(value().into()),
            "--seccomp-dir" => options.seccomp_dir = Some(value().into()),
            "--exit-code-from" => options.exit_code_from = Some(value()),
            "--without" => options.without.push(value()),
            "--only-pod" => options.only_pod = Some(value()),
            "--job-pod" => options.job_pod = Some(value()),
            "--name-seed" => {
                options.name_seed = NameSeed::given(value().parse().expect("a number"));
            }
            "--watch" => options.watch = true,
            "--no-publish" => options.publish = false,
            "--backoff-ms" => {
                options.backoff = Duration::from_millis(value().parse().expect("a number"));
            }
            "--text" => options.output = OutputFormat::Text,
            file => options.files.push(file.into()),
        }
    }
    match runner::run(&options) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Everything that a start may leave on the machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    mounts: Vec<String>,
    cgroups: Vec<PathBuf>,
    podkit: Vec<String>,
}

impl Machine {
    /// Processes of this test program that are left.
    pub(crate) fn processes(&self) -> &[String] {
        &self.podkit
    }

    pub(crate) fn look() -> Self {
        // Those of others are their own affair.
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let place = std::env::temp_dir();
        let place = place.to_str().expect("UTF-8");
        let ours = |line: &&str| line.contains(place) || line.contains("podkit");
        let mounts = mounts.lines().filter(ours).map(str::to_owned).collect();
        let mut cgroups = vec![];
        let bases = std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        for base in bases
            .map(|base| base.path())
            .chain(["/sys/fs/cgroup".into()])
        {
            find_podkit(&base, 0, &mut cgroups);
        }
        cgroups.sort();
        // Processes that are neither this one nor of another test program.
        let me = std::process::id().to_string();
        let mut podkit = vec![];
        for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
            let Ok(environ) = std::fs::read(entry.path().join("environ")) else {
                continue;
            };
            let mark = format!("PODKIT_TEST_OF={me}");
            if environ
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes())
            {
                podkit.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Self {
            mounts,
            cgroups,
            podkit,
        }
    }
}

fn find_podkit(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if !kind.is_dir() {
            continue;
        }
        if entry.file_name() == "podkit" {
            for pod in std::fs::read_dir(entry.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                if pod.file_name().to_string_lossy().starts_with(&prefix()) {
                    found.push(pod.path());
                }
            }
        } else if depth < 4 {
            find_podkit(&entry.path(), depth + 1, found);
        }
    }
}

/// A pod that runs in the foreground of a child process.
pub(crate) struct Pod {
    pub(crate) child: Child,
    lines: Receiver<Value>,
    closed: Arc<AtomicBool>,
    pub(crate) seen: Vec<Value>,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

impl Pod {
    /// Starts the manifest.
    pub(crate) fn start(manifest: &str, args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), manifest, args)
    }

    pub(crate) fn start_in(dir: tempfile::TempDir, manifest: &str, args: &[&str]) -> Self {
        let file = dir.path().join("pod.yaml");
        std::fs::write(&file, manifest).expect("the manifest");
        let mut child = Command::new("/proc/self/exe")
            .arg("run")
            .arg(&file)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .args(args)
            .env("PODKIT_TEST_OF", std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the runner");
        let stdout = child.stdout.take().expect("stdout");
        let (sent, lines) = channel();
        let closed = Arc::new(AtomicBool::new(false));
        let stop_reading = Arc::clone(&closed);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if stop_reading.load(Ordering::Relaxed) {
                    return;
                }
                let value = serde_json::from_str(&line).unwrap_or_else(|_| Value::from(line));
                if sent.send(value).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            closed,
            seen: vec![],
            dir,
        }
    }

    /// Waits for a line of which this holds.
    pub(crate) fn wait(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if is(&line) {
                        return line;
                    }
                }
                Err(error) => {
                    let said = self.stderr_if_ended();
                    panic!(
                        "no {what} ({error}); seen: {:#?}\nstderr: {said}",
                        self.seen
                    )
                }
            }
        }
    }

    /// Waits for a container's event.
    pub(crate) fn event(&mut self, container: &str, reason: &str) -> Value {
        self.wait(&format!("{reason} of {container}"), |line| {
            line["type"] == "event" && line["container"] == container && line["reason"] == reason
        })
    }

    /// Waits for a container's state.
    pub(crate) fn state(&mut self, container: &str, state: &str) -> Value {
        self.wait(&format!("{container} {state}"), |line| {
            line["type"] == "container" && line["container"] == container && line["state"] == state
        })
    }

    /// A line of a log that has come, or comes.
    pub(crate) fn wait_or_seen_log(&mut self, container: &str, text: &str) {
        let seen = |line: &Value| line["container"] == container && line["line"] == text;
        if !self.seen.iter().any(seen) {
            self.log(container, text);
        }
    }

    /// Waits for a line of a log.
    pub(crate) fn log(&mut self, container: &str, text: &str) -> Value {
        self.wait(&format!("{text:?} of {container}"), |line| {
            line["type"] == "log"
                && line["container"] == container
                && line["line"]
                    .as_str()
                    .is_some_and(|line| line.contains(text))
        })
    }

    /// Waits until this has held of so many lines since the start, and gives the last of them.
    pub(crate) fn until(&mut self, what: &str, times: usize, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(line) = self.seen.iter().filter(|line| is(line)).nth(times - 1) {
                return line.clone();
            }
            self.wait(what, &is);
        }
    }

    /// Waits until so many containers have begun to sleep since the start. A pod is ready before: a SIGTERM that meets the first
    /// process of a PID namespace without a handler does nothing.
    pub(crate) fn sleeping(&mut self, times: usize) {
        self.until("sleeping", times, |line| {
            line["type"] == "log" && line["line"] == "sleeping"
        });
    }

    pub(crate) fn ready(&mut self) {
        self.wait("ready pod", |line| {
            line["type"] == "pod" && line["ready"] == true
        });
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("the supervisor lives");
    }

    /// Waits for the end: the exit code, all lines, standard error, and the directory, which must be empty.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<Value>, String) {
        let end = Instant::now() + PATIENCE;
        while let Ok(line) = self
            .lines
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            self.seen.push(line);
        }
        let code = loop {
            match self.child.try_wait().expect("the child") {
                Some(status) => break status.code(),
                None if Instant::now() > end => panic!("no end; seen: {:#?}", self.seen),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let said = self.stderr_if_ended();
        let state = self.dir.path().join("state");
        // The image store stays, as it is meant to.
        let images = state.join("lib/images");
        let left = walk(&state).into_iter();
        let left: Vec<_> = left
            .filter(|path| !path.starts_with(&images) && !images.starts_with(path))
            .collect();
        assert!(left.is_empty(), "left: {left:?}");
        (code, std::mem::take(&mut self.seen), said)
    }

    /// The reader of its standard output goes away with the next line.
    pub(crate) fn close_stdout(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Asks for a stop and waits for it.
    pub(crate) fn stop(self) -> (Option<i32>, Vec<Value>, String) {
        self.signal(rustix::process::Signal::TERM);
        self.end()
    }

    fn stderr_if_ended(&mut self) -> String {
        use std::io::Read;
        let mut said = String::new();
        if self.child.try_wait().is_ok_and(|status| status.is_some())
            && let Some(mut stderr) = self.child.stderr.take()
        {
            let _read = stderr.read_to_string(&mut said);
        }
        said
    }

    /// `state.json`.
    pub(crate) fn state_json(&self, pod: &str) -> Value {
        let path = self
            .dir
            .path()
            .join(format!("state/run/pods/{}/state.json", full(pod)));
        serde_json::from_slice(&std::fs::read(path).expect("state.json")).expect("JSON")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _killed = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path());
        found.extend(walk(&entry.path()));
    }
    found
}

/// Pods' names begin with it: two of this program may run at a time.
fn prefix() -> String {
    format!("rt{}-", std::process::id())
}

/// The whole name of a pod.
pub(crate) fn full(name: &str) -> String {
    prefix() + name
}

/// A port that nothing listens on, and that no other test is given meanwhile.
pub(crate) fn free_port() -> u16 {
    podkit_testkit::net::free_addr().port()
}

/// A pod of containers given as YAML.
pub(crate) fn manifest(name: &str, spec: &str) -> String {
    let (name, spec) = (full(name), spec.trim_matches('\n'));
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n{spec}\n")
}

/// The events' reasons and containers' ends, in order, as `CONTAINER REASON`.
pub(crate) fn story(lines: &[Value]) -> Vec<String> {
    let word = |line: &Value| {
        let container = line["container"].as_str().unwrap_or("pod");
        match line["type"].as_str()? {
            "event" => Some(format!("{container} {}", line["reason"].as_str()?)),
            "container" if line["state"] == "terminated" => {
                Some(format!("{container} {}", line["reason"].as_str()?))
            }
            _ => None,
        }
    };
    let dull = |word: &String| !word.ends_with("Pulled") && !word.ends_with("Created");
    lines.iter().filter_map(word).filter(dull).collect()
}
