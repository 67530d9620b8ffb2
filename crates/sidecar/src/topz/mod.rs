//! `topz`: the processes of the pod, live and back in time.
//!
//! ```text
//!   /proc ──▶ procfs ──readings──▶ census ──looks──▶ ring ──▶ snapshot ──▶ page, text, JSON, metrics
//!              │  stat, mask         ▲   container                series ──▶ plots
//!              │                     │
//!              └──────facts──────────┘         cgroup ──▶ limits, throttling, pressure
//!
//!   watch: the thread that looks once an interval        service: the module, its pages on a server
//! ```
//!
//! All between `procfs` and the pages is sans-IO. Processes are never disturbed: no `smaps`, no ptrace, no signal; one
//! open, one read and one close for each and look.

mod census;
mod cgroup;
mod container;
mod detail;
mod mask;
mod metrics;
mod pages;
mod params;
mod procfs;
mod query;
mod ring;
mod series;
mod service;
mod snapshot;
mod stat;
mod text;
mod watch;

#[cfg(test)]
mod tests;

use podkit_dataplane::module::Module;
use podkit_dataplane::net::{ListenerLimits, Worker};
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{
    Endpoint, FileUse, Group, Metric, ModuleSpec, Need, NeedKind, Port, count, join,
};

pub use params::Params;

/// The module, for the registry.
pub static MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "topz",
    group: Group::Sidecars,
    summary: "show the processes of the pod",
    about: "Shows what runs in the pod, by container: CPU, memory, threads, state, command (secrets masked), once a \
            second, and keeps ten minutes of it, so that \"what was that spike 40 s ago\" has an answer. Processes that \
            come and go between two looks are counted, and the CPU they took is shown at their parent. It reads \
            `/proc/PID/stat` and never `smaps`, which would stop the processes it looks at.\n\n\
            Containers are told apart by the runner's pod state where it is mounted, else by cgroup.\n\n\
            Memory of a process is its resident set as `/proc/PID/stat` has it, which since Linux 6.2 may lag behind by \
            some pages a CPU; the details of one process are exact.",
    admin_port: 9604,
    data_path: false,
    config: None,
    params: &[Params::PARAMS, ListenerLimits::PARAMS],
    ports: &[Port {
        param: "listen",
        port: Some(9604),
        protocol: "HTTP",
        doc: "The page, the text table and the JSON, for the pod's loopback.",
    }],
    endpoints: &[
        endpoint(
            "/",
            "The live page: processes by container, plots of the last minutes, the details of one process.",
        ),
        endpoint(
            "/topz",
            "The processes as a text table. `?sort=cpu|memory|pid|time|threads|start|command`, `?at=-40s` (or a Unix \
             time) for the past, `?container=NAME`, `?pid=N`, `?limit=N`.",
        ),
        endpoint(
            "/api/processes",
            "The same as JSON, with containers and sums; the same parameters.",
        ),
        endpoint(
            "/api/processes/",
            "`/api/processes/PID`: one process with I/O, open files and sockets, memory by kind; what is not permitted \
             says why.",
        ),
        endpoint(
            "/api/history",
            "CPU and memory over time, by container or with `?pid=N` of one process, as JSON.",
        ),
        endpoint("/topz.js", "The script of the page."),
    ],
    files: &[FileUse {
        name: "pod-state",
        doc: "JSON: the pod's name and for each container its name, first process and restarts. Read again whenever it \
              is replaced.",
    }],
    needs: &[
        Need {
            feature: "seeing processes of other containers",
            doc: "The pod's containers must share their PID namespace (shareProcessNamespace: true).",
            kind: NeedKind::SharedPid,
        },
        Need {
            feature: "I/O, open files and exact user names of a process",
            doc: "The user id of that process and all its capabilities (the kernel's ptrace access check), or CAP_SYS_PTRACE.",
            kind: NeedKind::SameUserOr("SYS_PTRACE"),
        },
    ],
    metrics: &METRICS,
};

const SETS: [&[Metric]; 2] = [metrics::METRICS, Worker::METRICS];

static METRICS: [Metric; count(&SETS)] = join(&SETS);

const fn endpoint(path: &'static str, doc: &'static str) -> Endpoint {
    Endpoint {
        path,
        doc,
        open: false,
    }
}
