//! seccomp(2): from here on the kernel runs a program before each system call of this process, over execve and fork.

use std::io;

/// Installs a filter: instructions as the kernel has them (`struct sock_filter`), each as one little-endian number. Needs
/// no_new_privs or CAP_SYS_ADMIN. Can't be undone; the kernel refuses (`EINVAL`) a program that could run off its end.
pub(crate) fn install_filter(program: &[u64], flags: u32) -> io::Result<()> {
    let filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|bits| libc::sock_filter {
            code: *bits as u16,
            jt: (bits >> 16) as u8,
            jf: (bits >> 24) as u8,
            k: (bits >> 32) as u32,
        })
        .collect();
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program and its instructions live across the call, which copies and checks them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
