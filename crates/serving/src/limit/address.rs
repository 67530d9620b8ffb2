//! Whose request it is: address ranges, and the client behind proxies that are trusted (no I/O).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use podkit_dataplane::http::stage::View;
use podkit_foundation::params::ParamType;

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// As IPv6; an IPv4 address is mapped.
    bits: u128,
    /// Of those 128 bits.
    len: u8,
    v4: bool,
}

fn bits(ip: IpAddr) -> (u128, bool) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped().to_bits(), true),
        IpAddr::V6(ip) => (ip.to_bits(), false),
    }
}

fn mask(len: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(len))
        .unwrap_or_default()
}

impl Cidr {
    /// The address is in the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (bits, v4) = bits(ip);
        v4 == self.v4 && (bits ^ self.bits) & mask(self.len) == 0
    }
}

impl ParamType for Cidr {
    const TYPE_NAME: &'static str = "addresses";
    const EXPECTED: &'static str = "a range such as 10.0.0.0/8 or 2001:db8::/32, or one address";

    fn parse(text: &str) -> Result<Self, String> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let ip: IpAddr = addr.parse().map_err(|_| String::new())?;
        let (bits, v4) = bits(ip);
        let base = if v4 { 96 } else { 0 };
        let most = 128 - base;
        let len = match len {
            None => most,
            Some(len) => len.parse::<u8>().map_err(|_| String::new())?,
        };
        if len > most {
            return Err(format!("a prefix has at most {most} bits"));
        }
        let len = base + len;
        if bits & !mask(len) != 0 {
            return Err("there are bits set behind the prefix".to_owned());
        }
        Ok(Self { bits, len, v4 })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = IpAddr::from(Ipv6Addr::from_bits(self.bits)).to_canonical();
        let base = if self.v4 { 96 } else { 0 };
        write!(f, "{ip}/{}", self.len - base)
    }
}

/// The client's address: the peer's, or, when that is a trusted proxy, the last of X-Forwarded-For that is none. What an
/// untrusted peer says is not read. None for a peer on a unix socket.
pub(super) fn client(request: &View<'_>, trusted: &[Cidr]) -> Option<IpAddr> {
    let peer = request.peer().ip()?.to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|range| range.contains(ip));
    let mut client = peer;
    let lists = request.fields("x-forwarded-for").rev();
    for hop in lists.flat_map(|list| list.rsplit(|byte| *byte == b',')) {
        if !is_trusted(client) {
            break;
        }
        // What can't be read was written by nobody whom we trust; who passed it on is the client then.
        match parse(hop.trim_ascii()) {
            Some(ip) => client = ip,
            None => break,
        }
    }
    Some(client)
}

/// An address with or without brackets and port, as proxies write it.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let ip = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?.parse().ok()?,
        None => match text.parse() {
            Ok(ip) => ip,
            Err(_) => IpAddr::V4(text.rsplit_once(':')?.0.parse().ok()?),
        },
    };
    Some(IpAddr::to_canonical(&ip))
}

/// The bytes that stand for an address in a key: IPv4 whole, IPv6 up to the prefix, since a host has a whole network.
pub(super) fn key(ip: IpAddr, ipv6_prefix: u8, room: &mut [u8; 16]) -> &[u8] {
    match ip {
        IpAddr::V4(ip) => {
            room[..4].copy_from_slice(&ip.octets());
            &room[..4]
        }
        IpAddr::V6(ip) => {
            *room = (ip.to_bits() & mask(ipv6_prefix)).to_be_bytes();
            &room[..]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let check = |range: &str, ip: &str, expected| {
            let range = Cidr::parse(range).unwrap();
            assert_eq!(
                range.contains(ip.parse().unwrap()),
                expected,
                "{range} {ip}"
            );
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.0.0.0/8", "::ffff:10.1.1.1", true);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "1.2.3.4", false);
        check("::/0", "2001:db8::1", true);
        check("192.0.2.7", "192.0.2.7", true);
        check("192.0.2.7", "192.0.2.6", false);
        check("2001:db8::/33", "2001:db8:8000::1", false);
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::/129",
            "a/8",
            "10.0.0.0/-1",
            "10/8",
        ] {
            assert!(Cidr::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Cidr::parse("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
    }

    #[test]
    fn hops_and_keys() {
        let check = |hop: &str, expected: Option<&str>| {
            let ip = parse(hop.as_bytes()).map(|ip| ip.to_string());
            assert_eq!(ip.as_deref(), expected, "{hop}");
        };
        check("1.2.3.4", Some("1.2.3.4"));
        check("1.2.3.4:80", Some("1.2.3.4"));
        check("2001:db8::1", Some("2001:db8::1"));
        check("[2001:db8::1]:80", Some("2001:db8::1"));
        check("::ffff:1.2.3.4", Some("1.2.3.4"));
        check("unknown", None);
        check("", None);
        let key = |ip: &str| key(ip.parse().unwrap(), 64, &mut [0; 16]).to_vec();
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:0:0:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("1.2.3.4"), [1, 2, 3, 4]);
    }
}
