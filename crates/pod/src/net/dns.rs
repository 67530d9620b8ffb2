//! Names for a pod whose machine asks a resolver that a pod can't: dnsmasq on 127.0.0.1, or one with an IPv6 address.
//!
//! ```text
//!   pod: nameserver 10.87.0.1 ──dnat──► 127.0.0.1:P (in the pod, the supervisor's) ──► the machine's resolver
//! ```
//!
//! The listeners have ports of their own and a rule of the pod's own packet filter leads to them (as Docker has it): one on port
//! 53, on whatever address, would keep a name server in the pod from listening on all addresses.
//!
//! Queries of all clients go out by one socket, with numbers of the forwarder's own by which the answers are told apart.
//! A connection (TCP) is passed on as it is.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::PodNet;
use super::forward::relay;
use super::netlink::{NETFILTER, Socket};
use super::nft::{self, Expressions, Nft};
use super::veth::GATEWAY;

/// The name server that a pod is told in place of those which it can't reach.
pub const NAMESERVER: Ipv4Addr = GATEWAY;

const PORT: u16 = 53;
const TABLE: &str = "podkit";
const CHAIN: &str = "output";
/// `dstnat` of the output hook.
const PRIORITY: i32 = -100;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// Queries that wait for an answer. One more takes the place of the oldest.
const QUERIES_MAX: usize = 1024;
/// After that the client has given up.
const QUERY_TIME: Duration = Duration::from_secs(10);
/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 64;
const CONNECTION_TIME: Duration = Duration::from_secs(60);
const DATAGRAM_BYTES_MAX: usize = 65_535;
const BACKLOG: i32 = 64;
const PAUSE: Duration = Duration::from_millis(50);

/// Answers the pod's questions for names. Dropping it ends that.
#[derive(Debug)]
pub struct Forwarder {
    _tasks: JoinSet<()>,
}

impl Forwarder {
    /// Listens in the pod and asks `resolvers` on the machine: the first, and the next when it refuses. Needs a tokio runtime.
    /// An error says which step failed.
    pub fn start(net: &PodNet, resolvers: Vec<SocketAddr>) -> io::Result<Self> {
        let udp = listen(net, SocketType::DGRAM)?;
        let tcp = listen(net, SocketType::STREAM)?;
        let udp = UdpSocket::from_std(udp.into())?;
        let tcp = TcpListener::from_std(tcp.into())?;
        let ports = [
            (IPPROTO_UDP, udp.local_addr()?.port()),
            (IPPROTO_TCP, tcp.local_addr()?.port()),
        ];
        redirect(net, ports).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("a rule of nf_tables in the pod: {error}"),
            )
        })?;
        let mut tasks = JoinSet::new();
        let resolvers: Arc<[SocketAddr]> = resolvers.into();
        tasks.spawn(serve_datagrams(udp, Arc::clone(&resolvers)));
        tasks.spawn(serve_connections(tcp, resolvers));
        Ok(Self { _tasks: tasks })
    }
}

fn listen(net: &PodNet, kind: SocketType) -> io::Result<std::os::fd::OwnedFd> {
    let fd = net.make(AddressFamily::INET, kind, None)?;
    rustix::net::bind(&fd, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&fd, BACKLOG)?;
    }
    Ok(fd)
}

/// `ip daddr 10.87.0.1 udp dport 53 dnat to 127.0.0.1:PORT`, and for TCP, in the pod.
fn redirect(net: &PodNet, ports: [(u8, u16); 2]) -> io::Result<()> {
    let socket = net.make(AddressFamily::NETLINK, SocketType::RAW, NETFILTER)?;
    let mut nft = Nft::of(Socket::of(socket));
    let mut changes = vec![
        nft::add_table(nft::IPV4, TABLE, true),
        nft::add_chain(nft::IPV4, TABLE, CHAIN, "nat", nft::HOOK_OUTPUT, PRIORITY),
    ];
    changes.extend(ports.map(|(protocol, port)| {
        Expressions::new()
            .destination(&NAMESERVER.octets())
            .port(protocol, PORT)
            .redirect(Ipv4Addr::LOCALHOST.octets(), port)
            .append(nft::IPV4, TABLE, CHAIN)
    }));
    nft.commit(changes)
}

async fn serve_datagrams(pod: UdpSocket, resolvers: Arc<[SocketAddr]>) {
    for resolver in resolvers.iter().cycle() {
        match ask(&pod, *resolver).await {
            Ok(never) => match never {},
            Err(error) => tracing::debug!(%resolver, %error, "the resolver does not answer"),
        }
        // When none is there this must not spin.
        tokio::time::sleep(PAUSE).await;
    }
}

/// Passes questions and answers on for as long as the resolver is there.
async fn ask(pod: &UdpSocket, resolver: SocketAddr) -> io::Result<std::convert::Infallible> {
    let any = if resolver.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let outside = UdpSocket::bind(any.parse::<SocketAddr>().map_err(io::Error::other)?).await?;
    outside.connect(resolver).await?;
    let mut queries = Queries::default();
    let mut question = vec![0; DATAGRAM_BYTES_MAX];
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            received = pod.recv_from(&mut question) => {
                // An answer that its client did not want any more.
                let Ok((length, client)) = received else { continue };
                let datagram = &mut question[..length];
                let mut random = [0; 2];
                rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
                if queries.ask(Instant::now(), client, datagram, u16::from_ne_bytes(random)) {
                    outside.send(datagram).await?;
                }
            }
            received = outside.recv(&mut answer) => {
                let length = received?;
                if let Some(client) = queries.answer(&mut answer[..length])
                    && let Err(error) = pod.send_to(&answer[..length], client).await
                {
                    tracing::debug!(%client, %error, "an answer was not delivered");
                }
            }
        }
    }
}

async fn serve_connections(pod: TcpListener, resolvers: Arc<[SocketAddr]>) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // It is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match pod.accept().await {
            Ok((client, _)) => {
                let resolvers = Arc::clone(&resolvers);
                connections.spawn(async move {
                    let passed = tokio::time::timeout(CONNECTION_TIME, async {
                        for resolver in resolvers.iter() {
                            if let Ok(resolver) = TcpStream::connect(resolver).await {
                                return relay(&client, &resolver).await;
                            }
                        }
                    });
                    if passed.await.is_err() {
                        tracing::debug!("a client held its connection for too long");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Questions on their way, by the number that they were given. (RFC 1035 section 4.1.1: ID, the first two bytes)
#[derive(Debug, Default)]
pub(super) struct Queries {
    waiting: HashMap<u16, Query>,
}

#[derive(Debug)]
struct Query {
    client: SocketAddr,
    id: [u8; 2],
    since: Instant,
}

impl Queries {
    /// Gives a client's question a number of its own, from `random` on; false when it is none.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        client: SocketAddr,
        datagram: &mut [u8],
        random: u16,
    ) -> bool {
        // A header, and no answer.
        let question = datagram.len() >= 12 && datagram[2] & 0x80 == 0;
        let Some(id) = datagram.first_chunk_mut::<2>().filter(|_| question) else {
            return false;
        };
        if self.waiting.len() >= QUERIES_MAX {
            self.waiting
                .retain(|_, query| now.duration_since(query.since) < QUERY_TIME);
        }
        if self.waiting.len() >= QUERIES_MAX {
            let oldest = self.waiting.iter().min_by_key(|(_, query)| query.since);
            if let Some(oldest) = oldest.map(|(number, _)| *number) {
                self.waiting.remove(&oldest);
            }
        }
        // There are more numbers than questions.
        let mut number = random;
        while self.waiting.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        let query = Query {
            client,
            id: *id,
            since: now,
        };
        *id = number.to_be_bytes();
        self.waiting.insert(number, query);
        true
    }

    /// Gives an answer its client's number back; who the client is. None when nobody asked.
    pub(super) fn answer(&mut self, datagram: &mut [u8]) -> Option<SocketAddr> {
        let id = datagram.first_chunk_mut::<2>()?;
        let query = self.waiting.remove(&u16::from_be_bytes(*id))?;
        *id = query.id;
        Some(query.client)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// Whether a pod can ask this name server itself. It has no IPv6, and its loopback is its own.
pub fn reachable_from_pod(nameserver: IpAddr) -> bool {
    match nameserver {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified(),
        IpAddr::V6(_) => false,
    }
}
