//! What can be set, and nothing else: these declarations are the flags, the variables and the reference.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use podkit_dataplane::resp::Auth;
use podkit_dataplane::upstream::Target;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{
    Addr, ParamError, ParamSet as _, ParamType, Size, Upstream, Values, Where,
};
use podkit_foundation::telemetry::metrics::Registry;

use super::engine::MOST;
use crate::servers::{Server, credentials};

podkit_foundation::choices! {
    /// `--read`.
    pub(super) enum ReadFrom {
        /// Replicas only, but for what this process wrote and they don't have yet.
        Replica = "replica",
        /// The same, and the primary when no replica can.
        PreferReplica = "prefer-replica",
        /// The primary only.
        Primary = "primary",
        /// Whoever answers soonest.
        Nearest = "nearest",
    }
}

/// `--max-lag`: bytes or a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MaxLag {
    /// Of the stream of replication.
    Bytes(Size),
    /// Since the primary was where the replica is.
    Time(Duration),
}

impl ParamType for MaxLag {
    const TYPE_NAME: &'static str = "lag";
    const EXPECTED: &'static str = "a size such as 64Ki, or a duration such as 500ms or 10s";

    fn parse(text: &str) -> Result<Self, String> {
        match Duration::parse(text) {
            Ok(time) => Ok(Self::Time(time)),
            Err(_) => Size::parse(text)
                .map(Self::Bytes)
                .map_err(|_| String::new()),
        }
    }
}

impl fmt::Display for MaxLag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(size) => write!(f, "{} bytes", size.0),
            Self::Time(time) => write!(f, "{} ms", time.as_millis()),
        }
    }
}

podkit_foundation::params! {
    /// The parameters of `redis`.
    pub(super) struct Params {
        /// Where clients come; repeatable.
        listen: Vec<Addr> { default: Some("127.0.0.1:6379") },
        /// The primary: host:port, rediss://host:port (TLS) or unix:/path. Another server that is named here takes its place when it goes on from
        /// what it had.
        ///
        /// With TLS its certificate is verified for the host, or for what `;server-name=` says.
        primary: Option<Server> {},
        /// A replica, as --primary; repeatable.
        replica: Vec<Server> {},
        /// A sentinel, as --primary; repeatable. They say who the primary is and which replicas there are. Needs --master-name.
        sentinel: Vec<Server> {},
        /// What the sentinels call the primary and its replicas.
        master_name: Option<String> {},
        /// Whether the servers that the sentinels name are spoken to by TLS; unless given they are when a sentinel is (rediss://).
        master_tls: Option<bool> {},
        /// What the certificates of these servers are for; their address, as the sentinels say it, unless given.
        master_server_name: Option<String> {},
        /// All servers as dns:HOST:PORT (srv:, file: and addresses too; TLS with rediss:// before it): each says itself what it is.
        ///
        /// With TLS a certificate is verified for the name that was resolved, or for what `;server-name=` says.
        upstream: Vec<Upstream> {},
        /// A node of a Redis Cluster, as --primary; repeatable. It says which others there are, and who has which slots.
        ///
        /// With TLS (rediss://) the others are spoken to by TLS too. Their certificates are verified for their address, as the nodes say it, or for
        /// what `;server-name=` says of the first node that has one.
        cluster: Vec<Server> {},
        /// Who answers commands that change nothing.
        ///
        /// `replica`: replicas only; `prefer-replica`: and the primary when no replica can; `nearest`: who answers soonest, the primary included.
        /// With --read-your-writes the primary answers in any case for what replicas don't have yet.
        read: ReadFrom { default: Some("prefer-replica") },
        /// How far behind a replica may be that is read from: bytes (64Ki) or a duration (500ms). As far as it is unless given.
        max_lag: Option<MaxLag> {},
        /// A replica answers for a key only when it has all that was written to it by this process, over all connections.
        read_your_writes: bool { default: Some("true") },
        /// How long commands are kept while there is no server for them, to be done then; 0s: not at all.
        ///
        /// Only what changes nothing, and what was certainly not done: a write that was sent and not answered gets an error that says so.
        hold: Duration { default: Some("5s"), bounds: Some((0, 600_000)) },
        /// Bytes of the commands that are kept, at most, for each worker.
        hold_size: Size { default: Some("16Mi"), bounds: Some((0, 17_179_869_184)) },
        /// How often servers are asked what they are and how far; a tenth of it while a replica does not have all that was written.
        /// With --cluster a node is asked as often who has which slots.
        poll: Duration { default: Some("100ms"), bounds: Some((10, 60_000)) },
        /// The user that servers are told (ACL); the default one unless given. Needs --password-file.
        user: Option<String> {},
        /// The password that servers are told, in a file. A client may give its own by AUTH or HELLO.
        ///
        /// It is read again on SIGHUP, and when a server does not take it any more; connections that are open go on.
        password_file: Option<PathBuf> { live: true },
        /// The user that sentinels are told; the default one unless given. Needs --sentinel-password-file.
        sentinel_user: Option<String> {},
        /// The password that sentinels are told, in a file; read again as --password-file is.
        sentinel_password_file: Option<PathBuf> { live: true },
        /// The database that a client begins with.
        database: u32 { default: Some("0"), bounds: Some((0, 1_000_000)) },
        /// To connect to a server, resolving its name included; one that does not say within it how far it is counts as away.
        connect_timeout: Duration { default: Some("1s"), bounds: Some((1, 3_600_000)) },
        /// Longest silence of a server that owes a reply; then its connection is given up.
        response_timeout: Duration { default: Some("5s"), bounds: Some((1, 86_400_000)) },
        /// How long a worker looks for more, instead of sleeping, when a server has just been asked or has answered; 0s: it sleeps at once.
        ///
        /// Waking a core that sleeps can take longer than everything else that a command needs. It costs CPU time while commands are few.
        busy_poll: Duration { default: Some("0s"), bounds: Some((0, 10)) },
    }
}

impl Params {
    /// The typed parameters, checked against each other.
    pub(super) fn checked(values: &Values) -> Result<Self, Failure> {
        let params = Self::from_values(values)?;
        let wrong = |field: &str, why: &str| Err(Failure::from(ParamError::new(field, why)));
        let sources = [
            ("primary", params.primary.is_some()),
            ("sentinel", !params.sentinel.is_empty()),
            ("upstream", !params.upstream.is_empty()),
            ("cluster", !params.cluster.is_empty()),
        ];
        let mut named = sources.iter().filter(|(_, is)| *is);
        match (named.next(), named.next()) {
            (None, _) => {
                return wrong(
                    "primary",
                    "is required (or --sentinel, --upstream or --cluster); expected host:port",
                );
            }
            (_, Some((second, _))) => {
                return wrong(second, "can't go with another source of servers");
            }
            _ => {}
        }
        if params.primary.is_none() && !params.replica.is_empty() {
            return wrong("replica", "needs --primary");
        }
        if params.sentinel.is_empty() {
            let given = [
                ("master_name", params.master_name.is_some()),
                ("master_tls", params.master_tls.is_some()),
                ("master_server_name", params.master_server_name.is_some()),
            ];
            if let Some((field, _)) = given.iter().find(|(_, is)| *is) {
                return wrong(field, "needs --sentinel");
            }
        } else if params.master_name.is_none() {
            return wrong("master_name", "is required with --sentinel");
        }
        if params.master_server_name.is_some() && !params.master_is_tls() {
            return wrong("master_server_name", "needs --master-tls");
        }
        params.check_given()?;
        if params.database > 0 && !params.cluster.is_empty() {
            return wrong(
                "database",
                "means nothing to a cluster: it has database 0 only",
            );
        }
        if params.user.is_some() && params.password_file.is_none() {
            return wrong("user", "needs --password-file");
        }
        if params.sentinel_user.is_some() && params.sentinel_password_file.is_none() {
            return wrong("sentinel_user", "needs --sentinel-password-file");
        }
        if params.sentinel_password_file.is_some() && params.sentinel.is_empty() {
            return wrong("sentinel_password_file", "needs --sentinel");
        }
        let idle = [
            (
                "max_lag",
                params.read == ReadFrom::Primary,
                "--read primary",
            ),
            (
                "read_your_writes",
                params.read == ReadFrom::Primary,
                "--read primary",
            ),
            ("hold_size", params.hold.is_zero(), "--hold 0s"),
        ];
        for (field, is_idle, with) in idle {
            if is_idle && values.is_given(field) {
                return wrong(field, &format!("means nothing with {with}"));
            }
        }
        if params.listen.is_empty() {
            return wrong(
                "listen",
                "names no address; expected host:port, :port or unix:/path",
            );
        }
        Ok(params)
    }

    /// Each once, and not too many.
    fn check_given(&self) -> Result<(), Failure> {
        let wrong = |field: &str, why: String| Err(Failure::from(ParamError::new(field, why)));
        if self.replica.len() >= MOST {
            return wrong("replica", format!("is given more than {} times", MOST - 1));
        }
        let all: Vec<&Server> = self.given().collect();
        if let Some(one) = self
            .cluster
            .iter()
            .find(|one| one.is_tls != self.cluster[0].is_tls)
        {
            let why = format!(
                "\"{one}\" and \"{}\" are spoken to otherwise; give all nodes rediss://, or none",
                self.cluster[0]
            );
            return wrong("cluster", why);
        }
        for (at, one) in all.iter().enumerate() {
            if let Some(other) = all[..at].iter().find(|other| other.addr == one.addr) {
                let field = match (self.sentinel.is_empty(), self.cluster.is_empty()) {
                    (true, true) => "replica",
                    (true, false) => "cluster",
                    (false, _) => "sentinel",
                };
                return wrong(
                    field,
                    format!("\"{one}\" is \"{other}\", which is given too"),
                );
            }
        }
        if let Some(name) = &self.master_server_name {
            Target::tls(Addr::Port(1), Some(name))
                .map_err(|why| Failure::from(ParamError::new("master_server_name", why)))?;
        }
        Ok(())
    }

    /// The servers, sentinels and nodes that are given by their address.
    pub(super) fn given(&self) -> impl Iterator<Item = &Server> {
        let servers = self.primary.iter().chain(&self.replica);
        servers.chain(&self.sentinel).chain(&self.cluster)
    }

    /// The servers that others name (sentinels, nodes of a cluster) are spoken to by TLS.
    pub(super) fn named_is_tls(&self) -> bool {
        self.master_is_tls() || self.cluster.iter().any(|one| one.is_tls)
    }

    /// What the certificates of these are for, where that is not their address.
    pub(super) fn named_server_name(&self) -> Option<&str> {
        let of_nodes = || self.cluster.iter().find_map(Server::server_name);
        self.master_server_name.as_deref().or_else(of_nodes)
    }

    /// The servers that sentinels name are spoken to by TLS.
    pub(super) fn master_is_tls(&self) -> bool {
        let as_sentinels = || self.sentinel.iter().any(|one| one.is_tls);
        self.master_tls.unwrap_or_else(as_sentinels)
    }

    /// TLS is spoken to some server, or may be: a file can name such servers later, when it is known whom to trust.
    pub(super) fn speaks_tls(&self, knows_authorities: bool) -> bool {
        let may_come = |one: &Upstream| knows_authorities && matches!(one.place, Where::File(_));
        self.given().any(|one| one.is_tls)
            || self.master_is_tls()
            || self
                .upstream
                .iter()
                .any(|one| one.scheme.is_tls() || may_come(one))
    }

    /// User and password for the servers, where there are some.
    pub(super) fn auth(&self, registry: &Registry) -> Result<Option<Auth>, Failure> {
        let (path, user) = (self.password_file.as_deref(), self.user.as_deref());
        let read = |path| credentials("password_file", path, user, registry);
        path.map(read).transpose()
    }

    /// The same for the sentinels.
    pub(super) fn sentinel_auth(&self, registry: &Registry) -> Result<Option<Auth>, Failure> {
        let path = self.sentinel_password_file.as_deref();
        let user = self.sentinel_user.as_deref();
        let read = |path| credentials("sentinel_password_file", path, user, registry);
        path.map(read).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_bytes_or_a_duration() {
        assert_eq!(MaxLag::parse("64Ki"), Ok(MaxLag::Bytes(Size(65_536))));
        let time = Duration::from_millis(500);
        assert_eq!(MaxLag::parse("500ms"), Ok(MaxLag::Time(time)));
        assert!(MaxLag::parse("far").is_err());
    }
}
