//! `podkit redis`: a primary and its replicas as one Redis.
//!
//! ```text
//!   client ─▶ :6379 ─▶ worker ─▶ command ─┬─ changes something ─▶ primary ◀─ ROLE behind each batch: the fence of its keys
//!                                         └─ reads ─▶ a replica that has reached the fence, else the primary
//!                                no server: held, and sent again when there is one
//!   main thread: asks each server what it is and how far ─▶ the view, which all workers follow
//! ```
//!
//! - [`fence`]: how far a replica has to be, so that who wrote reads what it wrote;
//! - [`roles`], [`sentinel`]: who is the primary; [`engine`] asks, [`topology`] is what is known;
//! - [`commands`], [`router`], [`split`]: where a command goes; [`held`], [`waiting`]: those that wait for a server;
//! - [`ways`]: which servers are spoken to by TLS; [`watch`]: what a connection is asked before it is used;
//! - [`cluster`]: many such, each with a part of the keys.

mod cluster;
mod commands;
mod engine;
mod fence;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod held;
mod page;
mod params;
mod roles;
mod router;
mod sentinel;
mod service;
mod split;
mod topology;
mod waiting;
mod watch;
mod ways;

use podkit_dataplane::module::Module;
use podkit_dataplane::net::{COALESCED, ListenerLimits, Worker};
use podkit_dataplane::resp::RespLimits;
use podkit_dataplane::tls::{ORIGIN_METRICS, UPSTREAM_FILES, UpstreamTlsParams};
use podkit_dataplane::upstream::UpstreamMetrics;
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{FileUse, Group, Metric, ModuleSpec, Port, count, join};

use params::Params;

/// The module.
pub const MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "redis",
    group: Group::Ambassadors,
    summary: "a Redis primary and its replicas as one local Redis",
    about: "Stands for a Redis primary and its replicas as if they were one server: what changes something goes to the primary, what reads to the replicas. \
            An application that knows of one Redis on localhost can use them all, and outlives a failover.\n\n\
            Servers are named by --primary and --replica, by sentinels (--sentinel, --master-name), or by a name with all their addresses (--upstream dns:HOST:PORT), \
            where each says itself what it is; or they are the nodes of a Redis Cluster (--cluster, some of them), which a client can use that knows nothing of clusters: commands go \
            to the node that has their keys' slot, those of many keys in parts (MGET, MSET, DEL, UNLINK, EXISTS, TOUCH), those about all keys to all primaries (SCAN, KEYS, DBSIZE, FLUSHALL, SCRIPT LOAD), \
            and MOVED, ASK and TRYAGAIN are seen to. Those at `rediss://` are spoken to by TLS. Before a connection is written to, the server must say that it is the primary. When another takes its place, \
            connections to the former are closed at once.\n\n\
            With --read-your-writes a replica answers for a key only when it has done all that was written to the key's slot by this process, over whatever connection: \
            the primary says behind each batch of writes how far its stream of replication is, and replicas how far they are. Until then the primary answers.\n\n\
            While there is no primary, commands for it are kept, at most for --hold, and done in their order when there is one: those that change nothing, and those that \
            were certainly not done. A write that was sent and not answered gets an error that says so. Reads go on at the replicas, and are counted as stale.\n\n\
            Scripts, functions and commands that neither podkit nor the server knows to read only go to the primary, as do MULTI, WATCH, what waits (BLPOP), SUBSCRIBE and what is about \
            one server (INFO, SCAN, OBJECT). RESP2 and RESP3, AUTH, HELLO and SELECT are as with Redis.",
    admin_port: 9612,
    data_path: true,
    config: None,
    params: &[
        Params::PARAMS,
        UpstreamTlsParams::PARAMS,
        ListenerLimits::PARAMS,
        RespLimits::PARAMS,
    ],
    ports: &[Port {
        param: "listen",
        port: Some(6379),
        protocol: "Redis",
        doc: "What clients come to.",
    }],
    endpoints: &[],
    files: &FILES,
    needs: &[],
    metrics: &METRICS,
};

const OWN_FILES: [FileUse; 2] = [
    FileUse {
        name: "password-file",
        doc: "The password that servers are told; read again on SIGHUP, and when a server does not take it.",
    },
    FileUse {
        name: "sentinel-password-file",
        doc: "The password that sentinels are told; read again likewise.",
    },
];

const FILE_SETS: [&[FileUse]; 2] = [&OWN_FILES, UPSTREAM_FILES];

static FILES: [FileUse; count(&FILE_SETS)] = join(&FILE_SETS);

const COMMANDS: Metric = Metric {
    name: "podkit_redis_commands_total",
    kind: "counter",
    labels: &["server", "as"],
    doc: "Commands that a server was sent as the primary, or as a replica.",
};
const STALE: Metric = Metric {
    name: "podkit_redis_stale_reads_total",
    kind: "counter",
    labels: &[],
    doc: "Reads that a replica answered while there was no primary, whether it had all writes or not.",
};
const FENCED: Metric = Metric {
    name: "podkit_redis_fenced_reads_total",
    kind: "counter",
    labels: &[],
    doc: "Reads that the primary answered since no replica had yet what was written.",
};
const HELD: Metric = Metric {
    name: "podkit_redis_held_total",
    kind: "counter",
    labels: &["result"],
    doc: "Commands that were kept for want of a server: replayed, expired (--hold) or refused (--hold-size).",
};
const UNCERTAIN: Metric = Metric {
    name: "podkit_redis_uncertain_writes_total",
    kind: "counter",
    labels: &[],
    doc: "Writes that were sent and not answered: their clients got an error that says so.",
};
const FAILOVERS: Metric = Metric {
    name: "podkit_redis_failovers_total",
    kind: "counter",
    labels: &[],
    doc: "Times that another primary was taken, or the same that had begun anew.",
};
const LAG: Metric = Metric {
    name: "podkit_redis_lag_bytes",
    kind: "gauge",
    labels: &["server"],
    doc: "How far a replica is behind the primary; -1 where it is not known.",
};
const SLOTS: Metric = Metric {
    name: "podkit_redis_slots",
    kind: "gauge",
    labels: &["server"],
    doc: "Slots of a cluster that a primary has.",
};
const REDIRECTS: Metric = Metric {
    name: "podkit_redis_redirects_total",
    kind: "counter",
    labels: &["said"],
    doc: "Commands that a node of a cluster did not do, and that were sent again, by what it said: moved, ask, tryagain or unserved (nobody has the slot).",
};
const REFRESHES: Metric = Metric {
    name: "podkit_redis_refreshes_total",
    kind: "counter",
    labels: &["result"],
    doc: "Answers of a cluster's nodes on who has which slots: the same as was known, changed, or older (another was asked).",
};
const OFFSET: Metric = Metric {
    name: "podkit_redis_offset_bytes",
    kind: "gauge",
    labels: &["server"],
    doc: "How far a server is in the stream of replication.",
};

const SETS: [&[Metric]; 5] = [
    &[
        COMMANDS, STALE, FENCED, HELD, UNCERTAIN, FAILOVERS, LAG, OFFSET, SLOTS, REDIRECTS,
        REFRESHES,
    ],
    &[COALESCED],
    Worker::METRICS,
    UpstreamMetrics::METRICS,
    &ORIGIN_METRICS,
];

static METRICS: [Metric; count(&SETS)] = join(&SETS);
