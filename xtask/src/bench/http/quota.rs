//! A bound on a server's CPU, so that it is what holds the load up: a cgroup of our own, of version 1 or 2.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use podkit_testkit::machine::tree;

/// µs of CPU in each `PERIOD` µs.
const QUOTA: u32 = 20_000;
const PERIOD: u32 = 100_000;

/// In words, for the page.
pub(super) const WORDS: &str = "a fifth of a core";

/// A cgroup with that bound, removed when dropped; what is in it goes to its parent first.
#[derive(Debug)]
pub(super) struct Quota {
    dir: PathBuf,
    parent: PathBuf,
}

impl Quota {
    /// None where no cgroup with the controller can be made.
    pub(super) fn new() -> Option<Self> {
        let name = format!("podkit-bench-{}", std::process::id());
        let roots = [
            "/sys/fs/cgroup/cpu",
            "/sys/fs/cgroup/cpu,cpuacct",
            "/sys/fs/cgroup",
        ];
        roots.iter().find_map(|root| {
            let parent = PathBuf::from(root);
            let dir = parent.join(&name);
            fs::create_dir(&dir).ok()?;
            let quota = Self { dir, parent };
            let v1 = fs::write(quota.dir.join("cpu.cfs_period_us"), PERIOD.to_string())
                .and_then(|()| fs::write(quota.dir.join("cpu.cfs_quota_us"), QUOTA.to_string()));
            let set =
                v1.or_else(|_| fs::write(quota.dir.join("cpu.max"), format!("{QUOTA} {PERIOD}")));
            set.ok().map(|()| quota)
        })
    }

    /// Bounds a process and all below it.
    pub(super) fn hold(&self, pid: u32) -> Result<()> {
        for pid in tree(pid) {
            fs::write(self.dir.join("cgroup.procs"), pid.to_string())
                .with_context(|| self.dir.display().to_string())?;
        }
        Ok(())
    }

    fn release(&self) {
        let all = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for pid in all.lines() {
            // It may have ended.
            fs::write(self.parent.join("cgroup.procs"), pid).ok();
        }
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.release();
        if let Err(error) = fs::remove_dir(&self.dir) {
            eprintln!("xtask: {}: {error}", self.dir.display());
        }
    }
}
