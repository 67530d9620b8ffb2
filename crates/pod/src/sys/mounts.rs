//! mount_setattr(2), which rustix lacks: attributes and propagation of a mount and, when asked, of all below it.
//!
//! `MS_REMOUNT|MS_BIND` was rejected: it changes one mount at a time, so that a submount of a read-only volume stays
//! writable unless each is found and changed, with a race in between. This call changes the tree or nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::mount::{MountAttrFlags, MountPropagationFlags};

/// `struct mount_attr` of the kernel (version 0, 32 bytes).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets attributes (and, if not empty, the propagation) of the mount that `mount` refers to, with all mounts below it when
/// `recursive`. Needs Linux 5.12. Fails with the kernel's error and changes nothing.
pub(crate) fn set_mount_attributes(
    mount: impl AsFd,
    set: MountAttrFlags,
    propagation: MountPropagationFlags,
    recursive: bool,
) -> io::Result<()> {
    let attributes = MountAttr {
        set: u64::from(set.bits()),
        propagation: u64::from(propagation.bits()),
        ..MountAttr::default()
    };
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    change(mount, &attributes, recursive)
}

/// Takes attributes away from the mount that `mount` refers to, that one alone.
pub(crate) fn clear_mount_attributes(mount: impl AsFd, clear: MountAttrFlags) -> io::Result<()> {
    let attributes = MountAttr {
        clear: u64::from(clear.bits()),
        ..MountAttr::default()
    };
    change(mount, &attributes, 0)
}

fn change(mount: impl AsFd, attributes: &MountAttr, flags: libc::c_int) -> io::Result<()> {
    let attributes: *const MountAttr = attributes;
    // SAFETY: the path is a NUL-terminated constant, the attributes live across the call and their size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags | libc::AT_EMPTY_PATH,
            attributes,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
