//! A layer as a directory that overlayfs can stack: files with their owners, modes, times and attributes, and the marks of
//! what the layer removes. (OCI image-spec, layer.md; Linux, overlayfs.rst)
//!
//! Device nodes are made, as containerd makes them: a container can't use one, because its root and its volumes are mounted
//! `nodev`; and on this machine the store's directory keeps everybody but its owner out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, open, openat,
    statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::archive::{Entry, Kind};
use super::place::{self, Missing};

/// A file's bytes are written in pieces of this size.
const PIECE: usize = 64 * 1024;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Whose the unpacked files are, and how overlayfs' marks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) struct Owners {
    /// Owners are those of the archive; otherwise as far as it is permitted, which inside a user namespace is its range.
    pub(in crate::image) exact: bool,
    /// Marks are `user.overlay.…`.
    pub(in crate::image) user_xattrs: bool,
    /// Everything is this process's own and without capabilities: what the owner must be able to read stays readable.
    pub(in crate::image) keep_readable: bool,
}

impl Owners {
    /// What this process may do.
    pub(in crate::image) fn of_this_process() -> Self {
        let machine = crate::image::owns_machine();
        Self {
            exact: machine,
            user_xattrs: !machine,
            keep_readable: !rustix::process::geteuid().is_root(),
        }
    }
}

/// A layer that is being unpacked.
pub(in crate::image) struct Tree {
    pub(super) root: OwnedFd,
    pub(super) owners: Owners,
    /// What directories get at the end, because making something in them changes it.
    late: BTreeMap<PathBuf, Late>,
    /// Directories that the layer has something in but does not name.
    pub(super) implied: BTreeSet<PathBuf>,
    /// Hard links whose target is of a layer below.
    pub(super) links: Vec<Link>,
    /// The directory that was used last.
    last: Option<(PathBuf, OwnedFd)>,
}

#[derive(Clone, Copy)]
struct Late {
    mode: u32,
    mtime: (i64, u32),
}

/// A hard link that could not be made yet.
pub(super) struct Link {
    pub(super) path: PathBuf,
    pub(super) target: PathBuf,
}

impl Tree {
    /// In a new directory.
    pub(super) fn create(path: &Path, owners: Owners) -> io::Result<Self> {
        mkdirat(CWD, path, Mode::from_raw_mode(0o700))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self {
            root: open(path, flags, Mode::empty())?,
            owners,
            late: BTreeMap::new(),
            implied: BTreeSet::from([PathBuf::new()]),
            links: Vec::new(),
            last: None,
        })
    }

    /// Adds an entry; a file's bytes come from `bytes`.
    pub(super) fn add(&mut self, entry: &Entry, bytes: &mut impl Read) -> io::Result<()> {
        let path = place::clean(&entry.path)?;
        if path.as_os_str().is_empty() {
            return match entry.kind {
                Kind::Directory => {
                    let root = self.root.try_clone()?;
                    self.settle_directory(&root, path, entry)
                }
                _ => place::split(&path).map(drop),
            };
        }
        let (parent, name) = place::split(&path)?;
        let directory = self.directory(parent)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(&directory, parent, name.as_bytes(), hidden);
        }
        let replaced = self.make_room(&directory, name, &path, entry)?;
        match &entry.kind {
            Kind::Directory => {
                if replaced != Replaced::Directory {
                    mkdirat(&directory, name, Mode::from_raw_mode(0o700))?;
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(&directory, name, flags, Mode::empty())?;
                if replaced == Replaced::Whiteout {
                    self.set_opaque(&made)?;
                }
                return self.settle_directory(&made, path, entry);
            }
            Kind::File { size, pieces } => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = openat(&directory, name, flags, Mode::from_raw_mode(0o600))?;
                let file = File::from(file);
                write_file(&file, *size, pieces.as_deref(), bytes)?;
                return self.settle(&file.into(), entry);
            }
            Kind::Hardlink(target) => {
                let target = place::clean(target)?;
                match self.link(&target, &directory, name) {
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                        self.links.push(Link { path, target });
                    }
                    linked => return linked,
                }
                return Ok(());
            }
            Kind::Symlink(target) => {
                let target = CString::new(target.as_slice())?;
                symlinkat(&target, &directory, name)?;
            }
            Kind::Fifo => self.make_node(&directory, name, FileType::Fifo, 0)?,
            Kind::Character(major, minor) => {
                let device = makedev(*major, *minor);
                self.make_node(&directory, name, FileType::CharacterDevice, device)?;
            }
            Kind::Block(major, minor) => {
                let device = makedev(*major, *minor);
                self.make_node(&directory, name, FileType::BlockDevice, device)?;
            }
        }
        self.settle_node(&directory, name, entry)
    }

    /// Opens a directory of the layer, made where it is missing.
    pub(super) fn directory(&mut self, path: &Path) -> io::Result<OwnedFd> {
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return directory.try_clone();
        }
        let root = self.root.try_clone()?;
        let directory = place::parent(&root, path, self)?;
        self.last = Some((path.to_owned(), directory.try_clone()?));
        Ok(directory)
    }

    /// Takes away what has the name already: a later entry replaces an earlier one, but two directories become one.
    fn make_room(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        entry: &Entry,
    ) -> io::Result<Replaced> {
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Replaced::Nothing),
            stat => stat?,
        };
        match (FileType::from_raw_mode(stat.st_mode), &entry.kind) {
            (FileType::Directory, Kind::Directory) => return Ok(Replaced::Directory),
            (FileType::Directory, _) => {
                let here = format!("/proc/self/fd/{}", directory.as_raw_fd());
                crate::volume::remove_tree(&Path::new(&here).join(name))?;
                self.forget(path);
            }
            (FileType::Symlink, _) => {
                unlinkat(directory, name, AtFlags::empty())?;
                // Paths may have led through it.
                self.last = None;
            }
            (FileType::CharacterDevice, _) if stat.st_rdev == 0 => {
                unlinkat(directory, name, AtFlags::empty())?;
                return Ok(Replaced::Whiteout);
            }
            _ => unlinkat(directory, name, AtFlags::empty())?,
        }
        Ok(Replaced::Other)
    }

    /// What was below a directory that is gone.
    fn forget(&mut self, path: &Path) {
        self.last = None;
        self.late.retain(|late, _| !late.starts_with(path));
        self.implied.retain(|implied| !implied.starts_with(path));
        self.links.retain(|link| !link.path.starts_with(path));
    }

    /// `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all that its directory has there. (layer.md, "Whiteouts")
    fn whiteout(
        &mut self,
        directory: &OwnedFd,
        parent: &Path,
        name: &[u8],
        hidden: &[u8],
    ) -> io::Result<()> {
        if name == OPAQUE {
            return self.set_opaque(directory);
        }
        if hidden.starts_with(WHITEOUT) {
            // Marks of AUFS itself.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            let what = "a whiteout of nothing";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let name = OsStr::from_bytes(hidden);
        match mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0) {
            // It hides what is below; what the layer itself has there stays, but must not be joined with that.
            Err(Errno::EXIST) => {
                let inside = place::directory(&self.root, &parent.join(name));
                let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                match inside {
                    Ok(inside) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                        self.set_opaque(&inside)
                    }
                    _ => Ok(()),
                }
            }
            made => Ok(made?),
        }
    }

    fn set_opaque(&self, directory: &OwnedFd) -> io::Result<()> {
        let name = if self.owners.user_xattrs {
            c"user.overlay.opaque"
        } else {
            c"trusted.overlay.opaque"
        };
        Ok(fsetxattr(directory, name, b"y", XattrFlags::empty())?)
    }

    /// A second name for a file of this layer.
    pub(super) fn link(&self, target: &Path, directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let (parent, target) = place::split(target)?;
        let parent = place::directory(&self.root, parent)?;
        Ok(linkat(&parent, target, directory, name, AtFlags::empty())?)
    }

    fn make_node(
        &self,
        directory: &OwnedFd,
        name: &OsStr,
        kind: FileType,
        device: u64,
    ) -> io::Result<()> {
        match mknodat(directory, name, kind, Mode::from_raw_mode(0o600), device) {
            // Inside a user namespace there are no devices to be made; containers get theirs from the runner.
            Err(Errno::PERM) if !self.owners.exact => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
                Ok(())
            }
            made => Ok(made?),
        }
    }

    /// Owner, attributes and times of a file.
    fn settle(&self, file: &OwnedFd, entry: &Entry) -> io::Result<()> {
        let owned = self.owned(entry, |uid, gid| fchown(file, Some(uid), Some(gid)))?;
        let mode = self.mode(entry.mode, owned, entry.uid, 0o600);
        fchmod(file, Mode::from_raw_mode(mode))?;
        self.set_xattrs(file, entry)?;
        futimens(file, &times(entry.mtime))?;
        Ok(())
    }

    fn settle_directory(&mut self, made: &OwnedFd, path: PathBuf, entry: &Entry) -> io::Result<()> {
        let owned = self.owned(entry, |uid, gid| fchown(made, Some(uid), Some(gid)))?;
        let mode = self.mode(entry.mode, owned, entry.uid, 0o700);
        self.set_xattrs(made, entry)?;
        self.implied.remove(&path);
        let mtime = entry.mtime;
        self.late.insert(path, Late { mode, mtime });
        Ok(())
    }

    /// Of what can't be opened: a link, a device, a pipe.
    fn settle_node(&self, directory: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let link = AtFlags::SYMLINK_NOFOLLOW;
        let owned = self.owned(entry, |uid, gid| {
            chownat(directory, name, Some(uid), Some(gid), link)
        })?;
        if !matches!(entry.kind, Kind::Symlink(_)) {
            let mode = self.mode(entry.mode, owned, entry.uid, 0o600);
            chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        utimensat(directory, name, &times(entry.mtime), link)?;
        Ok(())
    }

    /// Gives a file to its owner; false when that is not permitted here.
    fn owned(
        &self,
        entry: &Entry,
        chown: impl FnOnce(Uid, Gid) -> rustix::io::Result<()>,
    ) -> io::Result<bool> {
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let (Some(uid), Some(gid)) = (id(entry.uid), id(entry.gid)) else {
            let what = format!("owner {}:{}", entry.uid, entry.gid);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        };
        match chown(Uid::from_raw(uid), Gid::from_raw(gid)) {
            Err(Errno::PERM | Errno::INVAL) if !self.owners.exact => Ok(false),
            done => done.map(|()| true).map_err(Into::into),
        }
    }

    /// The mode, set after the owner, which takes set-user-id away. A file that could not be given away must not run as the
    /// user who has it instead.
    fn mode(&self, mode: u32, owned: bool, uid: u64, needed: u32) -> u32 {
        let mut mode = mode & 0o7777;
        if !owned && uid != 0 {
            mode &= !0o6000;
        }
        if self.owners.keep_readable {
            mode |= needed;
        }
        mode
    }

    /// User attributes and file capabilities. Marks of overlayfs would let a layer show files of its choosing; labels of
    /// security modules are the machine's.
    fn set_xattrs(&self, file: &OwnedFd, entry: &Entry) -> io::Result<()> {
        for (name, value) in &entry.xattrs {
            let wanted = name == b"security.capability"
                || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            if !wanted {
                continue;
            }
            let name = CString::new(name.as_slice())?;
            match fsetxattr(file, &name, value, XattrFlags::empty()) {
                Err(Errno::PERM | Errno::INVAL | Errno::NOTSUP) if !self.owners.exact => {}
                // The file system below has none.
                Err(Errno::NOTSUP) => {}
                set => set?,
            }
        }
        Ok(())
    }

    /// Modes and times of the directories, the deepest first.
    pub(super) fn settle_late(&mut self) -> io::Result<()> {
        self.last = None;
        for (path, late) in std::mem::take(&mut self.late).iter().rev() {
            // Taken away by its other name, through a link.
            let Ok(directory) = place::directory(&self.root, path) else {
                continue;
            };
            fchmod(&directory, Mode::from_raw_mode(late.mode))?;
            futimens(&directory, &times(late.mtime))?;
        }
        Ok(())
    }
}

/// What was in an entry's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaced {
    Nothing,
    Directory,
    Whiteout,
    Other,
}

impl Missing for Tree {
    fn make(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
        let whiteout = self.is_whiteout(parent, name);
        if whiteout {
            unlinkat(parent, name, AtFlags::empty())?;
        }
        mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
        // Whatever the umask.
        chmodat(parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
        if whiteout {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return self.set_opaque(&openat(parent, name, flags, Mode::empty())?);
        }
        self.implied.insert(path.to_owned());
        Ok(())
    }

    fn is_whiteout(&self, parent: &OwnedFd, name: &OsStr) -> bool {
        statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
            device && stat.st_rdev == 0
        })
    }
}

pub(super) fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The bytes of a file; holes stay holes.
fn write_file(
    mut file: &File,
    size: u64,
    pieces: Option<&[(u64, u64)]>,
    bytes: &mut impl Read,
) -> io::Result<()> {
    let mut buffer = [0; PIECE];
    let Some(pieces) = pieces else {
        let mut left = size;
        while left > 0 {
            let most = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
            let read = read_some(bytes, &mut buffer[..most])?;
            file.write_all(&buffer[..read])?;
            left -= read as u64;
        }
        return Ok(());
    };
    file.set_len(size)?;
    for (offset, length) in pieces {
        let (mut at, end) = (*offset, offset + length);
        while at < end {
            let most = PIECE.min(usize::try_from(end - at).unwrap_or(PIECE));
            let read = read_some(bytes, &mut buffer[..most])?;
            file.write_all_at(&buffer[..read], at)?;
            at += read as u64;
        }
    }
    Ok(())
}

fn read_some(bytes: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match bytes.read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
