//! The promise of the pattern: a sidecar with limits that runs wild changes neither the application's answers nor its latency.

use std::time::{Duration, Instant};

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::{http, stats};

use crate::ground::{Ground, manifest};

/// A sidecar that uses all the CPU and all the memory that it gets.
const WILD: &str = "terminationGracePeriodSeconds: 1
initContainers:
- name: side
  image: none
  restartPolicy: Always
  command: [sh, -c, 'for i in 1 2 3 4; do (while :; do :; done) & done; while :; do head -c 100M /dev/zero | tail >/dev/null; done']
  resources: {limits: {cpu: 100m, memory: 24Mi}}
containers:
- name: web
  image: podkit
  args: [echo, '--listen=:8080', '--workers=1']
  ports: [{containerPort: 8080}]
  resources: {requests: {cpu: '1'}}";

/// Milliseconds of each of these many requests on one kept connection, 2 ms apart at least. Every answer must be right.
fn ask(pod: &Pod, count: usize) -> Vec<f64> {
    let mut stream = http::dial(loopback(8080)).unwrap();
    (0..count)
        .map(|number| {
            let asked = Instant::now();
            let request = format!("GET /{number} HTTP/1.1\r\nHost: web\r\n\r\n");
            let answer = http::exchange(&mut stream, request.as_bytes());
            let answer =
                answer.unwrap_or_else(|error| panic!("{number}: {error}\n{}", pod.process.shown()));
            let took = asked.elapsed();
            assert_eq!(answer.status, 200);
            assert!(
                answer.text().contains(&format!("/{number}")),
                "{}",
                answer.text()
            );
            std::thread::sleep(Duration::from_millis(2));
            took.as_secs_f64() * 1e3
        })
        .collect()
}

#[test]
fn a_sidecar_that_runs_wild_does_not_change_answers_or_latency() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(WILD);
    let (mut calm, mut wild) = (Vec::new(), Vec::new());
    // In turns, so that what disturbs the machine disturbs both.
    for _ in 0..4 {
        for (without, figures) in [
            (&["--without", "side"][..], &mut calm),
            (&[][..], &mut wild),
        ] {
            let mut pod = Pod::run_text(&text, without);
            pod.wait_ready();
            let limited = !pod
                .said()
                .iter()
                .any(|said| said["type"] == "warning" && said.to_string().contains("cgroup"));
            if !limited {
                podkit_testkit::skip("cgroups that limit CPU and memory");
                pod.stop();
                return;
            }
            podkit_testkit::until("an answer", || http::get(loopback(8080), "/").ok());
            ask(&pod, 50);
            figures.push(stats::percentile(&ask(&pod, 500), 0.99));
            pod.stop();
        }
    }
    let (calm_p99, wild_p99) = (stats::median(&calm), stats::median(&wild));
    // Noise is how far the calm rounds lie apart, and one slice of the scheduler at most.
    let noise = calm
        .iter()
        .fold(0.0_f64, |far, p99| far.max((p99 - calm_p99).abs()))
        + 4.0;
    println!("p99 calm {calm:?} wild {wild:?} ms");
    assert!(
        wild_p99 <= calm_p99 + noise,
        "p99 {calm_p99} ms without, {wild_p99} ms with the sidecar; noise {noise}"
    );
    ground.assert_clean();
}
