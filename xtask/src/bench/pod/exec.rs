//! A command in a container that runs: how long it takes, and how much memory whoever brings it there.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use podkit_testkit::process::{Process, run as run_command};
use podkit_testkit::program;
use rustix::process::Signal;

use super::ground::{Ground, head, script};
use super::millis;
use crate::bench::Effort;

/// What was measured of one runner, per round.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) wall_millis: Vec<f64>,
    /// The largest of the processes that the command has started and waited for, itself among them.
    pub(super) peak_megabytes: Vec<f64>,
}

const POD: &str = "podkit-bench-exec";

pub(super) fn measure(ground: &Ground, effort: Effort) -> Result<(Figures, Figures)> {
    let sleeps = script("trap 'exit 0' TERM; while :; do busybox sleep 1000 & wait $!; done");
    let text = format!("{}  containers:\n  - name: one\n{sleeps}", head(POD));
    let file = ground.file("exec.yaml", &text)?;
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    let mut run = ground.podkit(&["run", "-o", "json"]);
    let mut process = Process::spawn("podkit run", run.arg(&file));
    process.wait_line("the container to run", |line| line.contains("\"Running\""));
    let mut play = ground.podman.command();
    run_command(
        "podman kube play",
        play.args(["kube", "play", "--build=false"]).arg(&file),
    )
    .ok();
    for round in 0..effort.rounds {
        eprintln!("exec: round {} of {}", round + 1, effort.rounds);
        let mut exec = ground.podkit(&["exec"]);
        exec.args([POD, "--", "busybox", "true"]);
        ours.time(ground, &exec)?;
        let mut exec = ground.podman.command();
        exec.args(["exec", &format!("{POD}-one"), "busybox", "true"]);
        theirs.time(ground, &exec)?;
    }
    process.signal(Signal::TERM);
    process.wait();
    let mut down = ground.podman.command();
    run_command("podman kube down", down.args(["kube", "down"]).arg(&file)).ok();
    Ok((ours, theirs))
}

impl Figures {
    /// Runs a command twice: as it is for its time, and under GNU time for its memory.
    fn time(&mut self, ground: &Ground, command: &Command) -> Result<()> {
        let again = |program: &mut Command| {
            program.args(command.get_args());
            let variables = command.get_envs();
            program.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        };
        let mut plain = Command::new(command.get_program());
        again(&mut plain);
        let started = Instant::now();
        run_command("exec", &mut plain).ok();
        self.wall_millis.push(millis(started.elapsed()));

        let said = ground.file("time", "")?;
        let mut timed = Command::new(program("time").context("it was asked for")?);
        timed.args(["--format", "%M", "--output"]).arg(&said);
        timed.arg(command.get_program());
        again(&mut timed);
        run_command("exec", &mut timed).ok();
        let text = std::fs::read_to_string(&said)?;
        let kib: f64 = text
            .trim()
            .parse()
            .with_context(|| format!("time said {text:?}"))?;
        self.peak_megabytes.push(kib * 1024.0 / 1e6);
        Ok(())
    }
}
