//! A pod of two containers, from the command to the answer, and back to nothing.
//!
//! podman does not know readiness probes, so both are looked at from outside: a start lasts until the command has said that the
//! pod runs and both containers answer on their published ports; podkit's must also have passed its readiness probe.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use podkit_testkit::http;
use podkit_testkit::machine::{command, processes, rss_kib_of_all, tree};
use podkit_testkit::net::{free_addr, loopback};
use podkit_testkit::process::{Process, run as run_command};
use rustix::process::Signal;

use super::ground::{Ground, head, is_contained, serves};
use super::millis;
use crate::bench::Effort;

/// What was measured of one runner, per round.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) start_millis: Vec<f64>,
    pub(super) stop_millis: Vec<f64>,
    /// All of the runner's own processes together.
    pub(super) rss_kib: Vec<f64>,
    pub(super) processes: usize,
}

pub(super) fn measure(ground: &Ground, effort: Effort) -> Result<(Figures, Figures)> {
    let ports = [free_addr().port(), free_addr().port()];
    let file = ground.file("start.yaml", &manifest(ports))?;
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    for round in 0..effort.rounds {
        eprintln!("start: round {} of {}", round + 1, effort.rounds);
        podkit(ground, &file, ports, &mut ours);
        podman(ground, &file, ports, &mut theirs);
    }
    Ok((ours, theirs))
}

/// Two containers of one image; a readiness probe on the first.
fn manifest(ports: [u16; 2]) -> String {
    let container = |name: &str, port: u16| {
        format!(
            "  - name: {name}\n{}    ports:\n    - containerPort: {port}\n      hostPort: {port}\n",
            serves(port)
        )
    };
    let probe = format!(
        "    readinessProbe:\n      httpGet:\n        path: /\n        port: {}\n      periodSeconds: 1\n",
        ports[0]
    );
    format!(
        "{}  containers:\n{}{probe}{}",
        head("podkit-bench"),
        container("one", ports[0]),
        container("two", ports[1])
    )
}

fn podkit(ground: &Ground, file: &Path, ports: [u16; 2], figures: &mut Figures) {
    let mut run = ground.podkit(&["run", "-o", "json"]);
    let mut process = Process::spawn("podkit run", run.arg(file));
    answer(ports);
    let answered = process.started().elapsed();
    let ready = process.wait_line("the pod to be ready", |line| {
        let said: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        said["type"] == "pod" && said["ready"] == true
    });
    figures.start_millis.push(millis(answered.max(ready.at)));
    // What the containers run is the same for both runners; the rest is the runner's.
    let runner = tree(process.pid()).into_iter();
    let runner: Vec<u32> = runner.filter(|pid| !is_contained(&command(*pid))).collect();
    figures.processes = runner.len();
    figures.rss_kib.push(sum_rss(&runner));
    let asked = Instant::now();
    process.signal(Signal::TERM);
    process.wait();
    figures.stop_millis.push(millis(asked.elapsed()));
}

fn podman(ground: &Ground, file: &Path, ports: [u16; 2], figures: &mut Figures) {
    let started = Instant::now();
    let mut play = ground.podman.command();
    run_command(
        "podman kube play",
        play.args(["kube", "play", "--build=false"]).arg(file),
    )
    .ok();
    answer(ports);
    figures.start_millis.push(millis(started.elapsed()));
    // conmon and the pause container carry the store's path in their arguments or are below one that does.
    let store = ground.podman.dir().display().to_string();
    let runner: Vec<u32> = processes()
        .into_iter()
        .filter(|pid| command(*pid).contains(&store))
        .flat_map(tree)
        .filter(|pid| !is_contained(&command(*pid)))
        .collect();
    figures.processes = runner.len();
    figures.rss_kib.push(sum_rss(&runner));
    let asked = Instant::now();
    let mut down = ground.podman.command();
    run_command("podman kube down", down.args(["kube", "down"]).arg(file)).ok();
    figures.stop_millis.push(millis(asked.elapsed()));
}

/// Waits until both ports answer 200, looking every millisecond.
fn answer(ports: [u16; 2]) {
    for port in ports {
        let addr: SocketAddr = loopback(port);
        let deadline = Instant::now() + podkit_testkit::DEADLINE;
        while !http::get(addr, "/").is_ok_and(|answer| answer.status == 200) {
            assert!(Instant::now() < deadline, "{addr} does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "KiB of a few processes")]
fn sum_rss(pids: &[u32]) -> f64 {
    rss_kib_of_all(pids) as f64
}
