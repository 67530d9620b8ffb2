//! Walks over the files of a version.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::owner::{Mode, Owner};

/// Calls `visit` for everything below `root`, what a directory holds before itself, and last for `root`. Links are not followed.
fn walk(
    root: &Path,
    visit: &mut dyn FnMut(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    let meta = fs::symlink_metadata(root)?;
    if meta.is_dir() {
        for entry in fs::read_dir(root)? {
            walk(&entry?.path(), visit)?;
        }
    }
    visit(root, &meta)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", root.display())))
}

/// The files below `root`, by their paths from there.
pub(super) fn files(root: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    walk(root, &mut |path, meta| {
        if !meta.is_dir() {
            found.insert(path.strip_prefix(root).unwrap_or(path).to_owned());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Sets owner and mode.
pub(super) fn own(root: &Path, owner: Option<Owner>, mode: Option<Mode>) -> io::Result<()> {
    if owner.is_none() && mode.is_none() {
        return Ok(());
    }
    walk(root, &mut |path, meta| {
        if let Some(mode) = mode.filter(|_| !meta.is_symlink()) {
            let executable = meta.permissions().mode() & 0o100 != 0;
            let mode = mode.of(meta.is_dir(), executable);
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        if let Some(owner) = owner {
            lchown(path, Some(owner.uid), owner.gid)?;
        }
        Ok(())
    })
}

/// Files that are brought to the disk at the same time: the disk writes what several wait for together.
const SYNCS_AT_ONCE: usize = 8;
/// Below so many files threads are not worth their start.
const FEW_FILES: usize = 32;

/// Returns when everything below `root` is on the disk.
pub(super) fn sync(root: &Path) -> io::Result<()> {
    let mut paths = Vec::new();
    walk(root, &mut |path, meta| {
        if !meta.is_symlink() {
            paths.push(path.to_owned());
        }
        Ok(())
    })?;
    if paths.len() < FEW_FILES {
        return paths.iter().try_for_each(|path| sync_one(path));
    }
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            sync_one(path)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        // Where no more threads are allowed, those that there are do it.
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let threads: Vec<_> = (1..SYNCS_AT_ONCE).filter_map(start).collect();
        let own = work();
        let ends = threads.into_iter().map(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ends.fold(own, Result::and)
    })
}

fn sync_one(path: &Path) -> io::Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
