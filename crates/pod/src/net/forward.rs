//! Copies bytes between a connection to the machine and one inside the pod.
//!
//! One 64 KiB buffer serves every connection of the thread: bytes are read into it and written out of it without a wait
//! in between, and only what the receiver did not take at once is kept apart until it does. So an idle connection costs
//! two descriptors and no buffer. (Rejected: a buffer per direction, 128 MB for 1,024 connections; splice through a pipe, four
//! more descriptors per connection, for a path whose other end is a process on the same machine.)

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{Shutdown, sockopt};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::PodNet;

/// Connections (UDP: clients) of one published port at a time. One more is reset (dropped).
const CONNECTIONS_MAX: usize = 1024;
/// A pause after the machine has run out of descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// No datagram is larger.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

thread_local! {
    pub(super) static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Descriptors that ports leave to the rest of the supervisor: logs, probes, starts.
const DESCRIPTORS_KEPT: u64 = 256;
const DESCRIPTORS_MIN: u64 = 64;
/// A client that vanished without a word is noticed after this time without traffic, and the four probes that follow.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// What a port may take.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Connections or clients of one port at a time.
    pub(super) each: usize,
    /// Of all ports of the pod together: a flood must not keep the supervisor from starting a container.
    pub(super) descriptors: Arc<Semaphore>,
}

impl Limits {
    /// [`CONNECTIONS_MAX`] each, and what this process's limit on open files leaves.
    pub(super) fn of_process() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let all = limit.saturating_sub(DESCRIPTORS_KEPT).max(DESCRIPTORS_MIN);
        let all = usize::try_from(all).unwrap_or(usize::MAX);
        Self {
            each: CONNECTIONS_MAX,
            descriptors: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
        }
    }
}

/// Where inside the pod a listener's connections go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// `containerPort`.
    pub(super) port: u16,
    /// Connections that came in on the machine's loopback try the pod's loopback first.
    pub(super) loopback: bool,
}

impl Route {
    /// In the order in which they are tried.
    pub(super) fn targets(self, reached: IpAddr, pod: Ipv4Addr) -> Vec<SocketAddr> {
        let own = SocketAddr::from((pod, self.port));
        if self.loopback && reached.to_canonical().is_loopback() {
            // Both: "localhost" is ::1 alone for some programs.
            let [v4, v6] = loopbacks(self.port);
            vec![v4, v6, own]
        } else {
            vec![own]
        }
    }
}

/// Where a pod's loopback services listen.
pub(super) fn loopbacks(port: u16) -> [SocketAddr; 2] {
    [
        (Ipv4Addr::LOCALHOST, port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
    ]
}

/// Accepts until it is dropped, which also ends the connections.
pub(super) async fn serve(listener: TcpListener, route: Route, net: Arc<PodNet>, limits: Limits) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        // Those that have ended but were not looked at yet don't count.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((client, _)) => {
                // Its own and the pod's end.
                let permit = Arc::clone(&limits.descriptors).try_acquire_many_owned(2);
                let (true, Ok(permit)) = (connections.len() < limits.each, permit) else {
                    tracing::debug!(port = route.port, "too many connections: one is reset");
                    reset(&client);
                    continue;
                };
                let net = Arc::clone(&net);
                connections.spawn(async move {
                    connect(client, route, &net).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // The peer has gone already, or there are no descriptors: neither ends the port.
                tracing::debug!(port = route.port, %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connect(client: TcpStream, route: Route, net: &PodNet) {
    let Ok(reached) = client.local_addr() else {
        return;
    };
    match net
        .connect_first(&route.targets(reached.ip(), net.address()))
        .await
    {
        Ok(inside) => relay(&client, &inside).await,
        Err(error) => {
            tracing::debug!(port = route.port, %error, "the pod does not take the connection");
            reset(&client);
        }
    }
}

/// Copies between `client` and `inside` until both have ended or one has failed. Each direction ends by itself, so that a
/// half-closed connection goes on; a failure ends both, and is passed on as one: an orderly end would make a cut answer
/// look whole. A client that vanished without a word is noticed by TCP keep-alive.
pub async fn relay(client: &TcpStream, inside: &TcpStream) {
    // Interactive protocols must not wait for acknowledgements twice.
    for stream in [client, inside] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    }
    if let Err(error) = keep_alive(client) {
        tracing::debug!(%error, "no TCP keep-alive");
    }
    if tokio::try_join!(copy(client, inside), copy(inside, client)).is_err() {
        reset(client);
        reset(inside);
    }
}

fn keep_alive(client: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(client, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(client, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(client, KEEPALIVE_PROBES)?;
    sockopt::set_socket_keepalive(client, true)
}

/// Copies until the sender's end, then passes that end on.
pub(super) async fn copy(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    // What the receiver has not taken yet.
    let mut held: Vec<u8> = Vec::new();
    loop {
        from.readable().await?;
        let end = BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(BUFFER_BYTES, 0);
            let read = match from.try_read(buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            if read == 0 {
                return Ok(true);
            }
            let written = match to.try_write(&buffer[..read]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                other => other?,
            };
            held.extend_from_slice(&buffer[written..read]);
            Ok(false)
        })?;
        let mut sent = 0;
        while sent < held.len() {
            to.writable().await?;
            match to.try_write(&held[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if sent > 0 {
            held = Vec::new();
        }
        if end {
            return Ok(rustix::net::shutdown(to, Shutdown::Write)?);
        }
    }
}

/// Makes the coming close a reset.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "closed in order instead of reset");
    }
}
