//! examples/sessions, as its README uses it.

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::{http, repository, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::ground::{Ground, process_of};

const HTTP: u16 = 8080;
const ADMIN: u16 = 9631;

/// Requests that each replica has answered.
fn answered() -> Vec<u64> {
    let json = http::get(loopback(ADMIN), "/upstreams").unwrap().json();
    let upstreams = json["upstreams"].as_array().unwrap();
    upstreams
        .iter()
        .map(|one| one["answered"].as_u64().unwrap())
        .collect()
}

/// Asks with a cookie; which replica answered, and the new cookie, if there is one.
fn ask(cookie: &str) -> (usize, Option<String>) {
    let before = answered();
    let answer = http::get_with(loopback(HTTP), "/", &format!("Cookie: {cookie}\r\n")).unwrap();
    assert_eq!(answer.status, 200);
    // It is counted when its last byte was sent, which may be after that came.
    let at = until("the answer is counted", || {
        let after = answered();
        let grown: Vec<usize> = (0..3).filter(|at| after[*at] > before[*at]).collect();
        assert!(grown.len() < 2, "{before:?} {after:?}");
        grown.first().copied()
    });
    let line = answer.header("set-cookie");
    let fresh = line.and_then(|line| line.split(';').next());
    (at, fresh.map(str::to_owned))
}

#[test]
fn sessions_stay_and_those_of_a_dead_replica_move() {
    let Some(ground) = Ground::new() else { return };
    let mut pod = Pod::run(
        &repository().join("examples/sessions/pod.yaml"),
        &["--backoff=1s"],
    );
    pod.wait_ready();
    until("all replicas are ready", || {
        let json = http::get(loopback(ADMIN), "/upstreams").ok()?.json();
        let all = json["upstreams"].as_array()?;
        all.iter().all(|one| one["state"] == "ready").then_some(())
    });
    let mut sessions: Vec<Option<String>> = vec![None; 3];
    while sessions.contains(&None) {
        let (at, cookie) = ask("");
        sessions[at] = Some(cookie.expect("a session begins"));
    }
    let sessions: Vec<String> = sessions.into_iter().flatten().collect();
    for (at, cookie) in sessions.iter().enumerate() {
        assert_eq!(ask(cookie), (at, None));
    }
    let victim = process_of(&pod, "--listen=127.0.0.1:8082").expect("the second replica runs");
    kill_process(Pid::from_raw(victim.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let (at, fresh) = ask(&sessions[1]);
    // It may be back already, which is as good.
    assert!(at == 1 || fresh.is_some(), "{at}");
    assert_eq!(ask(&sessions[0]), (0, None));
    assert_eq!(ask(&sessions[2]), (2, None));
    let line = pod.wait("a line of the access log", |said| {
        said["container"] == "balance"
            && said["line"]
                .as_str()
                .is_some_and(|line| line.contains("\"target\""))
    });
    let line: Value = serde_json::from_str(line["line"].as_str().unwrap()).unwrap();
    assert_eq!(line["status"], 200, "{line}");
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}
