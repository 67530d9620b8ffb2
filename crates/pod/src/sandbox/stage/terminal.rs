//! A terminal for the process, made inside its container: by the container's own devpts, so that `tty` and `/dev/pts/N` mean
//! something there and nothing of the machine's terminals is reachable (no TIOCSTI into the caller's).
//!
//! What the container has put in the place of `/dev/pts` is not trusted: the multiplexer must be that of a devpts, and the
//! other end comes from the descriptor (TIOCGPTPEER), never by its path.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, fstat, fstatfs, makedev, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::Reporter;
use crate::sandbox::error::{Doing, Failed};
use crate::sandbox::private::tree::{attach, clone_tree};
use crate::sandbox::spec::WindowSize;
use crate::sandbox::wire::{Reply, send_reply};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: u32 = 0x1cd1;

/// Makes one for `uid`, sends the supervisor its end, and gives the container's. In the container's root, as root.
pub(super) fn open(reporter: &Reporter, size: WindowSize, uid: u32) -> Result<OwnedFd, Failed> {
    let step = || "make a terminal in /dev/pts".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = openat(CWD, "/dev/pts/ptmx", flags, Mode::empty()).doing(step)?;
    let multiplexer = fstat(&master).doing(step)?.st_rdev == makedev(5, 2)
        && fstatfs(&master).doing(step)?.f_type as u32 == DEVPTS;
    if !multiplexer {
        return Err(Failed {
            step: step(),
            errno: libc::ENOTTY,
        });
    }
    unlockpt(&master).doing(step)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = ioctl_tiocgptpeer(&master, flags).doing(step)?;
    crate::sandbox::resize(&master, size).doing(step)?;
    // The group is that of devpts' `gid` option.
    fchown(&terminal, Some(Uid::from_raw(uid)), None::<Gid>).doing(step)?;
    send_reply(&reporter.socket, &Reply::Terminal, Some(&master)).doing(step)?;
    Ok(terminal)
}

/// Shows it as `/dev/console`, as container runtimes do for the terminal of a container's first process.
pub(super) fn show_as_console(terminal: &OwnedFd) -> Result<(), Failed> {
    let step = || "mount /dev/console".to_owned();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let place = openat(CWD, "/dev/console", flags, Mode::from_raw_mode(0o600)).doing(step)?;
    clone_tree(terminal, c"", false)
        .and_then(|console| attach(&console, &place, c""))
        .doing(step)
}
