//! How long the runner is there after the last process of its pod.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use podkit_testkit::machine::{command, tree};
use podkit_testkit::process::Process;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::ground::{Ground, head, is_contained, script};
use super::millis;
use crate::bench::Effort;

/// Milliseconds from the end of the last process to that of `podkit run`, per round. The containers take a while to end, each another one.
pub(super) fn measure(ground: &Ground, effort: Effort) -> Result<Vec<f64>> {
    let ends = |seconds: &str| {
        script(&format!(
            "trap 'busybox sleep {seconds}; exit 0' TERM; while :; do busybox sleep 1000 & wait $!; done"
        ))
    };
    let text = format!(
        "{}  containers:\n  - name: one\n{}  - name: two\n{}",
        head("podkit-bench-stop"),
        ends("0.1"),
        ends("0.3")
    );
    let file = ground.file("stop.yaml", &text)?;
    (0..effort.rounds).map(|_| one(ground, &file)).collect()
}

fn one(ground: &Ground, file: &std::path::Path) -> Result<f64> {
    let mut run = ground.podkit(&["run", "-o", "json"]);
    let mut process = Process::spawn("podkit run", run.arg(file));
    process.wait_line("the pod to be ready", |line| {
        let said: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        said["type"] == "pod" && said["ready"] == true
    });
    let shells: Vec<_> = tree(process.pid())
        .into_iter()
        .filter(|pid| is_contained(&command(*pid)) && command(*pid).contains("trap"))
        .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        .map(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .collect::<Result<_, _>>()
        .context("pidfd_open")?;
    process.signal(Signal::TERM);
    for shell in &shells {
        let mut wait = [PollFd::new(shell, PollFlags::IN)];
        poll(&mut wait, None).context("poll")?;
    }
    let last = Instant::now();
    process.wait_for(Duration::from_secs(30));
    Ok(millis(last.elapsed()))
}
