//! Deletes a tree that a container may have filled with anything: links, mounts, a million files, a path ten thousand
//! directories deep, or all of that while it is being deleted.
//!
//! The standard library's `remove_dir_all` follows no links either, but it descends into mounts and holds one descriptor for
//! each level. Here the kernel refuses what lies beyond the tree (openat2(2), RESOLVE_NO_XDEV), and a directory that lies too
//! deep is first moved up to the top, so that a bounded number of descriptors does.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, open, openat2, renameat, unlinkat,
};
use rustix::io::Errno;

/// Directories that are open at a time.
const DEPTH_MAX: usize = 32;

/// Deletes `path` and what is below it; it is no error when it is not there. Follows no link, enters no mount. Goes on
/// after an error and returns the first.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // A file or a link: that is all there is.
        Err(Errno::NOTDIR) => return Ok(unlinkat(CWD, path, AtFlags::empty())?),
        Err(_) => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = open(path, flags, Mode::empty())?;
    let mut removal = Removal {
        top,
        moved: 0,
        first: None,
    };
    // What was moved up while the top was read may be behind the reader: until nothing is moved any more.
    loop {
        let before = removal.moved;
        let top = removal.top.try_clone()?;
        removal.empty(&top, 0);
        if removal.moved == before || removal.first.is_some() {
            break;
        }
    }
    if let Some(error) = removal.first {
        return Err(error);
    }
    Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

struct Removal {
    top: OwnedFd,
    /// Directories that were moved to the top so far.
    moved: u64,
    first: Option<io::Error>,
}

impl Removal {
    /// Deletes what is in a directory.
    fn empty(&mut self, dir: &OwnedFd, depth: usize) {
        let entries = match Dir::read_from(dir) {
            Ok(entries) => entries,
            Err(error) => return self.note(error),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.note(error),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let directory = match entry.file_type() {
                FileType::Directory => true,
                // Some file systems don't tell.
                FileType::Unknown => unlinkat(dir, name, AtFlags::empty()).is_err(),
                _ => {
                    self.check(unlinkat(dir, name, AtFlags::empty()));
                    false
                }
            };
            if !directory {
                continue;
            }
            match unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                other => {
                    self.check(other);
                    continue;
                }
            }
            if depth >= DEPTH_MAX {
                self.move_up(dir, name);
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            match openat2(dir, name, flags, Mode::empty(), inside) {
                Ok(below) => {
                    self.empty(&below, depth + 1);
                    self.check(unlinkat(dir, name, AtFlags::REMOVEDIR));
                }
                Err(error) => self.note(error),
            }
        }
    }

    fn move_up(&mut self, dir: &OwnedFd, name: &std::ffi::CStr) {
        loop {
            self.moved += 1;
            let to = CString::new(format!("..podkit-removal.{}", self.moved)).unwrap_or_default();
            match renameat(dir, name, &self.top, &to) {
                // Someone has such a name: an empty directory would have been replaced, which is as well.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                other => return self.check(other),
            }
        }
    }

    fn check(&mut self, done: Result<(), Errno>) {
        match done {
            // Gone by itself is as good.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => self.note(error),
        }
    }

    fn note(&mut self, error: Errno) {
        self.first.get_or_insert_with(|| error.into());
    }
}
