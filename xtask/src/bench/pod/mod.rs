//! `podkit run` against `podman kube play`: the same file, the same image in both stores, Debian's podman with runc.

mod crowd;
mod exec;
mod ground;
mod podman;
mod probes;
mod start;
mod stop;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use podkit_testkit::stats;

use self::crowd::Crowd;
use self::ground::Ground;
pub(super) use self::podman::Podman;
use self::probes::Probes;
use super::report::{Goal, Report, figure, rounds};
use super::{Effort, size};
use crate::machine::require;

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&[
        "podman",
        "runc",
        "catatonit",
        "iptables",
        "busybox",
        "tar",
        "sha256sum",
        "time",
    ])?;
    let ground = Ground::new(binary)?;
    // A start is short: more rounds than the other benchmarks.
    let many = Effort {
        rounds: if effort.quick { 2 } else { effort.rounds * 3 },
        ..effort
    };
    let all = All {
        start: start::measure(&ground, many)?,
        exec: exec::measure(&ground, many)?,
        stop_millis: stop::measure(&ground, many)?,
        crowd: crowd::measure(&ground)?,
        probes: probes::measure(&ground, effort.quick)?,
    };
    report(&all, binary, many)
}

/// What was measured: of podkit, and of podman where it does the same.
struct All {
    start: (start::Figures, start::Figures),
    exec: (exec::Figures, exec::Figures),
    stop_millis: Vec<f64>,
    crowd: Crowd,
    probes: Probes,
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn row(what: &str, mine: &[f64], other: &[f64]) -> Vec<String> {
    let ratio = stats::median(other) / stats::median(mine);
    vec![
        what.to_owned(),
        rounds(mine),
        rounds(other),
        format!("{} ×", figure(ratio)),
    ]
}

fn report(all: &All, binary: &Path, effort: Effort) -> Result<()> {
    let versions = size::peers(binary, &["podman", "runc"]);
    let mut report = Report::new("pod", "Pods", &versions, effort);
    report.paragraph(
        "The same file for both, and the same image (static busybox), which is in both stores before the first round. A start lasts from the command until both \
         containers answer over their published ports, for podkit also until the readiness probe has passed and the pod is said to be ready; podman has no readiness \
         probes, so there the command must have returned. Resident memory is that of the runner's own processes: podkit's supervisor and the pod's first process, podman's conmons and \
         its pause container (podman itself has ended by then).",
    );
    let columns = ["", "podkit", "podman", "podman ÷ podkit"];
    let (ours, theirs) = &all.start;
    report.table(
        "A pod of two containers: `podkit run`, `podman kube play`",
        &columns,
        &[
            row("start, ms", &ours.start_millis, &theirs.start_millis),
            row("stop, ms", &ours.stop_millis, &theirs.stop_millis),
            row(
                "resident beside the containers, KiB",
                &ours.rss_kib,
                &theirs.rss_kib,
            ),
            vec![
                "processes beside the containers".to_owned(),
                ours.processes.to_string(),
                theirs.processes.to_string(),
                String::new(),
            ],
        ],
    );
    let (exec, exec_peer) = &all.exec;
    report.table(
        "`exec` of a program that does nothing",
        &columns,
        &[
            row(
                "from the command to its end, ms",
                &exec.wall_millis,
                &exec_peer.wall_millis,
            ),
            row(
                "largest process, MB resident",
                &exec.peak_megabytes,
                &exec_peer.peak_megabytes,
            ),
        ],
    );
    let (crowd, probes) = (&all.crowd, &all.probes);
    let single = |what: &str, value: f64| vec![what.to_owned(), figure(value)];
    report.table(
        &format!("{} pods of two containers at once", crowd::PODS),
        &["", "podkit"],
        &[
            single("all ready after, s", crowd.seconds),
            single(
                "the runner's processes, MB resident a pod",
                crowd.rss_megabytes,
            ),
            single("the same, proportional (PSS)", crowd.pss_megabytes),
            single("all gone after, s", crowd.stop_seconds),
        ],
    );
    report.table(
        "Probes that execute a shell in a container",
        &["", "podkit"],
        &[
            vec!["probes".to_owned(), probes.count.to_string()],
            single("CPU of each, the shell's too, ms", probes.cpu_millis_each),
            vec![
                "descriptors that stayed open".to_owned(),
                probes.descriptors_more.to_string(),
            ],
            vec!["zombies".to_owned(), probes.zombies.to_string()],
        ],
    );
    report.table(
        "After the last process of a pod",
        &["", "podkit"],
        &[vec![
            "the runner's end, ms".to_owned(),
            rounds(&all.stop_millis),
        ]],
    );
    report.goals(&goals(all));
    report.finish(effort)
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn goals(all: &All) -> Vec<Goal> {
    let ratio = |theirs: &[f64], ours: &[f64]| stats::median(theirs) / stats::median(ours);
    let goal = |what: &str, measured: f64, bound: f64, below: bool| Goal {
        what: what.to_owned(),
        measured,
        bound,
        below,
        note: "",
    };
    let (start, start_peer) = &all.start;
    let (exec, exec_peer) = &all.exec;
    vec![
        goal(
            "start at least 5 times faster than podman",
            ratio(&start_peer.start_millis, &start.start_millis),
            5.0,
            false,
        ),
        goal(
            "supervisor at most 8 MB resident, plus at most 0.5 MB a container (9 MB here)",
            stats::median(&start.rss_kib) * 1024.0 / 1e6,
            9.0,
            true,
        ),
        goal(
            "exec at least 10 times faster than podman",
            ratio(&exec_peer.wall_millis, &exec.wall_millis),
            10.0,
            false,
        ),
        goal(
            "exec without a helper of 35 MB (MB)",
            stats::median(&exec.peak_megabytes),
            35.0,
            true,
        ),
        goal(
            "the runner ends within 100 ms of the last process",
            stats::median(&all.stop_millis),
            100.0,
            true,
        ),
        goal(
            "50 pods at once: at most 10 MB a pod",
            all.crowd.rss_megabytes,
            10.0,
            true,
        ),
        goal(
            "1,000 exec probes: at most 5 ms of CPU each",
            all.probes.cpu_millis_each,
            5.0,
            true,
        ),
        goal(
            "1,000 exec probes: no descriptor leaked",
            all.probes.descriptors_more as f64,
            0.0,
            true,
        ),
        goal(
            "1,000 exec probes: no zombie",
            all.probes.zombies as f64,
            0.0,
            true,
        ),
    ]
}
