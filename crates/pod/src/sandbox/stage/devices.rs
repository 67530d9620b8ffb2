//! The machine's devices, for a privileged container: nodes of the same numbers, modes and owners in its own `/dev`.
//! (containerd: `oci.WithHostDevices`)

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, mkdirat, mknodat, openat,
    statat,
};

use super::standard;
use crate::sandbox::error::{Doing, Failed};
use crate::sandbox::private::DEVICES;
use crate::sandbox::private::tree::{attach, clone_tree};

/// What is not looked into: mounts of their own, and what is made anew for each container.
const OTHERS: [&str; 8] = [
    "pts",
    "shm",
    "fd",
    "mqueue",
    "console",
    ".lxc",
    ".lxd-mounts",
    ".udev",
];

/// A machine with more has something strange in its `/dev`.
const ENTRIES_MAX: usize = 4096;
const DEPTH_MAX: usize = 8;

/// Makes them in `dev`, beside those that every container has.
pub(super) fn make_all(dev: &OwnedFd) -> Result<(), Failed> {
    let mut left = ENTRIES_MAX;
    make_below(dev, Path::new(""), 0, &mut left)
}

fn make_below(
    dev: &OwnedFd,
    relative: &Path,
    depth: usize,
    left: &mut usize,
) -> Result<(), Failed> {
    let source = Path::new("/dev").join(relative);
    let step = || format!("show the machine's {}", source.display());
    for entry in std::fs::read_dir(&source).doing(step)? {
        let entry = entry.doing(step)?;
        let (name, path) = (entry.file_name(), relative.join(entry.file_name()));
        let usual = depth == 0
            && (OTHERS.iter().any(|other| name == *other)
                || DEVICES.iter().any(|(device, _, _)| name == *device)
                || standard::LINKS.iter().any(|(link, _)| name == *link));
        if usual || *left == 0 {
            continue;
        }
        *left -= 1;
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth < DEPTH_MAX {
            match mkdirat(dev, &path, Mode::from_raw_mode(0o755)) {
                Ok(()) => make_below(dev, &path, depth + 1, left)?,
                error => error.doing(|| format!("make /dev/{}", path.display()))?,
            }
        } else if !kind.is_dir() && !kind.is_symlink() {
            make(dev, &path)?;
        }
    }
    Ok(())
}

fn make(dev: &OwnedFd, path: &Path) -> Result<(), Failed> {
    let source: PathBuf = Path::new("/dev").join(path);
    // One that goes away meanwhile was none.
    let Ok(stat) = statat(CWD, &source, AtFlags::SYMLINK_NOFOLLOW) else {
        return Ok(());
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let step = || format!("make /dev/{}", path.display());
    if mknodat(dev, path, kind, mode, stat.st_rdev).is_ok() {
        chmodat(dev, path, mode, AtFlags::empty()).doing(step)?;
        let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        return chownat(
            dev,
            path,
            Some(user),
            Some(group),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .doing(step);
    }
    // In a user namespace nobody makes nodes; the machine's own are shown.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let place = openat(dev, path, flags, Mode::from_raw_mode(0o600)).doing(step)?;
    clone_tree(CWD, &source, false)
        .and_then(|node| attach(&node, &place, c""))
        .doing(step)
}
