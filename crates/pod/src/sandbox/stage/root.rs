//! The root file system of a container: put together at a place in the private mounts, then made `/`.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, chmodat, mkdirat, openat, symlinkat};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, unmount};

use super::paths::{self, Kind};
use super::{Filesystem, Reporter, Volume, cgroups, standard};
use crate::image::Root;
use crate::plan::Propagation;
use crate::sandbox::error::{Doing, Failed, reason};
use crate::sandbox::in_user_namespace;
use crate::sandbox::overlay;
use crate::sandbox::private::tree::{attach, clone_tree, new_filesystem};
use crate::sandbox::wire::Access;
use crate::sys;

/// Where a root is put together: the same place in each mount namespace.
pub(in crate::sandbox) const PLACE: &str = "/proc/driver/root";

/// What of the machine the `host` image shows, where it exists. Not its homes, its state, its temporary files.
const HOST: [&str; 10] = [
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix",
];

/// The most that a container may write outside its volumes when its root is in memory. It counts against its memory limit.
const ROOT_SIZE: &str = "1g";

/// Mounts everything. Gives the finished root, not yet `/`.
pub(super) fn build(
    reporter: &Reporter,
    filesystem: Filesystem,
    cgroup_procs: &[PathBuf],
) -> Result<OwnedFd, Failed> {
    let Filesystem {
        root: kind,
        binary,
        own_binary,
        read_only,
        access,
        host,
        shm,
        proc,
        mounts,
    } = filesystem;
    let root = match &kind {
        Root::Itself | Root::Host => {
            let options = [("mode", "0755"), ("size", ROOT_SIZE)];
            new_filesystem("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NODEV)
        }
        Root::Overlay {
            lowers,
            upper,
            work,
            user_xattrs,
        } => overlay::mount(lowers, upper, work, *user_xattrs),
    }
    .and_then(|root| attach(&root, CWD, PLACE).map(|()| root))
    .doing(|| match &kind {
        Root::Overlay { lowers, .. } => {
            let top = lowers.first().map(|top| top.display().to_string());
            format!("mount an overlay of {}", top.unwrap_or_default())
        }
        Root::Itself | Root::Host => "mount the root".into(),
    })?;
    // Host directories that get new mount points are writable until these are made.
    let mut finish: Vec<OwnedFd> = Vec::new();
    match &kind {
        Root::Itself => fill_itself(&root, &binary, own_binary)?,
        Root::Host => fill_host(&root, &mounts, &mut finish)?,
        Root::Overlay { .. } => {}
    }
    let privileged = access == Access::Privileged;
    if privileged {
        let step = || "let the root have devices".to_owned();
        sys::clear_mount_attributes(&root, MountAttrFlags::MOUNT_ATTR_NODEV).doing(step)?;
    }
    let views = cgroups::views(cgroup_procs);
    standard::mount(&root, access, host, &shm, proc.as_deref(), &views)?;
    for volume in mounts {
        mount_volume(reporter, &root, volume, privileged)?;
    }
    for mount in &finish {
        read_only_here(mount).doing(|| "make the machine's directories read-only".into())?;
    }
    if read_only {
        read_only_here(&root).doing(|| "make the root read-only".into())?;
    }
    Ok(root)
}

fn read_only_here(mount: &OwnedFd) -> io::Result<()> {
    sys::set_mount_attributes(
        mount,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
        MountPropagationFlags::empty(),
        false,
    )
}

/// Makes `root` the root, and takes the old one with all its mounts out of this namespace. (pivot_root(2), "pivot_root(".", ".")")
pub(super) fn pivot(root: &OwnedFd) -> Result<(), Failed> {
    rustix::process::fchdir(root).doing(|| "enter the new root".into())?;
    rustix::process::pivot_root(".", ".").doing(|| "pivot_root".into())?;
    unmount(".", UnmountFlags::DETACH).doing(|| "leave the old root".into())?;
    rustix::process::chdir("/").doing(|| "enter /".into())
}

fn make_directories(root: &OwnedFd, directories: &[(&str, u32)]) -> Result<(), Failed> {
    for (name, mode) in directories {
        let step = || format!("make /{name}");
        mkdirat(root, *name, Mode::from_raw_mode(*mode)).doing(step)?;
        // Whatever the umask.
        chmodat(
            root,
            *name,
            Mode::from_raw_mode(*mode),
            rustix::fs::AtFlags::empty(),
        )
        .doing(step)?;
    }
    Ok(())
}

const SKELETON: [(&str, u32); 8] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    ("root", 0o700),
];

/// The `podkit` image: the running binary, read-only, and the directories that programs expect. Who may mount could make the mount
/// writable, and then change the mode or the owner of the machine's file if not its bytes: they get a copy in their own root, which
/// nobody else executes.
fn fill_itself(root: &OwnedFd, binary: &Path, own_copy: bool) -> Result<(), Failed> {
    make_directories(root, &SKELETON)?;
    make_directories(root, &[("etc", 0o755)])?;
    let step = || "mount /podkit".to_owned();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let place = openat(root, "podkit", flags, Mode::from_raw_mode(0o555)).doing(step)?;
    if own_copy {
        let step = || "copy podkit's binary to /podkit".to_owned();
        let mut binary = File::open(binary).doing(step)?;
        io::copy(&mut binary, &mut File::from(place)).doing(step)?;
        return Ok(());
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    let binary = clone_tree(CWD, binary, false).doing(step)?;
    sys::set_mount_attributes(&binary, attributes, MountPropagationFlags::PRIVATE, false)
        .doing(step)?;
    attach(&binary, &place, c"").doing(step)
}

/// The `host` image: the machine's own programs, links kept as links, everything else private and empty.
fn fill_host(root: &OwnedFd, mounts: &[Volume], finish: &mut Vec<OwnedFd>) -> Result<(), Failed> {
    make_directories(root, &SKELETON)?;
    for state in ["var/lib", "var/log", "var/cache", "var/run"] {
        if state == "var/run" {
            symlinkat("/run", root, state).doing(|| "make /var/run".into())?;
        } else {
            make_directories(root, &[(state, 0o755)])?;
        }
    }
    let host = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open /".into())?;
    for name in HOST {
        let source = Path::new("/").join(name);
        let step = || format!("show the machine's /{name}");
        let Ok(metadata) = source.symlink_metadata() else {
            continue;
        };
        if metadata.is_symlink() {
            let target = std::fs::read_link(&source).doing(step)?;
            symlinkat(target.as_path(), root, name).doing(step)?;
            continue;
        }
        make_directories(root, &[(name, 0o755)])?;
        // A mount point that the machine does not have can't be made in its directory: a layer in memory takes it.
        let lacks = |volume: &Volume| {
            volume.target.starts_with(&source) && paths::find(&host, &volume.target).is_err()
        };
        let mount = if mounts.iter().any(lacks) {
            let mount = layered(name).doing(step)?;
            finish.push(mount.try_clone().doing(step)?);
            mount
        } else {
            // What is mounted below can't be taken off in a user namespace: it comes along, as read-only as the rest.
            let all = in_user_namespace();
            let mount = clone_tree(CWD, &source, all).doing(step)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
            sys::set_mount_attributes(&mount, attributes, MountPropagationFlags::PRIVATE, all)
                .doing(step)?;
            mount
        };
        attach(&mount, root, name).doing(step)?;
    }
    Ok(())
}

/// A directory of the machine under a layer of memory.
fn layered(name: &str) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let memory = new_filesystem(
        "tmpfs",
        &[("mode", "0700"), ("size", "1m")],
        MountAttrFlags::empty(),
    )?;
    for layer in ["upper", "work"] {
        mkdirat(&memory, layer, Mode::from_raw_mode(0o755))?;
    }
    let layers = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    overlay::mount(
        &[Path::new("/").join(name)],
        &layers.join("upper"),
        &layers.join("work"),
        !crate::image::owns_machine(),
    )
}

fn mount_volume(
    reporter: &Reporter,
    root: &OwnedFd,
    volume: Volume,
    privileged: bool,
) -> Result<(), Failed> {
    let Volume {
        tree,
        target,
        read_only,
        recursive_read_only,
        propagation,
        optional,
    } = volume;
    let step = || format!("mount {}", target.display());
    // Devices stay shut, as the device cgroup of Kubernetes has it: root in a container may make device nodes.
    let attributes = match privileged {
        true => MountAttrFlags::empty(),
        false => MountAttrFlags::MOUNT_ATTR_NODEV,
    };
    let flow = match propagation {
        Propagation::None => MountPropagationFlags::PRIVATE,
        Propagation::HostToContainer => MountPropagationFlags::DOWNSTREAM,
        // It is a peer of the machine's already.
        Propagation::Bidirectional => MountPropagationFlags::empty(),
    };
    sys::set_mount_attributes(&tree, attributes, flow, true).doing(step)?;
    if read_only {
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let nothing = MountPropagationFlags::empty();
        sys::set_mount_attributes(&tree, attributes, nothing, recursive_read_only).doing(step)?;
    }
    let stat = rustix::fs::fstat(&tree).doing(step)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        _ => Kind::File,
    };
    let place = match paths::place(root, &target, kind) {
        Err(error) if optional => {
            let why = reason(error.raw_os_error().unwrap_or(libc::EIO));
            reporter.warn(format!("{} is not mounted: {why}", target.display()));
            return Ok(());
        }
        place => place.doing(step)?,
    };
    if paths::is_proc(&place).doing(step)? {
        return Err(Failed {
            step: format!("{}: nothing may be mounted in /proc", step()),
            errno: libc::EPERM,
        });
    }
    // The kernel would say "Invalid argument".
    let there = rustix::fs::fstat(&place).doing(step)?.st_mode;
    match (kind, FileType::from_raw_mode(there) == FileType::Directory) {
        (Kind::Directory, false) => Err(Failed {
            step: step(),
            errno: libc::ENOTDIR,
        }),
        (Kind::File, true) => Err(Failed {
            step: step(),
            errno: libc::EISDIR,
        }),
        _ => attach(&tree, &place, c"").doing(step),
    }
}
