//! The endpoints of a cluster and their states: one for the process, looked at by all workers.
//!
//! ```text
//!   discovery ─ set() ─►╮                                      ╭─► worker 1: Cluster (its pools, its Balance)
//!   checks ─ ready() ──►├─ Membership: list, tables ─ epoch ──►┤
//!   workers ─ eject() ─►╯  (a lock that only changes take)     ╰─► worker 2: Cluster
//! ```
//!
//! A worker compares the epoch at each pick, an atomic load; only when it has changed does it take the lock, for as long as it
//! takes to copy a pointer.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::{Endpoint, Readiness, State};
use super::outward::Outward;
use super::pick::{Balance, Candidate, Policy, Rules, Table, fnv};
use super::target::Target;

/// When and for how long an endpoint that fails requests is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ejection {
    /// Failures in a row after which it is; 0: never.
    pub after: u32,
    /// How long the first time; longer by as much each time it follows on another.
    pub time: Duration,
    /// The part of the endpoints that may be left out at a time (0.0 to 1.0). One always may, unless it is the last.
    pub max_share: f64,
}

impl Ejection {
    /// Nothing is ejected.
    pub const NEVER: Self = Self {
        after: 0,
        time: Duration::ZERO,
        max_share: 0.0,
    };

    /// An ejection lasts so many times the first one at most.
    const MAX_FACTOR: u32 = 10;
}

/// What is the same for all endpoints of a cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How they are picked.
    pub rules: Rules,
    /// When they are left out.
    pub ejection: Ejection,
    /// How long one that became usable gets less than its share.
    pub slow_start: Duration,
    /// Something checks them: a new one is not used before it was found ready.
    pub checked: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            ejection: Ejection::NEVER,
            slow_start: Duration::ZERO,
            checked: false,
        }
    }
}

/// An endpoint as discovery found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What is dialled.
    pub target: Target,
    /// Its share.
    pub weight: u16,
    /// Lower is used first.
    pub priority: u16,
}

/// A list of endpoints, never changed.
#[derive(Debug, Default)]
pub struct View {
    /// In the order in which they were found.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// For `--policy hash`: a table for each priority.
    pub(super) tables: Vec<(u16, Table)>,
}

/// The endpoints of a cluster. Clones share.
#[derive(Debug, Clone)]
pub struct Membership(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    outward: Outward,
    began: Instant,
    /// Changes when the list or a state does.
    epoch: AtomicU64,
    next_id: AtomicU32,
    view: Mutex<Arc<View>>,
    /// Told when the list has changed: who checks the endpoints must know.
    listed: tokio::sync::Notify,
}

impl Membership {
    /// Without endpoints yet, which are spoken to in the clear.
    pub fn new(settings: Settings) -> Self {
        Self::speaking(settings, Outward::default())
    }

    /// Without endpoints yet.
    pub fn speaking(settings: Settings, outward: Outward) -> Self {
        Self(Arc::new(Shared {
            settings,
            outward,
            began: Instant::now(),
            epoch: AtomicU64::new(1),
            next_id: AtomicU32::new(0),
            view: Mutex::default(),
            listed: tokio::sync::Notify::new(),
        }))
    }

    /// With one endpoint that nothing checks and that is never left out.
    pub fn of(target: Target, outward: Outward) -> Self {
        let membership = Self::speaking(Settings::default(), outward);
        membership.set(&[Found {
            target,
            weight: 1,
            priority: 0,
        }]);
        membership
    }

    /// How connections are opened.
    pub fn outward(&self) -> &Outward {
        &self.0.outward
    }

    /// What is the same for all.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The list now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.lock())
    }

    /// Changes when the list or the state of an endpoint does.
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// Milliseconds at `now` of the clock that endpoints' times are in; at least 1.
    pub fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.0.began).as_millis() as u64 + 1
    }

    pub(super) fn instant(&self, millis: u64) -> Instant {
        self.0.began + Duration::from_millis(millis.saturating_sub(1))
    }

    /// Where an endpoint stands at `now`.
    pub fn state(&self, endpoint: &Endpoint, now: Instant) -> State {
        endpoint.state(self.millis(now), self.0.settings.slow_start)
    }

    /// Too few endpoints are usable at `now`, so that all are used.
    pub fn panics(&self, now: Instant) -> bool {
        let (millis, settings) = (self.millis(now), &self.0.settings);
        let view = self.view();
        let candidates: Vec<Candidate> = view
            .endpoints
            .iter()
            .map(|one| one.candidate(millis, settings.slow_start))
            .collect();
        Balance::new(settings.rules, &candidates).panics()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<View>> {
        self.0.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.0.epoch.fetch_add(1, Ordering::Release);
    }

    /// Makes `found` the list. Those that stay keep their state and their connections; those that are gone take nothing new, and
    /// what is in flight there ends as it would. Returns how many came and went.
    pub fn set(&self, found: &[Found]) -> (usize, usize) {
        let mut view = self.lock();
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(found.len());
        let mut came = 0;
        for one in found {
            // The first of two that are the same counts.
            if endpoints.iter().any(|known| *known.target() == one.target) {
                continue;
            }
            let known = view
                .endpoints
                .iter()
                .find(|known| *known.target() == one.target);
            endpoints.push(match known {
                Some(known) => {
                    known.set_share(one.weight, one.priority);
                    Arc::clone(known)
                }
                None => {
                    came += 1;
                    Arc::new(self.endpoint(one))
                }
            });
        }
        let stayed = endpoints.len() - came;
        let went = view.endpoints.len() - stayed;
        let tables = self.tables(&endpoints);
        *view = Arc::new(View { endpoints, tables });
        drop(view);
        self.changed();
        self.0.listed.notify_one();
        (came, went)
    }

    /// Returns when the list has changed since this was called last. For one caller.
    pub(super) async fn list_changed(&self) {
        self.0.listed.notified().await;
    }

    fn endpoint(&self, one: &Found) -> Endpoint {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        Endpoint::new(
            id,
            one.target.clone(),
            one.weight,
            one.priority,
            self.0.settings.checked,
        )
    }

    fn tables(&self, endpoints: &[Arc<Endpoint>]) -> Vec<(u16, Table)> {
        let rules = self.0.settings.rules;
        if rules.policy != Policy::Hash {
            return Vec::new();
        }
        let mut priorities: Vec<u16> = endpoints.iter().map(|one| one.priority()).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let table = |priority: u16| {
            let members = endpoints
                .iter()
                .enumerate()
                .filter(|(_, one)| one.priority() == priority)
                .map(|(at, one)| (at as u32, fnv(one.name().as_bytes()), one.weight().into()));
            (priority, Table::new(rules.hashing, members))
        };
        priorities.into_iter().map(table).collect()
    }

    /// What the checks say of an endpoint, and why. Tells whether that is another state than before.
    pub fn set_readiness(&self, endpoint: &Endpoint, ready: bool, why: &str, now: Instant) -> bool {
        let next = match ready {
            true => Readiness::Ready,
            false => Readiness::Unready,
        };
        let before = endpoint.readiness();
        if before == next {
            if !ready {
                endpoint.say(why);
            }
            return false;
        }
        let millis = self.millis(now);
        // The first state of all is no recovery.
        if ready && before == Readiness::Unready {
            endpoint.set_usable_since(millis);
            endpoint.forgive();
            endpoint.pardon();
        } else if ready && millis > self.0.settings.slow_start.as_millis() as u64 {
            endpoint.set_usable_since(millis);
        }
        endpoint.set_readiness(next);
        endpoint.say(why);
        self.changed();
        true
    }

    /// Drains an endpoint, or takes it back. Tells whether that changed anything.
    pub fn set_drained(&self, endpoint: &Endpoint, drained: bool, now: Instant) -> bool {
        if endpoint.is_drained() == drained {
            return false;
        }
        if !drained {
            endpoint.set_usable_since(self.millis(now));
        }
        endpoint.set_drained(drained);
        endpoint.say(if drained { "drained by request" } else { "" });
        self.changed();
        true
    }

    /// A request failed at an endpoint. Leaves it out for a while when that was one too many in a row, and others remain.
    pub(super) fn failed(&self, endpoint: &Endpoint, why: &str, now: Instant) {
        let in_a_row = endpoint.fail();
        let ejection = self.0.settings.ejection;
        if ejection.after == 0 || in_a_row < ejection.after {
            return;
        }
        let millis = self.millis(now);
        // One at a time: two workers must not both think that another remains.
        let view = self.lock();
        if endpoint.ejected_until() > millis {
            return;
        }
        let all = view.endpoints.len();
        let out = view
            .endpoints
            .iter()
            .filter(|one| one.ejected_until() > millis)
            .count();
        let usable = view
            .endpoints
            .iter()
            .filter(|one| one.is_usable(millis) && !one.is_drained() && one.weight() > 0)
            .count();
        let most = ((all as f64 * ejection.max_share) as usize).max(1);
        if out >= most || usable <= 1 {
            return;
        }
        // It came back and fails again soon after: longer. Otherwise it begins anew.
        let quiet = ejection.time * Ejection::MAX_FACTOR;
        if endpoint.ejected_until() + (quiet.as_millis() as u64) < millis {
            endpoint.forgive();
        }
        let factor = (endpoint.ejections() + 1).min(Ejection::MAX_FACTOR);
        let time = ejection.time * factor;
        endpoint.eject(millis + time.as_millis() as u64);
        endpoint.say(&format!("{in_a_row} failures in a row, the last: {why}"));
        drop(view);
        self.changed();
        tracing::warn!(
            upstream = endpoint.name(),
            failures = in_a_row,
            why,
            seconds = time.as_secs_f64(),
            "ejected"
        );
    }
}
