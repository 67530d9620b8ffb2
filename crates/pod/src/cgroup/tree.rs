//! Directories of cgroups: made, emptied of their processes, removed.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::detect::{Hierarchy, Version, words};

/// How long the kernel is given to let go of a group whose processes were killed.
const REMOVE_MAX: Duration = Duration::from_secs(2);
const REMOVE_PAUSE: Duration = Duration::from_millis(2);
/// Looks at a group in one round of killing: a process that forks as fast as it can is met again.
const KILL_ROUNDS_MAX: usize = 64;
/// Depth of groups that a container made below its own, for removal.
const DEPTH_MAX: usize = 64;

/// Makes `base/relative`, on v2 with the controllers handed down; those that could not be are returned with the reason.
/// Another supervisor may remove the shared parent at the same time, so a missing one is made again.
pub(super) fn make(
    hierarchy: &Hierarchy,
    relative: &Path,
) -> io::Result<(PathBuf, Vec<(String, String)>)> {
    let mut tries = 0;
    loop {
        match try_make(hierarchy, relative) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 8 => tries += 1,
            other => return other,
        }
    }
}

fn try_make(
    hierarchy: &Hierarchy,
    relative: &Path,
) -> io::Result<(PathBuf, Vec<(String, String)>)> {
    let mut refused: Vec<(String, String)> = Vec::new();
    let mut dir = hierarchy.base.clone();
    for part in relative {
        if hierarchy.version == Version::V2 {
            let enabled = words(&dir, "cgroup.subtree_control");
            for controller in &hierarchy.controllers {
                let known = refused.iter().any(|(c, _)| c == controller);
                if known || enabled.contains(controller) {
                    continue;
                }
                // One at a time: one that is refused must not take the others with it.
                if let Err(why) = write(&dir, "cgroup.subtree_control", &format!("+{controller}")) {
                    refused.push((controller.clone(), why));
                }
            }
        }
        dir.push(part);
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok((dir, refused))
}

pub(super) fn write(dir: &Path, file: &str, value: &str) -> Result<(), String> {
    let path = dir.join(file);
    std::fs::write(&path, value).map_err(|error| {
        if path.exists() {
            format!("writing {value} to {}: {error}", path.display())
        } else {
            format!("this kernel has no {file}")
        }
    })
}

/// A group and those below it, which a container may have made; outermost first.
pub(super) fn subtree(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![(dir.to_path_buf(), 0)];
    let mut next = 0;
    while next < found.len() {
        let (at, depth) = found[next].clone();
        next += 1;
        if depth >= DEPTH_MAX {
            continue;
        }
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.push((entry.path(), depth + 1));
            }
        }
    }
    found.into_iter().map(|(dir, _)| dir).collect()
}

/// Kills what is in one group; not what is in those below it.
///
/// On v2 by freezing and then killing, not by `cgroup.kill`: from Linux 6.14 on a group that was killed once kills every
/// process that is born into it from another group (for `CLONE_INTO_CGROUP` the kernel compares the `kill_seq` of the
/// parent's group with that of the new one), so that a container could never start again in its group.
pub(super) fn kill_dir(dir: &Path, version: Version) {
    // Before Linux 5.2 there is no freezer: what forks meanwhile is met by the next look.
    let freeze =
        |state| version == Version::V2 && std::fs::write(dir.join("cgroup.freeze"), state).is_ok();
    let frozen = freeze("1");
    kill_members(dir);
    if frozen {
        // A killed process ends frozen too; who joins later must run.
        let _thawed = freeze("0");
    }
}

/// SIGKILL to every process of one group, until no new one is met.
fn kill_members(dir: &Path) {
    let mut killed: HashSet<i32> = HashSet::new();
    let members = || {
        words(dir, "cgroup.procs")
            .into_iter()
            .filter_map(|pid| pid.parse::<i32>().ok())
    };
    for _ in 0..KILL_ROUNDS_MAX {
        // Between the list and the signal a number may pass to a stranger: the descriptors are taken first, then only
        // those are used whose number is still in the group.
        let held: Vec<(i32, OwnedFd)> = members()
            .filter(|pid| !killed.contains(pid))
            .filter_map(|pid| {
                Some((
                    pid,
                    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?,
                ))
            })
            .collect();
        if held.is_empty() {
            break;
        }
        let still: HashSet<i32> = members().collect();
        for (pid, process) in held {
            if still.contains(&pid) {
                // One that is gone already is as good.
                let _gone = pidfd_send_signal(&process, Signal::KILL);
            }
            killed.insert(pid);
        }
    }
}

/// Makes a directory when it is absent and locks it; none when another process has the lock.
pub(super) fn lock_dir(dir: &Path) -> io::Result<Option<OwnedFd>> {
    loop {
        std::fs::create_dir_all(dir)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = match open(dir, flags, Mode::empty()) {
            // Its last holder has just removed it.
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // The same between the open and the lock: then the lock is on nothing.
        if is_at(&lock, dir) {
            return Ok(Some(lock));
        }
    }
}

/// Whether an open directory is still the one of that path.
pub(super) fn is_at(open: &OwnedFd, dir: &Path) -> bool {
    let (open, now) = (fstat(open), stat(dir));
    open.is_ok_and(|open| {
        now.is_ok_and(|now| (open.st_dev, open.st_ino) == (now.st_dev, now.st_ino))
    })
}

/// Removes the groups below a group.
pub(super) async fn remove_below(dir: &Path) -> io::Result<()> {
    remove_all(dir, 1).await
}

/// Removes a group and those below it.
pub(super) async fn remove_tree(dir: &Path) -> io::Result<()> {
    remove_all(dir, 0).await
}

/// Removes a group's tree but for the outermost `kept` groups. EBUSY while processes are being reaped is waited out.
async fn remove_all(dir: &Path, kept: usize) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + REMOVE_MAX;
    loop {
        let mut busy = None;
        for group in subtree(dir).iter().skip(kept).rev() {
            match std::fs::remove_dir(group) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => busy = Some((group.clone(), error)),
            }
        }
        let Some((group, error)) = busy else {
            return Ok(());
        };
        let waits = error.raw_os_error() == Some(Errno::BUSY.raw_os_error());
        if !waits || tokio::time::Instant::now() >= deadline {
            return Err(io::Error::new(
                error.kind(),
                format!("removing {}: {error}", group.display()),
            ));
        }
        tokio::time::sleep(REMOVE_PAUSE).await;
    }
}
