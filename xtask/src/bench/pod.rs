//! `podkit run` against `podman kube play`: the same file, the same static binary in both containers, Debian's podman with runc.
//!
//! podman does not know readiness probes, so both are looked at from outside: a start lasts until the command has said that the
//! pod runs and both containers answer on their published ports; podkit's must also have passed its readiness probe.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use podkit_testkit::machine::{command, processes, rss_kib, tree};
use podkit_testkit::net::{free_addr, loopback};
use podkit_testkit::process::{Process, run as run_command};
use podkit_testkit::{http, program, stats};
use rustix::process::Signal;

use super::report::{Goal, Report, figure, rounds};
use super::{Effort, size};
use crate::machine::require;

/// What was measured of one runner, per round.
#[derive(Debug, Default)]
struct Figures {
    start_millis: Vec<f64>,
    stop_millis: Vec<f64>,
    /// All of the runner's own processes together.
    rss_kib: Vec<f64>,
    processes: usize,
}

/// podman with a store, a run directory and a configuration of its own.
pub(super) struct Podman {
    dir: tempfile::TempDir,
}

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&["podman", "runc", "catatonit", "iptables"])?;
    let dir = tempfile::tempdir()?;
    let ports = [free_addr().port(), free_addr().port()];
    let file = dir.path().join("pod.yaml");
    std::fs::write(&file, manifest(ports))?;
    let podman = Podman::with_image(binary)?;

    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    // A start is short: more rounds than the other benchmarks.
    let starts = if effort.quick { 2 } else { effort.rounds * 3 };
    for round in 0..starts {
        eprintln!("round {} of {starts}", round + 1);
        measure_podkit(binary, &file, ports, &mut ours)?;
        podman.measure(&file, ports, &mut theirs)?;
    }
    report(
        &ours,
        &theirs,
        binary,
        Effort {
            rounds: starts,
            ..effort
        },
    )
}

/// Two containers of one image; a readiness probe on the first.
fn manifest(ports: [u16; 2]) -> String {
    let container = |name: &str, port: u16, admin: u16, probe: &str| {
        format!(
            "  - name: {name}\n    image: localhost/podkit:latest\n    args: [echo, --listen, \":{port}\", --admin, \"127.0.0.1:{admin}\"]\n\
             \x20   ports:\n    - containerPort: {port}\n      hostPort: {port}\n{probe}"
        )
    };
    let probe = format!(
        "    readinessProbe:\n      httpGet:\n        path: /\n        port: {}\n      periodSeconds: 1\n",
        ports[0]
    );
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: podkit-bench\nspec:\n  containers:\n{}{}",
        container("one", ports[0], 9651, &probe),
        container("two", ports[1], 9652, "")
    )
}

fn measure_podkit(
    binary: &Path,
    file: &Path,
    ports: [u16; 2],
    figures: &mut Figures,
) -> Result<()> {
    let mut process = Process::spawn(
        "podkit run",
        Command::new(binary).args(["run", "-o", "json"]).arg(file),
    );
    answer(ports);
    let answered = process.started().elapsed();
    let ready = process.wait_line("the pod to be ready", |line| {
        let said: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        said["type"] == "pod" && said["ready"] == true
    });
    figures.start_millis.push(millis(answered.max(ready.at)));
    // What the containers run is the same for both runners; the rest is the runner's.
    let runner: Vec<u32> = tree(process.pid())
        .into_iter()
        .filter(|pid| !command(*pid).contains("echo --listen"))
        .collect();
    figures.processes = runner.len();
    figures.rss_kib.push(sum_rss(&runner));
    let asked = Instant::now();
    process.signal(Signal::TERM);
    process.wait();
    figures.stop_millis.push(millis(asked.elapsed()));
    Ok(())
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

impl Podman {
    /// With nothing in its store. What is in it, and the store's own mounts, go when this is dropped.
    pub(super) fn new() -> Result<Self> {
        let podman = Self {
            dir: tempfile::tempdir()?,
        };
        // The limits are those that a machine without CAP_SYS_RESOURCE can grant; no systemd is asked for.
        let config = "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=32768:32768\"]\n\
                      [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n";
        std::fs::write(podman.dir.path().join("containers.conf"), config)?;
        Ok(podman)
    }

    fn with_image(binary: &Path) -> Result<Self> {
        let podman = Self::new()?;
        let image = podman.dir.path().join("image");
        std::fs::create_dir(&image)?;
        std::fs::copy(binary, image.join("podkit"))?;
        let tar = podman.dir.path().join("image.tar");
        run_command(
            "tar",
            Command::new("tar")
                .arg("-cf")
                .arg(&tar)
                .arg("-C")
                .arg(&image)
                .arg("podkit"),
        )
        .ok();
        let entrypoint = "ENTRYPOINT [\"/podkit\"]";
        let mut import = podman.command();
        import
            .args(["import", "--quiet", "--change", entrypoint])
            .arg(&tar)
            .arg("localhost/podkit:latest");
        run_command("podman import", &mut import).ok();
        Ok(podman)
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(program("podman").expect("it was asked for"));
        let path = |name: &str| -> PathBuf { self.dir.path().join(name) };
        command.env("CONTAINERS_CONF", path("containers.conf"));
        command
            .arg("--root")
            .arg(path("store"))
            .arg("--runroot")
            .arg(path("run"));
        command
    }

    /// Empties the store.
    pub(super) fn forget(&self) -> Result<()> {
        let mut remove = self.command();
        let removed = run_command("podman rmi", remove.args(["rmi", "--all", "--force"]));
        if removed.code != Some(0) {
            bail!("podman rmi: {}", removed.err);
        }
        Ok(())
    }

    fn measure(&self, file: &Path, ports: [u16; 2], figures: &mut Figures) -> Result<()> {
        let started = Instant::now();
        run_command(
            "podman kube play",
            self.command()
                .args(["kube", "play", "--build=false"])
                .arg(file),
        )
        .ok();
        answer(ports);
        figures.start_millis.push(millis(started.elapsed()));
        // conmon and the pause container carry the store's path in their arguments or are below one that does.
        let store = self.dir.path().display().to_string();
        let runner: Vec<u32> = processes()
            .into_iter()
            .filter(|pid| command(*pid).contains(&store))
            .flat_map(tree)
            .filter(|pid| !command(*pid).contains("echo --listen"))
            .collect();
        figures.processes = runner.len();
        figures.rss_kib.push(sum_rss(&runner));
        let asked = Instant::now();
        run_command(
            "podman kube down",
            self.command().args(["kube", "down"]).arg(file),
        )
        .ok();
        figures.stop_millis.push(millis(asked.elapsed()));
        Ok(())
    }
}

impl Drop for Podman {
    /// Whatever a failed round left. The store's own mounts go too, or its directory can't. `podman system reset` would do it
    /// all, and more than that: it takes networks away that are not this store's.
    fn drop(&mut self) {
        let mut remove = self.command();
        remove.args(["pod", "rm", "--all", "--force"]);
        let finished = run_command("podman pod rm", &mut remove);
        if finished.code != Some(0) {
            eprintln!("podman pod rm: {}", finished.err);
        }
        let store = self.dir.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let below: Vec<&str> = below.filter(|path| path.starts_with(&store)).collect();
        for path in below.into_iter().rev() {
            run_command("umount", Command::new("umount").arg(path));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "KiB of a few processes")]
fn sum_rss(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| rss_kib(*pid)).sum::<u64>() as f64
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn report(ours: &Figures, theirs: &Figures, binary: &Path, effort: Effort) -> Result<()> {
    let versions = size::peers(binary, &["podman", "runc"]);
    let mut report = Report::new("pod", "A pod of two containers", &versions, effort);
    report.paragraph(
        "The same file for both: two containers whose image is the static podkit binary (`podkit echo`), both ports published. A start lasts from the command until both \
         answer over their published ports, for podkit also until the readiness probe has passed and the pod is said to be ready; podman has no readiness \
         probes, so there the command must have returned. Resident memory is that of the runner's own processes: podkit's supervisor and the pod's first process, podman's conmons and \
         its pause container (podman itself has ended by then).",
    );
    let row = |what: &str, figures: fn(&Figures) -> &Vec<f64>| {
        let (mine, other) = (figures(ours), figures(theirs));
        let ratio = stats::median(other) / stats::median(mine);
        vec![
            what.to_owned(),
            rounds(mine),
            rounds(other),
            format!("{} ×", figure(ratio)),
        ]
    };
    report.table(
        "Start, stop, memory",
        &["", "podkit run", "podman kube play", "podman ÷ podkit"],
        &[
            row("start, ms", |figures| &figures.start_millis),
            row("stop, ms", |figures| &figures.stop_millis),
            row("resident beside the containers, KiB", |figures| {
                &figures.rss_kib
            }),
            vec![
                "processes beside the containers".to_owned(),
                ours.processes.to_string(),
                theirs.processes.to_string(),
                String::new(),
            ],
        ],
    );
    let faster = stats::median(&theirs.start_millis) / stats::median(&ours.start_millis);
    report.goals(&[
        Goal {
            what: "start at least 5 times faster than podman".to_owned(),
            measured: faster,
            bound: 5.0,
            below: false,
            note: "",
        },
        Goal {
            what: "supervisor at most 8 MB resident, plus at most 0.5 MB a container (9 MB here)"
                .to_owned(),
            measured: stats::median(&ours.rss_kib) * 1024.0 / 1e6,
            bound: 9.0,
            below: true,
            note: "",
        },
    ]);
    report.finish(effort)
}
