//! What was seen lately: a ring of sketches, each of which has a part of the time.
//!
//! As in the client library of Prometheus for Go, what is shown covers the part that is running and those before it, one less than
//! there are in all: between all of `max_age` and one part less of it.

/// Something that takes values, and can be put together with another of its kind.
pub(super) trait Sketch: Default {
    fn merge(&mut self, other: &Self);
    fn clear(&mut self);
}

/// How long values are shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Age {
    /// Seconds.
    pub(super) max: f64,
    pub(super) parts: u32,
}

impl Age {
    /// Those of the client library: ten minutes in five parts.
    pub(super) const USUAL: Self = Self {
        max: 600.0,
        parts: 5,
    };

    /// The number of the part that has `now`, in seconds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds since the start are few, and not negative"
    )]
    fn part(self, now: f64) -> u64 {
        (now * f64::from(self.parts) / self.max) as u64
    }
}

/// The sketches of the parts that had values, newest last.
#[derive(Debug)]
pub(super) struct Ring<S> {
    age: Age,
    parts: Vec<(u64, S)>,
}

impl<S: Sketch> Ring<S> {
    pub(super) fn new(age: Age) -> Self {
        Self {
            age,
            parts: Vec::new(),
        }
    }

    /// Where values of `now` go.
    pub(super) fn now(&mut self, now: f64) -> &mut S {
        let part = self.age.part(now);
        if self.parts.last().is_none_or(|(last, _)| *last < part) {
            let first = part.saturating_sub(u64::from(self.age.parts) - 1);
            let old = self.parts.first().is_some_and(|(at, _)| *at < first);
            let mut sketch = match old {
                true => self.parts.remove(0).1,
                false => S::default(),
            };
            sketch.clear();
            self.parts.retain(|(at, _)| *at >= first);
            self.parts.push((part, sketch));
        }
        let last = self.parts.len() - 1;
        &mut self.parts[last].1
    }

    /// All that is not too old.
    pub(super) fn lately(&self, now: f64) -> S {
        let first = (self.age.part(now) + 1).saturating_sub(u64::from(self.age.parts));
        let mut all = S::default();
        for (at, sketch) in &self.parts {
            if *at >= first {
                all.merge(sketch);
            }
        }
        all
    }
}
