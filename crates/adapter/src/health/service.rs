//! The module: parameters in, a runner for each probe, listeners that answer from the board.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use podkit_dataplane::http::local::Local;
use podkit_dataplane::module::{Answer, Once, Query, Route, Section, Service, Setup};
use podkit_dataplane::net::{Connections, Listener, ListenerLimits, Serve, Worker, accept};
use podkit_dataplane::tls::{UpstreamTls, UpstreamTlsParams};
use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::Phase;
use podkit_foundation::params::{ParamError, ParamSet as _, ParamType as _, Values};
use podkit_foundation::telemetry::metrics::Registry;
use serde_json::to_vec_pretty;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::info;

use super::agent::Agent;
use super::board::{Board, Entry};
use super::check::Rules;
use super::door::{Door, limits};
use super::file;
use super::grpc::Health as Grpc;
use super::link::Ground;
use super::once;
use super::params::Params;
use super::probe::{Prober, prober};
use super::report::{encode, sections, why_text, why_tree};
use super::runner::{Shared, run};
use super::spec::{Spec, Usual};

/// Reads the parameters, makes the probers, binds the listeners. Asks nobody yet.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::from_values(values)?;
    if params.exec {
        return Ok(Rc::new(Asking(params)));
    }
    let specs = specs(&params)?;
    let ground = Ground {
        tls: tls(values, &specs, &setup.metrics)?,
        relogin: params.relogin,
    };
    let listener_limits = ListenerLimits::from_values(values)?;
    let planned = plan(&specs, &params, &ground).map_err(ParamError::from)?;
    let shared = Shared::new(Board::default());
    let listen = |param, addr: &Option<_>| {
        let bound = addr
            .as_ref()
            .map(|addr| setup.listeners.bind(param, addr, 1));
        bound.transpose()
    };
    let doors = Doors {
        http: setup.listeners.bind("listen", &params.listen, 1)?,
        grpc: listen("grpc_listen", &params.grpc_listen)?,
        agent: listen("agent_listen", &params.agent_listen)?,
    };
    let report = |registry: &Registry| {
        let shared = shared.clone();
        registry.collect(move |encoder| encode(&shared.board(), Instant::now(), encoder));
    };
    report(&setup.metrics);
    let own = Registry::default();
    report(&own);
    Ok(Rc::new(Health {
        listener_limits,
        params,
        ground,
        shared,
        metrics: own,
        running: RefCell::default(),
        planned: RefCell::new(Some(planned)),
        doors: RefCell::new(Some(doors)),
        held: RefCell::default(),
        setup: setup.clone(),
    }))
}

/// TLS towards what is asked, where it speaks it.
fn tls(
    values: &Values,
    specs: &[(Spec, &'static str)],
    registry: &Registry,
) -> Result<Option<UpstreamTls>, Failure> {
    let params = UpstreamTlsParams::from_values(values)?;
    let (ca, cert) = (params.upstream_ca.is_some(), params.upstream_cert.is_some());
    let uses = |spec: &Spec| spec.uses_tls_files(ca, cert);
    if specs.iter().any(|(spec, _)| uses(spec)) {
        return UpstreamTls::new(&params, false, registry).map(Some);
    }
    params.refuse_unused("a probe that speaks TLS")?;
    Ok(None)
}

/// Which parameter is wrong, and why.
struct Wrong {
    param: &'static str,
    why: String,
}

impl From<Wrong> for ParamError {
    fn from(wrong: Wrong) -> Self {
        Self::new(wrong.param, wrong.why)
    }
}

/// All probes, and the parameter that each comes from.
fn specs(params: &Params) -> Result<Vec<(Spec, &'static str)>, ParamError> {
    let mut specs: Vec<(Spec, &str)> = Vec::new();
    let mut add = |spec: Spec, param| {
        if specs.iter().any(|(known, _)| known.name == spec.name) {
            let why = format!("two have the name {}; each needs its own", spec.name);
            return Err(ParamError::new(param, why));
        }
        specs.push((spec, param));
        Ok(())
    };
    for spec in &params.probe {
        add(spec.clone(), "probe")?;
    }
    if let Some(path) = &params.probes_file {
        let loaded = file::load(path).map_err(|why| ParamError::new("probes_file", why))?;
        for spec in loaded {
            add(spec, "probes_file")?;
        }
    }
    match specs.is_empty() {
        false => Ok(specs),
        true => {
            let why = format!("is required, or --probes-file; expected {}", Spec::EXPECTED);
            Err(ParamError::new("probe", why))
        }
    }
}

/// A probe that can run.
struct Planned {
    spec: Spec,
    rules: Rules,
    prober: Box<dyn Prober>,
}

fn plan(
    specs: &[(Spec, &'static str)],
    params: &Params,
    ground: &Ground,
) -> Result<Vec<Planned>, Wrong> {
    let usual = Usual {
        period: params.period,
        timeout: params.timeout,
        failure: params.failure_threshold,
        success: params.success_threshold,
        window: params.window,
        history: params.history as usize,
    };
    let one = |(spec, param): &(Spec, &'static str)| {
        let wrong = |why: String| Wrong {
            param,
            why: format!("\"{spec}\": {why}"),
        };
        let rules = spec.rules(&usual).map_err(wrong)?;
        Ok(Planned {
            prober: prober(spec, ground, rules.timeout).map_err(wrong)?,
            rules,
            spec: spec.clone(),
        })
    };
    specs.iter().map(one).collect()
}

/// What is listened on.
struct Doors {
    http: Listener,
    grpc: Option<Listener>,
    agent: Option<Listener>,
}

/// The running module.
struct Health {
    listener_limits: ListenerLimits,
    params: Params,
    ground: Ground,
    shared: Shared,
    /// What `--listen` shows of metrics.
    metrics: Registry,
    /// The probes that run, by name.
    running: RefCell<HashMap<String, (Spec, AbortHandle)>>,
    /// What `start` takes.
    planned: RefCell<Option<Vec<Planned>>>,
    doors: RefCell<Option<Doors>>,
    /// Held for as long as they are accepted from.
    held: RefCell<Vec<Listener>>,
    setup: Setup,
}

impl Health {
    /// Runs a probe, in the place of one of the same name.
    fn begin(&self, planned: Planned) {
        let Planned {
            spec,
            rules,
            prober,
        } = planned;
        let (period, patience) = (rules.period, rules.timeout);
        let entry = Entry::new(spec.to_string(), spec.counts_for, spec.slow_fails, rules);
        self.shared.change(|board| board.put(&spec.name, entry));
        let task = run(
            spec.name.clone(),
            period,
            patience,
            prober,
            self.shared.clone(),
        );
        let task = tokio::task::spawn_local(task).abort_handle();
        let name = spec.name.clone();
        let former = self.running.borrow_mut().insert(name, (spec, task));
        if let Some((_, former)) = former {
            former.abort();
        }
    }

    fn open<S: Serve>(
        &self,
        listener: Listener,
        worker: &Rc<Worker>,
        serve: S,
    ) -> Result<(), Failure> {
        let port = listener
            .take()
            .map_err(|error| Failure::runtime("listening", error))?;
        drop(tokio::task::spawn_local(accept(
            port,
            Rc::clone(worker),
            Rc::new(serve),
        )));
        self.held.borrow_mut().push(listener);
        Ok(())
    }
}

impl Service for Health {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        for planned in self.planned.borrow_mut().take().unwrap_or_default() {
            self.begin(planned);
        }
        if let Some(tls) = &self.ground.tls {
            drop(tokio::task::spawn_local(tls.clone().watch()));
        }
        let Setup {
            lifecycle, metrics, ..
        } = &self.setup;
        let connections = Connections::new(limits().connections(), &self.listener_limits, &[]);
        let worker = Worker::new(lifecycle, metrics, &connections);
        drop(tokio::task::spawn_local(Rc::clone(&worker).watch()));
        let shared = &self.shared;
        if let Some(doors) = self.doors.borrow_mut().take() {
            let door = Door {
                shared: shared.clone(),
                metrics: self.metrics.clone(),
            };
            self.open(doors.http, &worker, Local::new(door, limits()))?;
            if let Some(listener) = doors.grpc {
                let grpc = Grpc {
                    shared: shared.clone(),
                    lifecycle: lifecycle.clone(),
                };
                self.open(listener, &worker, grpc)?;
            }
            if let Some(listener) = doors.agent {
                let agent = Agent {
                    shared: shared.clone(),
                    degraded: self.params.degraded_weight.0,
                };
                self.open(listener, &worker, agent)?;
            }
        }
        let (lifecycle, shared) = (lifecycle.clone(), shared.clone());
        drop(tokio::task::spawn_local(async move {
            lifecycle.reached(Phase::LameDuck).await;
            shared.change(Board::stop);
        }));
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        let line = |wrong: ParamError| wrong.to_string();
        let specs = specs(&self.params).map_err(line)?;
        if self.ground.tls.is_none()
            && specs
                .iter()
                .any(|(spec, _)| spec.uses_tls_files(false, false))
        {
            return Err(
                "a probe needs TLS, and none did at the start: this takes a restart".to_owned(),
            );
        }
        let running = self.running.borrow();
        let is_new = |spec: &Spec| {
            running
                .get(&spec.name)
                .is_none_or(|(known, _)| known != spec)
        };
        let changed: Vec<_> = specs
            .iter()
            .filter(|(spec, _)| is_new(spec))
            .cloned()
            .collect();
        let gone: Vec<String> = running
            .keys()
            .filter(|name| !specs.iter().any(|(spec, _)| spec.name == **name))
            .cloned()
            .collect();
        drop(running);
        let planned =
            plan(&changed, &self.params, &self.ground).map_err(|wrong| line(wrong.into()))?;
        if let Some(tls) = &self.ground.tls {
            tls.reload()?;
        }
        for name in gone {
            if let Some((_, task)) = self.running.borrow_mut().remove(&name) {
                task.abort();
            }
            self.shared.change(|board| board.remove(&name));
        }
        for planned in planned {
            self.begin(planned);
        }
        Ok(())
    }

    fn page(&self) -> Vec<Section> {
        let mut sections = sections(&self.shared.board(), Instant::now());
        if let Some(tls) = &self.ground.tls {
            sections[0].alert = tls.refusal();
        }
        sections
    }

    fn routes(&self) -> Vec<Route> {
        let shared = self.shared.clone();
        vec![Route {
            path: "/why",
            answer: Rc::new(move |query| why(&shared, query)),
        }]
    }

    fn actions(&self) -> Vec<Route> {
        let drain = |path, drained| {
            let shared = self.shared.clone();
            let answer = move |_: &Query<'_>| {
                let changed = shared.change(|board| board.drain(drained, Instant::now()));
                if changed {
                    info!(drained, "the application is drained by hand, or no more");
                }
                plain(
                    200,
                    if changed {
                        "taken\n"
                    } else {
                        "it was so already\n"
                    },
                )
            };
            Route {
                path,
                answer: Rc::new(answer),
            }
        };
        vec![drain("/app/drain", true), drain("/app/undrain", false)]
    }
}

/// `/why`.
fn why(shared: &Shared, query: &Query<'_>) -> Answer {
    let mut parts = query
        .query
        .split('&')
        .filter_map(|part| part.split_once('='));
    let only = parts
        .clone()
        .find(|(key, _)| *key == "probe")
        .map(|(_, name)| name);
    let board = shared.board();
    if only.is_some_and(|only| board.entries().all(|(name, _)| name != only)) {
        return plain(404, "there is no probe of this name\n");
    }
    let json = parts.any(|pair| pair == ("format", "json"))
        || query.accept.starts_with("application/json");
    let now = Instant::now();
    match json {
        false => plain(200, &why_text(&board, only, now)),
        true => Answer {
            status: 200,
            content_type: "application/json",
            body: to_vec_pretty(&why_tree(&board, only, now)).expect("a Value always serialises"),
        },
    }
}

fn plain(status: u16, text: &str) -> Answer {
    Answer {
        status,
        content_type: "text/plain; charset=utf-8",
        body: text.as_bytes().to_vec(),
    }
}

/// `--exec`.
struct Asking(Params);

impl Service for Asking {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        Ok(())
    }

    fn once(&self) -> Option<Once> {
        let Params {
            listen,
            exec_endpoint,
            timeout,
            ..
        } = &self.0;
        Some(once::ask(listen.clone(), exec_endpoint.word(), *timeout))
    }

    fn reload(&self) -> Result<(), String> {
        Ok(())
    }

    fn page(&self) -> Vec<Section> {
        Vec::new()
    }
}
