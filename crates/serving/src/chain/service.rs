//! The module: its file read, what it says put in force, and followed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::{Rc, Weak};

use podkit_dataplane::module::{Answer, Query, Route, Section, Service, Setup};
use podkit_dataplane::net::ListenerLimits;
use podkit_dataplane::watch::look_after;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Cidr, ParamError, ParamSet as _, Values};
use podkit_foundation::surface::common::generation;
use podkit_foundation::telemetry::metrics::{Counter, Gauge};
use podkit_foundation::yaml::{Findings, Severity, read};
use serde_json::{Value, json};

use super::file::{RouteSaid, parse_bytes};
use super::params::Params;
use super::state::State;
use super::{FILE_IN_FORCE, RELOADS};
use crate::balance::page;
use crate::front::Serving;
use crate::limit;
use crate::page::{json, text};

/// Reads the file and makes what it says.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::from_values(values)?;
    let limits = ListenerLimits::from_values(values)?;
    // Sockets stay at hand for listeners whose settings change.
    setup.listeners.keep();
    let connections = params.max_connections as usize;
    let path = params.chain_file;
    let wrong = |why: String| Failure::from(ParamError::new("chain_file", why));
    let bytes = read::file(&path).map_err(|why| wrong(format!("{}: {why}", path.display())))?;
    let (file, findings) = parse_bytes(&path.display().to_string(), &bytes, params.max_connections);
    for finding in findings
        .iter()
        .filter(|it| it.severity == Severity::Warning)
    {
        tracing::warn!("{finding}");
    }
    let Some(file) = file else {
        return Err(wrong(first(&findings)));
    };
    // Those of the start: connections are counted from then on.
    let listeners = file.listeners.iter();
    let proxies = listeners.flat_map(|one| one.params.accept_proxy.iter().copied());
    let proxies: Vec<Cidr> = proxies.collect();
    let state = State::new(&file, &State::default(), setup, connections)?;
    let count = |result| {
        let labels = [("result", result)];
        setup.metrics.counter(RELOADS.name, RELOADS.doc, &labels)
    };
    let in_force = setup
        .metrics
        .gauge(FILE_IN_FORCE.name, FILE_IN_FORCE.doc, &[]);
    in_force.set(1);
    Ok(Rc::new_cyclic(|me| Chain {
        me: me.clone(),
        path,
        most: params.max_connections,
        serving: Serving::new("chain", setup, connections, &limits, &proxies),
        setup: setup.clone(),
        changed: count("changed"),
        refused: count("refused"),
        in_force,
        generation: generation(&setup.metrics),
        now: RefCell::new(Now {
            state,
            read: bytes,
            refusal: None,
        }),
    }))
}

/// Checks a file for `podkit check`: nothing but its text is looked at.
pub(super) fn check(name: &str, bytes: &[u8]) -> Findings {
    parse_bytes(name, bytes, 8192).1
}

/// The first thing that is wrong, and how many more there are.
fn first(findings: &Findings) -> String {
    let mut errors = findings.iter().filter(|it| it.severity == Severity::Error);
    let line = errors.next().map(ToString::to_string).unwrap_or_default();
    match findings.count(Severity::Error) {
        0 | 1 => line,
        count => format!("{line} (and {} more; podkit check lists them)", count - 1),
    }
}

/// The running module.
struct Chain {
    me: Weak<Self>,
    path: PathBuf,
    most: u32,
    serving: Serving,
    setup: Setup,
    changed: Counter,
    refused: Counter,
    in_force: Gauge,
    generation: Gauge,
    now: RefCell<Now>,
}

/// What is in force, and what the file said when it was last read.
struct Now {
    state: State,
    read: Vec<u8>,
    refusal: Option<String>,
}

impl Chain {
    /// Reads the file and puts it in force when it has changed. An error says why what is there is not in force.
    fn take(&self) -> Result<(), String> {
        let bytes = match read::file(&self.path) {
            Ok(bytes) => bytes,
            Err(why) => return Err(self.refuse(None, format!("{}: {why}", self.path.display()))),
        };
        let now = self.now.borrow();
        if now.read == bytes {
            return now.refusal.clone().map_or(Ok(()), Err);
        }
        let name = self.path.display().to_string();
        let (file, findings) = parse_bytes(&name, &bytes, self.most);
        let made = match file {
            None => Err(first(&findings)),
            Some(file) => State::new(&file, &now.state, &self.setup, self.serving.connections())
                .map_err(|failure| failure.to_string()),
        };
        drop(now);
        match made {
            Err(why) => Err(self.refuse(Some(bytes), why)),
            Ok(state) => {
                self.serving.replace(state.generation());
                self.now.replace(Now {
                    state,
                    read: bytes,
                    refusal: None,
                });
                self.changed.inc();
                self.generation.add(1);
                self.in_force.set(1);
                tracing::info!(file = name, "changed: taken");
                Ok(())
            }
        }
    }

    fn refuse(&self, read: Option<Vec<u8>>, why: String) -> String {
        let mut now = self.now.borrow_mut();
        if now.refusal.as_ref() != Some(&why) {
            self.refused.inc();
            tracing::error!("refused, the former state stays in force: {why}");
        }
        now.read = read.unwrap_or_default();
        now.refusal = Some(why.clone());
        self.in_force.set(0);
        why
    }

    fn clusters(&self) -> Answer {
        let now = tokio::time::Instant::now();
        let held = self.now.borrow();
        let clusters: BTreeMap<&str, _> = held
            .state
            .clusters()
            .map(|(name, cluster)| {
                let shown = page::shown(&cluster.membership, &cluster.problems(), now);
                (name, shown)
            })
            .collect();
        json(&json!({"clusters": clusters}))
    }

    /// Whom the stages limit.
    fn limited(&self) -> Value {
        let held = self.now.borrow();
        let stages = held.state.passed();
        limit::page::joined(stages.filter_map(|(name, stage)| Some((name, stage.limited()?))))
    }

    /// A POST to `/upstreams/CLUSTER/NAME/drain` or `…/undrain`.
    fn drain(&self, query: &Query<'_>) -> Answer {
        let asked = query.path.strip_prefix("/upstreams/").unwrap_or_default();
        let (cluster, rest) = asked.split_once('/').unwrap_or((asked, ""));
        let held = self.now.borrow();
        let mut clusters = held.state.clusters();
        let cluster = page::decoded(cluster);
        match clusters.find(|(name, _)| Some(*name) == cluster.as_deref()) {
            Some((_, found)) => page::drain(&found.membership, rest, tokio::time::Instant::now()),
            None => text(404, "there is no such cluster; GET /upstreams names them"),
        }
    }
}

impl Service for Chain {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        self.serving.start(self.now.borrow().state.generation())?;
        let me = Rc::clone(&self);
        drop(tokio::task::spawn_local(async move {
            let files = [me.path.clone()];
            // Said by take itself.
            look_after(&files, || drop(me.take())).await;
        }));
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        let file = self.take();
        let rest = self.serving.reload();
        match (file, rest) {
            (Err(file), Err(rest)) => Err(format!("{file}; {rest}")),
            (file, rest) => file.and(rest),
        }
    }

    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let now = tokio::time::Instant::now();
        let held = self.now.borrow();
        // One cluster that is away must not take the others away from those who balance in front.
        let mut clusters = held.state.clusters().map(|(name, cluster)| {
            let usable = cluster.membership.usable(now);
            usable.map_err(|why| format!("{name}: {why}"))
        });
        let first = clusters.next().unwrap_or(Ok(()));
        let usable = match first {
            Err(why) if !clusters.any(|other| other.is_ok()) => Err(why),
            _ => Ok(()),
        };
        let mut checks = vec![("upstreams", usable)];
        let tls: Vec<_> = held
            .state
            .listeners()
            .filter_map(|(entrance, _)| Some(entrance.tls.as_ref()?.usable()))
            .collect();
        if !tls.is_empty() {
            checks.push(("certificate", tls.into_iter().collect()));
        }
        checks
    }

    fn page(&self) -> Vec<Section> {
        let now = tokio::time::Instant::now();
        let held = self.now.borrow();
        let state = &held.state;
        let mut sections = vec![
            routes(state, held.refusal.as_deref()),
            page::live(
                self.serving.http_metrics(),
                self.serving.connections(),
                &self.setup.lifecycle,
            ),
        ];
        let named = |name: &str, mut section: Section| {
            section.title = format!("{name}: {}", section.title);
            section
        };
        for (name, cluster) in state.clusters() {
            let section = page::upstreams(&cluster.membership, &cluster.problems(), now);
            sections.push(named(name, section));
        }
        for (name, stage) in state.passed() {
            sections.extend(stage.page().into_iter().map(|section| named(name, section)));
        }
        for (entrance, _) in state.listeners() {
            let addrs = entrance.addrs().iter().map(ToString::to_string);
            let addrs = addrs.collect::<Vec<_>>().join(", ");
            let tls = entrance.tls.iter();
            sections.extend(tls.map(|tls| named(&addrs, tls.view().section())));
        }
        sections
    }

    fn routes(&self) -> Vec<Route> {
        let (me, limiting) = (self.me.clone(), self.me.clone());
        let mut routes = limit::page::routes("chain", move || match limiting.upgrade() {
            Some(chain) => chain.limited(),
            None => limit::page::joined(std::iter::empty()),
        });
        routes.push(Route {
            path: "/upstreams",
            answer: Rc::new(move |_| match me.upgrade() {
                Some(chain) => chain.clusters(),
                None => text(503, "stopped"),
            }),
        });
        routes
    }

    fn actions(&self) -> Vec<Route> {
        let me = self.me.clone();
        vec![Route {
            path: "/upstreams/",
            answer: Rc::new(move |query| match me.upgrade() {
                Some(chain) => chain.drain(query),
                None => text(503, "stopped"),
            }),
        }]
    }
}

/// Where requests go.
fn routes(state: &State, refusal: Option<&str>) -> Section {
    let mut rows = Vec::new();
    for (entrance, routes) in state.listeners() {
        let addrs = entrance.addrs().iter().map(ToString::to_string);
        let addrs = addrs.collect::<Vec<_>>().join(", ");
        let row = |route: &RouteSaid| {
            let hosts = route.hosts.iter().map(ToString::to_string);
            vec![
                addrs.clone(),
                hosts.collect::<Vec<_>>().join(", "),
                route.path.to_string(),
                route.stages.join(", "),
            ]
        };
        rows.extend(routes.iter().map(row));
    }
    Section {
        title: "Routes".to_owned(),
        columns: ["Listener", "Host", "Path", "Stages"]
            .map(str::to_owned)
            .to_vec(),
        rows,
        alert: refusal
            .map(|why| format!("The file is refused, the former state stays in force: {why}.")),
    }
}
