//! How much disk a pod uses where it is limited: emptyDir volumes with a `sizeLimit`, and with `ephemeral-storage` what containers
//! write to their root file systems and logs. Found out a few entries at a time.
//!
//! It counts as du(1) does: blocks, a file with several names once. The kubelet's way (walk everything every ten seconds)
//! lets a volume of a million small files keep it busy; here a walk is cut into steps, and the bounds that a step and a walk
//! have only ever lead to counting less, never to an eviction that is not deserved. (Rejected: file system quotas, which need
//! a file system that has them; a watch, which says nothing about sizes.)

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, open, openat2, statat};

/// Directories that wait for their turn; more are not counted.
const PENDING_MAX: usize = 65_536;
/// Files with several names that are told apart; more are not counted.
const LINKED_MAX: usize = 65_536;
/// Unit of `st_blocks`, whatever the file system's own block is. (stat(2))
const BLOCK_BYTES: u64 = 512;

/// Something that uses more than it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverLimit {
    /// What.
    pub what: Limited,
    /// What it was seen to use, in bytes: no less than that.
    pub used_bytes: u64,
    /// Its limit in bytes.
    pub limit_bytes: u64,
}

/// Whose use is limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limited {
    /// An emptyDir, by its `sizeLimit`.
    Volume(String),
    /// What a container writes to its root file system and its log, by its `limits.ephemeral-storage`.
    Container(String),
    /// Those of all containers and the emptyDirs on disk, by the sum of those limits.
    Pod,
}

impl std::fmt::Display for OverLimit {
    /// The kubelet's words.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limit = quantity(self.limit_bytes);
        match &self.what {
            Limited::Volume(name) => write!(
                f,
                "Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}."
            ),
            Limited::Container(name) => write!(
                f,
                "Container {name} exceeded its local ephemeral storage limit {limit:?}."
            ),
            Limited::Pod => write!(
                f,
                "Pod ephemeral local storage usage exceeds the total limit of containers {limit}."
            ),
        }
    }
}

/// Bytes as Kubernetes writes a quantity: the largest binary unit that leaves a whole number.
fn quantity(bytes: u64) -> String {
    let mut left = bytes;
    let mut unit = "";
    for next in ["Ki", "Mi", "Gi", "Ti"] {
        if left == 0 || !left.is_multiple_of(1024) {
            break;
        }
        left /= 1024;
        unit = next;
    }
    format!("{left}{unit}")
}

/// The walk over all watched directories, one after the other, for ever.
#[derive(Debug, Default)]
pub(super) struct Scan {
    trees: Vec<Tree>,
    limits: Vec<Limit>,
    /// Which is being walked.
    current: usize,
    walk: Option<Walk>,
}

/// A directory whose size matters.
#[derive(Debug)]
struct Tree {
    path: PathBuf,
    /// By the last whole walk, in bytes.
    used: u64,
}

#[derive(Debug)]
struct Limit {
    what: Limited,
    /// What counts together.
    trees: Vec<usize>,
    bytes: u64,
}

#[derive(Debug)]
struct Walk {
    used: u64,
    linked: HashSet<(u64, u64)>,
    /// Relative to the root.
    pending: Vec<PathBuf>,
    /// The directory that is being read.
    reading: Option<(Dir, PathBuf)>,
}

impl Scan {
    /// What is in these directories together may not be more than so many bytes. One that is not there is empty.
    pub(super) fn watch(&mut self, what: Limited, paths: &[PathBuf], bytes: u64) {
        let trees = paths.iter().map(|path| self.tree(path)).collect();
        self.limits.push(Limit { what, trees, bytes });
    }

    fn tree(&mut self, path: &Path) -> usize {
        if let Some(known) = self.trees.iter().position(|tree| tree.path == path) {
            return known;
        }
        self.trees.push(Tree {
            path: path.to_path_buf(),
            used: 0,
        });
        self.trees.len() - 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// Looks at up to `entries` entries; at most one full round over the directories.
    pub(super) fn step(&mut self, mut entries: usize) -> Option<OverLimit> {
        let mut finished = 0;
        while entries > 0 && finished < self.trees.len() {
            let most = self.headroom();
            let tree = &mut self.trees[self.current];
            let walk = self.walk.get_or_insert_with(Walk::start);
            let done = walk.go_on(&tree.path, &mut entries, most);
            // Of a walk that is not at its end only what it has seen more than the last.
            let seen = walk.used;
            tree.used = if done { seen } else { tree.used.max(seen) };
            let over = self.over();
            if done || over.is_some() {
                self.walk = None;
                self.current = (self.current + 1) % self.trees.len();
                finished += 1;
            }
            if over.is_some() {
                return over;
            }
        }
        None
    }

    /// How much the directory that is being walked may have before some limit is passed.
    fn headroom(&self) -> u64 {
        let left = |limit: &Limit| limit.bytes.saturating_sub(self.others(limit));
        let of_it = |limit: &&Limit| limit.trees.contains(&self.current);
        let most = self.limits.iter().filter(of_it).map(left).min();
        most.unwrap_or(u64::MAX)
    }

    /// What the other directories of a limit use.
    fn others(&self, limit: &Limit) -> u64 {
        let others = limit.trees.iter().filter(|tree| **tree != self.current);
        others.map(|tree| self.trees[*tree].used).sum()
    }

    /// The first limit that is passed, in the order in which they were given.
    fn over(&self) -> Option<OverLimit> {
        self.limits.iter().find_map(|limit| {
            let used_bytes = limit.trees.iter().map(|tree| self.trees[*tree].used).sum();
            (used_bytes > limit.bytes).then(|| OverLimit {
                what: limit.what.clone(),
                used_bytes,
                limit_bytes: limit.bytes,
            })
        })
    }
}

impl Walk {
    fn start() -> Self {
        Self {
            used: 0,
            linked: HashSet::new(),
            pending: vec![PathBuf::from(".")],
            reading: None,
        }
    }

    /// True when everything has been seen. What vanishes meanwhile, or can't be read, is left out.
    fn go_on(&mut self, root: &Path, entries: &mut usize, limit: u64) -> bool {
        while *entries > 0 && self.used <= limit {
            let Some((dir, at)) = &mut self.reading else {
                let Some(next) = self.pending.pop() else {
                    return true;
                };
                *entries -= 1;
                self.reading = enter(root, &next).map(|dir| (dir, next));
                continue;
            };
            *entries -= 1;
            let Some(Ok(entry)) = dir.read() else {
                self.reading = None;
                continue;
            };
            let name = entry.file_name();
            if name == c".." || (name == c"." && at != Path::new(".")) {
                // A directory is counted where its name is, the root where it is read.
                continue;
            }
            let Ok(fd) = dir.fd() else { continue };
            let Ok(stat) = statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if !directory && stat.st_nlink > 1 {
                let full = self.linked.len() >= LINKED_MAX;
                if full || !self.linked.insert((stat.st_dev, stat.st_ino)) {
                    continue;
                }
            }
            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
            self.used = self.used.saturating_add(blocks * BLOCK_BYTES);
            if directory && name != c"." && self.pending.len() < PENDING_MAX {
                self.pending
                    .push(at.join(OsStr::from_bytes(name.to_bytes())));
            }
        }
        false
    }
}

/// Opens a directory below the root, by no link and not beyond a mount.
fn enter(root: &Path, relative: &Path) -> Option<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(root, flags, Mode::empty()).ok()?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let dir = openat2(&root, relative, flags, Mode::empty(), inside).ok()?;
    Dir::new(dir).ok()
}
