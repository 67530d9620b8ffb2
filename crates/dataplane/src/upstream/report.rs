//! What is told of the endpoints: for pages, as JSON, as metrics, and by whoever drains one.

use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Kind, Registry};
use serde::Serialize;
use tokio::time::Instant;

use super::endpoint::State;
use super::membership::Membership;

/// An endpoint as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its address.
    pub name: String,
    /// The word of its [`State`].
    pub state: &'static str,
    /// Why; empty when there is nothing to say.
    pub reason: String,
    /// Its share.
    pub weight: u16,
    /// Lower is used first.
    pub priority: u16,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that it answered.
    pub answered: u64,
    /// Requests that failed there.
    pub failed: u64,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// Times it was ejected.
    pub ejected: u64,
    /// Checks that it passed.
    pub checks_passed: u64,
    /// Checks that it did not pass.
    pub checks_failed: u64,
}

/// Why an endpoint was not drained or taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no upstream {0}; GET /upstreams names them")]
pub struct Unknown(pub String);

impl Membership {
    /// The families of [`Membership::export`], for a module's surface.
    pub const METRICS: &[Metric] = &[
        Metric {
            name: "podkit_upstream_usable",
            kind: "gauge",
            labels: &["upstream"],
            doc: "1 while the upstream takes requests.",
        },
        Metric {
            name: "podkit_upstream_in_flight",
            kind: "gauge",
            labels: &["upstream"],
            doc: "Requests in flight at the upstream.",
        },
        Metric {
            name: "podkit_upstream_requests_total",
            kind: "counter",
            labels: &["upstream", "result"],
            doc: "Requests by upstream: answered; failed (not reached, no answer in time or a wrong one, 502 to 504).",
        },
        Metric {
            name: "podkit_upstream_ejections_total",
            kind: "counter",
            labels: &["upstream"],
            doc: "Times the upstream was left out for a while, since it failed requests.",
        },
        Metric {
            name: "podkit_upstream_checks_total",
            kind: "counter",
            labels: &["upstream", "result"],
            doc: "Checks of --ready by upstream: passed; failed.",
        },
        Metric {
            name: "podkit_upstream_panic",
            kind: "gauge",
            labels: &[],
            doc: "1 while too few upstreams take requests, so that all are used.",
        },
    ];

    /// Every endpoint at `now`, in the order in which they were found.
    pub fn shown(&self, now: Instant) -> Vec<Shown> {
        let view = self.view();
        let shown = view.endpoints.iter().map(|one| Shown {
            name: one.name().to_owned(),
            state: self.state(one, now).word(),
            reason: match self.state(one, now) {
                State::Ready | State::Warming | State::Weightless => String::new(),
                _ => one.reason(),
            },
            weight: one.weight(),
            priority: one.priority(),
            in_flight: one.in_flight(),
            answered: one.counts.answered.get(),
            failed: one.counts.failed.get(),
            failures_in_a_row: one.failures(),
            ejected: one.counts.ejected.get(),
            checks_passed: one.counts.passed.get(),
            checks_failed: one.counts.missed.get(),
        });
        shown.collect()
    }

    /// Whether any endpoint takes requests at `now`; otherwise why not.
    pub fn usable(&self, now: Instant) -> Result<(), String> {
        let shown = self.shown(now);
        let usable =
            |one: &Shown| one.state == State::Ready.word() || one.state == State::Warming.word();
        if shown.iter().any(usable) {
            return Ok(());
        }
        match shown.first() {
            None => Err("no upstream was found yet".to_owned()),
            Some(first) => {
                let why = match first.reason.as_str() {
                    "" => first.state.to_owned(),
                    reason => format!("{}, {reason}", first.state),
                };
                Err(format!(
                    "none of {} upstreams takes requests; {}: {why}",
                    shown.len(),
                    first.name
                ))
            }
        }
    }

    /// Drains the endpoint of that name, or takes it back. Tells whether that changed anything.
    pub fn drain(&self, name: &str, drained: bool, now: Instant) -> Result<bool, Unknown> {
        let view = self.view();
        let endpoint = view.endpoints.iter().find(|one| one.name() == name);
        let endpoint = endpoint.ok_or_else(|| Unknown(name.to_owned()))?;
        Ok(self.set_drained(endpoint, drained, now))
    }

    /// Adds the endpoints' figures to the metrics. As many label values as there are endpoints: those that are gone are gone here too.
    pub fn export(&self, registry: &Registry) {
        let membership = self.clone();
        registry.collect(move |encoder| {
            let shown = membership.shown(Instant::now());
            let [usable, in_flight, requests, ejections, checks, panic] = Self::METRICS else {
                unreachable!("six families are declared above")
            };
            encoder.family(panic.name, Kind::Gauge, panic.doc);
            let panics = membership.panics(Instant::now());
            encoder.sample(panic.name, &[], f64::from(u8::from(panics)));
            encoder.family(usable.name, Kind::Gauge, usable.doc);
            for one in &shown {
                let takes = one.state == State::Ready.word() || one.state == State::Warming.word();
                encoder.sample(
                    usable.name,
                    &[("upstream", &one.name)],
                    f64::from(u8::from(takes)),
                );
            }
            encoder.family(in_flight.name, Kind::Gauge, in_flight.doc);
            for one in &shown {
                encoder.sample(
                    in_flight.name,
                    &[("upstream", &one.name)],
                    one.in_flight.into(),
                );
            }
            let mut pairs = |family: &Metric, words: [&str; 2], of: &dyn Fn(&Shown) -> [u64; 2]| {
                encoder.family(family.name, Kind::Counter, family.doc);
                for one in &shown {
                    for (word, count) in words.into_iter().zip(of(one)) {
                        let labels = [("upstream", one.name.as_str()), ("result", word)];
                        encoder.sample(family.name, &labels, count as f64);
                    }
                }
            };
            pairs(requests, ["answered", "failed"], &|one| {
                [one.answered, one.failed]
            });
            pairs(checks, ["passed", "failed"], &|one| {
                [one.checks_passed, one.checks_failed]
            });
            encoder.family(ejections.name, Kind::Counter, ejections.doc);
            for one in &shown {
                encoder.sample(
                    ejections.name,
                    &[("upstream", &one.name)],
                    one.ejected as f64,
                );
            }
        });
    }
}
