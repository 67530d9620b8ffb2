//! The volumes of a pod: made before its first container, bound into each, removed after the last.
//!
//! ```text
//!   BASE/NAME   emptyDir            a directory, 0777
//!               emptyDir (Memory)   a tmpfs of its limit, 1777
//!               configMap           a directory: ..2026_07_01_12_00_00.1/…  ..data → it  KEY → ..data/KEY   (atomic)
//!               secret              the same in a tmpfs that is not swapped
//!               projected,          the same
//!               downwardAPI
//!               image               an overlay of its layers over the empty directory, read-only, noexec, nosuid, nodev
//!   CLAIMS/NAMESPACE/NAME
//!               persistentVolumeClaim   a directory, 0777, that stays
//!   (nothing)   hostPath            the path itself, checked
//! ```
//!
//! An image is mounted when the first container that wants it starts: it has to be pulled before. KEP-4639 asks for noexec, and CRI-O
//! does so; containerd lets programs in such a volume be executed, but a file that runs here is to run under both.
//!
//! Modes, names and links are the kubelet's, so that an application can't tell the difference. The tmpfs mounts are made in the
//! supervisor's private mount namespace and vanish with it. What is handed out is an open descriptor of the file or directory
//! to bind, not a path: a container that swaps a directory for a link between the look and the mount gains nothing.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, chmod, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::plan::{ContainerPlan, FilePlan, MountPlan, PodPlan, Role, VolumeKind, VolumePlan};
use crate::sandbox::overlay;

mod atomic;
mod env_file;
mod host_path;
mod ownership;
mod remove;
mod sub_path;
#[cfg(test)]
mod tests;
mod usage;

pub use env_file::EnvFileError;
use ownership::Ownership;
pub use remove::remove_tree;
pub use usage::{Limited, OverLimit};

/// Beside its files a secret's tmpfs holds their next version while it is swapped in, and directories.
const SECRET_BYTES_SPARE: u64 = 1024 * 1024;

/// A volume that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A step failed.
    #[error("volume {volume}: {doing}: {cause}")]
    Io {
        /// The volume.
        volume: String,
        /// What was being done, to which path.
        doing: String,
        /// What came of it.
        #[source]
        cause: io::Error,
    },
    /// The directory of all volumes.
    #[error("volumes directory {path}: {cause}")]
    Base {
        /// The directory.
        path: String,
        /// What came of it.
        #[source]
        cause: io::Error,
    },
    /// A hostPath is not what its `type` says.
    #[error("volume {volume}: hostPath type check failed: {path} is not {expected}")]
    HostPathType {
        /// The volume.
        volume: String,
        /// The path.
        path: String,
        /// `a directory`.
        expected: &'static str,
    },
    /// A subPath that links lead out of its volume.
    #[error("subPath {sub_path:?} of volume {volume} leads out of the volume")]
    Escape {
        /// The volume.
        volume: String,
        /// The subPath.
        sub_path: String,
    },
    /// A subPath that is no directory of the image.
    #[error(
        "subPath {sub_path:?} of volume {volume}: the image has no such directory, and nothing else of an image is mounted"
    )]
    NotInImage {
        /// The volume.
        volume: String,
        /// The subPath.
        sub_path: String,
    },
    /// The pod has no such volume.
    #[error("there is no such volume: {volume}")]
    Unknown {
        /// The volume.
        volume: String,
    },
}

impl VolumeError {
    fn io(volume: &str, doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let (volume, doing) = (volume.to_string(), doing.into());
        move |cause| Self::Io {
            volume,
            doing,
            cause,
        }
    }
}

/// What to bind into a container.
#[derive(Debug)]
pub struct Source {
    /// The file or directory, opened with O_PATH in the supervisor's mount namespace.
    pub fd: OwnedFd,
    /// By `readOnly`, or because the kubelet mounts such a volume in no other way (configMap, secret).
    pub read_only: bool,
}

/// The volumes of one pod.
#[derive(Debug)]
pub struct Volumes {
    base: PathBuf,
    /// `fsGroup`, for those that support it.
    ownership: Option<Ownership>,
    volumes: BTreeMap<String, Volume>,
    scan: usage::Scan,
}

#[derive(Debug)]
struct Volume {
    /// Where it is: below the base, or the hostPath.
    path: PathBuf,
    /// A tmpfs or an image is mounted there.
    mounted: bool,
    /// It is to hold an image.
    image: bool,
    /// It holds published files.
    files: bool,
    /// For containers it is.
    read_only: bool,
}

impl Volumes {
    /// Makes every volume of the pod below `base`, which is made when absent and emptied of what a dead supervisor of the
    /// same pod left. Claims are directories below `claims`, which stay. On an error nothing else is left.
    pub fn prepare(plan: &PodPlan, base: &Path, claims: &Path) -> Result<Self, VolumeError> {
        let ownership = plan.security.fs_group.map(|group| Ownership {
            group,
            read_only: false,
            on_root_mismatch: plan.security.fs_group_on_root_mismatch,
        });
        let mut made = Self {
            base: base.to_path_buf(),
            ownership,
            volumes: BTreeMap::new(),
            scan: usage::Scan::default(),
        };
        match made.make_all(plan, claims) {
            Ok(()) => Ok(made),
            Err(error) => {
                if let Err(leftover) = made.remove() {
                    tracing::warn!(path = %base.display(), error = %leftover, "a volume could not be removed");
                }
                Err(error)
            }
        }
    }

    fn make_all(&mut self, plan: &PodPlan, claims: &Path) -> Result<(), VolumeError> {
        let failed = |cause| VolumeError::Base {
            path: self.base.display().to_string(),
            cause,
        };
        remove_tree(&self.base).map_err(failed)?;
        if !plan.volumes.is_empty() {
            std::fs::create_dir_all(&self.base).map_err(failed)?;
            // Others reach the volumes through their containers only.
            let closed = chmod(&self.base, Mode::from_raw_mode(0o700));
            closed.map_err(io::Error::from).map_err(failed)?;
        }
        for volume in &plan.volumes {
            self.make(plan, volume, claims)?;
        }
        Ok(())
    }

    fn make(
        &mut self,
        plan: &PodPlan,
        volume: &VolumePlan,
        claims: &Path,
    ) -> Result<(), VolumeError> {
        let name = &volume.name;
        let path = match &volume.kind {
            VolumeKind::HostPath { path, .. } => path.clone(),
            VolumeKind::Claim {
                namespace, name, ..
            } => claims.join(namespace).join(name),
            _ => self.base.join(name),
        };
        let doing = |what: &str| VolumeError::io(name, format!("{what} {}", path.display()));
        let mut mounted = false;
        match &volume.kind {
            VolumeKind::HostPath { path, expect } => host_path::check(name, path, *expect)?,
            VolumeKind::EmptyDir { .. } | VolumeKind::Files { secret: false, .. } => {
                make_open(&path).map_err(doing("making"))?;
            }
            VolumeKind::Image { .. } => std::fs::create_dir(&path).map_err(doing("making"))?,
            VolumeKind::Claim { .. } => make_claim(claims, &path).map_err(doing("making"))?,
            VolumeKind::Memory { limit_bytes } => {
                make_open(&path).map_err(doing("making"))?;
                let size = memory_bytes(plan, *limit_bytes, ram_bytes());
                mount_tmpfs(&path, size).map_err(doing("mounting a tmpfs on"))?;
                mounted = true;
            }
            VolumeKind::Files {
                secret: true,
                files,
            } => {
                make_open(&path).map_err(doing("making"))?;
                // Room for the old and the new version at once, each file in whole pages.
                let bytes: u64 = files.values().map(|f| f.bytes.len() as u64 + 4096).sum();
                mount_tmpfs(
                    &path,
                    SECRET_BYTES_SPARE + 4 * bytes.max(SECRET_BYTES_SPARE),
                )
                .map_err(doing("mounting a tmpfs on"))?;
                mounted = true;
            }
        }
        self.volumes.insert(
            name.clone(),
            Volume {
                path: path.clone(),
                mounted,
                image: matches!(volume.kind, VolumeKind::Image { .. }),
                files: matches!(volume.kind, VolumeKind::Files { .. }),
                read_only: matches!(
                    volume.kind,
                    VolumeKind::Files { .. }
                        | VolumeKind::Image { .. }
                        | VolumeKind::Claim {
                            read_only: true,
                            ..
                        }
                ),
            },
        );
        match (&volume.kind, self.ownership) {
            (VolumeKind::Files { files, .. }, ownership) => {
                // The kubelet publishes in an emptyDir, which the group may write to; what mounts it is read-only.
                if let Some(ownership) = ownership {
                    let given = ownership.give_top(&path);
                    given.map_err(doing("giving the fsGroup to"))?;
                }
                let written = atomic::publish(&path, files, self.of_files());
                written.map(drop).map_err(doing("writing"))?;
            }
            // The kubelet does not touch a hostPath or an image either.
            (VolumeKind::HostPath { .. } | VolumeKind::Image { .. }, _) | (_, None) => {}
            (kind, Some(ownership)) => {
                // Only what outlives the pod can be right already.
                let ownership = Ownership {
                    on_root_mismatch: ownership.on_root_mismatch
                        && matches!(kind, VolumeKind::Claim { .. }),
                    ..ownership
                };
                let given = ownership.give(&path);
                given.map_err(doing("giving the fsGroup to"))?;
            }
        }
        if let VolumeKind::EmptyDir {
            limit_bytes: Some(limit),
        } = volume.kind
        {
            let what = Limited::Volume(name.clone());
            self.scan.watch(what, &[path], limit);
        }
        Ok(())
    }

    /// Published files are read by the group, and belong to it before anybody sees them.
    fn of_files(&self) -> Option<Ownership> {
        self.ownership.map(|ownership| Ownership {
            read_only: true,
            on_root_mismatch: false,
            ..ownership
        })
    }

    /// What a mount shows, opened. A `subPath` that is not there yet becomes a directory, as the kubelet makes it. A file
    /// of a configMap that is mounted by subPath does not follow later updates: neither does it on Kubernetes.
    pub fn source(&self, mount: &MountPlan) -> Result<Source, VolumeError> {
        let name = &mount.volume;
        let volume = self.known(name)?;
        let root = self.open(name)?;
        let fd = match mount.sub_path.as_deref() {
            None | Some("") => root,
            Some(sub_path) if volume.image => in_image(&root, name, sub_path)?,
            Some(sub_path) => match sub_path::open(&root, Path::new(sub_path)) {
                Ok(fd) => fd,
                Err(sub_path::SubPathError::Escape) => {
                    return Err(VolumeError::Escape {
                        volume: name.clone(),
                        sub_path: sub_path.to_string(),
                    });
                }
                Err(sub_path::SubPathError::Io(cause)) => {
                    return Err(VolumeError::io(
                        name,
                        format!("opening subPath {sub_path:?}"),
                    )(cause));
                }
            },
        };
        Ok(Source {
            fd,
            read_only: mount.read_only || volume.read_only,
        })
    }

    /// Mounts the image of a volume, once: its `layers`, the topmost first, unpacked with `user_xattrs` or not.
    pub fn mount_image(
        &mut self,
        name: &str,
        layers: &[PathBuf],
        user_xattrs: bool,
    ) -> Result<(), VolumeError> {
        let volume = self.volumes.get_mut(name).filter(|known| known.image);
        let volume = volume.ok_or_else(|| VolumeError::Unknown {
            volume: name.to_owned(),
        })?;
        if volume.mounted || layers.is_empty() {
            return Ok(());
        }
        // The empty directory lies under the layers: one layer alone makes no overlay, and what it hides would be seen.
        let mut layers = layers.to_vec();
        layers.push(volume.path.clone());
        let mounted = overlay::mount_read_only(&layers, user_xattrs, &volume.path);
        let doing = format!("mounting its image on {}", volume.path.display());
        mounted.map_err(VolumeError::io(name, doing))?;
        volume.mounted = true;
        Ok(())
    }

    fn known(&self, name: &str) -> Result<&Volume, VolumeError> {
        self.volumes.get(name).ok_or_else(|| VolumeError::Unknown {
            volume: name.to_owned(),
        })
    }

    /// The top of a volume (O_PATH).
    fn open(&self, name: &str) -> Result<OwnedFd, VolumeError> {
        let path = &self.known(name)?.path;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat(CWD, path, flags, Mode::empty())
            .map_err(io::Error::from)
            .map_err(VolumeError::io(name, format!("opening {}", path.display())))
    }

    /// Replaces the files of a published volume (configMap, secret, downwardAPI, projected) in one step; whoever reads sees all of the old or all of the
    /// new ones. False when they were the same already. On an error (a full disk) the old ones stay.
    pub fn update(
        &self,
        volume: &str,
        files: &BTreeMap<String, FilePlan>,
    ) -> Result<bool, VolumeError> {
        let known = self.volumes.get(volume).filter(|known| known.files);
        let known = known.ok_or_else(|| VolumeError::Unknown {
            volume: volume.to_string(),
        })?;
        let doing = format!("writing {}", known.path.display());
        atomic::publish(&known.path, files, self.of_files()).map_err(VolumeError::io(volume, doing))
    }

    /// Watches what containers with `limits.ephemeral-storage` write to the directories that `written` gives for each (its log,
    /// its root file system), and all that together with the emptyDirs on disk. (kubelet: `localStorageEviction`)
    pub fn watch_containers(&mut self, plan: &PodPlan, written: impl Fn(&str) -> Vec<PathBuf>) {
        let limit = |container: &ContainerPlan| container.resources.ephemeral_limit_bytes;
        if let Some(bytes) = pod_ephemeral_bytes(plan) {
            let on_disk = |volume: &&VolumePlan| matches!(volume.kind, VolumeKind::EmptyDir { .. });
            let volumes = plan.volumes.iter().filter(on_disk);
            let volumes = volumes.map(|volume| self.base.join(&volume.name));
            let containers = plan.containers.iter().flat_map(|one| written(&one.name));
            let all: Vec<PathBuf> = volumes.chain(containers).collect();
            self.scan.watch(Limited::Pod, &all, bytes);
        }
        for container in &plan.containers {
            if let Some(bytes) = limit(container) {
                let what = Limited::Container(container.name.clone());
                self.scan.watch(what, &written(&container.name), bytes);
            }
        }
    }

    /// Looks a little further for what is over its limit: at most `entries_max` directory entries
    /// each call, round after round, so that no volume can hold the supervisor up however many files it has. The kubelet looks
    /// every ten seconds; a call each second with some thousand entries is no slower for the usual volume.
    pub fn over_limit(&mut self, entries_max: usize) -> Option<OverLimit> {
        self.scan.step(entries_max)
    }

    /// Whether [`Volumes::over_limit`] has anything to look at.
    pub fn has_limits(&self) -> bool {
        !self.scan.is_empty()
    }

    /// Unmounts and deletes everything that was made, following no link and entering no foreign mount. Goes on after an
    /// error and returns the first.
    pub fn remove(&mut self) -> Result<(), VolumeError> {
        let mut first = Ok(());
        for (name, volume) in std::mem::take(&mut self.volumes) {
            if volume.mounted
                && let Err(error) = unmount(&volume.path, UnmountFlags::DETACH)
                && first.is_ok()
            {
                let doing = format!("unmounting {}", volume.path.display());
                first = Err(VolumeError::io(&name, doing)(error.into()));
            }
        }
        self.scan = usage::Scan::default();
        let removed = remove_tree(&self.base).map_err(|cause| VolumeError::Base {
            path: self.base.display().to_string(),
            cause,
        });
        first.and(removed)
    }
}

/// A directory of an image. Nothing is made there, and a file is not mounted, as it is not by containerd (KEP-4639, non-goals).
fn in_image(root: &OwnedFd, volume: &str, sub_path: &str) -> Result<OwnedFd, VolumeError> {
    let (volume, sub_path) = (volume.to_owned(), sub_path.to_owned());
    let found = sub_path::find(root, Path::new(&sub_path));
    let found = found.and_then(|found| Ok((fstat(&found)?.st_mode, found)));
    match found {
        Ok((mode, found)) if FileType::from_raw_mode(mode) == FileType::Directory => Ok(found),
        Err(sub_path::SubPathError::Escape) => Err(VolumeError::Escape { volume, sub_path }),
        Ok(_) | Err(sub_path::SubPathError::Io(_)) => {
            Err(VolumeError::NotInImage { volume, sub_path })
        }
    }
}

/// What all containers may write together: those that run at a time, each as much as its own limit; one without a limit adds
/// nothing. None when there is no limit. (Kubernetes: `resourcehelper.PodLimits`)
fn pod_ephemeral_bytes(plan: &PodPlan) -> Option<u64> {
    let limit = |container: &ContainerPlan| container.resources.ephemeral_limit_bytes;
    plan.containers.iter().find_map(limit)?;
    let (mut lasting, mut most) = (0u64, 0u64);
    for container in &plan.containers {
        let bytes = limit(container).unwrap_or(0);
        match container.role {
            // Beside the sidecars before it, and gone before the others begin.
            Role::Init => most = most.max(lasting.saturating_add(bytes)),
            Role::Sidecar | Role::Main => lasting = lasting.saturating_add(bytes),
        }
    }
    Some(lasting.max(most))
}

/// A directory that anyone may write to, whatever the umask. (Kubernetes: the emptyDir's `perm`, 0777.)
fn make_open(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)?;
    Ok(chmod(path, Mode::from_raw_mode(0o777))?)
}

/// The directory of a claim; the first pod that uses it makes it, open to whatever user its containers are. (local-path-provisioner,
/// which gives clusters of one machine their claims: 0777)
fn make_claim(claims: &Path, path: &Path) -> io::Result<()> {
    if let Some(namespace) = path.parent() {
        std::fs::create_dir_all(namespace)?;
        // Others reach the claims through their containers only.
        chmod(claims, Mode::from_raw_mode(0o700))?;
    }
    match make_open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

/// Size of a memory volume in bytes: its limit, the memory limit of the pod where all its containers have one, and
/// half of the machine's memory (the kernel's default), whichever is least. (Kubernetes: `calculateEmptyDirMemorySize`, which has
/// all of the node's memory in the last place; a machine that people work at should survive it.)
fn memory_bytes(plan: &PodPlan, limit: Option<u64>, ram: u64) -> u64 {
    let limits = |initial: bool| {
        plan.containers
            .iter()
            .filter(move |c| (c.role == Role::Init) == initial)
            .map(|c| c.resources.memory_limit_bytes)
    };
    let together: Option<u64> = limits(false).sum();
    let largest: Option<u64> = limits(true).try_fold(0, |most, limit| Some(limit?.max(most)));
    let pod = together.zip(largest).map(|(t, l)| t.max(l));
    let of_pod = plan.resources.memory_limit_bytes.or(pod);
    let candidates = [limit, of_pod, Some(ram / 2)];
    let least = candidates
        .into_iter()
        .flatten()
        .filter(|bytes| *bytes > 0)
        .min();
    least.unwrap_or(ram / 2)
}

fn ram_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

/// A tmpfs of a size in bytes; not swapped out where the kernel (6.4) and the privileges allow to ask for that, as the kubelet does.
fn mount_tmpfs(path: &Path, size: u64) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let options =
        |more: &str| CString::new(format!("size={size},mode=1777{more}")).map_err(io::Error::from);
    match mount(
        "tmpfs",
        path,
        "tmpfs",
        flags,
        Some(options(",noswap")?.as_c_str()),
    ) {
        Err(Errno::INVAL | Errno::PERM) => Ok(mount(
            "tmpfs",
            path,
            "tmpfs",
            flags,
            Some(options("")?.as_c_str()),
        )?),
        other => Ok(other?),
    }
}
