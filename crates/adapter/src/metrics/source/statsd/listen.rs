//! The thread that takes lines: one for all sockets, so that whatever is busy elsewhere in the process, packets don't wait for it.
//!
//! Packets are taken one by one, up to some hundred before the next look at who else waits. A packet has some thirty lines: what
//! `recvmmsg` would save is a small part of what it costs, and it has no safe form in the libraries that are here already.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use podkit_foundation::params::Addr;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram};
use tokio::sync::oneshot;

use super::lines::{Lines, Piece};
use super::relay::{Relay, Relayed};
use super::sockets::{Sockets, Unixgram};
use super::table::Table;

/// The largest packet there is.
const MOST_BYTES: usize = 1 << 16;
/// Packets between looks at who else waits.
const BATCH: usize = 128;
/// Streams at a time.
const MOST_STREAMS: usize = 1024;

/// The running thread; it ends with this.
pub(super) struct Thread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What it could say of itself was said where it happened.
            thread.join().ok();
        }
    }
}

/// What the thread's parts share.
struct Shared {
    table: Arc<Mutex<Table>>,
    since: Instant,
    relay: Option<Rc<Relay>>,
    buffer: RefCell<Vec<u8>>,
}

/// The table; who panicked while it had it left nothing half done that matters to the next.
pub(super) fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to take lines.
pub(super) fn start(
    sockets: Sockets,
    table: Arc<Mutex<Table>>,
    relay: Option<(Addr, Arc<Relayed>)>,
) -> Result<Thread, String> {
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let run = move || {
        let all = tokio::task::LocalSet::new();
        let live = async move {
            tokio::select! {
                result = take(sockets, table, relay) => {
                    if let Err(error) = result {
                        tracing::error!(%error, "statsd is not listened to any more");
                    }
                }
                _ = stopped => {}
            }
        };
        all.block_on(&runtime, live);
    };
    let thread = std::thread::Builder::new()
        .name("statsd".to_owned())
        .spawn(run)
        .map_err(|error| error.to_string())?;
    Ok(Thread {
        stop: Some(stop),
        thread: Some(thread),
    })
}

async fn take(
    sockets: Sockets,
    table: Arc<Mutex<Table>>,
    relay: Option<(Addr, Arc<Relayed>)>,
) -> io::Result<()> {
    let (to, relay) = match relay {
        Some((addr, relayed)) => (Some(addr), Some(Relay::new(relayed))),
        None => (None, None),
    };
    let shared = Rc::new(Shared {
        table,
        since: Instant::now(),
        relay,
        buffer: RefCell::new(vec![0; MOST_BYTES]),
    });
    if let (Some(addr), Some(relay)) = (to, &shared.relay) {
        let relay = Rc::clone(relay);
        drop(tokio::task::spawn_local(
            async move { relay.keep(&addr).await },
        ));
    }
    let udp = sockets.udp.map(UdpSocket::from_std).transpose()?;
    let tcp = sockets.tcp.map(TcpListener::from_std).transpose()?;
    let unixgram = match sockets.unixgram {
        None => None,
        Some(bound) => Some((UnixDatagram::from_std(bound.socket.try_clone()?)?, bound)),
    };
    tokio::select! {
        result = packets(udp, &shared) => result,
        result = datagrams(unixgram, &shared) => result,
        result = streams(tcp, &shared) => result,
        () = tick(&shared) => Ok(()),
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = lock(&self.table);
        table.at(self.since.elapsed().as_secs_f64());
        table
    }

    fn lines(&self, table: &mut Table, lines: &[u8]) {
        table.packet(lines);
        if let Some(relay) = &self.relay {
            relay.take(lines);
        }
    }

    /// Takes packets until there are none, or others should have their turn.
    async fn drain(
        &self,
        mut next: impl FnMut(&mut [u8]) -> io::Result<usize>,
        count: impl Fn(&mut Table),
    ) {
        match self.some(&mut next, count) {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => {
                // Of what the machine has too little for now.
                tracing::warn!(%error, "no statsd packet was taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn some(
        &self,
        next: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
        count: impl Fn(&mut Table),
    ) -> io::Result<()> {
        let mut buffer = self.buffer.borrow_mut();
        let mut table = self.table();
        for _ in 0..BATCH {
            match next(&mut buffer) {
                Ok(bytes) => {
                    count(&mut table);
                    self.lines(&mut table, &buffer[..bytes]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

async fn packets(socket: Option<UdpSocket>, shared: &Shared) -> io::Result<()> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    loop {
        socket.readable().await?;
        let count = |table: &mut Table| table.counts.udp_packets += 1;
        shared.drain(|buffer| socket.try_recv(buffer), count).await;
    }
}

async fn datagrams(bound: Option<(UnixDatagram, Unixgram)>, shared: &Shared) -> io::Result<()> {
    let Some((socket, _file)) = bound else {
        return std::future::pending().await;
    };
    loop {
        socket.readable().await?;
        let count = |table: &mut Table| table.counts.unixgram_packets += 1;
        shared.drain(|buffer| socket.try_recv(buffer), count).await;
    }
}

async fn streams(listener: Option<TcpListener>, shared: &Rc<Shared>) -> io::Result<()> {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    let open = Rc::new(());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of one connection, or no descriptor is left for now.
                tracing::warn!(%error, "a statsd connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let room = Rc::strong_count(&open) <= MOST_STREAMS;
        let mut table = shared.table();
        match room {
            true => table.counts.tcp_connections += 1,
            false => table.counts.tcp_refused += 1,
        }
        drop(table);
        if room {
            let (shared, guard) = (Rc::clone(shared), Rc::clone(&open));
            drop(tokio::task::spawn_local(async move {
                read(stream, &shared).await;
                drop(guard);
            }));
        }
    }
}

async fn read(mut stream: TcpStream, shared: &Shared) {
    // A peer that is gone without a word is noticed; one may be silent for hours.
    rustix::net::sockopt::set_socket_keepalive(&stream, true).ok();
    let mut lines = Lines::default();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let bytes = stream.read(&mut buffer).await;
        let mut table = shared.table();
        let mut piece = |piece: Piece<'_>| match piece {
            Piece::Whole(whole) => shared.lines(&mut table, whole),
            Piece::TooLong => table.too_long(),
        };
        match bytes {
            Ok(0) => return lines.end(piece),
            Ok(bytes) => lines.feed(&buffer[..bytes], &mut piece),
            Err(_) => {
                lines.end(piece);
                table.counts.tcp_errors += 1;
                return;
            }
        }
    }
}

/// Once a second: forgets what is too old, and sends on what waits.
async fn tick(shared: &Shared) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        shared.table().expire();
        if let Some(relay) = &shared.relay {
            relay.flush();
        }
    }
}
