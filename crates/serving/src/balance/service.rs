//! The module: parameters in, listeners bound, endpoints found and checked, workers that forward.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use podkit_dataplane::http::proxy::{AccessLog, HttpMetrics, Proxy, ProxySettings, Traceparent};
use podkit_dataplane::http::{Front, HttpLimits};
use podkit_dataplane::http2::{HTTP2, Http2Limits};
use podkit_dataplane::module::{Route, Section, Service, Setup};
use podkit_dataplane::net::{Connections, Listener, ListenerLimits, Worker, Workers, accept_from};
use podkit_dataplane::tls::{HTTP1, ServerTls, TlsParams, UpstreamTls, UpstreamTlsParams};
use podkit_dataplane::upstream::{
    Affinity, Checks, Cluster, Discovery, HealthParams, Membership, Outward, UpstreamLimits,
    UpstreamMetrics,
};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet as _, Values};

use super::page;
use super::params::Params;

/// Checks the parameters, reads the files, binds the listeners.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::checked(values)?;
    let limits = HttpLimits::from_values(values)?;
    let http2 = Http2Limits::from_values(values)?;
    let tls_params = TlsParams::from_values(values)?;
    let listener_limits = ListenerLimits::from_values(values)?;
    let upstream_limits = UpstreamLimits::from_values(values)?;
    let health = HealthParams::from_values(values)?;
    let upstream_tls = UpstreamTlsParams::from_values(values)?;
    let upstream_tls = match params.may_have_tls_upstreams(&upstream_tls) {
        true => Some(UpstreamTls::new(&upstream_tls, &setup.metrics)?),
        false => {
            upstream_tls.refuse_unused()?;
            None
        }
    };
    let outward = Outward {
        tls: upstream_tls.clone(),
        raw: false,
    };
    let membership = Membership::speaking(params.settings(&health), outward);
    let discovery = Discovery::new(
        "upstream",
        "balance",
        &params.upstream,
        params.max_upstreams as usize,
        membership.clone(),
    )?;
    let protocols = if http2.http2 { HTTP2 } else { HTTP1 };
    let tls = ServerTls::if_given(&tls_params, values, protocols, &setup.metrics)?;
    let affinity = affinity(&params, tls.is_some())?;
    let access_log = match &params.access_log {
        None => None,
        Some(to) => Some(
            AccessLog::open(to, &setup.metrics)
                .map_err(|cause| Failure::runtime("opening --access-log", cause))?,
        ),
    };
    let bind = |addr| Listener::bind("listen", addr, setup.workers);
    let listeners = params
        .listen
        .iter()
        .map(bind)
        .collect::<Result<Vec<_>, _>>()?;
    membership.export(&setup.metrics);
    Ok(Rc::new(Balance {
        plan: Arc::new(Plan {
            host: host(&params),
            params,
            limits,
            http2,
            listener_limits,
            upstream_limits,
            membership,
            affinity,
            access_log,
            tls,
            upstream_tls,
            listeners,
            upstream_metrics: UpstreamMetrics::new(&setup.metrics),
            http_metrics: HttpMetrics::new(&setup.metrics),
        }),
        discovery,
        health,
        setup: setup.clone(),
        workers: RefCell::new(None),
    }))
}

fn affinity(params: &Params, secure: bool) -> Result<Option<Affinity>, Failure> {
    let Some(cookie) = &params.affinity else {
        return Ok(None);
    };
    let file = params.affinity_secret_file.as_deref();
    let affinity = Affinity::new(cookie, file, secure).map_err(|why| {
        let shown = file.map(|file| format!("{}: ", file.display()));
        ParamError::new(
            "affinity_secret_file",
            format!("{}{why}", shown.unwrap_or_default()),
        )
    })?;
    if file.is_none() {
        tracing::info!(
            "--affinity-secret-file is not given: session cookies are good until the next start, and for this replica only"
        );
    }
    Ok(Some(affinity))
}

/// The Host of a request whose client named none, which only HTTP/1.0 may do.
fn host(params: &Params) -> String {
    let first = params.listen.first().map(ToString::to_string);
    match first {
        Some(addr) if !addr.starts_with([':', '/']) && !addr.starts_with("unix:") => addr,
        _ => "localhost".to_owned(),
    }
}

/// What each worker is made from.
#[derive(Debug)]
struct Plan {
    params: Params,
    limits: HttpLimits,
    http2: Http2Limits,
    listener_limits: ListenerLimits,
    upstream_limits: UpstreamLimits,
    membership: Membership,
    affinity: Option<Affinity>,
    access_log: Option<AccessLog>,
    tls: Option<ServerTls>,
    upstream_tls: Option<UpstreamTls>,
    listeners: Vec<Listener>,
    host: String,
    upstream_metrics: UpstreamMetrics,
    http_metrics: HttpMetrics,
}

/// The running module.
struct Balance {
    plan: Arc<Plan>,
    discovery: Discovery,
    health: HealthParams,
    setup: Setup,
    workers: RefCell<Option<Workers>>,
}

impl Service for Balance {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let plan = Arc::clone(&self.plan);
        let connections = Connections::new(
            plan.limits.connections(),
            &plan.listener_limits,
            &plan.params.accept_proxy,
        );
        let workers = Workers::start(
            "balance",
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
        drop(tokio::task::spawn_local(self.discovery.clone().watch()));
        let checks = Checks::new(
            self.plan.membership.clone(),
            self.health.clone(),
            &self.plan.upstream_limits,
        );
        drop(tokio::task::spawn_local(checks.watch()));
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        // Each is tried whatever becomes of the other.
        let tls = self
            .plan
            .tls
            .as_ref()
            .map_or(Ok(()), |tls| tls.reload().map(drop));
        let upstream_tls = self.plan.upstream_tls.as_ref();
        let upstream_tls = upstream_tls.map_or(Ok(()), |tls| tls.reload().map(drop));
        let upstreams = self.discovery.reload();
        tls.and(upstream_tls).and(upstreams)
    }

    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let now = tokio::time::Instant::now();
        let mut checks = vec![("upstreams", self.plan.membership.usable(now))];
        if let Some(tls) = &self.plan.tls {
            checks.push(("certificate", tls.usable()));
        }
        checks
    }

    fn page(&self) -> Vec<Section> {
        let plan = &self.plan;
        let now = tokio::time::Instant::now();
        let mut sections = vec![
            page::upstreams(&plan.membership, &self.discovery.problems(), now),
            page::live(&plan.http_metrics, &plan.limits, &self.setup.lifecycle),
        ];
        if let Some(tls) = &plan.tls {
            sections.push(tls.view().section());
        }
        sections
    }

    fn routes(&self) -> Vec<Route> {
        let (membership, discovery) = (self.plan.membership.clone(), self.discovery.clone());
        vec![
            Route {
                path: "/upstreams",
                answer: Rc::new(move |_| {
                    let now = tokio::time::Instant::now();
                    page::json(&membership, &discovery.problems(), now)
                }),
            },
            Route {
                path: "/live",
                answer: Rc::new(|_| page::html()),
            },
            Route {
                path: "/live.js",
                answer: Rc::new(|_| page::script()),
            },
        ]
    }

    fn actions(&self) -> Vec<Route> {
        let membership = self.plan.membership.clone();
        vec![Route {
            path: "/upstreams/",
            answer: Rc::new(move |query| {
                page::drain(&membership, query.path, tokio::time::Instant::now())
            }),
        }]
    }
}

impl Plan {
    /// On a worker's thread: its accept loops.
    fn start(&self, worker: &Rc<Worker>) -> std::io::Result<()> {
        let cluster = Cluster::new(
            self.membership.clone(),
            self.upstream_limits.clone(),
            self.upstream_metrics.clone(),
            self.host.clone(),
            self.affinity.clone(),
        );
        let settings = ProxySettings {
            limits: self.limits.clone(),
            http2: self.http2.clone(),
            scheme: if self.tls.is_some() { "https" } else { "http" },
            port: self.listeners.iter().find_map(Listener::port),
            trust_forwarded: self.params.trust_forwarded,
            response_fields: String::new(),
            retries: self.params.retries(),
            key: self.params.hash_key.clone(),
            make_traceparent: match self.params.traceparent {
                Traceparent::Pass => None,
                Traceparent::Make => Some(self.params.trace_sampled.0),
            },
            access_log: self.access_log.clone(),
        };
        let proxy = Proxy::new(settings, cluster, self.http_metrics.clone());
        let proxy = move |_| Rc::clone(&proxy);
        let front = Front::new(self.tls.clone(), self.limits.head_timeout, proxy);
        accept_from(
            &self.listeners,
            &self.params.accept_proxy,
            self.limits.head_timeout,
            worker,
            &Rc::new(front),
        )
    }
}
