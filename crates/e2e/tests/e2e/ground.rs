//! Where a pod is tested: alone on the machine, in a network of its own, with a look at what was there before.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use podkit_testkit::leftovers::{self, Look};
use podkit_testkit::net::OwnNetwork;
use podkit_testkit::podkit::Pod;
use podkit_testkit::{Need, Turn, able, machine};
use serde_json::Value;

/// The names of the pods that are tested.
const PODS: &[&str] = &[
    "e2e",
    "other",
    "legacy-web",
    "host-nginx",
    "sessions",
    "chain",
    "mysql-health",
    "redis-metrics",
    "redis-replicas",
    "redis-shards",
    "statsd",
    "push-to-deploy",
    "node-paas",
    "dynamic-config",
];

/// Whether this is a plain user's run of the case (see `rootless`).
pub(crate) fn is_plain_user() -> bool {
    std::env::var_os("TESTKIT_PLAIN_USER").is_some()
}

/// Where supervisors keep what lives as long as they: locks, sockets, states.
pub(crate) fn run_dir() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|_| is_plain_user()) {
        Some(dir) => Path::new(&dir).join("podkit"),
        None => "/run/podkit".into(),
    }
}

/// Where podkit keeps what stays: logs, volumes, images.
pub(crate) fn lib_dir() -> PathBuf {
    match std::env::var_os("HOME").filter(|_| is_plain_user()) {
        Some(home) => Path::new(&home).join(".local/share/podkit"),
        None => "/var/lib/podkit".into(),
    }
}

/// Held while a pod is tested.
pub(crate) struct Ground {
    // Dropped in this order: the network goes before the next test has its turn.
    _network: Option<OwnNetwork>,
    before: Look,
    _turn: Turn,
}

impl Ground {
    /// None, and a line that says why, when this machine can't run pods, or a program is missing.
    pub(crate) fn with(programs: &[&'static str]) -> Option<Self> {
        // As a plain user (see `rootless`) in the network that root has made for this case.
        let user = is_plain_user();
        let mut needs = match user {
            true => Vec::new(),
            false => vec![Need::Root, Need::Program("ip")],
        };
        needs.extend(programs.iter().map(|name| Need::Program(name)));
        if !able(&needs) {
            return None;
        }
        let turn = Turn::alone();
        leftovers::adopt_orphans();
        let network = (!user).then(OwnNetwork::enter);
        let before = Look::now(PODS);
        Some(Self {
            _network: network,
            before,
            _turn: turn,
        })
    }

    /// None when this machine can't run pods.
    pub(crate) fn new() -> Option<Self> {
        Self::with(&[])
    }

    /// Asserts that nothing is left of what was started here.
    pub(crate) fn assert_clean(&self) {
        leftovers::assert_none(&self.before, PODS);
    }

    /// Asserts that all that is left are directories, which have nobody to remove them when a supervisor was killed.
    pub(crate) fn assert_only_paths_are_left(&self) {
        let mut left = Vec::new();
        let started = std::time::Instant::now();
        while started.elapsed() < podkit_testkit::DEADLINE {
            left = Look::now(PODS).more_than(&self.before);
            left.retain(|line| !line.starts_with("path "));
            if left.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("left behind:\n{}", left.join("\n"));
    }
}

/// A pod named `e2e` with this spec, which is written from the left. Containers whose image is `none` run the machine's own programs.
pub(crate) fn manifest(spec: &str) -> String {
    let lines: Vec<&str> = spec.lines().collect();
    let hosts = lines
        .windows(2)
        .filter(|pair| pair[1].trim() == "image: none");
    let hosts = hosts.filter_map(|pair| pair[0].trim().strip_prefix("- name: "));
    let annotations: String = hosts
        .map(|name| format!("    podkit.dev/image.{name}: host\n"))
        .collect();
    let annotations = if annotations.is_empty() {
        String::new()
    } else {
        format!("  annotations:\n{annotations}")
    };
    let spec: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: e2e\n{annotations}spec:\n{spec}")
}

/// The number of the first line that holds `part`.
pub(crate) fn line_of(text: &str, part: &str) -> usize {
    let found = text.lines().position(|line| line.contains(part));
    1 + found.unwrap_or_else(|| panic!("no {part} in {text}"))
}

/// The process of a container: the one below the supervisor whose command line holds `part`.
pub(crate) fn process_of(pod: &Pod, part: &str) -> Option<u32> {
    machine::tree(pod.process.pid())
        .into_iter()
        .find(|pid| machine::command(*pid).contains(part))
}

/// The lines that a container wrote.
pub(crate) fn log_of(pod: &Pod, container: &str) -> Vec<String> {
    pod.said()
        .iter()
        .filter(|said| said["type"] == "log" && said["container"] == container)
        .map(|said| said["line"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Events as `container reason`, of these reasons, in order.
pub(crate) fn events(pod: &Pod, reasons: &[&str]) -> Vec<String> {
    pod.said()
        .iter()
        .filter(|said| {
            said["type"] == "event"
                && reasons.contains(&said["reason"].as_str().unwrap_or_default())
        })
        .map(|said| {
            let container = said["container"].as_str().unwrap_or("pod");
            format!(
                "{container} {}",
                said["reason"].as_str().unwrap_or_default()
            )
        })
        .collect()
}

/// Whether something said is a container in this state.
pub(crate) fn is_state(said: &Value, container: &str, state: &str) -> bool {
    said["type"] == "container" && said["container"] == container && said["state"] == state
}

/// Whether something said is the pod with this readiness.
pub(crate) fn is_ready(said: &Value, ready: bool) -> bool {
    said["type"] == "pod" && said["ready"] == ready
}

/// A text of a file of the repository.
pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pods of examples/.
pub(crate) fn examples() -> Vec<PathBuf> {
    let dir = podkit_testkit::repository().join("examples");
    let all = std::fs::read_dir(dir).unwrap();
    let files = all.map(|entry| entry.unwrap().path().join("pod.yaml"));
    let files: Vec<_> = files.filter(|file| file.exists()).collect();
    assert!(files.len() >= 8, "{files:?}");
    files
}

/// The two ends of a terminal: the one of who sits before it, and the program's.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let ours = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&ours).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags).unwrap();
    (ours, theirs)
}
