//! What holds a pod that uses the machine's PIDs (`hostPID`): there is no PID namespace whose end would kill it all.
//!
//! So the init is a guard: at the end of its pipe it kills what is in the pod's UTS namespace, which every pod has of its own and
//! only CAP_SYS_ADMIN can leave, and ends when nothing is left there. A cgroup was rejected: not every machine lets us have one.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::sandbox::process::wait_readable;
use crate::sys;

/// What does not die in this time hangs in the kernel, and dies when it comes out.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for the end of standard input, kills the pod, and ends.
pub(super) fn run() -> ! {
    // The supervisor waits for the end of the stage's socket.
    sys::close_from(3);
    rustix::thread::set_name(c"podkit-guard").ok();
    let mut stdin = std::io::stdin().lock();
    let mut bytes = [0; 64];
    loop {
        match stdin.read(&mut bytes) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let deadline = Instant::now() + PATIENCE;
    if let Some(namespace) = namespace_of("self") {
        while let Some(killed) = kill_all(namespace).filter(|killed| !killed.is_empty()) {
            for process in &killed {
                wait_readable(process.as_fd(), deadline).ok();
            }
            if Instant::now() >= deadline {
                break;
            }
        }
    }
    sys::exit_now(0)
}

/// The UTS namespace of a process of `/proc`.
fn namespace_of(process: &str) -> Option<u64> {
    let link = std::fs::metadata(format!("/proc/{process}/ns/uts")).ok()?;
    Some(link.ino())
}

/// Kills everything else that is there now; those that were alive.
fn kill_all(namespace: u64) -> Option<Vec<OwnedFd>> {
    let me = getpid();
    let kill = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        let name = name.to_str()?;
        let pid = name.parse().ok().and_then(Pid::from_raw)?;
        let same = || namespace_of(name) == Some(namespace);
        if pid == me || !same() {
            return None;
        }
        // Looked at again behind the pidfd: the number may have been given anew in between.
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        (same() && pidfd_send_signal(&process, Signal::KILL).is_ok()).then_some(process)
    };
    Some(std::fs::read_dir("/proc").ok()?.filter_map(kill).collect())
}
