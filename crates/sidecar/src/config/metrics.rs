//! The module's metrics.

use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Counter, Gauge, Histogram, Registry};

use super::source::SourceSpec;
use crate::publish::Step;

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "podkit_config_published_total",
        kind: "counter",
        labels: &[],
        doc: "Versions published.",
    },
    Metric {
        name: "podkit_config_refused_total",
        kind: "counter",
        labels: &["step"],
        doc: "Versions refused: by render, guard, validate, write, reload or confirm.",
    },
    Metric {
        name: "podkit_config_rolled_back_total",
        kind: "counter",
        labels: &[],
        doc: "Versions that were published and taken back.",
    },
    Metric {
        name: "podkit_config_published_timestamp_seconds",
        kind: "gauge",
        labels: &[],
        doc: "Unix time of the last version that this process published; 0 before.",
    },
    Metric {
        name: "podkit_config_publish_seconds",
        kind: "histogram",
        labels: &[],
        doc: "Time from a state of the sources to its version being in force, confirmation included.",
    },
    Metric {
        name: "podkit_config_source_reads_total",
        kind: "counter",
        labels: &["source", "result"],
        doc: "Looks at a source: success or failure.",
    },
    Metric {
        name: "podkit_config_source_contact_timestamp_seconds",
        kind: "gauge",
        labels: &["source"],
        doc: "Unix time at which a source last answered; older than --resync when the watch is dead.",
    },
];

/// The counts of a source.
#[derive(Debug, Clone)]
pub(super) struct SourceCounts {
    pub(super) answered: Counter,
    pub(super) failed: Counter,
    pub(super) contact: Gauge,
}

/// What is counted.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    pub(super) published: Counter,
    pub(super) rolled_back: Counter,
    pub(super) at: Gauge,
    pub(super) seconds: Histogram,
    refused: Vec<(&'static str, Counter)>,
    sources: Vec<SourceCounts>,
}

impl Counts {
    pub(super) fn new(registry: &Registry, sources: &[SourceSpec]) -> Self {
        let [published, refused, rolled_back, at, seconds, reads, contact] = METRICS else {
            unreachable!("the table has seven rows");
        };
        let steps = Step::ALL.iter().map(|step| step.word());
        let refused = std::iter::once("render").chain(steps).map(|step| {
            (
                step,
                registry.counter(refused.name, refused.doc, &[("step", step)]),
            )
        });
        let sources = sources.iter().map(|source| {
            let source = source.to_string();
            let read = |result| {
                registry.counter(
                    reads.name,
                    reads.doc,
                    &[("source", &source), ("result", result)],
                )
            };
            SourceCounts {
                answered: read("success"),
                failed: read("failure"),
                contact: registry.gauge(contact.name, contact.doc, &[("source", &source)]),
            }
        });
        Self {
            published: registry.counter(published.name, published.doc, &[]),
            rolled_back: registry.counter(rolled_back.name, rolled_back.doc, &[]),
            at: registry.gauge(at.name, at.doc, &[]),
            seconds: registry.histogram(seconds.name, seconds.doc, Histogram::LATENCY, &[]),
            refused: refused.collect(),
            sources: sources.collect(),
        }
    }

    pub(super) fn source(&self, index: usize) -> &SourceCounts {
        &self.sources[index]
    }

    pub(super) fn refused(&self, step: &str) -> Counter {
        let found = self.refused.iter().find(|(name, _)| *name == step);
        found
            .map(|(_, counter)| counter.clone())
            .unwrap_or_default()
    }
}
