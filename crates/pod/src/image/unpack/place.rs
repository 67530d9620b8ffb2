//! Paths of an archive, and where they are in the tree.
//!
//! The kernel resolves them with the layer's root as their `/` (openat2(2), `RESOLVE_IN_ROOT`): a link in the layer may point
//! to `/etc` or up many levels, and means the layer's own. Checking each component in user space was rejected: that is where
//! other unpackers had their holes (CVE-2018-15664, CVE-2024-24557).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2, readlinkat, statat};

/// Components that are made, and links that are followed, for one path.
const STEPS_MAX: usize = 4096;
/// Longer paths can't be given to the kernel.
const PATH_BYTES_MAX: usize = 4000;

/// A path of the archive, relative to the layer's root: without `/`, `.` and empty components. Refuses `..`, which no tool
/// writes, and what the kernel can't take.
pub(super) fn clean(path: &[u8]) -> io::Result<PathBuf> {
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
    if path.contains(&0) {
        return wrong("a name with a zero byte");
    }
    if path.len() > PATH_BYTES_MAX {
        return wrong("a path that is too long");
    }
    let mut clean = PathBuf::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return wrong("a path with .. in it"),
            name if name.len() > 255 => return wrong("a name that is too long"),
            name => clean.push(OsStr::from_bytes(name)),
        }
    }
    Ok(clean)
}

/// The directory and the name of a path that is not the root.
pub(super) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the root of the layer can only be a directory",
        )),
    }
}

/// Opens a directory below `root`, its links followed inside.
pub(super) fn directory(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags, Mode::empty(), resolve)?)
}

/// What [`parent`] is told of directories that are not there.
pub(super) trait Missing {
    /// Makes the directory `name` in `parent`, whose place in the layer is `path`.
    fn make(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()>;
    /// Whether what is there instead of a directory may be replaced: a mark that hides something of a lower layer.
    fn is_whiteout(&self, parent: &OwnedFd, name: &OsStr) -> bool;
}

/// Opens a directory below `root`, and makes what is missing of it; a link that leads nowhere has its target made.
pub(super) fn parent(
    root: &OwnedFd,
    path: &Path,
    missing: &mut impl Missing,
) -> io::Result<OwnedFd> {
    match directory(root, path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {}
        found => return found,
    }
    // Component by component: `done` exists and `rest`, the last first, does not yet.
    let names = |path: &Path| -> Vec<OsString> {
        let names = path.components().rev();
        names.map(|name| name.as_os_str().to_owned()).collect()
    };
    let mut done = PathBuf::new();
    let mut rest = names(path);
    let mut steps = 0;
    while let Some(name) = rest.pop() {
        steps += 1;
        if steps > STEPS_MAX {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if name == "/" {
            done.clear();
            continue;
        }
        if name == "." {
            continue;
        }
        if name == ".." {
            done.pop();
            continue;
        }
        let here = directory(root, &done)?;
        let next = done.join(&name);
        match statat(&here, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => {
                missing.make(&here, &name, &next)?;
                done = next;
            }
            Err(error) => return Err(error.into()),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => done = next,
                FileType::Symlink => {
                    let target = readlinkat(&here, &name, Vec::new())?;
                    let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                    rest.extend(names(target));
                }
                _ if missing.is_whiteout(&here, &name) => {
                    missing.make(&here, &name, &next)?;
                    done = next;
                }
                _ => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
            },
        }
    }
    directory(root, &done)
}
