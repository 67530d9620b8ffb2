//! `podkit balance`: one address in front of many upstreams.
//!
//! ```text
//!                                     ╭─ discovery: addresses, dns:, srv:, file: ─╮
//!                                     ├─ checks: HTTP, TCP, gRPC ────────────────▶├─ Membership
//!                                     ╰─ what failed, from the workers ──────────▶╯      │
//!   client ──▶ :8080 ─▶ worker ─▶ head ─▶ key, session ─▶ pick ◀───────────────────────╯
//!                                                          │
//!                                                          ╰─▶ upstream; another one when it fails and that is safe
//! ```
//!
//! Ready when it listens and at least one upstream takes requests. Everything that decides where a request goes is
//! `podkit_dataplane::upstream`; what is here joins it to parameters, listeners and pages.

pub(crate) mod page;
mod params;
pub(crate) mod service;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::proxy::{AccessLog, HttpMetrics};
use podkit_dataplane::http2::Http2Limits;
use podkit_dataplane::module::Module;
use podkit_dataplane::net::{ListenerLimits, Worker};
use podkit_dataplane::tls::{self, TlsParams, UpstreamHttp2Params, UpstreamTlsParams};
use podkit_dataplane::upstream::{HealthParams, Membership, UpstreamLimits, UpstreamMetrics};
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{
    Endpoint, FileUse, Group, Metric, ModuleSpec, Need, NeedKind, Port, count, join,
};

pub use params::Params;

/// The module.
pub const MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "balance",
    group: Group::Serving,
    summary: "load balancing by readiness; session affinity",
    about: "Shares requests out among upstreams that are ready: by load, in turn, at random, or by a key of the request; \
            HTTP/1.1, HTTP/2, WebSocket, in front of addresses, DNS names, SRV records or a watched file.\n\n\
            An upstream gets requests when its check passes (`--ready`), is left out for a while when it fails requests \
            (`--eject-after`), and is never left out with all the others. A request that an upstream did not get, or that may \
            be repeated, goes to another one, within `--retry-budget`; nothing is repeated once a byte of an answer went to \
            the client. So upstreams may restart one after another, and no client notices.\n\n\
            Sessions stay with their upstream by a signed cookie (`--affinity`) or by consistent hashing of a key \
            (`--policy hash`); only those of a lost upstream move.\n\n\
            `POST /upstreams/NAME/drain` and `…/undrain` on `--admin-socket` take an upstream out and back in; its sessions \
            stay until they end. SIGHUP reads certificates and upstream files again. Ready when it listens and an upstream is.",
    admin_port: 9631,
    data_path: true,
    config: None,
    params: &[
        Params::PARAMS,
        HealthParams::PARAMS,
        TlsParams::PARAMS,
        ListenerLimits::PARAMS,
        HttpLimits::PARAMS,
        Http2Limits::PARAMS,
        UpstreamLimits::PARAMS,
        UpstreamTlsParams::PARAMS,
        UpstreamHttp2Params::PARAMS,
    ],
    ports: &[Port {
        param: "listen",
        port: Some(8080),
        protocol: "HTTP",
        doc: "What clients come to; HTTPS with a certificate.",
    }],
    endpoints: &[
        Endpoint {
            path: "/live",
            doc: "A page with requests, load and state of each upstream, plotted.",
            open: false,
        },
        Endpoint {
            path: "/upstreams",
            doc: "Each upstream: state and why, share, load, counts; JSON.",
            open: false,
        },
        Endpoint {
            path: "/upstreams/{name}/drain",
            doc: "POST, on `--admin-socket` only: the upstream takes nothing new; its sessions stay.",
            open: false,
        },
        Endpoint {
            path: "/upstreams/{name}/undrain",
            doc: "POST, on `--admin-socket` only: it takes requests again.",
            open: false,
        },
    ],
    files: &FILES,
    needs: &[Need {
        feature: "listening on a port below 1024",
        doc: "CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start=0 as container runtimes set it.",
        kind: NeedKind::Words,
    }],
    metrics: &METRICS,
};

const SETS: [&[Metric]; 7] = [
    Worker::METRICS,
    HttpMetrics::METRICS,
    UpstreamMetrics::METRICS,
    Membership::METRICS,
    AccessLog::METRICS,
    &tls::METRICS,
    &tls::ORIGIN_METRICS,
];

static METRICS: [Metric; count(&SETS)] = join(&SETS);

const OWN_FILES: [FileUse; 3] = [
    FileUse {
        name: "upstream",
        doc: "With `file:/path`: an upstream a line. Watched, and read on SIGHUP.",
    },
    FileUse {
        name: "affinity-secret-file",
        doc: "The secret of session cookies, at least 32 bytes. Read at the start.",
    },
    FileUse {
        name: "access-log",
        doc: "With a path: appended to; opened again when it was renamed.",
    },
];
const FILE_SETS: [&[FileUse]; 3] = [&OWN_FILES, tls::FILES, tls::UPSTREAM_FILES];
static FILES: [FileUse; count(&FILE_SETS)] = join(&FILE_SETS);

#[cfg(test)]
mod tests;
