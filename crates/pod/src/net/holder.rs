//! Who has a port that could not be taken: read from `/proc/net` and `/proc/PID/fd`, only when there is an error to
//! explain. Without root one's own processes are all that can be named.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::plan::Protocol;

/// `nginx (pid 123)`, when it can be told.
pub(super) fn holder(protocol: Protocol, wanted: SocketAddr) -> Option<String> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inode = tables.iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        text.lines()
            .skip(1)
            .find_map(|line| inode_of(line, protocol, wanted))
    })?;
    let socket = format!("socket:[{inode}]");
    std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .find_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let open = std::fs::read_dir(process.path().join("fd")).ok()?;
            let holds = open
                .flatten()
                .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == Path::new(&socket)));
            if !holds {
                return None;
            }
            let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
            Some(format!("{} (pid {pid})", name.trim_end()))
        })
}

/// The inode of a line of `/proc/net/tcp` and its like, when that socket stands in the way of `wanted`:
/// `sl local remote state queues timer retransmits uid timeout inode …`.
pub(super) fn inode_of(line: &str, protocol: Protocol, wanted: SocketAddr) -> Option<u64> {
    let mut fields = line.split_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    // Listening, or for UDP bound and not connected.
    let takes = match protocol {
        Protocol::Tcp => state == "0A",
        Protocol::Udp => state == "07",
    };
    let (have, want) = (local.ip().to_canonical(), wanted.ip().to_canonical());
    let overlaps = have == want || have.is_unspecified() || want.is_unspecified();
    (takes && local.port() == wanted.port() && overlaps).then_some(inode)
}

/// `0100007F:1F90`: each 32-bit word of the address in the machine's order, in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0u8; 16];
            for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}
