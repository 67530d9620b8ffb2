//! What can be set, and nothing else: these declarations are the flags, the variables and the reference.

use std::path::PathBuf;
use std::time::Duration;

use podkit_foundation::params::{Addr, Percent};
use podkit_foundation::{choices, params};

use super::spec::Spec;

choices! {
    /// What `--exec` asks for.
    pub(crate) enum Asked {
        /// Is it alive.
        Livez = "livez",
        /// Is it ready.
        Readyz = "readyz",
        /// Has it started.
        Startupz = "startupz",
    }
}

params! {
    /// The parameters of `health`.
    pub(crate) struct Params {
        /// Where the application's `/livez`, `/readyz`, `/startupz` and `/metrics` are served.
        listen: Addr { default: Some(":9723") },
        /// Where the same verdicts are served as grpc.health.v1.Health (Check and Watch), in the clear.
        ///
        /// The empty service is `readyz`; others are `livez`, `readyz`, `startupz` and the names of probes.
        grpc_listen: Option<Addr> {},
        /// Where HAProxy's agent-check is answered: up, down or drain, and a weight.
        agent_listen: Option<Addr> {},
        /// What is asked, each period: `NAME=SCHEME://WHERE[;KEY=VALUE]`; repeatable.
        ///
        /// Every probe takes `;period=`, `;timeout=`, `;failure=`, `;success=` (the parameters of these names for it alone), `;p50=` and
        /// `;p99=` (latency budgets, over `;window=`), `;slow=unhealthy` (who is slower is not ready; else it is degraded, and ready),
        /// `;for=` (`live`, `ready`, `startup`, several with commas; else `ready`), and `;liveness=force` (`for=live` although it asks
        /// another service). docs/health.md has the keys of each scheme.
        probe: Vec<Spec> { commas: false },
        /// More of them, as YAML: `probes: {NAME: {url: SCHEME://WHERE, KEY: VALUE}}`.
        probes_file: Option<PathBuf> { live: true },
        /// From the beginning of one try to the beginning of the next.
        period: Duration { default: Some("5s"), bounds: Some((10, 86_400_000)) },
        /// How long a try may take.
        timeout: Duration { default: Some("1s"), bounds: Some((1, 3_600_000)) },
        /// Failures in a row that make a probe unhealthy.
        failure_threshold: u32 { default: Some("3"), bounds: Some((1, 1000)) },
        /// Successes in a row that make it healthy.
        success_threshold: u32 { default: Some("1"), bounds: Some((1, 1000)) },
        /// Over how long latencies are judged.
        window: Duration { default: Some("1m"), bounds: Some((100, 86_400_000)) },
        /// How long a connection is kept; then there is a new one, with all that belongs to it: name, TLS, password.
        relogin: Duration { default: Some("5m"), bounds: Some((0, 86_400_000)) },
        /// Results of each probe that `/why` shows.
        history: u32 { default: Some("20"), bounds: Some((1, 1000)) },
        /// The weight that HAProxy is told of who is degraded.
        degraded_weight: Percent { default: Some("50%"), bounds: Some((1, 100)) },
        /// Asks the module that runs with this --listen, says what it says, and exits with 0 or 1: for exec probes.
        exec: bool { default: Some("false") },
        /// What --exec asks for.
        exec_endpoint: Asked { default: Some("readyz") },
    }
}
