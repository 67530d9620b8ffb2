//! Which devices a container may open, whatever nodes it makes: those that every container has.
//!
//! Its mounts are `nodev`, so this is the second line: who has CAP_SYS_ADMIN can mount a file system where nodes mean
//! something. Version 1 has a controller with a list, version 2 asks a program that is attached to the group. On a hybrid
//! machine the program does, so that no further hierarchy has to be joined.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

use super::tree::write;
use crate::sys;

/// Character devices: major and minor number, none: every one. (runc: `specconv.AllowedDevices`, containerd:
/// `WithDefaultUnixDevices`.)
const ALLOWED: [(u32, Option<u32>); 9] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pts
];

/// The list, written to a group of version 1: nothing, then making any node, then those. (Kernel documentation,
/// cgroup-v1/devices.rst)
pub(super) fn guard_v1(dir: &Path) -> Result<(), String> {
    write(dir, "devices.deny", "a")?;
    for any in ["c *:* m", "b *:* m"] {
        write(dir, "devices.allow", any)?;
    }
    for (major, minor) in ALLOWED {
        let minor = minor.map_or("*".to_owned(), |minor| minor.to_string());
        write(dir, "devices.allow", &format!("c {major}:{minor} rwm"))?;
    }
    Ok(())
}

/// The program, loaded.
pub(super) fn load() -> io::Result<OwnedFd> {
    sys::load_device_program(&program())
}

/// Attaches it to a group of version 2, in place of an earlier one.
pub(super) fn guard_v2(dir: &Path, program: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    sys::attach_device_program(open(dir, flags, Mode::empty())?, program)
}

// Instruction codes. (RFC 9669: class, source and operation of each)
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xb4;
const JUMP_EQUAL: u8 = 0x16;
const JUMP_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_ACC_MKNOD` and `BPF_DEVCG_DEV_CHAR` of linux/bpf.h.
const MKNOD: i32 = 1;
const CHARACTER: i32 = 2;

/// The same list as a program: it gets `struct bpf_cgroup_dev_ctx` (access and type, major, minor) in register 1 and ends with
/// 1 (yes) or 0 in register 0.
pub(super) fn program() -> Vec<[u8; 8]> {
    let code = |operation: u8, to: u8, from: u8, offset: i16, value: i32| -> [u8; 8] {
        let [o0, o1] = offset.to_ne_bytes();
        let [v0, v1, v2, v3] = value.to_ne_bytes();
        // Two registers in a byte, the first in the lower half on little-endian machines.
        let registers = if cfg!(target_endian = "little") {
            from << 4 | to
        } else {
            to << 4 | from
        };
        [operation, registers, o0, o1, v0, v1, v2, v3]
    };
    let mut program = vec![
        // 2: type, 3: access, 4: major, 5: minor
        code(LOAD_WORD, 2, 1, 0, 0),
        code(LOAD_WORD, 3, 1, 0, 0),
        code(AND, 2, 0, 0, 0xffff),
        code(SHIFT_RIGHT, 3, 0, 0, 16),
        code(LOAD_WORD, 4, 1, 4, 0),
        code(LOAD_WORD, 5, 1, 8, 0),
        // A node may be made, of whatever: it opens nothing.
        code(MOVE, 0, 0, 0, 1),
        code(JUMP_NOT_EQUAL, 3, 0, 1, MKNOD),
        code(EXIT, 0, 0, 0, 0),
        code(JUMP_EQUAL, 2, 0, 2, CHARACTER),
        code(MOVE, 0, 0, 0, 0),
        code(EXIT, 0, 0, 0, 0),
    ];
    for (major, minor) in ALLOWED {
        // Past the "yes" of this device, which is in register 0 already.
        match minor {
            Some(minor) => {
                program.push(code(JUMP_NOT_EQUAL, 4, 0, 2, major as i32));
                program.push(code(JUMP_NOT_EQUAL, 5, 0, 1, minor as i32));
            }
            None => program.push(code(JUMP_NOT_EQUAL, 4, 0, 1, major as i32)),
        }
        program.push(code(EXIT, 0, 0, 0, 0));
    }
    program.push(code(MOVE, 0, 0, 0, 0));
    program.push(code(EXIT, 0, 0, 0, 0));
    program
}
