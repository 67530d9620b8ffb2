//! bpf(2), as far as a cgroup of version 2 needs it to hold its processes to some devices: a program is loaded, and attached.
//!
//! The program itself is data, put together by `cgroup::devices`; the kernel checks it before it runs (and so nothing here has
//! to trust it). A library for eBPF was rejected: two calls with a structure of a few fields are all there is.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `BPF_PROG_LOAD`, `BPF_PROG_ATTACH`, `BPF_PROG_TYPE_CGROUP_DEVICE`, `BPF_CGROUP_DEVICE` of linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;

/// The part of `union bpf_attr` for loading that is used; the kernel takes the rest as zero.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// Likewise for attaching. Flags 0: it takes the place of the one before, and no group below may loosen it.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the structure begins with the fields that the command reads, its size is given, and it and what it points to
    // live across the call; neither command writes to it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Loads a program that decides over devices: instructions as `struct bpf_insn` has them, 8 bytes each. Needs CAP_BPF (or
/// CAP_SYS_ADMIN) of the initial user namespace, and a kernel with `CONFIG_CGROUP_BPF`.
pub(crate) fn load_device_program(instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    let fd = bpf(
        PROG_LOAD,
        &Load {
            prog_type: TYPE_CGROUP_DEVICE,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: c"Apache".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
        },
    )?;
    // SAFETY: the kernel made the descriptor (close-on-exec) for this call and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches it to the cgroup whose directory is given.
pub(crate) fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    bpf(
        PROG_ATTACH,
        &Attach {
            target_fd: cgroup.as_fd().as_raw_fd() as u32,
            attach_bpf_fd: program.as_fd().as_raw_fd() as u32,
            attach_type: ATTACH_CGROUP_DEVICE,
            attach_flags: 0,
        },
    )
    .map(drop)
}
