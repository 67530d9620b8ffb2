//! Ports that are free, and a network of a test's own.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::Process;

/// The ports of [`free_addr`]: below those that the kernel takes for connections (net.ipv4.ip_local_port_range), so that none of the
/// many connections of the other tests has the port as its own end when a server wants it.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A loopback address whose port nobody listens on, and which no other test is given while this process lives. (An abstract unix
/// socket holds the claim: it is known in the same network, and goes with its process.)
pub fn free_addr() -> SocketAddr {
    static CLAIMS: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
    let count = u32::from(PORTS.end - PORTS.start);
    // Far from where another process begins.
    let first = std::process::id().wrapping_mul(7919);
    for step in 0..count {
        let port = PORTS.start + (first.wrapping_add(step) % count) as u16;
        // Not in podkit's name, by which leftovers are known.
        let name = format!("testkit-port-{port}");
        let claim =
            UnixAddr::from_abstract_name(name).and_then(|name| UnixDatagram::bind_addr(&name));
        let addr = loopback(port);
        if let Ok(claim) = claim
            && TcpListener::bind(addr).is_ok()
        {
            claims.push(claim);
            return addr;
        }
    }
    panic!("the loopback has no free port in {PORTS:?}")
}

/// An address of 127.0.0.1.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A network namespace that the calling thread, and what it starts from here on, lives in until this is dropped: ports
/// that an example fixes are free in it, and what a pod leaves behind there is seen. Wants root.
#[derive(Debug)]
pub struct OwnNetwork {
    before: File,
    _holder: Process,
}

impl OwnNetwork {
    /// An address of this network that is not a loopback address, as a pod's own address is not.
    pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));

    /// Makes one, with its loopback up and [`Self::ADDRESS`] on it, and enters it.
    pub fn enter() -> Self {
        let before = File::open("/proc/thread-self/ns/net").expect("this thread has a network");
        let script = "ip link set lo up && ip address add 10.99.0.1/32 dev lo && echo up && exec sleep infinity";
        let holder = Process::spawn(
            "a network namespace",
            Command::new("unshare").args(["--net", "--", "sh", "-c", script]),
        );
        holder.wait_line("its loopback", |line| line == "up");
        let inside = File::open(format!("/proc/{}/ns/net", holder.pid()));
        enter(&inside.expect("the holder lives"));
        Self {
            before,
            _holder: holder,
        }
    }
}

impl Drop for OwnNetwork {
    fn drop(&mut self) {
        enter(&self.before);
    }
}

fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("entering a network namespace wants CAP_SYS_ADMIN");
}
