//! The mounts that every container has: /proc, /sys, /dev and what is hidden or read-only in them.
//!
//! The mounts are those of containerd (`oci.defaultMounts`), the lists those of the kubelet (1.34, pkg/securitycontext:
//! `defaultMaskedPaths`, `defaultReadonlyPaths`), which Kubernetes calls `procMount: Default`. Every mount but the six
//! device nodes is `nodev`: root in a container may make device nodes (CAP_MKNOD is a default), and the device cgroup that would
//! shut them is not everywhere. A privileged container has all of it as the machine has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, unmount};

use super::devices;
use super::paths::{self, Kind};
use super::root::PLACE;
use crate::sandbox::error::{Doing, Failed};
use crate::sandbox::private::tree::{attach, clone_tree, new_filesystem};
use crate::sandbox::private::{AREA, DEVICES};
use crate::sandbox::wire::{Access, Host};
use crate::sys;

const MASKED_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "scsi",
];
const MASKED_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];
/// Masked for each processor: what it counts tells of what runs beside. (GHSA-6fw5-f8r9-fgfm)
const THROTTLE: &str = "thermal_throttle";
const PROCESSORS: &str = "devices/system/cpu";
const READ_ONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
pub(super) const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

const NO_SUID_DEV: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
pub(super) const NOTHING: MountAttrFlags = NO_SUID_DEV.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
const READ_ONLY: MountAttrFlags = NOTHING.union(MountAttrFlags::MOUNT_ATTR_RDONLY);

/// Mounts them in `root`: this process is in the container's namespaces already, which decides what proc, sysfs and mqueue
/// show; but for the PID namespace where that is the pod's, whose `/proc` is then given. `cgroups` are directories with their places below `/sys/fs/cgroup`.
pub(super) fn mount(
    root: &OwnedFd,
    access: Access,
    host: Host,
    shm: &Path,
    shared_proc: Option<&Path>,
    cgroups: &[(PathBuf, PathBuf)],
) -> Result<(), Failed> {
    proc(root, access, host, shared_proc)?;
    dev(root, access, host, shm)?;
    match access {
        Access::Privileged => whole_sysfs(root, host),
        _ => sysfs(root, host, cgroups),
    }
}

/// Mounts at `/NAME`. A link in its place is refused: it could lead below a volume, which would then cover what is mounted
/// here with what a container wrote there. (CVE-2019-16884, CVE-2023-27561)
fn put(root: &OwnedFd, mount: &OwnedFd, name: &str) -> Result<(), Failed> {
    paths::top(root, name)
        .and_then(|place| attach(mount, place, c""))
        .doing(|| format!("mount /{name}: in the image it must be a directory"))
}

/// A file system that shows a namespace. One of the machine's shows itself only to the machine's root: to others, what is mounted
/// at `place` already, with all that is mounted below it; true then.
fn showing(
    kind: &str,
    attributes: MountAttrFlags,
    machines: bool,
    place: &str,
) -> io::Result<(OwnedFd, bool)> {
    match new_filesystem(kind, &[], attributes) {
        Err(error) if machines && error.raw_os_error() == Some(libc::EPERM) => {
            let tree = clone_tree(CWD, place, true)?;
            sys::set_mount_attributes(&tree, attributes, MountPropagationFlags::PRIVATE, true)?;
            Ok((tree, true))
        }
        made => Ok((made?, false)),
    }
}

fn proc(root: &OwnedFd, access: Access, host: Host, shared: Option<&Path>) -> Result<(), Failed> {
    let step = || "mount /proc".to_owned();
    let (proc, machines) = match shared {
        Some(place) => clone_tree(CWD, place, false).map(|proc| (proc, false)),
        None => showing("proc", NOTHING, host.pid, "/proc"),
    }
    .doing(step)?;
    put(root, &proc, "proc")?;
    if machines {
        // But not our own mounts.
        unmount(format!("{PLACE}{AREA}"), UnmountFlags::DETACH).doing(step)?;
    }
    if access != Access::Usual {
        return Ok(());
    }
    for name in MASKED_PROC {
        mask(&proc, name).doing(|| format!("mask /proc/{name}"))?;
    }
    for name in READ_ONLY_PROC {
        read_only(&proc, name).doing(|| format!("make /proc/{name} read-only"))?;
    }
    Ok(())
}

/// Shows an empty directory or the null device in the place of something; nothing when it is not there.
fn mask(at: &OwnedFd, name: &str) -> io::Result<()> {
    let Some((place, directory)) = existing(at, name)? else {
        return Ok(());
    };
    let cover = clone_tree(
        CWD,
        format!("{AREA}/{}", if directory { "empty" } else { "dev/null" }),
        false,
    )?;
    let attributes = if directory {
        READ_ONLY
    } else {
        MountAttrFlags::MOUNT_ATTR_RDONLY
    };
    sys::set_mount_attributes(&cover, attributes, MountPropagationFlags::PRIVATE, false)?;
    attach(&cover, place, c"")
}

fn read_only(at: &OwnedFd, name: &str) -> io::Result<()> {
    let Some((place, _)) = existing(at, name)? else {
        return Ok(());
    };
    let same = clone_tree(&place, c"", false)?;
    sys::set_mount_attributes(&same, READ_ONLY, MountPropagationFlags::PRIVATE, false)?;
    attach(&same, place, c"")
}

fn existing(at: &OwnedFd, name: &str) -> io::Result<Option<(OwnedFd, bool)>> {
    match openat(
        at,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(place) => {
            let mode = rustix::fs::fstat(&place)?.st_mode;
            Ok(Some((
                place,
                FileType::from_raw_mode(mode) == FileType::Directory,
            )))
        }
    }
}

fn dev(root: &OwnedFd, access: Access, host: Host, shm: &Path) -> Result<(), Failed> {
    let attributes = match access {
        Access::Privileged => MountAttrFlags::MOUNT_ATTR_NOSUID,
        _ => NO_SUID_DEV,
    };
    let attributes = attributes | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = new_filesystem("tmpfs", &[("mode", "0755"), ("size", "64m")], attributes)
        .doing(|| "mount /dev".into())?;
    put(root, &dev, "dev")?;
    for (name, _, _) in DEVICES {
        device(&dev, name).doing(|| format!("mount /dev/{name}"))?;
    }
    if access == Access::Privileged {
        devices::make_all(&dev)?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).doing(|| format!("make /dev/{name}"))?;
    }
    let directory = |name: &str| {
        mkdirat(&dev, name, Mode::from_raw_mode(0o755)).doing(|| format!("make /dev/{name}"))
    };

    directory("pts")?;
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = match new_filesystem("devpts", &options, attributes) {
        // A user namespace without the group 5, tty.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            new_filesystem("devpts", &options[..2], attributes)
        }
        pts => pts,
    };
    pts.and_then(|pts| attach(&pts, &dev, "pts"))
        .doing(|| "mount /dev/pts".into())?;

    directory("shm")?;
    clone_tree(CWD, shm, false)
        .and_then(|shm| {
            sys::set_mount_attributes(&shm, NOTHING, MountPropagationFlags::PRIVATE, false)?;
            attach(&shm, &dev, "shm")
        })
        .doing(|| "mount /dev/shm".into())?;

    directory("mqueue")?;
    match showing("mqueue", NOTHING, host.ipc, "/dev/mqueue")
        .and_then(|(mqueue, _)| attach(&mqueue, &dev, "mqueue"))
    {
        // A kernel without POSIX message queues, or a machine that shows none.
        Err(error) if [Some(libc::ENODEV), Some(libc::ENOENT)].contains(&error.raw_os_error()) => {
            Ok(())
        }
        result => result.doing(|| "mount /dev/mqueue".into()),
    }
}

fn device(dev: &OwnedFd, name: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let place = openat(dev, name, flags, Mode::from_raw_mode(0o666))?;
    let node = clone_tree(CWD, format!("{AREA}/dev/{name}"), false)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    sys::set_mount_attributes(&node, attributes, MountPropagationFlags::PRIVATE, false)?;
    attach(&node, place.as_fd(), c"")
}

/// The machine's /sys as it is, cgroups and all.
fn whole_sysfs(root: &OwnedFd, host: Host) -> Result<(), Failed> {
    let (sys, machines) =
        showing("sysfs", NOTHING, host.network, "/sys").doing(|| "mount /sys".into())?;
    put(root, &sys, "sys")?;
    if machines {
        return Ok(());
    }
    for name in ["/sys/fs/cgroup", "/sys/fs/bpf"] {
        let step = || format!("mount {name}");
        if !Path::new(name).is_dir() {
            continue;
        }
        let tree = clone_tree(CWD, name, true).doing(step)?;
        sys::set_mount_attributes(&tree, NOTHING, MountPropagationFlags::PRIVATE, true)
            .doing(step)?;
        paths::find(root, Path::new(name))
            .and_then(|place| attach(&tree, place, c""))
            .doing(step)?;
    }
    Ok(())
}

fn sysfs(root: &OwnedFd, host: Host, cgroups: &[(PathBuf, PathBuf)]) -> Result<(), Failed> {
    let (sys, machines) =
        showing("sysfs", READ_ONLY, host.network, "/sys").doing(|| "mount /sys".into())?;
    put(root, &sys, "sys")?;
    if machines {
        mask(&sys, "fs/cgroup").doing(|| "mask /sys/fs/cgroup".into())?;
    }
    for name in MASKED_SYS {
        mask(&sys, name).doing(|| format!("mask /sys/{name}"))?;
    }
    throttle(&sys).doing(|| format!("mask /sys/{PROCESSORS}/*/{THROTTLE}"))?;
    if cgroups.is_empty() {
        return Ok(());
    }
    // Version 1 has a directory for each hierarchy, version 2 is the directory itself.
    let step = || "mount /sys/fs/cgroup".to_owned();
    if cgroups
        .iter()
        .all(|(_, place)| place != Path::new("/sys/fs/cgroup"))
    {
        let top =
            new_filesystem("tmpfs", &[("mode", "0755"), ("size", "4k")], NOTHING).doing(step)?;
        paths::place(root, Path::new("/sys/fs/cgroup"), Kind::Directory)
            .and_then(|place| attach(&top, place, c""))
            .doing(step)?;
        for (directory, place) in cgroups {
            paths::place(root, place, Kind::Directory)
                .and_then(|place| show(directory, place))
                .doing(step)?;
        }
        return sys::set_mount_attributes(
            &top,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
            MountPropagationFlags::empty(),
            false,
        )
        .doing(step);
    }
    for (directory, place) in cgroups {
        paths::find(root, place)
            .and_then(|place| show(directory, place))
            .doing(step)?;
    }
    Ok(())
}

fn throttle(sys: &OwnedFd) -> io::Result<()> {
    // Virtual machines have none.
    if existing(sys, &format!("{PROCESSORS}/cpu0/{THROTTLE}"))?.is_none() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for entry in Dir::new(openat(sys, PROCESSORS, flags, Mode::empty())?)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        let number = name.strip_prefix("cpu").unwrap_or_default();
        if number.parse::<u32>().is_ok() {
            mask(sys, &format!("{PROCESSORS}/{name}/{THROTTLE}"))?;
        }
    }
    Ok(())
}

fn show(directory: &Path, place: OwnedFd) -> io::Result<()> {
    let view = clone_tree(CWD, directory, false)?;
    sys::set_mount_attributes(&view, READ_ONLY, MountPropagationFlags::PRIVATE, false)?;
    attach(&view, place, c"")
}
