//! `limit`: rate limits in front of an HTTP service.
//!
//! ```text
//!   client ─▶ :8080 ─▶ head ─▶ lists ─▶ rules, in order ─▶ application
//!                                         │  key ─▶ Table: TAT by GCRA, one for all workers
//!                                         │  key ─▶ Flight: requests at once
//!                                         ╰─ 429, Retry-After
//! ```
//!
//! `gcra`, `table`, `rule`, `tag` and `address` are the logic, without I/O; `set` is what is in force, from flags and
//! files; `peers` is how replicas enforce one rate together; `roll` and `page` show who is limited; `limiter` is the stage that joins them.

mod address;
mod gcra;
mod limiter;
pub(crate) mod page;
mod params;
pub(crate) mod peers;
mod rest;
mod roll;
mod rule;
pub(crate) mod service;
mod set;
mod table;
mod tag;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::proxy::HttpMetrics;
use podkit_dataplane::http2::Http2Limits;
use podkit_dataplane::module::Module;
use podkit_dataplane::net::{ListenerLimits, Worker};
use podkit_dataplane::tls::{self, TlsParams, UpstreamHttp2Params, UpstreamTlsParams};
use podkit_dataplane::upstream::{UpstreamLimits, UpstreamMetrics};
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{
    Endpoint, FileUse, Group, Metric, ModuleSpec, Need, NeedKind, Port, count, join,
};

pub use params::Params;

/// Its entry in the registry.
pub const MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "limit",
    group: Group::Serving,
    summary: "rate limits and denial-of-service defence",
    about: "Counts requests by rules and answers 429 to those that are too many: by client address, field, cookie, query \
            parameter, path, or all together; by rate and burst (GCRA) and by requests at once. All workers enforce one rate. \
            Clients are told where they stand (RateLimit and RateLimit-Policy of draft-ietf-httpapi-ratelimit-headers, \
            X-RateLimit-…), and when to come again (Retry-After); who takes JSON gets a problem document (RFC 9457).\n\n\
            Rules and lists of addresses may be in files, which are watched: a change that is right is in force from the next \
            request on, one that is not changes nothing.\n\n\
            Memory is bounded whatever the number of keys: when `--max-keys` are remembered, the one that has been idle for the \
            longest is forgotten, and nobody is refused for it. Keys are kept as hashes under a random key of the process.\n\n\
            The bounds of HTTP (heads, bodies, pauses, connections) hold as in every module.",
    admin_port: 9633,
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
            port: Some(8080),
            protocol: "HTTP",
            doc: "What clients come to; HTTPS with a certificate.",
        },
        Port {
            param: "peers-listen",
            port: Some(9634),
            protocol: "podkit limit peers",
            doc: "With `--peers`: what the other replicas come to.",
        },
    ],
    endpoints: &[Endpoint {
        path: "/limited",
        doc: "Who was refused within the last minute: key, rule, allowed, denied, since; a page, or JSON by Accept or `?format=json`.",
        open: false,
    }],
    files: &FILES,
    needs: &[Need {
        feature: "listening on a port below 1024",
        doc: "CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start=0 as container runtimes set it.",
        kind: NeedKind::Words,
    }],
    metrics: &METRICS,
};

/// What became of a request under one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Allowed,
    Limited,
    /// Would have been limited.
    Shadow,
}

impl Settled {
    const ALL: [Self; 3] = [Self::Allowed, Self::Limited, Self::Shadow];

    fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Limited => "limited",
            Self::Shadow => "shadow",
        }
    }
}

const REQUESTS: Metric = Metric {
    name: "podkit_limit_requests_total",
    kind: "counter",
    labels: &["rule", "result"],
    doc: "Requests that a rule was for, by what became of them: allowed, limited, shadow (would have been limited).",
};

const EVICTED: Metric = Metric {
    name: "podkit_limit_evicted_keys_total",
    kind: "counter",
    labels: &[],
    doc: "Keys forgotten while they still owed something, since --max-keys were remembered.",
};

const LISTED: Metric = Metric {
    name: "podkit_limit_listed_total",
    kind: "counter",
    labels: &["list"],
    doc: "Requests of clients in a list: allow (no rule was for them), deny (refused with 403).",
};

const RELOADS: Metric = Metric {
    name: "podkit_limit_reloads_total",
    kind: "counter",
    labels: &["result"],
    doc: "Changes of --rules-file, --allow and --deny: changed (now in force) or refused (the former state stays).",
};

const ASKS: Metric = Metric {
    name: "podkit_limit_peer_asks_total",
    kind: "counter",
    labels: &["result"],
    doc: "Asks of a key's owner among --peers: answered, or failed (rules did as their fail= says).",
};

const FALLBACKS: Metric = Metric {
    name: "podkit_limit_peer_fallbacks_total",
    kind: "counter",
    labels: &[],
    doc: "Requests for which a rule did as its fail= says, since the owner of the key among --peers did not answer in time.",
};

pub(crate) const OWN: &[Metric] = &[REQUESTS, EVICTED, LISTED, RELOADS, ASKS, FALLBACKS];

const SETS: [&[Metric]; 6] = [
    OWN,
    Worker::METRICS,
    HttpMetrics::METRICS,
    UpstreamMetrics::METRICS,
    &tls::METRICS,
    &tls::ORIGIN_METRICS,
];

static METRICS: [Metric; count(&SETS)] = join(&SETS);

const OWN_FILES: [FileUse; 4] = [
    FileUse {
        name: "rules-file",
        doc: "Rules, as a YAML list. Watched, and read on SIGHUP.",
    },
    FileUse {
        name: "allow",
        doc: "Addresses and blocks, one a line. Watched, and read on SIGHUP.",
    },
    FileUse {
        name: "deny",
        doc: "Addresses and blocks, one a line. Watched, and read on SIGHUP.",
    },
    FileUse {
        name: "peers-secret-file",
        doc: "The secret of all replicas. Read at the start.",
    },
];
const FILE_SETS: [&[FileUse]; 3] = [&OWN_FILES, tls::FILES, tls::UPSTREAM_FILES];
static FILES: [FileUse; count(&FILE_SETS)] = join(&FILE_SETS);
