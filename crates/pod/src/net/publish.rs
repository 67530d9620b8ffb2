//! The ports of the machine that lead into the pod: which there are, taking them, serving them.
//!
//! All ports are taken before anything of the pod starts, so that a taken one is an error at once, and each is taken without
//! SO_REUSEPORT: a second bind has to fail.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::forward::{self, Limits, Route};
use super::{PodNet, holder, udp};
use crate::plan::{ContainerPlan, PodPlan, PortPlan, Protocol};

const BACKLOG: i32 = 1024;

/// Ports that could not be taken, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .lines.join("\n"))]
pub struct PublishError {
    /// `port 8080 of container app: 127.0.0.1:8080 is taken by nginx (pid 123)`.
    pub lines: Vec<String>,
}

/// A port of the machine that leads into the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The container that declares it.
    pub container: String,
    /// `name` of the port.
    pub name: Option<String>,
    /// `containerPort`.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where the machine listens; all addresses are `[::]` (IPv4 as well) or `0.0.0.0`.
    pub local: SocketAddr,
    /// It is a `hostPort`: others can reach it.
    pub host: bool,
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) published: Published,
    pub(super) route: Route,
    /// IPv6's part of a pair: a machine without IPv6 does without.
    pub(super) optional: bool,
}

enum Taken {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// The published ports of a pod. Dropping it closes them and their connections.
pub struct Publisher {
    taken: Vec<(Taken, Route)>,
    published: Vec<Published>,
    warnings: Vec<String>,
    serving: JoinSet<()>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// Takes every port of the pod: `hostPort`s, and with `loopback` every `containerPort` on the machine's loopback
    /// addresses. Connections wait in the queue until [`Publisher::serve`]. Needs a tokio runtime. A port of the loopback that this
    /// user may not take is a warning; anything else that can't be taken is an error.
    ///
    /// A pod on the machine's own network listens itself: nothing is taken, and its ports are published as they are.
    pub fn take(plan: &PodPlan, loopback: bool) -> Result<Self, PublishError> {
        if plan.host.network {
            return Ok(Self {
                taken: Vec::new(),
                published: own_ports(plan),
                warnings: Vec::new(),
                serving: JoinSet::new(),
            });
        }
        let (wanted, warnings) = wanted(plan, loopback);
        let mut publisher = Self {
            taken: Vec::new(),
            published: Vec::new(),
            warnings,
            serving: JoinSet::new(),
        };
        let mut lines = Vec::new();
        // A program that has a port has it on both loopbacks mostly: said once.
        let mut refused: Vec<(Protocol, u16)> = Vec::new();
        for mut want in wanted {
            match take(&mut want) {
                Ok(taken) => {
                    publisher.taken.push((taken, want.route));
                    publisher.published.push(want.published);
                }
                Err(error) if want.optional && without_ipv6(&error) => {}
                Err(error) => {
                    let port = (want.published.protocol, want.published.local.port());
                    if !want.optional || !refused.contains(&port) {
                        let line = refusal(&want.published, &error);
                        // The loopback is podkit's own idea, without which the pod is whole.
                        let denied = error.kind() == io::ErrorKind::PermissionDenied;
                        match denied && !want.published.host {
                            true => publisher.warnings.push(format!("not published: {line}")),
                            false => lines.push(line),
                        }
                    }
                    refused.push(port);
                }
            }
        }
        if lines.is_empty() {
            Ok(publisher)
        } else {
            Err(PublishError { lines })
        }
    }

    /// Starts to serve what was taken.
    pub fn serve(&mut self, net: &Arc<PodNet>) {
        let limits = Limits::of_process();
        for (taken, route) in self.taken.drain(..) {
            let (net, limits) = (Arc::clone(net), limits.clone());
            match taken {
                Taken::Tcp(listener) => {
                    let serve = forward::serve(listener, route, net, limits);
                    self.serving.spawn(serve)
                }
                Taken::Udp(socket) => {
                    let serve = udp::serve(socket, route, net, limits, udp::FLOW_IDLE);
                    self.serving.spawn(serve)
                }
            };
        }
    }

    /// What is published, in the order of the file; the loopback's IPv4 before its IPv6.
    pub fn published(&self) -> &[Published] {
        &self.published
    }

    /// Ports that are reached in another way than one may expect, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Closes the ports and their connections, and waits until they are.
    pub async fn close(mut self) {
        self.taken.clear();
        self.serving.shutdown().await;
    }
}

/// The ports that a pod on the machine's own network declares. (Kubernetes API: with hostNetwork, hostPort is containerPort.)
fn own_ports(plan: &PodPlan) -> Vec<Published> {
    let of = |container: &ContainerPlan, port: &PortPlan| Published {
        container: container.name.clone(),
        name: port.name.clone(),
        port: port.port,
        protocol: port.protocol,
        local: SocketAddr::new(
            port.host_ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            port.port,
        ),
        host: true,
    };
    let containers = plan.containers.iter();
    containers
        .flat_map(|container| container.ports.iter().map(move |port| of(container, port)))
        .collect()
}

/// What a plan wants to listen on.
pub(super) fn wanted(plan: &PodPlan, loopback: bool) -> (Vec<Wanted>, Vec<String>) {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut warnings = Vec::new();
    let ports = || {
        plan.containers
            .iter()
            .flat_map(|c| c.ports.iter().map(move |port| (c, port)))
    };
    let entry = |container: &str, port: &PortPlan, local, host, loopback, optional| Wanted {
        published: Published {
            container: container.to_string(),
            name: port.name.clone(),
            port: port.port,
            protocol: port.protocol,
            local,
            host,
        },
        route: Route {
            port: port.port,
            loopback,
        },
        optional,
    };
    for (container, port) in ports() {
        let Some(number) = port.host_port else {
            continue;
        };
        // Where both are the same number the one listener serves both: the address that was reached decides.
        let both = loopback && number == port.port;
        let ip = port.host_ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let local = SocketAddr::new(ip, number);
        wanted.push(entry(&container.name, port, local, true, both, false));
    }
    if !loopback {
        return (wanted, warnings);
    }
    for (container, port) in ports() {
        for ip in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let local = SocketAddr::new(ip, port.port);
            let other = wanted.iter().find(|have| {
                have.published.protocol == port.protocol && covers(have.published.local, local)
            });
            match other {
                None => wanted.push(entry(
                    &container.name,
                    port,
                    local,
                    false,
                    true,
                    ip.is_ipv6(),
                )),
                Some(have) if have.route.port == port.port => {}
                Some(have) if ip.is_ipv4() => warnings.push(format!(
                    "port {} of container {} is not published on {local}: that is hostPort {} of container {}",
                    port.port, container.name, local.port(), have.published.container
                )),
                Some(_) => {}
            }
        }
    }
    (wanted, warnings)
}

/// Whether who listens on `have` has `local` too.
fn covers(have: SocketAddr, local: SocketAddr) -> bool {
    let all = match have.ip() {
        // [::] takes IPv4 as well.
        IpAddr::V6(ip) => ip.is_unspecified(),
        IpAddr::V4(ip) => ip.is_unspecified() && local.is_ipv4(),
    };
    have.port() == local.port() && (all || have.ip() == local.ip())
}

/// Listens; a machine without IPv6 gets `0.0.0.0` for `[::]`.
fn take(want: &mut Wanted) -> io::Result<Taken> {
    let published = &mut want.published;
    let all = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match listen(published.local, published.protocol) {
        Err(error) if published.local.ip() == all && without_ipv6(&error) => {
            published.local.set_ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            listen(published.local, published.protocol)
        }
        other => other,
    }
}

fn listen(local: SocketAddr, protocol: Protocol) -> io::Result<Taken> {
    let family = match local {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd: OwnedFd = socket_with(family, kind, flags, None)?;
    if local.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, !local.ip().is_unspecified())?;
    }
    match protocol {
        Protocol::Tcp => {
            // Connections of the last start that wait out their time don't stand in the way; a listener does. For UDP
            // the option would let two share the port.
            sockopt::set_socket_reuseaddr(&fd, true)?;
            rustix::net::bind(&fd, &local)?;
            rustix::net::listen(&fd, BACKLOG)?;
            Ok(Taken::Tcp(TcpListener::from_std(fd.into())?))
        }
        Protocol::Udp => {
            rustix::net::bind(&fd, &local)?;
            Ok(Taken::Udp(UdpSocket::from_std(fd.into())?))
        }
    }
}

fn without_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let absent = [
        Errno::AFNOSUPPORT,
        Errno::ADDRNOTAVAIL,
        Errno::PROTONOSUPPORT,
    ];
    absent
        .iter()
        .any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

fn refusal(port: &Published, error: &io::Error) -> String {
    let what = if port.host { "hostPort" } else { "port" };
    let number = if port.host {
        port.local.port()
    } else {
        port.port
    };
    let protocol = match port.protocol {
        Protocol::Tcp => "",
        Protocol::Udp => "/UDP",
    };
    let start = format!(
        "{what} {number}{protocol} of container {}: {}",
        port.container, port.local
    );
    match error.kind() {
        io::ErrorKind::AddrInUse => match holder::holder(port.protocol, port.local) {
            Some(who) => format!("{start} is taken by {who}"),
            None => format!("{start} is taken by another program"),
        },
        io::ErrorKind::PermissionDenied => {
            format!(
                "{start} may not be taken by this user (ports below net.ipv4.ip_unprivileged_port_start)"
            )
        }
        _ => format!("{start} can't be listened on: {error}"),
    }
}
