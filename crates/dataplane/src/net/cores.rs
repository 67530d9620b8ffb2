//! How many workers fit: what the cgroup's CPU quota and the affinity mask allow, not what the machine has.
//!
//! A container limited to one CPU on a machine of 64 that starts 64 threads is throttled by its own quota. The files
//! are those of cgroup v2 (`cpu.max`) and v1 (`cpu.cfs_quota_us`); every ancestor can limit, so all are looked at.

use std::fs;
use std::path::{Path, PathBuf};

/// The workers to start when `--workers` is not given: at least 1, at most the CPUs that this process may run on.
pub fn default_workers() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    quota(Path::new("/sys/fs/cgroup"), &cgroups).map_or(allowed, |cpus| allowed.min(round_up(cpus)))
}

/// The tightest quota, in CPUs, of the cgroups that `cgroups` (the text of `/proc/self/cgroup`) lists.
fn quota(root: &Path, cgroups: &str) -> Option<f64> {
    let mut tightest: Option<f64> = None;
    for line in cgroups.lines() {
        // hierarchy-ID:controller-list:cgroup-path (cgroups(7)).
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (mount, read): (PathBuf, fn(&Path) -> Option<f64>) = match controllers {
            "" => (root.to_owned(), quota_v2),
            _ if controllers.split(',').any(|name| name == "cpu") => {
                (root.join(controllers), quota_v1)
            }
            _ => continue,
        };
        // Inside a cgroup namespace, or with the host's path in a container's mount, the file is at the mount's root.
        let full = mount.join(path.trim_start_matches('/'));
        let ancestors = full.ancestors().take_while(|at| at.starts_with(&mount));
        for cpus in ancestors.filter_map(read) {
            tightest = Some(tightest.map_or(cpus, |known| known.min(cpus)));
        }
    }
    tightest
}

/// `cpu.max` is `$MAX $PERIOD`, `$MAX` may be `max`.
fn quota_v2(folder: &Path) -> Option<f64> {
    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
    let (max, period) = text.trim().split_once(' ')?;
    ratio(max, period)
}

/// `cpu.cfs_quota_us` is -1 without a quota.
fn quota_v1(folder: &Path) -> Option<f64> {
    let quota = fs::read_to_string(folder.join("cpu.cfs_quota_us")).ok()?;
    let period = fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?;
    ratio(quota.trim(), period.trim())
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive number of CPUs, far below 2^32"
)]
fn round_up(cpus: f64) -> usize {
    (cpus.ceil() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn the_tightest_quota_of_all_ancestors_counts() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "pods/a/cpu.max", "max 100000\n");
        write(dir.path(), "pods/cpu.max", "150000 100000\n");
        assert_eq!(quota(dir.path(), "0::/pods/a\n"), Some(1.5));
        assert_eq!(quota(dir.path(), "0::/\n"), None);
    }

    #[test]
    fn version_one_is_read_under_its_controllers() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n");
        write(dir.path(), "cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
        write(dir.path(), "cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
        write(dir.path(), "cpu,cpuacct/cpu.cfs_period_us", "100000\n");
        let cgroups = "5:memory:/x\n4:cpu,cpuacct:/x\n";
        assert_eq!(quota(dir.path(), cgroups), Some(0.5));
    }

    #[test]
    fn a_part_of_a_cpu_is_one_worker() {
        assert_eq!([0.1, 1.0, 1.5].map(round_up), [1, 1, 2]);
        assert!(default_workers() >= 1);
    }
}
