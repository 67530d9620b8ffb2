//! A `subPath` resolved inside its volume, so that no link that a container put there leads out.
//!
//! The kernel does the resolving (openat2(2), RESOLVE_BENEATH): `..` above the volume and absolute links are refused, as the
//! kubelet refuses them; RESOLVE_IN_ROOT would silently take `/etc` for `VOLUME/etc`. The descriptor that comes out of it is what is
//! mounted; a path would be looked up a second time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat2};
use rustix::io::Errno;

/// Of the kubelet on any node.
const UMASK: u32 = 0o022;

#[derive(Debug)]
pub(super) enum SubPathError {
    /// It leads out of the volume, or a link on its way leads to nothing.
    Escape,
    Io(io::Error),
}

impl From<Errno> for SubPathError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::XDEV | Errno::LOOP => Self::Escape,
            other => Self::Io(other.into()),
        }
    }
}

/// Opens (O_PATH) what `sub_path` leads to below `root`. What is missing is made as directories, as the kubelet does: the last with
/// the volume's own mode, those on the way with what the usual umask leaves of it.
pub(super) fn open(root: &OwnedFd, sub_path: &Path) -> Result<OwnedFd, SubPathError> {
    match resolve(root, sub_path, OFlags::empty(), ResolveFlags::empty()) {
        Err(Errno::NOENT) => make(root, sub_path),
        other => Ok(other?),
    }
}

/// Opens (O_PATH) what is there already.
pub(super) fn find(root: &OwnedFd, path: &Path) -> Result<OwnedFd, SubPathError> {
    Ok(resolve(root, path, OFlags::empty(), ResolveFlags::empty())?)
}

fn resolve(
    at: impl AsFd,
    path: &Path,
    flags: OFlags,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | more;
    // EAGAIN: something was renamed meanwhile, so that `..` could not be trusted; the container decides how often.
    let mut tries = 0;
    loop {
        match openat2(
            &at,
            path,
            OFlags::PATH | OFlags::CLOEXEC | flags,
            Mode::empty(),
            resolve,
        ) {
            Err(Errno::AGAIN) if tries < 32 => tries += 1,
            other => return other,
        }
    }
}

fn make(root: &OwnedFd, sub_path: &Path) -> Result<OwnedFd, SubPathError> {
    let mode = Mode::from_raw_mode(fstat(root)?.st_mode & 0o7777);
    let named = |part: &Component<'_>| *part != Component::CurDir;
    let sub_path: &Path = &sub_path.components().filter(named).collect::<PathBuf>();
    let on_the_way = mode & !Mode::from_raw_mode(UMASK);
    let mut walked = PathBuf::new();
    let mut parent = resolve(
        root,
        Path::new("."),
        OFlags::DIRECTORY,
        ResolveFlags::empty(),
    )?;
    for part in sub_path.components() {
        let name = match part {
            Component::Normal(name) => Path::new(name),
            _ => return Err(SubPathError::Escape),
        };
        walked.push(name);
        // Links on the way are followed, inside the volume.
        parent = match resolve(root, &walked, OFlags::empty(), ResolveFlags::empty()) {
            Ok(present) => present,
            Err(Errno::NOENT) => match mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
                Ok(()) => {
                    let made = openat2(
                        &parent,
                        name,
                        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                        Mode::empty(),
                        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
                    )?;
                    // Whatever the umask of this process.
                    let last = walked == sub_path;
                    fchmod(&made, if last { mode } else { on_the_way })?;
                    made
                }
                // A container was quicker; or the name is a link that leads to nothing inside the volume.
                Err(Errno::EXIST) => {
                    match resolve(root, &walked, OFlags::empty(), ResolveFlags::empty()) {
                        Err(Errno::NOENT) => return Err(SubPathError::Escape),
                        other => other?,
                    }
                }
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(fstat(&parent)?.st_mode) != FileType::Directory
            && walked != sub_path
        {
            return Err(Errno::NOTDIR.into());
        }
    }
    Ok(parent)
}
