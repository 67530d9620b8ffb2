//! One process in full, read when it is asked for: what would cost too much every second for all of them, and what
//! the kernel shows only to the same user or to CAP_SYS_PTRACE. What can't be had says why.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::mask;
use super::procfs::{PathBuffer, Proc, read_file, read_up_to};
use super::snapshot::Process;
use super::stat;

/// Open files that are listed; all are counted.
const FILES_MAX: usize = 100;

/// The longest command line that is shown here.
const COMMAND_MAX: usize = 32 * 1024;

/// How much of each table of sockets is looked through for the addresses of a process's own: some 28,000 lines.
const SOCKET_TABLE_MAX: usize = 4 << 20;

/// Something that was read, or the reason that it wasn't.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Known<T> {
    /// It.
    Is(T),
    /// Why not.
    Not {
        /// One line.
        unavailable: String,
    },
}

impl<T> Known<T> {
    /// What was read, or why not.
    pub(crate) fn of(result: Result<T, Errno>) -> Self {
        match result {
            Ok(value) => Self::Is(value),
            Err(error) => Self::Not {
                unavailable: reason(error),
            },
        }
    }
}

fn reason(error: Errno) -> String {
    match error {
        Errno::ACCESS | Errno::PERM => {
            "not permitted: topz needs the user id of the process and all its capabilities, or CAP_SYS_PTRACE".to_owned()
        }
        Errno::NOENT | Errno::SRCH => {
            "the process ended meanwhile, or the kernel has no such file".to_owned()
        }
        other => other.to_string(),
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Detail<'a> {
    /// What every row has, from the latest look.
    #[serde(flatten)]
    pub(crate) process: Process<'a>,
    /// The command line at greater length, secrets masked.
    pub(crate) full_command: String,
    /// Bytes that went to and from storage, and through system calls (proc_pid_io(5)).
    pub(crate) io: Known<Io>,
    /// Its open files.
    pub(crate) files: Known<Files>,
    /// Its memory by kind, in bytes, exact (`/proc/PID/status`; the rows' figure may lag by a few pages a CPU).
    pub(crate) memory: Known<BTreeMap<&'static str, u64>>,
    /// How often it gave the CPU up, and how often it was taken from it.
    pub(crate) switches: Known<Switches>,
    /// The program.
    pub(crate) exe: Known<String>,
    /// Its working directory.
    pub(crate) cwd: Known<String>,
    /// How soon the kernel would kill it for want of memory, 0 to 2000.
    pub(crate) oom_score: Known<u64>,
}

/// `/proc/PID/io`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Io {
    /// Bytes fetched from storage.
    pub(crate) read_bytes: u64,
    /// Bytes sent to storage.
    pub(crate) write_bytes: u64,
    /// Bytes that reads returned, from wherever.
    pub(crate) read_call_bytes: u64,
    /// Bytes that writes took, to wherever.
    pub(crate) write_call_bytes: u64,
}

/// The open files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Files {
    /// How many.
    pub(crate) count: usize,
    /// How many it may have (the soft limit); absent when unlimited or unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
    /// How many are sockets, among those listed.
    pub(crate) sockets: usize,
    /// The first of them: descriptor and target.
    pub(crate) list: Vec<File>,
}

/// One open file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct File {
    /// The descriptor.
    pub(crate) fd: u32,
    /// The path, `pipe:[…]`, or the addresses of a socket.
    pub(crate) target: String,
}

/// Context switches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Switches {
    /// It waited for something.
    pub(crate) voluntary: u64,
    /// Its time was up.
    pub(crate) involuntary: u64,
}

const MEMORY: &[(&str, &str)] = &[
    ("VmRSS", "resident"),
    ("RssAnon", "anonymous"),
    ("RssFile", "file"),
    ("RssShmem", "shared"),
    ("VmSwap", "swapped"),
    ("VmHWM", "peak"),
    ("VmSize", "virtual"),
];

/// Reads one process. `start` is what the row's process started at: another under the same id isn't it.
///
/// # Errors
/// When it has ended.
pub(crate) fn read<'a>(
    proc: &Proc,
    process: Process<'a>,
    start: u64,
) -> Result<Detail<'a>, String> {
    let gone = || format!("process {} has ended", process.pid);
    let mut path = PathBuffer::default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // All is read through this directory: if the id goes to another process meanwhile, reads fail.
    let dir = rustix::fs::openat(proc.dir(), path.of(process.pid, b""), flags, Mode::empty())
        .map_err(|_| gone())?;
    let mut buffer = Vec::new();
    let mut file = |name: &std::ffi::CStr| {
        read_file(&dir, name, &mut buffer)
            .map(<[u8]>::to_vec)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    let reading = file(c"stat")
        .ok()
        .and_then(|line| stat::parse_stat(&line))
        .ok_or_else(gone)?;
    if reading.start != start {
        return Err(gone());
    }
    let full_command = file(c"cmdline")
        .map(|raw| mask::shown_command(&raw, COMMAND_MAX))
        .unwrap_or_default();
    let status = file(c"status");
    let memory = status.clone().map(|status| {
        let kib = |key: &str| stat::number(stat::keyed(&status, key)?.strip_suffix(b" kB")?);
        MEMORY
            .iter()
            .filter_map(|(key, name)| Some((*name, kib(key)? * 1024)))
            .collect()
    });
    let switches = status.and_then(|status| {
        let count = |key| {
            stat::keyed(&status, key)
                .and_then(stat::number)
                .ok_or(Errno::NOENT)
        };
        Ok(Switches {
            voluntary: count("voluntary_ctxt_switches")?,
            involuntary: count("nonvoluntary_ctxt_switches")?,
        })
    });
    let io = file(c"io").and_then(|text| {
        let count = |key| {
            stat::keyed(&text, key)
                .and_then(stat::number)
                .ok_or(Errno::NOENT)
        };
        Ok(Io {
            read_bytes: count("read_bytes")?,
            write_bytes: count("write_bytes")?,
            read_call_bytes: count("rchar")?,
            write_call_bytes: count("wchar")?,
        })
    });
    let limit = file(c"limits")
        .ok()
        .and_then(|text| open_files_limit(&text));
    let oom_score =
        file(c"oom_score").and_then(|text| stat::number(text.trim_ascii()).ok_or(Errno::NOENT));
    Ok(Detail {
        full_command: if full_command.is_empty() {
            process.command.clone()
        } else {
            full_command
        },
        process,
        io: Known::of(io),
        files: Known::of(files(&dir, limit)),
        memory: Known::of(memory),
        switches: Known::of(switches),
        exe: Known::of(link(&dir, "exe")),
        cwd: Known::of(link(&dir, "cwd")),
        oom_score: Known::of(oom_score),
    })
}

fn link(dir: &OwnedFd, name: &str) -> Result<String, Errno> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(target.to_string_lossy().replace(char::is_control, "?"))
}

fn open_files_limit(limits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(limits).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn files(dir: &OwnedFd, limit: Option<u64>) -> Result<Files, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fds = rustix::fs::openat(dir, c"fd", flags, Mode::empty())?;
    let mut numbers: Vec<u32> = Vec::new();
    for entry in Dir::read_from(&fds)? {
        let number =
            stat::number(entry?.file_name().to_bytes()).and_then(|fd| u32::try_from(fd).ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let count = numbers.len();
    let mut list: Vec<File> = Vec::new();
    for fd in numbers.into_iter().take(FILES_MAX) {
        // It may be closed by now.
        if let Ok(target) = link(&fds, &fd.to_string()) {
            list.push(File {
                fd,
                target: mask::shown_command(target.as_bytes(), 1024),
            });
        }
    }
    let inode = |target: &str| {
        target
            .strip_prefix("socket:[")?
            .strip_suffix(']')?
            .parse::<u64>()
            .ok()
    };
    let wanted: Vec<u64> = list.iter().filter_map(|file| inode(&file.target)).collect();
    let sockets = wanted.len();
    let described = if wanted.is_empty() {
        BTreeMap::new()
    } else {
        sockets_of(dir, &wanted)
    };
    for file in &mut list {
        if let Some(text) = inode(&file.target).and_then(|inode| described.get(&inode)) {
            file.target.clone_from(text);
        }
    }
    Ok(Files {
        count,
        limit,
        sockets,
        list,
    })
}

/// The addresses of these sockets (by inode), from the tables of the process's own network namespace.
fn sockets_of(dir: impl AsFd, wanted: &[u64]) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    let mut buffer = Vec::new();
    let tables = [
        (c"net/tcp", "tcp"),
        (c"net/tcp6", "tcp"),
        (c"net/udp", "udp"),
        (c"net/udp6", "udp"),
        (c"net/unix", "unix"),
    ];
    for (path, kind) in tables {
        let Ok(text) = read_up_to(SOCKET_TABLE_MAX, &dir, path, &mut buffer) else {
            continue;
        };
        let text = String::from_utf8_lossy(text);
        for line in text.lines().skip(1) {
            let described = if kind == "unix" {
                unix_line(line)
            } else {
                inet_line(line, kind)
            };
            if let Some((inode, text)) = described.filter(|(inode, _)| wanted.contains(inode)) {
                found.insert(inode, text);
            }
        }
        if found.len() == wanted.len() {
            break;
        }
    }
    found
}

/// A line of `/proc/net/tcp` or `udp` (proc_pid_net(5)): inode and what the socket is.
pub(crate) fn inet_line(line: &str, kind: &str) -> Option<(u64, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, remote) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
    let inode = fields.get(9)?.parse().ok()?;
    // include/net/tcp_states.h
    let state = match *fields.get(3)? {
        "01" => "established",
        "02" => "connecting",
        "03" => "syn received",
        "04" | "05" | "09" | "0B" => "closing",
        "06" => "time wait",
        "07" => "closed",
        "08" => "closed by the peer",
        "0A" => return Some((inode, format!("{kind} {local} listening"))),
        _ => "",
    };
    let text = match remote.ends_with(":0") {
        // An unconnected datagram socket.
        true => format!("{kind} {local}"),
        false => format!("{kind} {local} → {remote} {state}"),
    };
    Some((inode, text))
}

/// An address as the kernel prints it: 32-bit words in the machine's byte order, in hexadecimal.
fn address(text: &str) -> Option<String> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if host.len() == 8 {
        let word = u32::from_str_radix(host, 16).ok()?;
        return Some(format!("{}:{port}", Ipv4Addr::from(word.to_ne_bytes())));
    }
    let mut bytes = [0u8; 16];
    for (at, word) in bytes.chunks_exact_mut(4).enumerate() {
        let digits = host.get(at * 8..at * 8 + 8)?;
        word.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    }
    let ip = Ipv6Addr::from(bytes);
    Some(match ip.to_ipv4_mapped() {
        Some(ip) => format!("{ip}:{port}"),
        None => format!("[{ip}]:{port}"),
    })
}

fn unix_line(line: &str) -> Option<(u64, String)> {
    let mut fields = line.split_whitespace();
    let inode = fields.nth(6)?.parse().ok()?;
    let path = fields.next().unwrap_or("(no path)");
    Some((
        inode,
        format!("unix {}", path.replace(char::is_control, "?")),
    ))
}
