//! What the machine's packet filter does for pods: a table of podkit's own, and a way past the rules of others.
//!
//! ```text
//!   table ip podkit {
//!     set switched { type ifname; }           interfaces that did not forward until podkit switched it on
//!     chain postrouting { type nat hook postrouting priority 100;
//!       ip saddr 10.87.0.0/16 oifname != "podkit-*" masquerade }
//!     chain forward { type filter hook forward priority 0;
//!       oifname "podkit-*" iifname != "podkit-*" ct state != established,related drop     hostPorts are the way in
//!       iifname @switched oifname != "podkit-*" ct state new ct status != dnat drop }     no router but for pods
//!   }
//! ```
//!
//! No rule and no element is a pod's: the table is the same for one pod and for a hundred. It is made whole by the first pod
//! (one that makes it at the same time fails, and finds it there) and goes with the last. It also is podkit's memory of what
//! has to be set back, so that it lies in the very network namespace where that is, and outlives a supervisor that was killed.
//!
//! In nf_tables a packet must pass the chains of everybody. So what others drop must be let through in *their* chains: in those
//! of iptables (Docker, ufw) podkit puts two rules, which iptables shows; elsewhere it says what to do.

use std::io;
use std::path::PathBuf;
use std::process::Command;

use super::link::Route;
use super::nft::{self, Chain, Expressions, Nft};
use super::veth::PREFIX;

const TABLE: &str = "podkit";
const SWITCHED: &str = "switched";
const POSTROUTING: &str = "postrouting";
const FORWARD: &str = "forward";
/// `srcnat` and `filter`.
const NAT_PRIORITY: i32 = 100;
const FILTER_PRIORITY: i32 = 0;
/// How podkit's rules in the chains of others are known.
const COMMENT: &str = "podkit";
/// The pods' network.
const NETWORK: &[u8] = &super::address::NETWORK;

/// Makes sure that pods get out. Gives what stands in their way all the same, a line each.
pub(super) fn open(nft: &mut Nft, route: &mut Route) -> io::Result<Vec<String>> {
    let mut warnings = Vec::new();
    if !nft.has_table(nft::IPV4, TABLE)? {
        match nft.commit(table()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made?;
                warnings.extend(legacy());
            }
        }
    }
    warnings.extend(forwarding(nft, route)?);
    warnings.extend(others(nft)?);
    Ok(warnings)
}

/// Takes away what [`open`] made, when there is something.
pub(super) fn close(nft: &mut Nft) -> io::Result<()> {
    if !nft.has_table(nft::IPV4, TABLE)? {
        return Ok(());
    }
    let mut changes = Vec::new();
    for chain in iptables(&nft.chains()?) {
        let rules = nft.rules(chain.family, &chain.table, Some(&chain.name))?;
        let ours = rules
            .iter()
            .filter(|rule| rule.comment.as_deref() == Some(COMMENT));
        changes.extend(
            ours.map(|rule| nft::delete_rule(chain.family, &chain.table, &chain.name, rule.handle)),
        );
    }
    // Where somebody has made the whole machine a router meanwhile, it stays one.
    if !reads_one("/proc/sys/net/ipv4/ip_forward") {
        for name in nft.names(nft::IPV4, TABLE, SWITCHED)? {
            // The interface may have gone.
            if let Err(error) = std::fs::write(switch(&name), "0") {
                tracing::debug!(name, %error, "forwarding is not switched off");
            }
        }
    }
    changes.push(nft::delete_table(nft::IPV4, TABLE));
    nft.commit(changes)
}

fn table() -> Vec<super::netlink::Message> {
    let rule = Expressions::new;
    vec![
        nft::add_table(nft::IPV4, TABLE, true),
        nft::add_names(nft::IPV4, TABLE, SWITCHED),
        nft::add_chain(
            nft::IPV4,
            TABLE,
            POSTROUTING,
            "nat",
            nft::HOOK_POSTROUTING,
            NAT_PRIORITY,
        ),
        nft::add_chain(
            nft::IPV4,
            TABLE,
            FORWARD,
            "filter",
            nft::HOOK_FORWARD,
            FILTER_PRIORITY,
        ),
        rule()
            .source(NETWORK)
            .not_out_by(PREFIX)
            .masquerade()
            .append(nft::IPV4, TABLE, POSTROUTING),
        rule()
            .out_by(PREFIX)
            .not_in_by(PREFIX)
            .not_an_answer()
            .drop()
            .append(nft::IPV4, TABLE, FORWARD),
        rule()
            .in_by_any(SWITCHED)
            .not_out_by(PREFIX)
            .new_connection()
            .not_redirected()
            .drop()
            .append(nft::IPV4, TABLE, FORWARD),
    ]
}

/// Lets every interface route that may lead out, where the machine is no router yet. What comes in by them and is not for a pod
/// is dropped as before.
fn forwarding(nft: &mut Nft, route: &mut Route) -> io::Result<Option<String>> {
    if reads_one("/proc/sys/net/ipv4/ip_forward") {
        return Ok(None);
    }
    let mut refused = None;
    for link in route.links()? {
        let switch = switch(&link.name);
        if !link.up || link.loopback || link.name.starts_with(PREFIX) || reads_one(&switch) {
            continue;
        }
        // Remembered first: if this process ends in between, it is set back all the same.
        nft.commit(vec![nft::add_name(nft::IPV4, TABLE, SWITCHED, &link.name)])?;
        if let Err(error) = std::fs::write(&switch, "1") {
            refused = Some(format!(
                "pods reach nothing beyond this machine by {}: net.ipv4.conf.{}.forwarding can't be set: {error}",
                link.name, link.name
            ));
        }
    }
    Ok(refused)
}

fn switch(interface: &str) -> PathBuf {
    format!("/proc/sys/net/ipv4/conf/{interface}/forwarding").into()
}

fn reads_one(path: impl AsRef<std::path::Path>) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

/// Where rules of iptables may be put: `DOCKER-USER`, which Docker leaves to others, and `FORWARD`.
fn iptables(chains: &[Chain]) -> impl Iterator<Item = &Chain> {
    ["DOCKER-USER", "FORWARD"].into_iter().filter_map(|name| {
        chains.iter().find(|chain| {
            (chain.family, chain.table.as_str(), chain.name.as_str()) == (nft::IPV4, "filter", name)
        })
    })
}

/// Gets pods past the chains of others, or says which is in the way.
fn others(nft: &mut Nft) -> io::Result<Vec<String>> {
    let mut warnings = Vec::new();
    let chains = nft.chains()?;
    let in_the_way = |chain: &&Chain| {
        chain.hook == Some(nft::HOOK_FORWARD)
            && [nft::IPV4, nft::INET].contains(&chain.family)
            && chain.table != TABLE
    };
    for chain in chains.iter().filter(in_the_way) {
        let rules = nft.rules(chain.family, &chain.table, Some(&chain.name))?;
        let has = |needle: &[u8]| rules.iter().any(|rule| contains(&rule.expressions, needle));
        if !(chain.drops || has(b"reject\0") || has(b"REJECT\0")) || has(PREFIX.as_bytes()) {
            continue;
        }
        let own = (chain.family, chain.table.as_str(), chain.name.as_str());
        if own == (nft::IPV4, "filter", "FORWARD") {
            let Some(to) = iptables(&chains).next() else {
                continue;
            };
            let known = nft.rules(to.family, &to.table, Some(&to.name))?;
            if !known
                .iter()
                .any(|rule| rule.comment.as_deref() == Some(COMMENT))
            {
                let accept = |rule: Expressions| {
                    let rule = rule.counter().accept();
                    rule.insert(to.family, &to.table, &to.name, COMMENT)
                };
                // Answers only come in: podkit's own chain sees to that.
                nft.commit(vec![
                    accept(Expressions::new().out_by(PREFIX)),
                    accept(Expressions::new().in_by(PREFIX)),
                ])?;
            }
            continue;
        }
        // Its rules for a source or a zone are in chains of their own.
        let all = nft.rules(chain.family, &chain.table, None)?;
        let trusted = all.iter().any(|rule| contains(&rule.expressions, NETWORK));
        if trusted {
            continue;
        }
        let family = if chain.family == nft::INET {
            "inet"
        } else {
            "ip"
        };
        let what_to_do = if chain.table == "firewalld" {
            "allow them with `firewall-cmd --zone=trusted --add-source=10.87.0.0/16`".to_owned()
        } else {
            format!("let it accept iifname \"{PREFIX}*\" and oifname \"{PREFIX}*\"")
        };
        warnings.push(format!(
            "pods may not get out of this machine: the chain {} of the nftables table {family} {} drops what it does not know; {what_to_do}",
            chain.name, chain.table
        ));
    }
    Ok(warnings)
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Rules of the older iptables are in a part of the kernel that only its own program reads.
fn legacy() -> Option<String> {
    let tables = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").ok()?;
    if !tables.lines().any(|table| table == "filter") {
        return None;
    }
    let output = Command::new("iptables-legacy")
        .args(["-S", "FORWARD"])
        .output()
        .ok()?;
    let rules = String::from_utf8_lossy(&output.stdout);
    let blocks = rules.contains("-P FORWARD DROP") || rules.contains("-j REJECT");
    (blocks && !rules.contains(PREFIX)).then(|| {
        format!(
            "pods may not get out of this machine: the chain FORWARD of iptables-legacy drops what it does not know; \
             allow them with `iptables-legacy -I FORWARD -i {PREFIX}+ -j ACCEPT` and `iptables-legacy -I FORWARD -o {PREFIX}+ -j ACCEPT`"
        )
    })
}
