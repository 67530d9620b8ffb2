//! What a pod must not leave: mounts, cgroups, namespaces, processes, files, network devices. A look before and a look
//! after, and what the second has more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::machine;

/// Everything there was at one moment, each as a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look(BTreeSet<String>);

impl Look {
    /// Looks at the machine, and at this thread's network. `binary` is the podkit that is tested: its processes count, and those
    /// of its children that it left to init.
    pub fn now(binary: &Path) -> Self {
        let mut all = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        all.extend(mounts.lines().map(|line| {
            // Mount ids (fields 1 and 2) say nothing.
            let fields: Vec<&str> = line.split(' ').skip(2).collect();
            format!("mount {}", fields.join(" "))
        }));
        for root in [
            "/run/podkit",
            "/var/lib/podkit",
            "/sys/fs/cgroup",
            "/dev/shm",
        ] {
            paths(Path::new(root), &mut |path| {
                let cgroup = path.starts_with("/sys/fs/cgroup");
                let ours = path.components().any(|part| part.as_os_str() == "podkit");
                if !cgroup || (ours && path.is_dir()) {
                    all.insert(format!("path {}", path.display()));
                }
            });
        }
        let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let devices = devices.lines().filter_map(|line| line.split_once(':'));
        all.extend(devices.map(|(name, _)| format!("network device {}", name.trim())));
        let sockets = fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
        let ours = sockets.lines().filter_map(|line| line.rsplit(' ').next());
        let ours = ours.filter(|path| path.contains("podkit"));
        all.extend(ours.map(|path| format!("socket {path}")));
        for pid in machine::processes() {
            let ours = machine::executable(pid).is_some_and(|exe| is_podkit(&exe, binary));
            if ours {
                all.insert(format!("process {pid} {}", machine::command(pid)));
            }
            for kind in ["net", "mnt", "pid", "ipc", "uts"] {
                if let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/{kind}")) {
                    all.insert(format!("namespace {}", namespace.display()));
                }
            }
        }
        Self(all)
    }

    /// What is there now and was not before.
    pub fn more_than(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// Asserts that everything that came after `before` goes: the kernel takes namespaces and cgroups down in its own time, so
/// this looks until nothing is left.
pub fn assert_none(before: &Look, binary: &Path) {
    let started = std::time::Instant::now();
    loop {
        let left = Look::now(binary).more_than(before);
        if left.is_empty() {
            return;
        }
        assert!(
            started.elapsed() < std::time::Duration::from_secs(10),
            "left behind:\n{}",
            left.join("\n")
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The binary, a deleted one, or the sealed copy in memory that a container's first program may be.
fn is_podkit(exe: &Path, binary: &Path) -> bool {
    let text = exe.to_string_lossy();
    exe == binary
        || text.trim_end_matches(" (deleted)") == binary.to_string_lossy()
        || text.starts_with("/memfd:podkit")
        || text == "/podkit"
}

fn paths(dir: &Path, see: &mut impl FnMut(PathBuf)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            paths(&path, see);
        }
        see(path);
    }
}
