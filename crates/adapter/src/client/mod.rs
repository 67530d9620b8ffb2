//! Clients of the servers that are asked: as much of their protocols as asking takes.
//!
//! ```text
//!   Login ──▶ dial ──▶ Line (plain, or TLS when it is spoken) ──▶ mysql::Conn, postgres::Conn ──▶ Table
//! ```
//!
//! No task is spawned for a connection: who drops the future of a question drops the question, and its connection with it. The text
//! protocols are our own, since the usual libraries bring what is not wanted here: mysql_async has a TLS configuration of its own with
//! authorities compiled in, regular expressions and a second zlib; tokio-postgres has a task for each connection. What of them is
//! hard (SCRAM) comes from postgres-protocol.

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod line;
pub(crate) mod memcached;
pub(crate) mod mysql;
pub(crate) mod postgres;
pub(crate) mod redis;
mod table;

use std::path::PathBuf;
use std::sync::Arc;

use podkit_dataplane::tls::{Inside, UpstreamTls};
use podkit_dataplane::upstream::{ConnectError, dial, lookup};
use podkit_foundation::params::Addr;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

pub(crate) use line::Line;
#[cfg(test)]
pub(crate) use table::table;
pub(crate) use table::{Class, Column, Row, Table};

/// Bytes of a password's file at most.
const MOST_SECRET: u64 = 4096;

/// When TLS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsMode {
    /// Never.
    Off,
    /// When the server offers it; its certificate is not looked at.
    Prefer,
    /// Always; its certificate is not looked at.
    Require,
    /// Always, with a certificate that is the server's.
    Verify,
}

impl TlsMode {
    /// As it is written.
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify" => Ok(Self::Verify),
            _ => Err(format!("tls={text} is not off, prefer, require or verify")),
        }
    }

    /// As it is said; else with who can be verified (`ca`: there are authorities for that), and with anybody where nobody can.
    pub(crate) fn of(said: Option<&str>, addr: &Addr, ca: bool) -> Result<Self, String> {
        match (said, addr) {
            (Some("verify"), Addr::Unix(_)) => {
                Err("tls=verify is for servers that are reached by TCP".to_owned())
            }
            (Some(text), _) => Self::parse(text),
            (None, Addr::Unix(_)) => Ok(Self::Off),
            (None, _) if ca => Ok(Self::Verify),
            (None, _) => Ok(Self::Prefer),
        }
    }

    /// The files of TLS are of use; `cert`: there is a certificate to be shown.
    pub(crate) fn uses_files(self, cert: bool) -> bool {
        match self {
            Self::Verify => true,
            Self::Prefer | Self::Require => cert,
            Self::Off => false,
        }
    }
}

/// Where a server is, and who comes.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) addr: Addr,
    pub(crate) user: String,
    /// Read at each connection, so that a password can be changed.
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) database: Option<String>,
    pub(crate) tls: TlsMode,
    /// The files of TLS; there must be some for [`TlsMode::Verify`].
    pub(crate) files: Option<UpstreamTls>,
}

/// What opening a connection has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Dns,
    Connect,
    Tls,
    Auth,
}

/// Hears of it.
pub(crate) type Told<'a> = &'a dyn Fn(Step);

/// What a server says, or what becomes of a connection to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server refuses what it was asked; the connection goes on.
    Said { code: String, text: String },
    /// There is no connection any more, or it can't be used.
    Lost(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Said { code, text } => write!(f, "answered {code}: {text}"),
            Self::Lost(why) => f.write_str(why),
        }
    }
}

impl Fault {
    fn lost(why: impl Into<String>) -> Self {
        Self::Lost(why.into())
    }
}

/// The next of the answers to a question of several statements.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Rows, or none where a statement has none.
    Table(Table),
    /// This one was refused; what followed it was not looked at.
    Refused(Fault),
    /// There are no more.
    End,
}

impl Login {
    /// How often the files of TLS have changed: a connection belongs to the count from before it was opened.
    pub(crate) fn generation(&self) -> u64 {
        self.files.as_ref().map_or(0, UpstreamTls::generation)
    }

    /// The password, without the line's end.
    fn password(&self) -> Result<Vec<u8>, Fault> {
        let Some(path) = &self.password_file else {
            return Ok(Vec::new());
        };
        let wrong =
            |why: String| Fault::Lost(format!("its password-file {}: {why}", path.display()));
        let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
        let mut secret = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MOST_SECRET + 1), &mut secret)
            .map_err(|error| wrong(error.to_string()))?;
        if secret.len() as u64 > MOST_SECRET {
            return Err(wrong(format!("has more than {MOST_SECRET} bytes")));
        }
        while matches!(secret.last(), Some(b'\n' | b'\r')) {
            secret.pop();
        }
        Ok(secret)
    }

    /// A connection, and no word on it yet.
    async fn dial(&self, told: Told<'_>) -> Result<Line, Fault> {
        let wrong = |why: ConnectError| Fault::Lost(format!("can't be reached: {why}"));
        let Addr::Name(name, port) = &self.addr else {
            told(Step::Connect);
            let socket = dial(&self.addr).await.map_err(wrong)?;
            told(Step::Auth);
            return Ok(Line::plain(socket));
        };
        told(Step::Dns);
        let ips = lookup(name).await;
        let ips = ips.map_err(|why| wrong(ConnectError::Name(why)))?;
        told(Step::Connect);
        let mut last = ConnectError::Name("no address".to_owned());
        for ip in ips {
            match dial(&Addr::Ip(ip, *port)).await {
                Ok(socket) => {
                    told(Step::Auth);
                    return Ok(Line::plain(socket));
                }
                Err(why) => last = why,
            }
        }
        Err(wrong(last))
    }

    /// TLS is asked for, if the server has it; never over a unix socket.
    fn wants_tls(&self) -> bool {
        self.tls != TlsMode::Off && !matches!(self.addr, Addr::Unix(_))
    }

    /// What is sent can't be read on its way by anybody else: a unix socket, or TLS with who the server is known.
    fn is_private(&self, line: &Line) -> bool {
        matches!(self.addr, Addr::Unix(_)) || (line.is_tls() && self.tls == TlsMode::Verify)
    }

    /// What a handshake begins with.
    fn tls(&self) -> Result<(Arc<ClientConfig>, ServerName<'static>), Fault> {
        let name = match &self.addr {
            Addr::Name(name, _) => ServerName::try_from(name.clone())
                .map_err(|_| Fault::Lost(format!("\"{name}\" is no name of a certificate")))?,
            Addr::Ip(ip, _) => ServerName::IpAddress((*ip).into()),
            Addr::Port(_) | Addr::Unix(_) => {
                ServerName::try_from("localhost").expect("it is a name")
            }
        };
        let config = match (&self.files, self.tls) {
            (Some(files), TlsMode::Verify) => files.config(Inside::Any),
            (files, _) => line::unverified(files.as_ref().map(|files| files.config(Inside::Any)))?,
        };
        Ok((config, name))
    }
}
