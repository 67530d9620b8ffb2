//! What the nodes of a cluster say: who has which slots (`CLUSTER NODES`), and where a command belongs (`MOVED`, `ASK`).
//!
//! `CLUSTER NODES` is asked, not `CLUSTER SLOTS`: it alone tells the epochs, by which what a node says that was away can be told from
//! what is, and names the primaries without slots, to which `ASK` may point.

use podkit_dataplane::resp::scan::text;
use podkit_foundation::params::{Addr, ParamType as _};

use crate::shard::place::slots::SLOTS;

/// A node, as another (or itself) says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) addr: Addr,
    /// The same by the name of its host, which redirects may use.
    pub(super) named: Option<Addr>,
    pub(super) primary: bool,
    /// It does not answer others, as far as the one knows that was asked, or all do.
    pub(super) failing: bool,
    /// Most of the primaries say so.
    pub(super) failed: bool,
    /// Of a replica: of whom.
    pub(super) of: String,
    pub(super) epoch: u64,
    /// Stretches of slots, both ends included.
    pub(super) slots: Vec<(u16, u16)>,
}

/// `host:port` as Redis writes it: IPv6 without brackets; `host` stands where there is none.
fn address(written: &str, host: &str) -> Option<Addr> {
    let (said, port) = written.rsplit_once(':')?;
    let host = match said {
        "" | "?" => host.to_owned(),
        said if said.contains(':') && !said.starts_with('[') => format!("[{said}]"),
        said => said.to_owned(),
    };
    // Port 0: with TLS only.
    let addr = Addr::parse(&format!("{host}:{port}")).ok()?;
    addr.port().filter(|port| *port > 0).map(|_| addr)
}

/// The host of an address.
pub(super) fn host(addr: &Addr) -> String {
    let written = addr.to_string();
    let host = written.rsplit_once(':').map_or("", |(host, _)| host);
    match host {
        "" => "localhost".to_owned(),
        host => host.to_owned(),
    }
}

/// Reads the reply to `CLUSTER NODES` of the node at `asked`. None: it is none.
pub(super) fn nodes(reply: &[u8], asked: &Addr) -> Option<Vec<Seen>> {
    let said = std::str::from_utf8(text(reply)?).ok()?;
    let mut all = Vec::new();
    for line in said.lines().filter(|line| !line.is_empty()) {
        all.extend(node(line, &host(asked))?);
    }
    (!all.is_empty()).then_some(all)
}

/// A line: id, address@bus port,name, flags, primary, ping, pong, epoch, link, slots. None: it is none. Some(None): nothing is at it.
fn node(line: &str, asked: &str) -> Option<Option<Seen>> {
    let mut words = line.split(' ');
    let (id, place, flags, of) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let epoch: u64 = words.nth(2)?.parse().ok()?;
    let _link = words.next()?;
    let is = |flag: &str| flags.split(',').any(|one| one == flag);
    let mut parts = place.split(',');
    let written = parts.next()?.split('@').next()?;
    if is("noaddr") || is("handshake") {
        return Some(None);
    }
    // Only of itself a node may not know where it is.
    let Some(addr) = address(written, asked) else {
        return Some(None);
    };
    let named = parts
        .next()
        .filter(|name| !name.is_empty() && !name.contains('='));
    let port = addr.port().unwrap_or_default();
    let named = named.and_then(|name| Addr::parse(&format!("{name}:{port}")).ok());
    let mut slots = Vec::new();
    // Those in brackets are on their way.
    for stretch in words.filter(|word| !word.is_empty() && !word.starts_with('[')) {
        let (first, last) = stretch.split_once('-').unwrap_or((stretch, stretch));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || usize::from(last) >= SLOTS {
            return None;
        }
        slots.push((first, last));
    }
    Some(Some(Seen {
        id: id.to_owned(),
        addr,
        named,
        primary: is("master"),
        failing: is("fail") || is("fail?"),
        failed: is("fail"),
        of: if of == "-" { "" } else { of }.to_owned(),
        epoch,
        slots,
    }))
}

/// What an error of a node means: the command was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::redis) enum Turn {
    /// The slot is another node's.
    Moved(u16, Addr),
    /// This key of the slot may be at another node already; the slot is still here.
    Ask(Addr),
    /// Some of its keys are here, others there.
    TryAgain,
    /// Nobody has the slot.
    Unserved,
}

/// Reads an error of the node at `from`.
pub(in crate::redis) fn turn(line: &[u8], from: &Addr) -> Option<Turn> {
    if !line.starts_with(b"-MOVED ")
        && !line.starts_with(b"-ASK ")
        && !line.starts_with(b"-TRYAGAIN ")
        && !line.starts_with(b"-CLUSTERDOWN Hash slot ")
    {
        return None;
    }
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let mut words = line.split(' ');
    let code = words.next()?;
    match code {
        "-TRYAGAIN" => return Some(Turn::TryAgain),
        "-CLUSTERDOWN" => return Some(Turn::Unserved),
        _ => {}
    }
    let slot: u16 = words.next()?.parse().ok()?;
    let addr = address(words.next()?, &host(from))?;
    if words.next().is_some() || usize::from(slot) >= SLOTS {
        return None;
    }
    Some(match code {
        "-ASK" => Turn::Ask(addr),
        _ => Turn::Moved(slot, addr),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addr(text: &str) -> Addr {
        Addr::parse(text).unwrap()
    }

    fn read(text: &str) -> Option<Vec<Seen>> {
        let reply = format!("${}\r\n{text}\r\n", text.len());
        nodes(reply.as_bytes(), &addr("10.0.0.9:7000"))
    }

    #[test]
    fn what_a_node_says_is_read() {
        let all = read(
            "aa 10.0.0.1:7001@17001,one.example myself,master - 0 1426238316232 2 connected 0-5460 9999 [93-<-bb]\n\
             bb 10.0.0.2:7002@17002 slave aa 0 1426238316232 2 connected\n\
             cc 10.0.0.3:7003@17003,,tls-port=0 master,fail? - 0 1426238318243 3 connected\n\
             dd :0@0 master,noaddr - 1 2 1 disconnected 5\n\
             ee ::1:7005@17005 master,fail - 1 2 1 disconnected\n",
        )
        .unwrap();
        assert_eq!(all.len(), 4);
        assert_eq!(all[0].slots, [(0, 5460), (9999, 9999)]);
        assert_eq!(all[0].named, Some(addr("one.example:7001")));
        assert!(all[0].primary && !all[0].failing && all[0].epoch == 2);
        assert!(!all[1].primary && all[1].of == "aa" && all[1].named.is_none());
        assert!(all[2].failing && !all[2].failed && all[2].named.is_none());
        assert_eq!(all[3].addr, addr("[::1]:7005"));
        assert!(all[3].failed);
        // One that does not know where it is.
        let all = read("aa :7001@17001 myself,master - 0 0 0 connected\n").unwrap();
        assert_eq!(all[0].addr, addr("10.0.0.9:7001"));
        for wrong in [
            "",
            "aa\n",
            "aa 10.0.0.1:1@2 master - 0 0 x connected\n",
            "aa 10.0.0.1:1@2 master - 0 0 0 connected 5-16384\n",
            "aa 10.0.0.1:1@2 master - 0 0 0 connected 6-5\n",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(
            nodes(
                b"-ERR This instance has cluster support disabled\r\n",
                &addr(":1")
            ),
            None
        );
    }

    #[test]
    fn redirects_are_read_and_nothing_else_is_one() {
        let from = addr("10.0.0.9:7000");
        let check = |line: &str, expected: Option<Turn>| {
            assert_eq!(turn(line.as_bytes(), &from), expected, "{line}");
        };
        let moved = |slot, to| Some(Turn::Moved(slot, addr(to)));
        check(
            "-MOVED 3999 10.0.0.1:7001\r\n",
            moved(3999, "10.0.0.1:7001"),
        );
        check("-MOVED 0 :7001\r\n", moved(0, "10.0.0.9:7001"));
        check("-MOVED 0 ?:7001\r\n", moved(0, "10.0.0.9:7001"));
        check(
            "-MOVED 7 2001:db8::1:7001\r\n",
            moved(7, "[2001:db8::1]:7001"),
        );
        check(
            "-MOVED 7 one.example:7001\r\n",
            moved(7, "one.example:7001"),
        );
        check(
            "-ASK 3999 10.0.0.1:7001\r\n",
            Some(Turn::Ask(addr("10.0.0.1:7001"))),
        );
        check(
            "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
            Some(Turn::TryAgain),
        );
        check(
            "-CLUSTERDOWN Hash slot not served\r\n",
            Some(Turn::Unserved),
        );
        check("-CLUSTERDOWN The cluster is down\r\n", None);
        check("-MOVED 16384 10.0.0.1:7001\r\n", None);
        check("-MOVED 1 10.0.0.1\r\n", None);
        check("-MOVED 1 10.0.0.1:0\r\n", None);
        check("-MOVED 1 10.0.0.1:7001 and more\r\n", None);
        check("-MOVED\r\n", None);
        check("-ERR MOVED 1 10.0.0.1:7001\r\n", None);
        check("+MOVED 1 10.0.0.1:7001\r\n", None);
    }

    proptest! {
        /// Whatever a server says, nothing breaks; and a slot that is read is one.
        #[test]
        fn any_line_is_read(line in "-(MOVED|ASK|TRYAGAIN|CLUSTERDOWN)[ -~]{0,40}", cut in 0usize..60) {
            let line = &line.as_bytes()[..cut.min(line.len())];
            if let Some(Turn::Moved(slot, addr)) = turn(line, &Addr::Port(1)) {
                prop_assert!(usize::from(slot) < SLOTS);
                prop_assert!(addr.port().is_some());
            }
        }

        #[test]
        fn any_text_is_read(text in "([a-f0-9:@,. -]{0,30}(master|slave)?[ -~]{0,30}\n){0,4}") {
            for seen in read(&text).unwrap_or_default() {
                prop_assert!(seen.slots.iter().all(|(first, last)| first <= last && usize::from(*last) < SLOTS));
            }
        }
    }
}
