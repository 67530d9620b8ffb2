//! All rules together, as the stage that a request passes.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use podkit_dataplane::http::stage::{Pass, Reply, Stage, Verdict, View};
use podkit_dataplane::net::{Buf, Flight, Listeners};
use podkit_foundation::error::Failure;
use podkit_foundation::params::CidrSet;
use podkit_foundation::telemetry::metrics::{Counter, Registry};
use tokio::time::Instant;

use super::address;
use super::gcra::{Gcra, Outcome};
use super::params::{Headers, Params};
use super::peers::{self, Borrower, Owner, Peers};
use super::rest::{Rest, Sink};
use super::roll::{self, Limited, Roll};
use super::rule::{Fail, Key, Rule};
use super::set::{Counted, InForce, Set};
use super::table::Table;
use super::tag::Tags;
use super::{LISTED, Settled};

/// A rule with `fail=closed` says to come again so long after its key's owner could not be asked, in nanoseconds.
const FAIL_CLOSED: u64 = 1_000_000_000;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Limiter {
    in_force: InForce,
    tags: Tags,
    pub(super) owner: Owner,
    peers: Option<Arc<Peers>>,
    pub(super) flight: Flight,
    pub(super) headers: Headers,
    trusted: CidrSet,
    ipv6_prefix: u8,
    listed: [Counter; 2],
    /// One of each worker.
    rolls: Mutex<Vec<Arc<Mutex<Roll>>>>,
}

impl Limiter {
    pub(super) fn new(
        params: &Params,
        connections: usize,
        metrics: &Registry,
        listeners: Option<&Listeners>,
    ) -> Result<Self, Failure> {
        let secret = peers::read_secret(params)?;
        let mut key = [0; 16];
        match &secret {
            Some(secret) => key = peers::tag_key(secret),
            None => aws_lc_rs::rand::fill(&mut key)
                .map_err(|_| Failure::runtime("starting", "the system gives no random bytes"))?,
        }
        let owner = Owner {
            table: Arc::new(Table::new(params.max_keys as usize)),
            begin: Instant::now(),
        };
        let secret = secret.unwrap_or_default();
        let listed = |list| metrics.counter(LISTED.name, LISTED.doc, &[("list", list)]);
        Ok(Self {
            in_force: InForce::new(params, metrics)?,
            tags: Tags::new(&key),
            peers: Peers::new(params, &secret, &owner, listeners, metrics)?,
            owner,
            flight: Flight::new(connections),
            headers: params.headers,
            trusted: params.trusted_proxy.iter().copied().collect(),
            ipv6_prefix: u8::try_from(params.ipv6_prefix).unwrap_or(128),
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
        &self.owner.table
    }

    /// The other replicas.
    pub(super) fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.as_ref()
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

    /// Takes a request through the rules, up to the first that refuses it or must ask its owner.
    fn ask(
        self: &Arc<Self>,
        set: &Arc<Set>,
        worker: &Worker,
        request: &View<'_>,
        pass: &mut Pass<'_>,
    ) -> Verdict {
        let client = address::client(request, &self.trusted);
        if let Some(verdict) = self.look_up(set, client) {
            return verdict;
        }
        let now = self.owner.nanos(request.now());
        let mut least = None;
        for (at, counted) in set.rules.iter().enumerate() {
            let rule = &counted.rule;
            if !rule.is_for(request) {
                continue;
            }
            let mut room = [0; 16];
            let key = self.key(&rule.key, request, client, &mut room);
            let tag = self.tags.tag(rule.id, key);
            let mut refused = self.enter(counted, tag, pass);
            let mut outcome = None;
            if let (Some(rate), None) = (&rule.rate, refused) {
                let known = match &worker.borrower {
                    None => Some(self.owner.table.ask(tag, rate, now, rule.cost)),
                    Some(borrower) => borrower.take(tag, rate, now, rule.cost),
                };
                if known.is_none() {
                    let rest = self.rest(set, at, request, client);
                    let wait = rest.pass(Arc::clone(self), worker.clone(), least);
                    return Verdict::Wait(Box::pin(wait));
                }
                outcome = known;
            }
            self.stand(counted, outcome, pass, &mut least, &mut refused);
            let settled = note(counted, refused, &worker.roll, tag, key, request.now());
            if settled == Settled::Limited {
                self.put_refusal(pass.fields(), least, refused);
                return Verdict::Answer(refusal(takes_json(request), &counted.problem));
            }
        }
        if least.is_some() && self.headers.has_x() {
            self.put_x(pass.fields(), least);
        }
        Verdict::Pass
    }

    /// What a request needs to go on behind a wait: the rule `at` that waits, and those behind it.
    fn rest(&self, set: &Arc<Set>, at: usize, request: &View<'_>, client: Option<IpAddr>) -> Rest {
        let mut steps = Vec::new();
        for (at, counted) in set.rules.iter().enumerate().skip(at) {
            if counted.rule.is_for(request) {
                let mut room = [0; 16];
                let key = self.key(&counted.rule.key, request, client, &mut room);
                let tag = self.tags.tag(counted.rule.id, key);
                steps.push((at, tag, key.to_vec()));
            }
        }
        Rest {
            set: Arc::clone(set),
            steps,
            json: takes_json(request),
        }
    }

    /// Requests at once: what is held goes to `sink`. Returns seconds to wait when it is one too many.
    pub(super) fn enter(&self, counted: &Counted, tag: u64, sink: &mut impl Sink) -> Option<u64> {
        let rule = &counted.rule;
        let most = rule.concurrency?;
        let entered = self.flight.enter(tag, most);
        if let Some((held, _)) = entered {
            sink.hold(held);
        }
        if rule.rate.is_none() && !rule.shadow && self.headers.has_ietf() {
            let out = sink.fields();
            out.put(counted.ietf.as_bytes());
            out.put_decimal(entered.map_or(0, |(_, now)| most - now));
            out.put(b"\r\n");
        }
        // When another request ends is not known.
        entered.is_none().then_some(1)
    }

    /// Says where the client stands by its rate.
    pub(super) fn stand(
        &self,
        counted: &Counted,
        outcome: Option<Outcome>,
        sink: &mut impl Sink,
        least: &mut Option<(u64, Outcome)>,
        refused: &mut Option<u64>,
    ) {
        let rule = &counted.rule;
        let (Some(rate), Some(outcome)) = (&rule.rate, outcome) else {
            return;
        };
        if !outcome.allowed {
            *refused = Some(outcome.retry_seconds());
        }
        if rule.shadow {
            return;
        }
        if self.headers.has_ietf() {
            let out = sink.fields();
            out.put(counted.ietf.as_bytes());
            out.put_decimal(outcome.remaining);
            // Without it when nothing is owed: there is no more to come.
            if outcome.more_after > 0 {
                out.put(b";t=");
                out.put_decimal(outcome.more_seconds());
            }
            out.put(b"\r\n");
        }
        if !outcome.allowed || least.is_none_or(|it| outcome.remaining < it.1.remaining) {
            *least = Some((rate.burst(), outcome));
        }
    }

    /// What a rule does while the owner of a key can't be asked.
    pub(super) fn fall_back(&self, rule: &Rule, rate: &Gcra, tag: u64, now: u64) -> Outcome {
        match rule.fail {
            Fail::Local => self.owner.table.ask(tag, rate, now, rule.cost),
            Fail::Open => Outcome {
                allowed: true,
                remaining: rate.burst(),
                full_after: 0,
                more_after: 0,
                retry_after: 0,
            },
            Fail::Closed => Outcome {
                allowed: false,
                remaining: 0,
                full_after: FAIL_CLOSED,
                more_after: FAIL_CLOSED,
                retry_after: FAIL_CLOSED,
            },
        }
    }

    /// The fields of a refusal by a rule.
    pub(super) fn put_refusal(
        &self,
        out: &mut Buf,
        least: Option<(u64, Outcome)>,
        seconds: Option<u64>,
    ) {
        self.put_x(out, least);
        out.put(b"Retry-After: ");
        out.put_decimal(seconds.unwrap_or(1));
        out.put(b"\r\n");
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
    pub(super) fn put_x(&self, out: &mut Buf, least: Option<(u64, Outcome)>) {
        let Some((limit, outcome)) = least.filter(|_| self.headers.has_x()) else {
            return;
        };
        let put = |out: &mut Buf, name: &[u8], number| {
            out.put(name);
            out.put_decimal(number);
            out.put(b"\r\n");
        };
        put(out, b"X-RateLimit-Limit: ", limit);
        put(out, b"X-RateLimit-Remaining: ", outcome.remaining);
        put(out, b"X-RateLimit-Reset: ", outcome.full_seconds());
    }
}

/// Counts what became of a request under a rule, and puts it on the roll.
pub(super) fn note(
    counted: &Counted,
    refused: Option<u64>,
    roll: &Mutex<Roll>,
    tag: u64,
    key: &[u8],
    now: Instant,
) -> Settled {
    let settled = match (refused, counted.rule.shadow) {
        (None, _) => Settled::Allowed,
        (Some(_), true) => Settled::Shadow,
        (Some(_), false) => Settled::Limited,
    };
    counted.count(settled);
    // Held by the page for a moment: then it goes unnoted.
    if let Ok(mut roll) = roll.try_lock() {
        match settled {
            Settled::Allowed => roll.allowed(tag),
            Settled::Limited | Settled::Shadow => roll.denied(tag, &counted.rule, key, now),
        }
    }
    settled
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
pub(super) fn refusal(json: bool, problem: &str) -> Reply {
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

/// What one worker has.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) roll: Arc<Mutex<Roll>>,
    /// With `--peers`: all rates are asked of it.
    pub(super) borrower: Option<Rc<Borrower>>,
}

/// The stage of one worker.
pub(super) struct LimitStage {
    limiter: Arc<Limiter>,
    /// What is in force, as far as this worker has seen, and the epoch of it.
    seen: RefCell<(u64, Arc<Set>)>,
    worker: Worker,
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
            worker: Worker {
                roll,
                borrower: limiter.peers.clone().map(Borrower::new),
            },
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
        self.limiter.ask(set, &self.worker, request, pass)
    }

    fn done(&self, held: u64) {
        self.limiter.flight.leave(held);
    }
}
