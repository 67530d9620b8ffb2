//! Copies bytes between a connection to the machine and one inside the pod.
//!
//! One 64 KiB buffer serves every connection of the thread: bytes are read into it and written out of it without a wait
//! in between, and only what the receiver did not take at once is kept apart until it does. So an idle connection costs
//! two descriptors and no buffer. (Rejected: a buffer per direction, 128 MB for 1,024 connections; splice through a pipe, four
//! more descriptors per connection, for a path whose other end is a process on the same machine.)

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::PodNet;

/// Connections of one published port at a time. One more is reset.
pub(super) const CONNECTIONS_MAX: usize = 1024;
/// A pause after the machine has run out of descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// No datagram is larger.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

thread_local! {
    pub(super) static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
            vec![SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), own]
        } else {
            vec![own]
        }
    }
}

/// Accepts until it is dropped, which also ends the connections.
pub(super) async fn serve(
    listener: TcpListener,
    route: Route,
    net: Arc<PodNet>,
    connections_max: usize,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        // Those that have ended but were not looked at yet don't count.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((client, _)) if connections.len() >= connections_max => reset(&client),
            Ok((client, _)) => {
                let net = Arc::clone(&net);
                connections.spawn(async move { connect(client, route, &net).await });
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
    let mut inside = None;
    for target in route.targets(reached.ip(), net.address()) {
        match net.connect(target).await {
            Ok(stream) => {
                inside = Some(stream);
                break;
            }
            Err(error) => tracing::debug!(%target, %error, "the pod does not take the connection"),
        }
    }
    let Some(inside) = inside else {
        return reset(&client);
    };
    // Interactive protocols must not wait for acknowledgements twice.
    for stream in [&client, &inside] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    }
    // Each direction ends by itself, so that a half-closed connection goes on; a failure ends both, and is passed on
    // as one: an orderly end would make a cut answer look whole.
    if tokio::try_join!(copy(&client, &inside), copy(&inside, &client)).is_err() {
        reset(&client);
        reset(&inside);
    }
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
