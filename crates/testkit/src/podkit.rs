//! The program that is tested: where it is, and its modules and pods as processes of a test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::http::{self, Response};
use crate::net::free_addr;
use crate::process::{Finished, Process, run};
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
