//! Starts a program from an open file, with chosen descriptors kept open under their own numbers.
//!
//! By posix_spawn: glibc makes the child with CLONE_VM|CLONE_VFORK, so that the cost does not grow with the caller's
//! memory and no code of ours runs between clone and exec of a threaded process. `std::process::Command` was rejected: it
//! can keep a descriptor open only by `pre_exec`, which makes it fork.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::process::Pid;

/// The parts of a spawn that have to be freed.
struct Actions(libc::posix_spawn_file_actions_t);
struct Attributes(libc::posix_spawnattr_t);

fn check(code: i32) -> io::Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: init fills what it is given or fails.
        unsafe {
            check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            Ok(Self(actions.assume_init()))
        }
    }

    /// The descriptor stays open in the child. (dup2 onto itself in a file action clears close-on-exec, by POSIX.)
    fn keep(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let number = fd.as_raw_fd();
        // SAFETY: initialised in `new`.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, number, number) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

impl Attributes {
    /// Every signal at its default, none blocked.
    fn new() -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: each init fills what it is given; the sets are read before they go.
        unsafe {
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut this = Self(attributes.assume_init());
            let (mut none, mut all): (libc::sigset_t, libc::sigset_t) =
                (std::mem::zeroed(), std::mem::zeroed());
            libc::sigemptyset(&raw mut none);
            libc::sigfillset(&raw mut all);
            check(libc::posix_spawnattr_setsigmask(
                &raw mut this.0,
                &raw const none,
            ))?;
            check(libc::posix_spawnattr_setsigdefault(
                &raw mut this.0,
                &raw const all,
            ))?;
            let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
            check(libc::posix_spawnattr_setflags(
                &raw mut this.0,
                flags as libc::c_short,
            ))?;
            Ok(this)
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

/// Executes the file `program` with an empty environment. The child keeps 0, 1, 2, what was never close-on-exec, and `keep`.
pub(crate) fn spawn(
    program: BorrowedFd<'_>,
    argv: &[CString],
    keep: &[BorrowedFd<'_>],
) -> io::Result<Pid> {
    let mut actions = Actions::new()?;
    for fd in keep {
        actions.keep(*fd)?;
    }
    let attributes = Attributes::new()?;
    // The path is opened by the child, before its close-on-exec descriptors go.
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    let argv: Vec<*mut libc::c_char> = argv
        .iter()
        .map(|word| word.as_ptr().cast_mut())
        .chain([ptr::null_mut()])
        .collect();
    let env: [*mut libc::c_char; 1] = [ptr::null_mut()];
    let mut pid: libc::pid_t = 0;
    // SAFETY: the arrays end with NULL, their strings outlive the call, posix_spawn does not write to them.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            argv.as_ptr(),
            env.as_ptr(),
        )
    })?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn gave no process id"))
}
