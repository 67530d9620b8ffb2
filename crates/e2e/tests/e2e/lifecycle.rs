//! Start, stop, restart: what runs when, and with which end.

use std::time::Duration;

use podkit_testkit::podkit::{Pod, is_event};
use rustix::process::Signal;
use serde_json::Value;

use crate::ground::{Ground, events, is_ready, is_state, log_of, manifest};

/// When a container was said to be so, in milliseconds of the day.
fn times(pod: &Pod, container: &str, reason: &str) -> Vec<i64> {
    let said = pod.said();
    let these = said
        .iter()
        .filter(|said| podkit_testkit::podkit::is_event(said, container, reason));
    these
        .map(|said| millis(said["ts"].as_str().unwrap()))
        .collect()
}

/// `2026-01-02T03:04:05.678Z` as milliseconds of its day.
fn millis(ts: &str) -> i64 {
    let number = |from: usize, to: usize| -> i64 { ts[from..to].parse().unwrap() };
    ((number(11, 13) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1000 + number(20, 23)
}

fn ended(pod: &Pod, container: &str) -> Value {
    let said = pod.said();
    let mut ends = said
        .iter()
        .filter(|said| is_state(said, container, "terminated"));
    ends.next_back()
        .unwrap_or_else(|| panic!("{container} has not ended\n{}", pod.process.shown()))
        .clone()
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_beside() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "restartPolicy: Never
volumes:
- name: work
  emptyDir: {}
initContainers:
- name: first
  image: none
  command: [sh, -c, 'test ! -e /mnt/side && echo first > /mnt/first']
  volumeMounts: [{name: work, mountPath: /mnt}]
- name: side
  image: none
  restartPolicy: Always
  command: [sh, -c, 'trap \"echo side ends; exit 0\" TERM; test -e /mnt/first && echo up > /mnt/side; while :; do sleep 0.01; done']
  startupProbe:
    exec: {command: [test, -e, /mnt/side]}
    periodSeconds: 1
  volumeMounts: [{name: work, mountPath: /mnt}]
containers:
- name: app
  image: none
  command: [sh, -c, 'cat /mnt/first /mnt/side; echo app ends']
  volumeMounts: [{name: work, mountPath: /mnt}]",
    );
    let mut pod = Pod::run_text(&text, &[]);
    assert_eq!(
        pod.process.wait().code(),
        Some(0),
        "{}",
        pod.process.shown()
    );
    assert_eq!(log_of(&pod, "app"), ["first", "up", "app ends"]);
    assert_eq!(
        log_of(&pod, "side"),
        ["side ends"],
        "a sidecar ends when the others have"
    );
    assert_eq!(
        events(&pod, &["Started"]),
        ["first Started", "side Started", "app Started"]
    );
    assert_eq!(pod.said().last().unwrap()["phase"], "Succeeded");
    ground.assert_clean();
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "restartPolicy: Never
initContainers:
- name: first
  image: none
  command: [sh, -c, 'exit 7']
containers:
- name: app
  image: none
  command: [sh, -c, 'echo never']",
    );
    let mut pod = Pod::run_text(&text, &[]);
    assert_eq!(pod.process.wait().code(), Some(1));
    assert_eq!(
        ended(&pod, "first")["exitCode"],
        7,
        "{}",
        pod.process.shown()
    );
    assert!(log_of(&pod, "app").is_empty());
    assert_eq!(pod.said().last().unwrap()["phase"], "Failed");
    ground.assert_clean();
}

#[test]
fn exit_code_from_a_container_is_podkits_own() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "containers:
- name: app
  image: none
  command: [sh, -c, 'exit 42']
- name: two
  image: none
  command: [sleep, infinity]
terminationGracePeriodSeconds: 1",
    );
    let mut pod = Pod::run_text(&text, &["--exit-code-from", "app"]);
    assert_eq!(
        pod.process.wait().code(),
        Some(42),
        "{}",
        pod.process.shown()
    );
    ground.assert_clean();
}

/// RestartAllContainers: the volumes stay, all the rest begins anew.
#[test]
fn the_end_of_one_container_may_be_that_of_all() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "restartPolicy: Never
terminationGracePeriodSeconds: 0
volumes: [{name: data, emptyDir: {}}]
initContainers:
- name: first
  image: none
  command: [sh, -c, 'echo x >> /data/runs; wc -l < /data/runs']
  volumeMounts: [{name: data, mountPath: /data}]
- name: watcher
  image: none
  command: [sh, -c, 'test -e /data/told || { touch /data/told; exit 88; }; exec sleep infinity']
  volumeMounts: [{name: data, mountPath: /data}]
  restartPolicy: Always
  restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [88]}}]
containers:
- name: app
  image: none
  command: [sh, -c, 'echo up; exec sleep infinity']",
    );
    let mut pod = Pod::run_text(&text, &[]);
    let (again, _) = pod.wait_from(0, "the end of all", |said| {
        is_event(said, "watcher", "RestartAllContainers")
    });
    pod.wait_from(again, "a pod that is ready again", |said| {
        is_ready(said, true)
    });
    assert_eq!(log_of(&pod, "first"), ["1", "2"]);
    pod.stop();
    ground.assert_clean();
}

#[test]
fn restarts_back_off_and_double() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "containers:
- name: app
  image: none
  command: [sh, -c, 'exit 3']",
    );
    let mut pod = Pod::run_text(&text, &["--backoff", "200ms"]);
    pod.wait("four restarts", |said| {
        said["type"] == "container"
            && said["container"] == "app"
            && said["restarts"].as_u64() >= Some(4)
    });
    let ends: Vec<Value> = pod
        .said()
        .into_iter()
        .filter(|said| said["exitCode"] == 3)
        .collect();
    assert!(!ends.is_empty());
    let waiting = pod.wait("the back-off", |said| said["reason"] == "CrashLoopBackOff");
    assert_eq!(waiting["container"], "app");
    let starts = times(&pod, "app", "Started");
    let gaps: Vec<i64> = starts
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).rem_euclid(86_400_000))
        .collect();
    // The kubelet's first restart is at once; then the first step, twice, four times as long. Clocks only bound from below.
    for (gap, least) in gaps.iter().zip([0, 200, 400, 800]) {
        assert!(*gap >= least - 5, "{gaps:?}");
    }
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}

#[test]
fn on_failure_restarts_failures_only() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "restartPolicy: OnFailure
volumes:
- name: work
  emptyDir: {}
containers:
- name: app
  image: none
  command: [sh, -c, 'test -e /mnt/again && exit 0; touch /mnt/again; exit 1']
  volumeMounts: [{name: work, mountPath: /mnt}]",
    );
    let mut pod = Pod::run_text(&text, &["--backoff", "50ms"]);
    assert_eq!(
        pod.process.wait().code(),
        Some(0),
        "{}",
        pod.process.shown()
    );
    assert_eq!(ended(&pod, "app")["restarts"], 1);
    ground.assert_clean();
}

#[test]
fn the_grace_period_ends_with_a_kill() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "terminationGracePeriodSeconds: 3
containers:
- name: app
  image: none
  command: [sh, -c, 'trap \"echo told\" TERM; echo up; while :; do sleep 0.05; done']
- name: two
  image: none
  command: [sh, -c, 'trap \"echo told; exit 0\" TERM; echo up; while :; do sleep 0.05; done']",
    );
    let mut pod = Pod::run_text(&text, &[]);
    for name in ["app", "two"] {
        pod.wait(name, |said| {
            said["container"] == name && said["line"] == "up"
        });
    }
    let asked = std::time::Instant::now();
    pod.process.signal(Signal::TERM);
    pod.process.wait();
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(2950), "{took:?}");
    assert_eq!(log_of(&pod, "app"), ["up", "told"]);
    let (killed, asked) = (ended(&pod, "app"), ended(&pod, "two"));
    assert_eq!(
        (&killed["exitCode"], &asked["exitCode"]),
        (&137.into(), &0.into()),
        "{killed} {asked}"
    );
    ground.assert_clean();
}

#[test]
fn a_second_signal_does_not_wait_for_the_grace_period() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "terminationGracePeriodSeconds: 600
containers:
- name: app
  image: none
  command: [sh, -c, 'trap \"echo told\" TERM; echo up; while :; do sleep 0.05; done']",
    );
    let mut pod = Pod::run_text(&text, &[]);
    pod.wait("up", |said| said["line"] == "up");
    pod.process.signal(Signal::INT);
    pod.wait("told", |said| said["line"] == "told");
    pod.process.signal(Signal::INT);
    pod.process.wait();
    assert_eq!(ended(&pod, "app")["exitCode"], 137);
    ground.assert_clean();
}

#[test]
fn hooks_run_after_the_start_and_before_the_stop() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "terminationGracePeriodSeconds: 20
volumes:
- name: work
  emptyDir: {}
containers:
- name: app
  image: none
  command: [sh, -c, 'trap \"cat /mnt/*; echo told; exit 0\" TERM; echo up; while :; do sleep 0.02; done']
  lifecycle:
    postStart:
      exec: {command: [sh, -c, 'echo after the start > /mnt/1']}
    preStop:
      exec: {command: [sh, -c, 'echo before the stop > /mnt/2']}
  volumeMounts: [{name: work, mountPath: /mnt}]",
    );
    let mut pod = Pod::run_text(&text, &[]);
    pod.wait("up", |said| said["line"] == "up");
    pod.wait_ready();
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    assert_eq!(
        log_of(&pod, "app"),
        ["up", "after the start", "before the stop", "told"]
    );
    ground.assert_clean();
}

/// The end of its first process kills the hook.
#[test]
fn a_hook_that_ends_its_container_has_not_failed() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "terminationGracePeriodSeconds: 20
containers:
- name: app
  image: none
  command: [sh, -c, 'trap \"exit 0\" USR1; echo up; while :; do sleep 0.02; done']
  lifecycle:
    preStop:
      exec: {command: [sh, -c, 'kill -USR1 1; sleep infinity']}",
    );
    let mut pod = Pod::run_text(&text, &[]);
    pod.wait("up", |said| said["line"] == "up");
    pod.wait_ready();
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    assert_eq!(ended(&pod, "app")["exitCode"], 0);
    let failed = events(&pod, &["FailedPreStopHook"]);
    assert!(failed.is_empty(), "{}", pod.process.shown());
    ground.assert_clean();
}

#[test]
fn a_failed_post_start_hook_kills_its_container() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "restartPolicy: Never
terminationGracePeriodSeconds: 1
containers:
- name: app
  image: none
  command: [sleep, infinity]
  lifecycle:
    postStart:
      exec: {command: ['false']}",
    );
    let mut pod = Pod::run_text(&text, &[]);
    pod.wait_event("app", "FailedPostStartHook");
    assert_eq!(
        pod.process.wait().code(),
        Some(1),
        "{}",
        pod.process.shown()
    );
    ground.assert_clean();
}
