//! The program of a pod's init: some forty bytes of machine code in an ELF file that is put together here.
//!
//! The init lives as long as the pod and does nothing: it waits for the end of the pipe that the supervisor holds, then
//! exits, and the kernel kills everything in its PID namespace. Zombies need no code: SIGCHLD is ignored from before the
//! exec, so that the kernel reaps. Running podkit itself for that was rejected: relocating a program of its size
//! touches hundreds of pages, this one touches three.

use std::arch::global_asm;

// fd 0: the pipe. prctl 4 = PR_SET_DUMPABLE, 15 = PR_SET_NAME; a read that gives bytes or EINTR (-4) is repeated.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .rodata.podkit_pause,\"a\"",
    ".globl podkit_pause_start",
    ".hidden podkit_pause_start",
    "podkit_pause_start:",
    "mov eax, 157",
    "mov edi, 4",
    "xor esi, esi",
    "syscall",
    "mov eax, 157",
    "mov edi, 15",
    "lea rsi, [rip + 3f]",
    "syscall",
    "2: xor eax, eax",
    "xor edi, edi",
    "lea rsi, [rsp - 16]",
    "mov edx, 1",
    "syscall",
    "test rax, rax",
    "jg 2b",
    "cmp rax, -4",
    "je 2b",
    "mov eax, 231",
    "xor edi, edi",
    "syscall",
    "3: .asciz \"podkit-pause\"",
    ".globl podkit_pause_end",
    ".hidden podkit_pause_end",
    "podkit_pause_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .rodata.podkit_pause,\"a\"",
    ".balign 4",
    ".globl podkit_pause_start",
    ".hidden podkit_pause_start",
    "podkit_pause_start:",
    "mov x8, #167",
    "mov x0, #4",
    "mov x1, #0",
    "svc #0",
    "mov x8, #167",
    "mov x0, #15",
    "adr x1, 3f",
    "svc #0",
    "2: mov x8, #63",
    "mov x0, #0",
    "sub x1, sp, #16",
    "mov x2, #1",
    "svc #0",
    "cmp x0, #0",
    "b.gt 2b",
    "cmn x0, #4",
    "b.eq 2b",
    "mov x8, #94",
    "mov x0, #0",
    "svc #0",
    "3: .asciz \"podkit-pause\"",
    ".globl podkit_pause_end",
    ".hidden podkit_pause_end",
    "podkit_pause_end:",
    ".popsection",
);

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the pod's init is written for x86_64 and aarch64");

unsafe extern "C" {
    static podkit_pause_start: u8;
    static podkit_pause_end: u8;
}

const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    62
} else {
    183
};
const HEADER: u64 = 64;
const SEGMENT: u64 = 56;
const ADDRESS: u64 = 0x40_0000;

/// The whole ELF file (System V gABI, chapter 4): header, one loadable segment, one that says "stack not executable", code.
pub(crate) fn pause_program() -> Vec<u8> {
    let start = &raw const podkit_pause_start;
    let end = &raw const podkit_pause_end;
    // SAFETY: both symbols are in one section of this program, the start before the end.
    let code = unsafe { std::slice::from_raw_parts(start, end.offset_from(start) as usize) };
    let entry = HEADER + 2 * SEGMENT;
    let size = entry + code.len() as u64;

    let mut file = Vec::with_capacity(size as usize);
    let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend(value.to_le_bytes());
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bit, little endian
    half(&mut file, 2); // ET_EXEC
    half(&mut file, MACHINE);
    word(&mut file, 1);
    long(&mut file, ADDRESS + entry);
    long(&mut file, HEADER); // segments follow the header
    long(&mut file, 0);
    word(&mut file, 0);
    for value in [HEADER as u16, SEGMENT as u16, 2, 64, 0, 0] {
        half(&mut file, value);
    }
    word(&mut file, 1); // PT_LOAD
    word(&mut file, 5); // read, execute
    for value in [0, ADDRESS, ADDRESS, size, size, 0x1_0000] {
        long(&mut file, value);
    }
    word(&mut file, 0x6474_e551); // PT_GNU_STACK
    word(&mut file, 6); // read, write
    for value in [0, 0, 0, 0, 0, 16] {
        long(&mut file, value);
    }
    file.extend(code);
    file
}
