//! Whose request it is: the client behind proxies that are trusted (no I/O).

use std::net::IpAddr;

use podkit_dataplane::http::stage::View;
use podkit_foundation::params::CidrSet;

/// The client's address: the peer's, or, when that is a trusted proxy, the last that the proxies name and that is none. What an
/// untrusted peer says is not read. None for a peer on a unix socket.
///
/// Proxies name clients in X-Forwarded-For or in Forwarded (RFC 7239). Most write one of the two and pass the other on as it
/// came, so when both are there and differ, one may be the client's own invention: neither is believed, and the client is the
/// proxy.
pub(super) fn client(request: &View<'_>, trusted: &CidrSet) -> Option<IpAddr> {
    let peer = request.peer().ip()?.to_canonical();
    if !trusted.has(peer) {
        return Some(peer);
    }
    let plain = request
        .fields("x-forwarded-for")
        .rev()
        .flat_map(|list| list.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii));
    let standard = request
        .fields("forwarded")
        .rev()
        .flat_map(|list| unquoted(list, b',').into_iter().rev())
        .map(|element| forwarded_for(element).unwrap_or_default());
    let has = |name| request.fields(name).next().is_some();
    match (has("x-forwarded-for"), has("forwarded")) {
        (true, false) => Some(walk(peer, trusted, plain)),
        (false, true) => Some(walk(peer, trusted, standard)),
        (false, false) => Some(peer),
        (true, true) => {
            let client = walk(peer, trusted, plain);
            let same = client == walk(peer, trusted, standard);
            Some(if same { client } else { peer })
        }
    }
}

/// From the peer along `hops`, the nearest first, to the first that is not trusted.
fn walk<'h>(peer: IpAddr, trusted: &CidrSet, hops: impl Iterator<Item = &'h [u8]>) -> IpAddr {
    let mut client = peer;
    for hop in hops {
        if !trusted.has(client) {
            break;
        }
        // What can't be read was written by nobody whom we trust; who passed it on is the client then.
        match parse(hop) {
            Some(ip) => client = ip,
            None => break,
        }
    }
    client
}

/// The parts of `text` between `separator`s, in order; those inside of quotes don't part it (RFC 7239 section 4).
fn unquoted(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |byte| {
        let parts = *byte == separator && !quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        parts
    })
    .collect()
}

/// The node of the `for` parameter of an element: an address, one in quotes with brackets and port, `unknown` or a name.
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    unquoted(element, b';').into_iter().find_map(|pair| {
        let (name, value) = pair.trim_ascii().split_at_checked(4)?;
        if !name.eq_ignore_ascii_case(b"for=") {
            return None;
        }
        let inner = value
            .strip_prefix(b"\"")
            .and_then(|it| it.strip_suffix(b"\""));
        Some(inner.unwrap_or(value))
    })
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
            let behind = 128 - u32::from(ipv6_prefix.min(128));
            let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
            *room = (ip.to_bits() & mask).to_be_bytes();
            &room[..]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_behind_proxies() {
        let trusted = CidrSet::parse("10.0.0.0/8\nfd00::/8").unwrap();
        let check = |hops: &[&str], expected: &str| {
            let hops = hops.iter().rev().map(|hop| hop.as_bytes());
            let client = walk("10.0.0.1".parse().unwrap(), &trusted, hops);
            assert_eq!(client.to_string(), expected);
        };
        check(&[], "10.0.0.1");
        check(&["7.7.7.7", "1.1.1.1", "10.0.0.9"], "1.1.1.1");
        check(&["1.1.1.1", "nonsense", "10.0.0.9"], "10.0.0.9");
        check(&["10.0.0.3", "[fd00::1]:8"], "10.0.0.3");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        let check = |list: &str, expected: &[Option<&str>]| {
            let nodes: Vec<_> = unquoted(list.as_bytes(), b',')
                .into_iter()
                .map(|element| forwarded_for(element).map(|it| std::str::from_utf8(it).unwrap()))
                .collect();
            assert_eq!(nodes, expected, "{list}");
        };
        check(
            "for=192.0.2.60;proto=http;by=203.0.113.43",
            &[Some("192.0.2.60")],
        );
        check(
            "for=192.0.2.43, For=\"[2001:db8:cafe::17]:4711\"",
            &[Some("192.0.2.43"), Some("[2001:db8:cafe::17]:4711")],
        );
        check("proto=https ; FOR=_hidden", &[Some("_hidden")]);
        check(
            "by=x;host=\"a,for=6.6.6.6\", for=1.2.3.4",
            &[None, Some("1.2.3.4")],
        );
        check("host=\"a;for=6.6.6.6\";for=1.2.3.4", &[Some("1.2.3.4")]);
        check("host=\"a\\\",for=6.6.6.6\"", &[None]);
        check("proto=http", &[None]);
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
