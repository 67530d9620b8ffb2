//! The kinds of sources. Each makes collectors of a [`Spec`].

mod glob;
pub(crate) mod jmx;
pub(crate) mod json;
mod memcached;
mod nginx;
pub(crate) mod prometheus;
pub(crate) mod redis;
pub(crate) mod sql;
pub(crate) mod statsd;
pub(crate) mod text_file;
mod web;
mod words;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use podkit_dataplane::tls::UpstreamTls;
use podkit_dataplane::upstream::{Outward, Pool, Target, UpstreamLimits, UpstreamMetrics};
use podkit_foundation::params::{Scheme, Upstream, Where};

use super::batch;
use super::keeper::Collector;
use super::spec::{Kind, Spec};

/// What is done at the start, by a source that listens. An error is one line.
pub(crate) type Start = Box<dyn FnOnce() -> Result<(), String>>;

/// What is done on SIGHUP. An error is one line.
pub(crate) type Reload = Box<dyn Fn() -> Result<(), String>>;

/// What collectors are made with.
pub(crate) struct Ground {
    pub(crate) tls: Option<UpstreamTls>,
    pub(crate) metrics: UpstreamMetrics,
    pub(crate) starts: RefCell<Vec<Start>>,
    pub(crate) reloads: RefCell<Vec<Reload>>,
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
        Kind::Jmx => jmx::plan(spec, ground),
        Kind::Json => json::plan(spec, ground),
        Kind::Memcached => memcached::plan(spec, ground),
        Kind::Nginx => nginx::plan(spec, ground),
        Kind::Prometheus => prometheus::plan(spec, ground),
        Kind::Redis => redis::plan(spec, ground),
        Kind::MySql => sql::mysql(spec, ground),
        Kind::Postgres => sql::postgres(spec, ground),
        Kind::Statsd => statsd::plan(spec, ground),
        Kind::TextFile => text_file::plan(spec, ground),
    }
}

/// The names and kinds of the families that such a server may be told of; `*` stands for any text.
pub(crate) fn names(kind: Kind) -> Vec<(String, batch::Kind)> {
    match kind {
        Kind::Memcached => memcached::names(),
        Kind::Nginx => nginx::names(),
        Kind::Redis => redis::names(),
        Kind::MySql => sql::mysql_names(),
        Kind::Postgres => sql::postgres_names(),
        Kind::Statsd => statsd::names(),
        // What they say is what others, or rules, make of it.
        Kind::Jmx | Kind::Json | Kind::Prometheus | Kind::TextFile => Vec::new(),
    }
}

/// [`names`] has all, whatever the server: otherwise what it says is known from its answer only.
pub(crate) fn knows_all(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Memcached | Kind::Nginx | Kind::Redis | Kind::Statsd
    )
}

impl Ground {
    /// A source listens.
    fn on_start(&self, start: impl FnOnce() -> Result<(), String> + 'static) {
        self.starts.borrow_mut().push(Box::new(start));
    }

    /// A source has files that may change.
    fn on_reload(&self, reload: impl Fn() -> Result<(), String> + 'static) {
        self.reloads.borrow_mut().push(Box::new(reload));
    }

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
            server_name: spec.option("server-name").map(str::to_owned),
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

/// Parsers of what servers and files say.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn fuzz_targets() -> Vec<podkit_foundation::fuzz::Target> {
    vec![
        jmx::fuzz::TARGET,
        json::fuzz::DOCUMENT,
        json::fuzz::PATH,
        memcached::FUZZ,
        nginx::FUZZ,
        prometheus::text::FUZZ,
        prometheus::relabel::fuzz::TARGET,
        redis::fuzz::ANSWERS,
        redis::fuzz::KEYS,
        redis::fuzz::QUERIES,
        sql::FUZZ,
        statsd::fuzz::LINES,
        statsd::fuzz::MAPPING,
        text_file::fuzz::TARGET,
    ]
}

/// Samples with their kinds, a line each.
#[cfg(test)]
fn shown(batch: &super::batch::Batch) -> String {
    let mut text = String::new();
    for family in batch.families() {
        for sample in &family.samples {
            let kind = format!("{:?}", family.kind).to_lowercase();
            let labels = match &*sample.labels {
                "" => String::new(),
                labels => format!("{{{labels}}}"),
            };
            let (name, end, value) = (&family.name, sample.line.suffix(), sample.value);
            text += &format!("{name}{end}{labels} {kind} {value}\n");
        }
    }
    text
}
