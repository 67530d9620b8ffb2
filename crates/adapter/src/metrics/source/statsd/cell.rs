//! What is counted of a series.

use std::sync::Arc;

use super::distinct::Distinct;
use super::quantiles::Quantiles;
use super::window::Ring;

/// A series' value.
#[derive(Debug)]
pub(super) enum Cell {
    /// Nothing: the place is free.
    Free,
    Counter(Counter),
    Gauge(f64),
    Set(Box<Ring<Distinct>>),
    Summary(Box<Summary>),
    Histogram(Box<Histogram>),
}

/// A sum. Whole numbers are added as such, and so are exact; the rest is kept below 1, where floats are finest.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counter {
    whole: u64,
    rest: f64,
}

/// The least float that is too large for a `u64`.
const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

impl Counter {
    pub(super) fn add_whole(&mut self, more: u64) {
        match self.whole.checked_add(more) {
            Some(sum) => self.whole = sum,
            #[expect(clippy::cast_precision_loss, reason = "as near as floats come")]
            None => self.rest += more as f64,
        }
    }

    /// Adds what is not negative.
    pub(super) fn add(&mut self, more: f64) {
        self.rest += more;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the bounds"
        )]
        if (1.0..TWO_TO_64).contains(&self.rest) {
            let whole = self.rest.trunc();
            if let Some(sum) = self.whole.checked_add(whole as u64) {
                self.whole = sum;
                self.rest -= whole;
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "what is shown is a float")]
    pub(super) fn value(self) -> f64 {
        self.whole as f64 + self.rest
    }
}

/// Observations by quantile.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) quantiles: Arc<[f64]>,
    pub(super) lately: Ring<Quantiles>,
    pub(super) count: u64,
    pub(super) sum: f64,
}

/// Observations by upper bound.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) bounds: Arc<[f64]>,
    /// Of each bound, and of what is above the last.
    pub(super) counts: Box<[u64]>,
    pub(super) sum: f64,
}

impl Histogram {
    pub(super) fn new(bounds: Arc<[f64]>) -> Self {
        Self {
            counts: vec![0; bounds.len() + 1].into(),
            bounds,
            sum: 0.0,
        }
    }

    pub(super) fn observe(&mut self, value: f64, count: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at] += count;
        self.sum += times(value, count);
    }
}

impl Summary {
    pub(super) fn observe(&mut self, value: f64, count: u64, now: f64) {
        self.lately.now(now).add(value, count);
        self.count += count;
        self.sum += times(value, count);
    }
}

#[expect(clippy::cast_precision_loss, reason = "as near as floats come")]
fn times(value: f64, count: u64) -> f64 {
    value * count as f64
}
