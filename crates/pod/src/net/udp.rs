//! Datagrams between a port of the machine and one inside the pod.
//!
//! UDP knows no connections, so each client address is a flow with a socket of its own inside the pod (the pod's answers
//! come back by it), forgotten after a minute without traffic. The table is bounded; at the bound a new client is dropped rather
//! than an old one, so that a flood of forged addresses does not cut those who are served.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::PodNet;
use super::forward::{self, Limits, Route};

/// Without a datagram either way a flow ends.
pub(super) const FLOW_IDLE: Duration = Duration::from_secs(60);
/// Datagrams of one client that wait for the pod; more are lost, as on a network.
const QUEUE_MAX: usize = 32;
/// The largest UDP datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

type Flows = Arc<Mutex<HashMap<SocketAddr, mpsc::Sender<Vec<u8>>>>>;

/// Serves a bound socket until it is dropped.
pub(super) async fn serve(
    socket: UdpSocket,
    route: Route,
    net: Arc<PodNet>,
    limits: Limits,
    idle: Duration,
) {
    let socket = Arc::new(socket);
    let flows: Flows = Arc::default();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(_) = tasks.join_next() => continue,
        };
        let (length, client) = match received {
            Ok(received) => received,
            // An earlier answer was refused by its receiver: says nothing about this port.
            Err(error) => {
                tracing::debug!(port = route.port, %error, "receive failed");
                continue;
            }
        };
        let mut table = flows.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.contains_key(&client) {
            if table.len() >= limits.each {
                tracing::debug!(port = route.port, %client, "too many clients: datagram dropped");
                continue;
            }
            let Ok(permit) = Arc::clone(&limits.descriptors).try_acquire_owned() else {
                tracing::debug!(port = route.port, %client, "no descriptors left: datagram dropped");
                continue;
            };
            let (datagrams, inbox) = mpsc::channel(QUEUE_MAX);
            table.insert(client, datagrams);
            let (socket, net, flows) = (Arc::clone(&socket), Arc::clone(&net), Arc::clone(&flows));
            tasks.spawn(async move {
                if let Err(error) = flow(&socket, client, route, &net, inbox, idle).await {
                    tracing::debug!(port = route.port, %client, %error, "the pod does not take the datagrams");
                }
                let mut table = flows.lock().unwrap_or_else(PoisonError::into_inner);
                table.remove(&client);
                drop(permit);
            });
        }
        if let Some(flow) = table.get(&client)
            && flow.try_send(buffer[..length].to_vec()).is_err()
        {
            tracing::debug!(port = route.port, %client, "the client is too fast: datagram dropped");
        }
    }
}

/// One client's datagrams, until it is idle. A target that refuses is given up for the next; what was sent to it since
/// its last answer, at most one datagram, is sent again.
async fn flow(
    outside: &UdpSocket,
    client: SocketAddr,
    route: Route,
    net: &PodNet,
    mut inbox: mpsc::Receiver<Vec<u8>>,
    idle: Duration,
) -> io::Result<()> {
    let reached = outside.local_addr()?.ip();
    // On a socket that takes all addresses one can't tell which was reached; the client's tells whether it is local.
    let reached = if reached.is_unspecified() {
        client.ip()
    } else {
        reached
    };
    let mut unanswered: Option<Vec<u8>> = None;
    let mut last = Ok(());
    for target in route.targets(reached, net.address()) {
        let inside = match net.connect_udp(target).await {
            Ok(inside) => inside,
            // A pod without IPv6.
            Err(error) => {
                last = Err(error);
                continue;
            }
        };
        if let Some(datagram) = &unanswered {
            inside.send(datagram).await?;
        }
        match exchange(outside, client, &inside, &mut inbox, &mut unanswered, idle).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => last = Err(error),
            other => return other,
        }
    }
    last
}

async fn exchange(
    outside: &UdpSocket,
    client: SocketAddr,
    inside: &UdpSocket,
    inbox: &mut mpsc::Receiver<Vec<u8>>,
    unanswered: &mut Option<Vec<u8>>,
    idle: Duration,
) -> io::Result<()> {
    let mut answered = false;
    // A refusal comes as an error alone, which is no readiness to read.
    let answers = Interest::READABLE.add(Interest::ERROR);
    loop {
        let step = async {
            tokio::select! {
                datagram = inbox.recv() => match datagram {
                    Some(datagram) => {
                        inside.send(&datagram).await?;
                        if !answered {
                            *unanswered = Some(datagram);
                        }
                        Ok(true)
                    }
                    None => Ok(false),
                },
                answer = inside.async_io(answers, || receive(inside)) => {
                    let answer = answer?;
                    answered = true;
                    *unanswered = None;
                    outside.send_to(&answer, client).await?;
                    Ok::<bool, io::Error>(true)
                }
            }
        };
        match timeout(idle, step).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// One datagram, through the thread's buffer: what is allocated is its own size.
fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    forward::BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(forward::BUFFER_BYTES, 0);
        let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        Ok(buffer[..length].to_vec())
    })
}
