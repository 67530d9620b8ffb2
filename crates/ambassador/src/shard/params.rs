//! What can be set, and nothing else: these declarations are the flags, the variables and the reference.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use podkit_dataplane::http::proxy::KeySource;
use podkit_dataplane::resp::Auth;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, ParamError, ParamSet as _, ParamType, Values};
use podkit_foundation::telemetry::metrics::Registry;

use super::failure::Key;
use super::place::nutcracker::{self, Ejection, Pool};
use super::place::{Distribution, HashFunction, HashTag, Ring, Shard};
use crate::servers::{Server, credentials, secret};

podkit_foundation::choices! {
    /// `--protocol`.
    pub(super) enum Protocol {
        /// That of Redis and Valkey.
        Redis = "redis",
        /// The text protocol of memcached, classic and meta commands.
        Memcached = "memcached",
        /// HTTP/1.1 and HTTP/2 in the clear.
        Http = "http",
    }
}

impl Protocol {
    /// Where clients look for it.
    fn listen(self) -> Addr {
        let text = match self {
            Self::Redis => "127.0.0.1:6379",
            Self::Memcached => "127.0.0.1:11211",
            Self::Http => "127.0.0.1:8080",
        };
        Addr::parse(text).expect("it is an address")
    }
}

/// What there is in Redis only.
const ONLY_REDIS: [&str; 6] = [
    "user",
    "password_file",
    "database",
    "upstream_ca",
    "upstream_cert",
    "upstream_key",
];
/// What has no meaning for HTTP.
const NOT_HTTP: [&str; 13] = [
    "on_failure",
    "spare",
    "probe_period",
    "probe_timeout",
    "probe_failures",
    "probe_successes",
    "min_out",
    "hot_keys",
    "busy_poll",
    "max_command_size",
    "max_reply_size",
    "client_timeout",
    "coalesce",
];

/// `--shard`: NAME=[rediss://]ADDR[;weight=N][;server-name=NAME].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShardSaid {
    /// What it is placed by, whatever its address is.
    pub(super) name: String,
    /// Where it is, and how it is spoken to.
    pub(super) server: Server,
    /// Its share.
    pub(super) weight: u32,
}

impl ParamType for ShardSaid {
    const TYPE_NAME: &'static str = "shard";
    const EXPECTED: &'static str =
        "NAME=host:port, NAME=rediss://host:port or NAME=unix:/path, then ;weight=N";

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';');
        let place = parts.next().unwrap_or_default();
        let (name, server) = place.split_once('=').ok_or_else(String::new)?;
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(format!("{name:?} is no name: letters, digits and -_.: are"));
        }
        let (mut server, mut weight) = (server.to_owned(), 1);
        for option in parts {
            match option.strip_prefix("weight=") {
                Some(number) => {
                    let said = number.parse().ok();
                    weight = said
                        .filter(|weight| (1..=10_000).contains(weight))
                        .ok_or_else(|| format!("{number:?} is not a weight (1 to 10000)"))?;
                }
                None => server = format!("{server};{option}"),
            }
        }
        Ok(Self {
            name: name.to_owned(),
            server: Server::parse(&server)?,
            weight,
        })
    }
}

impl fmt::Display for ShardSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.server)?;
        match self.weight {
            1 => Ok(()),
            weight => write!(f, ";weight={weight}"),
        }
    }
}

podkit_foundation::params! {
    /// The parameters of `shard`.
    pub(super) struct Params {
        /// What clients and shards speak. With --twemproxy what its pool speaks.
        protocol: Protocol { default: Some("redis") },
        /// Where clients come; repeatable. Unless given 127.0.0.1:11211 with --protocol memcached, 127.0.0.1:8080 with http, and with --twemproxy
        /// that of its pool.
        listen: Vec<Addr> { default: Some("127.0.0.1:6379") },
        /// A shard: NAME=host:port, NAME=rediss://host:port (TLS) or NAME=unix:/path, then `;weight=N` (1); repeatable.
        ///
        /// With TLS its certificate is verified for the host, or for what `;server-name=` says.
        ///
        /// Keys are placed by the names, so that a shard may move to another address with all its keys.
        shard: Vec<ShardSaid> {},
        /// The shards in a file, one a line as --shard has them; `#` begins a comment. Watched.
        ///
        /// A file with a mistake is refused and the former shards stay. Clients keep their connections; what was sent to a shard that is no
        /// longer named is still answered.
        shards_file: Option<PathBuf> { live: true },
        /// A configuration of twemproxy (nutcracker.yml), whose place podkit takes: keys stay where they are, to the byte.
        ///
        /// What is taken from it: listen, servers, hash, hash_tag, distribution, redis_auth, redis_db, timeout, auto_eject_hosts, server_failure_limit and
        /// server_retry_timeout.
        twemproxy: Option<PathBuf> {},
        /// Which pool of --twemproxy; needed where it has several.
        twemproxy_pool: Option<String> {},
        /// How a key finds its shard.
        ///
        /// `rendezvous`: even, and a shard that comes takes its share from the others and nothing else moves; its cost grows with the shards.
        /// `maglev`: even and fast; about twice what must move does. `jump`: by the shards' order; they come and go at the end only. `crc16`:
        /// Redis Cluster's slots, shared out in the shards' order. `ketama`, `modula` and `random` are twemproxy's; its functions put keys that are
        /// nearly alike near each other, so that shares are uneven with few keys.
        hash: Distribution { default: Some("rendezvous") },
        /// The number of a key; unless given fnv1a_64 with ketama, modula and random, as twemproxy has it, else murmur. With --hash crc16
        /// it is crc16.
        hash_function: Option<HashFunction> {},
        /// What of a request is its key, with --protocol http: cookie:NAME, header:NAME, query:NAME, ip or path.
        ///
        /// As it is written: nothing is decoded. A request without it, or with an empty one, is answered with 400.
        key: Option<KeySource> {},
        /// Two characters between which the part of a key stands that counts for its place, such as {}, Redis Cluster's.
        ///
        /// Keys that have the same part stay together: then they may be in one command or transaction.
        hash_tag: Option<HashTag> {},
        /// The user that shards are told (Redis' ACL); the default one unless given. Needs --password-file.
        user: Option<String> {},
        /// The password that shards are told, in a file. A client may give its own by AUTH or HELLO.
        ///
        /// It is read again on SIGHUP, and when a shard does not take it any more (with --twemproxy redis_auth is); connections that are open go on.
        password_file: Option<PathBuf> { live: true },
        /// The database of the shards that a client begins with.
        database: u32 { default: Some("0"), bounds: Some((0, 1_000_000)) },
        /// To connect to a shard, resolving its name included.
        connect_timeout: Duration { default: Some("1s"), bounds: Some((1, 3_600_000)) },
        /// Longest silence of a shard that owes a reply; then its connection is given up, and what it owes are errors.
        response_timeout: Duration { default: Some("5s"), bounds: Some((1, 86_400_000)) },
        /// How long a worker looks for more, instead of sleeping, when a shard has just been asked or has answered; 0s: it sleeps at once.
        ///
        /// Waking a core that sleeps can take longer than everything else that a command needs. It costs CPU time while commands are few.
        busy_poll: Duration { default: Some("0s"), bounds: Some((0, 10)) },
    }
}

/// Shards and where keys are placed among them.
#[derive(Debug)]
pub(super) struct Shards {
    /// In the order in which they were given.
    pub(super) all: Vec<ShardSaid>,
    /// Where keys are.
    pub(super) ring: Ring,
    /// Those that have no keys now, by index.
    pub(super) left_out: Vec<bool>,
    /// Servers that nothing may reach.
    pub(super) away: Vec<Key>,
}

impl Shards {
    /// Those of the parameters, and of the files that they name.
    pub(super) fn of(params: &Params) -> Result<Self, Failure> {
        if let Some(path) = &params.twemproxy {
            return Self::of_pool(&params.pool(path)?)
                .map_err(|why| Failure::from(ParamError::new("twemproxy", why)));
        }
        let (field, all) = match &params.shards_file {
            None => ("shard", params.shard.clone()),
            Some(path) => {
                let shards =
                    read(path).map_err(|why| Failure::from(ParamError::new("shards_file", why)))?;
                ("shards_file", shards)
            }
        };
        Self::new(params, all).map_err(|why| ParamError::new(field, why).into())
    }

    /// These, placed as the parameters say.
    fn new(params: &Params, all: Vec<ShardSaid>) -> Result<Self, String> {
        if all.is_empty() {
            return Err(format!("names no shard; expected {}", ShardSaid::EXPECTED));
        }
        if params.hash == Distribution::Random
            && let Some(one) = all.iter().find(|one| one.weight != 1)
        {
            return Err(format!("\"{one}\": --hash random knows no weights"));
        }
        let ring = Ring::new(
            params.hash,
            params.hash_function,
            params.hash_tag,
            &places(&all),
        )?;
        Ok(Self::whole(all, ring))
    }

    fn of_pool(pool: &Pool) -> Result<Self, String> {
        let said = |server: &nutcracker::Server| ShardSaid {
            name: server.shard.name.clone(),
            server: Server::plain(server.addr.clone()),
            weight: server.shard.weight,
        };
        Ok(Self::whole(
            pool.servers.iter().map(said).collect(),
            pool.ring()?,
        ))
    }

    pub(super) fn whole(all: Vec<ShardSaid>, ring: Ring) -> Self {
        Self {
            left_out: vec![false; all.len()],
            away: Vec::new(),
            all,
            ring,
        }
    }

    /// No shard is there.
    pub(super) fn none_is_left(&self) -> bool {
        self.left_out.iter().all(|out| *out)
    }
}

/// The ring of a list of shards: a file as `--shards-file` has it, or, when its name ends so, a nutcracker.yml, whose pool may
/// follow (`FILE.yml:POOL`). The error is one line, or the findings of the file.
pub fn ring_of_file(
    path: &FilePath,
    hash: Distribution,
    function: Option<HashFunction>,
    tag: Option<HashTag>,
) -> Result<Ring, String> {
    let text = path.display().to_string();
    let (file, pool) = match text.rsplit_once(':') {
        Some((file, pool)) if is_yaml(file) => (file, Some(pool)),
        _ => (text.as_str(), None),
    };
    if is_yaml(file) {
        return read_pool(FilePath::new(file), pool)?.ring();
    }
    let all = read(path)?;
    Ring::new(hash, function, tag, &places(&all)).map_err(|why| format!("{text}: {why}"))
}

fn is_yaml(name: &str) -> bool {
    let ending = FilePath::new(name).extension();
    ending.is_some_and(|ending| ending == "yml" || ending == "yaml")
}

/// A pool of a nutcracker.yml.
fn read_pool(path: &FilePath, pool: Option<&str>) -> Result<Pool, String> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{shown} can't be read ({error})"))?;
    let (pools, findings) = nutcracker::parse(&shown, &text);
    if findings.has_errors() {
        return Err(format!("can't be used:\n{findings}"));
    }
    nutcracker::choose(pools, pool).map_err(|why| format!("{shown}: {why}"))
}

fn places(all: &[ShardSaid]) -> Vec<Shard> {
    let place = |one: &ShardSaid| Shard {
        name: one.name.clone(),
        weight: one.weight,
    };
    all.iter().map(place).collect()
}

/// The shards of a file. The error is one line with the file, and the line in it.
pub(super) fn read(path: &FilePath) -> Result<Vec<ShardSaid>, String> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{shown} can't be read ({error})"))?;
    listed(&shown, &text)
}

/// Those of its text.
pub(super) fn listed(shown: &str, text: &str) -> Result<Vec<ShardSaid>, String> {
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line
            .split_once('#')
            .map_or(line, |(before, _)| before)
            .trim();
        if line.is_empty() {
            continue;
        }
        let shard = ShardSaid::parse(line).map_err(|why| {
            let why = if why.is_empty() {
                String::new()
            } else {
                format!("{why}; ")
            };
            format!(
                "{shown}:{}: {line:?}: {why}expected {}",
                at + 1,
                ShardSaid::EXPECTED
            )
        })?;
        all.push(shard);
    }
    match all.is_empty() {
        true => Err(format!(
            "{shown} names no shard; expected a line each of {}",
            ShardSaid::EXPECTED
        )),
        false => Ok(all),
    }
}

impl Params {
    /// The typed parameters, checked against each other.
    pub(super) fn checked(values: &Values) -> Result<Self, Failure> {
        let mut params = Self::from_values(values)?;
        let wrong = |field: &str, why: &str| Failure::from(ParamError::new(field, why));
        let sources = [
            ("shard", !params.shard.is_empty()),
            ("shards_file", params.shards_file.is_some()),
            ("twemproxy", params.twemproxy.is_some()),
        ];
        let named: Vec<&str> = sources
            .iter()
            .filter(|(_, is)| *is)
            .map(|(name, _)| *name)
            .collect();
        match named.as_slice() {
            [] => {
                return Err(wrong(
                    "shard",
                    "is required (or --shards-file, or --twemproxy); expected NAME=host:port, once for each shard",
                ));
            }
            [_] => {}
            [_, second, ..] => return Err(wrong(second, "can't go with another list of shards")),
        }
        if params.twemproxy.is_none() && params.twemproxy_pool.is_some() {
            return Err(wrong("twemproxy_pool", "needs --twemproxy"));
        }
        if params.user.is_some() && params.password_file.is_none() {
            return Err(wrong("user", "needs --password-file"));
        }
        if params.twemproxy.is_none() {
            params.check_protocol(values)?;
            if !values.is_given("listen") {
                params.listen = vec![params.protocol.listen()];
            }
            let of_keys = ["hash_function", "hash_tag"];
            if params.hash == Distribution::Random
                && let Some(field) = of_keys.into_iter().find(|field| values.is_given(field))
            {
                let why = "means nothing with --hash random, which looks at no key";
                return Err(wrong(field, why));
            }
        }
        if params.listen.is_empty() {
            return Err(wrong(
                "listen",
                "names no address; expected host:port, :port or unix:/path",
            ));
        }
        if let Some(path) = &params.twemproxy {
            let places = [
                ("hash", values.is_given("hash")),
                ("hash_function", params.hash_function.is_some()),
                ("hash_tag", params.hash_tag.is_some()),
            ];
            if let Some((field, _)) = places.iter().find(|(_, given)| *given) {
                return Err(wrong(field, "is what --twemproxy says; give one of them"));
            }
            let pool = params.pool(path)?;
            let speaks = match pool.redis {
                true => Protocol::Redis,
                false => Protocol::Memcached,
            };
            if values.is_given("protocol") && params.protocol != speaks {
                let why = format!(
                    "the pool {} of --twemproxy speaks {}",
                    pool.name,
                    speaks.word()
                );
                return Err(wrong("protocol", &why));
            }
            params.protocol = speaks;
            if !values.is_given("listen") {
                params.listen = vec![pool.listen.clone()];
            }
            params.check_protocol(values)?;
            if !values.is_given("database") {
                params.database = pool.db;
            }
            if let (Some(timeout), false) = (pool.timeout, values.is_given("response_timeout")) {
                params.response_timeout = timeout;
            }
        }
        Ok(params)
    }

    /// When --twemproxy leaves servers out.
    pub(super) fn ejection(&self) -> Result<Option<Ejection>, Failure> {
        let pool = self.twemproxy.as_ref().map(|path| self.pool(path));
        Ok(pool.transpose()?.and_then(|pool| pool.ejection))
    }

    /// What means nothing in the protocol is no option of it.
    fn check_protocol(&self, values: &Values) -> Result<(), Failure> {
        let fault = match self.protocol {
            Protocol::Redis => None,
            Protocol::Memcached => ONLY_REDIS.iter().find(|field| values.is_given(field)),
            Protocol::Http => ONLY_REDIS
                .iter()
                .chain(&NOT_HTTP)
                .find(|field| values.is_given(field)),
        };
        let word = self.protocol.word();
        if let Some(field) = fault {
            return Err(
                ParamError::new(field, format!("means nothing with --protocol {word}")).into(),
            );
        }
        let why = match (self.protocol, &self.key) {
            (Protocol::Http, Some(_)) | (Protocol::Redis | Protocol::Memcached, None) => {
                return Ok(());
            }
            (Protocol::Http, None) => {
                format!(
                    "is required with --protocol http; expected {}",
                    KeySource::EXPECTED
                )
            }
            (_, Some(_)) => {
                format!("means nothing with --protocol {word}, whose commands name keys")
            }
        };
        Err(ParamError::new("key", why).into())
    }

    /// The pool of --twemproxy.
    pub(super) fn pool(&self, path: &FilePath) -> Result<Pool, Failure> {
        let pool = read_pool(path, self.twemproxy_pool.as_deref());
        pool.map_err(|why| ParamError::new("twemproxy", why).into())
    }

    /// User and password for the shards, where there are some.
    pub(super) fn auth(&self, registry: &Registry) -> Result<Option<Auth>, Failure> {
        if let Some(path) = &self.password_file {
            let user = self.user.as_deref();
            return credentials("password_file", path, user, registry).map(Some);
        }
        let Some(path) = &self.twemproxy else {
            return Ok(None);
        };
        if self.pool(path)?.auth.is_none() {
            return Ok(None);
        }
        let (path, name) = (path.clone(), self.twemproxy_pool.clone());
        let read = move || {
            let auth = read_pool(&path, name.as_deref())?.auth;
            let password = auth.map(|password| password.reveal().as_bytes().to_vec());
            password.ok_or_else(|| format!("{} has no redis_auth", path.display()))
        };
        secret("twemproxy", None, registry, read).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_read_as_they_are_shown() {
        for text in [
            "a=127.0.0.1:6379",
            "a:1=redis.example:6379;weight=3",
            "c=unix:/run/redis.sock",
            "d=rediss://redis.example:6380;server-name=r.example;weight=3",
            "e=rediss://10.0.0.1:6380",
        ] {
            assert_eq!(ShardSaid::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "127.0.0.1:6379",
            "=:1",
            "a=",
            "a=:1;weight=0",
            "a=:1;wait=1",
            "a b=:1",
            "a=:1;server-name=b",
            "a=rediss://unix:/s",
            "a=rediss://:1;server-name=a b",
        ] {
            assert!(ShardSaid::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_with_a_mistake_names_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shards");
        std::fs::write(&path, "# mine\na=:1\n\nb=:2;weight=2 # more\n").unwrap();
        let all = read(&path).unwrap();
        assert_eq!(
            all.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["a=:1", "b=:2;weight=2"]
        );
        std::fs::write(&path, "a=:1\nb:2\n").unwrap();
        let line = read(&path).unwrap_err();
        assert!(line.contains("shards:2: \"b:2\": expected NAME="), "{line}");
        std::fs::write(&path, "#\n").unwrap();
        assert!(read(&path).unwrap_err().contains("names no shard"));
    }
}
