//! The pair of interfaces that joins a pod to the machine, and the addresses and routes on it.
//!
//! ```text
//!   pod: eth0 ADDRESS/32, default via 10.87.0.1 ──── podkit-A-B 10.87.0.1/32, route ADDRESS/32 :machine
//! ```
//!
//! Point to point rather than by a bridge: nothing is shared between pods that somebody would have to make first and remove
//! last, bridged packets don't run through iptables where Docker has them do so, and the kernel removes the pair with the
//! pod's namespace, even when the supervisor was killed. An interface takes packets from its pod's address only.
//!
//! IPv4 only: routing IPv6 is one switch for the whole machine, and turning it on makes the machine stop listening to its
//! router's advertisements. A pod has no IPv6 address then, and programs that try one fail at once.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::address::NETWORK;
use super::egress::{NoEgress, is};
use super::link::{Link, Route};

/// Interfaces of pods on the machine's side begin so.
pub(super) const PREFIX: &str = "podkit-";
/// The machine, as pods see it.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(NETWORK[0], NETWORK[1], 0, 1);
/// The pod's interface.
pub(super) const INTERFACE: &str = "eth0";
const MTU: u32 = 1500;
/// The kernel takes no larger one for a veth.
const MTU_MAX: u32 = 65_535;
/// Any address of the world, to see which way that is. (RFC 5737)
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// More specific than this, a route to a pod's address is somebody's network and no default.
const COARSE_BITS: u8 = 8;
/// How long the kernel may take to remove a dead pod's namespace. A test has it at work with many at once.
const BURIAL_MAX: Duration = Duration::from_secs(if cfg!(test) { 30 } else { 1 });
const BURIAL_PAUSE: Duration = Duration::from_millis(2);

/// The machine's end. Dropping it removes both.
#[derive(Debug)]
pub(super) struct Veth {
    name: String,
    /// Who reaches other hosts of the pods' network by another interface, by that.
    pub(super) clash: Option<String>,
}

impl Veth {
    /// Makes the pair, each end in the namespace of its socket. `netns` is the pod's.
    pub(super) fn make(
        machine: &mut Route,
        pod: &mut Route,
        netns: BorrowedFd<'_>,
        address: Ipv4Addr,
    ) -> Result<Self, NoEgress> {
        let step =
            |what: &'static str| move |error: io::Error| NoEgress::new(format!("{what}: {error}"));
        let route = step("reading the machine's routes");
        // Of the way out, so that no path is narrower than the pod knows.
        let way_out = match machine.best(ELSEWHERE).map_err(route)? {
            Some(best) => machine.at(best.interface).map_err(route)?,
            None => None,
        };
        let mtu = way_out.map_or(MTU, |link| link.mtu).min(MTU_MAX);
        let clash = match machine.best(address).map_err(route)? {
            Some(best) if best.prefix_bits > COARSE_BITS => {
                machine.at(best.interface).map_err(route)?
            }
            _ => None,
        };
        let clash = clash.filter(|link| !link.name.starts_with(PREFIX));
        let name = interface(address);
        add(machine, &name, netns, mtu, address)?;
        let this = Self {
            name,
            clash: clash.map(|link| link.name),
        };
        let outside = index(machine, &this.name).map_err(step("finding the new interface"))?;
        let inside = index(pod, INTERFACE).map_err(step("finding the pod's interface"))?;
        for (route, index) in [(&mut *pod, inside), (&mut *machine, outside)] {
            if let Err(error) = route.no_ipv6(index) {
                tracing::debug!(%error, "no IPv6 to keep out");
            }
        }
        let mut configure = || {
            machine.make_router(outside)?;
            machine.up(outside)?;
            pod.up(inside)?;
            pod.add_address(inside, address)?;
            pod.add_default(GATEWAY, inside)?;
            machine.add_address(outside, GATEWAY)?;
            machine.add_route(address, outside)
        };
        configure().map_err(step("setting up the pod's interface"))?;
        Ok(this)
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        // The other end goes with it; and it with the pod's namespace, which may have been quicker.
        if let Err(error) = Route::open().and_then(|mut machine| machine.delete(&self.name)) {
            tracing::warn!(interface = self.name, %error, "the pod's interface was not removed");
        }
    }
}

fn add(
    machine: &mut Route,
    name: &str,
    netns: BorrowedFd<'_>,
    mtu: u32,
    address: Ipv4Addr,
) -> Result<(), NoEgress> {
    let end = Instant::now() + BURIAL_MAX;
    loop {
        match machine.add_veth(name, INTERFACE, netns, mtu) {
            Ok(()) => return Ok(()),
            Err(error) if is(&error, Errno::PERM) || is(&error, Errno::ACCESS) => {
                return Err(NoEgress::new(
                    "this user may not make network interfaces (CAP_NET_ADMIN)",
                ));
            }
            Err(error) if is(&error, Errno::OPNOTSUPP) => {
                return Err(NoEgress::new("the kernel has no veth (module veth)"));
            }
            Err(error) if !is(&error, Errno::EXIST) => {
                return Err(NoEgress::new(format!(
                    "making the pod's interface: {error}"
                )));
            }
            // The address is this pod's, so it was a dead one's, and the kernel has not come to it yet.
            Err(_) if Instant::now() < end => std::thread::sleep(BURIAL_PAUSE),
            Err(_) => {
                return Err(NoEgress::new(format!(
                    "the interface {name} is there already: something still uses the network of a pod that is gone, \
                     or a podkit with a /run of its own has the address {address}"
                )));
            }
        }
    }
}

fn index(route: &mut Route, name: &str) -> io::Result<u32> {
    let link: Option<Link> = route.find(name)?;
    let index = link.map(|link| link.index);
    index.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// `podkit-3-4` is the machine's end of 10.87.3.4.
pub(super) fn interface(address: Ipv4Addr) -> String {
    let [_, _, high, low] = address.octets();
    format!("{PREFIX}{high}-{low}")
}

/// Whose end an interface is.
pub(super) fn address_of(interface: &str) -> Option<Ipv4Addr> {
    let (high, low) = interface.strip_prefix(PREFIX)?.split_once('-')?;
    Some(Ipv4Addr::new(
        NETWORK[0],
        NETWORK[1],
        high.parse().ok()?,
        low.parse().ok()?,
    ))
}
