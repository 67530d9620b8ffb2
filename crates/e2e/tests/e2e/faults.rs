//! What goes wrong around a pod: a supervisor that is killed, a volume that is full, a terminal that is gone; and what 200 rounds leave.

use std::time::Duration;

use podkit_testkit::machine::descriptors;
use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::{http, until};
use rustix::process::Signal;

use crate::ground::{Ground, events, is_ready, manifest};

const WEB: &str = "terminationGracePeriodSeconds: 1
shareProcessNamespace: true
volumes:
- name: work
  emptyDir: {}
- name: memory
  emptyDir: {medium: Memory}
containers:
- name: web
  image: podkit
  args: [echo, '--listen=:8080']
  ports: [{containerPort: 8080}]
  readinessProbe:
    httpGet: {path: /, port: 8080}
    periodSeconds: 1
  volumeMounts:
  - {name: work, mountPath: /work}
  - {name: memory, mountPath: /memory}
- name: app
  image: none
  command: [sh, -c, 'trap \"exit 0\" TERM; (sleep 1000 &); while :; do sleep 0.02; done']
  volumeMounts:
  - {name: work, mountPath: /mnt}";

#[test]
fn a_pod_dies_with_its_supervisor_and_the_next_start_is_clean() {
    let Some(ground) = Ground::new() else { return };
    let mut pod = Pod::run_text(&manifest(WEB), &[]);
    pod.wait_ready();
    pod.process.signal(Signal::KILL);
    pod.process.wait();
    // Processes, mounts, namespaces and sockets go at once; directories and cgroups have nobody left to remove them.
    ground.assert_only_paths_are_left();
    assert!(std::net::TcpStream::connect(loopback(8080)).is_err());

    let mut pod = Pod::run_text(&manifest(WEB), &[]);
    pod.wait_ready();
    assert_eq!(http::get(loopback(8080), "/").unwrap().status, 200);
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}

#[test]
fn a_second_pod_of_the_same_name_is_refused_while_the_first_runs() {
    let Some(ground) = Ground::new() else { return };
    let mut pod = Pod::run_text(&manifest(WEB), &[]);
    pod.wait_ready();
    let mut second = Pod::run_text(&manifest(&WEB.replace("8080", "8081")), &[]);
    assert_ne!(second.process.wait().code(), Some(0));
    let said = second.process.shown();
    assert!(said.contains("e2e"), "{said}");
    assert_eq!(
        http::get(loopback(8080), "/").unwrap().status,
        200,
        "the first goes on"
    );
    assert_eq!(pod.stop(), 0);
    ground.assert_clean();
}

#[test]
fn a_full_volume_is_the_business_of_who_filled_it() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "terminationGracePeriodSeconds: 1
volumes:
- name: memory
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
containers:
- name: web
  image: podkit
  args: [echo, '--listen=:8080']
  ports: [{containerPort: 8080}]
  volumeMounts: [{name: memory, mountPath: /memory}]
- name: app
  image: none
  command: [sh, -c, 'trap \"exit 0\" TERM; head -c 4M /dev/zero > /mnt/full; echo ended with $?; while :; do sleep 0.02; done']
  volumeMounts: [{name: memory, mountPath: /mnt}]",
    );
    let mut pod = Pod::run_text(&text, &[]);
    let said = pod.wait("the failed write", |said| {
        said["line"]
            .as_str()
            .is_some_and(|line| line.starts_with("ended with"))
    });
    assert_eq!(said["line"], "ended with 1");
    assert_eq!(
        until("an answer", || http::get(loopback(8080), "/").ok()).status,
        200
    );
    assert!(
        pod.said()
            .iter()
            .all(|said| said["restarts"].as_u64().unwrap_or(0) == 0)
    );
    assert_eq!(pod.stop(), 0);
    ground.assert_clean();
}

/// An emptyDir on disk is over its limit: the kubelet evicts the pod.
#[test]
fn a_volume_over_its_limit_evicts_the_pod() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "terminationGracePeriodSeconds: 1
volumes:
- name: disk
  emptyDir: {sizeLimit: 1Mi}
containers:
- name: app
  image: none
  command: [sh, -c, 'head -c 8M /dev/zero > /mnt/full; sync /mnt/full; sleep infinity']
  volumeMounts: [{name: disk, mountPath: /mnt}]",
    );
    let mut pod = Pod::run_text(&text, &[]);
    let evicted = pod.wait("the eviction", |said| {
        said["type"] == "event" && said["reason"] == "Evicted"
    });
    assert!(
        evicted["message"].as_str().unwrap().contains("disk"),
        "{evicted}"
    );
    assert_eq!(
        pod.process.wait_for(Duration::from_secs(60)).code(),
        Some(1)
    );
    ground.assert_clean();
}

#[test]
fn a_terminal_that_goes_away_stops_the_pod() {
    let Some(ground) = Ground::new() else { return };
    let mut pod = Pod::run_text(&manifest(WEB), &[]);
    pod.wait_ready();
    pod.process.signal(Signal::HUP);
    pod.process.wait();
    ground.assert_clean();
}

/// What a kernel would run out of: cgroups, file handles; and what is left on disk, in memory and in the network.
#[test]
fn two_hundred_rounds_leave_nothing() {
    const ROUNDS: usize = 200;
    let Some(ground) = Ground::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pod.yaml");
    std::fs::write(&file, manifest(WEB)).unwrap();
    let round = |check: bool| {
        let mut pod = Pod::run(&file, &[]);
        pod.wait_ready();
        let open = descriptors(pod.process.pid());
        assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
        if check {
            ground.assert_clean();
        }
        open
    };
    let first = round(true);
    let before = Kernel::now();
    for _ in 0..ROUNDS {
        let open = round(false);
        assert!(
            open.abs_diff(first) <= 4,
            "descriptors of a supervisor: {first} at first, now {open}"
        );
    }
    ground.assert_clean();
    // Namespaces and cgroups are freed by the kernel's own workers.
    until("the kernel to settle", || {
        let after = Kernel::now();
        let settled = after.cgroups <= before.cgroups + 10 && after.files <= before.files + 200;
        settled.then_some(())
    });
    let after = Kernel::now();
    // Freed memory stays in caches; 200 leaked network namespaces would be more than 20 MB.
    assert!(
        after.slab_kib < before.slab_kib + 40 * 1024,
        "{before:?} {after:?}"
    );
}

#[derive(Debug)]
struct Kernel {
    cgroups: u64,
    files: u64,
    slab_kib: u64,
}

impl Kernel {
    fn now() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cgroups = read("/proc/cgroups");
        let cgroups = cgroups.lines().filter(|line| !line.starts_with('#'));
        let cgroups =
            cgroups.filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
        let slab = read("/proc/meminfo");
        let slab = slab
            .lines()
            .find_map(|line| line.strip_prefix("SUnreclaim:"));
        Self {
            cgroups: cgroups.sum(),
            files: read("/proc/sys/fs/file-nr")
                .split_whitespace()
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            slab_kib: slab
                .and_then(|text| text.split_whitespace().next()?.parse().ok())
                .unwrap_or(0),
        }
    }
}

/// A sidecar that dies again and again is restarted and does not make the pod stop; the application is not touched.
#[test]
fn a_sidecar_that_crashes_does_not_touch_the_application() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "terminationGracePeriodSeconds: 1
initContainers:
- name: side
  image: none
  restartPolicy: Always
  command: [sh, -c, 'sleep 0.1; exit 1']
containers:
- name: web
  image: podkit
  args: [echo, '--listen=:8080']
  ports: [{containerPort: 8080}]
  readinessProbe:
    httpGet: {path: /, port: 8080}
    periodSeconds: 1",
    );
    let mut pod = Pod::run_text(&text, &["--backoff", "50ms"]);
    pod.wait("restarts of the sidecar", |said| {
        said["container"] == "side" && said["restarts"].as_u64() >= Some(3)
    });
    until("an answer", || http::get(loopback(8080), "/").ok());
    assert_eq!(
        events(&pod, &["Started"])
            .iter()
            .filter(|event| *event == "web Started")
            .count(),
        1
    );
    assert!(
        !pod.said()
            .iter()
            .any(|said| said["type"] == "end" || is_ready(said, true) && said["phase"] == "Failed")
    );
    pod.stop();
    ground.assert_clean();
}
