//! The servers, as all threads see them: who is the primary in which term, and how far each replica is.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use podkit_foundation::params::Addr;
use podkit_foundation::telemetry::metrics::{Counter, Gauge, Registry};
use tokio::sync::{Notify, watch};

use super::fence::Fences;
use super::params::Params;
use super::roles::Said;
use super::{COMMANDS, FAILOVERS, FENCED, HELD, LAG, OFFSET, STALE, UNCERTAIN};

/// A server.
#[derive(Debug)]
pub(super) struct Member {
    /// Where it is.
    pub(super) addr: Addr,
    /// The same as text.
    pub(super) name: String,
    /// How far it is, as a fence's place; 0: it is no replica of the term's history.
    acked: AtomicU64,
    /// It is near enough to be read from.
    near: AtomicBool,
    /// It answers.
    alive: AtomicBool,
    /// How long it takes to, in µs.
    trip: AtomicU32,
    state: Mutex<State>,
    /// Commands that it was sent as the primary, and as a replica.
    pub(super) as_primary: Counter,
    pub(super) as_replica: Counter,
    lag: Gauge,
    offset: Gauge,
}

/// What the page shows.
#[derive(Debug, Default, Clone)]
pub(super) struct State {
    /// What it said last, or why it says nothing.
    pub(super) said: Option<Result<Said, String>>,
    /// How far it is behind.
    pub(super) lag: Option<u64>,
    /// When it was asked for what it said.
    pub(super) asked: Option<Instant>,
}

impl Member {
    pub(super) fn new(addr: Addr, registry: &Registry) -> Arc<Self> {
        let name = addr.to_string();
        let count = |part: &str| {
            let labels = [("server", name.as_str()), ("as", part)];
            registry.counter(COMMANDS.name, COMMANDS.doc, &labels)
        };
        let labels = [("server", name.as_str())];
        Arc::new(Self {
            as_primary: count("primary"),
            as_replica: count("replica"),
            lag: registry.gauge(LAG.name, LAG.doc, &labels),
            offset: registry.gauge(OFFSET.name, OFFSET.doc, &labels),
            addr,
            name,
            acked: AtomicU64::new(0),
            near: AtomicBool::new(false),
            alive: AtomicBool::new(false),
            trip: AtomicU32::new(u32::MAX),
            state: Mutex::default(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it said, if it answers.
    pub(super) fn said(&self) -> Option<Said> {
        self.state().said.clone()?.ok()
    }

    /// It answered, or did not.
    pub(super) fn heard(&self, said: Result<Said, String>, asked: Instant) {
        self.alive.store(said.is_ok(), Ordering::SeqCst);
        match &said {
            Ok(said) => {
                let trip = u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX);
                // An eighth of each new one: a single slow answer does not change who is nearest.
                let before = self.trip.load(Ordering::Relaxed);
                let trip = match before {
                    u32::MAX => trip,
                    before => before - before / 8 + trip / 8,
                };
                self.trip.store(trip, Ordering::Relaxed);
                self.offset
                    .set(i64::try_from(said.offset).unwrap_or(i64::MAX));
            }
            Err(_) => self.unfit(),
        }
        let mut state = self.state();
        state.said = Some(said);
        state.asked = Some(asked);
    }

    /// How far it is, and that it may be read from.
    pub(super) fn reached(&self, place: u64, near: bool, lag: Option<u64>) {
        self.state().lag = lag;
        self.lag
            .set(lag.map_or(-1, |lag| i64::try_from(lag).unwrap_or(i64::MAX)));
        self.acked.store(place, Ordering::SeqCst);
        self.near.store(near, Ordering::SeqCst);
    }

    /// Not to be read from before it has said again how far it is.
    pub(super) fn unfit(&self) {
        self.near.store(false, Ordering::SeqCst);
        self.acked.store(0, Ordering::SeqCst);
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }

    pub(super) fn is_near(&self) -> bool {
        self.near.load(Ordering::SeqCst)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    pub(super) fn trip_us(&self) -> u32 {
        self.trip.load(Ordering::Relaxed)
    }
}

/// Who is what.
#[derive(Debug, Default, Clone)]
pub(super) struct View {
    /// Counts primaries, and the histories of one.
    pub(super) term: u64,
    /// The replication id of the term.
    pub(super) id: String,
    /// None: nobody has said that it is. No write is sent then.
    pub(super) primary: Option<Arc<Member>>,
    /// All servers, the primary too.
    pub(super) members: Vec<Arc<Member>>,
}

/// What all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) params: Arc<Params>,
    pub(super) fences: Fences,
    pub(super) view: watch::Sender<Arc<View>>,
    /// Told when servers are to be asked at once.
    pub(super) poke: Notify,
    /// The term in which a server that was the primary said that it is not.
    refused: AtomicU64,
    refused_at: Mutex<Option<Instant>>,
    pub(super) registry: Registry,
    pub(super) stale: Counter,
    pub(super) fenced: Counter,
    pub(super) uncertain: Counter,
    pub(super) failovers: Counter,
    pub(super) replayed: Counter,
    pub(super) expired: Counter,
    pub(super) turned_away: Counter,
}

impl Shared {
    /// With so many fences for the slots.
    pub(super) fn new(params: Arc<Params>, slots: usize, registry: &Registry) -> Self {
        let count = |metric: podkit_foundation::surface::Metric| {
            registry.counter(metric.name, metric.doc, &[])
        };
        let held = |result| registry.counter(HELD.name, HELD.doc, &[("result", result)]);
        Self {
            params,
            fences: Fences::new(slots),
            view: watch::Sender::new(Arc::default()),
            poke: Notify::new(),
            refused: AtomicU64::new(u64::MAX),
            refused_at: Mutex::new(None),
            registry: registry.clone(),
            stale: count(STALE),
            fenced: count(FENCED),
            uncertain: count(UNCERTAIN),
            failovers: count(FAILOVERS),
            replayed: held("replayed"),
            expired: held("expired"),
            turned_away: held("refused"),
        }
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// The primary of `term` has said that it is none: nothing is sent to it before it was asked.
    pub(super) fn refuse(&self, term: u64) {
        *self.refusal() = Some(Instant::now());
        if self.refused.swap(term, Ordering::SeqCst) != term {
            tracing::warn!("the primary says that it is none: writes wait");
        }
        self.poke.notify_waiters();
    }

    fn refusal(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The primary of `term` said that it is none, and then, asked at `asked`, that it is.
    pub(super) fn is_back(&self, term: u64, asked: Option<Instant>) -> bool {
        self.is_refused(term) && asked > *self.refusal()
    }

    pub(super) fn is_refused(&self, term: u64) -> bool {
        self.refused.load(Ordering::SeqCst) == term
    }
}
