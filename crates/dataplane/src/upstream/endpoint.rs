//! One address that requests may go to, as all workers see it.
//!
//! What every request reads or writes of it is a relaxed atomic: a worker that sees a state a microsecond late picks as it would
//! have picked then. What is told to people (why it is not ready) is behind a lock that only changes of state take.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use podkit_foundation::telemetry::metrics::Counter;

use super::pick::Candidate;
use super::target::Target;

/// Weights are multiplied by it, so that a tenth of a weight of 1 is a number.
const SCALE: f64 = 1000.0;

/// What the checks say of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing checks it: taken for ready.
    Unchecked,
    /// Not checked yet.
    Unknown,
    /// Ready.
    Ready,
    /// Not ready.
    Unready,
}

impl Readiness {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Unchecked,
            1 => Self::Unknown,
            2 => Self::Ready,
            _ => Self::Unready,
        }
    }

    /// It may get requests.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Unchecked | Self::Ready)
    }
}

/// Where an endpoint stands, in one word; the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Takes nothing new since someone asked for that.
    Draining,
    /// Its weight is 0.
    Weightless,
    /// Not checked yet.
    Unknown,
    /// The checks say no.
    Unready,
    /// Left out for a while, since it failed requests.
    Ejected,
    /// Gets less than its share for a while.
    Warming,
    /// Takes requests.
    Ready,
}

impl State {
    /// The word for pages and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Weightless => "weightless",
            Self::Unknown => "unknown",
            Self::Unready => "unready",
            Self::Ejected => "ejected",
            Self::Warming => "warming",
            Self::Ready => "ready",
        }
    }
}

/// What is written on every request, on a cache line of its own.
#[repr(align(64))]
#[derive(Debug, Default)]
struct Hot {
    in_flight: AtomicU32,
    /// Failures since the last success.
    failures: AtomicU32,
}

/// What is counted of an endpoint.
#[derive(Debug, Default)]
pub struct EndpointCounts {
    /// Requests answered.
    pub answered: Counter,
    /// Requests that failed there: not reached, no answer in time, or a wrong one, or 502 to 504.
    pub failed: Counter,
    /// Times it was ejected.
    pub ejected: Counter,
    /// Checks that it passed.
    pub passed: Counter,
    /// Checks that it did not pass.
    pub missed: Counter,
}

/// An address, its share, and its state. Shared by all workers.
#[derive(Debug)]
pub struct Endpoint {
    id: u32,
    name: String,
    target: Target,
    weight: AtomicU32,
    priority: AtomicU32,
    hot: Hot,
    readiness: AtomicU8,
    drained: AtomicBool,
    /// Milliseconds of the membership's clock; 0: not ejected.
    ejected_until: AtomicU64,
    /// Ejections in a row; how long the next one takes.
    ejections: AtomicU32,
    /// When it became usable, for slow start; 0: it always was.
    usable_since: AtomicU64,
    /// Why its state is what it is.
    reason: Mutex<String>,
    /// What is counted.
    pub counts: EndpointCounts,
}

impl Endpoint {
    pub(super) fn new(id: u32, target: Target, weight: u16, priority: u16, checked: bool) -> Self {
        let first = if checked {
            Readiness::Unknown
        } else {
            Readiness::Unchecked
        };
        Self {
            id,
            name: target.addr().to_string(),
            target,
            weight: AtomicU32::new(weight.into()),
            priority: AtomicU32::new(priority.into()),
            hot: Hot::default(),
            readiness: AtomicU8::new(first as u8),
            drained: AtomicBool::new(false),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            usable_since: AtomicU64::new(0),
            reason: Mutex::default(),
            counts: EndpointCounts::default(),
        }
    }

    /// Unlike any other of the process.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its address as it is written; what it is hashed by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is dialled.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its share among those of its priority.
    pub fn weight(&self) -> u16 {
        u16::try_from(self.weight.load(Ordering::Relaxed)).unwrap_or(u16::MAX)
    }

    /// Lower is used first.
    pub fn priority(&self) -> u16 {
        u16::try_from(self.priority.load(Ordering::Relaxed)).unwrap_or(u16::MAX)
    }

    pub(super) fn set_share(&self, weight: u16, priority: u16) {
        self.weight.store(weight.into(), Ordering::Relaxed);
        self.priority.store(priority.into(), Ordering::Relaxed);
    }

    /// Requests in flight, of all workers.
    pub fn in_flight(&self) -> u32 {
        self.hot.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        self.hot.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.hot.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a failure; returns how many there were in a row.
    pub(super) fn fail(&self) -> u32 {
        self.counts.failed.inc();
        self.hot.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a success.
    pub(super) fn succeed(&self) {
        self.counts.answered.inc();
        // A load first: writing what is there already would take the line from the other workers.
        if self.hot.failures.load(Ordering::Relaxed) != 0 {
            self.hot.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.hot.failures.load(Ordering::Relaxed)
    }

    /// What the checks say.
    pub fn readiness(&self) -> Readiness {
        Readiness::of(self.readiness.load(Ordering::Relaxed))
    }

    /// Whether someone asked that it takes nothing new.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Milliseconds of the membership's clock until which it is left out.
    pub(super) fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Ordering::Relaxed)
    }

    /// Takes requests at `now` as far as its health goes.
    pub(super) fn is_usable(&self, now: u64) -> bool {
        self.readiness().is_usable() && self.ejected_until() <= now
    }

    /// Since when it is usable, for slow start; 0 for always.
    pub(super) fn usable_since(&self) -> u64 {
        self.usable_since.load(Ordering::Relaxed)
    }

    /// The part of its weight that it gets at `now`: a tenth at first, all of it after `slow_start`.
    pub(super) fn warmth(&self, now: u64, slow_start: Duration) -> f64 {
        let (since, whole) = (self.usable_since(), slow_start.as_millis() as u64);
        if since == 0 || whole == 0 || now >= since.saturating_add(whole) {
            return 1.0;
        }
        (now.saturating_sub(since) as f64 / whole as f64).max(0.1)
    }

    /// What picking knows of it at `now`.
    pub(super) fn candidate(&self, now: u64, slow_start: Duration) -> Candidate {
        let weight = f64::from(self.weight()) * self.warmth(now, slow_start) * SCALE;
        Candidate {
            weight: weight as u32,
            priority: self.priority(),
            usable: self.is_usable(now),
            drained: self.is_drained(),
        }
    }

    /// Where it stands at `now`.
    pub(super) fn state(&self, now: u64, slow_start: Duration) -> State {
        match self.readiness() {
            _ if self.is_drained() => State::Draining,
            _ if self.weight() == 0 => State::Weightless,
            Readiness::Unknown => State::Unknown,
            Readiness::Unready => State::Unready,
            _ if self.ejected_until() > now => State::Ejected,
            _ if self.warmth(now, slow_start) < 1.0 => State::Warming,
            _ => State::Ready,
        }
    }

    /// Why its state is what it is; empty when there is nothing to say.
    pub fn reason(&self) -> String {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone()
    }

    pub(super) fn say(&self, why: &str) {
        let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone_into(&mut reason);
    }

    pub(super) fn set_readiness(&self, readiness: Readiness) {
        self.readiness.store(readiness as u8, Ordering::Relaxed);
    }

    pub(super) fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    pub(super) fn set_usable_since(&self, now: u64) {
        self.usable_since.store(now.max(1), Ordering::Relaxed);
    }

    /// Left out until `until`; returns how many times in a row that was.
    pub(super) fn eject(&self, until: u64) -> u32 {
        self.counts.ejected.inc();
        self.hot.failures.store(0, Ordering::Relaxed);
        self.ejected_until.store(until, Ordering::Relaxed);
        self.set_usable_since(until);
        self.ejections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many times in a row it was ejected.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Relaxed)
    }

    pub(super) fn forgive(&self) {
        self.ejections.store(0, Ordering::Relaxed);
    }

    /// Usable again at once.
    pub(super) fn pardon(&self) {
        self.ejected_until.store(0, Ordering::Relaxed);
    }
}
