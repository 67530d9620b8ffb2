//! The module: parameters in, listeners bound, workers that serve clients; and the engine that finds out who is what.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use podkit_dataplane::module::{Section, Service, Setup};
use podkit_dataplane::net::{Worker, Workers};
use podkit_dataplane::resp::{Front, Greeting, Node, Waits};
use podkit_dataplane::tls::UpstreamTlsParams;
use podkit_dataplane::upstream::{Discovery, Membership, Pool, Settings, UpstreamMetrics};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, ParamSet as _, Values};
use podkit_foundation::telemetry::metrics::Kind;

use super::cluster::{Cluster, Finder, Nodes, Over, Shard};
use super::engine::{Engine, MOST};
use super::page;
use super::params::Params;
use super::router::Local;
use super::split::Split;
use super::topology::{Member, Shared};
use super::ways::Ways;
use crate::clients::Clients;
use crate::known::Known;
use crate::servers::{self, Servers};
use crate::shard::place::slots::SLOTS;

/// Checks the parameters, reads the files, binds the listeners.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Arc::new(Params::checked(values)?);
    let greeting = Greeting {
        auth: params.auth(&setup.metrics)?,
        database: params.database,
        ..Greeting::default()
    };
    let sentinel = Greeting {
        auth: params.sentinel_auth(&setup.metrics)?,
        ..Greeting::default()
    };
    let has_ca = UpstreamTlsParams::from_values(values)?
        .upstream_ca
        .is_some();
    let servers = Servers {
        metrics: UpstreamMetrics::new(&setup.metrics),
        tls: servers::tls(
            values,
            params.speaks_tls(has_ca),
            "a server with rediss://",
            &setup.metrics,
        )?,
        secrets: servers::secrets([&greeting, &sentinel]),
        connect_timeout: params.connect_timeout,
        response_timeout: params.response_timeout,
    };
    let names = match params.upstream.is_empty() {
        true => None,
        false => {
            let membership = Membership::speaking(Settings::default(), servers.outward());
            let upstream = &params.upstream;
            let registry = &setup.metrics;
            let discovery = Discovery::new(
                "upstream",
                "redis",
                upstream,
                MOST,
                membership.clone(),
                registry,
            )?;
            Some((discovery, membership))
        }
    };
    let plan = Plan {
        clients: Clients::bind(&params.listen, values, setup)?,
        servers,
        ways: Ways::new(
            &params,
            names.as_ref().map(|(_, membership)| membership.clone()),
        ),
        greeting,
        known: Arc::default(),
        source: Source::new(&params, setup),
        params,
    };
    Ok(Rc::new(Splitting {
        plan: Arc::new(plan),
        sentinel,
        names,
        setup: setup.clone(),
        workers: RefCell::new(None),
    }))
}

/// What is known of the servers.
#[derive(Debug)]
enum Source {
    /// A primary and its replicas.
    Servers(Arc<Shared>),
    /// A cluster.
    Cluster(Arc<Cluster>),
}

impl Source {
    fn new(params: &Arc<Params>, setup: &Setup) -> Self {
        if params.cluster.is_empty() {
            let shared = Shared::new(Arc::clone(params), SLOTS, &setup.metrics);
            return Self::Servers(Arc::new(shared));
        }
        let cluster = Arc::new(Cluster::new(Arc::clone(params), &setup.metrics));
        let shown = Arc::clone(&cluster);
        setup.metrics.collect(move |encoder| {
            let metric = super::SLOTS;
            encoder.family(metric.name, Kind::Gauge, metric.doc);
            for (name, count) in page::slots(&shown) {
                encoder.sample(metric.name, &[("server", &name)], count as f64);
            }
        });
        Self::Cluster(cluster)
    }
}

/// What each worker is made from.
#[derive(Debug)]
struct Plan {
    source: Source,
    params: Arc<Params>,
    known: Arc<Known>,
    clients: Clients,
    servers: Servers,
    ways: Ways,
    greeting: Greeting,
}

impl Plan {
    /// On a worker's thread: its accept loops.
    fn start(self: &Arc<Self>, worker: &Rc<Worker>) -> std::io::Result<()> {
        match &self.source {
            Source::Servers(shared) => {
                let local = self.local(Arc::clone(shared), Weak::new());
                let front = Front::new(Split(local), self.clients.limits.clone());
                self.clients.serve(worker, &front)
            }
            Source::Cluster(cluster) => {
                let plan = Arc::clone(self);
                let make = move |shard: &Shard, nodes| plan.local(Arc::clone(&shard.shared), nodes);
                let nodes = Nodes::new(Arc::clone(cluster), self.nobody(), make);
                let front = Front::new(Over(nodes), self.clients.limits.clone());
                self.clients.serve(worker, &front)
            }
        }
    }

    /// Named in errors while there is no primary; nothing answers there.
    fn nobody(&self) -> Rc<Node> {
        let waits = Waits {
            patience: self.params.response_timeout,
            busy_poll: Duration::ZERO,
        };
        let nowhere = self.pool(&Addr::Port(0));
        Node::new("the primary", nowhere, self.greeting.clone(), waits)
    }

    /// A worker's part of a primary and its replicas.
    fn local(self: &Arc<Self>, shared: Arc<Shared>, cluster: Weak<Nodes>) -> Rc<Local> {
        let plan = Arc::clone(self);
        Local::new(
            shared,
            Arc::clone(&self.known),
            cluster,
            self.greeting.clone(),
            move |member: &Member| plan.pool(&member.addr),
            self.nobody(),
        )
    }

    fn pool(&self, addr: &Addr) -> Rc<Pool> {
        self.servers.pool(self.ways.target(addr))
    }
}

/// The running module.
struct Splitting {
    plan: Arc<Plan>,
    sentinel: Greeting,
    names: Option<(Discovery, Membership)>,
    setup: Setup,
    workers: RefCell<Option<Workers>>,
}

impl Splitting {
    /// Starts to ask the servers.
    fn engine(&self) {
        let plan = Arc::clone(&self.plan);
        // What polls ask is the server's own: no database is needed.
        let greeting = Greeting {
            database: 0,
            ..plan.greeting.clone()
        };
        let params = &self.plan.params;
        let connect = move |addr: &Addr| plan.pool(addr);
        let shared = match &self.plan.source {
            Source::Servers(shared) => Arc::clone(shared),
            Source::Cluster(cluster) => {
                let finder = Finder::new(Arc::clone(cluster), connect, greeting);
                drop(tokio::task::spawn_local(finder.live()));
                return;
            }
        };
        let engine = Engine::new(shared, Box::new(connect), greeting);
        if let Some((discovery, membership)) = &self.names {
            drop(tokio::task::spawn_local(discovery.clone().watch()));
            let names = Rc::clone(&engine).follow_names(membership.clone());
            drop(tokio::task::spawn_local(names));
        }
        for (at, one) in params.sentinel.iter().enumerate() {
            let asks = Rc::clone(&engine).ask_sentinel(at, one.addr.clone(), self.sentinel.clone());
            drop(tokio::task::spawn_local(asks));
            let hears = Rc::clone(&engine).hear_sentinel(one.addr.clone(), self.sentinel.clone());
            drop(tokio::task::spawn_local(hears));
        }
        if let Some(primary) = &params.primary {
            let all = std::iter::once(primary).chain(&params.replica);
            engine.follow(all.map(|one| one.addr.clone()).collect());
        }
    }
}

impl Splitting {
    /// What is wrong with names and certificates now, one line each.
    fn problems(&self) -> Vec<String> {
        let names = self.names.iter();
        let names = names.flat_map(|(discovery, _)| discovery.problems());
        self.plan
            .servers
            .refusal()
            .into_iter()
            .chain(names)
            .collect()
    }
}

impl Service for Splitting {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let plan = Arc::clone(&self.plan);
        let begin = move |worker: &_| plan.start(worker);
        let workers = self.plan.clients.start("redis", &self.setup, begin)?;
        *self.workers.borrow_mut() = Some(workers);
        self.plan.servers.watch();
        self.engine();
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        self.plan.servers.reload()?;
        match &self.names {
            Some((discovery, _)) => discovery.reload(),
            None => Ok(()),
        }
    }

    fn page(&self) -> Vec<Section> {
        let plan = &self.plan;
        let open = plan.clients.open(&self.setup);
        match &plan.source {
            Source::Servers(shared) => page::servers(shared, open, self.problems()),
            Source::Cluster(cluster) => page::cluster(cluster, open, self.problems()),
        }
    }
}
