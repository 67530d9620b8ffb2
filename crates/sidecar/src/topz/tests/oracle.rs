//! Against `ps` and `/proc` itself, for processes of the test's own.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as StdInstant};

use crate::topz::census::Census;
use crate::topz::detail::{self, Known};
use crate::topz::procfs::Proc;
use crate::topz::ring::Ring;
use crate::topz::watch::{Places, Watcher, now};

use super::proc::ALL;

/// A child that is killed and waited for whatever happens.
struct Own(Child);

impl Own {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn machine() -> Watcher {
    let places = Places {
        proc: "/proc".into(),
        cgroup: "/sys/fs/cgroup".into(),
        pod_state: "/nonexistent".into(),
    };
    Watcher::new(&places, Ring::new(600_000, 16 << 20), 100_000).unwrap()
}

fn ps(pid: u32, format: &str) -> String {
    let output = Command::new("ps")
        .args(["-o", &format!("{format}="), "-p", &pid.to_string()])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits until `ready` holds, ten seconds at most.
fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let end = StdInstant::now() + Duration::from_secs(10);
    while !ready() {
        assert!(StdInstant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_ps_says() {
    let sleeper = Own::start(Command::new("sleep").arg("1234567"));
    let shell = Own::start(Command::new("sh").args(["-c", "while :; do :; done", "--token=abc"]));
    until("the shell works", || {
        ps(shell.0.id(), "args").starts_with("sh ")
    });
    until("sleep was executed", || {
        ps(sleeper.0.id(), "args").starts_with("sleep ")
    });
    let mut watcher = machine();
    let shared = watcher.shared();
    let (first, begun) = (now(), StdInstant::now());
    watcher.look(first);
    std::thread::sleep(Duration::from_millis(600));
    let (second, between) = (now(), begun.elapsed());
    watcher.look(second);
    // The processes may be looked at later than the clock was.
    let most = 105.0 * begun.elapsed().as_secs_f64() / between.as_secs_f64();
    let seen = shared.lock();
    let snapshot = seen.source(now()).snapshot(&ALL).unwrap();
    for (child, command) in [
        (&sleeper, "sleep 1234567"),
        (&shell, "sh -c while :; do :; done --token=***"),
    ] {
        let pid = child.0.id();
        let row = snapshot
            .processes
            .iter()
            .find(|row| row.pid == pid)
            .unwrap();
        assert_eq!(row.command, command);
        assert_eq!(row.name, ps(pid, "comm"));
        assert_eq!(row.ppid.to_string(), ps(pid, "ppid"));
        assert_eq!(row.user, ps(pid, "user"));
        assert_eq!(row.threads.to_string(), ps(pid, "nlwp"));
        let rss: u64 = ps(pid, "rss").parse().unwrap();
        // The kernel's two accounts differ by what is cached per CPU: 64 pages for each of a small machine's.
        assert!(
            (row.memory_bytes / 1024).abs_diff(rss) < 2048,
            "{} KiB, {rss} by ps",
            row.memory_bytes / 1024
        );
        let age: f64 = ps(pid, "etimes").parse().unwrap();
        assert!((snapshot.at - row.started - age).abs() < 3.0);
    }
    let busy = snapshot
        .processes
        .iter()
        .find(|row| row.pid == shell.0.id())
        .unwrap()
        .cpu_percent;
    assert!(
        busy.is_some_and(|busy| busy > 1.0 && busy <= most),
        "a busy loop took {busy:?} %"
    );
    let states = [&sleeper, &shell].map(|child| {
        let pid = child.0.id();
        snapshot
            .processes
            .iter()
            .find(|row| row.pid == pid)
            .unwrap()
            .state
    });
    assert_eq!(states, ['S', 'R']);
}

#[test]
fn short_lived_children_are_counted_and_their_cpu_is_their_parents() {
    let script = "read go; i=0; while [ $i -lt 30 ]; do (j=0; while [ $j -lt 20000 ]; do j=$((j+1)); done); i=$((i+1)); done; \
                  echo done; read end";
    let mut command = Command::new("sh");
    let command = command
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let shell = Own(child);
    let pid = shell.0.id();
    let mut watcher = machine();
    watcher.look(now());
    watcher.look(now());
    input.write_all(b"go\n").unwrap();
    output.read_exact(&mut [0; 5]).unwrap();
    watcher.look(now());
    let shared = watcher.shared();
    let seen = shared.lock();
    let snapshot = seen.source(now()).snapshot(&ALL).unwrap();
    let row = snapshot
        .processes
        .iter()
        .find(|row| row.pid == pid)
        .unwrap();
    assert!(row.short_lived_cpu_percent.unwrap() > 1.0, "{row:?}");
    assert!(
        snapshot.short_lived.unwrap() >= 30,
        "{:?}",
        snapshot.short_lived
    );
}

#[test]
fn one_process_in_full() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut watcher = machine();
    watcher.look(now());
    let shared = watcher.shared();
    let seen = shared.lock();
    let pid = std::process::id();
    let snapshot = seen.source(now()).snapshot(&ALL).unwrap();
    let row = snapshot
        .processes
        .iter()
        .find(|row| row.pid == pid)
        .unwrap();
    let proc = Proc::open("/proc".as_ref()).unwrap();
    let start = seen.start_of(pid).unwrap();
    let detail = detail::read(&proc, row.clone(), start).unwrap();
    let json = serde_json::to_value(&detail).unwrap();
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count() as i64;
    let counted = json["files"]["count"].as_i64().unwrap();
    assert!(
        (counted - fds).abs() < 40,
        "{counted} open files, {fds} by another count"
    );
    let target = format!("tcp 127.0.0.1:{port} listening");
    let listed = json["files"]["list"].as_array().unwrap();
    assert!(
        listed.iter().any(|file| file["target"] == target.as_str()),
        "{target} is not among {listed:?}"
    );
    assert!(
        json["io"]["read_call_bytes"].as_u64().unwrap() > 0,
        "{}",
        json["io"]
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.contains("VmHWM") && json["memory"]["peak"].as_u64().unwrap() > 1 << 20);
    assert_eq!(
        json["exe"],
        std::env::current_exe().unwrap().to_str().unwrap()
    );
    let error = detail::read(&proc, row.clone(), start + 1).unwrap_err();
    assert_eq!(
        error,
        format!("process {pid} has ended"),
        "the same id, another process"
    );
}

#[test]
fn what_is_not_permitted_says_why() {
    let refused = Known::<u64>::of(Err(rustix::io::Errno::ACCESS));
    let why = "not permitted: topz needs the user id of the process and all its capabilities, or CAP_SYS_PTRACE";
    assert_eq!(
        serde_json::to_value(refused).unwrap(),
        serde_json::json!({ "unavailable": why })
    );
}

#[test]
fn a_thousand_processes_cost_little() {
    // A copy of what is there, a thousand times under invented ids: what the census and the ring take. What reading
    // takes is measured against real processes by the bench.
    let line = std::fs::read("/proc/self/stat").unwrap();
    let own = crate::topz::stat::parse_stat(&line).unwrap();
    let mut census = Census::new(Ring::new(600_000, 16 << 20));
    for second in 0..600u64 {
        let readings: Vec<_> = (1..=1000u32)
            .map(|pid| crate::topz::stat::Reading {
                pid,
                ppid: 0,
                start: 1,
                ticks: second * u64::from(pid % 7),
                rss: 1000 + (pid * 13 + second as u32 * 29) % 97,
                ..own
            })
            .collect();
        let facts = |pid| crate::topz::census::Facts {
            command: format!("/usr/bin/worker --number {pid} --and some more"),
            ..Default::default()
        };
        let mut facts: Vec<_> = census
            .asks(&readings)
            .into_iter()
            .map(|pid| (pid, facts(pid)))
            .collect();
        let at = super::proc::second(100 + second);
        census.look(at, &readings, &mut facts, (Some(2000), Some(32768)), 0);
    }
    let ring = census.ring();
    let (_, _, looks) = ring.ends().unwrap();
    println!(
        "1,000 processes, all changing at every one of {looks} looks: {} bytes",
        ring.bytes()
    );
    assert_eq!((looks, ring.is_cut()), (600, false));
    assert!(ring.bytes() < 8 << 20, "{}", ring.bytes());
}
