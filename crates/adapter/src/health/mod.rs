//! `health`: the application's probes, from work that is like its own.
//!
//! ```text
//!   --probe ─▶ spec ─▶ prober ─▶ runner (each period) ─▶ board ─┬─▶ door    /livez /readyz /startupz
//!                                    │                          ├─▶ grpc    Check, Watch
//!                                    ╰─ phases, timeout         ├─▶ agent   HAProxy
//!                                                               ╰─▶ report  /why, metrics, the page
//! ```
//!
//! Verdicts are made in the background and served from memory: however many ask, one try is made each period. What they are made of
//! (`check`, `latency`, `board`) has no clock and no socket.

mod agent;
mod board;
mod check;
mod door;
mod file;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod grpc;
mod latency;
mod link;
mod once;
mod params;
mod phases;
mod probe;
mod report;
mod runner;
mod service;
mod spec;

use podkit_dataplane::module::Module;
use podkit_dataplane::net::{ListenerLimits, Worker};
use podkit_dataplane::tls::{ORIGIN_METRICS, UpstreamTlsParams};
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{
    Endpoint, FileUse, Group, Metric, ModuleSpec, Need, NeedKind, Port, count, join,
};

use params::Params;

/// The module, for the registry.
pub static MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "health",
    group: Group::Adapters,
    summary: "health from representative work: SQL, Redis, HTTP, gRPC, TCP, exec",
    about: "Asks an application for work that is like its own, in the background and over connections that are kept, and serves what comes of it \
            as `/livez`, `/readyz` and `/startupz`: from memory, with its age, so that a hundred who ask cost one query a period.\n\n\
            Latency is health: with a budget (`;p99=50ms`) who is slower is degraded. Liveness never depends on another service unless \
            that is forced. The same verdicts are there as gRPC Health, for HAProxy's agent-check, as `probe_…` metrics, and as an exit \
            code (`podkit health --exec`). `/why` on the admin address shows the last results, with the time of each phase.",
    admin_port: 9623,
    data_path: false,
    config: None,
    params: &[
        Params::PARAMS,
        UpstreamTlsParams::PARAMS,
        ListenerLimits::PARAMS,
    ],
    ports: &[
        Port {
            param: "listen",
            port: Some(9723),
            protocol: "HTTP",
            doc: "The application's probes, and its metrics.",
        },
        Port {
            param: "grpc-listen",
            port: None,
            protocol: "gRPC",
            doc: "The same as grpc.health.v1.Health.",
        },
        Port {
            param: "agent-listen",
            port: None,
            protocol: "TCP",
            doc: "The same for HAProxy's agent-check.",
        },
    ],
    endpoints: &[
        Endpoint {
            path: "/why",
            doc: "The last results of each probe, or of `?probe=NAME`: errors, and the time of each phase; JSON by Accept or `?format=json`.",
            open: false,
        },
        Endpoint {
            path: "/app/drain",
            doc: "POST on --admin-socket: the application's `/readyz` is 503 until `/app/undrain`.",
            open: false,
        },
        Endpoint {
            path: "/app/undrain",
            doc: "POST on --admin-socket: ends that.",
            open: false,
        },
    ],
    files: &[FileUse {
        name: "probes-file",
        doc: "Probes as YAML; read again on SIGHUP. Probes that did not change keep their results.",
    }],
    needs: &[Need {
        feature: "exec: probes",
        doc: "the program in this container's image",
        kind: NeedKind::Words,
    }],
    metrics: &METRICS,
};

const SETS: [&[Metric]; 3] = [report::METRICS, &ORIGIN_METRICS, Worker::METRICS];

static METRICS: [Metric; count(&SETS)] = join(&SETS);
