//! A machine for tests, in network namespaces of their own: `machine` with one interface, `internet` behind it.
//!
//! ```text
//!   pods ── machine 198.51.100.1 ── 198.51.100.2 internet
//! ```
//!
//! The internet knows no way to the pods' addresses.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;
use std::thread::JoinHandle;

use super::*;
use crate::net::egress::Egress;
use crate::net::link::{LO, Route};

pub(super) const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(super) const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The machine's interface, and its MTU.
pub(super) const UPLINK: &str = "up.0";
pub(super) const UPLINK_MTU: u32 = 1400;

pub(super) struct World {
    pub(super) machine: OwnedFd,
    pub(super) internet: OwnedFd,
    pub(super) addresses: tempfile::TempDir,
}

/// A pod of it.
pub(super) struct Pod {
    pub(super) namespace: OwnedFd,
    pub(super) net: Arc<PodNet>,
    pub(super) egress: Egress,
    pub(super) warnings: Vec<String>,
    pub(super) lease: AddressLease,
}

impl World {
    /// None when not root.
    pub(super) fn new() -> Option<Self> {
        let (machine, internet) = (namespace()?, namespace()?);
        let far = internet.try_clone().unwrap();
        let this = Self {
            machine,
            internet,
            addresses: tempfile::tempdir().unwrap(),
        };
        this.on_machine(move || {
            write_sysctl("ip_forward", "0");
            let mut route = Route::open().unwrap();
            route.up(LO).unwrap();
            route
                .add_veth(UPLINK, "world", far.as_fd(), UPLINK_MTU)
                .unwrap();
            join(&mut route, UPLINK, MACHINE, INTERNET);
        });
        this.on_internet(|| join(&mut Route::open().unwrap(), "world", INTERNET, MACHINE));
        this.on_machine(|| {
            let mut route = Route::open().unwrap();
            let up = route.find(UPLINK).unwrap().unwrap();
            route.add_default(INTERNET, up.index).unwrap();
        });
        Some(this)
    }

    /// Runs on the machine.
    pub(super) fn on_machine<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        done(inside(&self.machine, run))
    }

    pub(super) fn on_internet<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        done(inside(&self.internet, run))
    }

    pub(super) fn pod(&self, name: &str) -> Pod {
        let lease = AddressLease::take(self.addresses.path(), "default", name).unwrap();
        let namespace = namespace().unwrap();
        self.on_machine(move || {
            let net = PodNet::enter(namespace.try_clone().unwrap(), lease.address()).unwrap();
            let (egress, warnings) = Egress::veth(&net, namespace.as_fd(), &lease).unwrap();
            Pod {
                namespace,
                net: Arc::new(net),
                egress,
                warnings,
                lease,
            }
        })
    }

    /// Stops a pod as its supervisor does.
    pub(super) fn stop(&self, pod: Pod) {
        self.on_machine(move || drop(pod));
    }

    /// Its supervisor is killed: nobody takes anything away but the kernel.
    pub(super) fn kill(&self, pod: Pod) {
        std::mem::forget(pod.egress);
        drop((pod.net, pod.namespace, pod.lease));
    }

    /// Every name of an interface, of a table, and what forwards.
    pub(super) fn look(&self) -> Vec<String> {
        self.on_machine(|| {
            let mut seen: Vec<String> = Vec::new();
            for link in Route::open().unwrap().links().unwrap() {
                let path = format!("/proc/sys/net/ipv4/conf/{}/forwarding", link.name);
                // The kernel may be removing a dead pod's at this moment.
                let Ok(forwards) = std::fs::read_to_string(path) else {
                    continue;
                };
                seen.push(format!("{} forwarding {}", link.name, forwards.trim()));
            }
            for chain in Nft::open().unwrap().chains().unwrap() {
                seen.push(format!("chain {} {}", chain.table, chain.name));
            }
            seen
        })
    }

    /// Runs a program on the machine; its output. None when there is no such program.
    pub(super) fn program(&self, program: &str, args: &[&str]) -> Option<String> {
        let mut command = Command::new(program);
        command.args(args);
        let output = self.on_machine(move || command.output());
        let output = match output {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("skipped: there is no {program}");
                return None;
            }
            other => other.unwrap(),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {said}");
        Some(String::from_utf8(output.stdout).unwrap())
    }
}

fn join(route: &mut Route, name: &str, own: Ipv4Addr, other: Ipv4Addr) {
    let link = route.find(name).unwrap().unwrap();
    route.up(link.index).unwrap();
    route.add_address(link.index, own).unwrap();
    route.add_route(other, link.index).unwrap();
}

fn done<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap()
}

pub(super) fn write_sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).unwrap();
}

/// Listens there and answers each connection with the address that it came from.
pub(super) fn who_is_it(namespace: &OwnedFd, address: Ipv4Addr) -> SocketAddr {
    let listener: TcpListener = listen(namespace, (address, 0));
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _gone = stream.write_all(peer.ip().to_string().as_bytes());
        }
    });
    at
}

/// How the one who listens there sees a pod.
pub(super) async fn seen(net: &PodNet, at: SocketAddr) -> io::Result<IpAddr> {
    let wait = Duration::from_secs(5);
    let mut stream = tokio::time::timeout(wait, net.connect(at)).await??;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.parse().unwrap())
}
