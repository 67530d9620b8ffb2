use std::os::fd::AsFd;

use super::*;

#[test]
fn the_pause_program_is_small_and_starts_at_its_code() {
    let file = pause_program();
    assert!(file.len() < 512, "{} bytes", file.len());
    let entry = u64::from_le_bytes(file[24..32].try_into().unwrap());
    assert_eq!(entry, 0x40_0000 + 64 + 112);
    assert!(file.ends_with(b"podkit-pause\0"));
}

/// The code itself: it waits as long as the pipe is open, ignores bytes, and ends with 0 at the end of the pipe.
#[test]
fn the_pause_program_ends_with_its_pipe() {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pause");
    std::fs::write(&path, pause_program()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = Command::new(&path).stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(b"ignored").unwrap();
    let comm = loop {
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
        if comm == "podkit-pause\n" || child.try_wait().unwrap().is_some() {
            break comm;
        }
        std::thread::yield_now();
    };
    assert_eq!(comm, "podkit-pause\n");
    assert!(child.try_wait().unwrap().is_none());
    drop(pipe);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn spawn_keeps_what_it_is_told_to() {
    let program = std::fs::File::open("/bin/sh").unwrap();
    let (read, write) = std::io::pipe().unwrap();
    // Not `>&N`: dash takes one digit there.
    let number = std::os::fd::AsRawFd::as_raw_fd(&write);
    let script = format!("echo kept >/proc/self/fd/{number}");
    let argv: Vec<_> = ["sh", "-c", &script]
        .map(|w| std::ffi::CString::new(w).unwrap())
        .into();
    let pid = spawn(program.as_fd(), &argv, &[write.as_fd()]).unwrap();
    drop(write);
    assert_eq!(std::io::read_to_string(read).unwrap(), "kept\n");
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
}

#[test]
fn a_threaded_process_does_not_fork() {
    // The test harness has several threads.
    let waiting = std::thread::spawn(std::thread::park);
    assert_eq!(
        one_thread().err().and_then(|error| error.raw_os_error()),
        Some(libc::EBUSY)
    );
    waiting.thread().unpark();
    waiting.join().unwrap();
}
