//! Joining cgroups, and what the container sees of them.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sandbox::error::{Doing, Failed};

/// A `cgroup.procs` file, opened while its path still means something.
pub(super) struct Procs {
    path: PathBuf,
    file: File,
}

/// Opens the `cgroup.procs` files.
pub(super) fn open(paths: &[PathBuf]) -> Result<Vec<Procs>, Failed> {
    paths
        .iter()
        .map(|path| {
            let file = File::options()
                .write(true)
                .open(path)
                .doing(|| format!("open {}", path.display()))?;
            Ok(Procs {
                path: path.clone(),
                file,
            })
        })
        .collect()
}

/// Moves this process into the cgroups: `0` means the writer. As late as possible, so that the container's limits are not
/// spent on its start.
pub(super) fn join(cgroups: &[Procs]) -> Result<(), Failed> {
    for cgroup in cgroups {
        (&cgroup.file)
            .write_all(b"0")
            .doing(|| format!("join {}", cgroup.path.display()))?;
    }
    Ok(())
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
