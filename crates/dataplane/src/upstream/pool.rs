//! A worker's connections to one upstream.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use podkit_foundation::params::Addr;
use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Counter, Registry};
use tokio::time::Instant;

use super::connect::{ConnectError, dial_tcp, dial_unix};
use super::limits::UpstreamLimits;
use super::resolve::{Addresses, Names};
use super::target::Target;
use super::wire::Wire;
use crate::net::{Buf, Transport};

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
    pub fn new(target: Target, limits: UpstreamLimits, metrics: UpstreamMetrics) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            target,
            limits,
            metrics,
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
    }

    /// Opens a connection within `--connect-timeout`.
    pub async fn connect(&self) -> Result<Wire, ConnectError> {
        // Boxed: it is rare and large, and would make every connection's task so.
        let dial = Box::pin(tokio::time::timeout(
            self.limits.connect_timeout,
            self.dial(),
        ));
        let dialled = dial.await;
        let result = dialled.unwrap_or(Err(ConnectError::Timeout));
        match &result {
            Ok(_) => self.metrics.opened.inc(),
            Err(_) => self.metrics.failed.inc(),
        }
        result
    }

    async fn dial(&self) -> Result<Wire, ConnectError> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        match &self.target.addr() {
            Addr::Unix(path) => Ok(dial_unix(path).await?.into()),
            Addr::Port(port) => Ok(dial_tcp(SocketAddr::new(loopback, *port)).await?.into()),
            Addr::Ip(ip, port) => Ok(dial_tcp(SocketAddr::new(*ip, *port)).await?.into()),
            Addr::Name(name, port) => {
                let ips = self.resolve(name).await?;
                self.dial_any(&ips, *port).await
            }
        }
    }

    /// Tries the addresses in turn. Each but the last gets a part of the time.
    async fn dial_any(&self, ips: &[IpAddr], port: u16) -> Result<Wire, ConnectError> {
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
                Ok(Ok(socket)) => return Ok(socket.into()),
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

/// Nothing came on it. A read that filled its buffer leaves tokio unsure, so what it claims is there is read.
fn is_quiet(socket: &mut Wire) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    match socket.poll_readable(&mut cx) {
        Poll::Pending => true,
        Poll::Ready(Err(_)) => false,
        Poll::Ready(Ok(())) => {
            let mut probe = Buf::small();
            socket.poll_read(&mut cx, &mut probe).is_pending()
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
