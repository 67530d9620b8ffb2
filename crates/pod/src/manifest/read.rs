//! Directories to the files that are meant.

use std::path::{Path, PathBuf};

pub(super) use podkit_foundation::yaml::read::{explain, file, text};

/// The endings of manifests, as `kubectl apply -f DIRECTORY` takes them.
const MANIFESTS: [&str; 3] = ["yaml", "yml", "json"];
/// A directory with more is hardly one of manifests.
const MAX_FILES: usize = 10_000;

/// The files that are meant: a directory stands for the manifests right in it, in the order of their names, as for kubectl.
/// The error is one line without the name.
pub(super) fn expand(given: &Path) -> Result<Vec<PathBuf>, String> {
    if given == Path::new("-") || !given.is_dir() {
        return Ok(vec![given.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(given).map_err(|error| explain(&error))? {
        let path = entry.map_err(|error| explain(&error))?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| MANIFESTS.contains(&ending)) && !path.is_dir() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(format!("more than {MAX_FILES} manifests in this directory"));
        }
    }
    if files.is_empty() {
        return Err("no .yaml, .yml or .json file in this directory".into());
    }
    files.sort();
    Ok(files)
}
