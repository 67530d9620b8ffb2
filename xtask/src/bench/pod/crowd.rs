//! Many pods at once: how long until all are ready, and what each costs besides its containers.

use std::time::Instant;

use anyhow::{Result, bail};
use podkit_testkit::machine::{command, processes, pss_kib, rss_kib};
use podkit_testkit::process::run as run_command;

use super::ground::{Ground, head, is_contained, script};

pub(super) const PODS: u32 = 50;

/// What was seen.
#[derive(Debug)]
pub(super) struct Crowd {
    /// Until all were ready.
    pub(super) seconds: f64,
    /// Of the runner's own processes, by pod.
    pub(super) rss_megabytes: f64,
    /// The same with what is shared counted once.
    pub(super) pss_megabytes: f64,
    /// Until all were gone.
    pub(super) stop_seconds: f64,
}

pub(super) fn measure(ground: &Ground) -> Result<Crowd> {
    eprintln!("{PODS} pods of two containers");
    let sleeps = script("trap 'exit 0' TERM; while :; do busybox sleep 1000 & wait $!; done");
    let pod = |at: u32| {
        format!(
            "{}  containers:\n  - name: one\n{sleeps}  - name: two\n{sleeps}",
            head(&format!("podkit-bench-{at}"))
        )
    };
    let pods: Vec<String> = (0..PODS).map(pod).collect();
    let file = ground.file("crowd.yaml", &pods.join("---\n"))?;
    let started = Instant::now();
    let mut run = ground.podkit(&["run", "-d", "--wait"]);
    run_command("podkit run", run.arg(&file)).ok();
    let seconds = started.elapsed().as_secs_f64();
    // Supervisors, pods' inits and the process over them all: they carry the manifest's path, or have a parent that does.
    let path = file.display().to_string();
    let ours: Vec<u32> = processes()
        .into_iter()
        .filter(|pid| command(*pid).contains(&path))
        .flat_map(podkit_testkit::machine::tree)
        .filter(|pid| !is_contained(&command(*pid)))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    if ours.len() < PODS as usize {
        bail!("{} processes are found for {PODS} pods", ours.len());
    }
    #[expect(clippy::cast_precision_loss, reason = "KiB of a few hundred processes")]
    let each = |kib: fn(u32) -> u64| {
        let sum: u64 = ours.iter().map(|pid| kib(*pid)).sum();
        sum as f64 * 1024.0 / 1e6 / f64::from(PODS)
    };
    let (rss_megabytes, pss_megabytes) = (each(rss_kib), each(pss_kib));
    let asked = Instant::now();
    run_command("podkit stop", &mut ground.podkit(&["stop", "--all"])).ok();
    Ok(Crowd {
        seconds,
        rss_megabytes,
        pss_megabytes,
        stop_seconds: asked.elapsed().as_secs_f64(),
    })
}
