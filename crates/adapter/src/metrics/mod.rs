//! `metrics`: one Prometheus endpoint for servers that have none, or one of their own kind.
//!
//! ```text
//!   --source ──▶ spec ──▶ source ──▶ collector ─╮
//!                                               ├─▶ keeper ──▶ batch, and its age ──▶ expose ──▶ /metrics
//!   scrape ─────────────────────────────────────╯
//! ```
//!
//! A keeper asks its source once for all scrapes that come meanwhile, over a connection that is kept, and has always an answer.

mod batch;
mod check;
mod expose;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod keeper;
mod own;
mod params;
mod scrape;
mod service;
mod source;
mod sources;
mod spec;
mod targets;

use podkit_dataplane::module::Module;
use podkit_dataplane::net::{ListenerLimits, Worker};
use podkit_dataplane::tls::{ORIGIN_METRICS, UpstreamTlsParams};
use podkit_dataplane::upstream::UpstreamMetrics;
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{Group, Metric, ModuleSpec, Port, count, join};

use params::Params;

/// The module, for the registry.
pub static MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "metrics",
    group: Group::Adapters,
    summary: "one Prometheus endpoint for redis, mysql, postgres, memcached, statsd, jmx, nginx, json",
    about: "Asks the servers of a pod for what they tell of themselves, and serves it to Prometheus as text or OpenMetrics, by the names, \
            types and labels of the usual exporters, so that dashboards and alerts go on working.\n\n\
            Connections are kept from one scrape to the next; scrapes at the same time ask once. Every scrape has an answer in its time: \
            of a source that hangs the last values, with their age in `podkit_metrics_source_age_seconds`, and its `…_up` is 0.",
    admin_port: 9621,
    data_path: false,
    config: None,
    params: &[
        Params::PARAMS,
        UpstreamTlsParams::PARAMS,
        ListenerLimits::PARAMS,
    ],
    ports: &[Port {
        param: "listen",
        port: Some(9721),
        protocol: "HTTP",
        doc: "What the sources say, for Prometheus; with --targets-file, /probe too.",
    }],
    endpoints: &[],
    files: &[],
    needs: &[],
    metrics: &METRICS,
};

const SETS: [&[Metric]; 4] = [
    &own::METRICS,
    UpstreamMetrics::METRICS,
    &ORIGIN_METRICS,
    Worker::METRICS,
];

static METRICS: [Metric; count(&SETS)] = join(&SETS);
