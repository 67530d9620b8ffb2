//! Where a way ends: upstreams, how they are found, checked and picked, and how requests go to them.

use std::rc::Rc;

use podkit_dataplane::http::proxy::{Forward, ForwardSettings, Trust};
use podkit_dataplane::tls::UpstreamTls;
use podkit_dataplane::upstream::{
    Affinity, Checks, Cluster, Discovery, HealthParams, Membership, UpstreamLimits, UpstreamMetrics,
};
use podkit_foundation::params::Cidr;
use podkit_foundation::telemetry::metrics::Registry;

/// A cluster as configured, for all workers.
#[derive(Debug)]
pub(crate) struct ClusterPlan {
    pub(crate) membership: Membership,
    /// None for an address that needs no finding.
    pub(crate) discovery: Option<Discovery>,
    /// None when nothing checks it.
    pub(crate) health: Option<HealthParams>,
    pub(crate) limits: UpstreamLimits,
    pub(crate) tls: Option<UpstreamTls>,
    pub(crate) affinity: Option<Affinity>,
    /// The Host of a request whose client named none.
    pub(crate) host: String,
    pub(crate) settings: ForwardSettings,
    pub(crate) metrics: UpstreamMetrics,
    /// Holds its metrics as long as it is there.
    pub(crate) _registry: Registry,
}

impl ClusterPlan {
    /// A worker's part of it.
    pub(super) fn cluster(&self) -> Rc<Cluster> {
        Cluster::new(
            self.membership.clone(),
            self.limits.clone(),
            self.metrics.clone(),
            self.host.clone(),
            self.affinity.clone(),
        )
    }

    /// A worker's forwarding there, from behind stages that trust these proxies.
    pub(super) fn forward(&self, cluster: Rc<Cluster>, trusted: &[Cidr]) -> Rc<Forward> {
        let mut settings = self.settings.clone();
        if settings.trust == Trust::Nobody && !trusted.is_empty() {
            settings.trust = Trust::These(trusted.to_vec());
        }
        Forward::new(settings, cluster)
    }

    /// Finds and checks its upstreams and follows files, for as long as it is in force.
    pub(super) fn tasks(&self) -> Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> {
        let mut tasks: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        if let Some(tls) = &self.tls {
            tasks.push(Box::pin(tls.clone().watch()));
        }
        if let Some(discovery) = &self.discovery {
            tasks.push(Box::pin(discovery.clone().watch()));
        }
        if let Some(health) = &self.health {
            let checks = Checks::new(self.membership.clone(), health.clone(), &self.limits);
            tasks.push(Box::pin(checks.watch()));
        }
        tasks
    }

    /// Reads certificates and upstream files again. Each is tried whatever becomes of the other.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let tls = self.tls.as_ref();
        let tls = tls.map_or(Ok(()), |tls| tls.reload().map(drop));
        let upstreams = self.discovery.as_ref();
        let upstreams = upstreams.map_or(Ok(()), Discovery::reload);
        tls.and(upstreams)
    }

    /// What is wrong with the sources of upstreams.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.discovery
            .as_ref()
            .map(Discovery::problems)
            .unwrap_or_default()
    }
}
