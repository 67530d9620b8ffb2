//! Terminals: of a container's first process, and of commands.

use std::fs::File;
use std::io::{Read, Write};

use podkit_pod::sandbox::{
    ExecSpec, ExitStatus, PrivateMounts, Process, StartError, Stdio, WindowSize, resize,
};

use crate::support::*;

const SIZE: WindowSize = WindowSize {
    rows: 24,
    columns: 80,
};

/// Reads until the other end is closed by all who had it.
fn rest(terminal: &mut File) -> String {
    let mut text = Vec::new();
    match terminal.read_to_end(&mut text) {
        Err(error) if error.raw_os_error() != Some(libc::EIO) => panic!("{error}"),
        _ => String::from_utf8(text).unwrap().replace("\r\n", "\n"),
    }
}

/// Reads until a line says so.
fn until(terminal: &mut File, part: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(part) {
        let count = terminal.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text.replace("\r\n", "\n")
}

fn terminal(process: &Process) -> File {
    let terminal = process.take_terminal().expect("a terminal");
    assert!(process.take_terminal().is_none());
    assert!(
        rustix::io::fcntl_getfd(&terminal)
            .unwrap()
            .contains(rustix::io::FdFlags::CLOEXEC)
    );
    terminal.into()
}

pub(super) fn terminal_of_a_container(private: &PrivateMounts) {
    let pod = pod(private);
    let mut container = inside(
        "terminal ; stat /dev/console ; cat /proc/self/stat ; line ; terminal ; wait-signal 28 ; terminal ; exit 3",
    );
    container.security.uid = Some(1000);
    container.stdio = Stdio::Terminal(SIZE);
    let process = pod.start(&container).unwrap();
    let mut output = terminal(&process);
    let text = until(&mut output, "reading a line");
    has(&text, "terminal /dev/pts/0 owner 1000:5 24x80, controlling");
    // The same device.
    has(&text, "stat /dev/console: ok \"char 620 8800\"");
    // What is typed is echoed, and a line at a time.
    output.write_all(b"typed\r").unwrap();
    has(
        &until(&mut output, "ready for 28"),
        "typed\nline \"typed\"\n",
    );
    let larger = WindowSize {
        rows: 50,
        columns: 132,
    };
    resize(&output, larger).unwrap();
    has(
        &rest(&mut output),
        "signal 28\nterminal /dev/pts/0 owner 1000:5 50x132, controlling",
    );
    assert_eq!(finish(&process), ExitStatus::Code(3));
    pod.destroy(LONG).unwrap();
}

pub(super) fn terminal_of_a_command(private: &PrivateMounts) {
    let pod = pod(private);
    let mut container = inside("sleep");
    container.security.read_only_root = true;
    let (process, _output) = start(&pod, container);
    let command = |words: &str| ExecSpec {
        argv: argv(words),
        stdio: Stdio::Terminal(SIZE),
    };
    // Several at a time, each its own; the interrupt key reaches the right one.
    let first = pod.exec(&process, &command("terminal ; sleep")).unwrap();
    let second = pod.exec(&process, &command("terminal ; sleep")).unwrap();
    let (mut one, mut two) = (terminal(&first), terminal(&second));
    // The group tty, where it exists.
    let ids = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    let one_id = ids.split_whitespace().last() == Some("1");
    let group = if one_id { 0 } else { 5 };
    for (terminal, number) in [(&mut one, 0), (&mut two, 1)] {
        has(
            &until(terminal, "controlling"),
            &format!("terminal /dev/pts/{number} owner 0:{group} 24x80"),
        );
    }
    one.write_all(b"\x03").unwrap();
    assert_eq!(finish(&first), ExitStatus::Signal(2));
    assert_eq!(second.try_wait().unwrap(), None);
    // Closing it hangs the command up.
    drop(two);
    assert_eq!(finish(&second), ExitStatus::Signal(1));

    // A program that is not there says so, whatever its standard output would have been.
    let missing = ExecSpec {
        argv: vec!["curl".into()],
        stdio: Stdio::Terminal(SIZE),
    };
    assert!(matches!(
        pod.exec(&process, &missing),
        Err(StartError::NotFound(_))
    ));
    // Without a terminal there is none.
    assert!(process.take_terminal().is_none());
    pod.destroy(LONG).unwrap();
}
