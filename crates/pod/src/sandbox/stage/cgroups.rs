//! Joining cgroups, and what the container sees of them.
//!
//! Writing a process to `cgroup.procs` waits for an RCU grace period, some milliseconds in which nobody on the machine can fork. So
//! nothing is moved that way where there is another: a cgroup of version 2 is joined by being born in it (`CLONE_INTO_CGROUP`), one of
//! version 1 by a thread that moves itself, which `tasks` does without the wait; who does that here has one thread.

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
    version_2: Option<Version2>,
    /// `tasks` files of version 1.
    tasks: Vec<(PathBuf, File)>,
}

struct Version2 {
    path: PathBuf,
    directory: OwnedFd,
    procs: File,
}

/// Opens the cgroups whose `cgroup.procs` files these are.
pub(super) fn open(paths: &[PathBuf]) -> Result<Cgroups, Failed> {
    let mut cgroups = Cgroups {
        version_2: None,
        tasks: Vec::new(),
    };
    for path in paths {
        let step = || format!("open {}", path.display());
        let open = |path: &Path| File::options().write(true).open(path);
        let procs = open(path).doing(step)?;
        if fstatfs(&procs).doing(step)?.f_type as u32 != VERSION_2 {
            let tasks = path.with_file_name("tasks");
            let file = open(&tasks).doing(|| format!("open {}", tasks.display()))?;
            cgroups.tasks.push((tasks, file));
            continue;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = path.parent().unwrap_or(Path::new("/"));
        cgroups.version_2 = Some(Version2 {
            path: path.clone(),
            directory: rustix::fs::open(directory, flags, Mode::empty()).doing(step)?,
            procs,
        });
    }
    Ok(cgroups)
}

impl Cgroups {
    /// Where a process must be born to be in the cgroup of version 2.
    pub(super) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.version_2.as_ref().map(|it| it.directory.as_fd())
    }

    /// Moves this process, which must have one thread, into those of version 1.
    pub(super) fn enter_version_1(&self) -> Result<(), Failed> {
        for (path, file) in &self.tasks {
            enter(path, file)?;
        }
        Ok(())
    }

    /// Moves this process into that of version 2, where one can't be born there (Linux before 5.7, a filter around us).
    pub(super) fn enter_version_2(&self) -> Result<(), Failed> {
        self.version_2
            .as_ref()
            .map_or(Ok(()), |it| enter(&it.path, &it.procs))
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        self.version_2.is_some() || !self.tasks.is_empty()
    }
}

/// 0 is who writes, in both versions.
fn enter(path: &Path, mut file: &File) -> Result<(), Failed> {
    file.write_all(b"0")
        .doing(|| format!("join {}", path.display()))
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
