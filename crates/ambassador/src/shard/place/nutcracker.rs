//! A nutcracker.yml (twemproxy 0.5), read strictly: what each pool says, with the line of everything that is wrong.
//!
//! Words and numbers are nutcracker's, not YAML's: `true` and no other truth, `0400` is four hundred. A file that nutcracker takes is
//! taken, but for a server's address that none could dial and permissions of a socket that are no number; and what a key means that means
//! nothing here is said.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use podkit_foundation::params::{Addr, ParamType};
use podkit_foundation::yaml::{
    Findings, Node, Path, Place, Severity, Source, Value, documents, nearest,
};

use super::{Distribution, HashFunction, HashTag, Ring, Shard, check};

/// Pools of a file at most.
const POOLS_MAX: usize = 1000;

/// Keys of a pool that say something here.
const KEYS: [&str; 12] = [
    "listen",
    "hash",
    "hash_tag",
    "distribution",
    "timeout",
    "redis",
    "redis_auth",
    "redis_db",
    "auto_eject_hosts",
    "server_retry_timeout",
    "server_failure_limit",
    "servers",
];

/// Keys that mean nothing here, whether they are switches, and why.
const IGNORED: [(&str, bool, &str); 6] = [
    (
        "backlog",
        false,
        "the queue of a listener is as long as podkit makes it",
    ),
    (
        "client_connections",
        false,
        "nutcracker doesn't heed it either; --max-connections bounds them",
    ),
    (
        "preconnect",
        true,
        "a connection to a server is opened when it is needed",
    ),
    (
        "reuseport",
        true,
        "each worker has a listener of its own anyway",
    ),
    (
        "server_connections",
        false,
        "requests share the connections that each worker has",
    ),
    ("tcpkeepalive", true, "it is always on"),
];

/// One pool: a listener and the servers behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its key in the file.
    pub name: String,
    /// `listen`.
    pub listen: Addr,
    /// The permissions of a unix socket; the process's own default where the file says nothing.
    pub listen_mode: Option<u32>,
    /// `hash`.
    pub function: HashFunction,
    /// `hash_tag`.
    pub tag: Option<HashTag>,
    /// `distribution`.
    pub distribution: Distribution,
    /// `timeout`: how long a connection to a server, or an answer, is waited for. None: for ever.
    pub timeout: Option<Duration>,
    /// `redis`: its protocol; else memcached's.
    pub redis: bool,
    /// `redis_auth`, which clients have to say too.
    pub auth: Option<Password>,
    /// `redis_db`.
    pub db: u32,
    /// With `auto_eject_hosts`.
    pub ejection: Option<Ejection>,
    /// `servers`, in the order of the file.
    pub servers: Vec<Server>,
}

/// When a server is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// `server_failure_limit`: after so many failures in a row; 1 or more.
    pub failures: u32,
    /// `server_retry_timeout`: for so long.
    pub retry: Duration,
}

/// A server.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Its name is the one that it is placed by.
    pub shard: Shard,
    /// Where it is.
    pub addr: Addr,
}

/// A password, which is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// To be sent.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Pool {
    /// The ring that nutcracker would have.
    pub fn ring(&self) -> Result<Ring, String> {
        Ring::new(
            self.distribution,
            Some(self.function),
            self.tag,
            &shards(&self.servers),
        )
    }
}

/// Reads a text; `name` stands for the file in the findings. The pools are whole when the findings have no error.
pub fn parse(name: &str, text: &str) -> (Vec<Pool>, Findings) {
    let mut findings = Findings::new();
    let file: Arc<str> = Arc::from(name);
    let mut roots = documents(text, &file, &mut findings).into_iter();
    let (root, more) = (roots.next(), roots.next());
    let Some(root) = root.filter(|_| !findings.has_errors()) else {
        if !findings.has_errors() {
            findings.add(Severity::Error, Place::whole(name), "", "has no pools");
        }
        return (Vec::new(), findings);
    };
    if let Some(more) = more {
        let place = Source::new(file, Arc::new(more), Path::root()).place(&Path::root());
        let why = "a second document; nutcracker takes one";
        findings.add(Severity::Error, place, "", why);
        return (Vec::new(), findings);
    }
    let source = Source::new(file, Arc::new(root), Path::root());
    let mut reader = Reader {
        source: &source,
        findings,
    };
    let pools = reader.pools();
    reader.findings.sort();
    (pools, reader.findings)
}

/// The pool of this name; without one the only pool.
pub fn choose(mut pools: Vec<Pool>, name: Option<&str>) -> Result<Pool, String> {
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    let at = match name {
        None if pools.len() == 1 => 0,
        None => return Err(format!("which pool? There are {}", names.join(", "))),
        Some(name) => match names.iter().position(|other| *other == name) {
            Some(at) => at,
            None => {
                let hint = match nearest(name, names.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", names.join(", ")),
                };
                return Err(format!("no pool is named \"{name}\"; {hint}"));
            }
        },
    };
    Ok(pools.swap_remove(at))
}

struct Reader<'a> {
    source: &'a Source,
    findings: Findings,
}

impl Reader<'_> {
    fn wrong(&mut self, path: &Path, why: impl Into<String>) {
        let place = self.source.place(path);
        self.findings.add(Severity::Error, place, path, why);
    }

    fn ignored(&mut self, path: &Path, why: &str) {
        let place = self.source.key_place(path);
        let why = format!("means nothing here: {why}");
        self.findings.add(Severity::Ignored, place, path, why);
    }

    fn pools(&mut self) -> Vec<Pool> {
        let root = Path::root();
        let names = match self.keys(&root) {
            Some(names) if (1..=POOLS_MAX).contains(&names.len()) => names,
            Some(_) => {
                self.wrong(&root, format!("expected 1 to {POOLS_MAX} pools"));
                return Vec::new();
            }
            None => return Vec::new(),
        };
        let mut pools: Vec<Pool> = Vec::new();
        for name in names {
            let path = root.key(name.clone());
            let Some(pool) = self.pool(name, &path) else {
                continue;
            };
            if let Some(other) = pools.iter().find(|other| other.listen == pool.listen) {
                let why = format!("{} is where {} listens", pool.listen, other.name);
                self.wrong(&path.key("listen"), why);
            }
            pools.push(pool);
        }
        pools
    }

    fn pool(&mut self, name: String, path: &Path) -> Option<Pool> {
        let found = self.keys(path)?;
        let errors = self.findings.count(Severity::Error);
        for key in &found {
            self.known(&path.key(key.clone()), key);
        }
        let listen = self.value(path, "listen", listen);
        if !found.iter().any(|key| key == "listen") {
            self.wrong(path, "listen is missing");
        }
        let function = self.value(path, "hash", word::<HashFunction>);
        let tag = self.value(path, "hash_tag", |text| {
            HashTag::parse(text).map_err(|_| "expected two characters, such as \"{}\"".to_owned())
        });
        let distribution = self.value(path, "distribution", distribution);
        let timeout = self.value(path, "timeout", number);
        let redis = self.value(path, "redis", switch).unwrap_or(false);
        let auth = self.value(path, "redis_auth", |text| Ok(Password(text.to_owned())));
        let db = self.value(path, "redis_db", number);
        let has_ejection = self.value(path, "auto_eject_hosts", switch);
        let retry = self.value(path, "server_retry_timeout", number);
        let failures = self.value(path, "server_failure_limit", number);
        let servers = self.servers(&path.key("servers"));
        if !redis && auth.is_some() {
            self.wrong(&path.key("redis_auth"), "goes with redis: true only");
        }
        if !redis && db.is_some() {
            self.ignored(&path.key("redis_db"), "memcached has no databases");
        }
        if has_ejection != Some(true) {
            for (key, value) in [
                ("server_retry_timeout", retry),
                ("server_failure_limit", failures),
            ] {
                if value.is_some() {
                    self.ignored(&path.key(key), "auto_eject_hosts is not true");
                }
            }
        }
        let distribution = distribution.unwrap_or(Distribution::Ketama);
        if self.findings.count(Severity::Error) == errors
            && let Err(why) = check(distribution, &shards(&servers))
        {
            self.wrong(&path.key("servers"), why);
        }
        if self.findings.count(Severity::Error) > errors {
            return None;
        }
        if (function, distribution) == (Some(HashFunction::Crc32), Distribution::Ketama) {
            let place = self.source.place(&path.key("hash"));
            let why = "one server has nearly all keys, as with nutcracker: crc32 has 15 bits, ketama's ring 32";
            self.findings
                .add(Severity::Warning, place, path.key("hash"), why);
        }
        let (listen, listen_mode) = listen?;
        Some(Pool {
            name,
            listen,
            listen_mode,
            function: function.unwrap_or(HashFunction::Fnv1a64),
            tag,
            distribution,
            timeout: timeout
                .filter(|millis| *millis > 0)
                .map(|millis| Duration::from_millis(millis.into())),
            redis,
            auth,
            db: db.filter(|_| redis).unwrap_or(0),
            ejection: (has_ejection == Some(true)).then(|| Ejection {
                failures: failures.unwrap_or(2).max(1),
                retry: Duration::from_millis(retry.unwrap_or(30_000).into()),
            }),
            servers,
        })
    }

    /// The keys of an object.
    fn keys(&mut self, path: &Path) -> Option<Vec<String>> {
        match self.source.find(path).map(|node| &node.value) {
            Some(Value::Map(entries)) => {
                Some(entries.iter().map(|entry| entry.key.clone()).collect())
            }
            _ => {
                let found = self.source.find(path).map(Node::describe);
                let why = format!("expected an object, found {}", found.unwrap_or_default());
                self.wrong(path, why);
                None
            }
        }
    }

    /// Says what there is to say about a key of a pool as such.
    fn known(&mut self, path: &Path, key: &str) {
        if KEYS.contains(&key) {
            return;
        }
        if let Some((_, is_switch, why)) = IGNORED.iter().find(|(other, ..)| *other == key) {
            match is_switch {
                true => drop(self.read(path, switch)),
                false => match self.read(path, number) {
                    Some(0) if key == "server_connections" => self.wrong(path, "can't be 0"),
                    _ => {}
                },
            }
            return self.ignored(path, why);
        }
        let known = KEYS
            .iter()
            .copied()
            .chain(IGNORED.iter().map(|(key, ..)| *key));
        let hint = match nearest(key, known.clone()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", known.collect::<Vec<_>>().join(", ")),
        };
        let place = self.source.key_place(path);
        let why = format!("nutcracker has no such key; {hint}");
        self.findings.add(Severity::Error, place, path, why);
    }

    /// The value of a key that may be there.
    fn value<T>(
        &mut self,
        pool: &Path,
        key: &'static str,
        of: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let path = pool.key(key);
        self.source.find(&path)?;
        self.read(&path, of)
    }

    /// What the text at `path` says.
    fn read<T>(&mut self, path: &Path, of: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let node = self.source.find(path)?;
        let said = match text(node) {
            Some(text) => of(text),
            None => Err(format!("expected a value, found {}", node.describe())),
        };
        said.map_err(|why| self.wrong(path, why)).ok()
    }

    fn servers(&mut self, path: &Path) -> Vec<Server> {
        let count = match self.source.find(path).map(|node| &node.value) {
            Some(Value::Seq(items)) if !items.is_empty() => items.len(),
            _ => {
                let why = format!("expected a list of servers, each {SERVER}");
                self.wrong(path, why);
                return Vec::new();
            }
        };
        let mut servers: Vec<Server> = Vec::new();
        for at in 0..count {
            let path = path.index(at);
            let Some(server) = self.read(&path, server) else {
                continue;
            };
            let name = &server.shard.name;
            if servers.iter().any(|other| other.shard.name == *name) {
                self.wrong(&path, format!("another server is named \"{name}\" too"));
            }
            servers.push(server);
        }
        servers
    }
}

fn shards(servers: &[Server]) -> Vec<Shard> {
    servers.iter().map(|server| server.shard.clone()).collect()
}

/// A scalar as it is written: nutcracker knows only texts.
fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Str(text) | Value::Bool(_, text) | Value::Int(_, text) | Value::Float(_, text) => {
            (!text.is_empty()).then_some(text)
        }
        Value::Null | Value::Seq(_) | Value::Map(_) => None,
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("expected true or false, found {text}")),
    }
}

/// Decimal digits, up to what an `int` of C holds.
fn number(text: &str) -> Result<u32, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse().ok().filter(|_| is_plain);
    value
        .filter(|value| *value <= i32::MAX.cast_unsigned())
        .ok_or_else(|| format!("expected a number up to {}, found {text}", i32::MAX))
}

fn word<T: ParamType>(text: &str) -> Result<T, String> {
    T::parse(text).map_err(|_| {
        let hint = match nearest(text, T::CHOICES.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", T::CHOICES.join(", ")),
        };
        format!("there is no \"{text}\"; {hint}")
    })
}

fn distribution(text: &str) -> Result<Distribution, String> {
    match word(text)? {
        known @ (Distribution::Ketama | Distribution::Modula | Distribution::Random) => Ok(known),
        _ => Err(format!(
            "nutcracker has no {text}; it has ketama, modula and random"
        )),
    }
}

/// `host:port`, or `/path` with octal permissions.
fn listen(text: &str) -> Result<(Addr, Option<u32>), String> {
    if !text.starts_with('/') {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or("expected host:port or /path, found no port")?;
        return Ok((tcp(host, port)?, None));
    }
    let Some((path, mode)) = text.rsplit_once(' ') else {
        return Ok((unix(text)?, None));
    };
    let is_octal = mode.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let bits = u32::from_str_radix(mode, 8).ok().filter(|_| is_octal);
    let bits = bits.filter(|bits| *bits <= 0o777).ok_or_else(|| {
        format!("expected \"/path permissions\", these up to 0777; found \"{mode}\"")
    })?;
    Ok((unix(path)?, (bits > 0).then_some(bits)))
}

const SERVER: &str = "\"host:port:weight\" or \"/path:weight\", and a name after a space";

/// `host:port:weight` or `/path:weight`, and a name or not.
fn server(text: &str) -> Result<Server, String> {
    let malformed = || format!("expected {SERVER}");
    let (place, name) = match text.rsplit_once(' ') {
        Some((_, "")) => return Err("the name after the space is missing".to_owned()),
        Some((place, name)) => (place, Some(name)),
        None => (text, None),
    };
    let (place, weight) = place.rsplit_once(':').ok_or_else(malformed)?;
    let weight = number(weight).map_err(|why| format!("the weight: {why}"))?;
    if weight == 0 {
        return Err("the weight can't be 0".to_owned());
    }
    // A server without a name is called by its address: for libmemcached's sake without memcached's own port, and a path by an
    // oversight with the colon after it.
    let (addr, own) = match place.strip_prefix('/') {
        Some(path) if path.contains(':') => return Err("a path can't have a colon".to_owned()),
        Some(_) => (unix(place)?, format!("{place}:")),
        None => {
            let (host, port) = place.rsplit_once(':').ok_or_else(malformed)?;
            let addr = tcp(host, port)?;
            let own = match addr.port() {
                Some(11211) => host,
                _ => place,
            };
            (addr, own.to_owned())
        }
    };
    let name = name.map_or(own, str::to_owned);
    Ok(Server {
        shard: Shard { name, weight },
        addr,
    })
}

fn unix(path: &str) -> Result<Addr, String> {
    Addr::parse(&format!("unix:{path}"))
}

/// An IPv6 address has no brackets here.
fn tcp(host: &str, port: &str) -> Result<Addr, String> {
    let port = number(port)
        .ok()
        .filter(|port| (1..=65_535).contains(port))
        .ok_or_else(|| format!("expected a port, 1 to 65535, found \"{port}\""))?;
    match host {
        "" => Err("the host is missing".to_owned()),
        host if host.contains(':') => Addr::parse(&format!("[{host}]:{port}")),
        host => Addr::parse(&format!("{host}:{port}")),
    }
}
