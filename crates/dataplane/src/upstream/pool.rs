//! A worker's connections to one upstream.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::uri::Scheme;
use podkit_foundation::params::Addr;
use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Counter, Registry};
use tokio::time::Instant;

use super::connect::{ConnectError, dial, dial_tcp};
use super::limits::UpstreamLimits;
use super::mux::Mux;
use super::outward::Outward;
use super::resolve::{Addresses, Names};
use super::target::{Speech, Target};
use super::wire::Wire;
use crate::net::{Buf, Path, SendProxy, Socket, Transport, put_header};
use crate::tls::{Inside, TlsStream, UpstreamTls};

/// What is counted about upstream connections.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    opened: Counter,
    failed: Counter,
    reused: Counter,
}

impl UpstreamMetrics {
    /// The families, for a module's surface.
    pub const METRICS: &[Metric] = &[Metric {
        name: "podkit_upstream_connections_total",
        kind: "counter",
        labels: &["result"],
        doc: "Connections to the upstream: opened; failed; reused (a request sent on one that was kept).",
    }];

    /// Handles to them.
    pub fn new(metrics: &Registry) -> Self {
        let Metric { name, doc, .. } = Self::METRICS[0];
        let result = |word| metrics.counter(name, doc, &[("result", word)]);
        Self {
            opened: result("opened"),
            failed: result("failed"),
            reused: result("reused"),
        }
    }
}

/// The connections of one worker to one upstream. Not shared with other threads.
#[derive(Debug)]
pub struct Pool {
    target: Target,
    limits: UpstreamLimits,
    metrics: UpstreamMetrics,
    outward: Outward,
    mux: Rc<Mux>,
    /// Of TLS' files, when the kept connections were opened.
    generation: Cell<u64>,
    /// It has chosen HTTP/1.1 by ALPN.
    declined: Cell<bool>,
    /// The one that was used last comes last.
    idle: RefCell<Vec<Idle>>,
    pruning: Cell<bool>,
    names: RefCell<Option<Names>>,
    addresses: RefCell<Option<Addresses>>,
    /// Which address is tried first, so that a name's addresses share the load.
    turn: Cell<usize>,
    me: Weak<Self>,
}

#[derive(Debug)]
struct Idle {
    socket: Wire,
    since: Instant,
}

impl Pool {
    /// An empty pool.
    pub fn new(
        target: Target,
        limits: UpstreamLimits,
        metrics: UpstreamMetrics,
        outward: Outward,
    ) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            target,
            limits,
            metrics,
            outward,
            mux: Rc::default(),
            generation: Cell::new(0),
            declined: Cell::new(false),
            idle: RefCell::default(),
            pruning: Cell::new(false),
            names: RefCell::default(),
            addresses: RefCell::default(),
            turn: Cell::new(0),
            me: me.clone(),
        })
    }

    /// What is dialled.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The bounds.
    pub fn limits(&self) -> &UpstreamLimits {
        &self.limits
    }

    /// A kept connection on which nothing has come since: not the end either, as far as epoll has told.
    pub fn take(&self) -> Option<Wire> {
        let generation = self.tls_generation();
        if self.generation.replace(generation) != generation {
            self.clear();
        }
        if self.multiplexes()
            && let Some(stream) = self.take_stream()
        {
            self.metrics.reused.inc();
            return Some(stream);
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(mut kept) = idle.pop() {
            if is_quiet(&mut kept.socket) {
                self.metrics.reused.inc();
                return Some(kept.socket);
            }
        }
        None
    }

    /// Keeps a connection on which a whole answer was read, if there is room. `now` is when.
    pub fn keep(&self, socket: Wire, now: Instant) {
        if !socket.can_be_kept(self.tls_generation()) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.limits.upstream_idle as usize {
            return;
        }
        idle.push(Idle { socket, since: now });
        if !self.pruning.replace(true) {
            let pruning = prune(self.me.clone(), self.limits.upstream_idle_timeout);
            drop(tokio::task::spawn_local(pruning));
        }
    }

    /// Closes all kept connections.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.mux.clear();
    }

    /// Opens a connection within `--connect-timeout`.
    pub async fn connect(&self) -> Result<Wire, ConnectError> {
        // Boxed: it is rare and large, and would make every connection's task so.
        let dial = Box::pin(tokio::time::timeout(
            self.limits.connect_timeout,
            self.open(),
        ));
        dial.await.unwrap_or_else(|_| {
            self.metrics.failed.inc();
            Err(ConnectError::Timeout)
        })
    }

    /// Opens a connection on which nothing is multiplexed, whatever it speaks, within `--connect-timeout`. `proxied`: the
    /// version of the PROXY protocol by which the upstream is told first from where to where its client came.
    pub async fn connect_alone(
        &self,
        proxied: Option<(SendProxy, Option<Path>)>,
    ) -> Result<Wire, ConnectError> {
        let inside = match self.target.speech() {
            Speech::Tls(_) if self.offers_http2() => Inside::Http2,
            _ => self.inside(),
        };
        let dial = Box::pin(tokio::time::timeout(
            self.limits.connect_timeout,
            self.counted(inside, proxied),
        ));
        let (wire, _) = dial.await.unwrap_or_else(|_| {
            self.metrics.failed.inc();
            Err(ConnectError::Timeout)
        })?;
        Ok(wire)
    }

    /// How often TLS' files have changed.
    fn tls_generation(&self) -> u64 {
        self.outward.tls.as_ref().map_or(0, UpstreamTls::generation)
    }

    fn offers_http2(&self) -> bool {
        self.outward
            .tls
            .as_ref()
            .is_some_and(UpstreamTls::offers_http2)
    }

    /// What a connection that is not to be HTTP/2 carries.
    fn inside(&self) -> Inside {
        match self.outward.raw {
            true => Inside::Any,
            false => Inside::Http1,
        }
    }

    /// Requests share connections.
    fn multiplexes(&self) -> bool {
        match self.target.speech() {
            _ if self.outward.raw => false,
            Speech::Plain => false,
            Speech::H2c => true,
            Speech::Tls(_) => self.offers_http2() && !self.declined.get(),
        }
    }

    fn take_stream(&self) -> Option<Wire> {
        let most = self.limits.upstream_h2_connections as usize;
        let stream = self.mux.take(most)?;
        Some(Wire::Http2(Box::new(stream)))
    }

    async fn open(&self) -> Result<Wire, ConnectError> {
        while self.multiplexes() {
            // One dials; who came meanwhile looks again.
            let Some(dialling) = self.mux.dial().await else {
                if let Some(stream) = self.take_stream() {
                    return Ok(stream);
                }
                continue;
            };
            let (wire, http2) = self.counted(Inside::Http2, None).await?;
            if !http2 && self.target.is_tls() {
                self.declined.set(true);
                return Ok(wire);
            }
            // The files changed while hands were shaken.
            if !wire.can_be_kept(self.tls_generation()) {
                continue;
            }
            let scheme = match self.target.is_tls() {
                true => Scheme::HTTPS,
                false => Scheme::HTTP,
            };
            let idle = self.limits.upstream_idle_timeout;
            self.mux.add(wire, scheme, idle).await?;
            drop(dialling);
            if let Some(stream) = self.take_stream() {
                return Ok(stream);
            }
        }
        let (wire, _) = self.counted(self.inside(), None).await?;
        Ok(wire)
    }

    async fn counted(
        &self,
        inside: Inside,
        proxied: Option<(SendProxy, Option<Path>)>,
    ) -> Result<(Wire, bool), ConnectError> {
        let result = self.protect(inside, proxied).await;
        match &result {
            Ok(_) => self.metrics.opened.inc(),
            Err(_) => self.metrics.failed.inc(),
        }
        result
    }

    /// Dials, and shakes hands where TLS is spoken. True when HTTP/2 was agreed on.
    async fn protect(
        &self,
        inside: Inside,
        proxied: Option<(SendProxy, Option<Path>)>,
    ) -> Result<(Wire, bool), ConnectError> {
        let mut socket = self.dial().await?;
        if let Some((version, path)) = proxied {
            let header = put_header(version, path);
            let mut sent = 0;
            while sent < header.len() {
                let part = [IoSlice::new(&header[sent..])];
                sent += poll_fn(|cx| socket.poll_write(cx, &part)).await?;
            }
        }
        let Speech::Tls(name) = self.target.speech() else {
            return Ok((Wire::Plain(socket), false));
        };
        let Some(tls) = &self.outward.tls else {
            let why = "an upstream that a file names needs --upstream-ca for TLS";
            let why = io::Error::other(why);
            return Err(ConnectError::Failed(why));
        };
        let generation = tls.generation();
        let shake = TlsStream::connect(socket, tls.config(inside), name.clone());
        let handshake = shake.await.map_err(ConnectError::Tls)?;
        let http2 = handshake.connection().alpn_protocol() == Some(b"h2");
        let stream = handshake.into_stream().map_err(ConnectError::Tls)?;
        let stream = Box::new(stream);
        Ok((Wire::Tls { stream, generation }, http2))
    }

    async fn dial(&self) -> Result<Socket, ConnectError> {
        match self.target.addr() {
            Addr::Name(name, port) => {
                let ips = self.resolve(name).await?;
                self.dial_any(&ips, *port).await
            }
            other => dial(other).await,
        }
    }

    /// Tries the addresses in turn. Each but the last gets a part of the time.
    async fn dial_any(&self, ips: &[IpAddr], port: u16) -> Result<Socket, ConnectError> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        // Only addresses of the preferred family share the load; the others are for when those fail.
        let preferred = ips
            .iter()
            .take_while(|ip| ip.is_ipv4() == ips[0].is_ipv4())
            .count();
        let mut order: Vec<IpAddr> = ips.to_vec();
        order[..preferred].rotate_left(turn % preferred.max(1));
        let share = self.limits.connect_timeout / 3;
        let mut last = ConnectError::Name("no address".to_owned());
        for ip in order {
            match tokio::time::timeout(share, dial_tcp(SocketAddr::new(ip, port))).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => last = error.into(),
                Err(_) => last = ConnectError::Timeout,
            }
        }
        Err(last)
    }

    /// The addresses of a name, from memory for their time to live. When they change, kept connections are closed:
    /// the old addresses may be somebody else's by now.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ConnectError> {
        let known = self.addresses.borrow().clone();
        if let Some(known) = &known
            && known.until > std::time::Instant::now()
        {
            return Ok(known.ips.clone());
        }
        let names = match &*self.names.borrow() {
            Some(names) => Ok(names.clone()),
            None => Names::new(),
        };
        let names = names.map_err(ConnectError::Name)?;
        *self.names.borrow_mut() = Some(names.clone());
        match names.lookup(name).await {
            Ok(fresh) => {
                if known.is_some_and(|known| known.ips != fresh.ips) {
                    self.clear();
                }
                let ips = fresh.ips.clone();
                *self.addresses.borrow_mut() = Some(fresh);
                Ok(ips)
            }
            // A name server that is away for a while must not take us with it.
            Err(why) => match known {
                Some(known) => Ok(known.ips),
                None => Err(ConnectError::Name(why)),
            },
        }
    }

    /// A name's time to live is over while kept connections are in use: looks it up again.
    async fn refresh(&self) {
        let Addr::Name(name, _) = self.target.addr() else {
            return;
        };
        // What is wrong with the name is told to the next request that needs it.
        drop(self.resolve(name).await);
    }
}

/// Nothing came on it. What comes by TLS need not be for us: what is said to be there is read.
fn is_quiet(wire: &mut Wire) -> bool {
    if let Wire::Plain(socket) = wire {
        return socket.is_quiet();
    }
    let mut cx = Context::from_waker(Waker::noop());
    match wire.poll_readable(&mut cx) {
        Poll::Pending => true,
        Poll::Ready(Err(_)) => false,
        Poll::Ready(Ok(())) => {
            let mut probe = Buf::small();
            wire.poll_read(&mut cx, &mut probe).is_pending()
        }
    }
}

/// Closes connections that were kept for too long or that the upstream closed, until none is left.
async fn prune(pool: Weak<Pool>, idle_timeout: Duration) {
    let pause = (idle_timeout / 4).clamp(Duration::from_millis(1), Duration::from_secs(1));
    loop {
        tokio::time::sleep(pause).await;
        let Some(pool) = pool.upgrade() else {
            return;
        };
        pool.refresh().await;
        let now = Instant::now();
        let mut idle = pool.idle.borrow_mut();
        idle.retain_mut(|kept| {
            now.duration_since(kept.since) < idle_timeout && is_quiet(&mut kept.socket)
        });
        if idle.is_empty() {
            pool.pruning.set(false);
            return;
        }
    }
}
