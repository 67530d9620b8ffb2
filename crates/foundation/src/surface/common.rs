//! What every module has without declaring it: parameters, endpoints, signals, metrics of the contract
//! (docs/module-contract.md).

use std::time::Duration;

use super::{Endpoint, Metric, ModuleSpec};
use crate::params::{Addr, Param, ParamSet};
use crate::telemetry::log::{LogFormat, LogLevel};
use crate::telemetry::metrics::{Gauge, Registry};

crate::params! {
    /// The parameters of every module.
    pub struct Common {
        /// Address of the admin server: probes, metrics, the page at `/`.
        ///
        /// Peers that are not on the loopback get the probes and `/metrics` only.
        admin: Addr {},
        /// Serve the pages and `/config` to every peer of the admin server, not only to the loopback.
        admin_open: bool { default: Some("false") },
        /// Unix socket for what changes state: `POST /reload`, `POST /drain`.
        ///
        /// State is never changed over TCP. The socket is made with mode 0600.
        admin_socket: Option<std::path::PathBuf> {},
        /// How much is logged.
        log_level: LogLevel { default: Some("info") },
        /// Form of the log lines; text when standard error is a terminal, else JSON.
        log_format: Option<LogFormat> {},
        /// After SIGTERM, time for which it goes on accepting while `/readyz` says no.
        lame_duck: Duration { default: Some("0s"), bounds: Some((0, 3_600_000)) },
        /// Time that what is in flight gets to finish before it is cut.
        drain_timeout: Duration { default: Some("25s"), bounds: Some((0, 3_600_000)) },
    }
}

crate::params! {
    /// The parameters of every module with a data path.
    pub struct DataPath {
        /// Threads that move bytes; as many as the CPU quota of the cgroup allows when not given.
        workers: Option<u32> { bounds: Some((1, 256)), unit: "threads" },
        /// Unix socket by which a new process takes the place of this one, and this one of the process that is there.
        ///
        /// Where a process of the same module and user answers there, its listening sockets are taken over: it goes on until this one is
        /// ready, then it is told, and drains as after SIGTERM. No connection is refused or reset; when this one fails before it is
        /// ready, the other one goes on. Addresses that only one of the two has are bound, and closed, as always. The socket is
        /// made with mode 0600.
        takeover: Option<std::path::PathBuf> {},
    }
}

/// The contract's endpoints.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/livez",
        doc: "200 while the process can answer; `?verbose` lists the checks.",
        open: true,
    },
    Endpoint {
        path: "/readyz",
        doc: "200 while it serves, 503 while starting, draining or not able to; `?verbose` lists the checks.",
        open: true,
    },
    Endpoint {
        path: "/healthz",
        doc: "The same as `/readyz`.",
        open: true,
    },
    Endpoint {
        path: "/metrics",
        doc: "Prometheus text, or OpenMetrics by Accept.",
        open: true,
    },
    Endpoint {
        path: "/config",
        doc: "The parameters in force with their origin, as JSON; secrets are masked.",
        open: false,
    },
    Endpoint {
        path: "/",
        doc: "A page for people: what this module does, its state, live figures.",
        open: false,
    },
];

/// The contract's signals.
pub const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT",
        "`/readyz` turns 503; goes on accepting for `--lame-duck`; then stops accepting and finishes what is in \
         flight within `--drain-timeout`. Exit 0, or 1 when something had to be cut.",
    ),
    (
        "SIGHUP",
        "Reads certificates, lists and files again. A bad new state is refused with the reason and the old one stays.",
    ),
];

/// The contract's exit codes.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "Stopped as asked, nothing cut."),
    (
        1,
        "A failure at run time, or something in flight was cut at the end of `--drain-timeout`.",
    ),
    (
        2,
        "A parameter is wrong; one line says which, before anything listens.",
    ),
];

/// The contract's metrics.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "podkit_build_info",
        kind: "info",
        labels: &["module", "version"],
        doc: "This build.",
    },
    Metric {
        name: "podkit_ready",
        kind: "gauge",
        labels: &[],
        doc: "1 while `/readyz` is 200.",
    },
    Metric {
        name: "podkit_in_flight",
        kind: "gauge",
        labels: &[],
        doc: "Connections in flight.",
    },
    Metric {
        name: "podkit_config_info",
        kind: "info",
        labels: &["hash"],
        doc: "Hash of the parameters in force: equal where replicas agree.",
    },
    GENERATION,
    Metric {
        name: "podkit_reloads_total",
        kind: "counter",
        labels: &["result"],
        doc: "Reloads asked for by signal or socket: success, or failure (the old state stayed).",
    },
    Metric {
        name: "podkit_last_reload_timestamp_seconds",
        kind: "gauge",
        labels: &[],
        doc: "Unix time of the last reload that was taken; of the start when there was none.",
    },
    Metric {
        name: "podkit_last_reload_success",
        kind: "gauge",
        labels: &[],
        doc: "1 when the last reload was taken, 0 when it was refused.",
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: "counter",
        labels: &[],
        doc: "User and system CPU time.",
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: "gauge",
        labels: &[],
        doc: "Resident memory.",
    },
    Metric {
        name: "process_virtual_memory_bytes",
        kind: "gauge",
        labels: &[],
        doc: "Virtual memory.",
    },
    Metric {
        name: "process_open_fds",
        kind: "gauge",
        labels: &[],
        doc: "Open file descriptors.",
    },
    Metric {
        name: "process_max_fds",
        kind: "gauge",
        labels: &[],
        doc: "The limit of open file descriptors.",
    },
    Metric {
        name: "process_threads",
        kind: "gauge",
        labels: &[],
        doc: "Threads.",
    },
    Metric {
        name: "process_start_time_seconds",
        kind: "gauge",
        labels: &[],
        doc: "Unix time of the start.",
    },
];

impl ModuleSpec {
    /// Every parameter of the module: its own, then the data path's, then the common ones.
    pub fn all_params(&self) -> Vec<Param> {
        let mut all: Vec<Param> = self.params.concat();
        if self.data_path {
            all.extend_from_slice(DataPath::PARAMS);
        }
        for param in Common::PARAMS {
            let mut param = *param;
            if param.field == "admin" {
                // Once per module and process; a `Param` is copied everywhere and holds static text.
                param.default = Some(Box::leak(format!(":{}", self.admin_port).into_boxed_str()));
            }
            all.push(param);
        }
        all
    }
}

const GENERATION: Metric = Metric {
    name: "podkit_config_generation",
    kind: "gauge",
    labels: &[],
    doc: "How many states were taken into force since the start, the first included: by reload, or found by watching files.",
};

/// The gauge of `podkit_config_generation`, for who takes a state into force; `registry` is any part of the process's.
pub fn generation(registry: &Registry) -> Gauge {
    registry.whole().gauge(GENERATION.name, GENERATION.doc, &[])
}
