//! `podkit tls`: HTTPS in front of an application that speaks HTTP (or anything) in the clear.
//!
//! ```text
//!   client ── TLS ──▶ :8443 ─▶ worker ─▶ handshake ─▶ http: requests, with who asked ──▶ application
//!                                          ▲          tcp: bytes as they are
//!   --cert, --cert-dir ── watch ───────────┘
//!   client ── HTTP ─▶ --redirect-from ─▶ 301, 308 to https://…
//! ```
//!
//! Ready when it listens and has a certificate that has not expired. Whether the application answers is the
//! application's own readiness: a sidecar that turned unready with it would hide which of the two is ill, and requests that
//! can't be forwarded are answered with 502 to 504 anyway; its state is on `/` and in the metrics.

mod hsts;
mod page;
mod params;
mod redirect;
mod service;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::proxy::HttpMetrics;
use podkit_dataplane::http2::Http2Limits;
use podkit_dataplane::module::Module;
use podkit_dataplane::net::{ListenerLimits, Worker};
use podkit_dataplane::tls::{self, TlsParams, UpstreamHttp2Params, UpstreamTlsParams};
use podkit_dataplane::upstream::{UpstreamLimits, UpstreamMetrics};
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{
    FileUse, Group, Metric, ModuleSpec, Need, NeedKind, Port, count, join,
};

pub use hsts::Hsts;
pub use params::{Mode, Params};

/// The module.
pub const MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "tls",
    group: Group::Sidecars,
    summary: "HTTPS in front of an HTTP service; TLS termination and origination",
    about: "Terminates TLS (1.2 and 1.3, hybrid post-quantum key exchange) in front of an application in the same pod, \
            over loopback or a unix socket. HTTP/1.1 and HTTP/2 (by ALPN) with the client's address, scheme and certificate told to the \
            application; or any TCP protocol.\n\n\
            Certificates are watched: files, and the directories that the kubelet swaps. Chain and key are checked as a unit; \
            what is no good is refused with the reason in the log, in `podkit_tls_certificate_refused` and on `/`, and what \
            served goes on serving. A change reaches new handshakes; no connection is dropped. SIGHUP looks at once.\n\n\
            With `--client-ca` clients must show a certificate; `--allow-san` and `--allow-cn` choose among them. Sessions are \
            resumed by tickets whose keys rotate every six hours and are thrown away when the authorities or revocation lists \
            change; a resumed client is judged by the rules of now.\n\n\
            With `--originate` it is the other way round: clients in the clear, TLS to an `https://` upstream, whose certificate is \
            always verified.\n\n\
            Ready when it listens and has a certificate that has not expired; the application's readiness is its own.",
    admin_port: 9601,
    data_path: true,
    config: None,
    params: &[
        Params::PARAMS,
        TlsParams::PARAMS,
        ListenerLimits::PARAMS,
        HttpLimits::PARAMS,
        Http2Limits::PARAMS,
        UpstreamLimits::PARAMS,
        UpstreamTlsParams::PARAMS,
        UpstreamHttp2Params::PARAMS,
    ],
    ports: &[
        Port {
            param: "listen",
            port: Some(8443),
            protocol: "HTTPS",
            doc: "What clients come to.",
        },
        Port {
            param: "redirect-from",
            port: None,
            protocol: "HTTP",
            doc: "Answers with where the same is by HTTPS.",
        },
    ],
    endpoints: &[],
    files: &FILES,
    needs: &[Need {
        feature: "listening on a port below 1024",
        doc: "CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start=0 as container runtimes set it.",
        kind: NeedKind::Words,
    }],
    metrics: &METRICS,
};

const SETS: [&[Metric]; 5] = [
    &tls::METRICS,
    &tls::ORIGIN_METRICS,
    Worker::METRICS,
    HttpMetrics::METRICS,
    UpstreamMetrics::METRICS,
];

static METRICS: [Metric; count(&SETS)] = join(&SETS);

const FILE_SETS: [&[FileUse]; 2] = [tls::FILES, tls::UPSTREAM_FILES];
static FILES: [FileUse; count(&FILE_SETS)] = join(&FILE_SETS);

#[cfg(test)]
mod tests;
