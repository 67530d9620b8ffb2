//! What `limit` takes.

use std::path::PathBuf;
use std::time::Duration;

use podkit_dataplane::upstream::Target;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, Cidr, ParamError, ParamSet as _, Scheme, Upstream, Values};

use super::rule::{Rule, RuleList};

podkit_foundation::choices! {
    /// `--headers`.
    pub enum Headers {
        /// Those of the IETF's draft and X-RateLimit-….
        Both = "both",
        /// RateLimit and RateLimit-Policy.
        Ietf = "ietf",
        /// X-RateLimit-Limit, -Remaining and -Reset.
        X = "x",
        /// None; Retry-After is sent all the same.
        None = "none",
    }
}

impl Headers {
    pub(super) fn has_ietf(self) -> bool {
        matches!(self, Self::Both | Self::Ietf)
    }

    pub(super) fn has_x(self) -> bool {
        matches!(self, Self::Both | Self::X)
    }
}

podkit_foundation::params! {
    /// The parameters of `limit` besides those of HTTP.
    pub struct Params {
        /// Where clients come; repeatable. HTTPS with `--cert`, `--cert-dir` or `--self-signed`, else HTTP.
        listen: Vec<Addr> { default: Some(":8080") },
        /// What stands behind the limits: host:port, :port (on the loopback) or unix:/path.
        ///
        /// One. Several are the work of `podkit balance`. `https://` in front: TLS is spoken to it, its certificate verified for its
        /// host or ;server-name=NAME; `h2c://`: HTTP/2 in the clear.
        upstream: Vec<Upstream> { optional: false },
        /// A rule: `name=… key=… rate=100/s`, and more pairs; repeatable, or several separated by semicolons.
        ///
        /// `name`: what it is called in fields, metrics and pages. `key`: what requests are told apart by: `ip`, `header:NAME`,
        /// `cookie:NAME`, `query:NAME`, `path`, or `global` for all together; requests without it share one key. `rate`: units
        /// a second, minute or hour (`/s`, `/m`, `/h`); `burst`: units at once (a second's worth unless given); `cost`: units that
        /// a request takes (1). `concurrency`: requests of a key at once. `path`: `/login`, or `/api/*` for what
        /// begins so, compared percent-decoded; `method`: `GET,POST`. `shadow=true` counts and refuses nothing. `fail`: with
        /// `--peers`, what to do while the key's owner can't be asked: `open` lets through, `closed` refuses, `local` (the default)
        /// counts here alone.
        ///
        /// A request passes the rules in this order and is counted by each up to the first that refuses it.
        rule: Vec<RuleList> { commas: false },
        /// More rules, behind those of --rule: a YAML list whose items have the keys of a rule.
        ///
        /// Watched: a file with a mistake is refused with the line, and the former rules stay. A rule that keeps its name, key, rate
        /// and burst keeps what its keys have used up.
        rules_file: Option<PathBuf> { live: true },
        /// Clients that no rule is for: a file with an address or block a line, `#` begins a comment; repeatable.
        ///
        /// Watched, as --rules-file is. The client is the one that `key=ip` names.
        allow: Vec<PathBuf> { live: true },
        /// Clients that are answered with 403, in the same form; repeatable. It comes before --allow.
        deny: Vec<PathBuf> { live: true },
        /// Keys that are remembered, over all rules, 32 bytes each; the one idle for the longest is forgotten first.
        max_keys: u32 { default: Some("100000"), bounds: Some((1, 100_000_000)) },
        /// The fields that tell clients where they stand, on allowed answers too.
        headers: Headers { default: Some("both") },
        /// Balancers in front, as blocks of addresses, whose connections begin with a header of the PROXY protocol (v1 or v2);
        /// repeatable.
        ///
        /// Its source is the client from then on. Who comes over a unix socket is a balancer too. Others are served as who they are.
        accept_proxy: Vec<Cidr> {},
        /// Proxies whose X-Forwarded-For and Forwarded are believed, as addresses or blocks; repeatable.
        ///
        /// `key=ip` is then the last address in them that is not such a proxy; when both are there and name different clients, it
        /// is the proxy's own. What anybody else sends under those names is not believed, and replaced for the upstream.
        trusted_proxy: Vec<Cidr> {},
        /// Bits of an IPv6 address that `key=ip` looks at: a host has a whole network.
        ipv6_prefix: u16 { default: Some("64"), bounds: Some((1, 128)) },
        /// The replicas that enforce one rate together, this one among them: where each has its --peers-listen; repeatable.
        ///
        /// host:port, dns:name:port, srv: or file:, written alike for all replicas: a key's owner is found by these names. Needs
        /// --peers-secret-file. Rules count together when their name, key, rate and burst are the same; `concurrency` is each
        /// replica's own.
        peers: Vec<Upstream> {},
        /// The secret by which replicas know each other: 16 to 4096 bytes, without white space at its ends.
        peers_secret_file: Option<PathBuf> {},
        /// Where the other replicas come; with --peers only.
        peers_listen: Addr { default: Some(":9634") },
        /// How long a key's owner may take to answer before it counts as lost, and rules do as their `fail` says.
        peers_timeout: Duration { default: Some("50ms"), bounds: Some((1, 10_000)) },
    }
}

impl Params {
    /// The typed parameters, checked against each other.
    pub(super) fn checked(values: &Values) -> Result<Self, Failure> {
        let params = Self::checked_rules(values)?;
        params.target()?;
        Ok(params)
    }

    /// The same without what stands behind.
    pub(super) fn checked_rules(values: &Values) -> Result<Self, Failure> {
        let params = Self::from_values(values)?;
        let wrong = |field: &str, why: String| Failure::from(ParamError::new(field, why));
        if params.listen.is_empty() {
            let why = "names no address; expected host:port, :port or unix:/path";
            return Err(wrong("listen", why.to_owned()));
        }
        if params.rule.is_empty() && params.rules_file.is_none() {
            let why = "is required, or --rules-file; expected a rule such as \"name=api key=ip rate=100/s\"";
            return Err(wrong("rule", why.to_owned()));
        }
        match (params.peers.is_empty(), &params.peers_secret_file) {
            (true, Some(_)) => {
                let why = "means nothing without --peers; expected both or none";
                return Err(wrong("peers_secret_file", why.to_owned()));
            }
            (false, None) => {
                let why =
                    "is required with --peers; expected a file with the secret of all replicas";
                return Err(wrong("peers_secret_file", why.to_owned()));
            }
            _ => {}
        }
        if let Some(peer) = params.peers.iter().find(|it| it.scheme != Scheme::Plain) {
            let why =
                format!("\"{peer}\": peers speak a protocol of their own; expected no scheme");
            return Err(wrong("peers", why));
        }
        if let (false, Addr::Name(name, _)) = (params.peers.is_empty(), &params.peers_listen)
            && name != "localhost"
        {
            let why = "takes an IP address, :port, localhost:port or unix:/path, not a name";
            return Err(wrong("peers_listen", why.to_owned()));
        }
        Ok(params)
    }

    /// Those of `--rule`, in order.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rule.iter().flat_map(|list| &list.0)
    }

    /// What stands behind, if it is one and of a form that is there.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        Target::only("limit", &self.upstream)
    }
}
