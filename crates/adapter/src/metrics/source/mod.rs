//! The kinds of sources. Each makes collectors of a [`Spec`].

mod nginx;

use std::rc::Rc;
use std::time::Duration;

use podkit_dataplane::tls::UpstreamTls;
use podkit_dataplane::upstream::{Outward, Pool, Target, UpstreamLimits, UpstreamMetrics};
use podkit_foundation::params::{Scheme, Upstream, Where};

use super::keeper::Collector;
use super::spec::{Kind, Spec};

/// What collectors are made with.
pub(crate) struct Ground {
    pub(crate) tls: Option<UpstreamTls>,
    pub(crate) metrics: UpstreamMetrics,
}

/// A collector, and its part of a source.
pub(crate) struct Planned {
    /// None: what is asked at each scrape. A part with an interval is asked beside scrapes, on a connection of its own.
    pub(crate) part: Option<(String, Duration)>,
    pub(crate) collector: Box<dyn Collector>,
}

impl Planned {
    /// Asked at each scrape.
    fn always(collector: impl Collector + 'static) -> Self {
        Self {
            part: None,
            collector: Box::new(collector),
        }
    }
}

/// The collectors of a source: what is asked at each scrape comes first. Opens nothing. An error says what of the source is wrong.
pub(crate) fn plan(spec: &Spec, ground: &Ground) -> Result<Vec<Planned>, String> {
    match spec.scheme.kind {
        Kind::Nginx => nginx::plan(spec, ground),
    }
}

impl Ground {
    /// Connections to the source, kept from one scrape to the next.
    fn pool(&self, spec: &Spec) -> Result<Rc<Pool>, String> {
        let upstream = Upstream {
            scheme: match spec.scheme.tls {
                true => Scheme::Https,
                false => Scheme::Plain,
            },
            place: Where::Addr(spec.addr.clone()),
            weight: 1,
            priority: 0,
            server_name: None,
        };
        let target = Target::new("source", "metrics", &upstream).map_err(|why| why.to_string())?;
        let limits = UpstreamLimits {
            // Who asks bounds the whole.
            connect_timeout: Duration::MAX,
            response_timeout: Duration::MAX,
            tunnel_timeout: Duration::MAX,
            upstream_idle_timeout: Duration::from_secs(600),
            upstream_idle: 1,
            upstream_h2_connections: 0,
        };
        let outward = Outward {
            tls: self.tls.clone(),
            raw: true,
        };
        Ok(Pool::new(target, limits, self.metrics.clone(), outward))
    }
}
