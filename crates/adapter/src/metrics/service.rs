//! The module: parameters in, a keeper for each source, `/metrics` on a listener of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::local::{Answer, BodyUse, Handler, Local, Request, Response};
use podkit_dataplane::module::{Section, Service, Setup};
use podkit_dataplane::net::{Connections, Listener, ListenerLimits, Worker, accept};
use podkit_dataplane::tls::{UpstreamTls, UpstreamTlsParams};
use podkit_dataplane::upstream::UpstreamMetrics;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet as _, ParamType as _, Values};
use podkit_foundation::secret::{masked, masked_value};
use podkit_foundation::telemetry::metrics::Registry;

use super::check::{Check, Checking};
use super::expose::Style;
use super::keeper::Patience;
use super::params::Params;
use super::scrape::{Member, Wanted, ask, gzip, rows, text};
use super::source::Ground;
use super::source::sql::uses_tls_files;
use super::sources::Sources;
use super::spec::{Kind, Spec};
use super::targets::{self, Entries, Refusal, Targets, field};

/// Reads the parameters, makes the sources' collectors, binds the listener. Asks nobody yet.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::from_values(values)?;
    let checks = !params.check_dashboards.is_empty();
    let alone = params.targets_file.is_none() && params.check_names.is_empty();
    check(&params.source, alone)?;
    if !checks && !params.check_names.is_empty() {
        let why = "is for --check-dashboards, which is not given";
        return Err(ParamError::new("check_names", why).into());
    }
    let refused = |why: String| ParamError::new("targets_file", why);
    let entries = match &params.targets_file {
        Some(path) => Some((path.clone(), Entries::read(path).map_err(refused)?)),
        None => None,
    };
    let mut all = params.source.clone();
    all.extend(entries.iter().flat_map(|(_, entries)| entries.samples()));
    let ground = Rc::new(Ground {
        tls: tls(values, &all, &setup.metrics)?,
        metrics: UpstreamMetrics::new(&setup.metrics),
        reloads: RefCell::default(),
        starts: RefCell::default(),
    });
    let patience = |spec: &Spec| Patience {
        answer: spec.timeout().unwrap_or(params.source_timeout),
        whole: params.collect_timeout,
    };
    let sources = Sources::new(&params.source, Rc::clone(&ground), patience)
        .map_err(|why| ParamError::new("source", why))?;
    if checks {
        let Params {
            check_dashboards,
            check_names,
            source,
            ..
        } = &params;
        let check = Check::new(check_dashboards, check_names, source, params.strict_names)
            .map_err(|why| ParamError::new("check_dashboards", why))?;
        let checking = Checking::new(check, sources.members(), params.scrape_timeout);
        return Ok(Rc::new(checking));
    }
    let targets = match entries {
        None => None,
        Some((path, entries)) => {
            let limits = targets::Limits {
                most: params.max_targets as usize,
                idle: params.target_idle,
                answer: params.source_timeout,
                whole: params.collect_timeout,
            };
            let ground = Rc::clone(&ground);
            let targets = Targets::new(path, entries, ground, limits, &setup.metrics);
            Some(Rc::new(targets.map_err(refused)?))
        }
    };
    sources.register(&setup.metrics);
    let listener_limits = ListenerLimits::from_values(values)?;
    let listener = setup.listeners.bind("listen", &params.listen, 1)?;
    for start in ground.starts.take() {
        start().map_err(|why| Failure::runtime("--source", why))?;
    }
    Ok(Rc::new(Metrics {
        listener_limits,
        pages: Rc::new(Pages {
            sources,
            targets,
            params,
        }),
        start: RefCell::new(Some(listener)),
        tls: ground.tls.clone(),
        setup: setup.clone(),
        listener: RefCell::new(None),
    }))
}

/// TLS towards the sources that speak it.
fn tls(
    values: &Values,
    sources: &[Spec],
    registry: &Registry,
) -> Result<Option<UpstreamTls>, Failure> {
    let params = UpstreamTlsParams::from_values(values)?;
    let speaks = |spec: &Spec| match spec.scheme.kind {
        Kind::MySql | Kind::Postgres => uses_tls_files(
            spec,
            params.upstream_ca.is_some(),
            params.upstream_cert.is_some(),
        ),
        _ => spec.scheme.tls,
    };
    if sources.iter().any(speaks) {
        return UpstreamTls::new(&params, false, registry).map(Some);
    }
    params.refuse_unused("a --source, or an entry of --targets-file, that speaks TLS")?;
    Ok(None)
}

/// There is one, and sources of one kind can be told apart.
fn check(sources: &[Spec], needed: bool) -> Result<(), Failure> {
    if sources.is_empty() && needed {
        let why = format!(
            "is required, or --targets-file; expected {}",
            Spec::EXPECTED
        );
        return Err(ParamError::new("source", why).into());
    }
    for (at, one) in sources.iter().enumerate() {
        let same = |other: &&Spec| match (&one.name, &other.name) {
            (None, None) => one.scheme.kind == other.scheme.kind,
            (one, other) => one == other,
        };
        if let Some(other) = sources[..at].iter().find(same) {
            let why = match &one.name {
                Some(name) => format!("two have the name {name}; each needs its own"),
                None => format!(
                    "\"{other}\" and \"{one}\" have the same metrics; name them, such as a={other} and b={one}"
                ),
            };
            return Err(ParamError::new("source", why).into());
        }
    }
    Ok(())
}

/// What the listener answers from.
struct Pages {
    sources: Sources,
    targets: Option<Rc<Targets>>,
    params: Params,
}

/// The running module.
struct Metrics {
    listener_limits: ListenerLimits,
    pages: Rc<Pages>,
    /// What `start` takes.
    start: RefCell<Option<Listener>>,
    tls: Option<UpstreamTls>,
    setup: Setup,
    /// Held for as long as it is accepted from.
    listener: RefCell<Option<Listener>>,
}

impl Service for Metrics {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let Some(listener) = self.start.borrow_mut().take() else {
            return Ok(());
        };
        self.pages.sources.start();
        if let Some(tls) = &self.tls {
            drop(tokio::task::spawn_local(tls.clone().watch()));
        }
        if let Some(targets) = &self.pages.targets {
            drop(tokio::task::spawn_local(Rc::clone(targets).tidy()));
        }
        let limits = limits();
        let Setup {
            lifecycle, metrics, ..
        } = &self.setup;
        let connections = Connections::new(limits.connections(), &self.listener_limits, &[]);
        let worker = Worker::new(lifecycle, metrics, &connections);
        drop(tokio::task::spawn_local(Rc::clone(&worker).watch()));
        let port = listener
            .take()
            .map_err(|error| Failure::runtime("listening", error))?;
        let local = Rc::new(Local::new(Door(Rc::clone(&self.pages)), limits));
        drop(tokio::task::spawn_local(accept(port, worker, local)));
        self.listener.replace(Some(listener));
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        let tls = self.tls.as_ref().map(|tls| tls.reload().map(drop));
        let files = Some(self.pages.sources.reload());
        let targets = self.pages.targets.as_ref();
        let targets = targets.map(|targets| targets.reload());
        // All of them: what is refused keeps what it had.
        let done = tls.into_iter().chain(files).chain(targets);
        let refused: Vec<String> = done.filter_map(Result::err).map(|why| line(&why)).collect();
        match refused.is_empty() {
            true => Ok(()),
            false => Err(refused.join("; ")),
        }
    }

    fn page(&self) -> Vec<Section> {
        let columns = ["Source", "Part", "Where", "State", "Took", "Age", "Series"];
        let columns = columns.map(str::to_owned).to_vec();
        let mut sections = vec![Section {
            title: "Sources".to_owned(),
            columns: columns.clone(),
            rows: rows(&*self.pages.sources.members()),
            alert: self.tls.as_ref().and_then(UpstreamTls::refusal),
        }];
        sections.extend(self.pages.targets.as_ref().map(|targets| Section {
            title: format!("Targets of /probe, the first {SHOWN}"),
            columns,
            rows: rows(targets.some(SHOWN).iter().flat_map(|members| &**members)),
            alert: None,
        }));
        sections
    }
}

/// What is wrong with a file has many lines, of which a log takes one.
fn line(why: &str) -> String {
    let (first, more) = why.split_once('\n').unwrap_or((why, ""));
    match more.lines().count() {
        0 => first.to_owned(),
        more => format!("{first} (and {more} more)"),
    }
}

/// Targets on the page at most.
const SHOWN: usize = 100;

/// The bounds of the listener: scrapers are few, and keep a connection for longer than their scrapes are apart.
fn limits() -> HttpLimits {
    HttpLimits::of_pages(128, Duration::from_secs(300))
}

/// The listener's handler.
struct Door(Rc<Pages>);

impl Handler for Door {
    fn handle<'a>(&'a self, request: Request<'a>) -> Answer<'a> {
        Box::pin(self.respond(request))
    }

    fn body_use(&self) -> BodyUse {
        BodyUse::Collect(0)
    }
}

impl Door {
    async fn respond(&self, request: Request<'_>) -> Response {
        if !matches!(request.method(), "GET" | "HEAD") {
            return Response::method_not_allowed("GET, HEAD");
        }
        let here = match &self.0.targets {
            Some(_) => "/metrics and /probe?target=SCHEME://HOST:PORT are here",
            None => "/metrics is here",
        };
        match (request.path(), &self.0.targets) {
            ("/metrics", _) => self.scrape(request, &self.0.sources.members()).await,
            ("/probe", Some(targets)) => self.probe(request, targets).await,
            ("/", _) => Response::text(200, format!("podkit metrics: {here}\n")),
            ("/probe", None) => {
                Response::text(404, "/probe is not served without --targets-file\n")
            }
            _ => Response::text(404, format!("not found; {here}\n")),
        }
    }

    async fn probe(&self, request: Request<'_>, targets: &Targets) -> Response {
        let query = request.query();
        let Some(target) = field(query, "target") else {
            return Response::text(400, "which? /probe?target=SCHEME://HOST:PORT\n");
        };
        let module = field(query, "module").unwrap_or_default();
        match targets.find(&target, &module) {
            Ok(members) => self.scrape(request, &members).await,
            Err(refusal) => {
                let (status, why) = match refusal {
                    Refusal::Bad(why) => (400, why),
                    Refusal::Unlisted(why) => (403, why),
                    Refusal::Broken(why) => (500, why),
                };
                let target = masked_value(&target);
                Response::text(status, masked(&format!("{target:?}: {why}\n")).into_owned())
            }
        }
    }

    async fn scrape(&self, request: Request<'_>, members: &[Member]) -> Response {
        let params = &self.0.params;
        let header = |name: &str| request.header(name).unwrap_or_default();
        let wanted = Wanted::of(
            header("Accept"),
            header("Accept-Encoding"),
            request.header("X-Prometheus-Scrape-Timeout-Seconds"),
            params.scrape_timeout,
        );
        ask(members, wanted.until).await;
        let style = Style {
            format: wanted.format,
            strict: params.strict_names,
        };
        let kind = wanted.format.content_type();
        match wanted.gzip {
            true => Response::bytes(200, kind, gzip(members, style, params.max_age))
                .header("Content-Encoding", "gzip"),
            false => Response::bytes(200, kind, text(members, style, params.max_age).into_bytes()),
        }
        .header("Vary", "Accept, Accept-Encoding")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_wrong_with_a_file_is_one_line() {
        for (why, expected) in [("a", "a"), ("a\n", "a"), ("a\nb\nc", "a (and 2 more)")] {
            assert_eq!(super::line(why), expected);
        }
    }
}
