//! Active checks: whether an endpoint is ready, asked of itself, again and again. One task for each endpoint on the main thread, away
//! from the data path.
//!
//! ```text
//!   new endpoint ─► check at once ─► ready or not; then every period ─► thresholds ─► Membership
//! ```
//!
//! As Kubernetes' readiness probe: 200 to 399 is ready, so many failures in a row are not. The first answer decides at once, so that a
//! start waits for no threshold. Every check opens a connection of its own: a kept one says nothing about who listens.

mod ask;
mod grpc;

pub use grpc::check as grpc_check;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use podkit_foundation::params::ParamType;
use podkit_foundation::telemetry::metrics::Registry;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::endpoint::{Endpoint, Readiness};
use super::limits::UpstreamLimits;
use super::membership::Membership;
use super::pick::mix;
use super::pool::{Pool, UpstreamMetrics};

/// What is asked of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Nothing: it is taken for ready.
    Off,
    /// That it takes a connection.
    Tcp,
    /// That a GET of this path is answered with 200 to 399.
    Http(String),
    /// `grpc.health.v1.Health/Check` of this service; empty for the server as a whole.
    Grpc(String),
}

impl ParamType for Check {
    const TYPE_NAME: &'static str = "check";
    const EXPECTED: &'static str = "/path (HTTP), tcp, grpc, grpc:SERVICE or off";

    fn parse(text: &str) -> Result<Self, String> {
        let printable = |text: &str| text.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        match text {
            "off" => Ok(Self::Off),
            "tcp" => Ok(Self::Tcp),
            "grpc" => Ok(Self::Grpc(String::new())),
            _ if !printable(text) => Err("has a space or a control character".to_owned()),
            _ if text.starts_with('/') => Ok(Self::Http(text.to_owned())),
            _ => match text.strip_prefix("grpc:") {
                Some(service) => Ok(Self::Grpc(service.to_owned())),
                None => Err(String::new()),
            },
        }
    }
}

podkit_foundation::params! {
    /// How upstreams are checked.
    pub struct HealthParams {
        /// What makes an upstream ready: a path, tcp, grpc, grpc:SERVICE or off.
        ///
        /// `/healthz`: a GET of it is answered with 200 to 399, as Kubernetes' probes have it. `tcp`: it takes a connection.
        /// `grpc`: the health service (grpc.health.v1) says SERVING, over HTTP/2. `off`: it is always ready. A new upstream gets
        /// nothing before it was found ready.
        ready: Check { default: Some("tcp") },
        /// The Host that a check by HTTP sends; the upstream's address unless given.
        ready_host: Option<String> {},
        /// From one check to the next.
        ready_period: Duration { default: Some("5s"), bounds: Some((10, 3_600_000)) },
        /// How long a check may take.
        ready_timeout: Duration { default: Some("1s"), bounds: Some((10, 3_600_000)) },
        /// Failed checks in a row after which an upstream is not ready.
        ready_failures: u32 { default: Some("3"), bounds: Some((1, 1_000)) },
        /// Passed checks in a row after which it is ready again.
        ready_successes: u32 { default: Some("1"), bounds: Some((1, 1_000)) },
    }
}

/// Counts checks in a row (no I/O).
#[derive(Debug, Default, Clone, Copy)]
struct Streak {
    passed: u32,
    failed: u32,
}

impl Streak {
    /// Takes the outcome of a check; says whether the endpoint is ready now, given whether it was.
    fn take(&mut self, passed: bool, before: Readiness, params: &HealthParams) -> bool {
        match passed {
            true => {
                self.failed = 0;
                self.passed = self.passed.saturating_add(1);
            }
            false => {
                self.passed = 0;
                self.failed = self.failed.saturating_add(1);
            }
        }
        match before {
            Readiness::Unchecked | Readiness::Unknown => passed,
            Readiness::Ready => self.failed < params.ready_failures,
            Readiness::Unready => self.passed >= params.ready_successes,
        }
    }
}

/// The checks of a cluster.
#[derive(Debug)]
pub struct Checks {
    membership: Membership,
    params: Rc<HealthParams>,
    limits: UpstreamLimits,
}

impl Checks {
    /// Of the endpoints of `membership`, within `limits`.
    pub fn new(membership: Membership, params: HealthParams, limits: &UpstreamLimits) -> Self {
        let limits = UpstreamLimits {
            connect_timeout: params.ready_timeout,
            upstream_idle: 0,
            ..limits.clone()
        };
        Self {
            membership,
            params: Rc::new(params),
            limits,
        }
    }

    /// Checks them, forever. Must run on a `LocalSet`.
    pub async fn watch(self) {
        if self.params.ready == Check::Off {
            return;
        }
        // Whoever is checked no longer is checked by nobody: the tasks end with this one.
        let mut running = JoinSet::new();
        let mut tasks: BTreeMap<u32, AbortHandle> = BTreeMap::new();
        loop {
            while running.try_join_next().is_some() {}
            let view = self.membership.view();
            tasks.retain(|id, task| {
                let stays = view.endpoints.iter().any(|one| one.id() == *id);
                if !stays {
                    task.abort();
                }
                stays
            });
            for endpoint in &view.endpoints {
                let id = endpoint.id();
                tasks
                    .entry(id)
                    .or_insert_with(|| running.spawn_local(self.follow(Arc::clone(endpoint))));
            }
            self.membership.list_changed().await;
        }
    }

    /// Checks one endpoint, forever.
    fn follow(&self, endpoint: Arc<Endpoint>) -> impl Future<Output = ()> + use<> {
        let (membership, params) = (self.membership.clone(), Rc::clone(&self.params));
        // Counted apart: these are nobody's requests.
        let metrics = UpstreamMetrics::new(&Registry::default());
        let pool = Pool::new(
            endpoint.target().clone(),
            self.limits.clone(),
            metrics,
            self.membership.outward().clone(),
        );
        async move {
            let mut streak = Streak::default();
            let mut first = true;
            loop {
                let asked = ask::ask(&pool, &params);
                let outcome = tokio::time::timeout(params.ready_timeout, asked).await;
                let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                match &outcome {
                    Ok(()) => endpoint.counts.passed.inc(),
                    Err(_) => endpoint.counts.missed.inc(),
                }
                let before = endpoint.readiness();
                let ready = streak.take(outcome.is_ok(), before, &params);
                let why = outcome.err().unwrap_or_default();
                if membership.set_readiness(&endpoint, ready, &why, Instant::now()) {
                    match ready {
                        true => tracing::info!(upstream = endpoint.name(), "ready"),
                        false => tracing::warn!(upstream = endpoint.name(), why, "not ready"),
                    }
                }
                // Not all endpoints at the same moment.
                let spread = match std::mem::take(&mut first) {
                    true => mix(u64::from(endpoint.id()) + 1) % 1000,
                    false => 1000,
                };
                let pause = params.ready_period.mul_f64(spread as f64 / 1000.0);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
