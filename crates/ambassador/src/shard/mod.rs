//! `podkit shard`: one local endpoint in front of many shards.
//!
//! ```text
//!   client ─▶ :6379 ─▶ worker ─▶ command ─▶ keys ─▶ place: ring ─▶ shard a
//!                                   │                        └───▶ shard b     one connection each, shared by all clients
//!                                   └─ MGET, DEL, SCAN …: split, and the replies joined
//!   --shards-file ── watch ─▶ the list in force
//! ```
//!
//! Ready when it listens: a shard that is away is the trouble of its keys only, and its clients are told; or, with `--on-failure`, others
//! have its keys (`failure` decides, `probe` asks).
//!
//! - [`place`]: which shard has a key, and what moves when the shards change.
//! - `members`: the shards as one worker sees them; `router` (redis), `memcached` and `http` send by them.

pub mod place;

mod failure;
mod hot;
mod http;
mod members;
mod memcached;
mod params;
mod probe;
mod router;
mod service;
mod shared;
pub(crate) mod spread;

use podkit_dataplane::http::proxy::HttpMetrics;
use podkit_dataplane::module::Module;
use podkit_dataplane::net::{COALESCED, ListenerLimits, Worker};
use podkit_dataplane::resp::RespLimits;
use podkit_dataplane::tls::{ORIGIN_METRICS, UPSTREAM_FILES, UpstreamTlsParams};
use podkit_dataplane::upstream::UpstreamMetrics;
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{FileUse, Group, Metric, ModuleSpec, Port, count, join};

use failure::FailureParams;
use hot::HotParams;
use params::Params;
pub use params::ring_of_file;

/// Reads the text of --shards-file, and each of its shards again as it is shown, for the fuzzer.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn read_again(text: &str) {
    use podkit_foundation::params::ParamType as _;

    for shard in params::listed("file", text).unwrap_or_default() {
        assert_eq!(params::ShardSaid::parse(&shard.to_string()), Ok(shard));
    }
}

/// The module.
pub const MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "shard",
    group: Group::Ambassadors,
    summary: "one local endpoint, many shards (redis, memcached, http)",
    about: "Stands for several servers as if they were one: each key belongs to one of them, found by consistent hashing of the shard's name. \
            An application that knows of one Redis or memcached on localhost can use many.\n\n\
            With `--protocol redis` commands of all clients share one connection to each shard (for each worker), so that they travel together. MGET, MSET, DEL, UNLINK, EXISTS and \
            TOUCH are split and their replies joined; DBSIZE, KEYS, SCAN, RANDOMKEY, FLUSHALL, FLUSHDB, SCRIPT, FUNCTION and CONFIG SET are for all shards; \
            what names keys of several shards otherwise is refused with CROSSSLOT, as Redis Cluster does. MSET over several shards is not atomic. \
            MULTI, WATCH and what waits (BLPOP) get a connection of their own, to the shard of their first key. PUBLISH and SUBSCRIBE go to the first shard, so that \
            they meet; what shards say of their keys (`__keyspace@0__:…`) and what MONITOR sees comes from all. Commands about a server without a key (INFO, TIME, CLIENT LIST) are answered by the first shard. RESP2 and RESP3, AUTH, HELLO and \
            SELECT are as with Redis. Shards at `rediss://` are spoken to by TLS.\n\n\
            With `--protocol memcached` it is the same with classic and meta commands: gets of many keys are split and their values come in the order of the keys, \
            flush_all and verbosity are for all shards, stats adds their numbers up (those of items, slabs and sizes too), noreply and the quiet meta commands keep their \
            meaning, and what is about one server (slabs reassign, stats conns) is refused where there are several.\n\n\
            With `--protocol http` each request goes to the shard of its `--key`. Limits other than those below are the defaults of `podkit balance`.\n\n\
            With `--twemproxy nutcracker.yml` keys are placed as twemproxy places them, to the byte, so that it can be taken for it without moving data.",
    admin_port: 9611,
    data_path: true,
    config: None,
    params: &[
        Params::PARAMS,
        FailureParams::PARAMS,
        HotParams::PARAMS,
        UpstreamTlsParams::PARAMS,
        ListenerLimits::PARAMS,
        RespLimits::PARAMS,
    ],
    ports: &[Port {
        param: "listen",
        port: Some(6379),
        protocol: "Redis",
        doc: "What clients come to; 11211 with `--protocol memcached`, 8080 with `--protocol http`.",
    }],
    endpoints: &[],
    files: &FILES,
    needs: &[],
    metrics: &METRICS,
};

const OWN_FILES: [FileUse; 3] = [
    FileUse {
        name: "shards-file",
        doc: "The shards, one a line. Watched.",
    },
    FileUse {
        name: "twemproxy",
        doc: "A configuration of twemproxy.",
    },
    FileUse {
        name: "password-file",
        doc: "The password that shards are told; read again on SIGHUP, and when a shard does not take it.",
    },
];

const FILE_SETS: [&[FileUse]; 2] = [&OWN_FILES, UPSTREAM_FILES];

static FILES: [FileUse; count(&FILE_SETS)] = join(&FILE_SETS);

const COMMANDS: Metric = Metric {
    name: "podkit_shard_commands_total",
    kind: "counter",
    labels: &["shard"],
    doc: "Commands or requests, or parts of them, that a shard was sent.",
};
const REFUSED: Metric = Metric {
    name: "podkit_shard_refused_total",
    kind: "counter",
    labels: &[],
    doc: "Commands that were refused since they can't be done over several shards, and requests without a key.",
};
const RELOADS: Metric = Metric {
    name: "podkit_shard_reloads_total",
    kind: "counter",
    labels: &["result"],
    doc: "Changes of --shards-file: changed (now in force) or refused (the former shards stay).",
};

const OUT: Metric = Metric {
    name: "podkit_shard_out",
    kind: "gauge",
    labels: &["shard"],
    doc: "1 for a shard or spare that is out (--on-failure), else 0.",
};
const OUTAGES: Metric = Metric {
    name: "podkit_shard_outages_total",
    kind: "counter",
    labels: &["shard"],
    doc: "How often a shard or spare was found to be out.",
};

const HOT: Metric = Metric {
    name: "podkit_shard_hot_key_rate",
    kind: "gauge",
    labels: &["key"],
    doc: "Times a second that a key came which is hot (--hot-keys), over 5 seconds.",
};

const SETS: [&[Metric]; 6] = [
    &[COMMANDS, REFUSED, RELOADS, OUT, OUTAGES, HOT],
    &[COALESCED],
    Worker::METRICS,
    HttpMetrics::METRICS,
    UpstreamMetrics::METRICS,
    &ORIGIN_METRICS,
];

static METRICS: [Metric; count(&SETS)] = join(&SETS);
