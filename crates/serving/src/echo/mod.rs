//! `echo`: a small plain-HTTP application to put things around. It shows the request that it got, so that one sees
//! what stands in front of it, and plays slow, failing or large on request.
//!
//! ```text
//! request ──▶ manner (--delay --status --body-size, or ?delay= ?status= ?size=) ──▶ wait ──▶ answer
//! ```

mod answer;
mod params;
mod service;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::module::Module;
use podkit_dataplane::net::{ListenerLimits, Worker};
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{Group, Metric, ModuleSpec, Port};

use params::Params;

/// Its entry in the registry.
pub const MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

const SPEC: ModuleSpec = ModuleSpec {
    name: "echo",
    group: Group::TryingOut,
    summary: "a small plain-HTTP application to put things around",
    about: "Answers every request with what it got: request line, fields, peer, length of the body; as text, or as JSON \
            when Accept asks for it. `?delay=250ms`, `?status=503` and `?size=64Ki` play slow, failing and large for one \
            request, the parameters for all.",
    admin_port: 9651,
    data_path: true,
    config: None,
    params: &[Params::PARAMS, ListenerLimits::PARAMS, HttpLimits::PARAMS],
    ports: &[Port {
        param: "listen",
        port: Some(8080),
        protocol: "HTTP",
        doc: "Any request.",
    }],
    endpoints: &[],
    files: &[],
    needs: &[],
    metrics: METRICS,
};

const REQUESTS: Metric = Metric {
    name: "podkit_echo_requests_total",
    kind: "counter",
    labels: &[],
    doc: "Requests answered.",
};

const METRICS: &[Metric] = &[
    REQUESTS,
    Worker::METRICS[0],
    Worker::METRICS[1],
    Worker::METRICS[2],
];
