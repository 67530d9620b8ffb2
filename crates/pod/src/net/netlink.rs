//! The two things that are asked of rtnetlink (rtnetlink(7)): set `lo` up, add an address to it.
//!
//! Written out by hand: the crates that speak netlink bring a message model of a thousand types, and both requests
//! are forty bytes.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 0x1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;
/// `lo` is the first interface of every network namespace. (Kernel: `LOOPBACK_IFINDEX`.)
const LO: u32 = 1;
const HEADER_BYTES: usize = 16;

/// A route socket in the calling thread's network namespace.
pub(super) struct Route(OwnedFd);

impl Route {
    pub(super) fn open() -> io::Result<Self> {
        // Without a protocol it is NETLINK_ROUTE.
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self(fd))
    }

    /// `ip link set lo up`.
    pub(super) fn lo_up(&self) -> io::Result<()> {
        // struct ifinfomsg: family, pad, type, index, flags, change.
        let mut body = vec![0u8; 4];
        body.extend(LO.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        self.ask(RTM_NEWLINK, 0, &body)
    }

    /// `ip address add ADDRESS/32 dev lo`. It is no error when it is there already.
    pub(super) fn lo_add(&self, address: Ipv4Addr) -> io::Result<()> {
        // struct ifaddrmsg: family, prefixlen, flags, scope (global: it is the source of what leaves), index.
        let mut body = vec![AF_INET, 32, 0, 0];
        body.extend(LO.to_ne_bytes());
        for attribute in [IFA_LOCAL, IFA_ADDRESS] {
            body.extend(8u16.to_ne_bytes());
            body.extend(attribute.to_ne_bytes());
            body.extend(address.octets());
        }
        match self.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(HEADER_BYTES + body.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // struct nlmsghdr: length, type, flags, sequence, port.
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.extend(1u32.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(body);
        sendto(
            &self.0,
            &message,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut reply = [0u8; 1024];
        let (read, _) = recv(&self.0, &mut reply[..], RecvFlags::empty())?;
        acknowledged(&reply[..read])
    }
}

/// The kernel's answer to one request: `struct nlmsghdr`, then the negative error number, 0 when it was done.
pub(super) fn acknowledged(reply: &[u8]) -> io::Result<()> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "not a netlink acknowledgement");
    let kind = reply.get(4..6).ok_or_else(bad)?;
    let code = reply.get(HEADER_BYTES..HEADER_BYTES + 4).ok_or_else(bad)?;
    let kind = u16::from_ne_bytes([kind[0], kind[1]]);
    let code = i32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
    match (kind, code) {
        (NLMSG_ERROR, 0) => Ok(()),
        (NLMSG_ERROR, code) if code < 0 => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(bad()),
    }
}
