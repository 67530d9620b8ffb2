//! A block of addresses (RFC 4632), as a parameter, and sets of them.

use std::fmt;
use std::net::IpAddr;

use super::types::ParamType;

/// `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The first address; no bit behind the prefix is set.
    first: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether it holds `ip`. An IPv4 address that is written as IPv6 is IPv4.
    pub fn has(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.first.is_ipv4() && start(ip, self.bits) == self.first
    }

    /// Its first and last address.
    fn range(&self) -> (Spot, Spot) {
        let (v6, first) = spot(self.first);
        let free = match self.first {
            IpAddr::V4(_) => 32 - u32::from(self.bits),
            IpAddr::V6(_) => 128 - u32::from(self.bits),
        };
        let free = 1_u128.checked_shl(free).unwrap_or(0).wrapping_sub(1);
        ((v6, first), (v6, first | free))
    }
}

/// Where an address lies: IPv4 before IPv6.
type Spot = (bool, u128);

/// Many blocks, looked up in logarithmic time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CidrSet {
    /// First and last addresses, in order and apart.
    ranges: Vec<(Spot, Spot)>,
}

impl CidrSet {
    /// Blocks of a list: one a line, `#` begins a comment. The first line that is wrong is named with its number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut blocks = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                let block = Cidr::parse(line).map_err(|why| format!("line {number}: {why}"))?;
                blocks.push(block);
            }
        }
        Ok(blocks.into_iter().collect())
    }

    /// Whether one of its blocks holds `ip`.
    pub fn has(&self, ip: IpAddr) -> bool {
        let ip = spot(ip);
        let behind = self.ranges.partition_point(|(first, _)| *first <= ip);
        behind > 0 && ip <= self.ranges[behind - 1].1
    }

    /// What either of the two holds.
    pub fn with(self, other: Self) -> Self {
        joined(self.ranges.into_iter().chain(other.ranges).collect())
    }

    /// It holds nothing.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl FromIterator<Cidr> for CidrSet {
    fn from_iter<T: IntoIterator<Item = Cidr>>(blocks: T) -> Self {
        joined(blocks.into_iter().map(|block| block.range()).collect())
    }
}

fn joined(mut all: Vec<(Spot, Spot)>) -> CidrSet {
    all.sort_unstable();
    let mut ranges: Vec<(Spot, Spot)> = Vec::with_capacity(all.len());
    for (first, last) in all {
        match ranges.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => ranges.push((first, last)),
        }
    }
    CidrSet { ranges }
}

fn spot(ip: IpAddr) -> Spot {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (false, ip.to_bits().into()),
        IpAddr::V6(ip) => (true, ip.to_bits()),
    }
}

/// The first address of the block of `bits` that `ip` is in.
fn start(ip: IpAddr, bits: u8) -> IpAddr {
    let behind = u32::from(bits);
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - behind.min(32)).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - behind.min(128)).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

impl ParamType for Cidr {
    const TYPE_NAME: &'static str = "block of addresses";
    const EXPECTED: &'static str = "a block such as 10.0.0.0/8 or fd00::/8, or one address";

    fn parse(text: &str) -> Result<Self, String> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip
            .parse()
            .map_err(|_| format!("\"{ip}\" is not an IP address"))?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            // A sign or a leading zero is no prefix length.
            Some(text) if text.starts_with(['+', '0']) && text != "0" => {
                return Err(format!("\"{text}\" is not a prefix length (0 to {most})"));
            }
            Some(text) => text
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(|| format!("\"{text}\" is not a prefix length (0 to {most})"))?,
        };
        let first = start(ip, bits);
        match first == ip {
            true => Ok(Self { first, bits }),
            false => Err(format!(
                "{ip} is not where a block of /{bits} starts; {first}/{bits} is"
            )),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(block: &str, inside: &[&str], outside: &[&str]) {
        let block = Cidr::parse(block).unwrap();
        for ip in inside {
            assert!(block.has(ip.parse().unwrap()), "{block} has {ip}");
        }
        for ip in outside {
            assert!(!block.has(ip.parse().unwrap()), "{block} has not {ip}");
        }
    }

    #[test]
    fn a_block_has_what_starts_alike() {
        check(
            "10.0.0.0/8",
            &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"],
            &["11.0.0.0", "::a00:1"],
        );
        check("192.0.2.7", &["192.0.2.7"], &["192.0.2.6", "192.0.2.8"]);
        check("0.0.0.0/0", &["1.2.3.4"], &["::1"]);
        check("::/0", &["::1"], &["1.2.3.4"]);
        check("fd00::/8", &["fdff::1"], &["fe00::"]);
        check("2001:db8::/127", &["2001:db8::1"], &["2001:db8::2"]);
    }

    #[test]
    fn a_set_has_what_one_of_its_blocks_has() {
        let text = "# ours\n10.0.0.0/8\n10.1.0.0/16 # inside\n\n192.0.2.7\n2001:db8::/32\n";
        let set = CidrSet::parse(text).unwrap();
        assert_eq!(set.ranges.len(), 3);
        let inside = [
            "10.0.0.0",
            "10.255.255.255",
            "192.0.2.7",
            "::ffff:10.1.1.1",
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        ];
        let outside = ["9.255.255.255", "11.0.0.0", "192.0.2.8", "2001:db9::", "::"];
        for ip in inside {
            assert!(set.has(ip.parse().unwrap()), "{ip}");
        }
        for ip in outside {
            assert!(!set.has(ip.parse().unwrap()), "{ip}");
        }
        let all = CidrSet::parse("::/0").unwrap();
        assert!(all.has("ffff::".parse().unwrap()) && !all.has("1.2.3.4".parse().unwrap()));
        assert!(CidrSet::default().is_empty());
        let why = CidrSet::parse("10.0.0.0/8\n\n10.0.0.1/8\n").unwrap_err();
        assert!(why.starts_with("line 3: 10.0.0.1 is not where"), "{why}");
    }

    #[test]
    fn what_is_no_block_says_why() {
        let refused = |text: &str, why: &str| {
            let line = Cidr::parse(text).unwrap_err();
            assert!(line.contains(why), "{text}: {line}");
        };
        refused("10.0.0.1/8", "10.0.0.0/8 is");
        refused("10.0.0.0/33", "0 to 32");
        refused("10.0.0.0/08", "0 to 32");
        refused("10.0.0.0/", "0 to 32");
        refused("::/129", "0 to 128");
        refused("localhost", "not an IP address");
    }
}
