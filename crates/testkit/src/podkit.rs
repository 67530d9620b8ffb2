//! The program that is tested: where it is, and its modules and pods as processes of a test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::http::{self, Response};
use crate::net::free_addr;
use crate::process::{Finished, Process, Stream, run};
use crate::until;

/// The podkit to test: `TESTKIT_PODKIT` (which `cargo xtask test` sets), else the release build beside the test program.
pub fn binary() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os("TESTKIT_PODKIT") {
            return path.into();
        }
        let test = std::env::current_exe().expect("a program knows its own path");
        // target/TRIPLE/PROFILE/deps/TEST or target/TRIPLE/PROFILE/xtask
        let found = test.ancestors().map(|dir| dir.join("release/podkit"));
        found.into_iter().find(|path| path.is_file()).expect(
            "the release build of podkit is tested: cargo build --release, or set TESTKIT_PODKIT",
        )
    })
}

/// A command of it, without what the environment of the test may hold for it.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PODKIT_") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// Runs it to its end.
pub fn podkit(args: &[&str]) -> Finished {
    run("podkit", &mut command(args))
}

/// A module that runs on its own, its admin server on a free port.
#[derive(Debug)]
pub struct Module {
    /// The process.
    pub process: Process,
    /// Its admin address.
    pub admin: SocketAddr,
}

impl Module {
    /// Starts `podkit NAME --admin FREE ARGS...` with these variables and waits until `/readyz` says 200.
    pub fn start(name: &str, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let module = Self::spawn(name, args, variables);
        module.wait_ready();
        module
    }

    /// The same without waiting.
    pub fn spawn(name: &str, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let admin = free_addr();
        let mut command = command(&[name, "--admin", &admin.to_string()]);
        command.args(args).envs(variables.iter().copied());
        let process = Process::spawn(&format!("podkit {name}"), &mut command);
        Self { process, admin }
    }

    /// Waits until `/readyz` says 200; panics with its log when it ends instead.
    pub fn wait_ready(&self) {
        until("/readyz", || {
            assert!(
                !self.process.has_ended(),
                "ended before it was ready\n{}",
                self.process.shown()
            );
            let answer = http::get(self.admin, "/readyz").ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// An answer of its admin server.
    pub fn admin(&self, path: &str) -> Response {
        http::get(self.admin, path)
            .unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.process.shown()))
    }

    /// The value of a sample of `/metrics`: its name with its labels as shown. None when it is not there.
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.admin("/metrics").text();
        text.lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
            .map(|value| value.trim().parse().expect("a sample's value is a number"))
    }
}

/// A pod that `podkit run -o json` supervises.
#[derive(Debug)]
pub struct Pod {
    /// The supervisor.
    pub process: Process,
    /// Its state directory, when the test has one of its own.
    _state: Option<tempfile::TempDir>,
}

impl Pod {
    /// Starts `podkit run -o json FILE ARGS...`.
    pub fn run(file: &Path, args: &[&str]) -> Self {
        let mut command = command(&["run", "-o", "json"]);
        command.arg(file).args(args);
        Self {
            process: Process::spawn("podkit run", &mut command),
            _state: None,
        }
    }

    /// The same for a manifest that is a text.
    pub fn run_text(manifest: &str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("pod.yaml");
        std::fs::write(&file, manifest).expect("a new file");
        Self {
            _state: Some(dir),
            ..Self::run(&file, args)
        }
    }

    /// Everything it has said so far, in order.
    pub fn said(&self) -> Vec<Value> {
        let lines = self.process.lines().into_iter();
        lines
            .filter(|line| line.stream == Stream::Out)
            .map(|line| {
                serde_json::from_str(&line.text)
                    .unwrap_or_else(|error| panic!("{error}: {}", line.text))
            })
            .collect()
    }

    /// How many lines there are so far: a mark to wait from.
    pub fn mark(&self) -> usize {
        self.process.lines().len()
    }

    /// Waits for something said after `mark` that `wanted` accepts; gives it, and the mark behind it.
    pub fn wait_from(
        &self,
        mark: usize,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> (usize, Value) {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let (index, line) = self
            .process
            .wait_line_after(mark, what, |text| wanted(&parse(text)));
        (index + 1, parse(&line.text))
    }

    /// Waits for something said at any time.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_from(0, what, wanted).1
    }

    /// Waits until the pod is ready.
    pub fn wait_ready(&self) {
        self.wait("the pod to be ready", |said| {
            said["type"] == "pod" && said["ready"] == true
        });
    }

    /// Waits for an event of a container.
    pub fn wait_event(&self, container: &str, reason: &str) -> Value {
        self.wait(&format!("{reason} of {container}"), |said| {
            is_event(said, container, reason)
        })
    }

    /// Stops it (SIGTERM), and gives its exit code.
    pub fn stop(&mut self) -> i32 {
        self.process.stop()
    }
}

/// Whether something said is this event of this container (an empty name: of the pod).
pub fn is_event(said: &Value, container: &str, reason: &str) -> bool {
    said["type"] == "event"
        && said["reason"] == reason
        && said["container"].as_str().unwrap_or_default() == container
}
