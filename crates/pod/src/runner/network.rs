//! The pod's network, put together: its namespace entered, its address, its way out.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

use podkit_foundation::error::Failure;

use crate::net::{AddressLease, Egress, PodNet};
use crate::sandbox::PodSandbox;

/// What containers are reached by and get out by.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) net: PodNet,
    /// None: it gets nowhere, or uses the machine's own.
    pub(super) egress: Option<Egress>,
    /// What is not as one may expect, a line each.
    pub(super) warnings: Vec<String>,
}

/// A network namespace of the pod's own. Blocks for a millisecond or two.
pub(super) fn own(sandbox: &PodSandbox, lease: &AddressLease) -> Result<Network, Failure> {
    let runtime = |error| Failure::runtime("the pod's network", error);
    let netns = sandbox.netns_fd().map_err(runtime)?;
    let net = PodNet::enter(netns.try_clone().map_err(runtime)?, lease.address());
    let net = net.map_err(runtime)?;
    match Egress::veth(&net, netns.as_fd(), lease) {
        Ok((egress, warnings)) => Ok(Network {
            net,
            egress: Some(egress),
            warnings,
        }),
        Err(why) => {
            net.stay_inside().map_err(runtime)?;
            Ok(Network {
                net,
                egress: None,
                warnings: vec![format!("the pod reaches nothing but itself: {why}")],
            })
        }
    }
}

/// `hostNetwork`.
pub(super) fn of_machine() -> Network {
    Network {
        net: PodNet::of_machine(machine_address()),
        egress: None,
        warnings: Vec::new(),
    }
}

/// The address that this machine has towards others; its loopback when it has none.
pub(super) fn machine_address() -> Ipv4Addr {
    match towards_others() {
        Some(IpAddr::V4(address)) => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}

/// The source of a datagram that is never sent. (RFC 5737 address)
fn towards_others() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
