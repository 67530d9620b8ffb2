//! Files that change in one step, laid out as the kubelet's `AtomicWriter` does (Kubernetes: pkg/volume/util/atomic_writer.go):
//!
//! ```text
//!   ..2026_07_01_12_00_00.123456789/  a/b  c     the files
//!   ..data → ..2026_07_01_12_00_00.123456789     swapped by rename: the one step
//!   a → ..data/a   c → ..data/c          what applications open
//! ```
//!
//! Programs that watch for updates look for `..data`, which is why the layout is kept to the letter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ownership::Ownership;
use crate::plan::FilePlan;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";
/// Names that are tried before giving up.
const TRIES_MAX: u32 = 100;

/// Publishes `files` in `dir`; false when they are there already, to the byte and mode. On an error the old files stay
/// in force and what was written of the new ones is removed.
pub(super) fn publish(
    dir: &Path,
    files: &BTreeMap<String, FilePlan>,
    ownership: Option<Ownership>,
) -> io::Result<bool> {
    for path in files.keys() {
        check_relative(path)?;
    }
    let old = match fs::read_link(dir.join(DATA)) {
        // Never anything but a version of ours: what it names is removed.
        Ok(old) => Some(old).filter(|old| is_version(old)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(old) = &old
        && same(&dir.join(old), files, ownership)?
    {
        return Ok(false);
    }
    let new = make_dated(dir, SystemTime::now())?;
    let swapped = write_all(&dir.join(&new), files)
        .and_then(|()| ownership.map_or(Ok(()), |ownership| ownership.give(&dir.join(&new))))
        .and_then(|()| swap(dir, &new));
    if let Err(error) = swapped {
        if let Err(leftover) = fs::remove_dir_all(dir.join(&new)) {
            tracing::warn!(path = %dir.display(), error = %leftover, "half a version stays");
        }
        return Err(error);
    }
    link_visible(dir, files)?;
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

/// Whether it is the name of a version, right in the volume.
fn is_version(link: &Path) -> bool {
    let name = link.as_os_str().as_encoded_bytes();
    name.starts_with(b"..") && name.get(2).is_some_and(u8::is_ascii_digit) && !name.contains(&b'/')
}

/// The plan's builder has checked it; a path that leads out must not depend on that.
fn check_relative(path: &str) -> io::Result<()> {
    let mut parts = Path::new(path).components();
    let normal = !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)));
    // `..data` and its like are the layout's own.
    if normal && !path.starts_with("..") {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{path:?} is no path of a file inside the volume"),
    ))
}

fn same(
    present: &Path,
    files: &BTreeMap<String, FilePlan>,
    ownership: Option<Ownership>,
) -> io::Result<bool> {
    let mut found = BTreeSet::new();
    collect(present, present, &mut found)?;
    if found.len() != files.len() {
        return Ok(false);
    }
    for (path, file) in files {
        let at = present.join(path);
        let mode = ownership.map_or(file.mode, |ownership| ownership.mode(file.mode, false));
        if !found.contains(Path::new(path))
            || fs::metadata(&at)?.permissions().mode() & 0o7777 != mode
            || fs::read(&at)? != file.bytes
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The files below `dir`, relative to `root`.
fn collect(root: &Path, dir: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(root, &path, found)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.insert(relative.to_path_buf());
        }
    }
    Ok(())
}

/// Makes `..YYYY_MM_DD_hh_mm_ss.N` (UTC) and returns its name. N is the moment's nanoseconds: a name must not come back,
/// or who has resolved `..data` to it reads files of two versions.
fn make_dated(dir: &Path, now: SystemTime) -> io::Result<String> {
    let (date, moment) = match now.duration_since(UNIX_EPOCH) {
        Ok(since) => (humantime::format_rfc3339_seconds(now).to_string(), since),
        Err(_) => (
            humantime::format_rfc3339_seconds(UNIX_EPOCH).to_string(),
            Duration::ZERO,
        ),
    };
    let date = date.trim_end_matches('Z').replace(['-', 'T', ':'], "_");
    for again in 0..TRIES_MAX {
        let name = format!("..{date}.{:09}", moment.subsec_nanos() + again);
        let at = dir.join(&name);
        match fs::DirBuilder::new().mode(0o755).create(&at) {
            Ok(()) => {
                fs::set_permissions(&at, fs::Permissions::from_mode(0o755))?;
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

fn write_all(into: &Path, files: &BTreeMap<String, FilePlan>) -> io::Result<()> {
    for (path, file) in files {
        let at = into.join(path);
        if let Some(parent) = at.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)?;
        }
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&at)?;
        out.write_all(&file.bytes)?;
        // Whatever the umask, and only now: a mode without write for the owner would bind us too.
        out.set_permissions(fs::Permissions::from_mode(file.mode & 0o7777))?;
    }
    Ok(())
}

fn swap(dir: &Path, new: &str) -> io::Result<()> {
    let next = dir.join(DATA_NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(new, &next)?;
    fs::rename(&next, dir.join(DATA))
}

/// Links the first part of every path to its place behind `..data`, and removes the links of those that are gone.
fn link_visible(dir: &Path, files: &BTreeMap<String, FilePlan>) -> io::Result<()> {
    let visible: BTreeSet<&str> = files
        .keys()
        .map(|path| path.split('/').next().unwrap_or(path))
        .collect();
    for name in &visible {
        match symlink(Path::new(DATA).join(name), dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !visible.contains(&*name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
