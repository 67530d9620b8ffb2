//! Which keys are hot: a bounded sketch of one command in [`EACH`], over a window.
//!
//! The sketch is *space-saving* (Metwally, Agrawal, El Abbadi 2005): so many counters; a key without one takes over the least, and its count as the
//! error that it may have. What is shown is the count less that error, so that nothing is called hot by mistake: with keys that are all alike there
//! is none. Each worker has its own; they are put together when a window ends.
//!
//! Rejected: HeavyKeeper. It takes fewer steps for a key without a counter, which matters little for one command in so many.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use podkit_dataplane::upstream::pick::fnv;

/// One command in so many is looked at.
const EACH: u32 = 64;
/// Counters of a worker.
const COUNTERS: usize = 256;
/// Of a key so many bytes are looked at: it may have any length.
const KEY_BYTES: usize = 256;
/// Of a key so many characters are shown.
const SHOWN: usize = 48;
/// A key is hot with so much of all, and seen so often.
const LEAST: (f64, u64) = (0.01, 3);
/// What is shown is of so long.
pub(super) const WINDOW: Duration = Duration::from_secs(5);

podkit_foundation::params! {
    /// What is told of keys.
    pub(super) struct HotParams {
        /// How many of the hottest keys are named on the page and in metrics, with their rates; 0: none, and keys are not looked at.
        ///
        /// Those with at least 1 % of the keys of 5 seconds. One command in 64 is looked at. Keys are escaped and cut.
        hot_keys: u32 { default: Some("10"), bounds: Some((0, 100)) },
    }
}

/// A key with a counter.
#[derive(Debug)]
struct Counter {
    key: Arc<[u8]>,
    count: u64,
    /// How much of it may be of others.
    error: u64,
}

/// Counts of the keys that came most often, and perhaps a few of others.
///
/// Who has the least count is not searched for each time: the least only grows, and all that have it are taken over before it does. So one walk
/// over the counters finds many.
#[derive(Debug, Default)]
struct Sketch {
    counters: Vec<Counter>,
    /// Where a key's counter is.
    places: HashMap<Arc<[u8]>, usize>,
    /// No count is less, once all counters are taken.
    least: u64,
    /// Counters before this one have more, until the walk ends.
    walked: usize,
    /// All that came.
    total: u64,
}

impl Sketch {
    fn add(&mut self, key: &[u8]) {
        let key = &key[..key.len().min(KEY_BYTES)];
        self.total += 1;
        if let Some(place) = self.places.get(key) {
            self.counters[*place].count += 1;
            return;
        }
        let key: Arc<[u8]> = key.into();
        let place = self.counters.len();
        if place < COUNTERS {
            self.places.insert(Arc::clone(&key), place);
            self.counters.push(Counter {
                key,
                count: 1,
                error: 0,
            });
            return;
        }
        let place = self.least();
        let counter = &mut self.counters[place];
        self.places.remove(&counter.key);
        self.places.insert(Arc::clone(&key), place);
        *counter = Counter {
            key,
            count: counter.count + 1,
            error: counter.count,
        };
    }

    /// The counter with the least count. There is one.
    fn least(&mut self) -> usize {
        let rest = &self.counters[self.walked..];
        let found = rest.iter().position(|counter| counter.count <= self.least);
        if let Some(found) = found {
            self.walked += found;
            return self.walked;
        }
        let counts = self.counters.iter().map(|counter| counter.count);
        let (place, least) = counts
            .enumerate()
            .min_by_key(|(_, count)| *count)
            .expect("all counters are taken");
        (self.least, self.walked) = (least, place);
        place
    }
}

/// A worker's.
#[derive(Debug)]
pub(super) struct Sampler {
    sketch: Arc<Mutex<Sketch>>,
    /// Commands until one is looked at.
    left: Cell<u32>,
    seed: Cell<u64>,
}

impl Sampler {
    /// It is this command's turn. The distances differ, so that what comes in a rhythm is seen too.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        let left = self.left.get();
        if left > 0 {
            self.left.set(left - 1);
            return false;
        }
        let mut seed = self.seed.get();
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        self.seed.set(seed);
        self.left.set((seed % u64::from(2 * EACH - 1)) as u32);
        true
    }

    /// A key of it.
    pub(super) fn add(&self, key: &[u8]) {
        lock(&self.sketch).add(key);
    }
}

/// A hot key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HotKey {
    /// As it came, its first bytes.
    pub(super) key: Arc<[u8]>,
    /// Times a second.
    pub(super) rate: f64,
    /// Of all keys, 0 to 1.
    pub(super) share: f64,
}

impl HotKey {
    /// All of it; None: it may have been longer.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        (self.key.len() < KEY_BYTES).then_some(&self.key)
    }
}

/// What all workers' sketches say together.
#[derive(Debug)]
pub(super) struct Hot {
    most: usize,
    sketches: Mutex<Vec<Arc<Mutex<Sketch>>>>,
    named: Mutex<Vec<HotKey>>,
    begun: Mutex<Instant>,
}

impl Hot {
    /// Names so many; with 0 nothing is counted.
    pub(super) fn new(params: &HotParams) -> Self {
        Self {
            most: params.hot_keys as usize,
            sketches: Mutex::default(),
            named: Mutex::default(),
            begun: Mutex::new(Instant::now()),
        }
    }

    /// Keys are looked at.
    pub(super) fn is_on(&self) -> bool {
        self.most > 0
    }

    /// For a worker; None: keys are not looked at.
    pub(super) fn sampler(&self) -> Option<Sampler> {
        let sketch = Arc::new(Mutex::new(Sketch::default()));
        self.is_on().then(|| {
            lock(&self.sketches).push(Arc::clone(&sketch));
            Sampler {
                sketch,
                left: Cell::new(0),
                // Never 0, of which nothing else comes.
                seed: Cell::new(RandomState::new().hash_one(EACH) | 1),
            }
        })
    }

    /// Ends a window: what is named is of it from now on.
    pub(super) fn roll(&self, now: Instant) {
        let begun = std::mem::replace(&mut *lock(&self.begun), now);
        let window = now.saturating_duration_since(begun);
        let sketches = lock(&self.sketches);
        let of_workers = sketches
            .iter()
            .map(|sketch| std::mem::take(&mut *lock(sketch)));
        *lock(&self.named) = hottest(of_workers, window, self.most);
    }

    /// The hottest first.
    pub(super) fn named(&self) -> Vec<HotKey> {
        lock(&self.named).clone()
    }
}

/// Of the sketches of a window.
fn hottest(sketches: impl Iterator<Item = Sketch>, window: Duration, most: usize) -> Vec<HotKey> {
    let (mut counts, mut total) = (HashMap::<Arc<[u8]>, u64>::new(), 0);
    for sketch in sketches {
        total += sketch.total;
        for Counter { key, count, error } in sketch.counters {
            *counts.entry(key).or_default() += count - error;
        }
    }
    let share = |count: u64| count as f64 / total as f64;
    let mut counts: Vec<(Arc<[u8]>, u64)> = counts
        .into_iter()
        .filter(|(_, count)| *count >= LEAST.1 && share(*count) >= LEAST.0)
        .collect();
    counts.sort_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
    counts.truncate(most);
    let named = |(key, count): (Arc<[u8]>, u64)| HotKey {
        key,
        rate: count as f64 * f64::from(EACH) / window.as_secs_f64().max(0.001),
        share: share(count),
    };
    counts.into_iter().map(named).collect()
}

/// A key as text: bytes that are no plain characters escaped; a long one is cut and told from others by a number.
pub(super) fn shown(key: &[u8]) -> String {
    let text = key.escape_ascii().to_string();
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((end, _)) => format!("{}...{:08x}", &text[..end], fnv(key) as u32),
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Draws of 0 to 1, the same each time.
    fn draws() -> impl Iterator<Item = f64> {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 11) as f64 / (1_u64 << 53) as f64
        })
    }

    /// Sketches of two workers, of keys drawn with these weights.
    fn sketches(weights: &[f64], count: usize) -> Vec<Sketch> {
        let mut upto: Vec<f64> = Vec::new();
        for weight in weights {
            upto.push(upto.last().unwrap_or(&0.0) + weight);
        }
        let whole = *upto.last().unwrap();
        let mut sketches = vec![Sketch::default(), Sketch::default()];
        for (at, drawn) in draws().take(count).enumerate() {
            let key = upto.partition_point(|sum| *sum <= drawn * whole);
            sketches[at % 2].add(format!("k{key}").as_bytes());
        }
        sketches
    }

    #[test]
    fn the_hottest_of_a_zipf_stream_are_named_with_their_rates() {
        let weights: Vec<f64> = (1..=10_000).map(|rank| f64::from(rank).recip()).collect();
        let whole: f64 = weights.iter().sum();
        let second = Duration::from_secs(1);
        let sketches = sketches(&weights, 100_000);
        assert!(sketches.iter().all(|one| one.counters.len() == COUNTERS));
        let named = hottest(sketches.into_iter(), second, 5);
        let keys: Vec<_> = named.iter().map(|hot| shown(&hot.key)).collect();
        assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4"]);
        for (at, hot) in named.iter().enumerate() {
            let right = weights[at] / whole;
            assert!((hot.share / right - 1.0).abs() < 0.2, "{at}: {hot:?}");
            let rate = hot.share * 100_000.0 * f64::from(EACH);
            assert!((hot.rate - rate).abs() < 1.0, "{hot:?}");
        }
    }

    proptest! {
        /// As the plain way, which looks at all counters each time, has it: the counts that there are, and none too large by more than its error.
        #[test]
        fn counts_are_those_of_space_saving(
            keys in proptest::collection::vec(0_u32..600, 1..4000),
            hot in 0_u32..600,
        ) {
            let (mut sketch, mut right) = (Sketch::default(), HashMap::<u32, u64>::new());
            let mut plain: Vec<u64> = Vec::new();
            let mut known: HashMap<u32, usize> = HashMap::new();
            for key in keys.into_iter().map(|key| if key % 3 == 0 { hot } else { key }) {
                let counted = |sketch: &Sketch, key: u32| {
                    sketch.places.contains_key(&key.to_le_bytes()[..])
                };
                match counted(&sketch, key) {
                    true => plain[known[&key]] += 1,
                    false if plain.len() < COUNTERS => {
                        known.insert(key, plain.len());
                        plain.push(1);
                    }
                    false => {
                        let least = sketch.counters.iter().map(|counter| counter.count).min();
                        sketch.add(&key.to_le_bytes());
                        let place = sketch.places[&key.to_le_bytes()[..]];
                        prop_assert_eq!(Some(sketch.counters[place].error), least);
                        known.insert(key, place);
                        plain[place] += 1;
                        *right.entry(key).or_default() += 1;
                        continue;
                    }
                }
                sketch.add(&key.to_le_bytes());
                *right.entry(key).or_default() += 1;
            }
            let counts: Vec<u64> = sketch.counters.iter().map(|counter| counter.count).collect();
            prop_assert_eq!(counts.iter().sum::<u64>(), sketch.total);
            prop_assert_eq!(counts, plain);
            prop_assert_eq!(sketch.places.len(), sketch.counters.len());
            for counter in &sketch.counters {
                let key = u32::from_le_bytes(counter.key[..].try_into().unwrap());
                let here = right[&key];
                prop_assert!(counter.count - counter.error <= here && here <= counter.count);
            }
        }
    }

    #[test]
    fn none_is_hot_where_all_are_alike() {
        let sketches = sketches(&[1.0; 2000], 100_000);
        assert_eq!(
            hottest(sketches.into_iter(), Duration::from_secs(1), 10),
            []
        );
    }

    #[test]
    fn one_command_in_so_many_is_looked_at() {
        let hot = Hot::new(&HotParams { hot_keys: 1 });
        let sampler = hot.sampler().unwrap();
        let due = (0..640_000).filter(|_| sampler.is_due()).count();
        assert!((9_000..11_000).contains(&due), "{due}");
        assert!(Hot::new(&HotParams { hot_keys: 0 }).sampler().is_none());
        // A window has its own keys only.
        (0..9).for_each(|_| sampler.add(b"a"));
        hot.roll(Instant::now());
        assert_eq!(*hot.named()[0].key, *b"a");
        hot.roll(Instant::now());
        assert_eq!(hot.named(), []);
    }

    #[test]
    fn keys_are_shown_escaped_and_cut() {
        assert_eq!(shown(b"user:1"), "user:1");
        assert_eq!(shown(b"a\n\"\xff"), "a\\n\\\"\\xff");
        let (one, other) = (shown(&[b'x'; 300]), shown(&[b'x'; 301]));
        assert!(one.len() < 64 && one != other, "{one} {other}");
    }
}
