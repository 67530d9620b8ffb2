//! The pod's network, put together: its namespace entered, its address, its way out.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use podkit_foundation::error::Failure;

use super::resolv::{PodResolv, Reach, Resolv};
use crate::net::{AddressLease, Egress, Forwarder, Namespaces, NoEgress, PodNet};
use crate::plan::PodPlan;
use crate::sandbox::PodSandbox;

/// What containers are reached by and get out by.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) net: PodNet,
    /// None: it gets nowhere, or uses the machine's own.
    pub(super) egress: Option<Egress>,
    /// Where the pod's names come from, when it can't ask the machine's name servers itself.
    pub(super) forwarder: Option<Forwarder>,
    /// `/etc/resolv.conf`.
    pub(super) resolv: PodResolv,
    /// What is not as one may expect, a line each.
    pub(super) warnings: Vec<String>,
}

/// A network namespace of the pod's own. Blocks for a millisecond or two; needs a tokio runtime.
pub(super) fn own(
    plan: &PodPlan,
    sandbox: &PodSandbox,
    lease: &AddressLease,
) -> Result<Network, Failure> {
    let runtime = |error| Failure::runtime("the pod's network", error);
    let netns = sandbox.netns_fd().map_err(runtime)?;
    let net = PodNet::enter(netns.try_clone().map_err(runtime)?, lease.address());
    let net = net.map_err(runtime)?;
    let (egress, mut warnings) = match Egress::veth(&net, netns.as_fd(), lease) {
        Ok((egress, warnings)) => (Some(egress), warnings),
        Err(no_veth) => match by_pasta(plan, &net, netns.as_fd(), sandbox) {
            Ok(egress) => (Some(egress), Vec::new()),
            Err(no_pasta) => {
                net.stay_inside().map_err(runtime)?;
                let warning = format!("the pod reaches nothing but itself: {no_veth}; {no_pasta}");
                (None, vec![warning])
            }
        },
    };
    let reach = match egress {
        Some(_) => Reach::Egress,
        None => Reach::Nothing,
    };
    let resolv = Resolv::of_machine().for_pod(&plan.dns, reach);
    let forwarder = match &resolv.forwarded[..] {
        [] => None,
        resolvers => match Forwarder::start(&net, resolvers.to_vec()) {
            Ok(forwarder) => Some(forwarder),
            Err(why) => {
                warnings.push(format!(
                    "names are not resolved in the pod: this machine's name server {} can't be reached from there, and \
                     forwarding to it failed: {why}",
                    resolvers[0].ip()
                ));
                None
            }
        },
    };
    Ok(Network {
        net,
        egress,
        forwarder,
        resolv,
        warnings,
    })
}

/// What an unprivileged user can have. This process is in the user namespace that owns the pod's.
fn by_pasta(
    plan: &PodPlan,
    net: &PodNet,
    netns: BorrowedFd<'_>,
    sandbox: &PodSandbox,
) -> Result<Egress, NoEgress> {
    if plan.host.pid {
        let why = "with hostPID there is no PID namespace that would end pasta with the pod";
        return Err(NoEgress::new(why));
    }
    let path = format!("/proc/{}/ns/pid", sandbox.init().pid());
    let processes = File::open(&path).map_err(|error| NoEgress::new(format!("{path}: {error}")))?;
    let namespaces = Namespaces {
        network: netns,
        user: None,
        processes: Some(processes.as_fd()),
    };
    Egress::pasta(net, namespaces)
}

/// `hostNetwork`.
pub(super) fn of_machine(plan: &PodPlan) -> Network {
    Network {
        net: PodNet::of_machine(machine_address()),
        egress: None,
        forwarder: None,
        resolv: Resolv::of_machine().for_pod(&plan.dns, Reach::Machine),
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
