//! What a layer leaves to those below it, done when they are there.
//!
//! A layer may put `usr/bin/tool` without naming `usr` and `usr/bin`: overlayfs would show the layer's own made-up directories
//! with made-up owners, so they get what the nearest layer below has. (containerd, archive.Apply, `WithParents`) And it may
//! link to a file of a layer below, which is copied first, as writing to it in a container would.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags, fchmod, fchown, fgetxattr,
    flistxattr, fsetxattr, fstat, futimens, openat, openat2, statat,
};
use rustix::io::Errno;

use super::place;
use super::tree::{Link, Tree, times};

/// A value of an extended attribute. (xattr(7), XATTR_SIZE_MAX)
const VALUE_BYTES_MAX: usize = 64 * 1024;

impl Tree {
    /// Finishes the layer over `below`, the topmost first.
    pub(in crate::image) fn finish(mut self, below: &[PathBuf]) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| rustix::fs::open(path, flags, Mode::empty());
        let below = below.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        for Link { path, target } in std::mem::take(&mut self.links) {
            self.link_below(&path, &target, &below)
                .map_err(|error| super::at(path.as_os_str().as_encoded_bytes(), &error))?;
        }
        self.settle_late()?;
        // The deepest first: what is above changes with it.
        for path in std::mem::take(&mut self.implied).iter().rev() {
            let Ok(directory) = place::directory(&self.root, path) else {
                continue;
            };
            let found = below
                .iter()
                .find_map(|layer| place::directory(layer, path).ok());
            match found {
                Some(found) => self.take_after(&directory, &found)?,
                None if path.as_os_str().is_empty() => {
                    fchmod(&directory, Mode::from_raw_mode(0o755))?;
                    futimens(&directory, &times((0, 0)))?;
                }
                // The same whenever it is unpacked.
                None => futimens(&directory, &times((0, 0)))?,
            }
        }
        Ok(())
    }

    /// Makes a link to a file that may be of a layer below.
    fn link_below(&mut self, path: &Path, target: &Path, below: &[OwnedFd]) -> io::Result<()> {
        let (parent, name) = place::split(path)?;
        let directory = self.directory(parent)?;
        match self.link(target, &directory, name) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            // What came later has the name.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => return Ok(()),
            linked => return linked,
        }
        let found = below.iter().find_map(|layer| find_file(layer, target));
        let found = found.ok_or_else(|| {
            let what = format!("a hard link to {}, which is nowhere", target.display());
            io::Error::new(io::ErrorKind::NotFound, what)
        })?;
        let (parent, target_name) = place::split(target)?;
        let place = self.directory(parent)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = openat(&place, target_name, flags, Mode::from_raw_mode(0o600))?;
        io::copy(
            &mut File::from(found.try_clone()?),
            &mut File::from(copy.try_clone()?),
        )?;
        self.take_after(&copy, &found)?;
        self.link(target, &directory, name)
    }

    /// Owner, mode, attributes and time of another file.
    fn take_after(&self, file: &OwnedFd, other: &OwnedFd) -> io::Result<()> {
        let stat = fstat(other)?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        match fchown(file, Some(uid), Some(gid)) {
            Err(Errno::PERM | Errno::INVAL) if !self.owners.exact => {}
            owned => owned?,
        }
        fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        copy_xattrs(file, other)?;
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
        futimens(file, &times((stat.st_mtime, nanos)))?;
        Ok(())
    }
}

/// A regular file of a layer; a link there would lead elsewhere in a container.
fn find_file(layer: &OwnedFd, path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // Opening a device could do something.
    let (parent, name) = place::split(path).ok()?;
    let parent = place::directory(layer, parent).ok()?;
    let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    openat2(&parent, name, flags, Mode::empty(), resolve).ok()
}

fn copy_xattrs(file: &OwnedFd, other: &OwnedFd) -> io::Result<()> {
    let mut names = vec![0; VALUE_BYTES_MAX];
    let Ok(length) = flistxattr(other, &mut names) else {
        return Ok(());
    };
    let mut value = vec![0; VALUE_BYTES_MAX];
    for name in names[..length].split(|byte| *byte == 0) {
        let wanted = name == b"security.capability"
            || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if !wanted {
            continue;
        }
        let length = fgetxattr(other, name, &mut value)?;
        match fsetxattr(file, name, &value[..length], XattrFlags::empty()) {
            Err(Errno::PERM | Errno::NOTSUP) => {}
            set => set?,
        }
    }
    Ok(())
}
