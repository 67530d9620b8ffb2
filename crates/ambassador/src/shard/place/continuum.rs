//! nutcracker's continuum: ketama's ring of 32 bits, with its weights in single precision and its ties.

use super::Shard;
use super::md5::md5;

/// Points of a shard that has its fair share.
const POINTS: f32 = 160.0;

/// Four points come of one digest.
const POINTS_PER_DIGEST: f32 = 4.0;

/// nutcracker cuts the text that a digest is made of here.
const TEXT_BYTES_MAX: usize = 272;

/// Points in order, and who has them.
#[derive(Debug)]
pub(super) struct Continuum {
    points: Vec<u32>,
    owners: Vec<u16>,
    /// The first point of each stretch of the ring; there are about as many stretches as points.
    starts: Vec<u32>,
    /// What a hash is shifted by to give its stretch.
    shift: u32,
}

impl Continuum {
    /// Of these shards, of which the first has a point that several have.
    pub(super) fn new(members: &[(usize, &Shard)]) -> Self {
        let whole: u32 = members.iter().map(|(_, shard)| shard.weight).sum();
        let mut ring = Vec::new();
        for (at, shard) in members {
            for digest in 0..digests(shard.weight, whole, members.len()) {
                let text = format!("{}-{digest}", shard.name);
                let text = &text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)];
                ring.extend(md5(text).map(|point| (point, *at as u16)));
            }
        }
        ring.sort_by_key(|(point, _)| *point);
        let (points, owners): (Vec<u32>, Vec<u16>) = ring.into_iter().unzip();
        let bits = points.len().next_power_of_two().ilog2().max(1);
        let shift = 32 - bits;
        let first = |stretch: u32| points.partition_point(|point| *point < stretch << shift) as u32;
        let starts = (0..1 << bits).map(first).collect();
        Self {
            points,
            owners,
            starts,
            shift,
        }
    }

    /// Who has the first point at or after `hash`; after the last one comes the first.
    pub(super) fn find(&self, hash: u32) -> usize {
        let start = self.starts[(hash >> self.shift) as usize] as usize;
        let skipped = self.points[start..]
            .iter()
            .take_while(|point| **point < hash)
            .count();
        let owner = self.owners.get(start + skipped);
        usize::from(*owner.unwrap_or(&self.owners[0]))
    }

    /// How many points a shard has.
    #[cfg(test)]
    pub(super) fn points_of(&self, shard: usize) -> usize {
        let owners = self.owners.iter();
        owners.filter(|owner| usize::from(**owner) == shard).count()
    }

    /// Points, and the hashes beside them.
    #[cfg(test)]
    pub(super) fn near_points(&self) -> Vec<u32> {
        let beside = |point: &u32| [point.wrapping_sub(1), *point, point.wrapping_add(1)];
        self.points.iter().flat_map(beside).collect()
    }

    /// As [`Continuum::find`], by a plain binary search, as nutcracker does it.
    #[cfg(test)]
    pub(super) fn search(&self, hash: u32) -> usize {
        let at = self.points.partition_point(|point| *point < hash);
        usize::from(self.owners[at % self.points.len()])
    }
}

/// A shard's share of the ring in digests. The steps and their precision are nutcracker's: another order of them gives four points
/// more or fewer, and other places to some keys.
fn digests(weight: u32, whole: u32, members: usize) -> u32 {
    let share = weight as f32 / whole as f32;
    let digests = share * POINTS / POINTS_PER_DIGEST * members as f32;
    (f64::from(digests) + 0.000_000_000_1) as f32 as u32
}
