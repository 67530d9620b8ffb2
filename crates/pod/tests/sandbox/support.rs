//! Small things that the cases share.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use podkit_pod::image::Root;
use podkit_pod::sandbox::{
    ContainerStart, ExecSpec, ExitStatus, PodSandbox, PrivateMounts, Process, SandboxSpec, Stdio,
};

pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn pod(private: &PrivateMounts) -> PodSandbox {
    PodSandbox::create(private, SandboxSpec::new("testpod")).expect("create a pod")
}

pub(crate) fn shared_pod(private: &PrivateMounts) -> PodSandbox {
    let spec = SandboxSpec {
        share_process_namespace: true,
        ..SandboxSpec::new("testpod")
    };
    PodSandbox::create(private, spec).expect("create a pod")
}

/// `/podkit inside WORDS` on podkit's own image.
pub(crate) fn inside(words: &str) -> ContainerStart {
    ContainerStart::new(Root::Itself, argv(words))
}

pub(crate) fn argv(words: &str) -> Vec<String> {
    ["/podkit", "inside"]
        .into_iter()
        .chain(words.split_whitespace())
        .map(str::to_owned)
        .collect()
}

/// A pipe whose writing end is standard output and error.
pub(crate) fn captured() -> (File, Stdio) {
    let (read, write) = std::io::pipe().unwrap();
    let write = OwnedFd::from(write);
    let stdio = Stdio::Fds {
        stdin: None,
        stdout: Some(write.try_clone().unwrap()),
        stderr: Some(write),
    };
    (File::from(OwnedFd::from(read)), stdio)
}

/// Starts, and gives the process with the reading end of its output.
pub(crate) fn start(pod: &PodSandbox, mut start: ContainerStart) -> (Process, File) {
    let (output, stdio) = captured();
    start.stdio = stdio;
    (pod.start(&start).expect("start a container"), output)
}

/// Starts, waits for the end, and gives all output.
pub(crate) fn run(pod: &PodSandbox, container: ContainerStart) -> (ExitStatus, String) {
    let (process, mut output) = start(pod, container);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    (finish(&process), text)
}

/// Runs a command in a container.
pub(crate) fn exec(pod: &PodSandbox, process: &Process, words: &str) -> (ExitStatus, String) {
    let (mut output, stdio) = captured();
    let spec = ExecSpec {
        argv: argv(words),
        stdio,
    };
    let process = pod.exec(process, &spec).expect("exec");
    drop(spec);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    (finish(&process), text)
}

pub(crate) fn finish(process: &Process) -> ExitStatus {
    process
        .wait_timeout(LONG)
        .unwrap()
        .expect("the process ends")
}

/// The line of `text` that begins with `start`, without it.
pub(crate) fn field<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(start))
        .unwrap_or_else(|| panic!("no {start:?} in:\n{text}"))
        .trim()
}

#[track_caller]
pub(crate) fn has(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in:\n{text}");
}

/// Waits until `done`, and fails when that takes too long.
#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "{what} took too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads up to the end of a line that has `part`.
pub(crate) fn read_until(output: &mut File, part: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.lines().any(|line| line.contains(part)) || !text.ends_with('\n') {
        let count = output.read(&mut buffer).unwrap();
        assert!(count > 0, "{part:?} is not in:\n{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}
