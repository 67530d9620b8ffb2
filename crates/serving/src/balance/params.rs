//! What can be set, and nothing else: these declarations are the flags, the variables and the reference.

use std::path::PathBuf;
use std::time::Duration;

use podkit_dataplane::http::proxy::{AccessTo, KeySource, Retries, Traceparent};
use podkit_dataplane::tls::UpstreamTlsParams;
use podkit_dataplane::upstream::pick::{Hashing, Policy, Rules};
use podkit_dataplane::upstream::{AffinityCookie, Check, Ejection, HealthParams, Settings, Tried};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{
    Addr, Cidr, Factor, Origin, ParamError, ParamSet as _, Percent, Upstream, Values, Where,
};

podkit_foundation::params! {
    /// The parameters of `balance` besides those of TLS, HTTP and checks.
    pub struct Params {
        /// Where clients come; repeatable. HTTPS with `--cert`, `--cert-dir` or `--self-signed`, else HTTP.
        listen: Vec<Addr> { default: Some(":8080") },
        /// Balancers in front, as blocks of addresses, whose connections begin with a header of the PROXY protocol (v1 or v2);
        /// repeatable.
        ///
        /// Its source is the client from then on. Who comes over a unix socket is a balancer too. Others are served as who they are.
        accept_proxy: Vec<Cidr> {},
        /// Where requests go; repeatable: host:port, unix:/path, dns:name:port, srv:_name._tcp.domain, file:/path.
        ///
        /// `dns:` is every A and AAAA record, looked up again when their time to live is over (a headless Service); `srv:` also takes
        /// weight and priority from the records; `file:` has an upstream a line with its options, `#` begins a comment, and is
        /// watched: a file with a mistake is refused and the former upstreams stay. Options follow with `;`: `weight=N` (1; 0
        /// takes nothing new), `priority=N` (0; a higher one is used as far as those below it are short of ready upstreams).
        /// Upstreams that are no longer named finish what they have; those that stay keep state and connections.
        upstream: Vec<Upstream> { optional: false },
        /// Upstreams at most, found by whatever form; also the bound on label values in metrics.
        max_upstreams: u32 { default: Some("256"), bounds: Some((1, 10_000)) },
        /// How a request finds its upstream.
        ///
        /// `p2c`: the less loaded of two drawn at random, by weight. `least`: the least loaded. `round-robin`: smooth, by weight.
        /// `random`: by weight. `hash`: by `--hash-key`, the same key to the same upstream. Load is requests in flight per weight.
        policy: Policy { default: Some("p2c") },
        /// With `--policy hash`: cookie:NAME, header:NAME, query:NAME, ip or path.
        ///
        /// A request without it goes by `p2c`. `ip` is the client's address; with `--trust-forwarded` the last one in
        /// X-Forwarded-For.
        hash_key: Option<KeySource> {},
        /// With `--policy hash`: how keys find their upstream when upstreams come and go.
        ///
        /// `maglev`: the fastest and evenest; about twice the keys move that must. `ketama`: a ring; only keys of the upstream that came or
        /// went move; shares within about 10 %. `rendezvous`: even, and only those keys move; its cost grows with the upstreams. An
        /// upstream that is not ready or ejected moves its own keys only, whichever it is.
        hash: Hashing { default: Some("maglev") },
        /// With `--policy hash`: an upstream takes at most so many times its fair share of what is in flight.
        ///
        /// What is above goes to the key's next upstream (consistent hashing with bounded loads); 1.25 is usual. No bound unless given.
        load_bound: Option<Factor> {},
        /// Keep sessions with their upstream by a cookie that podkit issues: cookie or cookie:NAME (podkit).
        ///
        /// The cookie is signed and tells nothing; HttpOnly, SameSite=Lax, Secure when clients come by TLS. Upstreams are not told it. Only
        /// the sessions of a lost upstream move; one that is drained keeps its own.
        affinity: Option<AffinityCookie> {},
        /// The secret by which cookies are signed, at least 32 bytes; the same for all replicas.
        ///
        /// Without it a secret is made at the start: a restart, or another replica, gives every session to any upstream.
        affinity_secret_file: Option<PathBuf> {},
        /// How long an upstream that became ready gets less than its share, from a tenth on; 0s for all of it at once.
        ///
        /// Not for keys of `--policy hash`: each goes to its own upstream once that is ready. What `--load-bound` lets through to it
        /// grows with its share.
        slow_start: Duration { default: Some("0s"), bounds: Some((0, 3_600_000)) },
        /// Failed requests in a row after which an upstream is left out for a while; 0 for never.
        ///
        /// Failed: not reached, no answer within `--response-timeout` (or `--try-timeout`), a wrong or broken one, or 502, 503, 504.
        /// A client that gives up before says nothing of the upstream: where clients are impatient, `--try-timeout` is to be
        /// shorter than they are.
        eject_after: u32 { default: Some("5"), bounds: Some((0, 10_000)) },
        /// For how long, the first time; longer by as much each time it fails again soon, up to ten times.
        eject_time: Duration { default: Some("10s"), bounds: Some((10, 3_600_000)) },
        /// The part of the upstreams that may be left out at a time. One always may, unless it is the last.
        eject_max_share: Percent { default: Some("50%"), bounds: Some((0, 100)) },
        /// When fewer than this part of the upstreams take requests, all are used, ready or not.
        ///
        /// So that the few that are left are not run over one after another. When none is ready, all are used anyway.
        panic_share: Percent { default: Some("20%"), bounds: Some((0, 100)) },
        /// More tries of one request than the first, each at another upstream.
        ///
        /// Only where that is safe: nothing of the request was sent, or its method may be repeated (GET, HEAD, PUT, DELETE, OPTIONS,
        /// TRACE), its body had come whole, and nothing of an answer has gone to the client.
        retries: u32 { default: Some("2"), bounds: Some((0, 7)) },
        /// Repeated requests, at most, as a part of all; ten a second are free. What was never sent does not count.
        retry_budget: Percent { default: Some("20%"), bounds: Some((0, 100)) },
        /// How long one upstream may take to the head of its answer before another one is tried; --response-timeout unless given.
        try_timeout: Option<Duration> { bounds: Some((1, 86_400_000)) },
        /// Believe X-Forwarded-… and Forwarded of requests, and add to them, instead of writing them anew.
        ///
        /// For behind a proxy that sets them. Any client can pretend anything then, if it can come past that proxy.
        trust_forwarded: bool { default: Some("false") },
        /// What becomes of W3C traceparent: pass it on as it comes, or make one where none (or a wrong one) comes.
        ///
        /// A valid one is never changed: podkit records no spans. One that is made says whether the trace is to be recorded, which
        /// applications otherwise decide themselves: see `--trace-sampled`.
        traceparent: Traceparent { default: Some("pass") },
        /// With `--traceparent make`: the part of them that is marked as sampled.
        trace_sampled: Percent { default: Some("100%"), bounds: Some((0, 100)) },
        /// Log requests as JSON lines: stderr, or a file (opened again when it was renamed). Off unless given.
        ///
        /// Never waits: lines that can't be written in time are dropped and counted. Query strings are logged as they come.
        access_log: Option<AccessTo> {},
    }
}

impl Params {
    /// TLS may be spoken to some of the upstreams: one says so, or a file may when it is known whom to trust. (The system may have
    /// no authorities, as in podkit's own image; a file without `https://` must not ask for them.)
    pub(super) fn may_have_tls_upstreams(&self, tls: &UpstreamTlsParams) -> bool {
        self.upstream.iter().any(|upstream| {
            upstream.scheme.is_tls()
                || (tls.upstream_ca.is_some() && matches!(upstream.place, Where::File(_)))
        })
    }

    /// The typed parameters, checked against each other.
    pub fn checked(values: &Values) -> Result<Self, Failure> {
        let params = Self::from_values(values)?;
        let wrong = |field: &str, why: &str| Failure::from(ParamError::new(field, why));
        if params.listen.is_empty() {
            return Err(wrong(
                "listen",
                "names no address; expected host:port, :port or unix:/path",
            ));
        }
        let given = |field: &str| {
            values.shown().any(|(param, raws)| {
                param.field == field && raws.iter().any(|raw| raw.origin == Origin::Flag)
            })
        };
        let hashes = params.policy == Policy::Hash;
        if hashes && params.hash_key.is_none() {
            let why =
                "--policy hash needs it; expected cookie:NAME, header:NAME, query:NAME, ip or path";
            return Err(wrong("hash_key", why));
        }
        if !hashes
            && let Some(field) = ["hash_key", "hash", "load_bound"]
                .into_iter()
                .find(|it| given(it))
        {
            return Err(wrong(field, "needs --policy hash"));
        }
        if params.affinity_secret_file.is_some() && params.affinity.is_none() {
            return Err(wrong("affinity_secret_file", "needs --affinity"));
        }
        if params.affinity.is_some() && hashes {
            let why =
                "can't go with --policy hash: a session is kept either by its cookie or by its key";
            return Err(wrong("affinity", why));
        }
        if given("trace_sampled") && params.traceparent == Traceparent::Pass {
            return Err(wrong("trace_sampled", "needs --traceparent make"));
        }
        if params.retries as usize >= Tried::MOST {
            return Err(wrong("retries", "is more than can be remembered"));
        }
        Ok(params)
    }

    /// How endpoints are picked and left out. `health` says whether they are checked.
    pub fn settings(&self, health: &HealthParams) -> Settings {
        Settings {
            rules: Rules {
                policy: self.policy,
                hashing: self.hash,
                load_bound: self.load_bound.map(Factor::number),
                panic_share: self.panic_share.part(),
            },
            ejection: Ejection {
                after: self.eject_after,
                time: self.eject_time,
                max_share: self.eject_max_share.part(),
            },
            slow_start: self.slow_start,
            checked: health.ready != Check::Off,
        }
    }

    /// How often a request is sent again.
    pub fn retries(&self) -> Retries {
        Retries {
            most: self.retries,
            budget_percent: self.retry_budget.0,
            try_timeout: self.try_timeout,
        }
    }
}
