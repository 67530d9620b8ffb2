//! A thread of the data path, and the threads of a module.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::{Lifecycle, Phase};
use podkit_foundation::params::Cidr;
use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Counter, Gauge, Registry};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::by_address::{ByAddress, ListenerLimits};
use super::clock::Clock;
use super::coalesce::before_sleep;
use super::socket::Peer;

/// The bounds on connections, over all threads (`--max-connections`, `--max-connections-per-ip`).
#[derive(Debug)]
pub struct Connections {
    open: AtomicUsize,
    max: usize,
    by_address: Option<ByAddress>,
}

impl Connections {
    /// At most `max` at a time, and of one address as `limits` say. `proxies`: whose connections carry those of many clients.
    pub fn new(max: usize, limits: &ListenerLimits, proxies: &[Cidr]) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            max,
            by_address: ByAddress::new(limits, max, proxies),
        })
    }

    /// At most `max` at a time.
    pub fn at_most(max: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            max,
            by_address: None,
        })
    }

    /// Counts a connection of `peer`, who opened it, or (`announced`) is said to have. None when that is one too many.
    pub(super) fn claim_address(self: &Arc<Self>, peer: Peer, announced: bool) -> Option<ByIp> {
        let (Some(by_address), Some(ip)) = (&self.by_address, peer.ip()) else {
            return Some(ByIp(None));
        };
        if !announced && by_address.exempts(ip) {
            return Some(ByIp(None));
        }
        let held = by_address.enter(ip)?;
        Some(ByIp(Some((Arc::clone(self), held))))
    }

    pub(super) fn claim(self: &Arc<Self>) -> Option<Claim> {
        if self.open.fetch_add(1, Ordering::Relaxed) < self.max {
            return Some(Claim(Arc::clone(self)));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

/// One of the connections that may be open.
#[derive(Debug)]
pub(super) struct Claim(Arc<Connections>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of the connections that an address may have; nothing where it is not counted.
#[derive(Debug)]
pub(super) struct ByIp(Option<(Arc<Connections>, u64)>);

impl Drop for ByIp {
    fn drop(&mut self) {
        if let Some((connections, held)) = self.0.take()
            && let Some(by_address) = &connections.by_address
        {
            by_address.leave(held);
        }
    }
}

/// What a module with a data path counts about its connections; see [`Worker::METRICS`].
#[derive(Debug, Clone)]
pub(super) struct NetMetrics {
    pub(super) accepted: Counter,
    pub(super) refused: Counter,
    pub(super) refused_address: Counter,
    pub(super) failed: Counter,
    pub(super) exhausted: Counter,
    pub(super) panics: Counter,
    pub(super) open: Gauge,
}

/// The tasks of connections, each at a place that it has until it ends.
#[derive(Debug, Default)]
struct Tasks {
    places: Vec<Option<AbortHandle>>,
    free: Vec<u32>,
}

/// A thread that serves connections, as its connections see it. Not shared with other threads.
#[derive(Debug)]
pub struct Worker {
    /// Deadlines.
    pub clock: Clock,
    pub(super) lifecycle: Lifecycle,
    pub(super) connections: Arc<Connections>,
    pub(super) metrics: NetMetrics,
    /// Connections of this thread.
    open: Cell<usize>,
    /// Of a part: the thread as a whole.
    whole: Option<Rc<Worker>>,
    /// Of a part: its connections, which must not go on as long as the thread does.
    tasks: RefCell<Tasks>,
    phase: Cell<Phase>,
    last_said: Cell<Option<Instant>>,
}

impl Worker {
    /// What every data path counts.
    pub const METRICS: &[Metric] = &[
        Metric {
            name: "podkit_connections_total",
            kind: "counter",
            labels: &["result"],
            doc: "Connections: accepted; refused (--max-connections); refused_address (--max-connections-per-ip); failed in accept; exhausted (no descriptor left).",
        },
        Metric {
            name: "podkit_connections_open",
            kind: "gauge",
            labels: &[],
            doc: "Connections that are open.",
        },
        Metric {
            name: "podkit_connection_faults_total",
            kind: "counter",
            labels: &[],
            doc: "Connections that were cut by a fault of podkit's own.",
        },
    ];

    /// The state of this thread. Spawn [`Worker::watch`] on it before serving.
    pub fn new(
        lifecycle: &Lifecycle,
        metrics: &Registry,
        connections: &Arc<Connections>,
    ) -> Rc<Self> {
        let doc = |at: usize| Self::METRICS[at].doc;
        let result =
            |word| metrics.counter("podkit_connections_total", doc(0), &[("result", word)]);
        Rc::new(Self {
            clock: Clock::default(),
            lifecycle: lifecycle.clone(),
            connections: Arc::clone(connections),
            metrics: NetMetrics {
                accepted: result("accepted"),
                refused: result("refused"),
                refused_address: result("refused_address"),
                failed: result("failed"),
                exhausted: result("exhausted"),
                panics: metrics.counter("podkit_connection_faults_total", doc(2), &[]),
                open: metrics.gauge("podkit_connections_open", doc(1), &[]),
            },
            open: Cell::new(0),
            whole: None,
            tasks: RefCell::default(),
            phase: Cell::new(lifecycle.phase()),
            last_said: Cell::new(None),
        })
    }

    /// A part of this thread's service that can end before it does, as `lifecycle` says: connections that come to it drain by
    /// themselves. Spawn [`Worker::watch`] on it too.
    pub fn part(self: &Rc<Self>, lifecycle: &Lifecycle) -> Rc<Self> {
        Rc::new(Self {
            clock: self.clock.clone(),
            lifecycle: lifecycle.clone(),
            connections: Arc::clone(&self.connections),
            metrics: self.metrics.clone(),
            open: Cell::new(0),
            whole: Some(Rc::clone(self)),
            tasks: RefCell::default(),
            phase: Cell::new(lifecycle.phase()),
            last_said: Cell::new(None),
        })
    }

    pub(super) fn begin(&self) {
        self.metrics.open.add(1);
        self.count(1);
    }

    pub(super) fn end(&self) {
        self.metrics.open.add(-1);
        self.count(-1);
    }

    fn count(&self, change: isize) {
        self.open.set(self.open.get().saturating_add_signed(change));
        if let Some(whole) = &self.whole {
            whole.count(change);
        }
    }

    /// A place for the task of a connection; 0 where none is kept, since they end with the thread.
    pub(super) fn take_place(&self) -> u32 {
        if self.whole.is_none() {
            return 0;
        }
        let mut tasks = self.tasks.borrow_mut();
        tasks.free.pop().unwrap_or_else(|| {
            tasks.places.push(None);
            u32::try_from(tasks.places.len()).unwrap_or(u32::MAX)
        })
    }

    pub(super) fn put_at(&self, place: u32, task: impl FnOnce() -> AbortHandle) {
        let mut tasks = self.tasks.borrow_mut();
        if let Some(at) = (place as usize).checked_sub(1) {
            tasks.places[at] = Some(task());
        }
    }

    pub(super) fn leave_place(&self, place: u32) {
        let mut tasks = self.tasks.borrow_mut();
        if let Some(at) = (place as usize).checked_sub(1) {
            tasks.places[at] = None;
            tasks.free.push(place);
        }
    }

    /// Cuts the connections of a part whose time is over.
    fn cut(&self) {
        let tasks = self.tasks.borrow();
        tasks.places.iter().flatten().for_each(AbortHandle::abort);
    }

    /// Where the process stands, as far as this thread was told.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Answers are to say `Connection: close`: whoever balances can move over before the listener closes.
    pub fn closing(&self) -> bool {
        self.phase.get() >= Phase::LameDuck
    }

    /// Kept-alive connections without a request are to be closed.
    pub fn draining(&self) -> bool {
        self.phase.get() >= Phase::Draining
    }

    /// Runs the clock and follows the phase; returns when the process has drained and this thread's connections are
    /// done, or when it is to cut them.
    pub async fn watch(self: Rc<Self>) {
        // A part's clock is that of the thread.
        let sweep = self
            .whole
            .is_none()
            .then(|| tokio::task::spawn_local(self.clock.clone().sweep()));
        let mut phases = self.lifecycle.subscribe();
        loop {
            let now = *phases.borrow_and_update();
            if now > self.phase.get() {
                self.phase.set(now);
                self.clock.wake_all();
            }
            if now >= Phase::Stopped {
                self.cut();
                break;
            }
            if now < Phase::Draining {
                // The sender lives in self.lifecycle, so waiting can't fail.
                drop(phases.changed().await);
                continue;
            }
            tokio::select! {
                _ = phases.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            if self.open.get() == 0 && self.drained() {
                break;
            }
        }
        if let Some(sweep) = sweep {
            sweep.abort();
        }
    }

    /// Nothing accepts any more: only the sweep and the clock's own slots are left. Of a part nobody waits for that.
    fn drained(&self) -> bool {
        self.whole.is_some() || self.clock.is_unused()
    }

    pub(super) fn say_exhausted(&self, error: &io::Error) {
        if self.may_say() {
            tracing::error!(why = %error, "can't accept connections; raise the limit on open files or lower --max-connections");
        }
    }

    pub(super) fn say_refused(&self) {
        if self.may_say() {
            tracing::warn!(
                max = self.connections.max,
                "refusing connections past --max-connections"
            );
        }
    }

    pub(super) fn refuse_address(&self, peer: Peer) {
        self.metrics.refused_address.inc();
        if self.may_say() {
            tracing::warn!(%peer, "refusing connections past --max-connections-per-ip");
        }
    }

    pub(super) fn refuse_header(&self, peer: Peer, why: &str) {
        if self.may_say() {
            tracing::warn!(%peer, why, "refusing connections of --accept-proxy that don't begin as they must");
        }
    }

    /// At most one such line every ten seconds.
    fn may_say(&self) -> bool {
        let now = Instant::now();
        let quiet = self
            .last_said
            .get()
            .is_some_and(|last| now.duration_since(last) < Duration::from_secs(10));
        if !quiet {
            self.last_said.set(Some(now));
        }
        !quiet
    }
}

/// The threads of a module's data path. They end by themselves with the lifecycle.
///
/// Dropping them ends them: the lifecycle is stopped, and what they hold (a unix socket's file) is gone when that returns.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<std::thread::JoinHandle<()>>,
    lifecycle: Lifecycle,
}

impl Workers {
    /// Starts `count` threads named `name`-0, `name`-1, …. Each makes its [`Worker`] and calls `start`, which spawns
    /// its accept loops with `tokio::task::spawn_local`. Returns once all have done so, or the first error.
    pub fn start(
        name: &'static str,
        count: usize,
        lifecycle: &Lifecycle,
        metrics: &Registry,
        connections: &Arc<Connections>,
        start: impl Fn(&Rc<Worker>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        raise_descriptor_limit(connections.max);
        let start = Arc::new(start);
        let mut threads = Vec::with_capacity(count);
        let (started, all_started) = std::sync::mpsc::channel();
        for index in 0..count {
            let (lifecycle, metrics) = (lifecycle.clone(), metrics.clone());
            let (connections, start) = (Arc::clone(connections), Arc::clone(&start));
            let started = started.clone();
            let run = move || {
                let outcome = serve_thread(&lifecycle, &metrics, &connections, &*start, |result| {
                    // Nobody waits any more when another thread failed before.
                    drop(started.send(result));
                });
                if let Err(error) = outcome {
                    tracing::error!(why = %error, "a worker thread ended");
                }
            };
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(run)
                .map_err(|error| Failure::runtime("starting a worker thread", error))?;
            threads.push(thread);
        }
        drop(started);
        for _ in 0..count {
            let result = all_started
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            result.map_err(|error| Failure::runtime("starting a worker thread", error))?;
        }
        Ok(Self {
            threads,
            lifecycle: lifecycle.clone(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Waits for all threads; they end when the process has drained or was told to stop.
    pub fn join(mut self) {
        self.wait();
    }

    fn wait(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic of a worker was printed where it happened.
            drop(thread.join());
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stopped);
        self.wait();
    }
}

fn serve_thread(
    lifecycle: &Lifecycle,
    metrics: &Registry,
    connections: &Arc<Connections>,
    start: &dyn Fn(&Rc<Worker>) -> io::Result<()>,
    started: impl FnOnce(io::Result<()>),
) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(before_sleep)
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let worker = Worker::new(lifecycle, metrics, connections);
        let result = start(&worker);
        let failed = result.is_err();
        started(result);
        if !failed {
            worker.watch().await;
        }
    });
    Ok(())
}

/// Each proxied connection needs two descriptors, and the soft limit is often 1024.
fn raise_descriptor_limit(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_mul(2)
        + 256;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let set = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(raised),
            maximum: limit.maximum,
        },
    );
    if set.is_err() || raised < wanted {
        tracing::warn!(
            limit = raised,
            wanted,
            "the limit on open files is below what --max-connections may need"
        );
    }
}
