//! The module: parameters in, listeners bound, workers that serve clients; and the shards' list, which may change.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::proxy::{
    Forward, ForwardSettings, HttpMetrics, Proxy, ProxySettings, Route,
};
use podkit_dataplane::http::stage::Stages;
use podkit_dataplane::memcache;
use podkit_dataplane::module::{Section, Service, Setup};
use podkit_dataplane::net::{
    Connections, Listener, ListenerLimits, Serve, Worker, Workers, accept,
};
use podkit_dataplane::resp::{Front, Greeting, Node, RespLimits, Waits};
use podkit_dataplane::upstream::{Cluster, Outward, Pool, Target, UpstreamLimits, UpstreamMetrics};
use podkit_dataplane::watch::look_after;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamSet, Values};
use podkit_foundation::surface::common::generation;
use podkit_foundation::telemetry::metrics::{Counter, Gauge, Registry};

use super::http::{ByKey, keyless};
use super::members::Members;
use super::params::Protocol;
use super::params::{Params, ShardSaid, Shards};
use super::router::Local;
use super::{COMMANDS, REFUSED, RELOADS};

/// Checks the parameters, reads the files, binds the listeners.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::checked(values)?;
    let limits = RespLimits::from_values(values)?;
    let listener_limits = ListenerLimits::from_values(values)?;
    let greeting = Greeting {
        auth: params.auth()?,
        resp3: false,
        database: params.database,
    };
    let http = (params.protocol == Protocol::Http).then(|| HttpMetrics::new(&setup.metrics));
    let shared = Arc::new(Shared::new(params, &setup.metrics)?);
    let bind = |addr| setup.listeners.bind("listen", addr, setup.workers);
    let listeners = shared.params.listen.iter().map(bind);
    let plan = Plan {
        listeners: listeners.collect::<Result<_, _>>()?,
        limits,
        listener_limits,
        greeting,
        metrics: UpstreamMetrics::new(&setup.metrics),
        http,
        shared,
    };
    Ok(Rc::new(Sharding {
        plan: Arc::new(plan),
        setup: setup.clone(),
        workers: RefCell::new(None),
    }))
}

/// What all workers have in common.
#[derive(Debug)]
pub(super) struct Shared {
    params: Params,
    shards: RwLock<Arc<Shards>>,
    changes: AtomicU64,
    /// Why the file is not in force.
    refusal: Mutex<Option<String>>,
    registry: Registry,
    changed: Counter,
    kept: Counter,
    generation: Gauge,
}

impl Shared {
    fn new(params: Params, registry: &Registry) -> Result<Self, Failure> {
        let shards = RwLock::new(Arc::new(Shards::of(&params)?));
        let count = |result| registry.counter(RELOADS.name, RELOADS.doc, &[("result", result)]);
        Ok(Self {
            params,
            shards,
            changes: AtomicU64::new(0),
            refusal: Mutex::new(None),
            registry: registry.clone(),
            changed: count("changed"),
            kept: count("refused"),
            generation: generation(registry),
        })
    }

    pub(super) fn shards(&self) -> Arc<Shards> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&shards)
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Commands that a shard was sent.
    pub(super) fn commands(&self, shard: &str) -> Counter {
        self.registry
            .counter(COMMANDS.name, COMMANDS.doc, &[("shard", shard)])
    }

    /// Commands that can't be done over several shards.
    pub(super) fn refused(&self) -> Counter {
        self.registry.counter(REFUSED.name, REFUSED.doc, &[])
    }

    fn refusal(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the shards again.
    fn reload(&self) -> Result<(), String> {
        let fresh = match Shards::of(&self.params) {
            Ok(fresh) => fresh,
            Err(failure) => {
                let line = failure.to_string();
                let mut refusal = self.refusal();
                if refusal.as_ref() != Some(&line) {
                    self.kept.inc();
                    tracing::warn!("refused, the former shards stay in force: {line}");
                    *refusal = Some(line.clone());
                }
                return Err(line);
            }
        };
        *self.refusal() = None;
        if fresh.all == self.shards().all {
            return Ok(());
        }
        let count = fresh.all.len();
        *self.shards.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        self.changes.fetch_add(1, Ordering::Release);
        self.changed.inc();
        self.generation.add(1);
        tracing::info!(shards = count, "the shards changed: in force");
        Ok(())
    }
}

/// What each worker is made from.
#[derive(Debug)]
struct Plan {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    limits: RespLimits,
    listener_limits: ListenerLimits,
    greeting: Greeting,
    metrics: UpstreamMetrics,
    /// With --protocol http.
    http: Option<HttpMetrics>,
}

impl Plan {
    /// On a worker's thread: its accept loops.
    fn start(self: &Arc<Self>, worker: &Rc<Worker>) -> std::io::Result<()> {
        let plan = Arc::clone(self);
        let shared = Arc::clone(&self.shared);
        match self.shared.params.protocol {
            Protocol::Redis => {
                let members = Members::new(shared, move |said| plan.node(said));
                let front = Front::new(Local(members), self.limits.clone());
                self.listen(worker, &front)
            }
            Protocol::Memcached => {
                let members = Members::new(shared, move |said| plan.memcached(said));
                let front = memcache::Front::new(members, self.limits.clone());
                self.listen(worker, &front)
            }
            Protocol::Http => self.listen(worker, &self.proxy()),
        }
    }

    fn listen<S: Serve>(&self, worker: &Rc<Worker>, front: &Rc<S>) -> std::io::Result<()> {
        for listener in &self.listeners {
            let (port, worker, front) = (listener.take()?, Rc::clone(worker), Rc::clone(front));
            drop(tokio::task::spawn_local(async move {
                if let Err(error) = accept(port, worker, front).await {
                    tracing::error!(why = %error, "a listener ended");
                }
            }));
        }
        Ok(())
    }

    fn pool(&self, said: &ShardSaid) -> Rc<Pool> {
        let params = &self.shared.params;
        let limits = UpstreamLimits {
            connect_timeout: params.connect_timeout,
            response_timeout: params.response_timeout,
            tunnel_timeout: Duration::MAX,
            upstream_idle_timeout: Duration::MAX,
            upstream_idle: 0,
            upstream_h2_connections: 0,
        };
        let outward = Outward {
            tls: None,
            raw: true,
        };
        Pool::new(
            Target::of(said.addr.clone()),
            limits,
            self.metrics.clone(),
            outward,
        )
    }

    fn node(&self, said: &ShardSaid) -> Rc<Node> {
        let (name, pool) = (named(said), self.pool(said));
        Node::new(&name, pool, self.greeting.clone(), self.waits())
    }

    fn memcached(&self, said: &ShardSaid) -> Rc<memcache::Node> {
        memcache::Node::new(&named(said), self.pool(said), self.waits())
    }

    fn waits(&self) -> Waits {
        let params = &self.shared.params;
        Waits {
            patience: params.response_timeout,
            busy_poll: params.busy_poll,
        }
    }

    fn route(&self, said: &ShardSaid, stages: Stages) -> Rc<Route> {
        let params = &self.shared.params;
        let limits = UpstreamLimits {
            connect_timeout: params.connect_timeout,
            response_timeout: params.response_timeout,
            ..usual()
        };
        let cluster = Cluster::of(
            Target::of(said.addr.clone()),
            limits,
            self.metrics.clone(),
            Outward::default(),
        );
        Route::new(stages, Forward::new(ForwardSettings::default(), cluster))
    }

    fn proxy(self: &Arc<Self>) -> Rc<Proxy> {
        let params = &self.shared.params;
        let key = params.key.clone().expect("it was checked");
        let first = self.shared.shards().all[0].clone();
        let plan = Arc::clone(self);
        let router = ByKey {
            keyless: self.route(&first, keyless(&key)),
            members: Members::new(Arc::clone(&self.shared), move |said| {
                plan.route(said, Stages::none())
            }),
            key,
        };
        let settings = ProxySettings {
            limits: HttpLimits {
                max_connections: self.limits.max_connections,
                ..usual()
            },
            http2: usual(),
            scheme: "http",
            port: self.listeners.iter().find_map(Listener::port),
        };
        let metrics = self.http.clone().expect("the protocol is HTTP");
        Proxy::new(settings, Rc::new(router), metrics)
    }
}

/// With its defaults: what HTTP has besides is not for this module to say.
fn usual<P: ParamSet>() -> P {
    let values = Values::gather(P::PARAMS.iter(), &|_| Vec::new(), &|_| None);
    P::from_values(&values).expect("its defaults are right")
}

/// A shard, for messages.
fn named(said: &ShardSaid) -> String {
    format!("shard {} ({})", said.name, said.addr)
}

/// The running module.
struct Sharding {
    plan: Arc<Plan>,
    setup: Setup,
    workers: RefCell<Option<Workers>>,
}

impl Service for Sharding {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let plan = Arc::clone(&self.plan);
        let most = plan.limits.max_connections as usize;
        let connections = Connections::new(most, &plan.listener_limits, &[]);
        let workers = Workers::start(
            "shard",
            self.setup.workers,
            &self.setup.lifecycle,
            &self.setup.metrics,
            &connections,
            move |worker| plan.start(worker),
        )?;
        *self.workers.borrow_mut() = Some(workers);
        if let Some(path) = &self.plan.shared.params.shards_file {
            let (files, shared): (Vec<PathBuf>, _) =
                (vec![path.clone()], Arc::clone(&self.plan.shared));
            drop(tokio::task::spawn_local(async move {
                // What is wrong is said by reload itself.
                look_after(&files, || drop(shared.reload())).await;
            }));
        }
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        self.plan.shared.reload()
    }

    fn page(&self) -> Vec<Section> {
        let shared = &self.plan.shared;
        let shards = shared.shards();
        let row = |said: &ShardSaid| {
            vec![
                said.name.clone(),
                said.addr.to_string(),
                said.weight.to_string(),
                shared.commands(&said.name).get().to_string(),
            ]
        };
        let refusal = shared.refusal().clone();
        let params = &shared.params;
        let open = self.setup.lifecycle.in_flight();
        vec![
            Section {
                title: "Shards".to_owned(),
                columns: ["Name", "Address", "Weight", "Commands"]
                    .map(str::to_owned)
                    .to_vec(),
                rows: shards.all.iter().map(row).collect(),
                alert: refusal
                    .map(|line| format!("Refused, the former shards stay in force: {line}")),
            },
            Section {
                title: "Live".to_owned(),
                columns: Vec::new(),
                rows: vec![
                    vec!["Protocol".to_owned(), params.protocol.word().to_owned()],
                    vec!["Placement".to_owned(), placement(params)],
                    vec![
                        "Connections open".to_owned(),
                        format!("{open} of at most {}", self.plan.limits.max_connections),
                    ],
                    vec![
                        "Commands refused".to_owned(),
                        shared.refused().get().to_string(),
                    ],
                ],
                alert: None,
            },
        ]
    }
}

/// Where keys go, in a line.
fn placement(params: &Params) -> String {
    match &params.twemproxy {
        Some(path) => format!("as {} says", path.display()),
        None => {
            let function = params
                .hash_function
                .map_or("its own", |function| function.word());
            format!("{}, hash function {function}", params.hash.word())
        }
    }
}
