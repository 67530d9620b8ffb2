//! Probes that fail and recover. What they look at is a directory of the test's own, in the pod as a hostPath.

use std::path::Path;

use podkit_testkit::http;
use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;

use crate::ground::{Ground, is_ready, log_of, manifest};

/// A pod with one container that has this probe; `FLAGS` in it is the directory `flags`, which it sees at /mnt.
fn pod(flags: &Path, container: &str) -> Pod {
    let container: String = container
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    let text = manifest(&format!(
        "terminationGracePeriodSeconds: 1\nvolumes:\n- name: flags\n  hostPath:\n    path: {}\n    type: Directory\ncontainers:\n- name: app\n  image: none\n  \
         volumeMounts: [{{name: flags, mountPath: /mnt}}]\n{container}",
        flags.display()
    ));
    Pod::run_text(&text, &["--backoff", "50ms"])
}

#[test]
fn readiness_follows_its_probe_down_and_up() {
    let Some(ground) = Ground::new() else { return };
    let flags = tempfile::tempdir().unwrap();
    let ready = flags.path().join("ready");
    let mut pod = pod(
        flags.path(),
        "command: [sleep, infinity]
readinessProbe:
  exec: {command: [test, -e, /mnt/ready]}
  periodSeconds: 1
  failureThreshold: 2
  successThreshold: 2",
    );
    let unhealthy = pod.wait_event("app", "Unhealthy");
    assert!(
        unhealthy["message"].as_str().unwrap().contains("Readiness"),
        "{unhealthy}"
    );
    assert!(!pod.said().iter().any(|said| is_ready(said, true)));
    std::fs::write(&ready, "").unwrap();
    let (mark, _) = pod.wait_from(0, "ready", |said| is_ready(said, true));
    std::fs::remove_file(&ready).unwrap();
    let (mark, _) = pod.wait_from(mark, "not ready", |said| is_ready(said, false));
    std::fs::write(&ready, "").unwrap();
    pod.wait_from(mark, "ready again", |said| is_ready(said, true));
    // A readiness probe never restarts.
    let restarted = pod
        .said()
        .iter()
        .any(|said| said["restarts"].as_u64() > Some(0));
    assert!(!restarted, "{}", pod.process.shown());
    pod.stop();
    ground.assert_clean();
}

#[test]
fn a_failed_liveness_probe_restarts() {
    let Some(ground) = Ground::new() else { return };
    let flags = tempfile::tempdir().unwrap();
    let sick = flags.path().join("sick");
    let mut pod = pod(
        flags.path(),
        "command: [sh, -c, 'rm -f /mnt/sick; echo up; trap \"exit 0\" TERM; while :; do sleep 0.02; done']
livenessProbe:
  exec: {command: [test, '!', -e, /mnt/sick]}
  periodSeconds: 1
  failureThreshold: 1",
    );
    pod.wait("up", |said| said["line"] == "up");
    std::fs::write(&sick, "").unwrap();
    let killing = pod.wait_event("app", "Killing");
    assert!(
        killing["message"].as_str().unwrap().contains("liveness"),
        "{killing}"
    );
    pod.wait("its restart", |said| {
        said["container"] == "app" && said["restarts"] == 1 && said["state"] == "running"
    });
    podkit_testkit::until("a second start", || {
        (log_of(&pod, "app").len() == 2).then_some(())
    });
    pod.stop();
    ground.assert_clean();
}

#[test]
fn a_startup_probe_holds_the_others_back_and_kills_when_it_never_passes() {
    let Some(ground) = Ground::new() else { return };
    let flags = tempfile::tempdir().unwrap();
    let mut pod = pod(
        flags.path(),
        "command: [sleep, infinity]
startupProbe:
  exec: {command: [test, -e, /mnt/started]}
  periodSeconds: 1
  failureThreshold: 2
livenessProbe:
  exec: {command: [sh, -c, 'touch /mnt/liveness-ran']}
  periodSeconds: 1",
    );
    let killing = pod.wait_event("app", "Killing");
    assert!(
        killing["message"].as_str().unwrap().contains("startup"),
        "{killing}"
    );
    assert!(!flags.path().join("liveness-ran").exists());
    std::fs::write(flags.path().join("started"), "").unwrap();
    pod.wait("the liveness probe's turn", |said| {
        said["container"] == "app" && said["started"] == true
    });
    podkit_testkit::until("the liveness probe", || {
        flags.path().join("liveness-ran").exists().then_some(())
    });
    pod.stop();
    ground.assert_clean();
}

#[test]
fn http_and_tcp_probes_look_at_the_pods_address() {
    let Some(ground) = Ground::new() else { return };
    // The application answers 500: for a TCP probe that is alive, for an HTTP probe it is not ready.
    let text = manifest(
        "terminationGracePeriodSeconds: 1
containers:
- name: web
  image: podkit
  args: [echo, '--listen=:8080', '--status=500']
  ports: [{containerPort: 8080}]
  livenessProbe:
    tcpSocket: {port: 8080}
    initialDelaySeconds: 1
    periodSeconds: 1
    timeoutSeconds: 10
  readinessProbe:
    httpGet: {path: /x, port: 8080}
    periodSeconds: 1
    timeoutSeconds: 10",
    );
    let mut pod = Pod::run_text(&text, &[]);
    // It may not listen yet when it is first asked.
    pod.wait("the probe's answer", |said| {
        let message = said["message"].as_str().unwrap_or_default();
        said["reason"] == "Unhealthy" && message.contains("500")
    });
    assert_eq!(http::get(loopback(8080), "/").unwrap().status, 500);
    assert!(
        !pod.said()
            .iter()
            .any(|said| is_ready(said, true) || said["restarts"].as_u64() > Some(0))
    );
    assert_eq!(pod.stop(), 0);
    ground.assert_clean();
}

#[test]
fn a_probe_on_a_port_that_nothing_serves_says_so() {
    let Some(ground) = Ground::new() else { return };
    let flags = tempfile::tempdir().unwrap();
    let mut pod = pod(
        flags.path(),
        "command: [sleep, infinity]
readinessProbe:
  httpGet: {path: /, port: 8080}
  periodSeconds: 1",
    );
    let unhealthy = pod.wait_event("app", "Unhealthy");
    let message = unhealthy["message"].as_str().unwrap();
    assert!(
        message.contains("refused") && message.contains("8080"),
        "{message}"
    );
    pod.stop();
    ground.assert_clean();
}
