//! Tables of a module's surface that are made of shared ones.

use podkit_foundation::surface::Metric;

/// How many there are in all.
pub(crate) const fn count(sets: &[&[Metric]]) -> usize {
    let (mut sum, mut at) = (0, 0);
    while at < sets.len() {
        sum += sets[at].len();
        at += 1;
    }
    sum
}

/// One table of all.
pub(crate) const fn join<const N: usize>(sets: &[&[Metric]]) -> [Metric; N] {
    let mut all = [sets[0][0]; N];
    let (mut to, mut set) = (0, 0);
    while set < sets.len() {
        let mut at = 0;
        while at < sets[set].len() {
            all[to] = sets[set][at];
            at += 1;
            to += 1;
        }
        set += 1;
    }
    all
}
