//! What is told of the sources themselves, on `/metrics` beside what they say, and on the admin server's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Kind as Shown, Registry};
use tokio::time::Instant;

use super::batch::{Batch, Kind};
use super::keeper::Went;
use super::scrape::Member;

/// Of each source.
const SOURCE: [Metric; 3] = [
    Metric {
        name: "podkit_metrics_source_up",
        kind: "gauge",
        labels: &["source", "part"],
        doc: "The source answered the last time that it was asked. A part is what has an interval of its own.",
    },
    Metric {
        name: "podkit_metrics_source_duration_seconds",
        kind: "gauge",
        labels: &["source", "part"],
        doc: "How long that took.",
    },
    Metric {
        name: "podkit_metrics_source_age_seconds",
        kind: "gauge",
        labels: &["source", "part"],
        doc: "How old the values of the source are.",
    },
];

/// All.
pub(super) const METRICS: [Metric; 5] = [
    SOURCE[0],
    SOURCE[1],
    SOURCE[2],
    Metric {
        name: "podkit_metrics_targets",
        kind: "gauge",
        labels: &[],
        doc: "Targets of /probe that are kept, with --targets-file.",
    },
    Metric {
        name: "podkit_metrics_probes_total",
        kind: "counter",
        labels: &["result"],
        doc: "Requests for /probe: asked, or refused.",
    },
];

/// How a source was the last time, for threads that can't ask its keeper.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<State>);

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// None before it was asked once.
    went: Option<(f64, Duration)>,
    /// When its last values came.
    at: Option<Instant>,
}

impl Told {
    /// It was asked; `at`: the values that are kept are of then.
    pub(crate) fn set(&self, went: &Went, at: Option<Instant>) {
        let went = Some((went.up(), went.took));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State { went, at };
    }

    /// The values of the families of each source.
    fn values(&self) -> [Option<f64>; 3] {
        let State { went, at } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        [
            Some(went.map_or(0.0, |(up, _)| up)),
            went.map(|(_, took)| took.as_secs_f64()),
            at.map(|at| at.elapsed().as_secs_f64()),
        ]
    }
}

/// What there is of each source.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SOURCE.iter().map(|metric| metric.name)
}

/// For `/metrics`.
pub(super) fn batch(members: &[Member]) -> Batch {
    let mut batch = Batch::default();
    for member in members {
        let values = member.keeper.told().values();
        for (metric, value) in SOURCE.iter().zip(values) {
            if let Some(value) = value {
                let labels = labels(&member.source, member.part.as_deref());
                let family = batch.family(metric.name, Kind::Gauge, metric.doc);
                family.put(&labels, value);
            }
        }
    }
    batch
}

/// The state of all members, for the admin server's `/metrics`.
#[derive(Debug, Default)]
pub(super) struct Board(Arc<Mutex<Vec<Line>>>);

/// Source, part, and how it was.
type Line = (String, Option<String>, Arc<Told>);

impl Board {
    pub(super) fn show(&self, members: &[Member]) {
        let line = |member: &Member| {
            let (source, part) = (member.source.clone(), member.part.clone());
            (source, part, Arc::clone(member.keeper.told()))
        };
        let lines = members.iter().map(line).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = lines;
    }

    pub(super) fn register(&self, registry: &Registry) {
        let all = Arc::clone(&self.0);
        registry.collect(move |encoder| {
            let all = all.lock().unwrap_or_else(PoisonError::into_inner);
            for (at, metric) in SOURCE.iter().enumerate() {
                encoder.family(metric.name, Shown::Gauge, metric.doc);
                for (source, part, told) in &*all {
                    if let Some(value) = told.values()[at] {
                        let labels = labels(source, part.as_deref());
                        encoder.sample(metric.name, &labels, value);
                    }
                }
            }
        });
    }
}

fn labels<'a>(source: &'a str, part: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let mut labels = vec![("source", source)];
    labels.extend(part.map(|part| ("part", part)));
    labels
}
