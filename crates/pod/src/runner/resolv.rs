//! `/etc/resolv.conf` of a pod: the machine's, what `dnsConfig` adds, within the limits, as the kubelet does it.
//! (Kubernetes: `pkg/kubelet/network/dns/dns.go`; the lines as containerd writes them.)

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::Path;

use crate::net::{NAMESERVER, reachable_from_pod};
use crate::plan::DnsPlan;

/// `MaxDNSNameservers`, `MaxDNSSearchPaths`, `MaxDNSSearchListChars`, and a domain's length.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;
const DOMAIN_BYTES_MAX: usize = 253;
/// Of name servers.
const PORT: u16 = 53;
const MACHINES: &str = "/etc/resolv.conf";
/// systemd-resolved's own list, for those who can't reach its stub.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const STUB: [u8; 4] = [127, 0, 0, 53];

/// What a resolv.conf says. (resolv.conf(5))
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Resolv {
    pub(super) nameservers: Vec<SocketAddr>,
    pub(super) searches: Vec<String>,
    pub(super) options: Vec<String>,
}

/// What a pod's file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodResolv {
    /// The file.
    pub(super) text: String,
    /// Name servers of the machine that [`NAMESERVER`] stands for; somebody has to forward to them.
    pub(super) forwarded: Vec<SocketAddr>,
    /// `DNSConfigForming`, a message each.
    pub(super) events: Vec<String>,
}

/// How a pod reaches name servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// `hostNetwork`: as the machine does.
    Machine,
    /// Through its interface.
    Egress,
    /// Not at all.
    Nothing,
}

impl Resolv {
    /// This machine's. An unreadable file is an empty one.
    pub(super) fn of_machine() -> Self {
        let read = |path: &str| {
            let text = std::fs::read_to_string(Path::new(path)).unwrap_or_default();
            Self::parse(&text)
        };
        let own = read(MACHINES);
        if own
            .nameservers
            .iter()
            .any(|server| server.ip() == IpAddr::from(STUB))
        {
            let resolved = read(RESOLVED);
            if !resolved.nameservers.is_empty() {
                return resolved;
            }
        }
        own
    }

    /// Unknown lines are left out, as the kubelet does.
    pub(super) fn parse(text: &str) -> Self {
        let mut this = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => this.nameservers.extend(words.next().and_then(server)),
                // The last one wins.
                Some("search") => {
                    let domain = |word: &str| match word {
                        "." => ".".to_owned(),
                        word => word.trim_end_matches('.').to_owned(),
                    };
                    this.searches = words.map(domain).collect();
                }
                Some("options") => this.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        this
    }

    /// The pod's file.
    pub(super) fn for_pod(self, dns: &DnsPlan, reach: Reach) -> PodResolv {
        let machine = if dns.from_machine {
            self
        } else {
            Self::default()
        };
        let mut forwarded = Vec::new();
        let mut nameservers: Vec<IpAddr> = Vec::new();
        for server in machine.nameservers {
            match reach {
                Reach::Nothing => {}
                Reach::Egress if !reachable_from_pod(server.ip()) => {
                    forwarded.push(server);
                    nameservers.push(NAMESERVER.into());
                }
                Reach::Machine | Reach::Egress => nameservers.push(server.ip()),
            }
        }
        nameservers.extend(&dns.nameservers);
        let mut events = Vec::new();
        let mut nameservers = once_each(nameservers);
        if nameservers.len() > NAMESERVERS_MAX {
            nameservers.truncate(NAMESERVERS_MAX);
            events.push(format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                joined(&nameservers)
            ));
        }
        let all = once_each([machine.searches, dns.searches.clone()].concat());
        let searches = within_limits(&all);
        if searches.len() < all.len() {
            events.push(format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                searches.join(" ")
            ));
        }
        let options = options(machine.options, dns);
        let mut text = String::new();
        if reach == Reach::Nothing && dns.from_machine {
            // Without a name server the C libraries ask 127.0.0.1, where nothing answers, and fail at once.
            text.push_str(
                "# The pod has no way out, so the machine's name servers are left out.\n",
            );
        }
        if !searches.is_empty() {
            text += &format!("search {}\n", searches.join(" "));
        }
        for server in &nameservers {
            text += &format!("nameserver {server}\n");
        }
        if !options.is_empty() {
            text += &format!("options {}\n", options.join(" "));
        }
        // Those that were cut off need nobody.
        if !nameservers.contains(&NAMESERVER.into()) {
            forwarded.clear();
        }
        PodResolv {
            text,
            forwarded,
            events,
        }
    }
}

/// `192.0.2.53`, `fd00::53`, `fe80::1%eth0`.
fn server(word: &str) -> Option<SocketAddr> {
    match word.split_once('%') {
        None => Some(SocketAddr::new(word.parse().ok()?, PORT)),
        Some((ip, interface)) => {
            let path = format!("/sys/class/net/{interface}/ifindex");
            let index = std::fs::read_to_string(path).ok()?;
            let scope = index.trim().parse().ok()?;
            Some(SocketAddrV6::new(ip.parse().ok()?, PORT, 0, scope).into())
        }
    }
}

/// `dnsConfig`'s take the place of the machine's of the same name.
fn options(machine: Vec<String>, dns: &DnsPlan) -> Vec<String> {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    let own = |option: &String| dns.options.iter().any(|(own, _)| *own == name(option));
    let kept = machine.into_iter().filter(|option| !own(option));
    let added = dns
        .options
        .iter()
        .map(|(name, value)| match value.as_deref() {
            None | Some("") => name.clone(),
            Some(value) => format!("{name}:{value}"),
        });
    once_each(kept.chain(added).collect())
}

fn within_limits(searches: &[String]) -> Vec<String> {
    let first = searches.iter().take(SEARCHES_MAX);
    // glibc 2.28 aborts at a longer one.
    let mut kept: Vec<String> = first
        .filter(|domain| domain.len() <= DOMAIN_BYTES_MAX)
        .cloned()
        .collect();
    while kept.join(" ").len() > SEARCH_BYTES_MAX {
        kept.pop();
    }
    kept
}

fn once_each<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for one in all {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

fn joined(servers: &[IpAddr]) -> String {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    servers.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns() -> DnsPlan {
        DnsPlan {
            from_machine: true,
            ..DnsPlan::default()
        }
    }

    fn machine() -> Resolv {
        Resolv::parse(
            "# made by somebody\n; and\nnameserver 192.0.2.53\nnameserver 192.0.2.54 # second\n\
             search old\nsearch lan. example.org .\noptions ndots:2 edns0\nsortlist 1.2.3.4\n",
        )
    }

    #[test]
    fn the_machines_file_is_the_pods() {
        let pod = machine().for_pod(&dns(), Reach::Egress);
        assert_eq!(
            pod.text,
            "search lan example.org .\nnameserver 192.0.2.53\nnameserver 192.0.2.54\noptions ndots:2 edns0\n"
        );
        assert_eq!((pod.forwarded, pod.events), (vec![], vec![]));
        assert_eq!(Resolv::parse("").for_pod(&dns(), Reach::Machine).text, "");
    }

    #[test]
    fn dns_config_is_added_and_wins() {
        let config = DnsPlan {
            nameservers: vec!["192.0.2.54".parse().unwrap(), "192.0.2.99".parse().unwrap()],
            searches: vec!["example.org".into(), "svc".into()],
            options: vec![("ndots".into(), Some("5".into())), ("debug".into(), None)],
            ..dns()
        };
        let pod = machine().for_pod(&config, Reach::Egress);
        assert_eq!(
            pod.text,
            "search lan example.org . svc\nnameserver 192.0.2.53\nnameserver 192.0.2.54\nnameserver 192.0.2.99\n\
             options edns0 ndots:5 debug\n"
        );
        // dnsPolicy: None
        let none = DnsPlan {
            from_machine: false,
            ..config
        };
        assert_eq!(
            machine().for_pod(&none, Reach::Egress).text,
            "search example.org svc\nnameserver 192.0.2.54\nnameserver 192.0.2.99\noptions ndots:5 debug\n"
        );
        // A name server of the pod's own works without a way out.
        let own = DnsPlan {
            nameservers: vec!["127.0.0.1".parse().unwrap()],
            ..DnsPlan::default()
        };
        let pod = machine().for_pod(&own, Reach::Nothing);
        assert_eq!(pod.text, "nameserver 127.0.0.1\n");
    }

    #[test]
    fn what_a_pod_cant_ask_is_forwarded() {
        let text = "nameserver 127.0.0.1\nnameserver fd00::53\nnameserver 192.0.2.53\nnameserver nonsense\n";
        let pod = Resolv::parse(text).for_pod(&dns(), Reach::Egress);
        assert_eq!(pod.text, "nameserver 10.87.0.1\nnameserver 192.0.2.53\n");
        let expected: Vec<SocketAddr> = ["127.0.0.1:53", "[fd00::53]:53"]
            .map(|server| server.parse().unwrap())
            .to_vec();
        assert_eq!(pod.forwarded, expected);
        let host = Resolv::parse(text).for_pod(&dns(), Reach::Machine);
        assert_eq!(
            host.text,
            "nameserver 127.0.0.1\nnameserver fd00::53\nnameserver 192.0.2.53\n"
        );
        assert_eq!(host.forwarded, vec![]);
        let nothing = Resolv::parse(text).for_pod(&dns(), Reach::Nothing);
        assert!(!nothing.text.contains("nameserver 1"), "{}", nothing.text);
        assert_eq!(nothing.forwarded, vec![]);
        // lo has an index everywhere.
        let scoped = Resolv::parse("nameserver fe80::1%lo\nnameserver fe80::1%none-such");
        assert_eq!(scoped.nameservers, ["[fe80::1%1]:53".parse().unwrap()]);
    }

    #[test]
    fn the_limits_are_the_kubelets() {
        let servers: String = (1..=5)
            .map(|n| format!("nameserver 192.0.2.{n}\n"))
            .collect();
        let domains: Vec<String> = (0..40).map(|n| format!("d{n}")).collect();
        let text = format!("{servers}search {}\n", domains.join(" "));
        let pod = Resolv::parse(&text).for_pod(&dns(), Reach::Egress);
        assert_eq!(
            pod.events,
            [
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
                 192.0.2.1 192.0.2.2 192.0.2.3".to_owned(),
                format!(
                    "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                    domains[..32].join(" ")
                ),
            ]
        );
        // 2,048 bytes with the blanks, whole domains only.
        let long: Vec<String> = (0..12).map(|n| format!("{n:0>200}")).collect();
        assert_eq!(within_limits(&long).len(), 10);
        assert_eq!(within_limits(&["a".repeat(254), "b".into()]), ["b"]);
    }
}
