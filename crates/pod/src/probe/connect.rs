//! Where a probe's or hook's connection goes, and making it.
//!
//! Without `host` it is the pod's own address. A name is looked up on the machine, as the kubelet looks it up on its node; so
//! what only the pod knows (its `hostAliases`) is not found. It is looked up for each attempt, as by Go.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::TcpStream;

use super::{Dial, errno_text};

/// How far connecting has come, in Go's words for what failed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A name is being looked up.
    Lookup(String),
    /// An address is being connected to.
    Dial(SocketAddr),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(host) => write!(f, "dial tcp: lookup {host}"),
            Self::Dial(target) => write!(f, "dial tcp {target}"),
        }
    }
}

/// Connects to the first address of `host` that takes it, one after another; `begin` hears of each step. The error is Go's: that of
/// the first address.
pub(super) async fn connect(
    host: Option<&str>,
    port: u16,
    dial: &impl Dial,
    begin: impl Fn(Step),
) -> Result<TcpStream, String> {
    let mut first = None;
    for ip in addresses(host, dial, &begin).await? {
        let target = SocketAddr::new(ip, port);
        let step = Step::Dial(target);
        begin(step.clone());
        match dial.dial(target).await {
            Ok(stream) => return Ok(stream),
            Err(error) => first = first.or(Some(failed(&step, &error))),
        }
    }
    Err(first.unwrap_or_else(|| "dial tcp: missing address".to_owned()))
}

async fn addresses(
    host: Option<&str>,
    dial: &impl Dial,
    begin: impl Fn(Step),
) -> Result<Vec<IpAddr>, String> {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return Ok(vec![dial.address()]);
    };
    if let Ok(ip) = bare(host).parse() {
        return Ok(vec![ip]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
    }
    let step = Step::Lookup(host.to_owned());
    begin(step.clone());
    let found = dial.lookup(host).await;
    found.map_err(|why| format!("{step}: {why}"))
}

/// A host without the brackets of an IPv6 address.
pub(super) fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

fn failed(step: &Step, error: &io::Error) -> String {
    format!("{step}: connect: {}", errno_text(error))
}
