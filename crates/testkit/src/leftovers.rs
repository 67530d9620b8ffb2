//! What a pod must not leave: mounts, cgroups, processes (and with them namespaces), files, network devices, sockets. A look before and a look
//! after, and what the second has more.
//!
//! Other things happen on a machine, so this looks only at what can be a test's: the descendants of the test program, which adopts those
//! that lose their parent; what carries the names of its pods; and the network of its thread.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::machine;

/// Everything there was at one moment, each as a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look(BTreeSet<String>);

const PROCESS: &str = "process ";

/// Makes this program the parent of descendants that lose theirs, so that what a pod leaves is seen.
pub fn adopt_orphans() {
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me)).expect("a process may adopt");
}

impl Look {
    /// Looks at what could be of pods of these names.
    pub fn now(pods: &[&str]) -> Self {
        let mut all = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts.lines().filter(|line| line.contains("podkit"));
        all.extend(mounts.map(|line| {
            // Mount ids (fields 1 and 2) say nothing.
            let fields: Vec<&str> = line.split(' ').skip(2).collect();
            format!("mount {}", fields.join(" "))
        }));
        let machines = [
            "/run/podkit",
            "/var/lib/podkit",
            "/sys/fs/cgroup",
            "/dev/shm",
        ];
        // And a plain user's own.
        let users = [
            ("XDG_RUNTIME_DIR", "podkit"),
            ("HOME", ".local/share/podkit"),
        ];
        let users = users
            .iter()
            .filter_map(|(name, below)| Some(Path::new(&std::env::var_os(name)?).join(below)));
        for root in machines.iter().map(PathBuf::from).chain(users) {
            paths(&root, &mut |path| {
                let mut parts = path.components().map(|part| part.as_os_str());
                let podkit = parts.any(|part| part == "podkit");
                let ours = podkit && parts.any(|part| pods.iter().any(|pod| part == *pod));
                let cgroup_file = path.starts_with("/sys/fs/cgroup") && !path.is_dir();
                if ours && !cgroup_file {
                    all.insert(format!("path {}", path.display()));
                }
            });
        }
        let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let devices = devices.lines().filter_map(|line| line.split_once(':'));
        all.extend(devices.map(|(name, _)| format!("network device {}", name.trim())));
        let sockets = fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
        let ours = sockets
            .lines()
            .filter_map(|line| line.rsplit(' ').next())
            .filter(|path| path.contains("podkit"));
        all.extend(ours.map(|path| format!("socket {path}")));
        let me = std::process::id();
        let tree = machine::tree(me);
        crate::process::reap_adopted(&tree);
        let living = tree
            .into_iter()
            .filter(|pid| *pid != me && machine::lives(*pid));
        all.extend(living.map(|pid| format!("{PROCESS}{pid}")));
        Self(all)
    }

    /// What is there now and was not before.
    pub fn more_than(&self, before: &Self) -> Vec<String> {
        let more = self.0.difference(&before.0);
        more.map(|line| {
            // A process may execute another program: its command is no part of what it is.
            let pid = line
                .strip_prefix(PROCESS)
                .and_then(|pid| pid.parse::<u32>().ok());
            pid.map_or_else(
                || line.clone(),
                |pid| format!("{line} {}", machine::command(pid)),
            )
        })
        .collect()
    }
}

/// Asserts that everything that came after `before` goes: the kernel takes cgroups and network devices down in its own time,
/// so this looks until nothing is left.
pub fn assert_none(before: &Look, pods: &[&str]) {
    let started = std::time::Instant::now();
    loop {
        let left = Look::now(pods).more_than(before);
        if left.is_empty() {
            return;
        }
        assert!(
            started.elapsed() < crate::DEADLINE,
            "left behind:\n{}",
            left.join("\n")
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_orphan_is_seen_until_it_ends() {
        adopt_orphans();
        let before = Look::now(&[]);
        let script = "sleep 1004 >/dev/null 2>&1 & echo $!";
        let started = crate::process::run(
            "sh",
            Command::new("sh")
                .args(["-c", script])
                .stderr(std::process::Stdio::null()),
        );
        assert_eq!(started.code, Some(0));
        let pid = started.out.trim().to_owned();
        let asleep = [format!("process {pid} sleep 1004")];
        // At first it is the shell's copy.
        crate::until("it to sleep", || {
            (Look::now(&[]).more_than(&before) == asleep).then_some(())
        });
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert_none(&before, &[]);
    }
}
