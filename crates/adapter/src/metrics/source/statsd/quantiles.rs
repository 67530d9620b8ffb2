//! Quantiles of what was observed, in bounded space.
//!
//! Values are counted in bins that get wider as values grow: a bin has all floats with the same sign, exponent and first bits of the
//! fraction. So a quantile's value is within 0.4 % of an observed one of exactly that rank, and exact where a bin has one value only.
//! When there are too many bins, neighbours are put together and the error doubles, as in UDDSketch. Rejected: the streams of the
//! client library of Prometheus, which bound the error of the rank and not of the value, and take kilobytes for each series; DDSketch,
//! whose crates keep empty bins and need a logarithm for each value.

use super::window::Sketch;

/// Bins of a sketch, at most: 8 KiB.
const MOST: usize = 512;

/// Bits of the fraction that bins don't tell apart at first: seven are left.
const SHIFT: u32 = 52 - 7;

#[derive(Debug, Clone, Copy)]
struct Bin {
    key: i64,
    count: u64,
    /// Their mean.
    value: f64,
}

/// Counts by value.
#[derive(Debug, Default)]
pub(super) struct Quantiles {
    /// By key, ascending.
    bins: Vec<Bin>,
    /// How often neighbours were put together.
    coarser: u32,
    count: u64,
}

/// Floats in their order, as integers in theirs.
fn order(value: f64) -> i64 {
    let bits = i64::from_ne_bytes(value.to_ne_bytes());
    // The magnitudes of negative ones grow the other way.
    if bits < 0 { i64::MIN - bits } else { bits }
}

impl Quantiles {
    /// `value` was observed `count` times.
    pub(super) fn add(&mut self, value: f64, count: u64) {
        let key = order(value) >> (SHIFT + self.coarser);
        self.put(Bin { key, count, value });
        self.bound();
    }

    fn put(&mut self, more: Bin) {
        self.count += more.count;
        match self.bins.binary_search_by_key(&more.key, |bin| bin.key) {
            Ok(at) => join(&mut self.bins[at], more),
            Err(at) => self.bins.insert(at, more),
        }
    }

    fn bound(&mut self) {
        while self.bins.len() > MOST {
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        self.coarser += 1;
        for bin in &mut self.bins {
            bin.key >>= 1;
        }
        self.bins.dedup_by(|next, bin| {
            let same = next.key == bin.key;
            if same {
                join(bin, *next);
            }
            same
        });
    }

    /// The least value that at least `quantile` of all are not above; NaN when there are none.
    pub(super) fn value(&self, quantile: f64) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank is between 1 and the count"
        )]
        let rank = ((quantile * self.count as f64).ceil() as u64).max(1);
        let mut before = 0;
        for bin in &self.bins {
            before += bin.count;
            if before >= rank {
                return bin.value;
            }
        }
        self.bins.last().map_or(f64::NAN, |bin| bin.value)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a mean is as near as floats come"
)]
fn join(bin: &mut Bin, more: Bin) {
    bin.count += more.count;
    // Equal ones stay exact.
    bin.value += (more.value - bin.value) * (more.count as f64 / bin.count as f64);
}

impl Sketch for Quantiles {
    fn merge(&mut self, other: &Self) {
        while self.coarser < other.coarser {
            self.coarsen();
        }
        for bin in &other.bins {
            let key = bin.key >> (self.coarser - other.coarser);
            self.put(Bin { key, ..*bin });
            self.bound();
        }
    }

    fn clear(&mut self) {
        self.bins.clear();
        self.coarser = 0;
        self.count = 0;
    }
}
