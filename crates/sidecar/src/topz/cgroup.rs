//! What a container's cgroup says of it: memory against its limit, throttling, pressure.
//!
//! Where the files are depends on how much of the machine topz may see. Two places are tried, and each is
//! believed only when the process is listed in its `cgroup.procs`, since a path that was read in one cgroup
//! namespace means nothing in another's mount:
//!
//! 1. our own `/sys/fs/cgroup` with the process's path,
//! 2. the process's own view of it, `/proc/PID/root/sys/fs/cgroup`, where we may look into its root (the same user
//!    id, or CAP_SYS_PTRACE).

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde::Serialize;

use super::container::OWN;
use super::procfs::{PathBuffer, Proc, read_file, read_inside};
use super::stat;

/// What was read. Each is absent where its file is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Memory charged, page cache included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    /// The same less the page cache that can go any time: what the kubelet calls the working set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_working_set_bytes: Option<u64>,
    /// The limit; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_limit_bytes: Option<u64>,
    /// How often the kernel killed a process of it for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oom_kills: Option<u64>,
    /// Periods in which it had used its CPU quota up, and had to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) throttled_periods: Option<u64>,
    /// How long it had to wait in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) throttled_seconds: Option<f64>,
    /// Share of the last 10 s in which some task waited for CPU, in percent (pressure stall information).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_pressure_percent: Option<f64>,
    /// The same for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_pressure_percent: Option<f64>,
    /// The same for I/O.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) io_pressure_percent: Option<f64>,
}

/// The cgroup directories found, by process.
#[derive(Debug)]
pub(crate) struct Cgroups {
    mount: Option<OwnedFd>,
    found: BTreeMap<(u32, u64), Option<Dirs>>,
    buffer: Vec<u8>,
    calls: u64,
}

/// Where one process's cgroup has its files: with both versions in use, pressure is in the unified hierarchy and the rest
/// where the controllers are.
#[derive(Debug)]
struct Dirs {
    unified: Option<OwnedFd>,
    memory: Option<OwnedFd>,
    cpu: Option<OwnedFd>,
}

/// What wasn't found is looked for again every so many calls.
const RETRY_CALLS: u64 = 30;

/// Directories kept open at once.
const FOUND_MAX: usize = 256;

impl Cgroups {
    /// With the mount at `mount`, normally `/sys/fs/cgroup`; it need not be there.
    pub(crate) fn new(mount: &Path) -> Self {
        Self {
            mount: open_dir(CWD, mount).ok(),
            found: BTreeMap::new(),
            buffer: Vec::new(),
            calls: 0,
        }
    }

    /// Reads the figures of every container whose cgroup can be read: `firsts` names each container with one of its
    /// processes (id and start). A cgroup that two of them share is neither's own, and says nothing of one.
    pub(crate) fn figures(
        &mut self,
        proc: &Proc,
        firsts: &[(String, u32, u64)],
    ) -> BTreeMap<String, Figures> {
        self.calls += 1;
        // A process may have been moved since it was looked for in vain.
        let again = self.calls.is_multiple_of(RETRY_CALLS);
        let lives = |key| firsts.iter().any(|(_, pid, start)| (*pid, *start) == key);
        self.found
            .retain(|key, dirs| lives(*key) && !(again && dirs.is_none()));
        let mut sharers: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        for (_, pid, start) in firsts.iter().take(FOUND_MAX) {
            let key = (*pid, *start);
            if !self.found.contains_key(&key) {
                let dirs = self.find(proc, *pid);
                self.found.insert(key, dirs);
            }
            if let Some(Some(dirs)) = self.found.get(&key) {
                for dir in dirs.all() {
                    *sharers.entry(identity(dir)).or_default() += 1;
                }
            }
        }
        let mut figures = BTreeMap::new();
        for (name, pid, start) in firsts {
            let Some(Some(dirs)) = self.found.get(&(*pid, *start)) else {
                continue;
            };
            // What no container claims has no cgroup of its own.
            let is_container = name == OWN || !name.starts_with('(');
            let own = |dir: &OwnedFd| sharers.get(&identity(dir)) == Some(&1);
            if is_container {
                let read = dirs.read(own, &mut self.buffer);
                if read != Figures::default() {
                    figures.insert(name.clone(), read);
                }
            }
        }
        figures
    }

    fn find(&mut self, proc: &Proc, pid: u32) -> Option<Dirs> {
        let mut path = PathBuffer::default();
        let text = read_file(proc.dir(), path.of(pid, b"cgroup"), &mut self.buffer).ok()?;
        let text = String::from_utf8_lossy(text).into_owned();
        let theirs = open_dir(proc.dir(), path.of(pid, b"root/sys/fs/cgroup")).ok();
        let Self { mount, buffer, .. } = self;
        for (mount, is_theirs) in [(mount.as_ref(), false), (theirs.as_ref(), true)] {
            if let Some(mount) = mount
                && let Some(dirs) = Dirs::find(mount, &text, pid, is_theirs, buffer)
            {
                return Some(dirs);
            }
        }
        None
    }
}

impl Dirs {
    /// The directories below this mount that list the process; `cgroups` is its `/proc/PID/cgroup`. In the process's
    /// own mount they may be its root, since that is what its cgroup namespace shows it.
    fn find(
        mount: &OwnedFd,
        cgroups: &str,
        pid: u32,
        theirs: bool,
        buffer: &mut Vec<u8>,
    ) -> Option<Self> {
        let path_of = |controller: &str| {
            cgroups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let controllers = parts.next()?;
                let ours = controllers.split(',').any(|name| name == controller);
                ours.then(|| parts.next())?
            })
        };
        let mut open = |hierarchy: &str, controller: &str| {
            let path = path_of(controller)?.trim_start_matches('/');
            // A way out of our namespace leads nowhere in any mount; in theirs the root may still be right.
            let below = Some(path).filter(|path| !path.split('/').any(|part| part == ".."));
            let root = Some("").filter(|_| theirs);
            root.into_iter().chain(below).find_map(|path| {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let full = format!("./{hierarchy}/{path}");
                let none = Mode::empty();
                let dir =
                    rustix::fs::openat2(mount, full, flags, none, ResolveFlags::IN_ROOT).ok()?;
                let procs = read_inside(&dir, c"cgroup.procs", buffer).ok()?;
                let mut listed = procs.split(|&b| b == b'\n').filter_map(stat::number);
                listed.any(|listed| listed == u64::from(pid)).then_some(dir)
            })
        };
        let dirs = Self {
            memory: open("memory", "memory"),
            cpu: open("cpu", "cpu").or_else(|| open("cpu,cpuacct", "cpu")),
            unified: open("", "").or_else(|| open("unified", "")),
        };
        let any = dirs.memory.is_some() || dirs.cpu.is_some() || dirs.unified.is_some();
        any.then_some(dirs)
    }

    fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        [&self.unified, &self.memory, &self.cpu]
            .into_iter()
            .flatten()
    }

    /// Reads those directories that are the container's `own`.
    fn read(&self, own: impl Fn(&OwnedFd) -> bool, buffer: &mut Vec<u8>) -> Figures {
        let mut figures = Figures::default();
        let mut cache = None;
        if let Some(dir) = self.unified.as_ref().filter(|dir| own(dir)) {
            figures.memory_bytes = number(dir, c"memory.current", buffer);
            cache = spaced(dir, c"memory.stat", "inactive_file", buffer);
            figures.memory_limit_bytes = number(dir, c"memory.max", buffer);
            figures.oom_kills = spaced(dir, c"memory.events", "oom_kill", buffer);
            figures.throttled_periods = spaced(dir, c"cpu.stat", "nr_throttled", buffer);
            let waited = spaced(dir, c"cpu.stat", "throttled_usec", buffer);
            figures.throttled_seconds = waited.map(|us| us as f64 / 1e6);
            figures.cpu_pressure_percent = pressure(dir, c"cpu.pressure", buffer);
            figures.memory_pressure_percent = pressure(dir, c"memory.pressure", buffer);
            figures.io_pressure_percent = pressure(dir, c"io.pressure", buffer);
        }
        if let Some(dir) = self.memory.as_ref().filter(|dir| own(dir)) {
            figures.memory_bytes = number(dir, c"memory.usage_in_bytes", buffer);
            cache = spaced(dir, c"memory.stat", "total_inactive_file", buffer);
            // Version 1 says "no limit" as a number near 2^63.
            let limit = number(dir, c"memory.limit_in_bytes", buffer);
            figures.memory_limit_bytes = limit.filter(|limit| *limit < 1 << 60);
            figures.oom_kills = spaced(dir, c"memory.oom_control", "oom_kill", buffer);
        }
        if let Some(dir) = self.cpu.as_ref().filter(|dir| own(dir)) {
            figures.throttled_periods = spaced(dir, c"cpu.stat", "nr_throttled", buffer);
            let waited = spaced(dir, c"cpu.stat", "throttled_time", buffer);
            figures.throttled_seconds = waited.map(|ns| ns as f64 / 1e9);
        }
        let both = figures.memory_bytes.zip(cache);
        figures.memory_working_set_bytes = both.map(|(all, cache)| all.saturating_sub(cache));
        figures
    }
}

/// What tells one cgroup from another: device and inode of its directory.
fn identity(dir: &OwnedFd) -> (u64, u64) {
    rustix::fs::fstat(dir).map_or((0, 0), |stat| (stat.st_dev, stat.st_ino))
}

fn open_dir(at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        at,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn number(dir: &OwnedFd, file: &CStr, buffer: &mut Vec<u8>) -> Option<u64> {
    stat::number(read_inside(dir, file, buffer).ok()?.trim_ascii())
}

fn spaced(dir: &OwnedFd, file: &CStr, key: &str, buffer: &mut Vec<u8>) -> Option<u64> {
    stat::spaced(read_inside(dir, file, buffer).ok()?, key)
}

fn pressure(dir: &OwnedFd, file: &CStr, buffer: &mut Vec<u8>) -> Option<f64> {
    stat::parse_pressure(read_inside(dir, file, buffer).ok()?)
}
