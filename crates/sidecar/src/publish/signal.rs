//! A signal to a process of another container, found by name in the PID namespace that the pod shares.
//!
//! A process has the name when its `comm` is it (the kernel keeps 15 bytes of it) or the file name of its `argv[0]`. Workers
//! mostly bear the name of their master: of several, the one above them all is meant, the one that no other with the
//! name is an ancestor of. Two of those are two applications, and neither is signalled. A pidfd makes sure that the
//! process that was found is the one that gets the signal. KILL is done when the process has ended: until then it could still
//! answer a `--confirm` that asks about the next one.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};

/// The signals by name, without SIG.
const NAMES: &[(&str, Signal)] = &[
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("URG", Signal::URG),
    ("WINCH", Signal::WINCH),
    ("IO", Signal::IO),
    ("PWR", Signal::POWER),
];

/// `HUP` or `SIGHUP`.
pub(super) fn parse(name: &str) -> Result<Signal, String> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    let found = NAMES.iter().find(|(known, _)| *known == short);
    found.map(|(_, signal)| *signal).ok_or_else(|| {
        let all: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        format!(
            "there is no signal \"{name}\"; there are {}",
            all.join(", ")
        )
    })
}

/// The name of a signal, as [`parse`] takes it.
pub(super) fn name(signal: Signal) -> &'static str {
    let found = NAMES.iter().find(|(_, known)| *known == signal);
    found.map_or("?", |(name, _)| name)
}

/// Sends it to the process of that name. Blocks, with KILL until the process has ended.
pub(super) fn send(signal: Signal, process: &str, timeout: Duration) -> Result<(), String> {
    let proc = Path::new("/proc");
    let pid = topmost(&all(proc), process)?;
    let gone = || format!("{process} (process {pid}) has just ended");
    let id = Pid::from_raw(pid).ok_or_else(gone)?;
    let handle = pidfd_open(id, PidfdFlags::empty()).map_err(|_| gone())?;
    // Another may have got its id meanwhile.
    if !read(proc, pid).is_some_and(|found| found.is(process)) {
        return Err(gone());
    }
    match pidfd_send_signal(&handle, signal) {
        Ok(()) if signal == Signal::KILL => match has_ended(&handle, timeout) {
            true => Ok(()),
            false => Err(format!(
                "{process} (process {pid}) has not ended within {} ms",
                timeout.as_millis()
            )),
        },
        Ok(()) => Ok(()),
        Err(Errno::SRCH) => Err(gone()),
        Err(Errno::PERM) => {
            let (own, its) = (geteuid().as_raw(), owner(proc, pid));
            let its = its.map_or("another user".to_owned(), |uid| format!("user {uid}"));
            // Of a user other than root a capability that a container is given has no effect.
            let remedy = match own {
                0 => "the capability KILL",
                _ => "root for this one, with the capability KILL",
            };
            Err(format!(
                "{process} (process {pid}) runs as {its} and this as user {own}; expected the same user for both, or {remedy}"
            ))
        }
        Err(error) => Err(format!("{process} (process {pid}): {error}")),
    }
}

fn has_ended(process: &OwnedFd, longest: Duration) -> bool {
    let end = Instant::now() + longest;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        // A pidfd is readable when its process has ended. (pidfd_open(2))
        match poll(&mut [PollFd::new(process, PollFlags::IN)], timeout.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    pid: i32,
    parent: i32,
    comm: String,
    /// The file name of its first word; empty when it has none.
    program: String,
}

impl Known {
    fn is(&self, name: &str) -> bool {
        let short = name.get(..15).unwrap_or(name);
        self.comm == short || self.program == name
    }
}

/// The one process that is meant by a name.
fn topmost(processes: &[Known], name: &str) -> Result<i32, String> {
    let parents: HashMap<i32, i32> = processes.iter().map(|one| (one.pid, one.parent)).collect();
    let named: Vec<i32> = (processes.iter().filter(|one| one.is(name)))
        .map(|one| one.pid)
        .collect();
    let below_another = |pid: i32| {
        let mut at = pid;
        // Read one by one, ids can have been used again: no path is longer than there are processes.
        for _ in 0..parents.len() {
            match parents.get(&at) {
                Some(parent) if named.contains(parent) && *parent != pid => return true,
                Some(parent) => at = *parent,
                None => return false,
            }
        }
        false
    };
    let top: Vec<i32> = named
        .iter()
        .copied()
        .filter(|pid| !below_another(*pid))
        .collect();
    match top[..] {
        [pid] => Ok(pid),
        [] => Err(format!(
            "no process here is named {name}; does the pod have shareProcessNamespace: true, and does the application run?"
        )),
        _ => {
            let all: Vec<String> = top.iter().map(i32::to_string).collect();
            Err(format!(
                "{name} is the name of {} processes that are not of one family ({}); which one is meant can't be told",
                top.len(),
                all.join(", ")
            ))
        }
    }
}

/// Every process but this one and the kernel's.
fn all(proc: &Path) -> Vec<Known> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| read(proc, pid))
        .collect()
}

/// None when it has gone, or has ended and waits for its parent.
fn read(proc: &Path, pid: i32) -> Option<Known> {
    let dir = proc.join(pid.to_string());
    let stat = fs::read(dir.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // pid (comm) state ppid …: comm may hold parentheses. (proc_pid_stat(5))
    let (comm, rest) = (stat.split_once('(')?.1).rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    if matches!(state, "Z" | "X") {
        return None;
    }
    let words = fs::read(dir.join("cmdline")).ok()?;
    let first = words.split(|byte| *byte == 0).next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    Some(Known {
        pid,
        parent,
        comm: comm.to_owned(),
        program: first.rsplit('/').next().unwrap_or_default().to_owned(),
    })
}

fn owner(proc: &Path, pid: i32) -> Option<u32> {
    let status = fs::read_to_string(proc.join(pid.to_string()).join("status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn known(pid: i32, parent: i32, comm: &str, program: &str) -> Known {
        Known {
            pid,
            parent,
            comm: comm.to_owned(),
            program: program.to_owned(),
        }
    }

    #[test]
    fn signals_have_names() {
        for (text, signal) in NAMES {
            assert_eq!(parse(text), Ok(*signal));
            assert_eq!(parse(&format!("SIG{text}")), Ok(*signal));
            assert_eq!(name(*signal), *text);
        }
        for wrong in ["", "hup", "1", "SIGSIGHUP"] {
            assert!(parse(wrong).unwrap_err().contains("there are HUP, INT"));
        }
    }

    #[test]
    fn of_several_the_one_above_them_is_meant() {
        let one = [
            known(1, 0, "podkit", "podkit"),
            known(7, 1, "nginx", "nginx: master process nginx"),
            known(8, 7, "nginx", "nginx: worker process"),
            // A worker's helper, with a process of another name between.
            known(9, 8, "sh", "sh"),
            known(10, 9, "nginx", "nginx"),
            known(20, 1, "a-name-of-more-", "a-name-of-more-than-15"),
        ];
        assert_eq!(topmost(&one, "nginx"), Ok(7));
        assert_eq!(topmost(&one, "a-name-of-more-than-15"), Ok(20));
        let why = topmost(&one, "ngin").unwrap_err();
        assert!(why.contains("shareProcessNamespace: true"), "{why}");
        let mut two = one.to_vec();
        two.push(known(30, 1, "nginx", "nginx"));
        let why = topmost(&two, "nginx").unwrap_err();
        assert!(
            why.contains("2 processes") && why.contains("(7, 30)"),
            "{why}"
        );
    }

    #[test]
    fn a_process_gets_its_signal() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("podkit-test-slp");
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program)
            .arg("60")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let send = |signal| send(signal, "podkit-test-slp", Duration::from_secs(10));
        send(Signal::CONT).unwrap();
        send(Signal::KILL).unwrap();
        // It has ended already.
        assert_eq!(child.try_wait().unwrap().unwrap().signal(), Some(9));
        let why = send(Signal::USR1).unwrap_err();
        assert!(why.contains("no process here is named"), "{why}");
    }
}
