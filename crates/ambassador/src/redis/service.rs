//! The module: parameters in, listeners bound, workers that serve clients; and the engine that finds out who is what.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use podkit_dataplane::module::{Section, Service, Setup};
use podkit_dataplane::net::{Worker, Workers};
use podkit_dataplane::resp::{Front, Greeting, Node, Waits};
use podkit_dataplane::tls::UpstreamTlsParams;
use podkit_dataplane::upstream::{Discovery, Membership, Pool, Settings, UpstreamMetrics};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, ParamSet as _, Values};

use super::engine::{Engine, MOST};
use super::params::Params;
use super::router::Local;
use super::split::Split;
use super::topology::{Member, Shared, View};
use super::ways::Ways;
use crate::clients::Clients;
use crate::known::Known;
use crate::servers::{self, Servers};

/// Checks the parameters, reads the files, binds the listeners.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::checked(values)?;
    let greeting = Greeting {
        auth: params.auth()?,
        resp3: false,
        database: params.database,
    };
    let sentinel = Greeting {
        auth: params.sentinel_auth()?,
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
        shared: Arc::new(Shared::new(params, &setup.metrics)),
    };
    Ok(Rc::new(Splitting {
        plan: Arc::new(plan),
        sentinel,
        names,
        setup: setup.clone(),
        workers: RefCell::new(None),
    }))
}

/// What each worker is made from.
#[derive(Debug)]
struct Plan {
    shared: Arc<Shared>,
    known: Arc<Known>,
    clients: Clients,
    servers: Servers,
    ways: Ways,
    greeting: Greeting,
}

impl Plan {
    /// On a worker's thread: its accept loops.
    fn start(self: &Arc<Self>, worker: &Rc<Worker>) -> std::io::Result<()> {
        let plan = Arc::clone(self);
        // Named in errors while there is no primary; nothing answers there.
        let nowhere = self.pool(&Addr::Port(0));
        let params = &self.shared.params;
        let nobody = Node::new(
            "the primary",
            nowhere,
            self.greeting.clone(),
            Waits {
                patience: params.response_timeout,
                busy_poll: Duration::ZERO,
            },
        );
        let local = Local::new(
            Arc::clone(&self.shared),
            Arc::clone(&self.known),
            self.greeting.clone(),
            move |member: &Member| plan.pool(&member.addr),
            nobody,
        );
        let front = Front::new(Split(local), self.clients.limits.clone());
        self.clients.serve(worker, &front)
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
        let (plan, shared) = (Arc::clone(&self.plan), Arc::clone(&self.plan.shared));
        // What polls ask is the server's own: no database is needed.
        let greeting = Greeting {
            database: 0,
            ..plan.greeting.clone()
        };
        let params = &self.plan.shared.params;
        let engine = Engine::new(shared, Box::new(move |addr| plan.pool(addr)), greeting);
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
    /// What is wrong now, one line each.
    fn problems(&self, view: &View) -> Vec<String> {
        let nobody = "No server is known to be the primary: writes wait, at most for --hold";
        let nobody = view.primary.is_none().then(|| nobody.to_owned());
        let names = self.names.iter();
        let names = names.flat_map(|(discovery, _)| discovery.problems());
        let tls = self.plan.servers.refusal();
        nobody.into_iter().chain(tls).chain(names).collect()
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
        let shared = &self.plan.shared;
        let view = shared.view();
        let row = |member: &Arc<Member>| {
            let state = member.state().clone();
            let is_primary = view
                .primary
                .as_ref()
                .is_some_and(|one| Arc::ptr_eq(one, member));
            let (role, offset) = match &state.said {
                None => ("not asked yet".to_owned(), String::new()),
                Some(Err(why)) => (format!("away: {why}"), String::new()),
                Some(Ok(said)) => {
                    let role = match (is_primary, said.primary, said.linked) {
                        (true, ..) => "primary".to_owned(),
                        (false, true, _) => "says primary, and is not taken for it".to_owned(),
                        (false, false, true) => format!("replica of {}", said.follows),
                        (false, false, false) => format!("replica of {}, cut off", said.follows),
                    };
                    (role, said.offset.to_string())
                }
            };
            let lag = state.lag.filter(|_| !is_primary);
            vec![
                member.name.clone(),
                role,
                offset,
                lag.map_or(String::new(), |lag| format!("{lag} bytes")),
                match member.trip_us() {
                    u32::MAX => String::new(),
                    trip => format!("{trip} µs"),
                },
                member.as_primary.get().to_string(),
                member.as_replica.get().to_string(),
            ]
        };
        let columns = [
            "Server",
            "Role",
            "Offset",
            "Lag",
            "Round trip",
            "As primary",
            "As replica",
        ];
        let line = |name: &str, value: String| vec![name.to_owned(), value];
        let params = &shared.params;
        let lag = params
            .max_lag
            .map_or("any".to_owned(), |lag| lag.to_string());
        vec![
            Section {
                title: "Servers".to_owned(),
                columns: columns.map(str::to_owned).to_vec(),
                rows: view.members.iter().map(row).collect(),
                alert: match self.problems(&view) {
                    problems if problems.is_empty() => None,
                    problems => Some(problems.join("; ")),
                },
            },
            Section {
                title: "Live".to_owned(),
                columns: Vec::new(),
                rows: vec![
                    line(
                        "Reads",
                        format!("{}; lag at most: {lag}", params.read.word()),
                    ),
                    line("Failovers", shared.failovers.get().to_string()),
                    line(
                        "Reads that only the primary could answer yet",
                        shared.fenced.get().to_string(),
                    ),
                    line("Reads without a primary", shared.stale.get().to_string()),
                    line(
                        "Writes sent and not answered",
                        shared.uncertain.get().to_string(),
                    ),
                    line(
                        "Commands kept: replayed, expired, refused",
                        format!(
                            "{}, {}, {}",
                            shared.replayed.get(),
                            shared.expired.get(),
                            shared.turned_away.get()
                        ),
                    ),
                    line("Connections open", self.plan.clients.open(&self.setup)),
                ],
                alert: None,
            },
        ]
    }
}
