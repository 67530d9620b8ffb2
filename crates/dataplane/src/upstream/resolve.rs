//! Names to addresses, by hickory.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{Resolver, ResolverBuilder, TokioResolver};

/// An answer is used for so long at least: some servers say 0.
const TTL_MIN: Duration = Duration::from_secs(1);
/// And so long at most: a name may have got other addresses.
const TTL_MAX: Duration = Duration::from_secs(30);

/// The words of Go and glibc for a name without an address.
const NO_SUCH_HOST: &str = "no such host";

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
        builder.options_mut().use_hosts_file = ResolveHosts::Always;
        Self::build(builder)
    }

    /// Asks one name server, and nothing else.
    fn of(server: SocketAddr) -> Result<Self, String> {
        let mut config = NameServerConfig::udp_and_tcp(server.ip());
        for way in &mut config.connections {
            way.port = server.port();
        }
        let config = ResolverConfig::from_name_servers(vec![config]);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        Self::build(builder)
    }

    fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, String> {
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok(Self(resolver))
    }

    /// All addresses of `name`, IPv4 first: in pods that is what answers.
    pub(super) async fn lookup(&self, name: &str) -> Result<Addresses, String> {
        let found =
            self.0
                .lookup_ip(name)
                .await
                .map_err(|error| match error.is_no_records_found() {
                    true => NO_SUCH_HOST.to_owned(),
                    false => error.to_string(),
                })?;
        let mut ips: Vec<IpAddr> = found.iter().collect();
        ips.sort_by_key(IpAddr::is_ipv6);
        if ips.is_empty() {
            return Err(NO_SUCH_HOST.to_owned());
        }
        let until = bounded(found.valid_until());
        Ok(Addresses { ips, until })
    }

    /// All SRV records of `name`, and until when they hold. A target of "." says that there is no such service.
    pub(super) async fn services(&self, name: &str) -> Result<(Vec<Service>, Instant), String> {
        let found = self
            .0
            .srv_lookup(name)
            .await
            .map_err(|error| error.to_string())?;
        let records = found.answers().iter();
        let services: Vec<Service> = records
            .filter_map(|record| match &record.data {
                RData::SRV(srv) if !srv.target.is_root() => Some(Service {
                    target: srv.target.to_string(),
                    port: srv.port,
                    weight: srv.weight,
                    priority: srv.priority,
                }),
                _ => None,
            })
            .collect();
        match services.is_empty() {
            true => Err("no SRV record".to_owned()),
            false => Ok((services, bounded(found.valid_until()))),
        }
    }
}

fn bounded(until: Instant) -> Instant {
    let now = Instant::now();
    until.clamp(now + TTL_MIN, now + TTL_MAX)
}

/// An SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) target: String,
    pub(super) port: u16,
    pub(super) weight: u16,
    pub(super) priority: u16,
}

/// All addresses of a name, IPv4 first, for a caller that asks once. Reads the system's configuration.
pub async fn lookup(name: &str) -> Result<Vec<IpAddr>, String> {
    Ok(Names::new()?.lookup(name).await?.ips)
}

/// The same, as this name server has it.
pub async fn lookup_at(server: SocketAddr, name: &str) -> Result<Vec<IpAddr>, String> {
    Ok(Names::of(server)?.lookup(name).await?.ips)
}
