//! A real Redis, and a client that shows replies as they are.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::certs::Authority;
use crate::net::free_addr;
use crate::peers::{Server, directory, launch, pinned};
use crate::{program, until};

/// A server on a port of its own.
#[derive(Debug)]
pub struct Redis {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its process.
    pub server: Server,
}

impl Redis {
    /// Starts one that keeps nothing on disk, with these arguments more.
    pub fn start(args: &[&str]) -> Self {
        Self::start_on(free_addr(), args, None)
    }

    /// The same at an address, on a core.
    pub fn start_on(addr: SocketAddr, args: &[&str], core: Option<usize>) -> Self {
        let found = program("redis-server").expect("redis-server is installed");
        let dir = directory(None);
        let mut command = pinned(core, &found);
        command
            .args([
                "--port",
                &addr.port().to_string(),
                "--bind",
                &addr.ip().to_string(),
            ])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(dir.path())
            .args(args);
        let server = launch("redis-server", dir, &mut command, addr);
        Self { addr, server }
    }

    /// Starts one whose address speaks TLS, for clients with a certificate of `authority` only.
    pub fn start_tls(authority: &Authority, dir: &Path) -> Self {
        let addr = free_addr();
        let files = TlsFiles::new(authority, &["127.0.0.1"], dir);
        let server = files.start(addr.port(), free_addr(), &[]).server;
        Self { addr, server }
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::connect(self.addr)
    }
}

/// What a server by TLS is started with.
#[derive(Debug)]
pub struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    /// The authority's certificate.
    pub ca: PathBuf,
}

impl TlsFiles {
    /// Of a server with these names, which wants certificates of the same authority from its clients.
    pub fn new(authority: &Authority, names: &[&str], dir: &Path) -> Self {
        let (cert, key) = authority.peer(names).write(dir, "redis");
        let ca = dir.join("redis-ca.pem");
        std::fs::write(&ca, authority.pem()).expect("it is the test's own");
        Self { cert, key, ca }
    }

    /// Starts one that speaks TLS at `port`, and to its primary, and plainly at `plain`, which nobody is told of.
    pub fn start(&self, port: u16, plain: SocketAddr, args: &[&str]) -> Redis {
        let said = self.said(port);
        let mut all = Vec::new();
        for (name, value) in &said {
            all.extend([name.as_str(), value.as_str()]);
        }
        all.extend(args);
        Redis::start_on(plain, &all, None)
    }

    /// The options, as flags.
    fn said(&self, port: u16) -> Vec<(String, String)> {
        let path = |path: &Path| path.display().to_string();
        [
            ("port", port.to_string()),
            ("cert-file", path(&self.cert)),
            ("key-file", path(&self.key)),
            ("ca-cert-file", path(&self.ca)),
            ("replication", "yes".to_owned()),
        ]
        .map(|(name, value)| (format!("--tls-{name}"), value))
        .to_vec()
    }

    /// The same as lines of a file.
    pub fn lines(&self, port: u16) -> String {
        let said = self.said(port).into_iter();
        said.map(|(name, value)| format!("{} {value}\n", &name[2..]))
            .collect()
    }
}

/// A sentinel on a port of its own.
#[derive(Debug)]
pub struct Sentinel {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its process.
    pub server: Server,
}

impl Sentinel {
    /// Starts one that watches a primary as `main`; `down_after` is how long that may be silent.
    pub fn start(primary: SocketAddr, quorum: u32, down_after: Duration) -> Self {
        Self::start_on(free_addr(), primary, quorum, down_after, "")
    }

    /// The same at an address, with these lines more in its file.
    pub fn start_on(
        addr: SocketAddr,
        primary: SocketAddr,
        quorum: u32,
        down_after: Duration,
        more: &str,
    ) -> Self {
        let found = program("redis-server").expect("redis-server is installed");
        let dir = directory(None);
        let (ip, port) = (primary.ip(), primary.port());
        // It writes there what it learns.
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "port {}\nbind {}\ndir {}\nsentinel monitor main {ip} {port} {quorum}\n\
             sentinel down-after-milliseconds main {}\nsentinel failover-timeout main 4000\n{more}",
            addr.port(),
            addr.ip(),
            dir.path().display(),
            down_after.as_millis(),
        );
        std::fs::write(&file, text).expect("a new file");
        let mut command = pinned(None, &found);
        command.arg(&file).arg("--sentinel");
        let server = launch("sentinel", dir, &mut command, addr);
        Self { addr, server }
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::connect(self.addr)
    }
}

/// A reply, of RESP2 or RESP3.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// `$-1`, `*-1` or `_`.
    Nothing,
    /// `+`.
    Simple(String),
    /// `-` or `!`.
    Error(String),
    /// `:`.
    Integer(i64),
    /// `$` or `=`; other bytes than UTF-8 are replaced.
    Bulk(String),
    /// `*`, `~` or `>`.
    Array(Vec<Reply>),
    /// `%`: keys and values in turn.
    Map(Vec<Reply>),
    /// Any other line, as it came.
    Other(String),
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, all: &[Self]| {
            f.write_str("[")?;
            for (at, one) in all.iter().enumerate() {
                write!(f, "{}{one}", if at == 0 { "" } else { " " })?;
            }
            f.write_str("]")
        };
        match self {
            Self::Nothing => f.write_str("nil"),
            Self::Simple(text) | Self::Bulk(text) | Self::Other(text) => f.write_str(text),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Integer(number) => write!(f, ":{number}"),
            Self::Array(all) | Self::Map(all) => list(f, all),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Opens one; a reply that takes longer than 20 s fails the test.
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a duration");
        stream.set_nodelay(true).expect("a TCP socket");
        Self {
            reader: BufReader::new(stream),
        }
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.reader
            .get_mut()
            .write_all(bytes)
            .expect("it takes bytes");
    }

    /// Sends a command.
    pub fn send(&mut self, words: &[&str]) {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        self.send_bytes(&bytes);
    }

    /// The next reply; None when the connection has ended.
    pub fn reply(&mut self) -> Option<Reply> {
        let mut line = String::new();
        let count = self.reader.read_line(&mut line).ok()?;
        if count == 0 {
            return None;
        }
        let line = line.trim_end();
        let rest = &line[1..];
        let number = || rest.parse::<i64>().expect("a number");
        Some(match line.as_bytes()[0] {
            b'+' => Reply::Simple(rest.to_owned()),
            b'-' => Reply::Error(rest.to_owned()),
            b':' => Reply::Integer(number()),
            b'_' => Reply::Nothing,
            b'$' | b'=' | b'!' => match usize::try_from(number()) {
                Err(_) => Reply::Nothing,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.reader.read_exact(&mut bytes).ok()?;
                    Reply::Bulk(String::from_utf8_lossy(&bytes[..length]).into_owned())
                }
            },
            b'*' | b'~' | b'>' => match usize::try_from(number()) {
                Err(_) => Reply::Nothing,
                Ok(count) => Reply::Array((0..count).map(|_| self.reply()).collect::<Option<_>>()?),
            },
            b'%' => {
                let count = 2 * usize::try_from(number()).expect("a length");
                Reply::Map((0..count).map(|_| self.reply()).collect::<Option<_>>()?)
            }
            _ => Reply::Other(line.to_owned()),
        })
    }

    /// The reply to a command.
    pub fn ask(&mut self, words: &[&str]) -> Reply {
        self.send(words);
        self.reply().expect("a reply")
    }

    /// The same, as a line.
    pub fn line(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        self.ask(&words).to_string()
    }
}

/// A Redis Cluster of primaries, each with so many replicas.
#[derive(Debug)]
pub struct Cluster {
    /// First the primaries, then their replicas in the same order.
    pub nodes: Vec<Redis>,
    /// How many primaries there are.
    pub primaries: usize,
}

impl Cluster {
    /// Starts one whose slots are shared out evenly; ready when all nodes say so. A node that is silent for two seconds is replaced; where
    /// there is none to replace it, for 15 s.
    pub fn start(primaries: usize, replicas: usize) -> Self {
        let nodes: Vec<Redis> = (0..primaries * (1 + replicas))
            .map(|_| Self::node_that_may_be_silent(if replicas > 0 { "2000" } else { "15000" }))
            .collect();
        for (at, node) in nodes[..primaries].iter().enumerate() {
            let (first, end) = (at * 16_384 / primaries, (at + 1) * 16_384 / primaries);
            let mut client = node.client();
            let epoch = client.line(&format!("cluster set-config-epoch {}", at + 1));
            let added = client.line(&format!("cluster addslotsrange {first} {}", end - 1));
            assert_eq!((epoch.as_str(), added.as_str()), ("OK", "OK"));
        }
        let cluster = Self { nodes, primaries };
        for node in &cluster.nodes[1..] {
            cluster.meet(node);
        }
        for (at, node) in cluster.nodes.iter().enumerate().skip(primaries) {
            let of = cluster.nodes[at % primaries].id();
            until("the node knows the primary", || {
                let done = node.client().line(&format!("cluster replicate {of}"));
                (done == "OK").then_some(())
            });
        }
        let known = format!("cluster_known_nodes:{}", cluster.nodes.len());
        for node in &cluster.nodes {
            until("the cluster is ready", || {
                let info = node.client().line("cluster info");
                (info.contains("cluster_state:ok") && info.contains(&known)).then_some(())
            });
        }
        for node in &cluster.nodes[primaries..] {
            until("the replica has all", || {
                let role = node.client().line("role");
                role.contains(" connected ").then_some(())
            });
        }
        cluster
    }

    /// A node that belongs to none yet.
    pub fn node() -> Redis {
        Self::node_that_may_be_silent("15000")
    }

    /// For so many milliseconds.
    fn node_that_may_be_silent(ms: &str) -> Redis {
        let bus = free_addr().port().to_string();
        let args = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        let more = [
            "--cluster-node-timeout",
            ms,
            "--repl-diskless-sync-delay",
            "0",
        ];
        Redis::start(&[args, more].concat())
    }

    /// Makes a node one of the cluster's.
    pub fn meet(&self, node: &Redis) {
        let info = node.client().line("info server");
        assert!(info.contains("redis_mode:cluster"), "{info}");
        let (addr, bus) = (node.addr, node.client().line("config get cluster-port"));
        let bus = bus.trim_matches(['[', ']']).replace("cluster-port ", "");
        let met = format!("cluster meet {} {} {bus}", addr.ip(), addr.port());
        assert_eq!(self.nodes[0].client().line(&met), "OK");
    }

    /// The primary that has a slot, as it says itself.
    pub fn owner(&self, slot: u16) -> &Redis {
        let mut all = self.nodes[..self.primaries].iter();
        let has = |node: &&Redis| {
            let all = node.client().ask(&["CLUSTER", "NODES"]).to_string();
            let mine = all
                .lines()
                .find(|line| line.contains("myself"))
                .map(str::to_owned);
            let slots = mine.unwrap_or_default();
            slots.split(' ').skip(8).any(|stretch| {
                let (first, last) = stretch.split_once('-').unwrap_or((stretch, stretch));
                let number = |text: &str| text.parse::<u16>().unwrap_or(u16::MAX);
                (number(first)..=number(last)).contains(&slot)
            })
        };
        all.find(has)
            .unwrap_or_else(|| panic!("nobody has slot {slot}"))
    }
}

impl Redis {
    /// Its name in a cluster.
    pub fn id(&self) -> String {
        self.client().line("cluster myid")
    }
}

/// Moves a slot with its keys from one node of a cluster to another, as `redis-cli --cluster reshard` does, so many keys at once.
pub fn migrate(slot: u16, from: &Redis, to: &Redis, others: &[&Redis], at_once: usize) -> usize {
    let (mut source, mut target) = (from.client(), to.client());
    let (from_id, to_id) = (from.id(), to.id());
    let importing = target.line(&format!("cluster setslot {slot} importing {from_id}"));
    let migrating = source.line(&format!("cluster setslot {slot} migrating {to_id}"));
    assert_eq!((importing.as_str(), migrating.as_str()), ("OK", "OK"));
    let mut moved = 0;
    loop {
        let keys = source.ask(&[
            "CLUSTER",
            "GETKEYSINSLOT",
            &slot.to_string(),
            &at_once.to_string(),
        ]);
        let Reply::Array(keys) = keys else {
            panic!("no keys: {keys}")
        };
        if keys.is_empty() {
            break;
        }
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let (ip, port) = (to.addr.ip().to_string(), to.addr.port().to_string());
        let mut words = vec!["MIGRATE", &ip, &port, "", "0", "5000", "KEYS"];
        words.extend(keys.iter().map(String::as_str));
        let done = source.ask(&words).to_string();
        assert!(done == "OK" || done == "NOKEY", "{done}");
        moved += keys.len();
    }
    let taken = format!("cluster setslot {slot} node {to_id}");
    for node in [to, from].iter().chain(others) {
        assert_eq!(node.client().line(&taken), "OK");
    }
    moved
}
