//! Lines as they came, sent on to another statsd by UDP.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memchr::memchr_iter;
use podkit_dataplane::upstream::lookup;
use podkit_foundation::params::Addr;
use tokio::net::UdpSocket;

use crate::metrics::batch::{Batch, Kind};

/// Bytes of a packet: no network between two pods cuts it.
const MOST: usize = 1400;

/// How long an address of a name is used.
const FRESH: Duration = Duration::from_secs(60);

/// What was sent on.
#[derive(Debug)]
pub(super) struct Relayed {
    pub(super) target: String,
    packets: AtomicU64,
    lines: AtomicU64,
    long_lines: AtomicU64,
    lost: AtomicU64,
}

impl Relayed {
    pub(super) fn new(target: String) -> Arc<Self> {
        Arc::new(Self {
            target,
            packets: AtomicU64::default(),
            lines: AtomicU64::default(),
            long_lines: AtomicU64::default(),
            lost: AtomicU64::default(),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "what is shown is a float")]
    pub(super) fn show(&self, batch: &mut Batch) {
        let all = [
            (
                "statsd_exporter_relay_packets_total",
                "The number of StatsD packets relayed.",
                &self.packets,
            ),
            (
                "statsd_exporter_relay_lines_relayed_total",
                "The number of lines that were buffered to be relayed.",
                &self.lines,
            ),
            (
                "statsd_exporter_relay_long_lines_total",
                "The number lines that were too long to relay.",
                &self.long_lines,
            ),
            (
                "podkit_metrics_statsd_relay_lost_packets_total",
                "Packets that could not be sent on.",
                &self.lost,
            ),
        ];
        for (name, help, value) in all {
            batch.family(name, Kind::Counter, help).put(
                &[("target", &self.target)],
                value.load(Ordering::Relaxed) as f64,
            );
        }
    }
}

/// Where lines go.
pub(super) struct Relay {
    socket: RefCell<Option<UdpSocket>>,
    packet: RefCell<Vec<u8>>,
    relayed: Arc<Relayed>,
}

impl Relay {
    pub(super) fn new(relayed: Arc<Relayed>) -> Rc<Self> {
        Rc::new(Self {
            socket: RefCell::default(),
            packet: RefCell::new(Vec::with_capacity(MOST)),
            relayed,
        })
    }

    /// Connects, again and again: a name may have got another address.
    pub(super) async fn keep(&self, addr: &Addr) {
        loop {
            match connect(addr).await {
                Ok(socket) => drop(self.socket.replace(Some(socket))),
                Err(why) => tracing::warn!(target = self.relayed.target, why, "no relay"),
            }
            tokio::time::sleep(FRESH).await;
        }
    }

    /// Takes lines.
    pub(super) fn take(&self, lines: &[u8]) {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let mut from = 0;
        for to in memchr_iter(b'\n', lines).chain([lines.len()]) {
            let line = &lines[from..to];
            from = to + 1;
            if line.is_empty() {
                continue;
            }
            if line.len() >= MOST {
                count(&self.relayed.long_lines);
                continue;
            }
            if self.packet.borrow().len() + line.len() >= MOST {
                self.flush();
            }
            count(&self.relayed.lines);
            let mut packet = self.packet.borrow_mut();
            packet.extend_from_slice(line);
            packet.push(b'\n');
        }
    }

    /// Sends what there is.
    pub(super) fn flush(&self) {
        let mut packet = self.packet.borrow_mut();
        if packet.is_empty() {
            return;
        }
        let socket = self.socket.borrow();
        let sent = socket.as_ref().is_some_and(|socket| {
            // An error may be that of a packet before.
            let sent = socket
                .try_send(&packet)
                .or_else(|_| socket.try_send(&packet));
            sent.is_ok()
        });
        let counter = match sent {
            true => &self.relayed.packets,
            false => &self.relayed.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        packet.clear();
    }
}

async fn connect(addr: &Addr) -> Result<UdpSocket, String> {
    let to = match addr {
        Addr::Ip(ip, port) => SocketAddr::new(*ip, *port),
        Addr::Port(port) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), *port),
        Addr::Name(name, port) => {
            let ips = lookup(name).await?;
            let ip = ips.first().ok_or("no address")?;
            SocketAddr::new(*ip, *port)
        }
        Addr::Unix(_) => return Err("a relay is HOST:PORT".to_owned()),
    };
    let own = match to {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    let socket = UdpSocket::bind(own)
        .await
        .map_err(|error| error.to_string())?;
    let connected = socket.connect(to).await;
    connected.map_err(|error| error.to_string())?;
    Ok(socket)
}
