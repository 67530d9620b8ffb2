//! `podkit agent` around programs of this machine.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use podkit_testkit::podkit::{command, podkit};
use podkit_testkit::process::Process;
use podkit_testkit::{machine, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// An agent around a shell script.
struct Agent {
    process: Process,
    socket: PathBuf,
    dir: tempfile::TempDir,
}

impl Agent {
    fn start(flags: &[&str], script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let mut command = command(&["agent", "--socket", socket.to_str().unwrap()]);
        command.args(flags).args(["--", "sh", "-c", script]);
        command.current_dir(dir.path());
        let process = Process::spawn("podkit agent", &mut command);
        let agent = Self {
            process,
            socket,
            dir,
        };
        until("the application", || agent.said("up"));
        agent
    }

    /// Whether the application has written this file.
    fn said(&self, name: &str) -> Option<()> {
        self.dir.path().join(name).exists().then_some(())
    }

    fn ask(&self, timeout_ms: u64, words: &[&str]) -> Value {
        ask(&self.socket, timeout_ms, words)
    }
}

/// An agent around a shell script that can be asked.
pub(crate) fn around(socket: &Path, rule: &str, script: &str) -> Process {
    let mut command = command(&["agent", "--socket", socket.to_str().unwrap(), rule]);
    let process = Process::spawn("podkit agent", command.args(["--", "sh", "-c", script]));
    until("the agent", || UnixStream::connect(socket).ok());
    process
}

fn send(socket: &Path, timeout_ms: u64, words: &[&str]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    let line = json!({"words": words, "timeout-ms": timeout_ms});
    // Who refuses at once does not read it.
    stream.write_all(format!("{line}\n").as_bytes()).ok();
    stream
}

pub(crate) fn ask(socket: &Path, timeout_ms: u64, words: &[&str]) -> Value {
    let mut answer = String::new();
    let stream = send(socket, timeout_ms, words);
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Waits until a signal comes; says which, and ends with 40 and its number.
const LISTENS: &str = "\
for one in HUP USR1 USR2 WINCH; do trap \"touch $one\" $one; done
trap 'exit 55' TERM; trap 'exit 42' INT
touch up; while :; do sleep 0.02; done";

#[test]
fn the_application_gets_the_signals_and_its_exit_code_is_the_agents() {
    let mut agent = Agent::start(&[], LISTENS);
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
    ] {
        agent.process.signal(signal);
        until(name, || agent.said(name));
    }
    assert!(agent.socket.exists());
    assert_eq!(agent.process.stop(), 55);
    assert!(!agent.socket.exists(), "the socket is left");
    let mut agent = Agent::start(&[], LISTENS);
    agent.process.signal(Signal::INT);
    assert_eq!(agent.process.wait().code(), Some(42));
    let mut agent = Agent::start(&[], "touch up; kill -KILL $$");
    assert_eq!(agent.process.wait().code(), Some(128 + 9));
}

#[test]
fn what_cannot_begin_says_why_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let socket = format!("--socket={}", socket.display());
    let check = |args: &[&str], code: i32, why: &str| {
        let done = podkit(&[&["agent"], args].concat());
        assert_eq!(done.code, Some(code), "{args:?}: {}", done.err);
        assert_eq!(done.err.lines().count(), 1, "{}", done.err);
        assert!(done.err.contains(why), "{}", done.err);
    };
    check(
        &[&socket, "--", "no-such-one"],
        127,
        "there is no such program",
    );
    check(&[&socket, "--", "/etc/passwd"], 126, "it can't be executed");
    check(&[&socket], 2, "<CMD>... is missing");
    check(
        &["--socket=/no/dir/x", "--", "true"],
        1,
        "its directory is not there",
    );
    check(
        &["--socket=/etc/passwd", "--", "true"],
        1,
        "it is no socket",
    );
    check(
        &[&socket, "--allow=*", "--", "true"],
        2,
        "would allow everything",
    );
    check(&[&socket, "--timeout=1ms", "--", "true"], 2, "--timeout");
}

#[test]
fn what_is_allowed_runs_and_nothing_else() {
    let flags = [
        "--allow=echo *",
        "--allow=sh -c 'echo out; echo err >&2; exit 3'",
    ];
    let mut agent = Agent::start(&flags, LISTENS);
    let said = agent.ask(5000, &["echo", "*", "$HOME; id"]);
    assert_eq!(
        said,
        json!({"outcome": {"exited": 0}, "output": "* $HOME; id\n"})
    );
    let said = agent.ask(5000, &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(
        said,
        json!({"outcome": {"exited": 3}, "output": "out\nerr\n"})
    );
    let flag = agent.dir.path().join("ran");
    let touch = format!("touch {}", flag.display());
    for words in [
        &["sh", "-c", &touch] as &[&str],
        &["touch", flag.to_str().unwrap()],
        &["/bin/echo", "x"],
        &["echo ", "x"],
        &["sh"],
        &[],
    ] {
        let said = agent.ask(5000, words);
        assert_eq!(
            said["outcome"]["refused"], "no --allow of the agent has it",
            "{words:?}"
        );
    }
    assert!(!flag.exists());
    // More than an answer takes: the end of it is told.
    let long = "x".repeat(60_000);
    let said = agent.ask(5000, &["echo", &long]);
    assert_eq!(said["output"].as_str().unwrap().len(), 60_001);
    let long = "x".repeat(70_000);
    let said = agent.ask(5000, &["echo", &long]);
    let why = said["outcome"]["refused"].as_str().unwrap();
    assert!(why.contains("longer than 65536 bytes"), "{why}");
    assert_eq!(agent.process.stop(), 55);
}

#[test]
fn who_is_not_named_may_not_ask() {
    let mut agent = Agent::start(&["--allow=true", "--allow-uid=54321"], LISTENS);
    let said = agent.ask(5000, &["true"]);
    let why = said["outcome"]["refused"].as_str().unwrap();
    assert!(why.contains("may not ask (--allow-uid"), "{why}");
    assert_eq!(agent.process.stop(), 55);
}

#[test]
fn what_hangs_is_killed_with_all_of_its_group() {
    // Of this test only, whatever another one left.
    let sleeper = format!("sleep {}", 1_000_000 + std::process::id());
    let hang = format!("{sleeper} & {sleeper}");
    let hang = hang.as_str();
    let rule = format!("--allow=sh -c '{hang}'");
    let flags = [&rule, "--allow=true", "--max-asks=2", "--timeout=1h"];
    let mut agent = Agent::start(&flags, LISTENS);
    let sleeping = || {
        let all = machine::tree(agent.process.pid());
        let sleeps = |pid: &&u32| machine::command(**pid).trim() == sleeper;
        all.iter().filter(sleeps).count()
    };
    let said = agent.ask(300, &["sh", "-c", hang]);
    assert_eq!(said["outcome"], json!({"timed-out": 300}));
    until("no sleeper", || (sleeping() == 0).then_some(()));
    // Who asks goes: so does the command. One more than may ask is refused.
    let first = send(&agent.socket, 60_000, &["sh", "-c", hang]);
    let second = send(&agent.socket, 60_000, &["sh", "-c", hang]);
    until("sleepers", || (sleeping() == 4).then_some(()));
    let said = agent.ask(5000, &["true"]);
    let why = said["outcome"]["refused"].as_str().unwrap();
    assert!(why.contains("2 are asking already (--max-asks)"), "{why}");
    drop(first);
    until("one less", || (sleeping() == 2).then_some(()));
    let said = until("a free place", || {
        let said = agent.ask(5000, &["true"]);
        said["outcome"]["refused"].is_null().then_some(said)
    });
    assert_eq!(said["outcome"], json!({"exited": 0}));
    // The application ends: so does what still runs.
    assert_eq!(agent.process.stop(), 55);
    drop(second);
    let left = || {
        let all = machine::processes();
        all.into_iter()
            .any(|pid| machine::command(pid).trim() == sleeper)
    };
    until("nothing left", || (!left()).then_some(()));
}

#[test]
fn orphans_are_reaped() {
    let script =
        format!("for i in 1 2 3 4 5; do sh -c '(sleep 0.1 &)'; done; touch orphans; {LISTENS}");
    let mut agent = Agent::start(&[], &script);
    until("orphans", || agent.said("orphans"));
    let others = || {
        let all = machine::tree(agent.process.pid());
        let state = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let zombies = all.iter().filter(|pid| state(**pid).contains(") Z "));
        (zombies.count(), all.len())
    };
    // The agent, the application, and the sleep of the application's loop.
    until("nobody else", || {
        let (zombies, all) = others();
        (zombies == 0 && all <= 3).then_some(())
    });
    assert_eq!(agent.process.stop(), 55);
}

#[test]
fn it_weighs_little() {
    let mut agent = Agent::start(&["--allow=true"], LISTENS);
    agent.ask(5000, &["true"]);
    assert_eq!(machine::threads(agent.process.pid()), 1);
    // A debug build relocates three times as much as a release build.
    let most = if podkit_testkit::podkit::binary()
        .to_string_lossy()
        .contains("/release/")
    {
        2048
    } else {
        8192
    };
    until("it to be small", || {
        (machine::rss_kib(agent.process.pid()) <= most).then_some(())
    });
    assert_eq!(agent.process.stop(), 55);
}
