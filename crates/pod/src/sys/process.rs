//! Calls that change what the calling process is: fork beside itself, execute, reset what it inherited.
//!
//! All but [`exit_now`] are made for the stage, a process with one thread that executes soon after.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Moves this thread into new namespaces. `CLONE_FILES`, the flag that makes the call unsafe, is refused with `EINVAL`.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the table of descriptors stays shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Of linux/sched.h; the libc crate's is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// That this process has one thread, which must not start another.
pub(crate) struct OneThread(());

/// Forks a process whose parent is *our* parent, in the new namespaces of `namespaces` (`CLONE_NEW*`) and in the cgroup
/// of version 2 whose directory is given: `None` in the child, its id (as the caller sees it) and its pidfd
/// (close-on-exec) in the caller. With
/// `CLONE_PARENT` the child's exit signal is the caller's. Without a cgroup this is one call of clone(2), which filters for system
/// calls know better than clone3.
///
/// The caller must have one thread: the child gets a copy of that thread alone, and a lock that another thread held
/// would never open.
pub(crate) fn fork_sibling(
    _alone: &OneThread,
    namespaces: i32,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Option<(i32, OwnedFd)>> {
    let mut pidfd: i32 = -1;
    let flags = (libc::CLONE_PARENT | libc::CLONE_PIDFD | namespaces) as u32 as u64;
    let result = if let Some(cgroup) = cgroup {
        // SAFETY: all zeros is a valid `clone_args`: no stack of its own means a copy of ours, as fork does.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = flags | CLONE_INTO_CGROUP;
        arguments.pidfd = (&raw mut pidfd) as u64;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
        // SAFETY: without CLONE_VM the child has its own copy of the memory, and with one thread no lock is held by
        // a thread that it lacks; the arguments live across the call.
        unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &raw mut arguments,
                size_of::<libc::clone_args>(),
            )
        }
    } else {
        // SAFETY: as above; the place of the pidfd (the third argument everywhere) lives across the call, and the others are not
        // looked at.
        unsafe {
            libc::syscall(
                libc::SYS_clone,
                flags,
                0_usize,
                &raw mut pidfd,
                0_usize,
                0_usize,
            )
        }
    };
    match result {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel made the descriptor for this call and nothing else knows it.
        pid => Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))),
    }
}

/// Forks a child: `None` in the child, its id in the caller. The caller must have one thread (`EBUSY`), see [`fork_sibling`].
pub(crate) fn fork_child() -> io::Result<Option<Pid>> {
    one_thread()?;
    // SAFETY: with one thread (checked) the child's copy of the memory holds no lock of a thread that it lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Looks whether there is one thread (`EBUSY`).
pub(crate) fn one_thread() -> io::Result<OneThread> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    Ok(OneThread(()))
}

/// A NULL-terminated array of pointers to the strings, as execve wants it.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// execve(2). Returns only to say why not.
pub(crate) fn exec(path: &CStr, argv: &[CString], env: &[CString]) -> io::Result<Infallible> {
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with NULL and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Executes an open file. Returns only to say why not.
pub(crate) fn exec_fd(file: impl AsFd, argv: &[CString]) -> io::Result<Infallible> {
    let argv = pointers(argv);
    let env: [*const libc::c_char; 1] = [ptr::null()];
    // SAFETY: both arrays end with NULL and their strings outlive the call; the path is a constant.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(io::Error::last_os_error())
}

/// Ends the process at once: no destructors, no buffers. For the stage, which owns nothing that must be put back.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Every signal back to its default, none blocked: what is ignored or blocked would survive execve.
pub(crate) fn reset_signals() {
    // The kernel's `struct sigaction` with SIG_DFL, no flags, no mask. By the system call, since the C library does not
    // touch the two signals that it keeps to itself, and its posix_spawn leaves just these ignored.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the structure is as large as the kernel's and lives across the call; SIGKILL and SIGSTOP fail harmlessly.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: an emptied set is initialised, and no old set is asked for.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Gives this process a session keyring of its own, empty and without a name (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING): what
/// it inherited holds the caller's keys.
pub(crate) fn leave_session_keyring() -> io::Result<()> {
    // SAFETY: a null name is allowed, and no other memory is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<libc::c_char>(),
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Ignores SIGCHLD: the kernel then reaps every child of this process by itself, over execve too.
pub(crate) fn ignore_child_exits() {
    // SAFETY: SIG_IGN is always valid for SIGCHLD.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Marks every descriptor from `first` on close-on-exec, whoever opened it. Linux 5.11.
pub(crate) fn mark_all_close_on_exec(first: u32) -> io::Result<()> {
    // SAFETY: no memory is passed, and nothing is closed now.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from 3 on but one. For a process that is about to execute or to end: whoever owned them must not
/// be used or dropped any more.
pub(crate) fn close_all_but(kept: impl AsFd) {
    let kept = kept.as_fd().as_raw_fd() as u32;
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: no memory is passed; the owners of the descriptors are not used again (see above).
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

/// Closes every descriptor from `first` on. For a process that owns none of them any more, as above.
pub(crate) fn close_from(first: u32) {
    // SAFETY: no memory is passed; the owners of the descriptors are not used again (see above).
    unsafe { libc::syscall(libc::SYS_close_range, first.max(3), u32::MAX, 0) };
}

/// Takes a descriptor that this program was started with, by its number, and marks it close-on-exec. To be asked for once for
/// each number, in the stage, where nothing else owns them.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes a number; a number that is not open is an error.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and it was handed over by number for this one owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
