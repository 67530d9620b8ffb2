//! The calls of the mount API (Linux 5.2) as the sandbox uses them: make a file system, clone a tree, attach it.
//!
//! mount(2) was rejected: it takes paths, which can change between two calls, and a bind mount is visible before it is
//! read-only. Here a mount is a descriptor, gets its attributes, and appears finished.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use rustix::path::Arg;

/// Makes a file system that is mounted nowhere yet.
pub(in crate::sandbox) fn new_filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Clones what is at a path as a mount that is attached nowhere yet, with all mounts below it when `recursive`. The empty
/// path means the descriptor itself.
pub(in crate::sandbox) fn clone_tree(
    at: impl AsFd,
    path: impl Arg,
    recursive: bool,
) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(at, path, flags)?)
}

/// Attaches a detached mount at a path; the empty path means the descriptor itself. Links at the end are followed.
pub(in crate::sandbox) fn attach(
    mount: impl AsFd,
    at: impl AsFd,
    path: impl Arg,
) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    Ok(move_mount(mount, c"", at, path, flags)?)
}
