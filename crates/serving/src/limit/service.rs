//! The module: parameters in, listeners bound, workers that let pass and forward.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use podkit_dataplane::http::proxy::{HttpMetrics, Proxy, ProxySettings, Retries};
use podkit_dataplane::http::stage::Stages;
use podkit_dataplane::http::{Front, HttpLimits};
use podkit_dataplane::http2::{HTTP2, Http2Limits};
use podkit_dataplane::module::{Route, Section, Service, Setup};
use podkit_dataplane::net::{Connections, Listener, ListenerLimits, Worker, Workers, accept_from};
use podkit_dataplane::tls::{HTTP1, ServerTls, TlsParams, UpstreamTls};
use podkit_dataplane::upstream::{Cluster, Outward, Target, UpstreamLimits, UpstreamMetrics};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Cidr, ParamSet as _, Values};
use podkit_foundation::telemetry::metrics::Kind;

use super::limiter::{LimitStage, Limiter};
use super::page;
use super::params::Params;
use super::set::Counted;
use super::{EVICTED, REQUESTS, Settled};

/// Checks the parameters and binds the listeners.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::checked(values)?;
    let limits = HttpLimits::from_values(values)?;
    let http2 = Http2Limits::from_values(values)?;
    let tls_params = TlsParams::from_values(values)?;
    let listener_limits = ListenerLimits::from_values(values)?;
    let upstream_limits = UpstreamLimits::from_values(values)?;
    let target = params.target()?;
    let protocols = if http2.http2 { HTTP2 } else { HTTP1 };
    let upstream_tls = UpstreamTls::if_needed(values, target.is_tls(), &setup.metrics)?;
    let tls = ServerTls::if_given(&tls_params, values, protocols, &setup.metrics)?;
    let limiter = Limiter::new(&params, limits.connections(), &setup.metrics)?;
    let limiter = Arc::new(limiter);
    let bind = |addr| Listener::bind("listen", addr, setup.workers);
    let listeners = params
        .listen
        .iter()
        .map(bind)
        .collect::<Result<Vec<_>, _>>()?;
    let counted = Arc::clone(&limiter);
    setup.metrics.collect(move |encoder| {
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
    Ok(Rc::new(Limit {
        plan: Arc::new(Plan {
            limits,
            http2,
            listener_limits,
            upstream_limits,
            target,
            tls,
            upstream_tls,
            accept_proxy: params.accept_proxy,
            trusted_proxy: params.trusted_proxy,
            limiter,
            listeners,
            upstream_metrics: UpstreamMetrics::new(&setup.metrics),
            http_metrics: HttpMetrics::new(&setup.metrics),
        }),
        setup: setup.clone(),
        workers: RefCell::new(None),
    }))
}

/// What each worker is made from.
#[derive(Debug)]
struct Plan {
    limits: HttpLimits,
    http2: Http2Limits,
    listener_limits: ListenerLimits,
    upstream_limits: UpstreamLimits,
    target: Target,
    tls: Option<ServerTls>,
    upstream_tls: Option<UpstreamTls>,
    accept_proxy: Vec<Cidr>,
    trusted_proxy: Vec<Cidr>,
    limiter: Arc<Limiter>,
    listeners: Vec<Listener>,
    upstream_metrics: UpstreamMetrics,
    http_metrics: HttpMetrics,
}

/// The running module.
struct Limit {
    plan: Arc<Plan>,
    setup: Setup,
    workers: RefCell<Option<Workers>>,
}

impl Service for Limit {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let plan = Arc::clone(&self.plan);
        let connections = Connections::new(
            plan.limits.connections(),
            &plan.listener_limits,
            &plan.proxies(),
        );
        let workers = Workers::start(
            "limit",
            self.setup.workers,
            &self.setup.lifecycle,
            &self.setup.metrics,
            &connections,
            move |worker| plan.start(worker),
        )?;
        *self.workers.borrow_mut() = Some(workers);
        if let Some(tls) = &self.plan.tls {
            drop(tokio::task::spawn_local(tls.clone().watch()));
        }
        if let Some(tls) = &self.plan.upstream_tls {
            drop(tokio::task::spawn_local(tls.clone().watch()));
        }
        let limiter = Arc::clone(&self.plan.limiter);
        drop(tokio::task::spawn_local(async move {
            limiter.in_force().watch().await;
        }));
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        // Each is tried whatever becomes of the others.
        let served = self.plan.tls.as_ref().map(|tls| tls.reload().map(drop));
        let spoken = self.plan.upstream_tls.as_ref();
        let spoken = spoken.map(|tls| tls.reload().map(drop));
        let rules = self.plan.limiter.in_force().reload();
        let all = [served, spoken, Some(rules)].into_iter().flatten();
        all.fold(Ok(()), Result::and)
    }

    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let tls = self.plan.tls.iter();
        tls.map(|tls| ("certificate", tls.usable())).collect()
    }

    fn routes(&self) -> Vec<Route> {
        let limiter = Arc::clone(&self.plan.limiter);
        vec![
            Route {
                path: "/limited",
                answer: Rc::new(move |query| match page::wants_json(query) {
                    true => page::json(
                        &limiter.limited(),
                        &limiter.in_force().current().rules,
                        limiter.in_force().refusal().as_deref(),
                    ),
                    false => page::html(),
                }),
            },
            Route {
                path: "/limited.js",
                answer: Rc::new(|_| page::script()),
            },
        ]
    }

    fn page(&self) -> Vec<Section> {
        let columns = ["Rule", "Allowed", "Limited", "Shadow", "As given"];
        let limiter = &self.plan.limiter;
        let set = limiter.in_force().current();
        let row = |one: &Counted| {
            let mut row = vec![one.rule.name.clone()];
            row.extend(one.counts().map(|count| count.to_string()));
            row.push(one.rule.text.clone());
            row
        };
        let refusal = limiter.in_force().refusal();
        let pair = |name: &str, value: String| vec![name.to_owned(), value];
        let open = self.setup.lifecycle.in_flight();
        let mut sections = vec![
            Section {
                title: "Rules".to_owned(),
                columns: columns.map(str::to_owned).to_vec(),
                rows: set.rules.iter().map(row).collect(),
                alert: refusal
                    .map(|line| format!("Refused, the former state stays in force: {line}.")),
            },
            Section {
                title: "Live".to_owned(),
                columns: Vec::new(),
                rows: vec![
                    pair("Upstream", self.plan.target.addr().to_string()),
                    pair(
                        "Connections open",
                        format!("{open} of at most {}", self.plan.limits.connections()),
                    ),
                    pair(
                        "Requests answered",
                        self.plan.http_metrics.answered().to_string(),
                    ),
                    pair("Bytes for keys", limiter.table().bytes().to_string()),
                    pair(
                        "Keys forgotten too early",
                        limiter.table().evicted().to_string(),
                    ),
                ],
                alert: None,
            },
        ];
        sections.extend(self.plan.tls.iter().map(|tls| tls.view().section()));
        sections
    }
}

impl Plan {
    /// Whose connections carry those of many clients.
    fn proxies(&self) -> Vec<Cidr> {
        [self.accept_proxy.as_slice(), &self.trusted_proxy].concat()
    }

    /// On a worker's thread: its accept loops.
    fn start(&self, worker: &Rc<Worker>) -> std::io::Result<()> {
        let cluster = Cluster::of(
            self.target.clone(),
            self.upstream_limits.clone(),
            self.upstream_metrics.clone(),
            Outward {
                tls: self.upstream_tls.clone(),
                raw: false,
            },
        );
        let proxy = |trust_forwarded| {
            let settings = ProxySettings {
                limits: self.limits.clone(),
                http2: self.http2.clone(),
                scheme: if self.tls.is_some() { "https" } else { "http" },
                port: self.listeners.iter().find_map(Listener::port),
                trust_forwarded,
                response_fields: String::new(),
                retries: Retries::NONE,
                key: None,
                make_traceparent: None,
                access_log: None,
            };
            let stage = LimitStage::new(Arc::clone(&self.limiter));
            Proxy::staged(
                settings,
                Stages::new(vec![Rc::new(stage)]),
                Rc::clone(&cluster),
                self.http_metrics.clone(),
            )
        };
        let (strangers, trusted) = (proxy(false), proxy(true));
        let limiter = Arc::clone(&self.limiter);
        // A trusted proxy's word about its clients goes on, anybody else's is replaced.
        let proxy_for = move |peer| match limiter.trusts(peer) {
            true => Rc::clone(&trusted),
            false => Rc::clone(&strangers),
        };
        let front = Front::new(self.tls.clone(), self.limits.head_timeout, proxy_for);
        accept_from(
            &self.listeners,
            &self.accept_proxy,
            self.limits.head_timeout,
            worker,
            &Rc::new(front),
        )
    }
}
