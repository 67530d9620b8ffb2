//! The supervisor's private mounts: a namespace of its own, and in it a small file system with what the stages need.
//!
//! It is mounted over `/proc/driver`, a directory that every Linux has and that nothing in a pod needs, so that no
//! directory has to be made, and removed, on the host. In it:
//!
//! - `podkit`: this binary, on a read-only mount of its own. The stage is executed from it and the `podkit` image shows
//!   it, so that whoever opens `/proc/PID/exe` finds a file that can't be written (CVE-2019-5736). A sealed copy in memory was
//!   rejected: it would cost the binary's size for each supervisor. Stages start from it even when the file is replaced on
//!   disk; but what has lost its name can't be mounted, so that for the `podkit` image there is then a copy after all (`kept`).
//! - `pause`: the program of the init. `dev`: the device nodes of containers. `root`: where a container's root is put together.
//! - `empty`: what masked directories show. `shm`: the pods' `/dev/shm`. `proc`: the `/proc` of those whose containers share PIDs.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, unmount};
use rustix::thread::UnshareFlags;

use super::error::{Doing, Failed, SandboxError};
use super::user_namespace::{self, Ids, refusal};
use crate::sys;

pub(super) mod tree;

use tree::{attach, clone_tree, new_filesystem};

/// Where the private file system is.
pub(super) const AREA: &str = "/proc/driver";

/// This binary there.
const BINARY: &str = "/proc/driver/podkit";

/// Its copy, when it has been replaced on disk.
const KEPT: &str = "/proc/driver/kept/podkit";

/// The devices of every container: name, major, minor. (OCI runtime specification, config-linux, default devices)
pub(super) const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The private mounts of this process, entered. Copies mean the same.
#[derive(Debug, Clone)]
pub struct PrivateMounts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    area: OwnedFd,
    binary: OwnedFd,
    pause: OwnedFd,
    ids: Ids,
    machine: OwnedFd,
    kept: Mutex<bool>,
}

impl PrivateMounts {
    /// The root of the private file system.
    pub(super) fn area(&self) -> BorrowedFd<'_> {
        self.inner.area.as_fd()
    }

    /// This binary, on its read-only mount.
    pub(super) fn binary(&self) -> BorrowedFd<'_> {
        self.inner.binary.as_fd()
    }

    /// Where this binary can be mounted from.
    pub(super) fn mountable_binary(&self) -> io::Result<&'static str> {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", self.binary().as_raw_fd()))?;
        if !path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)") {
            return Ok(BINARY);
        }
        let mut kept = self
            .inner
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !*kept {
            keep_copy(self.area(), std::fs::File::open(BINARY)?)?;
            *kept = true;
        }
        Ok(KEPT)
    }

    /// The ids that processes of this one's pods can have.
    pub(crate) fn ids(&self) -> &Ids {
        &self.inner.ids
    }

    /// The init's program.
    pub(super) fn pause(&self) -> BorrowedFd<'_> {
        self.inner.pause.as_fd()
    }

    /// The mount namespace that this process came from: the machine's.
    pub(super) fn machine(&self) -> BorrowedFd<'_> {
        self.inner.machine.as_fd()
    }
}

/// Copies this binary into memory, once for this process.
fn keep_copy(area: BorrowedFd<'_>, mut binary: std::fs::File) -> io::Result<()> {
    let size = (binary.metadata()?.len() + (1 << 16)).to_string();
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let memory = new_filesystem("tmpfs", &[("mode", "0755"), ("size", &size)], attributes)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(&memory, "podkit", flags, Mode::from_raw_mode(0o555))?;
    io::copy(&mut binary, &mut std::fs::File::from(copy))?;
    let memory = protect(memory)?;
    rustix::fs::mkdirat(area, "kept", Mode::from_raw_mode(0o755))?;
    attach(&memory, area, "kept")
}

/// Gives this process a mount namespace of its own, in which the host's mounts appear but nothing leads back, and puts
/// the private file system into it; without root, in a user namespace ([`enter_user_namespace`](super::enter_user_namespace)). To
/// be called once, before any thread is started: a thread keeps the namespaces that it was born with.
pub fn enter_private_mounts() -> Result<PrivateMounts, SandboxError> {
    if has_threads() {
        return Err(SandboxError::Threads);
    }
    super::enter_user_namespace()?;
    // Before the namespace: afterwards the link leads to a mount of another one, which can't be cloned. Who has no rights over
    // the present mounts can do it only then, by the path.
    let binary = clone_tree(rustix::fs::CWD, "/proc/self/exe", false).ok();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let machine = rustix::fs::open("/proc/self/ns/mnt", flags, Mode::empty())
        .doing(|| "open /proc/self/ns/mnt".into())?;
    match sys::unshare(UnshareFlags::NEWNS).doing(|| "make a private mount namespace".into()) {
        // A security module lets users have a user namespace, but no rights in it.
        Err(failed) if super::in_user_namespace() => {
            return Err(SandboxError::UserNamespace(refusal(failed.errno)));
        }
        entered => entered?,
    }
    Ok(furnish(binary, machine)?)
}

/// Whether this process has more than one thread.
pub(super) fn has_threads() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1)
}

/// A mount of this binary, when its path still leads to it.
fn binary_by_path() -> io::Result<OwnedFd> {
    use std::os::unix::fs::MetadataExt;
    let tree = clone_tree(
        rustix::fs::CWD,
        std::fs::read_link("/proc/self/exe")?,
        false,
    )?;
    let (found, ours) = (
        rustix::fs::fstat(&tree)?,
        std::fs::metadata("/proc/self/exe")?,
    );
    match (found.st_dev, found.st_ino) == (ours.dev(), ours.ino()) {
        true => Ok(tree),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Puts the private file system into this process's mount namespace.
fn furnish(binary: Option<OwnedFd>, machine: OwnedFd) -> Result<PrivateMounts, Failed> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open /".into())?;
    sys::set_mount_attributes(
        &root,
        MountAttrFlags::empty(),
        MountPropagationFlags::DOWNSTREAM,
        true,
    )
    .doing(|| "make the mounts private".into())?;

    let area = new_filesystem(
        "tmpfs",
        &[("mode", "0700"), ("size", "256k"), ("nr_inodes", "1024")],
        MountAttrFlags::MOUNT_ATTR_NOSUID,
    )
    .and_then(|area| attach(&area, rustix::fs::CWD, AREA).map(|()| area))
    .doing(|| format!("mount the private file system on {AREA}"))?;
    for directory in ["dev", "root", "empty", "shm", "proc"] {
        rustix::fs::mkdirat(&area, directory, Mode::from_raw_mode(0o755))
            .doing(|| format!("make {AREA}/{directory}"))?;
    }
    make_devices(&area)?;

    let binary = binary.map_or_else(binary_by_path, Ok).or_else(|_| {
        // It has been replaced, or lies where only its descriptor leads.
        keep_copy(area.as_fd(), std::fs::File::open("/proc/self/exe")?)?;
        clone_tree(rustix::fs::CWD, KEPT, false)
    });
    let binary = binary
        .and_then(protect)
        .doing(|| "clone the mount of podkit's binary".into())?;
    write_file(&area, "podkit", &[]).doing(|| "make the place of podkit's binary".into())?;
    attach(&binary, &area, "podkit").doing(|| "mount podkit's binary".into())?;
    write_file(&area, "pause", &sys::pause_program())
        .and_then(|()| clone_tree(&area, "pause", false))
        .and_then(protect)
        .and_then(|pause| attach(&pause, &area, "pause"))
        .doing(|| "make the program of the init".into())?;

    let open = |name: &str| {
        rustix::fs::openat(&area, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .doing(|| format!("open {AREA}/{name}"))
    };
    let (binary, pause) = (open("podkit")?, open("pause")?);
    Ok(PrivateMounts {
        inner: Arc::new(Inner {
            area,
            binary,
            pause,
            ids: user_namespace::ids(),
            machine,
            kept: Mutex::new(false),
        }),
    })
}

/// Read-only, without set-user-id and devices, private to its namespace.
fn protect(mount: OwnedFd) -> io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    sys::set_mount_attributes(&mount, attributes, MountPropagationFlags::PRIVATE, true)?;
    Ok(mount)
}

fn write_file(area: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(area, name, flags, Mode::from_raw_mode(0o555))?;
    std::fs::File::from(file).write_all(bytes)
}

/// Device nodes of our own: a container that changes the mode of its `/dev/null` does not change the machine's. Where
/// making nodes is not permitted, the machine's are shown.
fn make_devices(area: &OwnedFd) -> Result<(), Failed> {
    for (name, major, minor) in DEVICES {
        let path = CString::new(format!("dev/{name}")).doing(|| "name a device".into())?;
        let mode = Mode::from_raw_mode(0o666);
        match rustix::fs::mknodat(
            area,
            &path,
            FileType::CharacterDevice,
            mode,
            makedev(major, minor),
        ) {
            Ok(()) => rustix::fs::chmodat(area, &path, mode, AtFlags::empty())
                .doing(|| format!("set the mode of {AREA}/dev/{name}"))?,
            Err(_) => write_file(area, &format!("dev/{name}"), &[])
                .and_then(|()| clone_tree(rustix::fs::CWD, format!("/dev/{name}"), false))
                .and_then(|device| attach(&device, area, format!("dev/{name}")))
                .doing(|| format!("mount /dev/{name}"))?,
        }
    }
    Ok(())
}

/// Takes a mount of the private file system away, and its directory.
pub(super) fn remove(area: BorrowedFd<'_>, directory: &str) -> io::Result<()> {
    unmount(format!("{AREA}/{directory}"), UnmountFlags::DETACH)?;
    Ok(rustix::fs::unlinkat(area, directory, AtFlags::REMOVEDIR)?)
}
