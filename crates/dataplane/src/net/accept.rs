//! Taking connections: in batches, bounded, without spinning when descriptors run out.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use podkit_foundation::lifecycle::{InFlight, Phase};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::clock::Timer;
use super::fresh::Fresh;
use super::listen::{Door, Gate, Port};
use super::socket::{Peer, Socket};
use super::worker::{ByIp, Claim, Worker};

/// Connections accepted before the tasks of those accepted get their turn.
const BATCH: usize = 64;
/// How long to wait when descriptors or memory ran out. Whoever closes one frees it; nothing tells us.
const PAUSE: Duration = Duration::from_millis(50);

/// What is done with a connection.
pub trait Serve: 'static {
    /// Serves one connection to its end.
    fn serve(self: Rc<Self>, accepted: Accepted) -> impl Future<Output = ()> + 'static;
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub socket: Socket,
    /// Who opened it.
    pub peer: Peer,
    /// The thread that serves it.
    pub worker: Rc<Worker>,
    /// Counts it for as long as it is held.
    pub guard: Guard,
}

/// Counts a connection: as in flight, against the bound, and in the metrics. A panic while it is held is counted too.
#[derive(Debug)]
pub struct Guard {
    worker: Rc<Worker>,
    _claim: Claim,
    address: ByIp,
    /// Of its task, where the worker keeps it.
    place: u32,
    _in_flight: InFlight,
}

impl Guard {
    /// A balancer announces who its client is: the connection counts as theirs. False when that is one too many.
    pub(super) fn announce(&mut self, client: Peer) -> bool {
        match self.worker.connections.claim_address(client, true) {
            Some(address) => {
                self.address = address;
                true
            }
            None => {
                self.worker.refuse_address(client);
                false
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let worker = &self.worker;
        worker.leave_place(self.place);
        worker.end();
        if std::thread::panicking() {
            worker.metrics.panics.inc();
            tracing::error!("a connection was cut by a fault of podkit's own; please report it");
        }
    }
}

/// A listening socket of this thread.
struct Entrance {
    listener: AsyncFd<OwnedFd>,
    tcp: bool,
}

impl Entrance {
    fn new(door: Door) -> io::Result<Self> {
        let (listener, tcp) = match door {
            Door::Tcp(listener) => (listener.into(), true),
            Door::Unix(listener) => (listener.into(), false),
        };
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types that lend their descriptor; an OwnedFd doesn't"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        Ok(Self { listener, tcp })
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
        loop {
            let mut ready = ready!(self.listener.poll_read_ready(cx))?;
            let accept = |fd: &AsyncFd<OwnedFd>| Ok(acceptfrom_with(fd.get_ref(), FLAGS)?);
            // What would have to wait is not ready any more, and asked again.
            let Ok(accepted) = ready.try_io(accept) else {
                continue;
            };
            return Poll::Ready(accepted.and_then(|(fd, addr)| {
                let peer = match (self.tcp, addr) {
                    (false, _) => Peer::Unix,
                    (true, Some(addr)) => SocketAddr::try_from(addr)?.into(),
                    // It is gone already.
                    (true, None) => return Err(io::ErrorKind::ConnectionAborted.into()),
                };
                Ok((Socket::Fresh(Fresh::new(fd, self.tcp)), peer))
            }));
        }
    }
}

/// Takes connections one by one, for who serves them in tasks of its own; not counted, so not bounded here.
pub struct Acceptor {
    entrances: Vec<Entrance>,
    gate: Gate,
}

impl Acceptor {
    /// Of a listener's sockets, within a runtime.
    pub fn new(port: Port) -> io::Result<Self> {
        let doors = port.doors.into_iter();
        Ok(Self {
            entrances: doors.map(Entrance::new).collect::<io::Result<_>>()?,
            gate: port.gate,
        })
    }

    /// The next connection. After an error the next call may succeed.
    pub async fn accept(&mut self) -> io::Result<(Socket, Peer)> {
        // An error says that whoever would open it is gone.
        drop(self.gate.wait_for(|open| *open).await);
        let (mut socket, peer) = poll_fn(|cx| poll_any(&self.entrances, cx)).await?;
        socket.watch()?;
        Ok((socket, peer))
    }
}

fn poll_any(entrances: &[Entrance], cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
    for entrance in entrances {
        if let Poll::Ready(accepted) = entrance.poll_accept(cx) {
            return Poll::Ready(accepted);
        }
    }
    Poll::Pending
}

/// Accepts from `port` and serves each connection in a task of its own, until the process drains. What waits in the
/// kernel's queue at that moment is still served: closing a listener would reset it.
pub async fn accept<S: Serve>(port: Port, worker: Rc<Worker>, serve: Rc<S>) -> io::Result<()> {
    let Port { doors, mut gate } = port;
    let entrances: Vec<Entrance> = doors
        .into_iter()
        .map(Entrance::new)
        .collect::<io::Result<_>>()?;
    let timer = worker.clock.timer();
    let _source = worker.lifecycle.source();
    // An error says that whoever would open it is gone.
    drop(gate.wait_for(|open| *open).await);
    loop {
        match poll_fn(|cx| batch(cx, &entrances, &worker, &serve, &timer)).await {
            Batch::Full => tokio::task::yield_now().await,
            Batch::Exhausted => tokio::time::sleep(PAUSE).await,
            Batch::Closed => return Ok(()),
        }
    }
}

enum Batch {
    /// There may be more.
    Full,
    /// The process has no descriptor or no memory left.
    Exhausted,
    /// The process drains and the queue is empty.
    Closed,
}

fn batch<S: Serve>(
    cx: &mut Context<'_>,
    entrances: &[Entrance],
    worker: &Rc<Worker>,
    serve: &Rc<S>,
    timer: &Timer,
) -> Poll<Batch> {
    for turn in 0..BATCH {
        // Another one first each time, so that a busy one leaves the others their share.
        let (before, after) = entrances.split_at(turn % entrances.len().max(1));
        let mut all = after.iter().chain(before);
        let ready = all.find_map(|entrance| match entrance.poll_accept(cx) {
            Poll::Pending => None,
            ready => Some(ready),
        });
        match ready.unwrap_or(Poll::Pending) {
            Poll::Ready(Ok((socket, peer))) => admit(socket, peer, worker, serve),
            Poll::Ready(Err(error)) => match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    worker.metrics.exhausted.inc();
                    worker.say_exhausted(&error);
                    return Poll::Ready(Batch::Exhausted);
                }
                // The peer gave up, or the network did (accept(2), "Error handling").
                _ => worker.metrics.failed.inc(),
            },
            Poll::Pending if worker.phase() >= Phase::Draining => {
                return Poll::Ready(Batch::Closed);
            }
            Poll::Pending => {
                // Registers for the change of phase; the timer is never armed.
                timer.expired(cx);
                return Poll::Pending;
            }
        }
    }
    Poll::Ready(Batch::Full)
}

fn admit<S: Serve>(socket: Socket, peer: Peer, worker: &Rc<Worker>, serve: &Rc<S>) {
    let Some(claim) = worker.connections.claim() else {
        worker.metrics.refused.inc();
        worker.say_refused();
        return;
    };
    let Some(address) = worker.connections.claim_address(peer, false) else {
        return worker.refuse_address(peer);
    };
    worker.metrics.accepted.inc();
    worker.begin();
    let guard = Guard {
        worker: Rc::clone(worker),
        _claim: claim,
        address,
        place: worker.take_place(),
        _in_flight: worker.lifecycle.begin(),
    };
    let accepted = Accepted {
        socket,
        peer,
        worker: Rc::clone(worker),
        guard,
    };
    let place = accepted.guard.place;
    let task = tokio::task::spawn_local(Rc::clone(serve).serve(accepted));
    worker.put_at(place, || task.abort_handle());
}
