//! An overlay of any number of layers, as a mount that is attached nowhere yet.
//!
//! Layers are named by descriptors, since a path with a colon or a comma means something else to overlayfs. Each is given on
//! its own (`lowerdir+`, Linux 6.8), which has no limit of length. An older kernel takes them as one text of at most 255 bytes,
//! or by mount(2) of at most a page; numbers relative to `/proc/self/fd` make that 1,000 layers, more than overlayfs stacks.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, unmount,
};
use rustix::thread::UnshareFlags;

use super::private::tree::{attach, clone_tree};
use super::stage::PLACE;
use crate::sys;

/// The root of a container: writes go to `upper`; the first of `lowers` is the topmost. For a process with one thread.
pub(super) fn mount(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    user_xattrs: bool,
) -> io::Result<OwnedFd> {
    let layers = Layers {
        lowers: open_all(lowers)?,
        writes: Some(Writes {
            upper: open(upper)?,
            work: open(work)?,
        }),
        user_xattrs,
    };
    match layers.one_by_one() {
        // The kernel does not know `lowerdir+`.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => layers.in_one_text(PLACE),
        mounted => mounted,
    }
}

/// What nobody writes to: at least two `lowers`, the first of which is the topmost, mounted at `place` read-only, and so that
/// nothing in it is executed, is a device or gives anybody rights. For the supervisor, in its own mount namespace.
pub(crate) fn mount_read_only(
    lowers: &[PathBuf],
    user_xattrs: bool,
    place: &Path,
) -> io::Result<()> {
    let layers = Layers {
        lowers: open_all(lowers)?,
        writes: None,
        user_xattrs,
    };
    let mount = match layers.one_by_one() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            elsewhere(|| layers.in_one_text(place))
        }
        mounted => mounted,
    }?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    sys::set_mount_attributes(&mount, attributes, MountPropagationFlags::PRIVATE, false)?;
    attach(&mount, CWD, place)
}

/// On a thread that has a working directory of its own.
fn elsewhere<T: Send>(run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::unshare(UnshareFlags::FS)?;
            run()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that mounts has panicked")))
    })
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn open_all(paths: &[PathBuf]) -> io::Result<Vec<OwnedFd>> {
    paths.iter().map(|path| open(path)).collect()
}

pub(super) struct Layers {
    pub(super) lowers: Vec<OwnedFd>,
    /// None: nothing is written.
    pub(super) writes: Option<Writes>,
    pub(super) user_xattrs: bool,
}

pub(super) struct Writes {
    pub(super) upper: OwnedFd,
    pub(super) work: OwnedFd,
}

impl Layers {
    fn one_by_one(&self) -> io::Result<OwnedFd> {
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for lower in &self.lowers {
            fsconfig_set_string(&context, "lowerdir+", name(lower))?;
        }
        if let Some(writes) = &self.writes {
            fsconfig_set_string(&context, "upperdir", name(&writes.upper))?;
            fsconfig_set_string(&context, "workdir", name(&writes.work))?;
        }
        if self.user_xattrs {
            fsconfig_set_flag(&context, "userxattr")?;
        }
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        Ok(fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            attributes,
        )?)
    }

    /// By mount(2), at `place` and away again; nobody else looks at the place, and the working directory is this process's (or
    /// thread's) alone.
    pub(super) fn in_one_text(&self, place: impl AsRef<Path>) -> io::Result<OwnedFd> {
        let place = place.as_ref();
        let number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
        let lowers: Vec<String> = self.lowers.iter().map(number).collect();
        let mut options = format!("lowerdir={}", lowers.join(":"));
        if let Some(writes) = &self.writes {
            let (upper, work) = (number(&writes.upper), number(&writes.work));
            options += &format!(",upperdir={upper},workdir={work}");
        }
        if self.user_xattrs {
            options += ",userxattr";
        }
        let options = std::ffi::CString::new(options)?;
        rustix::process::chdir("/proc/self/fd")?;
        let mounted = rustix::mount::mount(
            "overlay",
            place,
            "overlay",
            MountFlags::NODEV,
            options.as_c_str(),
        );
        rustix::process::chdir("/")?;
        mounted?;
        let tree = clone_tree(CWD, place, false);
        unmount(place, UnmountFlags::DETACH)?;
        tree
    }
}
