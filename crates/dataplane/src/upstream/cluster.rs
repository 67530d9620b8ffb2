//! A worker's view of the endpoints, with its connections to each: what a proxy asks where a request goes.
//!
//! A pick costs an atomic load (has anything changed?), for one endpoint no more than that, otherwise the policy; and an
//! atomic add for what is in flight. Nothing is allocated, no lock is taken.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::affinity::{Affinity, Tag};
use super::endpoint::Endpoint;
use super::limits::UpstreamLimits;
use super::membership::{Membership, View};
use super::outward::Outward;
use super::pick::{Ask, Balance, Candidate};
use super::pool::{Pool, UpstreamMetrics};
use super::target::Target;

/// How often shares are looked at again while an endpoint is warming up.
const WARMING: Duration = Duration::from_millis(200);

/// Endpoints that were tried for one request, at most so many.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    ids: [u32; Tried::MOST],
    count: usize,
}

impl Tried {
    /// Tries of one request at most.
    pub const MOST: usize = 8;

    /// Remembers one.
    pub fn add(&mut self, picked: &Picked) {
        if self.count < Self::MOST {
            self.ids[self.count] = picked.endpoint().id();
            self.count += 1;
        }
    }

    /// None was tried.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many were.
    pub fn count(&self) -> usize {
        self.count
    }

    fn has(&self, id: u32) -> bool {
        self.ids[..self.count].contains(&id)
    }
}

/// What is known of a request when its endpoint is picked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// The hash of its key.
    pub key: Option<u64>,
    /// The id of the endpoint that its session is with.
    pub sticky: Option<u32>,
}

/// A worker's endpoints. Not shared with other threads.
#[derive(Debug)]
pub struct Cluster {
    membership: Membership,
    limits: UpstreamLimits,
    metrics: UpstreamMetrics,
    /// The Host of a request whose client named none.
    host: String,
    affinity: Option<Affinity>,
    seen: Cell<u64>,
    /// When to look again though nothing was changed: an ejection is over, or one has warmed up.
    again: Cell<Option<Instant>>,
    local: RefCell<Local>,
    random: Cell<u64>,
}

#[derive(Debug)]
struct Local {
    view: Arc<View>,
    members: Vec<Rc<Member>>,
    /// Ids by the value of a session's cookie.
    sessions: HashMap<Tag, u32>,
    balance: Balance,
    /// There is one, and it is usable.
    only: bool,
}

/// An endpoint and this worker's connections to it.
#[derive(Debug)]
struct Member {
    endpoint: Arc<Endpoint>,
    pool: Rc<Pool>,
    /// The field line that gives a session to it; empty without affinity.
    cookie: String,
}

impl Cluster {
    /// A worker's part of `membership`. `host`: the Host of a request whose client named none; `affinity`: the cookies by which
    /// sessions stay with an endpoint.
    pub fn new(
        membership: Membership,
        limits: UpstreamLimits,
        metrics: UpstreamMetrics,
        host: String,
        affinity: Option<Affinity>,
    ) -> Rc<Self> {
        let local = Local {
            view: Arc::default(),
            members: Vec::new(),
            sessions: HashMap::new(),
            balance: Balance::new(membership.settings().rules, &[]),
            only: false,
        };
        // Workers that drew alike would all run to the same endpoint.
        let mut seed = [0; 8];
        aws_lc_rs::rand::fill(&mut seed).ok();
        let seed = u64::from_le_bytes(seed);
        Rc::new(Self {
            membership,
            limits,
            metrics,
            host,
            affinity,
            seen: Cell::new(0),
            again: Cell::new(None),
            local: RefCell::new(local),
            random: Cell::new(seed),
        })
    }

    /// One endpoint, which nothing checks and which is never left out.
    pub fn of(
        target: Target,
        limits: UpstreamLimits,
        metrics: UpstreamMetrics,
        outward: Outward,
    ) -> Rc<Self> {
        let host = target.host().to_owned();
        Self::new(Membership::of(target, outward), limits, metrics, host, None)
    }

    /// The bounds.
    pub fn limits(&self) -> &UpstreamLimits {
        &self.limits
    }

    /// The Host of a request whose client named none.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// All workers' part.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Where a request goes; counted there as in flight until what is returned is dropped. None when there is no endpoint
    /// that was not tried. `now` is when it is asked.
    pub fn pick(&self, wanted: Wanted, tried: &Tried, now: Instant) -> Option<Picked> {
        self.keep_up(now);
        let mut local = self.local.borrow_mut();
        let Local {
            view,
            members,
            balance,
            only,
            ..
        } = &mut *local;
        let at = if *only && tried.is_empty() {
            0
        } else {
            let session = wanted
                .sticky
                .and_then(|id| self.member_of(members, id, tried, now));
            match session {
                Some(at) => at,
                None => {
                    let ask = Ask {
                        key: wanted.key,
                        load: &|at| members[at as usize].endpoint.in_flight(),
                        tried: &|at| tried.has(members[at as usize].endpoint.id()),
                        fresh: tried.is_empty(),
                    };
                    balance.pick(&ask, &view.tables, &mut || self.draw())? as usize
                }
            }
        };
        let member = Rc::clone(&members[at]);
        member.endpoint.begin();
        Some(Picked(member))
    }

    /// An endpoint was not reached, did not answer in time, or wrongly; `why` for the log.
    pub fn failed(&self, picked: &Picked, why: &str, now: Instant) {
        self.membership.failed(&picked.0.endpoint, why, now);
    }

    /// The cookies by which sessions stay with an endpoint, if they do.
    pub fn affinity(&self) -> Option<&Affinity> {
        self.affinity.as_ref()
    }

    /// The id of the endpoint that a session's cookie names, while there is such a one.
    pub fn session(&self, cookie: &[u8], now: Instant) -> Option<u32> {
        let tag: &Tag = cookie.try_into().ok()?;
        self.keep_up(now);
        self.local.borrow().sessions.get(tag).copied()
    }

    /// Takes over what has changed, if anything has.
    fn keep_up(&self, now: Instant) {
        let stale = self.seen.get() != self.membership.epoch()
            || self.again.get().is_some_and(|again| again <= now);
        if stale {
            self.look(now);
        }
    }

    /// The endpoint of a session, drained or not, as long as it is well.
    fn member_of(
        &self,
        members: &[Rc<Member>],
        id: u32,
        tried: &Tried,
        now: Instant,
    ) -> Option<usize> {
        let at = members.iter().position(|one| one.endpoint.id() == id)?;
        let well = members[at].endpoint.is_usable(self.membership.millis(now));
        (well && !tried.has(id)).then_some(at)
    }

    /// xorshift64* (Marsaglia; Vigna 2016): even enough for shares, and nobody's secret.
    fn draw(&self) -> u64 {
        let mut state = self.random.get() | 1;
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Takes over what has changed.
    fn look(&self, now: Instant) {
        // Before the list is read: what changes meanwhile is seen next time.
        self.seen.set(self.membership.epoch());
        let view = self.membership.view();
        let mut local = self.local.borrow_mut();
        let member = |endpoint: &Arc<Endpoint>| {
            let known = local
                .members
                .iter()
                .find(|known| known.endpoint.id() == endpoint.id());
            match known {
                Some(known) => Rc::clone(known),
                None => Rc::new(Member {
                    endpoint: Arc::clone(endpoint),
                    pool: Pool::new(
                        endpoint.target().clone(),
                        self.limits.clone(),
                        self.metrics.clone(),
                        self.membership.outward().clone(),
                    ),
                    cookie: match &self.affinity {
                        Some(affinity) => affinity.field(&affinity.tag(endpoint.name())),
                        None => String::new(),
                    },
                }),
            }
        };
        let members: Vec<Rc<Member>> = view.endpoints.iter().map(member).collect();
        let settings = self.membership.settings();
        let millis = self.membership.millis(now);
        let mut again: Option<Instant> = None;
        let mut look_at = |at: Instant| again = Some(again.map_or(at, |again| again.min(at)));
        let candidate = |one: &Rc<Member>| {
            let endpoint = &one.endpoint;
            if endpoint.ejected_until() > millis {
                look_at(self.membership.instant(endpoint.ejected_until()));
            } else if endpoint.warmth(millis, settings.slow_start) < 1.0 {
                look_at(now + WARMING);
            }
            endpoint.candidate(millis, settings.slow_start)
        };
        let candidates: Vec<Candidate> = members.iter().map(candidate).collect();
        self.again.set(again);
        let only = matches!(candidates[..], [one] if one.weight > 0 && !one.drained);
        let sessions = match &self.affinity {
            Some(affinity) => members
                .iter()
                .map(|one| (affinity.tag(one.endpoint.name()), one.endpoint.id()))
                .collect(),
            None => HashMap::new(),
        };
        // Connections of who is gone close with its last request.
        *local = Local {
            view,
            members,
            sessions,
            balance: Balance::new(settings.rules, &candidates),
            only,
        };
    }
}

/// The endpoint of one request, which counts there as in flight.
#[derive(Debug)]
pub struct Picked(Rc<Member>);

impl Picked {
    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// This worker's connections to it.
    pub fn pool(&self) -> &Rc<Pool> {
        &self.0.pool
    }

    /// The field line that gives a session to it; empty without affinity.
    pub fn cookie(&self) -> &str {
        &self.0.cookie
    }

    /// It has answered.
    pub fn succeeded(&self) {
        self.0.endpoint.succeed();
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.0.endpoint.end();
    }
}
