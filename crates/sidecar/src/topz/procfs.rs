//! `/proc`, read with as few system calls as it takes: one directory listing, and per process one open, one read
//! and one close. What seldom changes (command line, user, cgroup) is read only when it is asked for.
//!
//! Rejected: `smaps` and `smaps_rollup` (they stop the target for as long as they walk its page tables, four
//! seconds for 200 GB); keeping every `stat` open (half the cost, but one descriptor for each process); the process
//! connector and taskstats (they need CAP_NET_ADMIN in the machine's first namespaces).

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom};

use super::census::Facts;
use super::container;
use super::mask;
use super::stat::{self, Reading};

/// The longest command line that is kept, in bytes; the details of one process show more of it.
pub(crate) const COMMAND_MAX: usize = 1024;

/// How much of a command line is read for that: what is masked gets shorter.
const COMMAND_READ: usize = 8 * COMMAND_MAX;

/// The most that is read of any file other than `stat`.
const FILE_MAX: usize = 64 * 1024;

/// The initial cgroup namespace's inode (`PROC_CGROUP_INIT_INO` in the kernel's include/linux/proc_ns.h).
const FIRST_CGROUP_NAMESPACE: &str = "cgroup:[4026531835]";

/// An open `/proc` (or a tree that looks like it).
#[derive(Debug)]
pub(crate) struct Proc {
    dir: OwnedFd,
    listing: Vec<u8>,
    buffer: Vec<u8>,
    pids: Vec<u32>,
    in_cgroup_namespace: bool,
    users: Users,
}

impl Proc {
    /// Opens the tree at `root`.
    ///
    /// # Errors
    /// When it can't be opened as a directory.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        let link = rustix::fs::readlinkat(&dir, c"self/ns/cgroup", Vec::new());
        let in_cgroup_namespace =
            link.is_ok_and(|link| link.as_bytes() != FIRST_CGROUP_NAMESPACE.as_bytes());
        Ok(Self {
            dir,
            listing: Vec::with_capacity(16 * 1024),
            buffer: Vec::with_capacity(4096),
            pids: Vec::new(),
            in_cgroup_namespace,
            users: Users::default(),
        })
    }

    /// Reads the state of every process into `readings`, in the order of their ids, at most `limit` of them.
    /// Returns how many were left out.
    ///
    /// # Errors
    /// When the directory can't be listed. A process that vanishes meanwhile is just not there.
    pub(crate) fn readings(
        &mut self,
        readings: &mut Vec<Reading>,
        limit: usize,
    ) -> io::Result<usize> {
        readings.clear();
        self.list()?;
        let skipped = self.pids.len().saturating_sub(limit);
        self.pids.truncate(limit);
        let mut line = [0u8; 1536];
        for &pid in &self.pids {
            let mut path = PathBuffer::default();
            let Ok(file) = open_at(&self.dir, path.of(pid, b"stat")) else {
                continue;
            };
            let Ok(length) = rustix::io::read(&file, &mut line) else {
                continue;
            };
            readings.extend(stat::parse_stat(&line[..length]));
        }
        Ok(skipped)
    }

    /// Lists the process ids, in order (as procfs does anyway).
    fn list(&mut self) -> io::Result<()> {
        self.pids.clear();
        rustix::fs::seek(&self.dir, SeekFrom::Start(0))?;
        self.listing.clear();
        let buffer: &mut [MaybeUninit<u8>] = self.listing.spare_capacity_mut();
        let mut entries = RawDir::new(self.dir.as_fd(), buffer);
        while let Some(entry) = entries.next() {
            let id =
                stat::number(entry?.file_name().to_bytes()).and_then(|id| u32::try_from(id).ok());
            self.pids.extend(id);
        }
        self.pids.sort_unstable();
        Ok(())
    }

    /// The process id handed out last in our PID namespace, where the kernel tells.
    pub(crate) fn last_pid(&mut self) -> Option<u32> {
        let known = self
            .read(c"sys/kernel/ns_last_pid")
            .ok()
            .and_then(stat::parse_last_pid);
        known.or_else(|| stat::parse_last_pid(self.read(c"loadavg").ok()?))
    }

    /// The number at which process ids start again from the low end.
    pub(crate) fn pid_max(&mut self) -> Option<u32> {
        stat::number(self.read(c"sys/kernel/pid_max").ok()?.trim_ascii())?
            .try_into()
            .ok()
    }

    fn read(&mut self, path: &CStr) -> io::Result<&[u8]> {
        read_file(&self.dir, path, &mut self.buffer)
    }

    /// The open directory.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// What is known of a process besides its reading. It may have gone: then little is.
    pub(crate) fn facts(&mut self, pid: u32) -> Facts {
        let mut path = PathBuffer::default();
        let command = read_up_to(
            COMMAND_READ,
            &self.dir,
            path.of(pid, b"cmdline"),
            &mut self.buffer,
        )
        .map(|raw| mask::shown_command(raw, COMMAND_MAX));
        let uid = self
            .read(path.of(pid, b"status"))
            .ok()
            .and_then(stat::parse_uid);
        let in_namespace = self.in_cgroup_namespace;
        let cgroup = self.read(path.of(pid, b"cgroup")).ok();
        let container = cgroup.and_then(|text| container::by_cgroup(text, in_namespace));
        let user = uid.map(|uid| self.users.name(self.dir.as_fd(), pid, uid));
        Facts {
            command: command.unwrap_or_default(),
            user,
            container,
        }
    }
}

/// Reads a file whole, up to [`FILE_MAX`], into a buffer that is used again.
pub(crate) fn read_file<'a>(
    dir: impl AsFd,
    path: &CStr,
    buffer: &'a mut Vec<u8>,
) -> io::Result<&'a [u8]> {
    read_up_to(FILE_MAX, dir, path, buffer)
}

/// Reads about so many bytes of a file at most, into a buffer that is used again.
pub(crate) fn read_up_to<'a>(
    max: usize,
    dir: impl AsFd,
    path: &CStr,
    buffer: &'a mut Vec<u8>,
) -> io::Result<&'a [u8]> {
    let file = open_at(dir, path)?;
    read_open(max, &file, buffer)
}

fn read_open<'a>(max: usize, file: &OwnedFd, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    buffer.clear();
    while buffer.len() < max {
        buffer.reserve(4096);
        // procfs files have no size: they end where a read returns nothing.
        if rustix::io::read(file, rustix::buffer::spare_capacity(buffer))? == 0 {
            break;
        }
    }
    Ok(buffer)
}

fn open_at(dir: impl AsFd, path: &CStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )?)
}

/// Opens a regular file inside a directory that somebody else owns, such as another container's root: no path
/// in it leads out of it, and neither a FIFO nor a device is ever opened.
pub(crate) fn open_inside(root: impl AsFd, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    let mut number = itoa_path(
        b"/proc/self/fd/",
        rustix::fd::AsRawFd::as_raw_fd(&file).unsigned_abs(),
    );
    Ok(rustix::fs::openat(
        CWD,
        number.finish(),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// [`open_inside`], read whole.
pub(crate) fn read_inside<'a>(
    root: impl AsFd,
    path: &CStr,
    buffer: &'a mut Vec<u8>,
) -> io::Result<&'a [u8]> {
    let file = open_inside(root, path)?;
    read_open(FILE_MAX, &file, buffer)
}

/// A path such as `4711/stat`, built on the stack.
#[derive(Debug)]
pub(crate) struct PathBuffer {
    bytes: [u8; 48],
    length: usize,
}

impl Default for PathBuffer {
    fn default() -> Self {
        Self {
            bytes: [0; 48],
            length: 0,
        }
    }
}

impl PathBuffer {
    /// `PID/FILE`. Names are literals of at most 24 bytes.
    pub(crate) fn of(&mut self, pid: u32, file: &[u8]) -> &CStr {
        self.length = 0;
        self.number(pid);
        self.push(b"/");
        self.push(file);
        self.finish()
    }

    fn number(&mut self, number: u32) {
        let mut digits = [0u8; 10];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    fn push(&mut self, text: &[u8]) {
        let room = self.bytes.len() - 1 - self.length;
        let text = &text[..text.len().min(room)];
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text);
        self.length += text.len();
    }

    fn finish(&mut self) -> &CStr {
        self.bytes[self.length] = 0;
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

fn itoa_path(start: &[u8], number: u32) -> PathBuffer {
    let mut path = PathBuffer::default();
    path.push(start);
    path.number(number);
    path
}

/// The names of users, each as its own root file system's `/etc/passwd` has them: two containers may well call
/// the same number differently. Where that root can't be seen the number is the name.
#[derive(Debug, Default)]
struct Users {
    roots: HashMap<(u64, u64), HashMap<u32, Arc<str>>>,
    numbers: HashMap<u32, Arc<str>>,
    buffer: Vec<u8>,
}

/// Roots and users that are remembered; past it they are forgotten and read again.
const USERS_MAX: usize = 256;

impl Users {
    fn name(&mut self, proc: BorrowedFd<'_>, pid: u32, uid: u32) -> Arc<str> {
        if let Some(name) = self.name_in_root(proc, pid, uid) {
            return name;
        }
        if self.numbers.len() > USERS_MAX {
            self.numbers.clear();
        }
        let name = || {
            if uid == 0 {
                Arc::from("root")
            } else {
                Arc::from(uid.to_string())
            }
        };
        self.numbers.entry(uid).or_insert_with(name).clone()
    }

    fn name_in_root(&mut self, proc: BorrowedFd<'_>, pid: u32, uid: u32) -> Option<Arc<str>> {
        let mut path = PathBuffer::default();
        let path = path.of(pid, b"root");
        let stat = rustix::fs::statat(proc, path, AtFlags::empty()).ok()?;
        let key = (stat.st_dev, stat.st_ino);
        if !self.roots.contains_key(&key) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::openat(proc, path, flags, Mode::empty()).ok()?;
            let text = read_inside(&root, c"etc/passwd", &mut self.buffer).unwrap_or_default();
            let names = parse_passwd(text);
            if self.roots.len() > USERS_MAX {
                self.roots.clear();
            }
            self.roots.insert(key, names);
        }
        self.roots.get(&key)?.get(&uid).cloned()
    }
}

/// The first name of each user id in an `/etc/passwd`, at most [`USERS_MAX`] of them.
fn parse_passwd(text: &[u8]) -> HashMap<u32, Arc<str>> {
    let mut names = HashMap::new();
    for line in text.split(|&b| b == b'\n') {
        let mut fields = line.split(|&b| b == b':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) else {
            continue;
        };
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| (1..=32).contains(&name.len()));
        if let (Some(name), Some(uid)) = (name, stat::number(uid))
            && names.len() < USERS_MAX
            && let Ok(uid) = u32::try_from(uid)
        {
            names.entry(uid).or_insert_with(|| Arc::from(name));
        }
    }
    names
}
