//! The pod's network seen from the supervisor: sockets that live in the pod's network namespace, its address, and the
//! ports of the machine that lead into it.
//!
//! ```text
//!   machine                      │ pod (network namespace)
//!   127.0.0.1:P, [::1]:P ────────┼─► 127.0.0.1:P, [::1]:P, ADDRESS:P containerPort, as `kubectl port-forward` does
//!   0.0.0.0:H, [::]:H ───────────┼─► ADDRESS:P                       hostPort: loopback-only services stay private
//!   probes, hooks ───────────────┼─► ADDRESS:P                       as the kubelet's
//! ```
//!
//! A socket stays for life in the namespace where it was made. So one small thread has entered the pod's namespace and
//! does nothing but make sockets; connecting and copying happen on the supervisor's own thread. No veth, bridge or packet
//! filter is needed for that, nor any capability once the namespace is there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::oneshot;

mod address;
mod dns;
mod egress;
mod firewall;
mod forward;
mod holder;
mod link;
mod netlink;
mod nft;
mod pasta;
mod publish;
#[cfg(test)]
mod tests;
mod udp;
mod veth;

pub use address::AddressLease;
pub use dns::{Forwarder, NAMESERVER, reachable_from_pod};
pub use egress::{Egress, NoEgress, sweep};
pub use forward::relay;
pub use pasta::Namespaces;
pub use publish::{PublishError, Published, Publisher};

/// The thread makes one system call at a time; its stack is what it costs.
const STACK_BYTES: usize = 64 * 1024;

/// The pod's network namespace, entered; or the machine's.
#[derive(Debug)]
pub struct PodNet {
    address: Ipv4Addr,
    /// Dropped first: that ends the thread. None: sockets are made here.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

struct Request {
    family: AddressFamily,
    kind: SocketType,
    protocol: Option<Protocol>,
    made: Box<dyn FnOnce(io::Result<OwnedFd>) + Send>,
}

impl Request {
    /// Makes the socket where the calling thread is.
    fn serve(self) {
        let mut flags = SocketFlags::CLOEXEC;
        // Netlink answers at once; the others are tokio's.
        flags.set(SocketFlags::NONBLOCK, self.family != AddressFamily::NETLINK);
        let made = socket_with(self.family, self.kind, flags, self.protocol);
        (self.made)(made.map_err(io::Error::from));
    }
}

impl PodNet {
    /// Enters the namespace with a thread of its own and sets `lo` up. As container runtimes do, ports below 1024 and ping
    /// are open to every user id inside. The pod gets its address by [`Egress`], or by [`PodNet::stay_inside`]. An error says
    /// which step failed.
    pub fn enter(netns: OwnedFd, address: Ipv4Addr) -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("pod-net".to_string())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let entered = set_up(&netns);
                drop(netns);
                let failed = entered.is_err();
                // The other end waits for exactly this.
                let told = ready.send(entered);
                if failed || told.is_err() {
                    return;
                }
                for request in inbox {
                    request.serve();
                }
            })?;
        is_ready
            .recv()
            .map_err(|_| io::Error::other("the pod's network thread ended"))??;
        Ok(Self {
            address,
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// The machine's own network, for a pod with `hostNetwork`: its sockets are this process's.
    pub fn of_machine(address: Ipv4Addr) -> Self {
        Self {
            address,
            requests: None,
            thread: None,
        }
    }

    /// Gives the pod its address without a way out of it: as a /32 on `lo`.
    pub fn stay_inside(&self) -> io::Result<()> {
        self.route()?
            .add_address(link::LO, self.address)
            .map_err(|e| io::Error::new(e.kind(), format!("giving the pod its address: {e}")))
    }

    /// The pod's own address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Connects from inside the pod.
    pub async fn connect(&self, target: SocketAddr) -> io::Result<TcpStream> {
        let fd = self.socket(target, SocketType::STREAM).await?;
        TcpSocket::from_std_stream(std::net::TcpStream::from(fd))
            .connect(target)
            .await
    }

    /// Connects to a port of the pod as `kubectl port-forward` does: to its loopback (IPv4, then IPv6), so that services
    /// which listen nowhere else are reached, and then to its own address. Gives the last error when nothing listens.
    ///
    /// The stream's descriptor may be handed to another process: it stays in the pod's network. [`relay`] copies.
    pub async fn dial(&self, port: u16) -> io::Result<TcpStream> {
        let [v4, v6] = forward::loopbacks(port);
        self.connect_first(&[v4, v6, (self.address, port).into()])
            .await
    }

    /// The first of `targets` that takes a connection; the last error when none does.
    async fn connect_first(&self, targets: &[SocketAddr]) -> io::Result<TcpStream> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for target in targets {
            match self.connect(*target).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A UDP socket of the pod, connected to `target`.
    pub async fn connect_udp(&self, target: SocketAddr) -> io::Result<UdpSocket> {
        let fd = self.socket(target, SocketType::DGRAM).await?;
        let socket = UdpSocket::from_std(std::net::UdpSocket::from(fd))?;
        socket.connect(target).await?;
        Ok(socket)
    }

    async fn socket(&self, target: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
        let family = match target.ip() {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let (made, is_made) = oneshot::channel();
        self.request(
            family,
            kind,
            None,
            Box::new(move |socket| {
                // Who asked may have given up.
                let _unwanted = made.send(socket);
            }),
        )?;
        is_made.await.map_err(|_| ended())?
    }

    /// A socket of the pod. Blocks for a moment.
    fn make(
        &self,
        family: AddressFamily,
        kind: SocketType,
        protocol: Option<Protocol>,
    ) -> io::Result<OwnedFd> {
        let (made, is_made) = mpsc::channel();
        self.request(
            family,
            kind,
            protocol,
            Box::new(move |socket| {
                let _unwanted = made.send(socket);
            }),
        )?;
        is_made.recv().map_err(|_| ended())?
    }

    /// rtnetlink of the pod. Blocks for a moment.
    fn route(&self) -> io::Result<link::Route> {
        let fd = self.make(AddressFamily::NETLINK, SocketType::RAW, netlink::ROUTE)?;
        Ok(link::Route::of(netlink::Socket::of(fd)))
    }

    fn request(
        &self,
        family: AddressFamily,
        kind: SocketType,
        protocol: Option<Protocol>,
        made: Box<dyn FnOnce(io::Result<OwnedFd>) + Send>,
    ) -> io::Result<()> {
        let request = Request {
            family,
            kind,
            protocol,
            made,
        };
        match &self.requests {
            Some(requests) => requests.send(request).map_err(|_| ended()),
            None => {
                request.serve();
                Ok(())
            }
        }
    }
}

impl Drop for PodNet {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the pod's network thread has panicked");
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the pod's network thread has ended")
}

fn set_up(netns: &OwnedFd) -> io::Result<()> {
    let step =
        |what: &'static str| move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"));
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(io::Error::from)
        .map_err(step("entering the pod's network namespace"))?;
    let mut route = link::Route::open().map_err(step("opening rtnetlink in the pod"))?;
    route
        .up(link::LO)
        .map_err(step("setting the pod's lo up"))?;
    // containerd and CRI-O open these by default, Docker too. Where /proc/sys is read-only the pod starts without.
    for (file, value) in [
        ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
        ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ] {
        if let Err(error) = std::fs::write(file, value) {
            tracing::debug!(file, %error, "not opened to the pod's users");
        }
    }
    Ok(())
}
