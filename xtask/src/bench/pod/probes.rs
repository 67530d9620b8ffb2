//! A thousand probes that execute a program in a container: what each costs, and what stays behind.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use podkit_testkit::machine::{command, descriptors, processes, tree};
use podkit_testkit::process::Process;
use rustix::process::Signal;

use super::ground::{Ground, head, is_contained, script};

pub(super) const PROBES: u64 = 1_000;
/// Containers, each with a readiness and a liveness probe every second.
const CONTAINERS: u32 = 20;

/// What was seen.
#[derive(Debug)]
pub(super) struct Probes {
    pub(super) count: u64,
    /// Of the supervisor and all that it has waited for, the probes' own programs too.
    pub(super) cpu_millis_each: f64,
    /// Descriptors of the supervisor more than before.
    pub(super) descriptors_more: usize,
    /// Of the supervisor and the pod, at the end.
    pub(super) zombies: usize,
}

pub(super) fn measure(ground: &Ground, quick: bool) -> Result<Probes> {
    let wanted = if quick { 100 } else { PROBES };
    eprintln!("{wanted} exec probes");
    let counts = tempfile::tempdir()?;
    let sleeps = script("trap 'exit 0' TERM; while :; do busybox sleep 1000 & wait $!; done");
    let probe = |name: &str| {
        format!(
            "    {name}:\n      exec:\n        command: [busybox, sh, -c, 'echo >>/count/'$HOSTNAME]\n      periodSeconds: 1\n      timeoutSeconds: 10\n      failureThreshold: 100\n"
        )
    };
    let containers: String = (0..CONTAINERS)
        .map(|at| {
            format!(
                "  - name: c{at}\n{sleeps}    volumeMounts:\n    - name: count\n      mountPath: /count\n{}{}",
                probe("readinessProbe").replace("'$HOSTNAME", &format!("r{at}'")),
                probe("livenessProbe").replace("'$HOSTNAME", &format!("l{at}'")),
            )
        })
        .collect();
    let text = format!(
        "{}  containers:\n{containers}  volumes:\n  - name: count\n    hostPath:\n      path: {}\n      type: Directory\n",
        head("podkit-bench-probes"),
        counts.path().display()
    );
    let file = ground.file("probes.yaml", &text)?;
    let mut run = ground.podkit(&["run", "-o", "json", "--allow-privileged"]);
    let mut process = Process::spawn("podkit run", run.arg(&file));
    process.wait_line("the pod to be ready", |line| {
        let said: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        said["type"] == "pod" && said["ready"] == true
    });
    let counted = || -> u64 {
        let files = std::fs::read_dir(counts.path())
            .into_iter()
            .flatten()
            .flatten();
        files
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum()
    };
    let runner: Vec<u32> = tree(process.pid())
        .into_iter()
        .filter(|pid| !is_contained(&command(*pid)))
        .collect();
    let cpu = || -> Duration { runner.iter().map(|pid| cpu_with_children(*pid)).sum() };
    let (count_before, cpu_before, descriptors_before) =
        (counted(), cpu(), descriptors(process.pid()));
    let deadline = Instant::now() + Duration::from_secs(120);
    while counted() < count_before + wanted {
        if Instant::now() > deadline {
            bail!(
                "{} probes in two minutes\n{}",
                counted() - count_before,
                process.shown()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let (count, cpu_after) = (counted() - count_before, cpu());
    let pod = tree(process.pid());
    let zombies = processes()
        .into_iter()
        .filter(|pid| is_zombie_below(*pid, &pod))
        .count();
    // A probe may be under way: the least of some looks.
    let looks = (0..40).map(|_| {
        std::thread::sleep(Duration::from_millis(25));
        descriptors(process.pid())
    });
    let descriptors_after = looks.min().unwrap_or_default();
    process.signal(Signal::TERM);
    process.wait();
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let cpu_millis_each = cpu_after.saturating_sub(cpu_before).as_secs_f64() * 1e3 / count as f64;
    Ok(Probes {
        count,
        cpu_millis_each,
        descriptors_more: descriptors_after.saturating_sub(descriptors_before),
        zombies,
    })
}

/// User and system time of a process and of the children that it has waited for (proc(5), fields 14 to 17).
fn cpu_with_children(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_ascii_whitespace().skip(11).take(4);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// An ended process that nobody has waited for, whose parent is one of these. One that has just ended is none.
fn is_zombie_below(pid: u32, parents: &[u32]) -> bool {
    let look = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat
            .rsplit_once(") ")
            .map_or("", |(_, rest)| rest)
            .split(' ');
        let state = fields.next().unwrap_or_default().to_owned();
        let parent = fields.next().and_then(|parent| parent.parse().ok());
        state == "Z" && parent.is_some_and(|parent: u32| parents.contains(&parent))
    };
    look() && {
        std::thread::sleep(Duration::from_millis(100));
        look()
    }
}
