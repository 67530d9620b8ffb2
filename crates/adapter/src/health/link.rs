//! Connections to what is asked: dialled phase by phase, so that a result can say what took how long, and kept from one try to the
//! next until it is time for a new one.

use std::future::poll_fn;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

use podkit_dataplane::net::{Buf, Transport};
use podkit_dataplane::tls::{Inside, TlsStream, UpstreamTls};
use podkit_dataplane::upstream::{Speech, Target, Wire, dial, lookup};
use podkit_foundation::params::{Addr, Scheme as Spoken, Upstream, Where};
use tokio::time::Instant;

use super::phases::{Phase, Phases};
use super::spec::{Place, Spec};

/// Bytes that are read at a time.
const READ_BYTES: usize = 16 * 1024;

/// What probers are made with.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) tls: Option<UpstreamTls>,
    /// How long a connection is kept.
    pub(crate) relogin: Duration,
}

/// A server, and the connection to it that is kept.
pub(crate) struct Link {
    target: Target,
    inside: Inside,
    tls: Option<UpstreamTls>,
    relogin: Duration,
    kept: Option<Line>,
}

/// A connection, and since when it is there.
pub(crate) struct Line {
    pub(crate) wire: Wire,
    /// What was read and not taken yet.
    pub(crate) input: Buf,
    since: Instant,
    /// Of TLS' files, from before it was opened.
    generation: u64,
    /// It was used before.
    pub(crate) used: bool,
}

impl Link {
    /// Opens nothing. An error says what of the probe is wrong.
    pub(crate) fn new(spec: &Spec, ground: &Ground, inside: Inside) -> Result<Self, String> {
        let Place::Server(addr, _) = &spec.place else {
            return Err("it names no server".to_owned());
        };
        let upstream = Upstream {
            scheme: match spec.scheme.tls {
                true => Spoken::Https,
                false => Spoken::Plain,
            },
            place: Where::Addr(addr.clone()),
            weight: 1,
            priority: 0,
            server_name: spec.option("server-name").map(str::to_owned),
        };
        if !spec.scheme.tls && upstream.server_name.is_some() {
            let word = spec.scheme.word;
            return Err(format!(
                "server-name= is for {word}s://, whose certificate is verified for it"
            ));
        }
        Ok(Self {
            target: Target::new("probe", "health", &upstream).map_err(|why| why.to_string())?,
            inside,
            tls: ground.tls.clone(),
            relogin: ground.relogin,
            kept: None,
        })
    }

    /// How often TLS' files have changed.
    fn generation(&self) -> u64 {
        self.tls.as_ref().map_or(0, UpstreamTls::generation)
    }

    /// How it is called where its protocol has hosts.
    pub(crate) fn host(&self) -> &str {
        self.target.host()
    }

    /// The kept connection, when it is neither too old nor closed; it is not kept any more.
    pub(crate) fn take(&mut self) -> Option<Line> {
        let mut line = self.kept.take()?;
        let same = line.generation == self.generation();
        let fresh = same && line.since.elapsed() < self.relogin;
        (fresh && line.is_quiet()).then_some(line)
    }

    /// Keeps a connection on which nothing is awaited.
    pub(crate) fn keep(&mut self, mut line: Line) {
        line.used = true;
        self.kept = Some(line);
    }

    /// A new connection.
    pub(crate) async fn open(&self, phases: &Phases) -> Result<Line, String> {
        let generation = self.generation();
        let socket = match self.target.addr() {
            Addr::Name(name, port) => {
                phases.enter(Phase::Dns);
                let ips = lookup(name).await;
                let ips = ips.map_err(|why| format!("the name {name} can't be resolved: {why}"))?;
                phases.enter(Phase::Connect);
                let mut last = Err("has no address".to_owned());
                for ip in ips {
                    let addr = SocketAddr::new(ip, *port);
                    let dialled = dial(&Addr::Ip(addr.ip(), addr.port())).await;
                    last = dialled.map_err(|why| format!("{addr}: {why}"));
                    if last.is_ok() {
                        break;
                    }
                }
                last?
            }
            other => {
                phases.enter(Phase::Connect);
                dial(other).await.map_err(|why| why.to_string())?
            }
        };
        let wire = match (self.target.speech(), &self.tls) {
            (Speech::Tls(name), Some(tls)) => {
                phases.enter(Phase::Tls);
                let shake = TlsStream::connect(socket, tls.config(self.inside), name.clone());
                let stream = shake.await.and_then(|shaken| shaken.into_stream());
                Wire::Tls {
                    stream: Box::new(stream.map_err(|why| format!("TLS: {why}"))?),
                    generation,
                }
            }
            _ => Wire::Plain(socket),
        };
        Ok(Line {
            wire,
            input: Buf::small(),
            since: Instant::now(),
            generation,
            used: false,
        })
    }
}

impl Line {
    /// Nothing came that was not asked for: not the end either.
    fn is_quiet(&mut self) -> bool {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        self.input.is_empty() && self.wire.poll_read(&mut cx, &mut Buf::small()).is_pending()
    }

    /// Sends all of it.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut sent = 0;
        while sent < bytes.len() {
            let part = [IoSlice::new(&bytes[sent..])];
            let count = poll_fn(|cx| self.wire.poll_write(cx, &part)).await;
            sent += count.map_err(|why| why.to_string())?;
        }
        let flushed = poll_fn(|cx| self.wire.poll_flush(cx)).await;
        flushed.map_err(|why| why.to_string())
    }

    /// Reads until `whole` finds something in what has come, of `most` bytes at most; takes nothing.
    pub(crate) async fn read<T>(
        &mut self,
        most: usize,
        mut whole: impl FnMut(&[u8]) -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        loop {
            if let Some(found) = whole(self.input.filled())? {
                return Ok(found);
            }
            if self.input.len() > most {
                return Err(format!("answers with more than {most} bytes"));
            }
            if self.input.spare().is_empty() {
                self.input.reserve(READ_BYTES);
            }
            let read = poll_fn(|cx| self.wire.poll_read(cx, &mut self.input)).await;
            match read {
                Ok(0) => return Err("closed without an answer".to_owned()),
                Ok(_) => {}
                Err(why) => return Err(format!("broke off: {why}")),
            }
        }
    }
}
