//! Redis Cluster's slots: a key's slot is its CRC-16, and each shard has a stretch of them.

use super::Shard;
use super::hash::crc16;

/// As many as Redis Cluster has.
pub(crate) const SLOTS: usize = 16_384;

/// The slot of a key (of the part of it that counts).
pub(crate) fn slot(key: &[u8]) -> usize {
    crc16(key) as usize % SLOTS
}

/// Who has each slot: stretches in the order of the shards, as long as their weights say; equal ones as `redis-cli --cluster create`
/// gives them to its primaries.
pub(super) fn shared(members: &[(usize, &Shard)]) -> Vec<u16> {
    let whole: u64 = members
        .iter()
        .map(|(_, shard)| u64::from(shard.weight))
        .sum();
    let mut owners = Vec::with_capacity(SLOTS);
    let mut before = 0;
    for (at, shard) in members {
        before += u64::from(shard.weight);
        let end = (before * SLOTS as u64 * 2 + whole) / (whole * 2);
        owners.resize(end as usize, *at as u16);
    }
    owners
}
