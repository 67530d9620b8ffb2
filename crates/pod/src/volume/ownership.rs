//! `fsGroup`: a volume is given to a group, as the kubelet does it (Kubernetes: pkg/volume/volume_linux.go, `SetVolumeOwnership`).
//!
//! Everything in the volume gets the group and what the owner's bits leave out for it: reading and writing (read-only volumes:
//! reading), directories also entering and the set-group-id bit, so that what is made later has the group too. A claim may hold
//! whatever an earlier container put there, and another pod may be at work in it: no link is followed and no mount entered.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, chownat, fstat, open,
    openat, openat2,
};
use rustix::io::Errno;

const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const ENTER: u32 = 0o110;
const SET_GROUP_ID: u32 = 0o2000;

/// What a group is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ownership {
    /// `fsGroup`.
    pub(super) group: u32,
    /// The volume is only ever read.
    pub(super) read_only: bool,
    /// `fsGroupChangePolicy: OnRootMismatch`: when the volume's own directory is right, so is the rest.
    pub(super) on_root_mismatch: bool,
}

impl Ownership {
    /// The mode of a file that has `mode` of its own.
    pub(super) fn mode(self, mode: u32, directory: bool) -> u32 {
        let mask = if self.read_only {
            READ_ONLY
        } else {
            READ_WRITE
        };
        mode | mask | if directory { ENTER | SET_GROUP_ID } else { 0 }
    }

    /// Gives the tree at `path` to the group.
    pub(super) fn give(self, path: &Path) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = openat(CWD, path, flags, Mode::empty())?;
        let stat = fstat(&top)?;
        let right = stat.st_gid == self.group
            && stat.st_mode & 0o7777 == self.mode(stat.st_mode & 0o7777, true);
        if self.on_root_mismatch && right {
            return Ok(());
        }
        // The top last: only when all is done does it say so to who looks at it alone.
        let mut pending = vec![PathBuf::from(".")];
        while let Some(directory) = pending.pop() {
            self.entries(path, &directory, &mut pending)?;
        }
        self.one(&top, &stat)
    }

    /// Gives only the directory itself to the group, and lets it write there.
    pub(super) fn give_top(self, path: &Path) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = openat(CWD, path, flags, Mode::empty())?;
        let stat = fstat(&top)?;
        let writable = Self {
            read_only: false,
            ..self
        };
        writable.one(&top, &stat)
    }

    fn entries(self, root: &Path, at: &Path, pending: &mut Vec<PathBuf>) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = open(root, flags, Mode::empty())?;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let directory = match openat2(&top, at, flags, Mode::empty(), inside) {
            Ok(directory) => directory,
            // Gone, or not a directory any more, or another mount: not the volume's.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let one = match openat2(&directory, name, flags, Mode::empty(), inside) {
                Ok(one) => one,
                // A link itself is opened without following it.
                Err(Errno::LOOP) => match openat(&directory, name, flags, Mode::empty()) {
                    Ok(one) => one,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                },
                Err(Errno::NOENT | Errno::XDEV) => continue,
                Err(error) => return Err(error.into()),
            };
            let stat = fstat(&one)?;
            self.one(&one, &stat)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                pending.push(at.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
        Ok(())
    }

    fn one(self, file: &OwnedFd, stat: &Stat) -> io::Result<()> {
        if stat.st_gid != self.group {
            let group = Gid::from_raw(self.group);
            chownat(file, "", None, Some(group), AtFlags::EMPTY_PATH)?;
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Symlink {
            return Ok(());
        }
        // chown(2) takes set-id bits away: they are given back with the rest.
        let mode = self.mode(stat.st_mode & 0o7777, kind == FileType::Directory);
        if mode != stat.st_mode & 0o7777 || stat.st_gid != self.group {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}
