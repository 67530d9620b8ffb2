//! The PROXY protocol, versions 1 and 2: who the client of a balancer before us is, and of us for the one behind
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). No I/O.
//!
//! The parser says how many bytes it is sure to need next, so that who reads never reads beyond the header: what follows is
//! TLS or a request, which somebody else reads. A header that is not exactly as the specification has it ends the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::socket::Peer;

mod accept;

pub use accept::{AcceptProxy, accept_from};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_BYTES: usize = 16;
/// Bytes of a line of version 1 at most, its end included.
const LINE_BYTES: usize = 107;
/// Bytes of a header of version 2 at most, its TLVs included: room for a certificate's names, not for whatever one likes.
const MAX_BYTES: usize = FIXED_BYTES + 4096;

/// What came so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// At least so many more bytes belong to the header.
    More(usize),
    /// It is whole. None: it names no client (a health check of the balancer's own, or a family that has no address).
    Done(Option<Path>),
}

/// From where to where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Who opened it.
    pub from: SocketAddr,
    /// Where it was opened to.
    pub to: SocketAddr,
}

/// Why a header is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wrong(pub(crate) &'static str);

/// Looks at all bytes of a header that came so far.
pub(crate) fn parse(bytes: &[u8]) -> Result<Step, Wrong> {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] && common > 0 {
        return parse_binary(bytes);
    }
    let word = b"PROXY ";
    let common = bytes.len().min(word.len());
    match bytes[..common] == word[..common] {
        true => parse_line(bytes),
        false => Err(Wrong("no PROXY protocol header")),
    }
}

fn parse_line(bytes: &[u8]) -> Result<Step, Wrong> {
    // What a header has at least: "PROXY UNKNOWN" and the line's end.
    let least = b"PROXY UNKNOWN\r\n".len();
    if bytes.len() < least {
        return match bytes.contains(&b'\n') {
            true => Err(Wrong("a PROXY line that is too short")),
            false => Ok(Step::More(least - bytes.len())),
        };
    }
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        if bytes.contains(&b'\n') {
            return Err(Wrong("a PROXY line that does not end with CRLF"));
        }
        let ends = bytes.ends_with(b"\r");
        // Each field that is missing is a space and a byte at least.
        let spaces = bytes.iter().filter(|byte| **byte == b' ').count();
        let missing = match bytes.starts_with(b"PROXY UNKNOWN") {
            true => 0,
            false => 5_usize.saturating_sub(spaces),
        };
        let more = if ends { 1 } else { 2 * missing + 2 };
        return match bytes.len() + more <= LINE_BYTES {
            true => Ok(Step::More(more)),
            false => Err(Wrong("a PROXY line that is too long")),
        };
    };
    let text = std::str::from_utf8(line).map_err(|_| Wrong("a PROXY line that is not ASCII"))?;
    let mut words = text.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // What follows must be ignored.
        return Ok(Step::Done(None));
    }
    let mut next = || {
        words
            .next()
            .ok_or(Wrong("a PROXY line with too few fields"))
    };
    let (from, to) = (next()?, next()?);
    let (from_port, to_port) = (next()?, next()?);
    if words.next().is_some() {
        return Err(Wrong("a PROXY line with too many fields"));
    }
    let addr = |text: &str| -> Result<IpAddr, Wrong> {
        let wrong = Wrong("a PROXY line with an address that is none");
        match family {
            "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| wrong),
            "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| wrong),
            _ => Err(Wrong("a PROXY line of an unknown family")),
        }
    };
    Ok(Step::Done(Some(Path {
        from: SocketAddr::new(addr(from)?, port(from_port)?),
        to: SocketAddr::new(addr(to)?, port(to_port)?),
    })))
}

/// Digits without leading zeros, as the specification has them.
fn port(text: &str) -> Result<u16, Wrong> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    let number = text.parse().ok().filter(|_| digits && plain);
    number.ok_or(Wrong("a PROXY line with a port that is none"))
}

fn parse_binary(bytes: &[u8]) -> Result<Step, Wrong> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
        return Ok(Step::More(FIXED_BYTES - bytes.len()));
    };
    let [version, family, high, low] = [fixed[12], fixed[13], fixed[14], fixed[15]];
    let len = usize::from(u16::from_be_bytes([high, low]));
    if version >> 4 != 2 {
        return Err(Wrong("a PROXY header of a version that is not 2"));
    }
    if FIXED_BYTES + len > MAX_BYTES {
        return Err(Wrong("a PROXY header that is too long"));
    }
    if rest.len() < len {
        return Ok(Step::More(len - rest.len()));
    }
    if rest.len() > len {
        return Err(Wrong("bytes behind a PROXY header"));
    }
    match version & 15 {
        // LOCAL: the balancer itself; what follows is to be ignored.
        0 => return Ok(Step::Done(None)),
        1 => {}
        _ => return Err(Wrong("a PROXY header with an unknown command")),
    }
    let short = Wrong("a PROXY header that is too short for its addresses");
    let (path, tlvs) = match family {
        // TCP over IPv4, and over IPv6.
        0x11 => {
            let (block, tlvs) = rest.split_first_chunk::<12>().ok_or(short)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *block;
            let ips = [Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h)];
            (path(ips.map(IpAddr::V4), ports), tlvs)
        }
        0x21 => {
            let (block, tlvs) = rest.split_first_chunk::<36>().ok_or(short)?;
            let (from, rest) = block.split_first_chunk::<16>().ok_or(short)?;
            let (to, ports) = rest.split_first_chunk::<16>().ok_or(short)?;
            let ports = ports.try_into().map_err(|_| short)?;
            let ips = [Ipv6Addr::from(*from), Ipv6Addr::from(*to)];
            (path(ips.map(IpAddr::V6), ports), tlvs)
        }
        // Unspecified, and unix sockets: there is no address to tell.
        0x00 => return Ok(Step::Done(None)),
        0x31 => {
            let tlvs = rest.get(216..).ok_or(short)?;
            check_tlvs(tlvs)?;
            return Ok(Step::Done(None));
        }
        _ => return Err(Wrong("a PROXY header of a family that is no stream")),
    };
    check_tlvs(tlvs)?;
    Ok(Step::Done(Some(path)))
}

fn path([from, to]: [IpAddr; 2], ports: [u8; 4]) -> Path {
    let [a, b, c, d] = ports;
    Path {
        from: SocketAddr::new(from, u16::from_be_bytes([a, b])),
        to: SocketAddr::new(to, u16::from_be_bytes([c, d])),
    }
}

/// They are skipped, but they must fill what was announced.
fn check_tlvs(mut bytes: &[u8]) -> Result<(), Wrong> {
    while !bytes.is_empty() {
        let wrong = Wrong("a PROXY header whose TLVs don't fit");
        let ([_, high, low], rest) = bytes.split_first_chunk::<3>().ok_or(wrong)?;
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        bytes = rest.get(len..).ok_or(wrong)?;
    }
    Ok(())
}

podkit_foundation::choices! {
    /// `--send-proxy`.
    pub enum SendProxy {
        /// A line of text.
        V1 = "v1",
        /// Binary.
        V2 = "v2",
    }
}

/// The header for a connection of `path`; without one it says that nothing is known (`UNKNOWN`, `LOCAL`).
pub(crate) fn put_header(version: SendProxy, path: Option<Path>) -> Vec<u8> {
    // Two families can't be said at once: IPv4 goes as IPv6 then.
    let path = path.map(|path| match (path.from.ip(), path.to.ip()) {
        (IpAddr::V4(from), IpAddr::V6(_)) => Path {
            from: SocketAddr::new(from.to_ipv6_mapped().into(), path.from.port()),
            ..path
        },
        (IpAddr::V6(_), IpAddr::V4(to)) => Path {
            to: SocketAddr::new(to.to_ipv6_mapped().into(), path.to.port()),
            ..path
        },
        _ => path,
    });
    match (version, path) {
        (SendProxy::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (SendProxy::V1, Some(Path { from, to })) => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let (ip, to_ip) = (from.ip(), to.ip());
            format!(
                "PROXY {family} {ip} {to_ip} {} {}\r\n",
                from.port(),
                to.port()
            )
            .into_bytes()
        }
        (SendProxy::V2, path) => {
            let mut out = SIGNATURE.to_vec();
            let Some(Path { from, to }) = path else {
                out.extend([0x20, 0, 0, 0]);
                return out;
            };
            match (from.ip(), to.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    out.extend([0x21, 0x11, 0, 12]);
                    out.extend(from.octets());
                    out.extend(to.octets());
                }
                (from, to) => {
                    let six = |ip| match ip {
                        IpAddr::V4(ip) => Ipv4Addr::to_ipv6_mapped(&ip),
                        IpAddr::V6(ip) => ip,
                    };
                    out.extend([0x21, 0x21, 0, 36]);
                    out.extend(six(from).octets());
                    out.extend(six(to).octets());
                }
            }
            out.extend(from.port().to_be_bytes());
            out.extend(to.port().to_be_bytes());
            out
        }
    }
}

impl Path {
    /// Between a client and the socket that it came to. None when one of them has no IP address.
    pub fn between(peer: Peer, to: Option<SocketAddr>) -> Option<Self> {
        match (peer, to) {
            (Peer::Ip(from), Some(to)) => Some(Self {
                from,
                to: SocketAddr::new(to.ip().to_canonical(), to.port()),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
