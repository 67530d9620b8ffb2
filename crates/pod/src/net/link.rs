//! What is asked of rtnetlink (rtnetlink(7)): interfaces, addresses, routes.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::netlink::{Message, NLM_F_CREATE, NLM_F_EXCL, ROUTE, Reply, Socket, attribute, string};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IPV4_DEVCONF_FORWARDING: u16 = 1;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;
/// Without counters, which are most of an interface's description.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// `struct ifinfomsg`.
const LINK_BYTES: usize = 16;
/// `struct rtmsg`.
const ROUTE_BYTES: usize = 12;

/// `lo` is the first interface of every network namespace. (Kernel: `LOOPBACK_IFINDEX`.)
pub(super) const LO: u32 = 1;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) up: bool,
    pub(super) loopback: bool,
}

/// The best route to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Best {
    /// Of its destination: 0 is the default route.
    pub(super) prefix_bits: u8,
    pub(super) interface: u32,
}

/// A route socket in the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Route(Socket);

impl Route {
    pub(super) fn open() -> io::Result<Self> {
        Socket::open(ROUTE).map(Self)
    }

    /// One that was opened elsewhere.
    pub(super) fn of(socket: Socket) -> Self {
        Self(socket)
    }

    /// `ip link set INDEX up`.
    pub(super) fn up(&mut self, index: u32) -> io::Result<()> {
        self.0
            .ask(Message::new(RTM_NEWLINK, 0, &link(index, IFF_UP, IFF_UP)))
    }

    /// `ip address add ADDRESS/32 dev INDEX`. It is no error when it is there already.
    pub(super) fn add_address(&mut self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        // struct ifaddrmsg: family, prefixlen, flags, scope (global: it is the source of what leaves), index.
        let mut fixed = vec![AF_INET, 32, 0, 0];
        fixed.extend(index.to_ne_bytes());
        let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &fixed)
            .attr(IFA_LOCAL, &address.octets())
            .attr(IFA_ADDRESS, &address.octets());
        match self.0.ask(message) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// `ip link add NAME mtu MTU type veth peer name PEER netns PEER_NS`, both ends down.
    pub(super) fn add_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_ns: BorrowedFd<'_>,
        mtu: u32,
    ) -> io::Result<()> {
        let namespace = peer_ns.as_raw_fd().to_ne_bytes();
        let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link(0, 0, 0))
            .text(IFLA_IFNAME, name)
            .u32(IFLA_MTU, mtu)
            .nest(IFLA_LINKINFO, &[], |info| {
                info.text(IFLA_INFO_KIND, "veth")
                    .nest(IFLA_INFO_DATA, &[], |data| {
                        data.nest(VETH_INFO_PEER, &link(0, 0, 0), |end| {
                            end.text(IFLA_IFNAME, peer)
                                .u32(IFLA_MTU, mtu)
                                .attr(IFLA_NET_NS_FD, &namespace)
                        })
                    })
            });
        self.0.ask(message)
    }

    /// `ip link delete NAME`; false when there is none.
    pub(super) fn delete(&mut self, name: &str) -> io::Result<bool> {
        let message = Message::new(RTM_DELLINK, 0, &link(0, 0, 0)).text(IFLA_IFNAME, name);
        match self.0.ask(message) {
            Err(error) if absent(&error) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// The interface of this name.
    pub(super) fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        let message = Message::new(RTM_GETLINK, 0, &link(0, 0, 0))
            .text(IFLA_IFNAME, name)
            .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.one(message)
    }

    /// The interface of this index.
    pub(super) fn at(&mut self, index: u32) -> io::Result<Option<Link>> {
        let message = Message::new(RTM_GETLINK, 0, &link(index, 0, 0))
            .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.one(message)
    }

    fn one(&mut self, message: Message) -> io::Result<Option<Link>> {
        match self.0.get(message, link_of) {
            Err(error) if absent(&error) => Ok(None),
            other => other,
        }
    }

    /// Every interface of the namespace.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let message = Message::new(RTM_GETLINK, 0, &link(0, 0, 0))
            .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.0.dump(&message, link_of)
    }

    /// Lets the interface route what comes in by it, but only from addresses that lead back to it.
    pub(super) fn make_router(&mut self, index: u32) -> io::Result<()> {
        let message =
            Message::new(RTM_SETLINK, 0, &link(index, 0, 0)).nest(IFLA_AF_SPEC, &[], |families| {
                families.nest(u16::from(AF_INET), &[], |inet| {
                    inet.nest(IFLA_INET_CONF, &[], |conf| {
                        conf.u32(IPV4_DEVCONF_FORWARDING, 1)
                            .u32(IPV4_DEVCONF_RP_FILTER, 1)
                    })
                })
            });
        self.0.ask(message)
    }

    /// Keeps the interface from giving itself an IPv6 address when it goes up. An error where there is no IPv6.
    pub(super) fn no_ipv6(&mut self, index: u32) -> io::Result<()> {
        let message =
            Message::new(RTM_SETLINK, 0, &link(index, 0, 0)).nest(IFLA_AF_SPEC, &[], |families| {
                families.nest(u16::from(AF_INET6), &[], |inet6| {
                    inet6.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE])
                })
            });
        self.0.ask(message)
    }

    /// `ip route add ADDRESS/32 dev INDEX`.
    pub(super) fn add_route(&mut self, address: Ipv4Addr, index: u32) -> io::Result<()> {
        let fixed = route(32, RT_SCOPE_LINK, 0);
        let message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &fixed)
            .attr(RTA_DST, &address.octets())
            .u32(RTA_OIF, index);
        self.0.ask(message)
    }

    /// `ip route add default via GATEWAY dev INDEX onlink`.
    pub(super) fn add_default(&mut self, gateway: Ipv4Addr, index: u32) -> io::Result<()> {
        let fixed = route(0, RT_SCOPE_UNIVERSE, RTNH_F_ONLINK);
        let message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &fixed)
            .attr(RTA_GATEWAY, &gateway.octets())
            .u32(RTA_OIF, index);
        self.0.ask(message)
    }

    /// The route that leads to `address`, if any.
    pub(super) fn best(&mut self, address: Ipv4Addr) -> io::Result<Option<Best>> {
        let mut fixed = [0; ROUTE_BYTES];
        fixed[0] = AF_INET;
        fixed[1] = 32;
        fixed[8..12].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
        let message = Message::new(RTM_GETROUTE, 0, &fixed).attr(RTA_DST, &address.octets());
        let read = |reply: &Reply<'_>| {
            let index = attribute(reply.body.get(ROUTE_BYTES..)?, RTA_OIF)?;
            Some(Best {
                prefix_bits: *reply.body.get(1)?,
                interface: u32::from_ne_bytes(index.try_into().ok()?),
            })
        };
        match self.0.get(message, read) {
            Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => Ok(None),
            other => other,
        }
    }
}

fn absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// `struct ifinfomsg`: family, pad, type, index, flags, change.
fn link(index: u32, flags: u32, change: u32) -> [u8; LINK_BYTES] {
    let mut fixed = [0; LINK_BYTES];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

/// `struct rtmsg`: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
fn route(prefix_bits: u8, scope: u8, flags: u32) -> [u8; ROUTE_BYTES] {
    let mut fixed = [0; ROUTE_BYTES];
    fixed[..8].copy_from_slice(&[
        AF_INET,
        prefix_bits,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        scope,
        RTN_UNICAST,
    ]);
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed
}

fn link_of(reply: &Reply<'_>) -> Option<Link> {
    let (fixed, rest) = reply.body.split_at_checked(LINK_BYTES)?;
    let number = |at: usize| Some(u32::from_ne_bytes(*fixed.get(at..)?.first_chunk()?));
    let flags = number(8)?;
    let mtu = attribute(rest, IFLA_MTU).and_then(|mtu| mtu.first_chunk());
    Some(Link {
        index: number(4)?,
        name: string(attribute(rest, IFLA_IFNAME)?),
        mtu: mtu.map_or(0, |mtu| u32::from_ne_bytes(*mtu)),
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
    })
}
