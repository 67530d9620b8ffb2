//! Joining cgroups, and what the container sees of them.
//!
//! A cgroup of version 2 is joined by being born in it (`CLONE_INTO_CGROUP`). Version 1 has only the move, which waits for an
//! RCU grace period, some milliseconds: so the stage moves the new process while that one mounts its file system.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstatfs};

use crate::sandbox::error::{Doing, Failed};

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const VERSION_2: u32 = 0x6367_7270;

/// Cgroups to join, opened while their paths still mean something.
pub(super) struct Cgroups {
    /// The directory of the one of version 2.
    birthplace: Option<OwnedFd>,
    procs: Vec<Procs>,
}

/// A `cgroup.procs` file.
struct Procs {
    path: PathBuf,
    file: File,
    version_2: bool,
}

/// Opens the `cgroup.procs` files.
pub(super) fn open(paths: &[PathBuf]) -> Result<Cgroups, Failed> {
    let mut cgroups = Cgroups {
        birthplace: None,
        procs: Vec::new(),
    };
    for path in paths {
        let step = || format!("open {}", path.display());
        let file = File::options().write(true).open(path).doing(step)?;
        let version_2 = fstatfs(&file).doing(step)?.f_type as u32 == VERSION_2;
        if let (true, Some(directory)) = (version_2, path.parent()) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            cgroups.birthplace =
                Some(rustix::fs::open(directory, flags, Mode::empty()).doing(step)?);
        }
        cgroups.procs.push(Procs {
            path: path.clone(),
            file,
            version_2,
        });
    }
    Ok(cgroups)
}

impl Cgroups {
    /// Where the process should be born.
    pub(super) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.birthplace.as_ref().map(AsFd::as_fd)
    }

    /// Moves a process into the cgroups that it was not `born` in.
    pub(super) fn take_in(&self, pid: i32, born: bool) -> Result<(), Failed> {
        for cgroup in self
            .procs
            .iter()
            .filter(|cgroup| !(born && cgroup.version_2))
        {
            (&cgroup.file)
                .write_all(pid.to_string().as_bytes())
                .doing(|| format!("join {}", cgroup.path.display()))?;
        }
        Ok(())
    }

    /// Moves this process into them. (cgroup.procs takes 0 for who writes, in both versions.)
    pub(super) fn enter(&self) -> Result<(), Failed> {
        self.take_in(0, false)
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        !self.procs.is_empty()
    }
}

/// The directories to be shown below `/sys/fs/cgroup`, with their places: the container's own cgroup at the place where the
/// host has the root of that hierarchy.
pub(super) fn views(paths: &[PathBuf]) -> Vec<(PathBuf, PathBuf)> {
    paths
        .iter()
        .filter_map(|path| view(path.parent()?))
        .collect()
}

fn view(directory: &Path) -> Option<(PathBuf, PathBuf)> {
    let hierarchy = directory.metadata().ok()?.dev();
    let top = directory
        .ancestors()
        .take_while(|ancestor| {
            ancestor
                .metadata()
                .is_ok_and(|metadata| metadata.dev() == hierarchy)
        })
        .last()?;
    top.starts_with("/sys/fs/cgroup")
        .then(|| (directory.to_owned(), top.to_owned()))
}
