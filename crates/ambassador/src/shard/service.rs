//! The module: parameters in, listeners bound, workers that serve clients.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::proxy::{
    Forward, ForwardSettings, HttpMetrics, Proxy, ProxySettings, Route,
};
use podkit_dataplane::http::stage::Stages;
use podkit_dataplane::memcache;
use podkit_dataplane::module::{Section, Service, Setup};
use podkit_dataplane::net::{Worker, Workers};
use podkit_dataplane::resp::{self, Front, Greeting, Node, Waits};
use podkit_dataplane::upstream::{Cluster, Outward, Pool, Target, UpstreamLimits, UpstreamMetrics};
use podkit_dataplane::watch::look_after;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet, Values};
use podkit_foundation::telemetry::metrics::Kind;

use super::HOT;
use super::failure::{FailureParams, OnFailure, Table, key};
use super::hot::{Hot, HotKey, HotParams, WINDOW, shown};
use super::http::{ByKey, keyless};
use super::members::Members;
use super::memcached;
use super::params::{Params, Protocol, ShardSaid};
use super::probe::{Asker, probe_all};
use super::router::Local;
use super::shared::Shared;
use crate::clients::Clients;
use crate::known::Known;
use crate::servers::{self, Servers};

/// Checks the parameters, reads the files, binds the listeners.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::checked(values)?;
    let (is_redis, ejection) = (params.protocol == Protocol::Redis, params.ejection()?);
    let failures = FailureParams::checked(values, ejection)?;
    let mut hot = HotParams::from_values(values)?;
    if params.protocol == Protocol::Http {
        hot.hot_keys = 0;
    }
    let hot = Hot::new(&hot);
    let greeting = Greeting {
        auth: params.auth(&setup.metrics)?,
        database: params.database,
        ..Greeting::default()
    };
    // A file may name shards with TLS later.
    let may_come = is_redis && params.shards_file.is_some() && values.is_given("upstream_ca");
    let http = (params.protocol == Protocol::Http).then(|| HttpMetrics::new(&setup.metrics));
    let mut shared = Shared::new(params, failures, hot, &setup.metrics)?;
    shared.has_tls = may_come || shared.shards().all.iter().any(|one| one.server.is_tls);
    if shared.has_tls && !is_redis {
        return Err(ParamError::new("shard", "rediss:// is for --protocol redis").into());
    }
    let mut spares = shared.failures.spare.iter();
    let has_tls = spares.any(|one| one.server.is_tls);
    if has_tls && !is_redis {
        return Err(ParamError::new("spare", "rediss:// is for --protocol redis").into());
    }
    shared.has_tls |= has_tls;
    let tls = servers::tls(
        values,
        shared.has_tls,
        "a shard with rediss://",
        &setup.metrics,
    )?;
    let shared = Arc::new(shared);
    if shared.hot.is_on() {
        let shared = Arc::clone(&shared);
        setup.metrics.collect(move |encoder| {
            encoder.family(HOT.name, Kind::Gauge, HOT.doc);
            for hot in shared.hot.named() {
                encoder.sample(HOT.name, &[("key", &shown(&hot.key))], hot.rate);
            }
        });
    }
    let plan = Plan {
        clients: Clients::bind(&shared.params.listen, values, setup)?,
        servers: Servers {
            metrics: UpstreamMetrics::new(&setup.metrics),
            tls,
            secrets: servers::secrets([&greeting]),
            connect_timeout: shared.params.connect_timeout,
            response_timeout: shared.params.response_timeout,
        },
        greeting,
        known: Arc::default(),
        http,
        shared,
    };
    Ok(Rc::new(Sharding {
        plan: Arc::new(plan),
        setup: setup.clone(),
        workers: RefCell::new(None),
    }))
}

/// What each worker is made from.
#[derive(Debug)]
struct Plan {
    shared: Arc<Shared>,
    clients: Clients,
    servers: Servers,
    greeting: Greeting,
    known: Arc<Known>,
    /// With --protocol http.
    http: Option<HttpMetrics>,
}

impl Plan {
    /// On a worker's thread: its accept loops.
    fn start(self: &Arc<Self>, worker: &Rc<Worker>) -> std::io::Result<()> {
        let plan = Arc::clone(self);
        let shared = Arc::clone(&self.shared);
        let hot = self.shared.hot.sampler();
        match self.shared.params.protocol {
            Protocol::Redis => {
                let members = Members::new(shared, move |said| plan.node(said), cut);
                let members = Rc::new(members);
                self.follow(&members);
                let local = Local {
                    members,
                    hot,
                    known: Arc::clone(&self.known),
                };
                let front = Front::new(local, self.clients.limits.clone());
                self.clients.serve(worker, &front)
            }
            Protocol::Memcached => {
                let cut = |node: &Rc<memcache::Node>| node.retire(OUT_OF_USE);
                let members = Members::new(shared, move |said| plan.memcached(said), cut);
                let members = Rc::new(members);
                self.follow(&members);
                let local = memcached::Local(members, hot);
                let front = memcache::Front::new(local, self.clients.limits.clone());
                self.clients.serve(worker, &front)
            }
            Protocol::Http => self.clients.serve(worker, &self.proxy()),
        }
    }

    /// What waits for a shard that is out learns of it, though no command comes.
    fn follow<T: Clone + 'static>(&self, members: &Rc<Members<T>>) {
        let (mut news, members) = (self.shared.news(), Rc::downgrade(members));
        drop(tokio::task::spawn_local(async move {
            while news.changed().await.is_ok()
                && let Some(members) = members.upgrade()
            {
                members.follow();
            }
        }));
    }

    fn pool(&self, said: &ShardSaid) -> Rc<Pool> {
        self.servers.pool(said.server.target())
    }

    fn node(&self, said: &ShardSaid) -> Rc<Node> {
        let (name, pool) = (named(said), self.pool(said));
        Node::new(&name, pool, self.greeting.clone(), self.waits())
    }

    /// Asks whether a shard or spare is there.
    fn asker(&self, said: &ShardSaid) -> Asker {
        let (pool, patience) = (self.pool(said), self.shared.failures.probe_timeout);
        match self.shared.params.protocol {
            Protocol::Memcached => Asker::Memcached(memcache::Asker::new(pool, patience)),
            Protocol::Redis | Protocol::Http => {
                Asker::Redis(resp::Asker::new(pool, self.greeting.clone(), patience))
            }
        }
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
            Target::of(said.server.addr.clone()),
            limits,
            self.servers.metrics.clone(),
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
            members: Members::new(
                Arc::clone(&self.shared),
                move |said| plan.route(said, Stages::none()),
                |_| {},
            ),
            key,
        };
        let settings = ProxySettings {
            limits: HttpLimits {
                max_connections: self.clients.limits.max_connections,
                ..usual()
            },
            http2: usual(),
            scheme: "http",
            port: self.clients.port(),
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

/// Why the connection to a shard that is out ends.
const OUT_OF_USE: &str = "it is out of use";

/// Nothing reaches a shard that is out.
fn cut(node: &Rc<Node>) {
    node.retire(OUT_OF_USE);
}

/// A shard, for messages.
fn named(said: &ShardSaid) -> String {
    format!("shard {} ({})", said.name, said.server)
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
        let begin = move |worker: &_| plan.start(worker);
        let workers = self.plan.clients.start("shard", &self.setup, begin)?;
        *self.workers.borrow_mut() = Some(workers);
        if self.plan.shared.failures.on_failure != OnFailure::FailFast {
            let (shared, plan) = (Arc::clone(&self.plan.shared), Arc::clone(&self.plan));
            drop(tokio::task::spawn_local(probe_all(shared, move |said| {
                plan.asker(said)
            })));
        }
        if self.plan.shared.hot.is_on() {
            let shared = Arc::clone(&self.plan.shared);
            drop(tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(WINDOW).await;
                    shared.hot.roll(Instant::now());
                }
            }));
        }
        self.plan.servers.watch();
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
        self.plan.servers.reload()?;
        self.plan.shared.reload()
    }

    fn page(&self) -> Vec<Section> {
        let shared = &self.plan.shared;
        let shards = shared.said();
        let row = |said: &ShardSaid| {
            vec![
                said.name.clone(),
                said.server.to_string(),
                said.weight.to_string(),
                state(&shared.table(), said),
                shared.commands(&said.name).get().to_string(),
            ]
        };
        let refusal = shared.refusal().clone();
        let params = &shared.params;
        let mut sections = vec![
            Section {
                title: "Shards".to_owned(),
                columns: ["Name", "Address", "Weight", "State", "Commands"]
                    .map(str::to_owned)
                    .to_vec(),
                rows: shards.all.iter().map(row).collect(),
                alert: refusal
                    .map(|line| format!("Refused, the former shards stay in force: {line}"))
                    .or_else(|| self.plan.servers.refusal()),
            },
            Section {
                title: "Live".to_owned(),
                columns: Vec::new(),
                rows: vec![
                    vec!["Protocol".to_owned(), params.protocol.word().to_owned()],
                    vec!["Placement".to_owned(), placement(params)],
                    vec![
                        "On failure".to_owned(),
                        shared.failures.on_failure.word().to_owned(),
                    ],
                    vec!["Changes".to_owned(), shared.changes().to_string()],
                    vec![
                        "Connections open".to_owned(),
                        self.plan.clients.open(&self.setup),
                    ],
                    vec![
                        "Commands refused".to_owned(),
                        shared.refused().get().to_string(),
                    ],
                ],
                alert: None,
            },
        ];
        if shared.hot.is_on() {
            let used = shared.shards();
            let row = |hot: &HotKey| {
                vec![
                    shown(&hot.key),
                    hot.whole()
                        .map_or("?", |key| &used.all[used.ring.place(key)].name)
                        .to_owned(),
                    format!("{:.0}", hot.rate),
                    format!("{:.1} %", hot.share * 100.0),
                ]
            };
            sections.push(Section {
                title: "Hot keys".to_owned(),
                columns: ["Key", "Shard", "A second", "Of all"]
                    .map(str::to_owned)
                    .to_vec(),
                rows: shared.hot.named().iter().map(row).collect(),
                alert: None,
            });
        }
        if !shared.failures.spare.is_empty() {
            let row = |said: &ShardSaid| vec![said.to_string(), state(&shared.table(), said)];
            sections.push(Section {
                title: "Spares".to_owned(),
                columns: ["Spare", "State"].map(str::to_owned).to_vec(),
                rows: shared.failures.spare.iter().map(row).collect(),
                alert: None,
            });
        }
        sections
    }
}

/// Whether a shard serves, in a line.
fn state(table: &Table, said: &ShardSaid) -> String {
    let who = key(said);
    match (table.out(&who), table.stand_in(&who)) {
        (None, _) => "there".to_owned(),
        (Some(why), None) => format!("out: {why}"),
        (Some(why), Some(spare)) => format!("out, {spare} stands in: {why}"),
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
