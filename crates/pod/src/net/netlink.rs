//! Netlink (netlink(7)): messages put together and taken apart, and the sockets that carry them.
//!
//! Written out by hand: the crates that speak netlink bring a message model of a thousand types, and what is asked here
//! are a dozen requests of some forty bytes. What is asked is in `link` (rtnetlink) and `nft` (nf_tables).

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

/// `NETLINK_ROUTE` is no protocol at all: 0.
pub(super) const ROUTE: Option<Protocol> = None;
pub(super) const NETFILTER: Option<Protocol> = Some(rustix::net::netlink::NETFILTER);

pub(super) const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_DUMP: u16 = 0x300;
/// The list changed while it was read.
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// Without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const KIND_MASK: u16 = 0x3fff;
/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER_BYTES: usize = 16;
/// What the kernel fills at most at a time with a list.
const REPLY_BYTES: usize = 32 * 1024;
/// A list that changes all the time is not read for ever.
const DUMP_TRIES: usize = 10;

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// `fixed` is the struct that the type begins with.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        let mut this = Self(bytes);
        this.pad();
        this
    }

    /// An attribute.
    pub(super) fn attr(mut self, kind: u16, data: &[u8]) -> Self {
        // Attributes are names, numbers and addresses.
        let length = u16::try_from(4 + data.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(data);
        self.pad();
        self
    }

    /// A string, with its NUL.
    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// A number in the network's order, as nf_tables has them.
    pub(super) fn be32(self, kind: u16, number: u32) -> Self {
        self.attr(kind, &number.to_be_bytes())
    }

    /// A number in the machine's order, as rtnetlink has them.
    pub(super) fn u32(self, kind: u16, number: u32) -> Self {
        self.attr(kind, &number.to_ne_bytes())
    }

    /// An attribute of attributes; `fixed` is what stands before them.
    pub(super) fn nest(
        mut self,
        kind: u16,
        fixed: &[u8],
        inner: impl FnOnce(Self) -> Self,
    ) -> Self {
        let start = self.0.len();
        self = self.attr(kind | NESTED, fixed);
        self = inner(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// The attributes that `inner` adds.
    pub(super) fn with(self, inner: impl FnOnce(Self) -> Self) -> Self {
        inner(self)
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// As it would be sent.
    #[cfg(test)]
    pub(super) fn bytes(self, sequence: u32) -> Vec<u8> {
        self.finish(sequence, 0)
    }

    fn finish(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | flags;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    pub(super) kind: u16,
    flags: u16,
    sequence: u32,
    /// After the header.
    pub(super) body: &'a [u8],
}

impl Reply<'_> {
    /// The error number, when it is an acknowledgement: 0 when it was done.
    fn code(&self) -> Option<i32> {
        let code = self.body.first_chunk::<4>()?;
        (self.kind == NLMSG_ERROR).then(|| i32::from_ne_bytes(*code))
    }
}

/// Takes the messages of a datagram apart; ends at the first that is cut off.
pub(super) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let message = bytes.get(..length)?;
        let u16_at = |at: usize| {
            Some(u16::from_ne_bytes([
                *message.get(at)?,
                *message.get(at + 1)?,
            ]))
        };
        let reply = Reply {
            kind: u16_at(4)?,
            flags: u16_at(6)?,
            sequence: u32::from_ne_bytes(*message.get(8..)?.first_chunk()?),
            body: message.get(HEADER_BYTES..)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(reply)
    })
}

/// Takes attributes apart: type and content. Ends at the first that is cut off.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & KIND_MASK, content))
    })
}

/// The content of the first attribute of this type.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, content)| content)
}

/// A string of an attribute, without its NUL.
pub(super) fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// A netlink socket. It stays in the network namespace in which it was made, whoever uses it.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(super) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Ok(Self::of(fd))
    }

    /// One that was made elsewhere, and so belongs there.
    pub(super) fn of(fd: OwnedFd) -> Self {
        Self { fd, sequence: 0 }
    }

    /// Asks for one thing, and waits until it is done.
    pub(super) fn ask(&mut self, message: Message) -> io::Result<()> {
        self.batch(vec![message], 0)
    }

    /// Asks for several, which the kernel does in order; of the one at `answered` it is asked to say that it is done.
    pub(super) fn batch(&mut self, messages: Vec<Message>, answered: usize) -> io::Result<()> {
        let first = self.sequence.wrapping_add(1);
        let wanted = first.wrapping_add(u32::try_from(answered).unwrap_or(u32::MAX));
        let mut bytes = Vec::new();
        for (at, message) in messages.into_iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let flags = if at == answered { NLM_F_ACK } else { 0 };
            bytes.extend(message.finish(self.sequence, flags));
        }
        self.send(&bytes)?;
        let last = self.sequence;
        let mut buffer = vec![0; REPLY_BYTES];
        loop {
            for reply in replies(self.receive(&mut buffer)?) {
                // Of an earlier one that failed: more than one message of it may have been answered.
                if reply.sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                match reply.code() {
                    Some(0) if reply.sequence == wanted => return Ok(()),
                    Some(code) if code < 0 => return Err(io::Error::from_raw_os_error(-code)),
                    _ => {}
                }
            }
        }
    }

    /// Asks for one thing and gives its answer, of which there is one.
    pub(super) fn get<T>(
        &mut self,
        message: Message,
        mut read: impl FnMut(&Reply<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&message.finish(self.sequence, 0))?;
        let mut buffer = vec![0; REPLY_BYTES];
        loop {
            for reply in replies(self.receive(&mut buffer)?) {
                if reply.sequence != self.sequence {
                    continue;
                }
                return match reply.code() {
                    Some(code) if code < 0 => Err(io::Error::from_raw_os_error(-code)),
                    _ => Ok(read(&reply)),
                };
            }
        }
    }

    /// Reads a list; again when it changed meanwhile.
    pub(super) fn dump<T>(
        &mut self,
        message: &Message,
        mut read: impl FnMut(&Reply<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_TRIES {
            found.clear();
            if self.dump_once(message, &mut |reply| found.extend(read(reply)))? {
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// False when the list changed.
    fn dump_once(
        &mut self,
        message: &Message,
        read: &mut dyn FnMut(&Reply<'_>),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&message.clone().finish(self.sequence, NLM_F_DUMP))?;
        let mut buffer = vec![0; REPLY_BYTES];
        let mut whole = true;
        loop {
            for reply in replies(self.receive(&mut buffer)?) {
                if reply.sequence != self.sequence {
                    continue;
                }
                whole &= reply.flags & NLM_F_DUMP_INTR == 0;
                match reply.code() {
                    Some(code) if code < 0 => return Err(io::Error::from_raw_os_error(-code)),
                    _ if reply.kind == NLMSG_DONE => return Ok(whole),
                    _ => read(&reply),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.fd, bytes, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let (read, _) =
            rustix::io::retry_on_intr(|| recv(&self.fd, &mut *buffer, RecvFlags::empty()))?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(&buffer[..read])
    }
}
