//! Ports that are free, and a network of a test's own.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::Process;

/// A loopback address whose port nobody listens on.
pub fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    listener
        .and_then(|listener| listener.local_addr())
        .expect("the loopback has a free port")
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
