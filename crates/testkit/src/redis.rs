//! A real Redis, and a client that shows replies as they are.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::certs::Authority;
use crate::net::free_addr;
use crate::peers::{Server, directory, launch, pinned};
use crate::program;

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
