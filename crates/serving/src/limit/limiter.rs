//! All rules together, as the stage that a request passes.

use std::sync::Arc;

use podkit_dataplane::http::stage::{Pass, Reply, Stage, Verdict, View};
use podkit_dataplane::net::Buf;
use podkit_foundation::telemetry::metrics::{Counter, Registry};
use tokio::time::Instant;

use super::address::{self, Cidr};
use super::flight::Flight;
use super::gcra::Outcome;
use super::params::{Headers, Params};
use super::rule::{Key, Rule};
use super::table::Table;
use super::{REQUESTS, Settled};

/// What all workers share.
#[derive(Debug)]
pub(super) struct Limiter {
    rules: Vec<Counted>,
    table: Table,
    flight: Flight,
    headers: Headers,
    trusted: Vec<Cidr>,
    ipv6_prefix: u8,
    begin: Instant,
}

/// A rule, what its answers begin with, and what it did.
#[derive(Debug)]
struct Counted {
    rule: Rule,
    /// `RateLimit-Policy` and the begin of `RateLimit`.
    ietf: String,
    counts: [Counter; 3],
}

impl Limiter {
    pub(super) fn new(params: &Params, connections: usize, metrics: &Registry) -> Self {
        let count = |rule: &Rule, result| {
            let labels = [("rule", rule.name.as_str()), ("result", result)];
            metrics.counter(REQUESTS.name, REQUESTS.doc, &labels)
        };
        let counted = |rule: &Rule| Counted {
            ietf: rule.rate.map_or(String::new(), |rate| {
                let (name, q, w) = (&rule.name, rate.burst(), rate.window_seconds());
                format!("RateLimit-Policy: \"{name}\";q={q};w={w}\r\nRateLimit: \"{name}\";r=")
            }),
            counts: Settled::ALL.map(|settled| count(rule, settled.word())),
            rule: rule.clone(),
        };
        let rules = params.rules();
        let has_concurrency = rules.iter().any(|rule| rule.concurrency.is_some());
        Self {
            rules: rules.into_iter().map(counted).collect(),
            table: Table::new(params.max_keys as usize),
            flight: Flight::new(if has_concurrency { connections } else { 0 }),
            headers: params.headers,
            trusted: params.trusted_proxy.clone(),
            ipv6_prefix: u8::try_from(params.ipv6_prefix).unwrap_or(128),
            begin: Instant::now(),
        }
    }

    /// The rules with what they did: allowed, limited, shadow.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&Rule, [u64; 3])> {
        self.rules
            .iter()
            .map(|counted| (&counted.rule, counted.counts.each_ref().map(Counter::get)))
    }

    /// The keys' table.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// The peer's word about clients is believed.
    pub(super) fn trusts(&self, peer: podkit_dataplane::net::Peer) -> bool {
        peer.ip()
            .is_some_and(|ip| self.trusted.iter().any(|range| range.contains(ip)))
    }

    fn ask(&self, request: &View<'_>, pass: &mut Pass<'_>) -> Verdict {
        let mut least: Option<(u64, Outcome)> = None;
        for (at, counted) in self.rules.iter().enumerate() {
            let rule = &counted.rule;
            if !rule.is_for(request) {
                continue;
            }
            let mut room = [0; 16];
            let key = self.key(&rule.key, request, &mut room);
            let at = u16::try_from(at).unwrap_or(u16::MAX);
            let mut refused = None;
            if let Some(most) = rule.concurrency {
                match self.flight.enter(at, key, most) {
                    Some(held) => pass.hold(held),
                    // When another request ends is not known.
                    None => refused = Some(1),
                }
            }
            if let (Some(rate), None) = (&rule.rate, refused) {
                let now = request.now().saturating_duration_since(self.begin);
                let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
                let outcome = self.table.ask(at, key, rate, now, rule.cost);
                if !outcome.allowed {
                    refused = Some(outcome.retry_seconds());
                }
                if !rule.shadow {
                    if self.headers.has_ietf() {
                        let out = pass.fields();
                        out.put(counted.ietf.as_bytes());
                        out.put_decimal(outcome.remaining);
                        out.put(b";t=");
                        out.put_decimal(outcome.full_seconds());
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
            counted.counts[settled as usize].inc();
            if let (Some(seconds), false) = (refused, rule.shadow) {
                self.put_x(pass, least);
                let out = pass.fields();
                out.put(b"Retry-After: ");
                out.put_decimal(seconds);
                out.put(b"\r\n");
                return Verdict::Answer(refusal(request));
            }
        }
        self.put_x(pass, least);
        Verdict::Pass
    }

    /// The bytes by which the request is told apart. Requests without what the key is made of share one key: leaving a field
    /// out must not be a way past the rule.
    fn key<'k>(&self, key: &Key, request: &View<'k>, room: &'k mut [u8; 16]) -> &'k [u8] {
        match key {
            Key::Ip => match address::client(request, &self.trusted) {
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

/// The answer to a request that is refused, in the form that the client takes (RFC 9457 for JSON).
fn refusal(request: &View<'_>) -> Reply {
    let takes_json = request
        .fields("accept")
        .flat_map(|list| list.split(|byte| *byte == b','))
        .filter_map(|range| range.split(|byte| *byte == b';').next())
        .map(<[u8]>::trim_ascii)
        .any(|range| {
            range.eq_ignore_ascii_case(b"application/json")
                || range.eq_ignore_ascii_case(b"application/problem+json")
        });
    let (content_type, body): (_, &'static [u8]) = match takes_json {
        true => (
            "application/problem+json",
            b"{\"type\":\"about:blank\",\"title\":\"Too Many Requests\",\"status\":429}\n",
        ),
        false => ("text/plain; charset=utf-8", b"too many requests\n"),
    };
    Reply {
        status: 429,
        content_type,
        body: body.into(),
    }
}

/// The stage of one worker.
pub(super) struct LimitStage(pub(super) Arc<Limiter>);

impl Stage for LimitStage {
    fn look(&self, request: &View<'_>, pass: &mut Pass<'_>) -> Verdict {
        self.0.ask(request, pass)
    }

    fn done(&self, held: u64) {
        self.0.flight.leave(held);
    }
}
