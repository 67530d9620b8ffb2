//! The module: a chain of one route with one stage.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::proxy::ForwardSettings;
use podkit_dataplane::http::stage::Stage;
use podkit_dataplane::http2::Http2Limits;
use podkit_dataplane::module::{Route, Section, Service, Setup};
use podkit_dataplane::net::{ListenerLimits, Listeners};
use podkit_dataplane::tls::{TlsParams, UpstreamTls};
use podkit_dataplane::upstream::{Membership, Outward, Target, UpstreamLimits, UpstreamMetrics};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Cidr, ParamSet as _, Values};
use podkit_foundation::telemetry::metrics::{Kind, Registry};
use serde_json::Value;

use super::limiter::{LimitStage, Limiter};
use super::page;
use super::params::Params;
use super::set::Counted;
use super::{EVICTED, REQUESTS, Settled};
use crate::front::{ClusterPlan, Entrance, EntranceParams, Generation, Serving, StagePlan, Way};

/// Checks the parameters and binds the listeners.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::checked(values)?;
    let limits = HttpLimits::from_values(values)?;
    let http2 = Http2Limits::from_values(values)?;
    let upstream_limits = UpstreamLimits::from_values(values)?;
    let target = params.target()?;
    let listener_limits = ListenerLimits::from_values(values)?;
    let tls = TlsParams::if_given(values)?;
    let registry = setup.metrics.part(&[]);
    let upstream_tls = UpstreamTls::if_needed(values, target.is_tls(), &registry)?;
    let outward = Outward {
        tls: upstream_tls.clone(),
        raw: false,
    };
    let limiter = Arc::new(LimitPlan::new(
        params.clone(),
        limits.connections(),
        registry.clone(),
        Some(&setup.listeners),
    )?);
    let cluster = ClusterPlan {
        membership: Membership::of(target.clone(), outward),
        discovery: None,
        health: None,
        limits: upstream_limits,
        tls: upstream_tls,
        affinity: None,
        host: target.host().to_owned(),
        settings: ForwardSettings::default(),
        metrics: UpstreamMetrics::new(&registry),
        _registry: registry,
    };
    let entrance = EntranceParams {
        listen: params.listen,
        accept_proxy: params.accept_proxy,
        http2,
        limits: limits.clone(),
        tls,
    };
    let mut proxies = entrance.accept_proxy.clone();
    proxies.extend(&limiter.trusted);
    Ok(Rc::new(Limit {
        entrance: Arc::new(Entrance::new(entrance, setup, setup.metrics.part(&[]))?),
        serving: Serving::new(
            "limit",
            setup,
            limits.connections(),
            &listener_limits,
            &proxies,
        ),
        cluster: Arc::new(cluster),
        limiter,
        target,
        setup: setup.clone(),
    }))
}

/// The parameters of the stage are right by themselves; looks at no file.
pub(crate) fn check(values: &Values) -> Result<(), Failure> {
    Params::checked_rules(values).map(drop)
}

/// The stage that the parameters describe.
pub(crate) fn plan(
    values: &Values,
    connections: usize,
    registry: Registry,
) -> Result<Arc<dyn StagePlan>, Failure> {
    let params = Params::checked_rules(values)?;
    Ok(Arc::new(LimitPlan::new(
        params,
        connections,
        registry,
        None,
    )?))
}

/// The stage, for all workers.
struct LimitPlan {
    limiter: Arc<Limiter>,
    trusted: Vec<Cidr>,
    /// Holds its metrics as long as it is there.
    _registry: Registry,
}

impl LimitPlan {
    fn new(
        params: Params,
        connections: usize,
        registry: Registry,
        listeners: Option<&Listeners>,
    ) -> Result<Self, Failure> {
        let limiter = Limiter::new(&params, connections, &registry, listeners)?;
        let limiter = Arc::new(limiter);
        let counted = Arc::clone(&limiter);
        registry.collect(move |encoder| {
            encoder.family(REQUESTS.name, Kind::Counter, REQUESTS.doc);
            for one in &counted.in_force().current().rules {
                for (settled, count) in Settled::ALL.into_iter().zip(one.counts()) {
                    let labels = [("rule", one.rule.name.as_str()), ("result", settled.word())];
                    #[expect(
                        clippy::cast_precision_loss,
                        reason = "the text formats carry floating point"
                    )]
                    encoder.sample(REQUESTS.name, &labels, count as f64);
                }
            }
            encoder.family(EVICTED.name, Kind::Counter, EVICTED.doc);
            #[expect(
                clippy::cast_precision_loss,
                reason = "the text formats carry floating point"
            )]
            encoder.sample(EVICTED.name, &[], counted.table().evicted() as f64);
        });
        Ok(Self {
            limiter,
            trusted: params.trusted_proxy,
            _registry: registry,
        })
    }

    fn shown(&self) -> Value {
        let in_force = self.limiter.in_force();
        let refusal = in_force.refusal();
        let rules = &in_force.current().rules;
        page::shown(&self.limiter.limited(), rules, refusal.as_deref())
    }
}

impl StagePlan for LimitPlan {
    fn stage(self: Arc<Self>) -> Rc<dyn Stage> {
        Rc::new(LimitStage::new(Arc::clone(&self.limiter)))
    }

    fn trusted(&self) -> &[Cidr] {
        &self.trusted
    }

    fn watch(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let peers = async {
                if let Some(peers) = self.limiter.peers() {
                    Arc::clone(peers).run().await;
                }
            };
            tokio::join!(self.limiter.in_force().watch(), peers);
        })
    }

    fn reload(&self) -> Result<(), String> {
        self.limiter.in_force().reload()
    }

    fn limited(&self) -> Option<Value> {
        Some(self.shown())
    }

    fn page(&self) -> Vec<Section> {
        let columns = ["Rule", "Allowed", "Limited", "Shadow", "As given"];
        let limiter = &self.limiter;
        let set = limiter.in_force().current();
        let row = |one: &Counted| {
            let mut row = vec![one.rule.name.clone()];
            row.extend(one.counts().map(|count| count.to_string()));
            row.push(one.rule.text.clone());
            row
        };
        let refusal = limiter.in_force().refusal();
        let pair = |name: &str, value: String| vec![name.to_owned(), value];
        let peers = limiter.peers().map(|peers| peers.section());
        let mut sections = vec![
            Section {
                title: "Rules".to_owned(),
                columns: columns.map(str::to_owned).to_vec(),
                rows: set.rules.iter().map(row).collect(),
                alert: refusal
                    .map(|line| format!("Refused, the former state stays in force: {line}.")),
            },
            Section {
                title: "Keys".to_owned(),
                columns: Vec::new(),
                rows: vec![
                    pair("Bytes for keys", limiter.table().bytes().to_string()),
                    pair(
                        "Keys forgotten too early",
                        limiter.table().evicted().to_string(),
                    ),
                ],
                alert: None,
            },
        ];
        sections.extend(peers);
        sections
    }
}

/// The running module.
struct Limit {
    entrance: Arc<Entrance>,
    limiter: Arc<LimitPlan>,
    cluster: Arc<ClusterPlan>,
    serving: Serving,
    target: Target,
    setup: Setup,
}

impl Service for Limit {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let limiter: Arc<dyn StagePlan> = Arc::clone(&self.limiter) as _;
        let way = Way {
            stages: vec![limiter],
            cluster: Arc::clone(&self.cluster),
        };
        self.serving.start(Generation::of(&self.entrance, way))
    }

    fn reload(&self) -> Result<(), String> {
        self.serving.reload()
    }

    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let tls = self.entrance.tls.iter();
        tls.map(|tls| ("certificate", tls.usable())).collect()
    }

    fn routes(&self) -> Vec<Route> {
        let plan = Arc::clone(&self.limiter);
        page::routes("limit", move || plan.shown())
    }

    fn page(&self) -> Vec<Section> {
        let pair = |name: &str, value: String| vec![name.to_owned(), value];
        let open = self.setup.lifecycle.in_flight();
        let most = self.serving.connections();
        let mut sections = self.limiter.page();
        sections.push(Section {
            title: "Live".to_owned(),
            columns: Vec::new(),
            rows: vec![
                pair("Upstream", self.target.addr().to_string()),
                pair("Connections open", format!("{open} of at most {most}")),
                pair(
                    "Requests answered",
                    self.serving.http_metrics().answered().to_string(),
                ),
            ],
            alert: None,
        });
        let tls = self.entrance.tls.iter();
        sections.extend(tls.map(|tls| tls.view().section()));
        sections
    }
}
