//! The bound on the connections of one client address.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use podkit_foundation::params::{Cidr, CidrSet};

use super::flight::Flight;

podkit_foundation::params! {
    /// What holds for every listener.
    pub struct ListenerLimits {
        /// Connections of one client address at most, over all workers; one more is closed at once and counted. 0 for no bound.
        ///
        /// An IPv6 address counts as its network of 64 bits: a host has a whole one. Who comes through a balancer of --accept-proxy
        /// counts by the address that the balancer announces; such balancers, and proxies of --trusted-proxy, have no bound themselves.
        max_connections_per_ip: u32 { default: Some("0"), bounds: Some((0, 65_534)) },
    }
}

/// Counts connections by address, without locks.
#[derive(Debug)]
pub(super) struct ByAddress {
    most: u64,
    exempt: CidrSet,
    open: Flight,
    /// Nobody outside can make two addresses meet.
    hash: RandomState,
}

impl ByAddress {
    /// None when there is no bound. `connections` at most are open; those of `proxies` are not counted.
    pub(super) fn new(
        limits: &ListenerLimits,
        connections: usize,
        proxies: &[Cidr],
    ) -> Option<Self> {
        (limits.max_connections_per_ip > 0).then(|| Self {
            most: limits.max_connections_per_ip.into(),
            exempt: proxies.iter().copied().collect(),
            open: Flight::new(connections),
            hash: RandomState::new(),
        })
    }

    /// It is a proxy that many clients come through.
    pub(super) fn exempts(&self, ip: IpAddr) -> bool {
        self.exempt.has(ip)
    }

    /// One more of `ip`; what is returned goes to [`ByAddress::leave`]. None when there are as many as may be.
    pub(super) fn enter(&self, ip: IpAddr) -> Option<u64> {
        let key = match ip.to_canonical() {
            IpAddr::V4(ip) => (false, u64::from(ip.to_bits())),
            IpAddr::V6(ip) => (true, u64::try_from(ip.to_bits() >> 64).unwrap_or_default()),
        };
        let (held, _) = self.open.enter(self.hash.hash_one(key), self.most)?;
        Some(held)
    }

    pub(super) fn leave(&self, held: u64) {
        self.open.leave(held);
    }
}
