//! Pods in the background, and the commands that reach them.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use podkit_testkit::machine;
use podkit_testkit::podkit::{Pod, command, podkit};
use podkit_testkit::process::{Finished, Process, Stream};
use podkit_testkit::until;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::ground::{Ground, lib_dir, manifest, run_dir, terminal};

/// A detached pod with this spec, ready; stopped when the test fails.
struct Detached {
    _dir: tempfile::TempDir,
}

impl Detached {
    fn start(spec: &str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pod.yaml");
        std::fs::write(&file, manifest(spec)).unwrap();
        let mut all = vec!["run", "-d", file.to_str().unwrap()];
        all.extend(args);
        let started = podkit(&all);
        assert_eq!(started.code, Some(0), "{}", started.err);
        assert!(
            started.out.starts_with("pod/e2e started\n"),
            "{}",
            started.out
        );
        Self { _dir: dir }
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if [run_dir(), lib_dir()]
            .iter()
            .any(|dir| dir.join("pods/e2e").exists())
        {
            podkit(&["stop", "e2e", "--force"]);
        }
    }
}

const TWO: &str = "terminationGracePeriodSeconds: 5
containers:
- name: app
  image: none
  command: [sh, -c, 'trap \"echo bye; exit 0\" TERM; echo up; echo trouble >&2; while :; do sleep 0.02; done']
  readinessProbe:
    exec: {command: ['true']}
- name: two
  image: none
  command: [sleep, infinity]";

fn ok(args: &[&str]) -> String {
    let done: Finished = podkit(args);
    assert_eq!(done.code, Some(0), "{args:?}: {}{}", done.out, done.err);
    done.out
}

/// The words of a pod's line.
fn ps() -> Vec<String> {
    let text = ok(&["ps", "--no-headers"]);
    text.split_whitespace().map(str::to_owned).collect()
}

/// Who waits for the end of a lock or a pipe that the caller had open does not wait for the pod; and what the supervisor needs for
/// itself is not the containers'.
#[test]
fn a_detached_pod_holds_nothing_of_its_caller() {
    let Some(_ground) = Ground::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (file, lock) = (dir.path().join("pod.yaml"), dir.path().join("lock"));
    std::fs::write(&file, manifest(TWO)).unwrap();
    std::fs::write(&lock, "").unwrap();
    let script = "ulimit -Sn 512; exec 9<\"$1\"; exec \"$2\" run -d --wait \"$3\"";
    let started = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&lock, podkit_testkit::podkit::binary(), &file])
        .output()
        .unwrap();
    let _pod = Detached { _dir: dir };
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(started.status.success(), "{said}");
    let pod: Value = serde_json::from_str(&ok(&["ps", "e2e", "-o", "json"])).unwrap();
    let supervisor = pod["metadata"]["annotations"]["podkit.dev/supervisor"].as_str();
    let open = format!("/proc/{}/fd", supervisor.expect("a supervisor"));
    let held = std::fs::read_dir(open).unwrap().flatten();
    let held = held.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    assert!(
        !held.into_iter().any(|held| held == lock),
        "the supervisor holds the caller's lock"
    );
    assert_eq!(
        ok(&["exec", "e2e", "--", "sh", "-c", "ulimit -Sn"]),
        "512\n"
    );
    ok(&["stop", "e2e"]);
}

#[test]
fn a_detached_pod_is_listed_read_and_stopped() {
    let Some(ground) = Ground::new() else { return };
    let _pod = Detached::start(TWO, &["--wait"]);
    assert_eq!(ps()[..4], ["e2e", "2/2", "Running", "0"]);
    assert!(ok(&["ps", "-o", "wide"]).contains("SUPERVISOR"));
    assert_eq!(ok(&["ps", "-o", "name"]), "pod/e2e\n");
    let pod: Value = serde_json::from_str(&ok(&["ps", "pod/e2e", "-o", "json"])).unwrap();
    assert_eq!(
        (&pod["kind"], &pod["apiVersion"]),
        (&"Pod".into(), &"v1".into())
    );
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["spec"]["containers"][0]["name"], "app");

    let logs = |args: &[&str]| {
        let mut all = vec!["logs", "e2e", "-c", "app"];
        all.extend(args);
        ok(&all)
    };
    until("both lines", || {
        (logs(&[]).lines().count() == 2).then_some(())
    });
    let mut lines: Vec<String> = logs(&[]).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["trouble", "up"]);
    assert_eq!(logs(&["--tail", "1"]).lines().count(), 1);
    assert!(logs(&["--prefix"]).contains("[pod/e2e/app] up"));
    assert_eq!(logs(&["--since-time", "2999-01-01T00:00:00Z"]), "");

    let met = ok(&["wait", "e2e", "--for=condition=Ready", "--timeout", "20s"]);
    assert_eq!(met, "pod/e2e condition met\n");
    let phase = "--for=jsonpath={.status.phase}=Running";
    assert_eq!(ok(&["wait", "e2e", phase]), "pod/e2e condition met\n");
    let never = podkit(&["wait", "e2e", "--for=jsonpath={.x}=y", "--timeout", "100ms"]);
    assert_eq!(never.code, Some(1));
    assert!(
        never
            .err
            .contains("timed out waiting for the condition on pods/e2e")
    );
    let events = ok(&["events", "e2e"]);
    assert!(
        events.starts_with("LAST SEEN   TYPE     REASON"),
        "{events}"
    );
    assert!(events.contains("Started container two"), "{events}");
    let described = ok(&["describe", "e2e"]);
    for part in [
        "Name:",
        "Conditions:",
        "Readiness:",
        "exec [true] delay=0s",
        "Events:",
    ] {
        assert!(described.contains(part), "{part}: {described}");
    }
    let missing = podkit(&["exec", "e2f", "--", "true"]);
    assert_eq!(missing.code, Some(1));
    assert!(
        missing
            .err
            .contains("pods \"e2f\" not found; did you mean \"e2e\"?")
    );

    let followed = std::thread::spawn(|| ok(&["logs", "-f", "e2e", "-c", "app"]));
    assert_eq!(ok(&["stop", "e2e"]), "pod/e2e stopped\n");
    assert!(followed.join().unwrap().contains("up\n"));
    assert_eq!(ps(), Vec::<String>::new());
    ground.assert_clean();
}

#[test]
fn who_watches_sleeps_until_something_happens() {
    let Some(ground) = Ground::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").display().to_string();
    let follow = |args: &[&str]| {
        let mut command = command(&[args, &["--state-dir", &state]].concat());
        Process::spawn(args[0], &mut command)
    };
    let ps = follow(&["ps", "-w"]);
    let spec = "terminationGracePeriodSeconds: 5
containers:
- name: app
  image: none
  command: [sh, -c, 'trap \"echo bye; sleep 1; exit 0\" TERM; sleep infinity & wait']";
    let mut pod = Pod::run_text(&manifest(spec), &["--state-dir", &state]);
    pod.wait_ready();
    let mut logs = follow(&["logs", "-f", "e2e"]);
    ps.wait_line("the pod", |line| line.contains("Running"));
    // Who looks again and again is put to sleep as often.
    let switches = || {
        let of = |process: &Process| {
            let status = format!("/proc/{}/status", process.pid());
            let status = std::fs::read_to_string(status).unwrap();
            let mut lines = status.lines();
            let line = lines.find(|line| line.starts_with("voluntary_ctxt_switches:"));
            line.unwrap().to_owned()
        };
        (of(&ps), of(&logs))
    };
    until("both sleep", || {
        let before = switches();
        std::thread::sleep(Duration::from_secs(1));
        (switches() == before).then_some(())
    });
    assert_eq!(pod.stop(), 0);
    assert!(logs.wait().success());
    assert_eq!(logs.text(Stream::Out), "bye");
    ps.wait_line("its end", |line| line.contains("Terminating"));
    let said = ps.text(Stream::Out);
    assert!(!said.contains("<unknown>"), "{said}");
    drop(ps);
    ground.assert_clean();
}

#[test]
fn a_command_has_its_own_streams_and_exit_code() {
    let Some(ground) = Ground::new() else { return };
    let _pod = Detached::start(TWO, &["--wait"]);
    let done = podkit(&[
        "exec",
        "e2e",
        "-c",
        "two",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!((done.code, done.out.as_str()), (Some(7), "out\n"));
    assert_eq!(done.err, "err\ncommand terminated with exit code 7\n");
    // Standard input is passed on to its end, and more than pipes hold.
    let mut cat = command(&["exec", "-i", "e2e", "-c", "two", "--", "sh", "-c", "wc -c"]);
    let mut cat = cat
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cat.stdin
        .take()
        .unwrap()
        .write_all(&vec![b'x'; 1 << 20])
        .unwrap();
    let out = cat.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "1048576");
    let none = podkit(&["exec", "e2e", "-c", "two", "--", "no-such-program"]);
    assert_eq!(none.code, Some(1));
    assert!(
        none.err.contains("executable file not found in $PATH"),
        "{}",
        none.err
    );
    // Whoever leaves takes the command along.
    let mut left = command(&["exec", "e2e", "-c", "two", "--", "sleep", "7117"]);
    let mut left = left.stdout(Stdio::null()).spawn().unwrap();
    let runs = || {
        ok(&[
            "exec",
            "e2e",
            "-c",
            "two",
            "--",
            "sh",
            "-c",
            "cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
        ])
    };
    until("the command", || {
        runs().contains("sleep 7117").then_some(())
    });
    left.kill().unwrap();
    left.wait().unwrap();
    until("its end", || {
        (!runs().contains("sleep 7117 ")).then_some(())
    });
    ok(&["stop", "e2e", "--force"]);
    ground.assert_clean();
}

#[test]
fn an_interactive_command_has_a_real_terminal() {
    use rustix::termios::{Winsize, tcsetwinsize};
    let Some(ground) = Ground::new() else { return };
    let _pod = Detached::start(TWO, &["--wait"]);
    let (ours, theirs) = terminal();
    let size = |rows, columns| Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&ours, size(33, 77)).unwrap();
    let before = rustix::termios::tcgetattr(&theirs).unwrap();
    let mut exec = command(&["exec", "-it", "e2e", "-c", "two", "--", "sh"]);
    let end = || Stdio::from(theirs.try_clone().unwrap());
    let mut exec = exec
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    let mut ours = std::fs::File::from(ours);
    let mut said = String::new();
    let mut wait_for = |ours: &mut std::fs::File, part: &str| {
        let mut buffer = [0; 4096];
        while !said.contains(part) {
            let count = ours.read(&mut buffer).unwrap();
            said.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        said.clear();
    };
    // Computed, so that the echo of what is typed is not taken for the answer.
    let type_line = |ours: &mut std::fs::File, line: &str| {
        ours.write_all(format!("{line}\n").as_bytes()).unwrap();
    };
    type_line(&mut ours, "echo ready$((40+2))");
    wait_for(&mut ours, "ready42");
    type_line(&mut ours, "stty size");
    wait_for(&mut ours, "33 77");
    tcsetwinsize(&ours, size(40, 100)).unwrap();
    // The terminal is nobody's controlling one here, so that the kernel tells nobody.
    let pid = Pid::from_child(&exec);
    rustix::process::kill_process(pid, Signal::WINCH).unwrap();
    until("the new size", || {
        type_line(&mut ours, "echo at $(stty size) end");
        let mut buffer = [0; 4096];
        let count = ours.read(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count])
            .contains("40 100")
            .then_some(())
    });
    type_line(
        &mut ours,
        "echo sleeping$((1+1)); sleep 7118; echo woken$((1+2))",
    );
    wait_for(&mut ours, "sleeping2");
    // Before it is executed the shell has given the terminal to it; a Ctrl-C between those two would end nothing.
    until("the sleep", || {
        let sleeps = |pid: &u32| machine::command(*pid) == "sleep 7118";
        machine::processes().iter().any(sleeps).then_some(())
    });
    ours.write_all(b"\x03").unwrap();
    type_line(&mut ours, "echo back$((1+3))");
    wait_for(&mut ours, "back4");
    type_line(&mut ours, "exit 5");
    assert_eq!(exec.wait().unwrap().code(), Some(5));
    let after = rustix::termios::tcgetattr(&theirs).unwrap();
    assert_eq!(
        after.local_modes, before.local_modes,
        "the terminal is as it was"
    );
    ok(&["stop", "e2e", "--force"]);
    ground.assert_clean();
}

#[test]
fn a_pod_that_has_ended_stays_until_it_is_stopped() {
    let Some(ground) = Ground::new() else { return };
    let _pod = Detached::start(
        "restartPolicy: Never
containers:
- name: app
  image: none
  command: [sh, -c, 'echo done; exit 3']",
        &[],
    );
    until("the end", || {
        (ps().get(2).map(String::as_str) == Some("Error")).then_some(())
    });
    until("its record", || {
        lib_dir().join("pods/e2e/ended.json").exists().then_some(())
    });
    assert_eq!(ok(&["logs", "e2e"]), "done\n");
    assert!(ok(&["describe", "e2e"]).contains("Exit Code:    3"));
    assert!(ok(&["events", "e2e"]).contains("Started container app"));
    let exec = podkit(&["exec", "e2e", "--", "true"]);
    assert!(
        exec.err.contains("has ended: its phase is Failed"),
        "{}",
        exec.err
    );
    // A new one of the same name takes its place.
    drop(Detached::start(
        "containers:\n- name: app\n  image: none\n  command: [sleep, infinity]",
        &["--wait"],
    ));
    ground.assert_clean();
}

#[test]
fn a_killed_supervisor_is_seen_and_cleaned_up() {
    let Some(ground) = Ground::new() else { return };
    let _pod = Detached::start(TWO, &["--wait"]);
    let pod: Value = serde_json::from_str(&ok(&["ps", "e2e", "-o", "json"])).unwrap();
    let supervisor = &pod["metadata"]["annotations"]["podkit.dev/supervisor"];
    let pid = supervisor
        .as_str()
        .unwrap()
        .parse()
        .ok()
        .and_then(Pid::from_raw);
    rustix::process::kill_process(pid.unwrap(), Signal::KILL).unwrap();
    until("it to be seen", || {
        (ps().get(2).map(String::as_str) == Some("ContainerStatusUnknown")).then_some(())
    });
    assert!(ok(&["logs", "e2e", "-c", "app"]).contains("up\n"));
    let exec = podkit(&["exec", "e2e", "--", "true"]);
    assert_eq!(exec.code, Some(1));
    assert!(exec.err.contains("supervisor"), "{}", exec.err);
    assert_eq!(ok(&["stop", "e2e"]), "pod/e2e removed\n");
    assert_eq!(ps(), Vec::<String>::new());
    ground.assert_clean();
}

/// The bytes that a client of version 1 sends, and what it reads.
#[test]
fn an_older_client_is_understood_and_a_newer_one_told() {
    let Some(ground) = Ground::new() else { return };
    let _pod = Detached::start(TWO, &["--wait"]);
    let ask = |line: &str| -> Vec<(u8, String)> {
        let mut socket = UnixStream::connect(run_dir().join("pods/e2e/control.sock")).unwrap();
        socket.write_all(line.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        let (mut frames, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((head, behind)) = rest.split_first_chunk::<5>() {
            let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let (body, behind) = behind.split_at(length);
            frames.push((head[0], String::from_utf8_lossy(body).into_owned()));
            rest = behind;
        }
        frames
    };
    let exec =
        ask("{\"podkit\":1,\"do\":\"exec\",\"container\":\"two\",\"command\":[\"echo\",\"hi\"]}\n");
    assert_eq!(exec[0].0, b'H');
    let hello: Value = serde_json::from_str(&exec[0].1).unwrap();
    assert_eq!(hello["podkit"], 1);
    assert_eq!(
        exec[1..],
        [
            (b'O', "hi\n".to_owned()),
            (b'X', "{\"exitCode\":0}".to_owned())
        ]
    );
    let newer = ask("{\"podkit\":9,\"do\":\"freeze\",\"for\":\"ever\"}\n");
    assert!(newer[1].1.contains("\"Unsupported\""), "{newer:?}");
    let foreign = ask("GET / HTTP/1.1\r\n\r\n");
    assert!(foreign[1].1.contains("\"BadRequest\""), "{foreign:?}");
    ask("{\"podkit\":1,\"do\":\"stop\",\"graceSeconds\":0}\n");
    until("the end", || ps().is_empty().then_some(()));
    ground.assert_clean();
}

#[test]
fn what_is_wrong_is_said_before_anything_is_left() {
    let Some(ground) = Ground::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pod.yaml");
    std::fs::write(
        &file,
        "kind: Pod\napiVersion: v1\nmetadata: {name: e2e}\nspec: {container: []}\n",
    )
    .unwrap();
    let refused = podkit(&["run", "-d", file.to_str().unwrap()]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""));
    assert!(
        refused.err.contains("did you mean containers?"),
        "{}",
        refused.err
    );
    assert_eq!(podkit(&["stop"]).code, Some(2));
    assert_eq!(podkit(&["wait", "--all", "--for=nothing"]).code, Some(2));
    assert_eq!(
        podkit(&["run", "--wait", file.to_str().unwrap()]).code,
        Some(2)
    );
    ground.assert_clean();
}

#[test]
fn a_container_is_attached_to_and_read_from_a_pipe() {
    let Some(ground) = Ground::new() else { return };
    let _pod = Detached::start(
        "restartPolicy: Never
containers:
- name: app
  image: none
  stdin: true
  stdinOnce: true
  command: [sh, -c, 'while read line; do echo got $line; done; echo end']
- name: two
  image: none
  command: [sleep, infinity]",
        &["--wait"],
    );
    let mut attach = command(&["attach", "-i", "e2e", "-c", "app"]);
    let mut attach = attach
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its end is the end of the container's input, and what that says then is still shown.
    let mut stdin = attach.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").unwrap();
    drop(stdin);
    let out = attach.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "got one\ngot two\nend\n"
    );
    assert_eq!(out.status.code(), Some(0));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("try pressing enter"), "{said}");
    // The log is written beside it.
    until("its log", || {
        let log = ok(&["logs", "e2e", "-c", "app"]);
        log.contains("got two\nend\n").then_some(())
    });
    let refused = podkit(&["attach", "-i", "e2e", "-c", "two"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("its `stdin` is not true"),
        "{}",
        refused.err
    );
    ok(&["stop", "e2e", "--force"]);
    ground.assert_clean();
}
