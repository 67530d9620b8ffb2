//! A commit's tree, written into an empty directory.
//!
//! Nothing is ever written through a link, over what is there, or outside of the directory: every file is made anew, and
//! names are checked, since trees come from others.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use gix_hash::{Kind, ObjectId};
use gix_object::tree::EntryKind;
use gix_object::{CommitRefIter, Kind as ObjectKind, TreeRefIter};

use super::pack::{self, Objects};
use super::sparse::Sparse;

/// Directories in directories at most.
const DEPTH_MAX: usize = 250;
/// A file is written in pieces of so many bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Why a tree can't be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The store is at fault.
    #[error("{0}")]
    Store(String),
    /// The tree is.
    #[error("{0}")]
    Tree(String),
    /// The disk is.
    #[error("{}: {error}", path.display())]
    Disk {
        /// What was to be written.
        path: PathBuf,
        /// Why it wasn't.
        error: io::Error,
    },
}

impl Trouble {
    /// Of an object that was to go there.
    pub(super) fn of(path: &Path, error: io::Error) -> Self {
        match pack::is_bad(&error) {
            true => Self::Store(error.to_string()),
            false => Self::Disk {
                path: path.to_owned(),
                error,
            },
        }
    }
}

/// A submodule that a tree names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gitlink {
    /// Where it goes, from the top.
    pub(super) path: String,
    /// Its commit.
    pub(super) commit: ObjectId,
}

/// The tree of a commit.
pub(super) fn tree_of(objects: &Objects, commit: ObjectId) -> io::Result<ObjectId> {
    let mut buffer = Vec::new();
    objects.read(&commit, ObjectKind::Commit, &mut buffer)?;
    CommitRefIter::from_bytes(&buffer, Kind::Sha1)
        .tree_id()
        .map_err(|error| {
            let why = format!("commit {commit}: {error}");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
}

/// Writes a tree. Returns the submodules, whose directories are there and empty.
pub(super) fn write(
    objects: &Objects,
    tree: ObjectId,
    into: &Path,
    sparse: Option<&Sparse>,
) -> Result<Vec<Gitlink>, Trouble> {
    let mut writer = Writer {
        objects,
        sparse,
        blob: Vec::new(),
        links: Vec::new(),
    };
    writer.directory(tree, into, "", 0)?;
    Ok(writer.links)
}

struct Writer<'a> {
    objects: &'a Objects,
    sparse: Option<&'a Sparse>,
    /// Where a link leads.
    blob: Vec<u8>,
    links: Vec<Gitlink>,
}

impl Writer<'_> {
    /// Writes what is in a tree; `below` is its path from the top, with a `/` at the end.
    fn directory(
        &mut self,
        tree: ObjectId,
        into: &Path,
        below: &str,
        depth: usize,
    ) -> Result<(), Trouble> {
        if depth > DEPTH_MAX {
            return Err(Trouble::Tree(format!(
                "{below}: more than {DEPTH_MAX} directories in each other"
            )));
        }
        let mut bytes = Vec::new();
        let read = self.objects.read(&tree, ObjectKind::Tree, &mut bytes);
        read.map_err(|error| Trouble::of(into, error))?;
        for entry in TreeRefIter::from_bytes(&bytes, Kind::Sha1) {
            let entry = entry.map_err(|error| Trouble::Store(format!("tree {tree}: {error}")))?;
            let name: &[u8] = entry.filename;
            let name = std::str::from_utf8(name)
                .ok()
                .filter(|name| is_fine(name))
                .ok_or_else(|| {
                    Trouble::Tree(format!("{below}{:?} is no name for a file", entry.filename))
                })?;
            let path = format!("{below}{name}");
            let to = into.join(name);
            let kind = entry.mode.kind();
            if kind == EntryKind::Tree {
                if self.sparse.is_some_and(|sparse| !sparse.may_hold(&path)) {
                    continue;
                }
                make(&to)?;
                self.directory(entry.oid.to_owned(), &to, &format!("{path}/"), depth + 1)?;
                // With --sparse a directory is there for what is in it.
                if self.sparse.is_some() {
                    drop(fs::remove_dir(&to));
                }
                continue;
            }
            if self.sparse.is_some_and(|sparse| !sparse.takes(&path)) {
                continue;
            }
            match kind {
                EntryKind::Blob | EntryKind::BlobExecutable => {
                    let mode = if kind == EntryKind::Blob {
                        0o644
                    } else {
                        0o755
                    };
                    let file = fs::OpenOptions::new()
                        .write(true)
                        .create_new(true)
                        .mode(mode)
                        .open(&to)
                        .map_err(|error| Trouble::Disk {
                            path: to.clone(),
                            error,
                        })?;
                    let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
                    self.objects
                        .pass(entry.oid, ObjectKind::Blob, &mut file)
                        .and_then(|()| file.flush())
                        .map_err(|error| Trouble::of(&to, error))?;
                }
                EntryKind::Link => {
                    let read = self
                        .objects
                        .read(entry.oid, ObjectKind::Blob, &mut self.blob);
                    read.map_err(|error| Trouble::of(&to, error))?;
                    let target = std::str::from_utf8(&self.blob)
                        .map_err(|_| Trouble::Tree(format!("{path} links to what is no UTF-8")))?;
                    symlink(target, &to).map_err(|error| Trouble::Disk { path: to, error })?;
                }
                EntryKind::Commit => {
                    make(&to)?;
                    self.links.push(Gitlink {
                        path,
                        commit: entry.oid.to_owned(),
                    });
                }
                EntryKind::Tree => {}
            }
        }
        Ok(())
    }
}

fn make(directory: &Path) -> Result<(), Trouble> {
    fs::create_dir(directory).map_err(|error| Trouble::Disk {
        path: directory.to_owned(),
        error,
    })
}

/// A name in a tree that git itself would write.
fn is_fine(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && !name.contains(['/', '\0'])
        && !name.eq_ignore_ascii_case(".git")
}
