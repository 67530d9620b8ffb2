//! `podkit image pull` beside `skopeo copy` and `podman pull`: an image of 500 MB from a registry on the loopback, each time into an empty
//! store.
//!
//! Nothing is pinned: a pull uses the cores there are, and the registry is the same for all. What a command took is what GNU time says of
//! it and of the processes that it waited for.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use podkit_testkit::images::{self, Registry};
use podkit_testkit::process::run as run_command;
use podkit_testkit::{program, stats};
use serde_json::json;

use super::pod::Podman;
use super::report::{Goal, Report, rounds};
use super::{Effort, size};
use crate::machine::require;

const LAYERS: [&str; 4] = ["one", "two", "three", "four"];
const FILES_OF_A_LAYER: usize = 1000;

/// What a puller took, per round.
#[derive(Debug, Default)]
struct Figures {
    wall_seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
    rss_megabytes: Vec<f64>,
}

/// All that is measured.
#[derive(Debug, Default)]
struct Pullers {
    podkit: Figures,
    /// Into a layout, packed.
    skopeo: Figures,
    /// podman, from that layout.
    unpacking: Figures,
    /// podman, from the registry.
    podman: Figures,
}

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&["podman", "runc", "time"])?;
    require(&images::PROGRAMS)?;
    // podman makes a name of a layout's path, and names have no capital letters.
    let prefix = format!("podkit-bench-image-{}", std::process::id());
    let dir = tempfile::Builder::new()
        .prefix(&prefix)
        .rand_bytes(0)
        .tempdir()?;
    let megabytes = if effort.quick { 20 } else { 500 };
    let made = dir.path().join("image");
    for (seed, layer) in LAYERS.iter().enumerate() {
        fill(
            &made.join(layer),
            megabytes * 1_000_000 / LAYERS.len(),
            seed,
        )?;
    }
    let registry = Registry::start(dir.path());
    let archive = images::archive(&made, "app:1", &LAYERS, &json!({ "Cmd": ["/app"] }));
    let image = registry.push(&archive);
    // What is measured finds the page cache without them.
    fs::remove_dir_all(&made)?;

    let podman = Podman::new()?;
    let mut all = Pullers::default();
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        let store = dir.path().join("podkit");
        let mut command = Command::new(binary);
        command.args(["image", "pull", "-q", "--state-dir"]);
        all.podkit
            .measure(dir.path(), command.arg(&store).arg(&image))?;
        fs::remove_dir_all(&store)?;

        let layout = dir.path().join("layout");
        let mut command = Command::new(program("skopeo").context("it was asked for")?);
        command.args(["copy", "--quiet", "--src-tls-verify=false"]);
        command.arg(format!("docker://{image}"));
        all.skopeo.measure(
            dir.path(),
            command.arg(format!("oci:{}:1", layout.display())),
        )?;
        let mut command = podman.command();
        command.args(["pull", "--quiet"]);
        all.unpacking.measure(
            dir.path(),
            command.arg(format!("oci:{}:1", layout.display())),
        )?;
        podman.forget()?;
        fs::remove_dir_all(&layout)?;

        let mut command = podman.command();
        command.args(["pull", "--quiet", "--tls-verify=false"]);
        all.podman.measure(dir.path(), command.arg(&image))?;
        podman.forget()?;
    }
    report(megabytes, &all, binary, effort)
}

/// Files that gzip halves, as it does a distribution's: 16 different bytes in no order.
fn fill(dir: &Path, bytes: usize, seed: usize) -> Result<()> {
    fs::create_dir_all(dir)?;
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ seed as u64;
    for number in 0..FILES_OF_A_LAYER {
        let mut file = BufWriter::new(fs::File::create(dir.join(format!("file-{number}")))?);
        for _ in 0..bytes / FILES_OF_A_LAYER / 8 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            file.write_all(&(state & 0x0f0f_0f0f_0f0f_0f0f).to_le_bytes())?;
        }
        file.flush()?;
    }
    Ok(())
}

impl Figures {
    /// Runs a command to its end under GNU time, which must succeed.
    fn measure(&mut self, dir: &Path, command: &mut Command) -> Result<()> {
        let said = dir.join("time");
        let mut timed = Command::new(program("time").context("it was asked for")?);
        timed.args(["--format", "%U %S %M", "--output"]).arg(&said);
        timed.arg(command.get_program()).args(command.get_args());
        let variables = command.get_envs();
        timed.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        let name = format!("{command:?}");
        let started = Instant::now();
        run_command(&name, &mut timed).ok();
        self.wall_seconds.push(started.elapsed().as_secs_f64());
        let text = fs::read_to_string(&said)?;
        let numbers: Vec<f64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("time said {text:?}"))?;
        let [user, system, rss_kib] = numbers[..] else {
            anyhow::bail!("time said {text:?}");
        };
        self.cpu_seconds.push(user + system);
        self.rss_megabytes.push(rss_kib * 1024.0 / 1e6);
        Ok(())
    }
}

fn report(megabytes: usize, all: &Pullers, binary: &Path, effort: Effort) -> Result<()> {
    let versions = size::peers(binary, &["skopeo", "podman", "docker-registry"]);
    let mut report = Report::new("image", "Pulling an image", &versions, effort);
    report.paragraph(&format!(
        "An image of {megabytes} MB, {} layers of {FILES_OF_A_LAYER} files that gzip halves, from Debian's docker-registry on the loopback into an empty store; all stores are on the same \
         disk. podkit and podman check and unpack the layers. `skopeo copy docker://… oci:` checks them and keeps them packed; `podman pull oci:…` then unpacks what skopeo brought: the two \
         together do podkit's work. CPU is user and system time, memory the largest resident size of one process, both of the puller alone.",
        LAYERS.len()
    ));
    let row = |what: &str, figures: fn(&Figures) -> &Vec<f64>| {
        let of = [&all.podkit, &all.skopeo, &all.unpacking, &all.podman];
        let figures = of.iter().map(|of| rounds(figures(of)));
        [what.to_owned()].into_iter().chain(figures).collect()
    };
    report.table(
        "A pull",
        &[
            "",
            "podkit image pull",
            "skopeo copy",
            "podman pull oci:",
            "podman pull",
        ],
        &[
            row("wall, s", |figures| &figures.wall_seconds),
            row("CPU, s", |figures| &figures.cpu_seconds),
            row("peak resident, MB", |figures| &figures.rss_megabytes),
        ],
    );
    let wall = |of: &Figures| stats::median(&of.wall_seconds);
    report.goals(&[
        Goal {
            what: "peak memory of a pull of 500 MB at most 64 MB".to_owned(),
            measured: stats::median(&all.podkit.rss_megabytes),
            bound: 64.0,
            below: true,
            note: "",
        },
        Goal {
            what: "no slower than skopeo's copy and podman's unpacking (their time ÷ podkit's)"
                .to_owned(),
            measured: (wall(&all.skopeo) + wall(&all.unpacking)) / wall(&all.podkit),
            bound: 1.0,
            below: false,
            note: "",
        },
    ]);
    report.finish(effort)
}
