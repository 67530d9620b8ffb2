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
}

/// Where one process's cgroup has its files.
#[derive(Debug)]
enum Dirs {
    V2(OwnedFd),
    V1 {
        memory: Option<OwnedFd>,
        cpu: Option<OwnedFd>,
    },
}

/// Directories kept open at once.
const FOUND_MAX: usize = 256;

impl Cgroups {
    /// With the mount at `mount`, normally `/sys/fs/cgroup`; it need not be there.
    pub(crate) fn new(mount: &Path) -> Self {
        Self {
            mount: open_dir(CWD, mount).ok(),
            found: BTreeMap::new(),
            buffer: Vec::new(),
        }
    }

    /// Reads the figures of every container whose cgroup can be read: `firsts` names each container with one of its
    /// processes (id and start). A cgroup that two of them share is neither's own, and says nothing of one.
    pub(crate) fn figures(
        &mut self,
        proc: &Proc,
        firsts: &[(String, u32, u64)],
    ) -> BTreeMap<String, Figures> {
        self.found
            .retain(|key, _| firsts.iter().any(|(_, pid, start)| (*pid, *start) == *key));
        let mut sharers: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        for (_, pid, start) in firsts.iter().take(FOUND_MAX) {
            let key = (*pid, *start);
            if !self.found.contains_key(&key) {
                let dirs = self.find(proc, *pid);
                self.found.insert(key, dirs);
            }
            if let Some(Some(dirs)) = self.found.get(&key) {
                *sharers.entry(dirs.identity()).or_default() += 1;
            }
        }
        let mut figures = BTreeMap::new();
        for (name, pid, start) in firsts {
            let Some(Some(dirs)) = self.found.get(&(*pid, *start)) else {
                continue;
            };
            // What no container claims has no cgroup of its own.
            let is_container = name == OWN || !name.starts_with('(');
            if is_container && sharers.get(&dirs.identity()) == Some(&1) {
                let read = dirs.read(&mut self.buffer);
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
    /// The directories below this mount that list the process. In the process's own mount they may be its root, since
    /// that is what its cgroup namespace shows it.
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
                controllers
                    .split(',')
                    .any(|name| name == controller)
                    .then(|| parts.next())?
            })
        };
        let mut open = |hierarchy: &str, path: &str| {
            let path = path.trim_start_matches('/');
            let roots = if theirs { ["", path] } else { [path, path] };
            roots.iter().find_map(|path| {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let full = format!("./{hierarchy}/{path}");
                let dir =
                    rustix::fs::openat2(mount, full, flags, Mode::empty(), ResolveFlags::IN_ROOT)
                        .ok()?;
                let listed = read_inside(&dir, c"cgroup.procs", buffer).ok()?;
                listed
                    .split(|&b| b == b'\n')
                    .any(|line| stat::number(line) == Some(pid.into()))
                    .then_some(dir)
            })
        };
        // With both versions in use a hierarchy that has the controllers is version 1's.
        if let Some(path) = path_of("memory").filter(|path| !path.contains("/..")) {
            let memory = open("memory", path);
            let cpu = path_of("cpu")
                .and_then(|path| open("cpu", path).or_else(|| open("cpu,cpuacct", path)));
            if memory.is_some() || cpu.is_some() {
                return Some(Self::V1 { memory, cpu });
            }
        }
        let path = path_of("")?;
        // A way out of our namespace leads nowhere in our mount; in theirs the root may still be right.
        let path = if path.contains("/..") {
            if theirs { "" } else { return None }
        } else {
            path
        };
        open("", path)
            .or_else(|| open("unified", path))
            .map(Self::V2)
    }

    /// What tells one cgroup from another: device and inode of its directory.
    fn identity(&self) -> (u64, u64) {
        let dir = match self {
            Self::V2(dir) => Some(dir),
            Self::V1 { memory, cpu } => memory.as_ref().or(cpu.as_ref()),
        };
        let stat = dir.and_then(|dir| rustix::fs::fstat(dir).ok());
        stat.map_or((0, 0), |stat| (stat.st_dev, stat.st_ino))
    }

    fn read(&self, buffer: &mut Vec<u8>) -> Figures {
        match self {
            Self::V2(dir) => {
                let memory_bytes = number(dir, c"memory.current", buffer);
                let cache = spaced(dir, c"memory.stat", "inactive_file", buffer);
                Figures {
                    memory_bytes,
                    memory_working_set_bytes: memory_bytes
                        .zip(cache)
                        .map(|(all, cache)| all.saturating_sub(cache)),
                    memory_limit_bytes: number(dir, c"memory.max", buffer),
                    oom_kills: spaced(dir, c"memory.events", "oom_kill", buffer),
                    throttled_periods: spaced(dir, c"cpu.stat", "nr_throttled", buffer),
                    throttled_seconds: spaced(dir, c"cpu.stat", "throttled_usec", buffer)
                        .map(|us| us as f64 / 1e6),
                    cpu_pressure_percent: pressure(dir, c"cpu.pressure", buffer),
                    memory_pressure_percent: pressure(dir, c"memory.pressure", buffer),
                    io_pressure_percent: pressure(dir, c"io.pressure", buffer),
                }
            }
            Self::V1 { memory, cpu } => {
                let mut figures = Figures::default();
                if let Some(dir) = memory {
                    // Version 1 says "no limit" as a number near 2^63.
                    let limit = number(dir, c"memory.limit_in_bytes", buffer);
                    figures.memory_limit_bytes = limit.filter(|limit| *limit < 1 << 60);
                    figures.memory_bytes = number(dir, c"memory.usage_in_bytes", buffer);
                    let cache = spaced(dir, c"memory.stat", "total_inactive_file", buffer);
                    let both = figures.memory_bytes.zip(cache);
                    figures.memory_working_set_bytes =
                        both.map(|(all, cache)| all.saturating_sub(cache));
                    figures.oom_kills = spaced(dir, c"memory.oom_control", "oom_kill", buffer);
                }
                if let Some(dir) = cpu {
                    figures.throttled_periods = spaced(dir, c"cpu.stat", "nr_throttled", buffer);
                    let waited = spaced(dir, c"cpu.stat", "throttled_time", buffer);
                    figures.throttled_seconds = waited.map(|ns| ns as f64 / 1e9);
                }
                figures
            }
        }
    }
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
