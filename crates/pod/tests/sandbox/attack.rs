//! What an attacker does inside a container: system calls with whatever arguments, and the few attempts that are more than
//! one call. Prints `WORDS: ok VALUE` or `WORDS: ERRNO`.
//!
//! No safe wrapper makes the calls that are tried here, so this file has the one `unsafe` outside `pod::sys`.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::show;

const CALLS: &[(&str, libc::c_long)] = &[
    ("acct", libc::SYS_acct),
    ("add_key", libc::SYS_add_key),
    ("bpf", libc::SYS_bpf),
    ("chroot", libc::SYS_chroot),
    ("connect", libc::SYS_connect),
    ("delete_module", libc::SYS_delete_module),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("fchdir", libc::SYS_fchdir),
    ("fchmodat", libc::SYS_fchmodat),
    ("fchownat", libc::SYS_fchownat),
    ("finit_module", libc::SYS_finit_module),
    ("fsopen", libc::SYS_fsopen),
    ("init_module", libc::SYS_init_module),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("ioctl", libc::SYS_ioctl),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("kill", libc::SYS_kill),
    ("mknodat", libc::SYS_mknodat),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("openat", libc::SYS_openat),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pivot_root", libc::SYS_pivot_root),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("ptrace", libc::SYS_ptrace),
    ("reboot", libc::SYS_reboot),
    ("setdomainname", libc::SYS_setdomainname),
    ("sethostname", libc::SYS_sethostname),
    ("setns", libc::SYS_setns),
    ("settimeofday", libc::SYS_settimeofday),
    ("socket", libc::SYS_socket),
    ("swapoff", libc::SYS_swapoff),
    ("swapon", libc::SYS_swapon),
    ("syslog", libc::SYS_syslog),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("vhangup", libc::SYS_vhangup),
    ("wait4", libc::SYS_wait4),
    #[cfg(target_arch = "x86_64")]
    ("iopl", libc::SYS_iopl),
];

/// Does `word`; false when it is none of these.
pub(super) fn act(word: &str, args: &[String]) -> bool {
    match word {
        "call" => {
            show(&format!("call {}", args.join(" ")), call_by_words(args));
        }
        "map-root" => {
            // These become root of the user namespace that was made just now.
            for (file, text) in [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("0 {} 1", args[0])),
                ("gid_map", format!("0 {} 1", args[1])),
            ] {
                show(
                    &format!("map {file}"),
                    std::fs::write(format!("/proc/self/{file}"), text),
                );
            }
        }
        "walk-write" => {
            let mut opened = Vec::new();
            walk_write(Path::new(&args[0]), &mut opened);
            opened.sort();
            println!("walk-write {}: {opened:?}", args[0]);
        }
        "execute" => {
            let status = std::process::Command::new(&args[0])
                .args(["inside", "cat", "/proc/self/status"])
                .status();
            show(&format!("execute {}", args[0]), status);
        }
        "fork-bomb" => {
            // As many processes as there may be, but for a bound that a machine without limits survives.
            let most: usize = args[0].parse().unwrap();
            let mut children = Vec::new();
            let error = loop {
                let exe = std::env::current_exe().unwrap();
                let child = std::process::Command::new(exe)
                    .args(["inside", "sleep"])
                    .spawn();
                match child {
                    Ok(child) => children.push(child),
                    Err(error) => break error.raw_os_error(),
                }
                if children.len() >= most {
                    break None;
                }
            };
            println!("fork-bomb: {} {error:?}", children.len());
            for mut child in children {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        "fds" => {
            let mut links: Vec<String> = std::fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(|entry| {
                    let entry = entry.ok()?;
                    let to = std::fs::read_link(entry.path()).ok()?;
                    Some(format!("{}={}", entry.file_name().to_str()?, to.display()))
                })
                .collect();
            links.sort();
            println!("fds {links:?}");
        }
        "watch-stages" => watch_stages(args[0].parse().unwrap()),
        _ => return false,
    }
    true
}

/// Traces stages as often as they can be met here, and says what could be had of them while they stand still: the capabilities that
/// any had, whether one had the machine's root, and the descriptors. What is traced can be made to do whatever these permit.
fn watch_stages(looks: usize) {
    println!("watching");
    let (mut met, mut capabilities, mut root, mut descriptors) =
        (0, 0, "own", std::collections::BTreeSet::new());
    let me = std::process::id();
    while met < looks {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids.filter(|pid| *pid != me && *pid != 1) {
            let is_stage = || {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with(b"podkit-stage\0"))
            };
            let words = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
            // PTRACE_SEIZE, PTRACE_INTERRUPT, and the wait until it stands still (__WALL).
            if !is_stage() || call_by_words(&words(&format!("ptrace 0x4206 {pid} 0 0"))).is_err() {
                continue;
            }
            // PTRACE_DETACH, or the end is taken note of: before that nobody else is told of it.
            let let_go = || {
                if call_by_words(&words(&format!("ptrace 17 {pid} 0 0"))).is_err() {
                    call_by_words(&words(&format!("wait4 {pid} 0 0x40000000 0"))).ok();
                }
            };
            if call_by_words(&words(&format!("ptrace 0x4207 {pid} 0 0"))).is_err() {
                let_go();
                continue;
            }
            call_by_words(&words(&format!("wait4 {pid} 0 0x40000000 0"))).unwrap();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            let value = status.as_ref().ok().and_then(|status| {
                let value = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
                u64::from_str_radix(value?.trim(), 16).ok()
            });
            if let (true, Some(value)) = (is_stage(), value) {
                met += 1;
                capabilities |= value;
                if Path::new(&format!("/proc/{pid}/root/proc/driver/root")).exists() {
                    root = "machine's";
                }
                let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
                descriptors.extend(links.flatten().filter_map(|entry| {
                    let link = std::fs::read_link(entry.path()).ok()?;
                    let link = link.to_string_lossy();
                    Some(link.split(':').next().unwrap_or_default().to_owned())
                }));
            }
            let_go();
        }
    }
    println!("stages: {capabilities:016x} {descriptors:?}");
    println!("root: {root}");
}

/// `NAME ARG...`
pub(crate) fn call_by_words(words: &[String]) -> io::Result<libc::c_long> {
    let number = CALLS.iter().find(|(name, _)| *name == words[0]);
    let (_, number) = number.expect("a known call");
    call(*number, &words[1..])
}

/// Arguments: a number; `s:TEXT`, a string; `z:N`, N zero bytes; `x:HEX`, bytes; `v:N`, an iovec of N zero bytes.
fn call(number: libc::c_long, args: &[String]) -> io::Result<libc::c_long> {
    let mut words = [0; 6];
    for (word, arg) in words.iter_mut().zip(args) {
        // The memory is never given back, so that whatever the kernel does with it is sound.
        *word = match arg.split_at_checked(2) {
            Some(("s:", text)) => CString::new(text).unwrap().into_raw() as libc::c_long,
            Some(("z:", size)) => leak(&vec![0; size.parse().unwrap()]),
            Some(("x:", hex)) => leak(&bytes(hex)),
            Some(("v:", size)) => {
                let size: usize = size.parse().unwrap();
                let mut vector = leak(&vec![0; size]).to_ne_bytes().to_vec();
                vector.extend(size.to_ne_bytes());
                leak(&vector)
            }
            Some(("0x", hex)) => libc::c_long::from_str_radix(hex, 16).unwrap(),
            _ => arg.parse().unwrap(),
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: every pointer among the arguments is to memory of its own that is never freed, as large as the test says;
    // none of the calls of the table changes other memory of this process.
    #[expect(unsafe_code, reason = "see the file's text")]
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn leak(bytes: &[u8]) -> libc::c_long {
    // Aligned for whatever structure it is.
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(whole);
    }
    words.leak().as_mut_ptr() as libc::c_long
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// Opens every file below `dir` that has a right to write in its mode (to the others nothing listens) for writing, without
/// writing, and notes those that opened. Not those of processes, and not beyond links.
fn walk_write(dir: &Path, opened: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let of_process = name
            .to_str()
            .is_some_and(|name| name.parse::<u32>().is_ok());
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            if !(of_process && dir == Path::new("/proc")) {
                walk_write(&path, opened);
            }
        } else if kind.is_file()
            && path
                .metadata()
                .is_ok_and(|metadata| metadata.mode() & 0o222 != 0)
            && std::fs::OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(&path)
                .is_ok()
        {
            opened.push(path);
        }
    }
}
