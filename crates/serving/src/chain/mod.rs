//! `podkit chain FILE`: several serving modules in one process.
//!
//! ```text
//!   FILE ─ file ─▶ ChainFile ─ state ─▶ State ─▶ front::Serving ─▶ workers
//!          (text,               (objects; what says
//!           line, column)        the same is kept)
//! ```
//!
//! Keys are the modules' flags, from the modules' own tables (`kinds`).

mod file;
mod kinds;
mod params;
mod schema;
mod service;
mod state;

use podkit_dataplane::http::proxy::{AccessLog, HttpMetrics};
use podkit_dataplane::module::Module;
use podkit_dataplane::net::{ListenerLimits, Worker};
use podkit_dataplane::tls;
use podkit_dataplane::upstream::{Membership, UpstreamMetrics};
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{
    ConfigFile, Endpoint, FileUse, Group, Metric, ModuleSpec, Need, NeedKind, Port, count, join,
};
use podkit_foundation::yaml::{Findings, documents};

pub use params::Params;

use crate::limit;

/// The module.
pub const MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "chain",
    group: Group::Serving,
    summary: "several serving modules in one process",
    about: "Serves what a YAML file says: listeners, stages by name, and routes by host and path through stages to a `balance`. \
            Keys are the flags of the modules without their dashes (`podkit explain balance`, `podkit explain limit`, for `tls` those of \
            `podkit explain tls`); `podkit check FILE` checks a file, and `podkit explain chain -o json` has its JSON Schema.\n\n\
            ```yaml\n\
            listeners:\n\
            - listen: \":8080\"\n\
            - listen: \":8443\"\n  \
              tls: {cert-dir: /tls}\n\
            stages:\n  \
              per-client:\n    \
                limit: {rule: {name: per-client, key: ip, rate: 100/s}}\n  \
              api:\n    \
                balance: {upstream: \"dns:api:8080\", ready: /healthz}\n  \
              web:\n    \
                balance: {upstream: [\"web-0:8080\", \"web-1:8080\"], affinity: cookie}\n\
            routes:\n\
            - path: /api/*\n  \
              stages: [per-client, api]\n\
            - path: /login\n  \
              stages:\n  \
              - limit: {rule: {name: login, key: ip, rate: 6/m}}\n  \
              - web\n\
            - host: [shop.example.com, \"*.shop.example.com\"]\n  \
              stages: [web]\n\
            ```\n\n\
            A stage that is used once may stand in its route. It is called by host, path and kind (`/login limit`); then `stages` may be left out. \
            A host is exact, or `*.` and a domain (one label more), or any; a path is exact, or `/api/*` for it and all below it. The \
            most exact host comes first, then an exact path, then the longest. What no route is for is answered with 404. Paths \
            are compared percent-decoded, with dot segments resolved. A listener may have `routes` of its own; one listener alone may \
            have its keys at the top of the file.\n\n\
            The file is watched, and read on SIGHUP. A change is in force as a whole, from the next request on, on open connections too; \
            requests in flight end as they began. With new clusters it waits until they take requests, up to 5 s. New addresses are bound before old ones drain; a listener whose keys changed takes over \
            its own sockets. A stage that says the same goes on as it was: health, counters, connections, what keys have used up. \
            Files that are named in it are followed as the modules do. Metrics of stages have the label `stage`, those of \
            TLS `listener`. Ready when it listens and a cluster takes requests.",
    admin_port: 9641,
    data_path: true,
    config: Some(ConfigFile {
        param: "chain_file",
        schema: schema::schema,
    }),
    params: &[Params::PARAMS, ListenerLimits::PARAMS],
    ports: &[Port {
        param: "chain-file",
        port: None,
        protocol: "HTTP",
        doc: "What the file's listeners say.",
    }],
    endpoints: &[
        Endpoint {
            path: "/upstreams",
            doc: "Each cluster and its upstreams: state and why, share, load, counts; JSON.",
            open: false,
        },
        Endpoint {
            path: "/limited",
            doc: "Who was refused within the last minute by stages that limit: stage, key, rule, allowed, denied, since; a page, or JSON by Accept or `?format=json`.",
            open: false,
        },
        Endpoint {
            path: "/upstreams/{cluster}/{name}/drain",
            doc: "POST, on `--admin-socket` only: the upstream takes nothing new; its sessions stay.",
            open: false,
        },
        Endpoint {
            path: "/upstreams/{cluster}/{name}/undrain",
            doc: "POST, on `--admin-socket` only: it takes requests again.",
            open: false,
        },
    ],
    files: &[FileUse {
        name: "chain-file",
        doc: "What is served. Watched, and read on SIGHUP; so are the files that it names.",
    }],
    needs: &[Need {
        feature: "listening on a port below 1024",
        doc: "CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start=0 as container runtimes set it.",
        kind: NeedKind::Words,
    }],
    metrics: &METRICS,
};

const RELOADS: Metric = Metric {
    name: "podkit_chain_reloads_total",
    kind: "counter",
    labels: &["result"],
    doc: "Changes of the file: changed (now in force) or refused (the former state stays).",
};

const FILE_IN_FORCE: Metric = Metric {
    name: "podkit_chain_file_in_force",
    kind: "gauge",
    labels: &[],
    doc: "1 when what the file says is in force, 0 when it was refused.",
};

const OWN: &[Metric] = &[RELOADS, FILE_IN_FORCE];

const SETS: [&[Metric]; 9] = [
    OWN,
    limit::OWN,
    Worker::METRICS,
    HttpMetrics::METRICS,
    UpstreamMetrics::METRICS,
    Membership::METRICS,
    AccessLog::METRICS,
    &tls::METRICS,
    &tls::ORIGIN_METRICS,
];

static METRICS: [Metric; count(&SETS)] = join(&SETS);

/// A text is a chain file, rather than a manifest: it has stages or routes at its top, and no kind.
pub fn is_chain(text: &str) -> bool {
    // Few manifests have these words anywhere, and those that have none need not be parsed twice.
    if !["stages", "routes"].iter().any(|word| text.contains(word)) {
        return false;
    }
    let mut findings = Findings::new();
    let documents = documents(text, &"".into(), &mut findings);
    let first = documents.first();
    let is_one = |key| first.is_some_and(|root| root.get(key).is_some());
    (is_one("stages") || is_one("routes")) && !is_one("kind")
}

/// What is wrong with a chain file; nothing but its text is looked at. `name` stands for the file.
pub fn check(name: &str, bytes: &[u8]) -> Findings {
    service::check(name, bytes)
}

#[cfg(test)]
mod tests;
