//! All rules together, as the stage that a request passes.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use podkit_dataplane::http::stage::{Pass, Reply, Stage, Verdict, View};
use podkit_dataplane::net::{Buf, Flight};
use podkit_foundation::error::Failure;
use podkit_foundation::params::CidrSet;
use podkit_foundation::telemetry::metrics::{Counter, Registry};
use tokio::time::Instant;

use super::address;
use super::gcra::Outcome;
use super::params::{Headers, Params};
use super::roll::{self, Limited, Roll};
use super::rule::Key;
use super::set::{InForce, Set};
use super::table::Table;
use super::tag::Tags;
use super::{LISTED, Settled};

/// What all workers share.
#[derive(Debug)]
pub(super) struct Limiter {
    in_force: InForce,
    tags: Tags,
    table: Table,
    flight: Flight,
    headers: Headers,
    trusted: CidrSet,
    ipv6_prefix: u8,
    begin: Instant,
    listed: [Counter; 2],
    /// One of each worker.
    rolls: Mutex<Vec<Arc<Mutex<Roll>>>>,
}

impl Limiter {
    pub(super) fn new(
        params: &Params,
        connections: usize,
        metrics: &Registry,
    ) -> Result<Self, Failure> {
        let mut secret = [0; 16];
        aws_lc_rs::rand::fill(&mut secret)
            .map_err(|_| Failure::runtime("starting", "the system gives no random bytes"))?;
        let listed = |list| metrics.counter(LISTED.name, LISTED.doc, &[("list", list)]);
        Ok(Self {
            in_force: InForce::new(params, metrics)?,
            tags: Tags::new(&secret),
            table: Table::new(params.max_keys as usize),
            flight: Flight::new(connections),
            headers: params.headers,
            trusted: params.trusted_proxy.iter().copied().collect(),
            ipv6_prefix: u8::try_from(params.ipv6_prefix).unwrap_or(128),
            begin: Instant::now(),
            listed: ["allow", "deny"].map(listed),
            rolls: Mutex::default(),
        })
    }

    /// The rules and lists.
    pub(super) fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// Who is limited now.
    pub(super) fn limited(&self) -> Vec<Limited> {
        let rolls = self.rolls.lock().unwrap_or_else(PoisonError::into_inner);
        roll::limited(&rolls, Instant::now())
    }

    /// The keys' table.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// What is known of a client before any rule: it is refused, or passes, or (None) the rules say.
    fn look_up(&self, set: &Set, client: Option<IpAddr>) -> Option<Verdict> {
        let ip = client?;
        if set.deny.has(ip) {
            self.listed[1].inc();
            return Some(Verdict::Answer(Reply {
                status: 403,
                content_type: "text/plain; charset=utf-8",
                body: b"this address is not let in\n".into(),
            }));
        }
        set.allow.has(ip).then(|| {
            self.listed[0].inc();
            Verdict::Pass
        })
    }

    fn ask(
        &self,
        set: &Set,
        roll: &Mutex<Roll>,
        request: &View<'_>,
        pass: &mut Pass<'_>,
    ) -> Verdict {
        let client = address::client(request, &self.trusted);
        if let Some(verdict) = self.look_up(set, client) {
            return verdict;
        }
        let mut least: Option<(u64, Outcome)> = None;
        for counted in &set.rules {
            let rule = &counted.rule;
            if !rule.is_for(request) {
                continue;
            }
            let mut room = [0; 16];
            let key = self.key(&rule.key, request, client, &mut room);
            let tag = self.tags.tag(rule.id, key);
            let mut refused = None;
            if let Some(most) = rule.concurrency {
                let entered = self.flight.enter(tag, most);
                match entered {
                    Some((held, _)) => pass.hold(held),
                    // When another request ends is not known.
                    None => refused = Some(1),
                }
                if rule.rate.is_none() && !rule.shadow && self.headers.has_ietf() {
                    let out = pass.fields();
                    out.put(counted.ietf.as_bytes());
                    out.put_decimal(entered.map_or(0, |(_, now)| most - now));
                    out.put(b"\r\n");
                }
            }
            if let (Some(rate), None) = (&rule.rate, refused) {
                let now = request.now().saturating_duration_since(self.begin);
                let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
                let outcome = self.table.ask(tag, rate, now, rule.cost);
                if !outcome.allowed {
                    refused = Some(outcome.retry_seconds());
                }
                if !rule.shadow {
                    if self.headers.has_ietf() {
                        let out = pass.fields();
                        out.put(counted.ietf.as_bytes());
                        out.put_decimal(outcome.remaining);
                        // Without it when nothing is owed: there is no more to come.
                        if outcome.more_after > 0 {
                            out.put(b";t=");
                            out.put_decimal(outcome.more_seconds());
                        }
                        out.put(b"\r\n");
                    }
                    if !outcome.allowed || least.is_none_or(|it| outcome.remaining < it.1.remaining)
                    {
                        least = Some((rate.burst(), outcome));
                    }
                }
            }
            let settled = match (refused, rule.shadow) {
                (None, _) => Settled::Allowed,
                (Some(_), true) => Settled::Shadow,
                (Some(_), false) => Settled::Limited,
            };
            counted.count(settled);
            // Held by the page for a moment: then it goes unnoted.
            if let Ok(mut roll) = roll.try_lock() {
                match settled {
                    Settled::Allowed => roll.allowed(tag),
                    Settled::Limited | Settled::Shadow => {
                        roll.denied(tag, rule, key, request.now());
                    }
                }
            }
            if let (Some(seconds), false) = (refused, rule.shadow) {
                self.put_x(pass, least);
                let out = pass.fields();
                out.put(b"Retry-After: ");
                out.put_decimal(seconds);
                out.put(b"\r\n");
                return Verdict::Answer(refusal(takes_json(request), &counted.problem));
            }
        }
        self.put_x(pass, least);
        Verdict::Pass
    }

    /// The bytes by which the request is told apart. Requests without what the key is made of share one key: leaving a field
    /// out must not be a way past the rule.
    fn key<'k>(
        &self,
        key: &Key,
        request: &View<'k>,
        client: Option<IpAddr>,
        room: &'k mut [u8; 16],
    ) -> &'k [u8] {
        match key {
            Key::Ip => match client {
                Some(ip) => address::key(ip, self.ipv6_prefix, room),
                None => b"",
            },
            Key::Header(name) => request.fields(name).next().unwrap_or_default(),
            Key::Cookie(name) => request.cookie(name).unwrap_or_default(),
            Key::Query(name) => request.query_value(name).unwrap_or_default(),
            Key::Path => request.path(),
            Key::Global => b"",
        }
    }

    /// The rule that is the nearest to refusing, in the form that most clients know.
    fn put_x(&self, pass: &mut Pass<'_>, least: Option<(u64, Outcome)>) {
        let Some((limit, outcome)) = least.filter(|_| self.headers.has_x()) else {
            return;
        };
        let put = |out: &mut Buf, name: &[u8], number| {
            out.put(name);
            out.put_decimal(number);
            out.put(b"\r\n");
        };
        let out = pass.fields();
        put(out, b"X-RateLimit-Limit: ", limit);
        put(out, b"X-RateLimit-Remaining: ", outcome.remaining);
        put(out, b"X-RateLimit-Reset: ", outcome.full_seconds());
    }
}

fn takes_json(request: &View<'_>) -> bool {
    request
        .fields("accept")
        .flat_map(|list| list.split(|byte| *byte == b','))
        .filter_map(|range| range.split(|byte| *byte == b';').next())
        .map(<[u8]>::trim_ascii)
        .any(|range| {
            range.eq_ignore_ascii_case(b"application/json")
                || range.eq_ignore_ascii_case(b"application/problem+json")
        })
}

/// The answer to a request that is refused, in the form that the client takes.
fn refusal(json: bool, problem: &str) -> Reply {
    let (content_type, body) = match json {
        true => (
            "application/problem+json",
            problem.as_bytes().to_vec().into(),
        ),
        false => (
            "text/plain; charset=utf-8",
            b"too many requests\n".as_slice().into(),
        ),
    };
    Reply {
        status: 429,
        content_type,
        body,
    }
}

/// The stage of one worker.
pub(super) struct LimitStage {
    limiter: Arc<Limiter>,
    /// What is in force, as far as this worker has seen, and the epoch of it.
    seen: RefCell<(u64, Arc<Set>)>,
    roll: Arc<Mutex<Roll>>,
}

impl LimitStage {
    pub(super) fn new(limiter: Arc<Limiter>) -> Self {
        // The epoch first: what changes in between is seen again.
        let seen = (limiter.in_force.epoch(), limiter.in_force.current());
        let roll = Arc::default();
        let mut rolls = limiter.rolls.lock().unwrap_or_else(PoisonError::into_inner);
        rolls.push(Arc::clone(&roll));
        drop(rolls);
        Self {
            roll,
            seen: RefCell::new(seen),
            limiter,
        }
    }

    /// Takes what came into force since.
    fn refresh(&self) {
        let epoch = self.limiter.in_force.epoch();
        if epoch != self.seen.borrow().0 {
            *self.seen.borrow_mut() = (epoch, self.limiter.in_force.current());
        }
    }
}

impl Stage for LimitStage {
    fn look(&self, request: &View<'_>, pass: &mut Pass<'_>) -> Verdict {
        self.refresh();
        let set = &self.seen.borrow().1;
        self.limiter.ask(set, &self.roll, request, pass)
    }

    fn done(&self, held: u64) {
        self.limiter.flight.leave(held);
    }
}
