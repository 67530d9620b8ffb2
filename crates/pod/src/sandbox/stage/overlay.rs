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
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, unmount,
};

use super::root::PLACE;
use crate::sandbox::private::tree::clone_tree;

/// Writes go to `upper`; the first of `lowers` is the topmost.
pub(super) fn mount(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    user_xattrs: bool,
) -> io::Result<OwnedFd> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let opened: Result<Vec<OwnedFd>, _> = lowers.iter().map(|path| open(path)).collect();
    let layers = Layers {
        lowers: opened?,
        upper: open(upper)?,
        work: open(work)?,
        user_xattrs,
    };
    match layers.one_by_one() {
        // The kernel does not know `lowerdir+`.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => layers.in_one_text(PLACE),
        mounted => mounted,
    }
}

pub(super) struct Layers {
    pub(super) lowers: Vec<OwnedFd>,
    pub(super) upper: OwnedFd,
    pub(super) work: OwnedFd,
    pub(super) user_xattrs: bool,
}

impl Layers {
    fn one_by_one(&self) -> io::Result<OwnedFd> {
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for lower in &self.lowers {
            fsconfig_set_string(&context, "lowerdir+", name(lower))?;
        }
        fsconfig_set_string(&context, "upperdir", name(&self.upper))?;
        fsconfig_set_string(&context, "workdir", name(&self.work))?;
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

    /// By mount(2), at `place` and away again; this process has one thread, and its directory is nobody's.
    pub(super) fn in_one_text(&self, place: &str) -> io::Result<OwnedFd> {
        let number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
        let lowers: Vec<String> = self.lowers.iter().map(number).collect();
        let mut options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lowers.join(":"),
            number(&self.upper),
            number(&self.work)
        );
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
