//! How much disk the emptyDir volumes with a `sizeLimit` use, found out a few entries at a time.
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

/// A volume that uses more than its `sizeLimit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverLimit {
    /// The volume.
    pub volume: String,
    /// What it was seen to use, in bytes; the walk ends where the limit is passed.
    pub used_bytes: u64,
    /// Its limit in bytes.
    pub limit_bytes: u64,
}

impl std::fmt::Display for OverLimit {
    /// The kubelet's words.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Usage of EmptyDir volume {:?} exceeds the limit {:?}.",
            self.volume,
            quantity(self.limit_bytes)
        )
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

/// The walk over all watched volumes, one after the other, for ever.
#[derive(Debug, Default)]
pub(super) struct Scan {
    watched: Vec<Watched>,
    /// Which is being walked.
    current: usize,
    walk: Option<Walk>,
}

#[derive(Debug)]
struct Watched {
    volume: String,
    path: PathBuf,
    limit: u64,
}

#[derive(Debug)]
struct Walk {
    used: u64,
    linked: HashSet<(u64, u64)>,
    /// Relative to the volume.
    pending: Vec<PathBuf>,
    /// The directory that is being read.
    reading: Option<(Dir, PathBuf)>,
}

impl Scan {
    pub(super) fn watch(&mut self, volume: &str, path: &Path, limit: u64) {
        self.watched.push(Watched {
            volume: volume.to_string(),
            path: path.to_path_buf(),
            limit,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Looks at up to `entries` entries; at most one full round over the volumes.
    pub(super) fn step(&mut self, mut entries: usize) -> Option<OverLimit> {
        let mut finished = 0;
        while entries > 0 && finished < self.watched.len() {
            let watched = &self.watched[self.current];
            let walk = self.walk.get_or_insert_with(Walk::start);
            let done = walk.go_on(&watched.path, &mut entries, watched.limit);
            if walk.used > watched.limit {
                let over = OverLimit {
                    volume: watched.volume.clone(),
                    used_bytes: walk.used,
                    limit_bytes: watched.limit,
                };
                self.next();
                return Some(over);
            }
            if done {
                self.next();
                finished += 1;
            }
        }
        None
    }

    fn next(&mut self) {
        self.walk = None;
        self.current = (self.current + 1) % self.watched.len();
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
    fn go_on(&mut self, volume: &Path, entries: &mut usize, limit: u64) -> bool {
        while *entries > 0 && self.used <= limit {
            let Some((dir, at)) = &mut self.reading else {
                let Some(next) = self.pending.pop() else {
                    return true;
                };
                *entries -= 1;
                self.reading = enter(volume, &next).map(|dir| (dir, next));
                continue;
            };
            *entries -= 1;
            let Some(Ok(entry)) = dir.read() else {
                self.reading = None;
                continue;
            };
            let name = entry.file_name();
            if name == c".." || (name == c"." && at != Path::new(".")) {
                // A directory is counted where its name is, the volume's own where it is read.
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

/// Opens a directory of the volume, by no link and not beyond a mount.
fn enter(volume: &Path, relative: &Path) -> Option<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(volume, flags, Mode::empty()).ok()?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let dir = openat2(&root, relative, flags, Mode::empty(), inside).ok()?;
    Dir::new(dir).ok()
}
