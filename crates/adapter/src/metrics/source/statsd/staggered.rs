//! A hash table in parts that double one after the other. One table of a million is between 44 % and 87 % full, and stands still while
//! it grows; of parts whose shares are a twelfth of a doubling apart, most are well filled at any size, and each growth is short.

use hashbrown::HashTable;

const PARTS: usize = 12;

/// The part of each of 256 values of a hash: each has 2^(1/12) times as many as the one before.
const PART: [u8; 256] = parts();

const fn parts() -> [u8; 256] {
    // 2^(i/12), in sum 256.
    const SHARES: [usize; PARTS] = [15, 16, 17, 18, 19, 20, 22, 23, 24, 26, 27, 29];
    let mut parts = [0; 256];
    let (mut part, mut at, mut of) = (0_u8, 0, 0);
    while at < 256 {
        parts[at] = part;
        (at, of) = (at + 1, of + 1);
        if of == SHARES[part as usize] {
            (part, of) = (part + 1, 0);
        }
    }
    assert!(part as usize == PARTS, "the shares are all there is");
    parts
}

#[derive(Debug)]
pub(super) struct Staggered<T>([HashTable<T>; PARTS]);

impl<T> Default for Staggered<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| HashTable::new()))
    }
}

impl<T> Staggered<T> {
    /// Bits that a table uses neither for the place, which is told by the lowest, nor for the tag, the highest seven.
    fn part(hash: u64) -> usize {
        usize::from(PART[usize::from(hash.to_be_bytes()[1])])
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(HashTable::len).sum()
    }

    pub(super) fn find(&self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&T> {
        self.0[Self::part(hash)].find(hash, is)
    }

    /// It is not there yet.
    pub(super) fn insert(&mut self, hash: u64, value: T, hash_of: impl Fn(&T) -> u64) {
        self.0[Self::part(hash)].insert_unique(hash, value, hash_of);
    }

    pub(super) fn remove(&mut self, hash: u64, is: impl FnMut(&T) -> bool) {
        if let Ok(entry) = self.0[Self::part(hash)].find_entry(hash, is) {
            entry.remove();
        }
    }

    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&T) -> bool) {
        for part in &mut self.0 {
            part.retain(|value| is_kept(value));
        }
    }

    pub(super) fn clear(&mut self) {
        for part in &mut self.0 {
            part.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_found_until_it_is_removed() {
        let hash = |value: &u64| value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut table = Staggered::default();
        for value in 0..10_000 {
            table.insert(hash(&value), value, hash);
        }
        assert_eq!(table.len(), 10_000);
        table.retain(|value| value % 2 == 0);
        for value in 0..10_000 {
            let found = table.find(hash(&value), |other| *other == value).copied();
            assert_eq!(found, (value % 2 == 0).then_some(value));
            table.remove(hash(&value), |other| *other == value);
        }
        assert_eq!(table.len(), 0);
        table.insert(7, 7, hash);
        table.clear();
        assert_eq!((table.len(), table.find(7, |_| true)), (0, None));
    }

    /// The whole is never much emptier than a table is in the middle of its life.
    #[test]
    fn parts_are_filled_whatever_their_number() {
        let hash = |value: &u64| siphash(*value);
        let mut table = Staggered::default();
        let mut least: f64 = 1.0;
        for value in 0..400_000 {
            table.insert(hash(&value), value, hash);
            if value > 100_000 && value % 1000 == 0 {
                let buckets: usize = table.0.iter().map(HashTable::num_buckets).sum();
                #[expect(clippy::cast_precision_loss, reason = "counts")]
                let filled = table.len() as f64 / buckets as f64;
                least = least.min(filled);
            }
        }
        assert!(least > 0.55, "{least}");
    }

    fn siphash(value: u64) -> u64 {
        use std::hash::Hasher as _;
        let mut hasher = siphasher::sip::SipHasher13::new_with_keys(1, 2);
        hasher.write_u64(value);
        hasher.finish()
    }
}
