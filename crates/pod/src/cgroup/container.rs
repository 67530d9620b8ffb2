//! The group of one container: how to join it, what it has used, its end.

use std::io;
use std::path::{Path, PathBuf};

use super::detect::{Version, words};
use super::tree::{kill_dir, remove_tree, subtree};

#[derive(Debug)]
pub(super) struct Group {
    pub(super) version: Version,
    pub(super) dir: PathBuf,
    pub(super) memory: bool,
    pub(super) cpu_time: bool,
}

/// What a container has used since its group was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in µs; none when no hierarchy of the container counts it.
    pub cpu_usec: Option<u64>,
    /// Memory in bytes with its page cache; none when the container has no memory group (v1 without a limit).
    pub memory_bytes: Option<u64>,
}

/// The group of one container, in each hierarchy that it needs.
#[derive(Debug, Default)]
pub struct ContainerCgroup {
    pub(super) groups: Vec<Group>,
}

impl ContainerCgroup {
    /// Files to which a process writes `0` to join, before it drops any privilege. None on a machine without cgroups.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.groups
            .iter()
            .map(|g| g.dir.join("cgroup.procs"))
            .collect()
    }

    /// Directories of the group, for those who look for its processes.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.groups.iter().map(|g| g.dir.as_path())
    }

    /// Processes that the kernel has killed in this group because it was over its memory limit. It only grows: compare
    /// with the count from before the container started. 0 without a memory group.
    pub fn oom_kills(&self) -> u64 {
        let Some(group) = self.groups.iter().find(|g| g.memory) else {
            return 0;
        };
        let file = match group.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        keyed(&group.dir, file, "oom_kill").unwrap_or(0)
    }

    /// What the container uses.
    pub fn usage(&self) -> Usage {
        let cpu = |g: &Group| match g.version {
            Version::V2 => keyed(&g.dir, "cpu.stat", "usage_usec"),
            Version::V1 => number(&g.dir, "cpuacct.usage").map(|ns| ns / 1000),
        };
        let memory = |g: &Group| match g.version {
            Version::V2 => number(&g.dir, "memory.current"),
            Version::V1 => number(&g.dir, "memory.usage_in_bytes"),
        };
        let first = |which: fn(&Group) -> bool, read: &dyn Fn(&Group) -> Option<u64>| {
            self.groups.iter().filter(|g| which(g)).find_map(read)
        };
        Usage {
            cpu_usec: first(|g| g.cpu_time, &cpu),
            memory_bytes: first(|g| g.memory, &memory),
        }
    }

    /// SIGKILL to every process of the container, those it forks meanwhile included. It does not wait for their end.
    pub fn kill_all(&self) {
        // Any one hierarchy holds them all.
        let Some(group) = self.groups.first() else {
            return;
        };
        for dir in subtree(&group.dir) {
            kill_dir(&dir, group.version);
        }
    }

    /// Whether a process is left. False without cgroups.
    pub fn populated(&self) -> bool {
        self.groups.first().is_some_and(|group| {
            subtree(&group.dir)
                .iter()
                .any(|dir| !words(dir, "cgroup.procs").is_empty())
        })
    }

    /// Removes the group; the kernel gets two seconds to let go of processes that were killed.
    pub async fn remove(&self) -> io::Result<()> {
        let mut first = Ok(());
        for group in &self.groups {
            if let Err(error) = remove_tree(&group.dir).await
                && first.is_ok()
            {
                first = Err(error);
            }
        }
        first
    }
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(dir.join(file))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The number after a key in a flat keyed file.
fn keyed(dir: &Path, file: &str, key: &str) -> Option<u64> {
    std::fs::read_to_string(dir.join(file))
        .ok()?
        .lines()
        .find_map(|line| {
            line.strip_prefix(key)?
                .strip_prefix(' ')?
                .trim()
                .parse()
                .ok()
        })
}
