//! What moves when one ring takes the place of another.

use std::collections::HashMap;
use std::fmt;

use podkit_dataplane::upstream::pick::mix;

use super::{Distribution, Ring};

/// Keys of [`sample`].
const SAMPLE_KEYS: u64 = 100_000;

/// What moves, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moves {
    /// Keys that were looked at.
    pub keys: u64,
    /// Of these, the ones whose shard has another name now.
    pub moved: u64,
    /// The old ring's shards in their order, then those that are new.
    pub shards: Vec<ShardMoves>,
}

/// The part of one shard in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMoves {
    /// Its name, which is how it is recognised.
    pub name: String,
    /// Keys that it has by the old ring.
    pub before: u64,
    /// Keys that it has by the new ring.
    pub after: u64,
    /// Keys that leave it.
    pub leaving: u64,
    /// Keys that come to it.
    pub arriving: u64,
}

impl Moves {
    /// The share of keys that move, 0.0 to 1.0.
    pub fn share(&self) -> f64 {
        self.moved as f64 / self.keys.max(1) as f64
    }
}

/// What becomes of `keys`. A random ring has no plan: no key has a place there.
pub fn plan<K: AsRef<[u8]>>(
    old: &Ring,
    new: &Ring,
    keys: impl IntoIterator<Item = K>,
) -> Result<Moves, String> {
    if [old, new]
        .map(|ring| ring.distribution)
        .contains(&Distribution::Random)
    {
        return Err("random gives keys no place, so none moves".into());
    }
    let mut index: HashMap<&str, usize> = HashMap::new();
    let mut shards: Vec<ShardMoves> = Vec::new();
    let mut row = |name| {
        *index.entry(name).or_insert_with(|| {
            shards.push(ShardMoves::new(name));
            shards.len() - 1
        })
    };
    let old_rows: Vec<usize> = old.names().iter().map(|name| row(name)).collect();
    let new_rows: Vec<usize> = new.names().iter().map(|name| row(name)).collect();
    let (mut count, mut moved) = (0, 0);
    for key in keys {
        let from = old_rows[old.place(key.as_ref())];
        let to = new_rows[new.place(key.as_ref())];
        count += 1;
        shards[from].before += 1;
        shards[to].after += 1;
        if from != to {
            moved += 1;
            shards[from].leaving += 1;
            shards[to].arriving += 1;
        }
    }
    Ok(Moves {
        keys: count,
        moved,
        shards,
    })
}

/// Keys for a plan when none are given: 100,000, always the same ones. They have no hash tag.
pub fn sample() -> impl Iterator<Item = String> {
    (0..SAMPLE_KEYS).map(|number| format!("key:{:016x}", mix(number)))
}

impl ShardMoves {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            before: 0,
            after: 0,
            leaving: 0,
            arriving: 0,
        }
    }
}

/// A table: how much moves, then a line for each shard, all in percent of all keys.
impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |keys: u64| 100.0 * keys as f64 / self.keys.max(1) as f64;
        let (moved, keys) = (self.moved, self.keys);
        writeln!(f, "{moved} of {keys} keys move ({:.2} %)", percent(moved))?;
        let names = self.shards.iter().map(|shard| shard.name.chars().count());
        let width = names.max().unwrap_or(0).max("shard".len());
        writeln!(
            f,
            "{:width$}  {:>8}  {:>8}  {:>8}  {:>8}",
            "shard", "before", "after", "leaving", "arriving"
        )?;
        for shard in &self.shards {
            writeln!(
                f,
                "{:width$}  {:>6.2} %  {:>6.2} %  {:>6.2} %  {:>6.2} %",
                shard.name,
                percent(shard.before),
                percent(shard.after),
                percent(shard.leaving),
                percent(shard.arriving)
            )?;
        }
        Ok(())
    }
}
