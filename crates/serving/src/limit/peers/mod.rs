//! Replicas that enforce one rate together. Each key has an owner among them, which the others ask.
//!
//! ```text
//!   worker ─▶ Leases: units and refusals that are known ─╮
//!      │ none: the request waits                         │ a lease
//!      ▼                                                 │
//!   Borrower: asks for one key are joined ─▶ route ─▶ owner of the key (rendezvous hashing) ─▶ its Table
//!                              main thread ╯      ╰ TCP, frames with a MAC; the peer is lost: the rule's `fail`
//! ```
//!
//! The rule is in the ask (interval, burst, cost), so an owner needs no rules of its own to answer; and the tag is made under the
//! shared secret, so all replicas mean the same key. What was rejected: gossip of counts (how much too much is allowed
//! depends on how fast clients move between replicas), and a store beside the replicas (another thing to run).

mod asker;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod lease;
mod owner;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use podkit_dataplane::module::Section;
use podkit_dataplane::net::{Acceptor, Listener, Listeners, Port};
use podkit_dataplane::upstream::{Discovery, Membership, Settings};
use podkit_dataplane::watch::read_file;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, ParamError};
use podkit_foundation::telemetry::metrics::{Counter, Registry};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::asker::Question;
use self::lease::{Leases, Taken};
pub(super) use self::owner::Owner;
use self::wire::{Answer, Ask, Secret};
use super::gcra::{Gcra, Outcome};
use super::params::Params;
use super::{ASKS, FALLBACKS};

/// Replicas at most.
const PEERS: usize = 256;
/// Bytes of a secret: fewer can be guessed.
const SECRET: std::ops::RangeInclusive<usize> = 16..=4096;
/// Keys that a worker asks for at a time.
const ASKING: usize = 1024;
/// How long until an address that was taken is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Where a peer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Here,
    Connected,
    Lost(String),
}

/// The other replicas, for all workers.
pub(super) struct Peers {
    secret: Secret,
    membership: Membership,
    discovery: Discovery,
    listen: Addr,
    timeout: Duration,
    owner: Owner,
    port: Mutex<Option<Port>>,
    questions: mpsc::Sender<Question>,
    asked: Mutex<Option<mpsc::Receiver<Question>>>,
    states: Mutex<BTreeMap<String, State>>,
    counts: [Counter; 2],
    fallbacks: Counter,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "peers by {}", self.listen)
    }
}

/// The secret of `--peers-secret-file`.
pub(super) fn read_secret(params: &Params) -> Result<Option<Vec<u8>>, Failure> {
    let Some(path) = &params.peers_secret_file else {
        return Ok(None);
    };
    let wrong = |why: &str| {
        let why = format!("{} {why}", path.display());
        Failure::from(ParamError::new("peers_secret_file", why))
    };
    let bytes = read_file(path, 1 << 16).map_err(|why| wrong(&why))?;
    let secret = bytes.trim_ascii();
    match SECRET.contains(&secret.len()) {
        true => Ok(Some(secret.to_vec())),
        false => Err(wrong(&format!(
            "has {} bytes; expected {} to {}, such as `openssl rand -hex 32` writes",
            secret.len(),
            SECRET.start(),
            SECRET.end()
        ))),
    }
}

/// The key of tags that all replicas make alike.
pub(super) fn tag_key(secret: &[u8]) -> [u8; 16] {
    let derived = Secret::new(secret).derive("limit peers: tags", &[]);
    let mut key = [0; 16];
    key.copy_from_slice(&derived.as_ref()[..16]);
    key
}

impl Peers {
    /// Those of `params`, if there are any. `listeners`: where the address is bound now; without, it is bound once it
    /// is free, since it may be that of the stage that this one replaces.
    pub(super) fn new(
        params: &Params,
        secret: &[u8],
        owner: &Owner,
        listeners: Option<&Listeners>,
        registry: &Registry,
    ) -> Result<Option<Arc<Self>>, Failure> {
        if params.peers.is_empty() {
            return Ok(None);
        }
        let membership = Membership::new(Settings::default());
        let discovery = Discovery::new(
            "peers",
            "limit",
            &params.peers,
            PEERS,
            membership.clone(),
            registry,
        )?;
        let listen = params.peers_listen.clone();
        let port =
            match listeners {
                None => None,
                Some(listeners) => {
                    let listener = listeners.bind("peers_listen", &listen, 1)?;
                    let port = listener.take();
                    Some(port.map_err(|cause| {
                        Failure::runtime(format!("listening on {listen}"), cause)
                    })?)
                }
            };
        let (questions, asked) = mpsc::channel(asker::WAITING);
        let count = |result| registry.counter(ASKS.name, ASKS.doc, &[("result", result)]);
        Ok(Some(Arc::new(Self {
            secret: Secret::new(secret),
            membership,
            discovery,
            listen,
            timeout: params.peers_timeout,
            owner: owner.clone(),
            port: Mutex::new(port),
            questions,
            asked: Mutex::new(Some(asked)),
            states: Mutex::default(),
            counts: ["answered", "failed"].map(count),
            fallbacks: registry.counter(FALLBACKS.name, FALLBACKS.doc, &[]),
        })))
    }

    /// Asks and answers, forever; once for each object.
    pub(super) async fn run(self: Arc<Self>) {
        let asked = self
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(asked) = asked else { return };
        let mut tasks = JoinSet::new();
        tasks.spawn_local(self.discovery.clone().watch());
        tasks.spawn_local(Arc::clone(&self).listen());
        tasks.spawn_local(asker::route(Arc::clone(&self), asked));
        while tasks.join_next().await.is_some() {}
    }

    async fn listen(self: Arc<Self>) {
        let mut bound = self
            .port
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut said = false;
        let acceptor = loop {
            let port = match bound.take() {
                Some(port) => Ok(port),
                None => Listener::bind("peers_listen", &self.listen, 1).and_then(|listener| {
                    let taken = listener.take();
                    taken.map_err(|cause| Failure::runtime("listening for peers", cause))
                }),
            };
            let acceptor = port.and_then(|port| {
                Acceptor::new(port).map_err(|cause| Failure::runtime("listening for peers", cause))
            });
            match acceptor {
                Ok(acceptor) => break acceptor,
                Err(why) if !said => {
                    said = true;
                    tracing::warn!("peers can't ask yet, tried again: {why}");
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        };
        self.owner
            .clone()
            .serve(acceptor, self.secret.clone())
            .await;
    }

    fn is_here(&self, addr: &Addr) -> bool {
        *addr == self.listen
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: &str, state: State) {
        let mut states = self.states();
        if states.get(name) != Some(&state) {
            match &state {
                State::Here => {}
                State::Connected => tracing::info!(peer = name, "a peer can be asked"),
                State::Lost(why) => tracing::warn!(
                    peer = name,
                    why,
                    "a peer can't be asked: rules fail as they say"
                ),
            }
            states.insert(name.to_owned(), state);
        }
    }

    /// The replicas and where they stand.
    pub(super) fn section(&self) -> Section {
        let row = |(name, state): (&String, &State)| {
            let (word, why) = match state {
                State::Here => ("this process", ""),
                State::Connected => ("connected", ""),
                State::Lost(why) => ("lost", why.as_str()),
            };
            vec![name.clone(), word.to_owned(), why.to_owned()]
        };
        let problems = self.discovery.problems();
        Section {
            title: "Peers".to_owned(),
            columns: ["Peer", "State", "Why"].map(str::to_owned).to_vec(),
            rows: self.states().iter().map(row).collect(),
            alert: (!problems.is_empty()).then(|| problems.join("; ")),
        }
    }
}

/// A worker's side: asks once for all requests that need the same key.
pub(super) struct Borrower {
    peers: Arc<Peers>,
    leases: RefCell<Leases>,
    /// Requests that wait for a key's answer; told how many there were.
    asking: RefCell<HashMap<u64, Vec<oneshot::Sender<u64>>>>,
}

impl Borrower {
    pub(super) fn new(peers: Arc<Peers>) -> Rc<Self> {
        Rc::new(Self {
            peers,
            leases: RefCell::new(Leases::new()),
            asking: RefCell::default(),
        })
    }

    /// What is known here of a request of `cost` at `now`; None: [`Borrower::ask`].
    pub(super) fn take(&self, tag: u64, gcra: &Gcra, now: u64, cost: u64) -> Option<Outcome> {
        match self.leases.borrow_mut().take(tag, gcra, now, cost) {
            Taken::Known(outcome) => Some(outcome),
            Taken::Ask(_) => None,
        }
    }

    /// What the owner of the key says; None, and counted, when it can't be asked.
    pub(super) async fn ask(self: &Rc<Self>, tag: u64, gcra: &Gcra, cost: u64) -> Option<Outcome> {
        let outcome = self.wait(tag, gcra, cost).await;
        if outcome.is_none() {
            self.peers.fallbacks.inc();
        }
        outcome
    }

    async fn wait(self: &Rc<Self>, tag: u64, gcra: &Gcra, cost: u64) -> Option<Outcome> {
        // The peer's own patience is in the connection; this is for a queue that does not move.
        let until = Instant::now() + self.peers.timeout * 2;
        let mut crowd = 1;
        loop {
            let now = self.peers.owner.nanos(Instant::now());
            let taken = self.leases.borrow_mut().take(tag, gcra, now, cost);
            let wanted = match taken {
                Taken::Known(outcome) => return Some(outcome),
                // At least what those need who waited together.
                Taken::Ask(wanted) => wanted.max(cost.saturating_mul(crowd).min(gcra.burst())),
            };
            let (told, answered) = oneshot::channel();
            let first = {
                let mut asking = self.asking.borrow_mut();
                if asking.len() >= ASKING && !asking.contains_key(&tag) {
                    return None;
                }
                let waiting = asking.entry(tag).or_default();
                waiting.push(told);
                waiting.len() == 1
            };
            if first {
                let ask = Ask {
                    tag,
                    interval: gcra.interval(),
                    burst: gcra.burst(),
                    cost,
                    wanted,
                };
                drop(tokio::task::spawn_local(Rc::clone(self).borrow(ask)));
            }
            crowd = timeout_at(until, answered).await.ok()?.ok()?;
        }
    }

    /// Asks the owner and keeps what it grants, whoever still waits for it.
    async fn borrow(self: Rc<Self>, ask: Ask) {
        let (reply, answered) = oneshot::channel();
        let sent = self.peers.questions.try_send(Question { ask, reply });
        let answer: Option<Answer> = match sent {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        let waiting = self
            .asking
            .borrow_mut()
            .remove(&ask.tag)
            .unwrap_or_default();
        self.peers.counts[usize::from(answer.is_none())].inc();
        let Some(answer) = answer else { return };
        let now = self.peers.owner.nanos(Instant::now());
        self.leases.borrow_mut().put(&ask, &answer, now);
        let crowd = waiting.len() as u64;
        for one in waiting {
            // Its client may have gone.
            one.send(crowd).ok();
        }
    }
}
