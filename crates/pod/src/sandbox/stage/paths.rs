//! Places inside a container's root: found without leaving it, made where they are missing.
//!
//! Links in an image are resolved by the kernel with the container's root as their `/` (openat2(2), `RESOLVE_IN_ROOT`). A
//! walk in user space was rejected: a container that runs beside can move what has been checked.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, fstatfs, mkdirat, open, openat, openat2, readlinkat};
use rustix::io::Errno;

/// What is made when there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// Components that may have to be made, and links that may have to be followed, for one place.
const LIMIT: usize = 128;
/// Races with renames and mounts of others that one path may lose.
const RACES_MAX: usize = 1000;

/// Opens (`O_PATH`) what is at `path` inside `root`; its last link is followed.
pub(super) fn find(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    inside(root, path, OFlags::PATH | OFlags::CLOEXEC)
}

/// Opens what is at `path` with `root` as its `/`. The kernel gives up (EAGAIN, openat2(2)) on a path with `..` when anybody on the
/// machine has renamed or mounted something meanwhile: then it is asked again.
fn inside(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(&root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < RACES_MAX => tries += 1,
            opened => return Ok(opened?),
        }
    }
}

/// The root of this process.
pub(super) fn root() -> io::Result<OwnedFd> {
    Ok(open(
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens what is at `path` inside `root` for reading, without waiting for anybody.
pub(super) fn read(root: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    inside(root, Path::new(path), flags)
}

/// A directory right below `root`, made when absent, and by no link.
pub(super) fn top(root: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match mkdirat(&root, name, Mode::from_raw_mode(0o755)) {
        // It is there, or it can't be made: opening it says which.
        Ok(()) | Err(_) => Ok(openat(root, name, flags, Mode::empty())?),
    }
}

/// The same, made (directories 0755, file 0644) where it is missing. Where a link leads nowhere, its target is made.
pub(super) fn place(root: impl AsFd, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let mut path = path.to_owned();
    for _ in 0..LIMIT {
        match find(&root, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                path = make_next(&root, &path, kind)?
            }
            found => return found,
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// Makes the first component that is missing, or gives the path that leads around a link which leads nowhere.
fn make_next(root: impl AsFd, path: &Path, kind: Kind) -> io::Result<PathBuf> {
    let components: Vec<Component<'_>> = path.components().collect();
    let mut prefix = PathBuf::from("/");
    for (index, component) in components.iter().enumerate() {
        let Component::Normal(name) = component else {
            prefix.push(component);
            continue;
        };
        let next = prefix.join(name);
        match find(&root, &next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => {
                prefix = next;
                continue;
            }
        }
        let parent = find(&root, &prefix)?;
        // Nothing can be made there, and what seems to be a link is none that could be followed by its text.
        if is_proc(&parent)? {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let last = index + 1 == components.len();
        let made = if last && kind == Kind::File {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            openat(&parent, *name, flags, Mode::from_raw_mode(0o644)).map(drop)
        } else {
            mkdirat(&parent, *name, Mode::from_raw_mode(0o755))
        };
        match made {
            Ok(()) => return Ok(path.to_owned()),
            Err(rustix::io::Errno::EXIST) => {
                let target = readlinkat(&parent, *name, Vec::new())?;
                let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes()));
                let rest: PathBuf = components[index + 1..].iter().collect();
                // An absolute target replaces the prefix.
                let around = prefix.join(target);
                return Ok(if last { around } else { around.join(rest) });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Whether a place is in a proc file system, where volumes have no business.
pub(super) fn is_proc(place: impl AsFd) -> io::Result<bool> {
    Ok(fstatfs(place)?.f_type == libc::PROC_SUPER_MAGIC)
}
