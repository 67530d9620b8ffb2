//! The module: a chain of one route without stages.

use std::rc::Rc;
use std::sync::Arc;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::proxy::{AccessLog, ForwardSettings, Traceparent, Trust};
use podkit_dataplane::http2::Http2Limits;
use podkit_dataplane::module::{Route, Section, Service, Setup};
use podkit_dataplane::net::ListenerLimits;
use podkit_dataplane::tls::{TlsParams, UpstreamHttp2Params, UpstreamTls, UpstreamTlsParams};
use podkit_dataplane::upstream::{
    Affinity, Check, Discovery, HealthParams, Membership, Outward, UpstreamLimits, UpstreamMetrics,
};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet as _, Values};
use podkit_foundation::telemetry::metrics::Registry;

use super::page;
use super::params::Params;
use crate::front::{ClusterPlan, Entrance, EntranceParams, Generation, Serving, Way};

/// Checks the parameters, reads the files, binds the listeners.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::checked(values)?;
    let limits = HttpLimits::from_values(values)?;
    let http2 = Http2Limits::from_values(values)?;
    let listener_limits = ListenerLimits::from_values(values)?;
    let tls = TlsParams::if_given(values)?;
    let cluster = cluster(values, tls.is_some(), setup.metrics.part(&[]))?;
    let entrance = EntranceParams {
        listen: params.listen,
        accept_proxy: params.accept_proxy,
        http2,
        limits: limits.clone(),
        tls,
    };
    let (most, proxies) = (limits.connections(), entrance.accept_proxy.clone());
    Ok(Rc::new(Balance {
        entrance: Arc::new(Entrance::new(entrance, setup, setup.metrics.part(&[]))?),
        cluster: Arc::new(cluster),
        serving: Serving::new("balance", setup, most, &listener_limits, &proxies),
        limits,
        setup: setup.clone(),
    }))
}

/// The parameters are right by themselves; looks at no file.
pub(crate) fn check(values: &Values) -> Result<(), Failure> {
    Params::checked(values)?;
    UpstreamLimits::from_values(values)?;
    HealthParams::from_values(values)?;
    UpstreamTlsParams::from_values(values)?;
    UpstreamHttp2Params::from_values(values)?;
    Ok(())
}

/// The cluster that the parameters describe. `secure`: clients come by TLS.
pub(crate) fn cluster(
    values: &Values,
    secure: bool,
    registry: Registry,
) -> Result<ClusterPlan, Failure> {
    let params = Params::checked(values)?;
    let health = HealthParams::from_values(values)?;
    let limits = UpstreamLimits::from_values(values)?;
    let tls = UpstreamTlsParams::from_values(values)?;
    let tls = UpstreamTls::if_needed(values, params.may_have_tls_upstreams(&tls), &registry)?;
    let outward = Outward {
        tls: tls.clone(),
        raw: false,
    };
    let membership = Membership::speaking(params.settings(&health), outward);
    let discovery = Discovery::new(
        "upstream",
        "balance",
        &params.upstream,
        params.max_upstreams as usize,
        membership.clone(),
        &registry,
    )?;
    let access_log = match &params.access_log {
        None => None,
        Some(to) => Some(
            AccessLog::open(to, &registry)
                .map_err(|cause| Failure::runtime("opening --access-log", cause))?,
        ),
    };
    membership.export(&registry);
    Ok(ClusterPlan {
        discovery: Some(discovery),
        health: (health.ready != Check::Off).then_some(health),
        limits,
        affinity: affinity(&params, secure)?,
        host: host(&params),
        settings: ForwardSettings {
            trust: match params.trust_forwarded {
                true => Trust::Everybody,
                false => Trust::Nobody,
            },
            response_fields: String::new(),
            retries: params.retries(),
            make_traceparent: match params.traceparent {
                Traceparent::Pass => None,
                Traceparent::Make => Some(params.trace_sampled.0),
            },
            key: params.hash_key,
            access_log,
        },
        metrics: UpstreamMetrics::new(&registry),
        membership,
        tls,
        _registry: registry,
    })
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

/// The running module.
struct Balance {
    entrance: Arc<Entrance>,
    cluster: Arc<ClusterPlan>,
    serving: Serving,
    limits: HttpLimits,
    setup: Setup,
}

impl Service for Balance {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let way = Way {
            stages: Vec::new(),
            cluster: Arc::clone(&self.cluster),
        };
        self.serving.start(Generation::of(&self.entrance, way))
    }

    fn reload(&self) -> Result<(), String> {
        self.serving.reload()
    }

    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let now = tokio::time::Instant::now();
        let mut checks = vec![("upstreams", self.cluster.membership.usable(now))];
        if let Some(tls) = &self.entrance.tls {
            checks.push(("certificate", tls.usable()));
        }
        checks
    }

    fn page(&self) -> Vec<Section> {
        let now = tokio::time::Instant::now();
        let metrics = self.serving.http_metrics();
        let mut sections = vec![
            page::upstreams(&self.cluster.membership, &self.cluster.problems(), now),
            page::live(metrics, self.limits.connections(), &self.setup.lifecycle),
        ];
        if let Some(tls) = &self.entrance.tls {
            sections.push(tls.view().section());
        }
        sections
    }

    fn routes(&self) -> Vec<Route> {
        let cluster = Arc::clone(&self.cluster);
        vec![
            Route {
                path: "/upstreams",
                answer: Rc::new(move |_| {
                    let now = tokio::time::Instant::now();
                    crate::page::json(&page::shown(&cluster.membership, &cluster.problems(), now))
                }),
            },
            Route {
                path: "/live",
                answer: Rc::new(|_| page::PAGE.html("balance")),
            },
            Route {
                path: "/live.js",
                answer: Rc::new(|_| page::script()),
            },
        ]
    }

    fn actions(&self) -> Vec<Route> {
        let membership = self.cluster.membership.clone();
        vec![Route {
            path: "/upstreams/",
            answer: Rc::new(move |query| {
                let asked = query.path.strip_prefix("/upstreams/").unwrap_or_default();
                page::drain(&membership, asked, tokio::time::Instant::now())
            }),
        }]
    }
}
