//! What the end-to-end tests and the benchmarks stand on: processes that are started, watched and never left behind,
//! certificates, clients at the level of bytes, real nginx and HAProxy, and looks at what a pod must not leave.
//!
//! Blocking and built on std on purpose: a test reads top to bottom, and none of podkit's own code is used to test
//! podkit. Nothing here waits for a clock: everything waits for an event, and a deadline only ends a test that failed.

pub mod browser;
pub mod certs;
pub mod dns;
pub mod etcd;
pub mod git;
pub mod http;
pub mod images;
pub mod leftovers;
pub mod machine;
pub mod mariadb;
pub mod memcached;
pub mod net;
pub mod peers;
pub mod podkit;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod reference;
pub mod relay;
pub mod ssh;
pub mod stats;
pub mod tls;
pub mod versions;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a test waits for what must happen: long enough for a loaded machine, since only a failing test waits it out.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Looks again and again until `look` gives something; panics with `what` at the deadline. For states that nothing
/// announces; what is announced (a line of a log, the end of a process) is waited for without looking.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < DEADLINE,
            "{what}: not within {DEADLINE:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The top of the repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("crates/testkit lies two below the top")
        .to_owned()
}

/// The program called `name`, looked up in PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Whether this test may run; when not, says why, so that a run shows what it did not test.
pub fn able(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(Need::missing).collect();
    if !missing.is_empty() {
        skip(&missing.join(", "));
    }
    missing.is_empty()
}

/// Says that the test that calls this tests nothing here, and what it would need.
pub fn skip(needs: &str) {
    println!("SKIPPED: needs {needs}");
    // Where `cargo xtask test` counts them.
    if let Some(file) = std::env::var_os("TESTKIT_SKIPPED") {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        append(Path::new(&file), &format!("{name}: needs {needs}\n"));
    }
}

fn append(file: &Path, line: &str) {
    use std::io::Write as _;
    let opened = File::options().create(true).append(true).open(file);
    opened
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

/// What a test needs of the machine.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// User id 0, for namespaces and mounts.
    Root,
    /// A program in PATH.
    Program(&'static str),
}

impl Need {
    /// Whether the machine has it.
    pub fn met(&self) -> bool {
        self.missing().is_none()
    }

    fn missing(&self) -> Option<String> {
        match self {
            Self::Root if !rustix::process::geteuid().is_root() => Some("root".to_owned()),
            Self::Program(name) if program(name).is_none() => Some(format!("the program {name}")),
            Self::Root | Self::Program(_) => None,
        }
    }
}

/// Held by a test that looks at the whole machine (mounts, processes, latency): it runs alone. The others share.
/// A file lock, so that it holds between the threads of `cargo test` and the processes of nextest alike.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "the lock ends with the file")] File);

impl Turn {
    /// Waits until no other test runs.
    pub fn alone() -> Self {
        Self::take(rustix::fs::FlockOperation::LockExclusive)
    }

    /// Waits until no test runs that must be alone.
    pub fn shared() -> Self {
        Self::take(rustix::fs::FlockOperation::LockShared)
    }

    fn take(how: rustix::fs::FlockOperation) -> Self {
        let path = std::env::temp_dir().join(format!(
            "podkit-testkit-{}.lock",
            rustix::process::getuid().as_raw()
        ));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        rustix::fs::flock(&file, how).expect("a lock that waits is granted");
        Self(file)
    }
}
