//! The metrics: by container, never by process, so that their number is bounded.

use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Encoder, Kind};

use super::query::{Asked, At};
use super::snapshot::{Container, Sort, Source};

const CONTAINER: &[&str] = &["container"];

/// The metrics, as documented.
pub(crate) const METRICS: &[Metric] = &[
    metric(
        "podkit_topz_container_cpu_seconds_total",
        "counter",
        CONTAINER,
        CPU,
    ),
    metric(
        "podkit_topz_container_memory_bytes",
        "gauge",
        CONTAINER,
        MEMORY,
    ),
    metric(
        "podkit_topz_container_processes",
        "gauge",
        CONTAINER,
        "Processes of the container.",
    ),
    metric(
        "podkit_topz_container_threads",
        "gauge",
        CONTAINER,
        "Threads of the container.",
    ),
    metric(
        "podkit_topz_container_memory_working_set_bytes",
        "gauge",
        CONTAINER,
        WORKING_SET,
    ),
    metric(
        "podkit_topz_container_memory_limit_bytes",
        "gauge",
        CONTAINER,
        "Memory limit of the container's cgroup.",
    ),
    metric(
        "podkit_topz_container_oom_kills_total",
        "counter",
        CONTAINER,
        OOM,
    ),
    metric(
        "podkit_topz_container_throttled_seconds_total",
        "counter",
        CONTAINER,
        THROTTLED,
    ),
    metric(
        "podkit_topz_container_pressure_ratio",
        "gauge",
        &["container", "resource"],
        PRESSURE,
    ),
    metric("podkit_topz_short_lived_total", "counter", &[], SHORT),
    metric(
        "podkit_topz_appeared_total",
        "counter",
        &[],
        "Processes first seen after the first look.",
    ),
    metric(
        "podkit_topz_disappeared_total",
        "counter",
        &[],
        "Processes seen gone.",
    ),
    metric(
        "podkit_topz_skipped_processes",
        "gauge",
        &[],
        "Processes beyond --max-processes, not watched.",
    ),
    metric("podkit_topz_looks_total", "counter", &[], "Looks taken."),
    metric(
        "podkit_topz_look_seconds",
        "gauge",
        &[],
        "Duration of the latest look.",
    ),
    metric(
        "podkit_topz_look_cpu_seconds_total",
        "counter",
        &[],
        "CPU time that the looks have taken.",
    ),
    metric(
        "podkit_topz_last_look_timestamp_seconds",
        "gauge",
        &[],
        "Unix time of the latest look.",
    ),
    metric(
        "podkit_topz_history_seconds",
        "gauge",
        &[],
        "How far the history goes back.",
    ),
    metric(
        "podkit_topz_history_bytes",
        "gauge",
        &[],
        "Memory that the history takes.",
    ),
    metric(
        "podkit_topz_history_limit_bytes",
        "gauge",
        &[],
        "Memory that the history may take.",
    ),
];

const CPU: &str =
    "CPU time of the container's processes, short-lived children that were waited for included.";
const MEMORY: &str = "Sum of the resident memory of the container's processes; what they share counts more than once.";
const WORKING_SET: &str = "Memory charged to the container's cgroup, less inactive file pages.";
const OOM: &str = "Processes of the container that the kernel killed for want of memory.";
const THROTTLED: &str = "Time that the container waited because its CPU quota was used up.";
const PRESSURE: &str =
    "Share of the last 10 s in which some task of the container waited for the resource.";
const SHORT: &str = "Processes and threads that came and went between two looks.";

const fn metric(
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    doc: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        doc,
    }
}

/// What the looks themselves cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// How long the latest took.
    pub(crate) last_seconds: f64,
    /// CPU time of all.
    pub(crate) cpu_seconds: f64,
}

/// One metric's value of a container, where it has one.
type Value<'a> = &'a dyn Fn(&Container) -> Option<f64>;

/// Writes all families.
pub(crate) fn encode(encoder: &mut Encoder, source: &Source<'_>, cost: Cost) {
    let asked = Asked {
        at: At::Now,
        sort: Sort::Pid,
        container: None,
        pid: None,
        limit: Some(0),
    };
    let Ok(snapshot) = source.snapshot(&asked) else {
        return;
    };
    let (missed, appeared, disappeared) = source.census.totals();
    let history = &snapshot.history;
    let short = source.census.knows_missed().then_some(missed as f64);
    let ticks = source.census.names().ticks();
    let second = source.units.ticks_per_second as f64;
    let cpu = |container: &Container| {
        let (_, ticks) = ticks.iter().find(|(name, _)| *name == container.name)?;
        Some(*ticks as f64 / second)
    };
    let figure = |value: fn(&super::cgroup::Figures) -> Option<f64>| {
        move |container: &Container| container.cgroup.as_ref().and_then(value)
    };
    let by_container: &[Value<'_>] = &[
        &cpu,
        &|container| Some(container.memory_bytes as f64),
        &|container| Some(container.processes.into()),
        &|container| Some(container.threads.into()),
        &figure(|figures| Some(figures.memory_working_set_bytes? as f64)),
        &figure(|figures| Some(figures.memory_limit_bytes? as f64)),
        &figure(|figures| Some(figures.oom_kills? as f64)),
        &figure(|figures| figures.throttled_seconds),
    ];
    for (metric, value) in METRICS.iter().zip(by_container) {
        let samples = snapshot.containers.iter().filter_map(|container| {
            Some((
                vec![("container", container.name.as_str())],
                value(container)?,
            ))
        });
        family(encoder, metric, samples);
    }
    let rest = &METRICS[by_container.len()..];
    let pressures = snapshot.containers.iter().flat_map(|container| {
        let figures = container.cgroup.clone().unwrap_or_default();
        [
            ("cpu", figures.cpu_pressure_percent),
            ("memory", figures.memory_pressure_percent),
            ("io", figures.io_pressure_percent),
        ]
        .into_iter()
        .filter_map(|(resource, value)| {
            Some((
                vec![
                    ("container", container.name.as_str()),
                    ("resource", resource),
                ],
                value? / 100.0,
            ))
        })
    });
    family(encoder, &rest[0], pressures);
    let values = [
        short,
        Some(appeared as f64),
        Some(disappeared as f64),
        Some(snapshot.skipped.into()),
        Some(snapshot.look as f64),
        Some(cost.last_seconds),
        Some(cost.cpu_seconds),
        Some(snapshot.at),
        Some(history.seconds),
        Some(history.bytes as f64),
        Some(history.bytes_max as f64),
    ];
    for (metric, value) in rest[1..].iter().zip(values) {
        family(encoder, metric, value.map(|value| (Vec::new(), value)));
    }
}

/// A family with its samples, if there are any.
fn family<'a>(
    encoder: &mut Encoder,
    metric: &Metric,
    samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
) {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return;
    }
    let kind = if metric.kind == "counter" {
        Kind::Counter
    } else {
        Kind::Gauge
    };
    encoder.family(metric.name, kind, metric.doc);
    for (labels, value) in samples {
        encoder.sample(metric.name, &labels, value);
    }
}
