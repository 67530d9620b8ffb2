//! Volumes, on a disk and in mounts of their own.

mod env_file;
mod image;
mod ownership;
mod paths;
mod published;
mod scratch;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use super::*;
use crate::plan::{ContainerPlan, HostPathType, ImageSource, Resources};

fn pod(volumes: Vec<(&str, VolumeKind)>) -> PodPlan {
    let volumes = volumes.into_iter().map(|(name, kind)| VolumePlan {
        name: name.into(),
        kind,
    });
    PodPlan {
        hostname: "p".into(),
        volumes: volumes.collect(),
        ..PodPlan::new("p", Vec::new())
    }
}

fn container(role: Role, memory_limit_bytes: Option<u64>) -> ContainerPlan {
    ContainerPlan {
        role,
        resources: Resources {
            memory_limit_bytes,
            ..Resources::default()
        },
        ..ContainerPlan::new("c", ImageSource::Host)
    }
}

fn files(list: &[(&str, &str, u32)]) -> BTreeMap<String, FilePlan> {
    let file = |(path, text, mode): &(&str, &str, u32)| {
        let plan = FilePlan {
            bytes: text.as_bytes().to_vec(),
            mode: *mode,
        };
        (path.to_string(), plan)
    };
    list.iter().map(file).collect()
}

fn config(list: &[(&str, &str, u32)]) -> VolumeKind {
    VolumeKind::Files {
        files: files(list),
        secret: false,
    }
}

fn at(volume: &str, sub_path: Option<&str>) -> MountPlan {
    MountPlan {
        sub_path: sub_path.map(str::to_string),
        ..MountPlan::new(volume, "/mnt")
    }
}

/// The path that a descriptor is of.
fn path_of(source: &Source) -> PathBuf {
    use std::os::fd::AsRawFd;
    fs::read_link(format!("/proc/self/fd/{}", source.fd.as_raw_fd())).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Runs where mounts are private, on a thread of its own; not at all without root.
fn with_mounts(run: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to mount");
        return;
    }
    let thread = std::thread::spawn(|| {
        #[expect(
            deprecated,
            reason = "the replacement is unsafe for FILES, which is not asked for"
        )]
        rustix::thread::unshare(UnshareFlags::NEWNS).unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        run();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Owner's group and mode of what is at `path`, links not followed.
fn group_and_mode(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.gid(), meta.mode() & 0o7777)
}
