//! Which shard has a key (no I/O), and what moves when the shards change.
//!
//! ```text
//!   key ─► the part of it that counts ─► a number of 32 bits ─► a distribution ─► index of a shard
//!          (hash tag)                    (hash function)
//! ```
//!
//! - *ketama*, *modula*, *random*: nutcracker's (twemproxy), to the byte, so that moving over from it moves no key. It sorts its
//!   servers by name, the shorter name first, before it does anything else; so their order in a file makes no difference.
//! - *maglev*, *rendezvous*: the balancer's tables ([`podkit_dataplane::upstream::pick`]), over names.
//! - *jump*: by the shards' order alone, without weights; shards come and go at the end only. Shares as even as can be.
//! - *crc16*: Redis Cluster's slots, each shard a stretch of them in the shards' order.
//!
//! The own ones spread a number over 64 bits first; ketama takes it as it is, so `crc32`, which has 15 bits, sends nearly all keys to one
//! shard there.
//!
//! When a shard is added: ketama and rendezvous move the new one's share to it and nothing else (ketama as long as all shards keep
//! their number of points, which its arithmetic does not promise), so does jump; maglev moves up to about twice that; crc16 half of
//! the keys, modula nearly all.

mod continuum;
mod hash;
mod jump;
mod md5;
pub mod nutcracker;
mod plan;
pub(crate) mod slots;
pub(crate) mod tag;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use podkit_dataplane::upstream::pick::{Hashing, Table, fnv, mix};

use self::continuum::Continuum;
pub use self::hash::HashFunction;
use self::jump::jump;
pub use self::plan::{Moves, ShardMoves, plan, sample};
pub use self::tag::HashTag;

podkit_foundation::choices! {
    /// `--hash`: how the number of a key finds its shard.
    pub enum Distribution {
        /// nutcracker's ring.
        Ketama = "ketama",
        /// The remainder of a division by the sum of the weights.
        Modula = "modula",
        /// By chance, whatever the key and the weights are: for shards that all have everything.
        Random = "random",
        /// Maglev's table.
        Maglev = "maglev",
        /// Jump consistent hash.
        Jump = "jump",
        /// The highest score.
        Rendezvous = "rendezvous",
        /// Redis Cluster's slots.
        Crc16 = "crc16",
    }
}

/// Shards of a ring at most.
pub const SHARDS_MAX: usize = 4096;

/// A shard, as far as placement goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// What it is known by, whatever its address is. Two can't have the same.
    pub name: String,
    /// Its share, at any scale. 0: it is left out and keeps its index, as if it were gone.
    pub weight: u32,
}

/// Finds the shard of a key. Immutable; workers share it.
#[derive(Debug)]
pub struct Ring {
    names: Vec<String>,
    weights: Vec<u32>,
    distribution: Distribution,
    function: HashFunction,
    tag: Option<HashTag>,
    scheme: Scheme,
}

#[derive(Debug)]
enum Scheme {
    Continuum(Continuum),
    /// The weights up to and including each member's, and the member.
    Modula(Vec<(u32, u16)>),
    /// Members, and the state of the draws.
    Random(Vec<u16>, AtomicU64),
    Table(Table),
    Jump(Vec<u16>),
    Slots(Vec<u16>),
}

impl Ring {
    /// Of these shards. Without a function nutcracker's distributions have its default, `fnv1a_64`, the others `murmur`, which takes
    /// four bytes at a time. `crc16` has its own function and tag, as Redis
    /// Cluster has, and takes no other. The error says what can't be.
    pub fn new(
        distribution: Distribution,
        function: Option<HashFunction>,
        tag: Option<HashTag>,
        shards: &[Shard],
    ) -> Result<Self, String> {
        check(distribution, shards)?;
        let (function, tag) = match distribution {
            Distribution::Crc16 => {
                if function.is_some_and(|function| function != HashFunction::Crc16) {
                    return Err("crc16 is by slots, which have a hash function of their own".into());
                }
                if tag.is_some_and(|tag| tag != HashTag::BRACES) {
                    return Err("crc16 is by slots, whose hash tag is {}".into());
                }
                (HashFunction::Crc16, Some(HashTag::BRACES))
            }
            Distribution::Ketama | Distribution::Modula | Distribution::Random => {
                (function.unwrap_or(HashFunction::Fnv1a64), tag)
            }
            Distribution::Maglev | Distribution::Jump | Distribution::Rendezvous => {
                (function.unwrap_or(HashFunction::Murmur), tag)
            }
        };
        let mut members: Vec<(usize, &Shard)> = shards
            .iter()
            .enumerate()
            .filter(|(_, shard)| shard.weight > 0)
            .collect();
        let is_sorted = matches!(distribution, Distribution::Ketama | Distribution::Modula);
        if is_sorted {
            members.sort_by_key(|(_, shard)| (shard.name.len(), &shard.name));
        }
        Ok(Self {
            names: shards.iter().map(|shard| shard.name.clone()).collect(),
            weights: shards.iter().map(|shard| shard.weight).collect(),
            distribution,
            function,
            tag,
            scheme: scheme(distribution, &members),
        })
    }

    /// The index of the shard that has `key`. Allocates nothing.
    pub fn place(&self, key: &[u8]) -> usize {
        let key = match self.tag {
            Some(tag) => tag.part(key),
            None => key,
        };
        match &self.scheme {
            Scheme::Continuum(continuum) => continuum.find(self.hash(key)),
            Scheme::Modula(members) => {
                let whole = members[members.len() - 1].0;
                let at = self.hash(key) % whole;
                usize::from(members[members.partition_point(|(upto, _)| *upto <= at)].1)
            }
            Scheme::Random(members, state) => {
                let drawn = mix(state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed));
                usize::from(members[(drawn % members.len() as u64) as usize])
            }
            Scheme::Table(table) => {
                let found = table.find(mix(u64::from(self.hash(key))), |_| true);
                found.expect("a ring has members") as usize
            }
            Scheme::Jump(members) => {
                let hash = mix(u64::from(self.hash(key)));
                usize::from(members[jump(hash, members.len())])
            }
            Scheme::Slots(owners) => usize::from(owners[slots::slot(key)]),
        }
    }

    /// The same without some of its shards, which keep their indices. None: no shard would have a key.
    pub fn without(&self, is_out: impl Fn(usize) -> bool) -> Option<Self> {
        let shards = self.names.iter().zip(&self.weights).enumerate();
        let left: Vec<Shard> = shards
            .map(|(at, (name, weight))| Shard {
                name: name.clone(),
                weight: if is_out(at) { 0 } else { *weight },
            })
            .collect();
        Self::new(self.distribution, Some(self.function), self.tag, &left).ok()
    }

    /// The names of the shards, by index.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// An empty key has no hash; nutcracker takes 0.
    fn hash(&self, key: &[u8]) -> u32 {
        match key {
            [] => 0,
            key => self.function.of(key),
        }
    }
}

/// What no distribution can do with, or this one can't.
fn check(distribution: Distribution, shards: &[Shard]) -> Result<(), String> {
    if shards.len() > SHARDS_MAX {
        let count = shards.len();
        return Err(format!("{count} shards; there can be {SHARDS_MAX}"));
    }
    let mut names: Vec<&str> = shards.iter().map(|shard| shard.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|two| two[0] == two[1]) {
        return Err(format!("two shards are named \"{}\"", twice[0]));
    }
    let mut weights = shards
        .iter()
        .map(|shard| shard.weight)
        .filter(|weight| *weight > 0);
    let whole: u64 = weights.clone().map(u64::from).sum();
    if whole == 0 {
        return Err("no shard has a weight".into());
    }
    if u32::try_from(whole).is_err() {
        return Err(format!("the weights' sum is more than {}", u32::MAX));
    }
    let first = weights.next();
    if distribution == Distribution::Jump && weights.any(|weight| Some(weight) != first) {
        return Err("jump knows no weights; give all shards the same one".into());
    }
    Ok(())
}

/// For members that were checked, and sorted where that matters.
fn scheme(distribution: Distribution, members: &[(usize, &Shard)]) -> Scheme {
    let table = |hashing| {
        let entry =
            |(at, shard): &(usize, &Shard)| (*at as u32, fnv(shard.name.as_bytes()), shard.weight);
        Scheme::Table(Table::new(hashing, members.iter().map(entry)))
    };
    let indices = || members.iter().map(|(at, _)| *at as u16).collect();
    match distribution {
        Distribution::Ketama => Scheme::Continuum(Continuum::new(members)),
        Distribution::Modula => {
            let mut upto = 0;
            let sums = members.iter().map(|(at, shard)| {
                upto += shard.weight;
                (upto, *at as u16)
            });
            Scheme::Modula(sums.collect())
        }
        Distribution::Random => {
            let seed = RandomState::new().hash_one(members.len());
            Scheme::Random(indices(), AtomicU64::new(seed))
        }
        Distribution::Maglev => table(Hashing::Maglev),
        Distribution::Jump => Scheme::Jump(indices()),
        Distribution::Rendezvous => table(Hashing::Rendezvous),
        Distribution::Crc16 => Scheme::Slots(slots::shared(members)),
    }
}
