//! A directory or a file of this container: a volume, most of the time. Links are followed, names that begin with ".." are left
//! out (the kubelet keeps its versions there).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podkit_dataplane::watch::{Interest, Watch, places, read_file};

use super::Reading;
use crate::config::set::{File, Limits, Set};

/// Nothing must happen for this long before the files are read: a set comes in one rename, or in writes close together.
const QUIET: Duration = Duration::from_millis(10);
/// Directories in directories, at most: a link may lead in a circle.
const DEPTH: usize = 16;

pub(in crate::config) struct FileSource {
    path: PathBuf,
    limits: Limits,
    watch: Watch,
}

impl FileSource {
    pub(super) fn new(path: &Path, reading: &Reading) -> Self {
        Self {
            path: path.to_owned(),
            limits: reading.limits,
            watch: Watch::new().with_quiet(QUIET),
        }
    }

    pub(super) fn fetch(&mut self) -> Result<Set, String> {
        // Places first, then files: what changes in between wakes the watch.
        let mut before = self.places();
        for _ in 0..3 {
            self.watch.follow(&before);
            let set = read(&self.path, self.limits);
            let after = self.places();
            if after == before {
                return set;
            }
            before = after;
        }
        self.watch.follow(&before);
        Err(format!("{} changes while it is read", self.path.display()))
    }

    pub(super) async fn changed(&mut self) {
        self.watch.changed().await;
    }

    /// All directories that count.
    fn places(&self) -> BTreeMap<PathBuf, Interest> {
        let mut found = places(std::slice::from_ref(&self.path));
        below(&self.path, 0, &mut |dir| {
            found.extend(places(&[dir.to_owned()]));
        });
        found
    }
}

fn below(dir: &Path, depth: usize, found: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if counts(&entry.file_name()) && depth < DEPTH && path.is_dir() {
            found(&path);
            below(&path, depth + 1, found);
        }
    }
}

fn counts(name: &std::ffi::OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b"..")
}

fn read(path: &Path, limits: Limits) -> Result<Set, String> {
    let mut set = Set::default();
    let meta = fs::metadata(path)
        .map_err(|error| format!("{} can't be read ({error})", path.display()))?;
    if meta.is_dir() {
        read_dir(path, "", 0, limits, &mut set)?;
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        take(path, &name, limits, &mut set)?;
    }
    Ok(set)
}

fn read_dir(
    dir: &Path,
    prefix: &str,
    depth: usize,
    limits: Limits,
    set: &mut Set,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} can't be read ({error})", dir.display());
    if depth > DEPTH {
        return Err(format!(
            "{} is more than {DEPTH} directories deep",
            dir.display()
        ));
    }
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, path) = (entry.file_name(), entry.path());
        if !counts(&name) {
            continue;
        }
        let Some(name) = name.to_str() else {
            return Err(format!("{} has a name that is not UTF-8", path.display()));
        };
        match path.is_dir() {
            true => read_dir(&path, &format!("{prefix}{name}/"), depth + 1, limits, set)?,
            false => take(&path, &format!("{prefix}{name}"), limits, set)?,
        }
    }
    Ok(())
}

fn take(path: &Path, name: &str, limits: Limits, set: &mut Set) -> Result<(), String> {
    let line = |why: String| format!("{} {why}", path.display());
    let bytes = read_file(path, limits.bytes).map_err(line)?;
    let meta = fs::metadata(path).map_err(|error| line(format!("can't be read ({error})")))?;
    let mode = meta.permissions().mode() & 0o777 | 0o600;
    set.add(name, File { bytes, mode }, limits).map_err(line)
}
