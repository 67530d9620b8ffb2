//! What a proxy counts.

use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Counter, Histogram, Registry};

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client's: it sent what is not taken, or went away.
    Client,
    /// The upstream's: it can't be reached, answers wrongly or not in time.
    Upstream,
    /// Ours, or this machine's.
    Podkit,
}

/// Handles to the metrics of an HTTP proxy; see [`HttpMetrics::METRICS`].
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    classes: [Counter; 5],
    faults: [Counter; 3],
    seconds: Histogram,
    /// Requests sent again, on a new connection or to another upstream.
    pub(super) retries: Counter,
    /// Connections that became tunnels.
    upgrades: Counter,
    /// Connections of HTTP/2.
    pub(super) http2_connections: Counter,
    /// Those of them that were closed for what they flooded us with.
    pub(super) floods: Counter,
}

impl HttpMetrics {
    /// The families, for a module's surface.
    pub const METRICS: &[Metric] = &[
        Metric {
            name: "podkit_http_requests_total",
            kind: "counter",
            labels: &["class"],
            doc: "Requests answered, by the class of their status code: 1xx (upgrades) to 5xx.",
        },
        Metric {
            name: "podkit_http_errors_total",
            kind: "counter",
            labels: &["fault"],
            doc: "Requests that were not answered by the upstream, by whose fault it was: client, upstream, podkit.",
        },
        Metric {
            name: "podkit_http_request_seconds",
            kind: "histogram",
            labels: &[],
            doc: "From a request's whole head to its answer's last byte.",
        },
        Metric {
            name: "podkit_http_retries_total",
            kind: "counter",
            labels: &[],
            doc: "Requests sent again: on a new connection since the kept one was closed by the upstream, or to another upstream.",
        },
        Metric {
            name: "podkit_http_upgrades_total",
            kind: "counter",
            labels: &[],
            doc: "Connections that became tunnels (WebSocket).",
        },
        Metric {
            name: "podkit_http2_connections_total",
            kind: "counter",
            labels: &[],
            doc: "Connections of clients that speak HTTP/2.",
        },
        Metric {
            name: "podkit_http2_floods_total",
            kind: "counter",
            labels: &[],
            doc: "Connections of HTTP/2 that were closed for more frames of control than --h2-max-control-frames.",
        },
    ];

    /// Handles to the families in `metrics`.
    pub fn new(metrics: &Registry) -> Self {
        let [requests, errors, seconds, retries, upgrades, http2, floods] = Self::METRICS else {
            unreachable!("seven families are declared above")
        };
        let class = |word| metrics.counter(requests.name, requests.doc, &[("class", word)]);
        let fault = |word| metrics.counter(errors.name, errors.doc, &[("fault", word)]);
        Self {
            classes: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(class),
            faults: ["client", "upstream", "podkit"].map(fault),
            seconds: metrics.histogram(seconds.name, seconds.doc, Histogram::LATENCY, &[]),
            retries: metrics.counter(retries.name, retries.doc, &[]),
            upgrades: metrics.counter(upgrades.name, upgrades.doc, &[]),
            http2_connections: metrics.counter(http2.name, http2.doc, &[]),
            floods: metrics.counter(floods.name, floods.doc, &[]),
        }
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.classes.iter().map(Counter::get).sum()
    }

    /// Requests that were sent again so far.
    pub fn retried(&self) -> u64 {
        self.retries.get()
    }

    /// Errors so far by fault: client, upstream, podkit.
    pub fn faulted(&self) -> [u64; 3] {
        [0, 1, 2].map(|at: usize| self.faults[at].get())
    }

    pub(super) fn answer(&self, status: u16, took: std::time::Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.classes[class].inc();
        self.seconds.observe(took);
    }

    pub(super) fn upgrade(&self) {
        self.classes[0].inc();
        self.upgrades.inc();
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.faults[fault as usize].inc();
    }
}
