//! Names to addresses, by hickory.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};

/// An answer is used for so long at least: some servers say 0.
const TTL_MIN: Duration = Duration::from_secs(1);
/// And so long at most: a name may have got other addresses.
const TTL_MAX: Duration = Duration::from_secs(30);

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) ips: Vec<IpAddr>,
    pub(super) until: Instant,
}

/// Resolves for one thread; keeps answers for their time to live.
#[derive(Clone)]
pub(super) struct Names(TokioResolver);

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    /// Reads the system's configuration. Without one, `/etc/hosts` is all there is.
    pub(super) fn new() -> Result<Self, String> {
        let mut builder = Resolver::builder_tokio().unwrap_or_else(|_| {
            let none = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
            Resolver::builder_with_config(none, TokioRuntimeProvider::default())
        });
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Always;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok(Self(resolver))
    }

    /// All addresses of `name`, IPv4 first: in pods that is what answers.
    pub(super) async fn lookup(&self, name: &str) -> Result<Addresses, String> {
        let found = self
            .0
            .lookup_ip(name)
            .await
            .map_err(|error| error.to_string())?;
        let mut ips: Vec<IpAddr> = found.iter().collect();
        ips.sort_by_key(IpAddr::is_ipv6);
        if ips.is_empty() {
            return Err("no address".to_owned());
        }
        let now = Instant::now();
        let until = found.valid_until().clamp(now + TTL_MIN, now + TTL_MAX);
        Ok(Addresses { ips, until })
    }
}

/// All addresses of a name, IPv4 first, for a caller that asks once. Reads the system's configuration.
pub async fn lookup(name: &str) -> Result<Vec<IpAddr>, String> {
    Ok(Names::new()?.lookup(name).await?.ips)
}
