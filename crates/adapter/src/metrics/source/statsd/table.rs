//! All series, and how a line finds its own: by a hash of its name and tags as they were sent, straight to the cell.
//!
//! ```text
//!   name, tags, kind ─ hash ─▶ aliases ──▶ series ──▶ cell
//!                                 │ not there
//!                                 ╰──▶ tags, mapping, labels ─▶ family ─▶ series, found or made
//! ```
//!
//! The hash has 96 bits and a random key: aliases are taken as equal when their hashes are, and the bytes are not kept. All
//! that is said of a name (the rule, labels, an error) is found once, and kept with the alias until the mapping changes.

use siphasher::sip::SipHasher13 as Sip64;
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use std::hash::Hasher as _;

use super::alias::{Alias, Hash, NO_RULE, Way};
use super::cell::{Cell, Histogram, Summary};
use super::counts::Counts;
use super::families::{Families, Shape};
use super::line::{Key, Kind, Number, Other, Reason, Said, Sink};
use super::mapping::{Mapping, Observer, Treatment};
use super::name::{Dialects, Labels, Tags, escape, label_name};
use super::staggered::Staggered;
use super::window::Ring;
use crate::metrics::batch::render;

/// Bytes of a name with its tags, at most.
const MOST_NAME: usize = 4096;

/// A series.
#[derive(Debug)]
pub(super) struct Series {
    /// As they are written.
    pub(super) labels: Box<str>,
    pub(super) cell: Cell,
    pub(super) family: u32,
    /// The last second in which it is kept without another sample.
    until: u32,
}

/// As long as the process lives.
const FOR_EVER: u32 = u32::MAX;

// There may be a million of each.
const _: () = assert!(size_of::<Alias>() == 20 && size_of::<Series>() == 48);

/// What is counted.
pub(super) struct Table {
    keys: [u64; 2],
    aliases: Staggered<Alias>,
    /// By family and labels.
    by_labels: Staggered<u32>,
    pub(super) series: Vec<Series>,
    free: Vec<u32>,
    pub(super) families: Families,
    pub(super) mapping: Mapping,
    dialects: Dialects,
    max_series: u32,
    pub(super) counts: Counts,
    /// Seconds since the start.
    now: f64,
    is_bad: bool,
    may_expire: bool,
}

impl Table {
    /// `keys` are random.
    pub(super) fn new(
        mapping: Mapping,
        dialects: Dialects,
        max_series: u32,
        keys: [u64; 2],
    ) -> Self {
        Self {
            keys,
            aliases: Staggered::default(),
            by_labels: Staggered::default(),
            series: Vec::new(),
            free: Vec::new(),
            families: Families::default(),
            mapping,
            dialects,
            max_series,
            counts: Counts::default(),
            now: 0.0,
            is_bad: false,
            may_expire: false,
        }
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.series.len() - self.free.len()
    }

    /// Seconds since the start: of the samples that follow.
    pub(super) fn at(&mut self, now: f64) {
        self.now = now;
    }

    pub(super) fn now(&self) -> f64 {
        self.now
    }

    /// The mapping of names that come from now on. What was counted stays.
    pub(super) fn remap(&mut self, mapping: Mapping) {
        self.mapping = mapping;
        self.aliases.clear();
    }

    /// Reads a packet, or whole lines of a stream.
    pub(super) fn packet(&mut self, packet: &[u8]) {
        let mut from = 0;
        for to in memchr::memchr_iter(b'\n', packet).chain([packet.len()]) {
            self.line(&packet[from..to]);
            from = to + 1;
        }
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return;
        }
        self.counts.lines += 1;
        self.is_bad = false;
        super::line::read(line, self);
        self.counts.bad_lines += u64::from(self.is_bad);
    }

    /// A line that was too long to be one.
    pub(super) fn too_long(&mut self) {
        self.counts.lines += 1;
        self.counts.bad_lines += 1;
        self.counts.tcp_too_long += 1;
    }

    /// Forgets series that have had no sample for their ttl.
    pub(super) fn expire(&mut self) {
        if !self.may_expire {
            return;
        }
        let now = seconds(self.now);
        let before = self.free.len();
        for (at, series) in self.series.iter_mut().enumerate() {
            if now <= series.until || matches!(series.cell, Cell::Free) {
                continue;
            }
            let at = u32::try_from(at).expect("counted as such");
            let hash = hash_labels(self.keys, series.family, &series.labels);
            self.by_labels.remove(hash, |other| *other == at);
            self.families.give_back(series.family);
            series.cell = Cell::Free;
            series.labels = Box::default();
            self.free.push(at);
        }
        let gone = self.free.len() - before;
        if gone > 0 {
            self.counts.expired += gone as u64;
            let series = &self.series;
            self.aliases.retain(|alias| match alias.way.way() {
                Way::To(at) => !matches!(series[at as usize].cell, Cell::Free),
                // There is room now.
                Way::Overflow => false,
                Way::Drop | Way::EmptyName | Way::Bad(_) => true,
            });
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "halves")]
    fn hash(&self, key: &Key<'_>) -> Hash {
        let mut hasher = SipHasher13::new_with_keys(self.keys[0], self.keys[1]);
        // Lengths first: no two keys are the same bytes.
        let extra = !key.tags.is_empty() || !key.container.is_empty();
        hasher.write_u64((key.name.len() as u64) << 8 | (key.kind as u64) << 1 | u64::from(extra));
        hasher.write(key.name);
        if extra {
            hasher.write_u64(key.tags.len() as u64);
            hasher.write(key.tags);
            hasher.write(key.container);
        }
        let hash = hasher.finish128();
        let half = |bits: u64| [(bits >> 32) as u32, bits as u32];
        let ([a, b], [c, _]) = (half(hash.h1), half(hash.h2));
        Hash([a, b, c])
    }

    /// What is done with the key; it is not known yet.
    fn resolve(&mut self, key: &Key<'_>, hash: Hash) -> Alias {
        let mut alias = Alias {
            hash,
            way: Way::Drop.into(),
            rule: NO_RULE,
            is_tagged: false,
            tag_errors: 0,
        };
        match self.look(key, &mut alias) {
            Ok(way) => alias.way = way.into(),
            Err(reason) => alias.way = Way::Bad(reason).into(),
        }
        // Many names for one series, or none, must not fill the memory.
        if self.aliases.len() >= 2 * self.max_series as usize + 1024 {
            self.aliases.clear();
        }
        self.aliases
            .insert(hash.first(), alias, |alias| alias.hash.first());
        alias
    }

    fn look(&mut self, key: &Key<'_>, alias: &mut Alias) -> Result<Way, Reason> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Reason::MalformedLine);
        let (name, dog, container) = (text(key.name)?, text(key.tags)?, text(key.container)?);
        if name.len() + dog.len() + container.len() > MOST_NAME {
            return Err(Reason::NameTooLong);
        }
        let mut tags = Tags::default();
        let name = tags.of_name(name, self.dialects);
        if !tags.labels.is_empty() && !dog.is_empty() {
            return Err(Reason::MixedTaggingStyles);
        }
        if self.dialects.dogstatsd {
            tags.dogstatsd(dog);
        }
        if !container.is_empty() {
            let id = container.to_owned();
            tags.labels.insert("container_id".to_owned(), id);
        }
        alias.is_tagged = !tags.labels.is_empty();
        alias.tag_errors = tags.errors;
        let mut labels = tags.labels;
        let mapped = self.mapping.find(&name, key.kind);
        let (name, treatment) = match mapped {
            None => (escape(&name), self.mapping.rest.clone()),
            Some(mapped) => {
                let rule = &self.mapping.rules[mapped.rule];
                alias.rule = u16::try_from(mapped.rule).unwrap_or(NO_RULE);
                if rule.is_drop {
                    return Ok(Way::Drop);
                }
                for (label, value) in mapped.labels {
                    if !(rule.honor_labels && labels.contains_key(&label)) {
                        labels.insert(label, value);
                    }
                }
                (escape(&mapped.name), rule.treatment.clone())
            }
        };
        if name.is_empty() {
            return Ok(Way::EmptyName);
        }
        Ok(self.place(&name, key.kind, &labels, &treatment))
    }

    /// The series of a name and labels; a new one when there is none.
    fn place(&mut self, name: &str, kind: Kind, labels: &Labels, treatment: &Treatment) -> Way {
        let shape = match (kind, &treatment.observer) {
            (Kind::Counter, _) => Shape::Counter,
            (Kind::Gauge, _) => Shape::Gauge,
            (Kind::Set, _) => Shape::Set,
            (_, Observer::Summary { .. }) => Shape::Summary,
            (_, Observer::Histogram { .. }) => Shape::Histogram,
        };
        let labels: Labels = labels
            .iter()
            .map(|(name, value)| (label_name(name, shape.reserved()), value.clone()))
            .collect();
        let pairs: Vec<(&str, &str)> = labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        // A copy of just its length: a string that is cut to it leaves a hole behind, and there may be a million.
        let labels: Box<str> = render(&pairs).as_str().into();
        self.may_expire |= treatment.ttl > 0;
        if let Some(family) = self.families.find(name, shape) {
            let hash = hash_labels(self.keys, family, &labels);
            let all = &self.series;
            let same = |at: &u32| {
                let one = &all[*at as usize];
                one.family == family && one.labels == labels
            };
            if let Some(at) = self.by_labels.find(hash, same) {
                return Way::To(*at);
            }
        }
        if self.len() >= self.max_series as usize {
            return Way::Overflow;
        }
        let family = self.families.take(name, shape, treatment.help.as_ref());
        let cell = match (shape, &treatment.observer) {
            (Shape::Counter, _) => Cell::Counter(super::cell::Counter::default()),
            (Shape::Gauge, _) => Cell::Gauge(0.0),
            (Shape::Set, _) => Cell::Set(Box::new(Ring::new(treatment.age))),
            (_, Observer::Summary { quantiles }) => Cell::Summary(Box::new(Summary {
                quantiles: quantiles.clone(),
                lately: Ring::new(treatment.age),
                count: 0,
                sum: 0.0,
            })),
            (_, Observer::Histogram { bounds }) => {
                Cell::Histogram(Box::new(Histogram::new(bounds.clone())))
            }
        };
        let hash = hash_labels(self.keys, family, &labels);
        let series = Series {
            labels,
            cell,
            family,
            until: FOR_EVER,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.series[at as usize] = series;
                at
            }
            None => {
                // Doubling would leave half of it empty.
                if self.series.len() == self.series.capacity() {
                    self.series.reserve_exact(self.series.len() / 8 + 64);
                }
                self.series.push(series);
                u32::try_from(self.series.len() - 1).expect("max-series is one")
            }
        };
        let (keys, all) = (self.keys, &self.series);
        self.by_labels.insert(hash, at, |at| {
            let one = &all[*at as usize];
            hash_labels(keys, one.family, &one.labels)
        });
        Way::To(at)
    }

    fn overflow(&mut self, kind: Kind, said: Said<'_>, rate: f64) {
        let over = &mut self.counts.overflow;
        match (kind, said) {
            (Kind::Counter, Said::Number(number)) => {
                over.counters += 1;
                if number.float >= 0.0 {
                    over.sum.add(number.float / rate);
                }
            }
            (Kind::Gauge, _) => over.gauges += 1,
            (Kind::Set, _) => over.sets += 1,
            _ => over.observers += 1,
        }
    }

    /// False: a counter can't go down.
    fn apply(
        &mut self,
        at: u32,
        kind: Kind,
        said: Said<'_>,
        (rate, count): (f64, u64),
        scale: Option<f64>,
    ) -> bool {
        let series = &mut self.series[at as usize];
        let number = match said {
            Said::Number(number) => number,
            Said::Member(member) => {
                if let Cell::Set(set) = &mut series.cell {
                    let mut hasher = Sip64::new_with_keys(self.keys[1], self.keys[0]);
                    hasher.write(member);
                    set.now(self.now).add(hasher.finish());
                }
                return true;
            }
        };
        let Number {
            float,
            whole,
            signed,
        } = number;
        let scaled = |value: f64| scale.map_or(value, |scale| value * scale);
        match &mut series.cell {
            #[expect(clippy::float_cmp, reason = "1 is what is taken when none is said")]
            Cell::Counter(counter) => match whole {
                Some(whole) if rate == 1.0 && scale.is_none() => counter.add_whole(whole),
                _ => {
                    let value = scaled(float / rate);
                    if value < 0.0 || !value.is_finite() {
                        return false;
                    }
                    counter.add(value);
                }
            },
            Cell::Gauge(gauge) if signed => *gauge += scaled(float),
            Cell::Gauge(gauge) => *gauge = scaled(float),
            cell => {
                let value = match kind {
                    Kind::Timer => scaled(float / 1000.0),
                    _ => scaled(float),
                };
                match cell {
                    Cell::Summary(summary) => summary.observe(value, count, self.now),
                    Cell::Histogram(histogram) => histogram.observe(value, count),
                    _ => {}
                }
            }
        }
        true
    }
}

impl Sink for Table {
    fn sample(&mut self, key: Key<'_>, said: Said<'_>, rate: f64) {
        let hash = self.hash(&key);
        let known = self.aliases.find(hash.first(), |alias| alias.hash == hash);
        let alias = match known {
            Some(alias) => *alias,
            None => self.resolve(&key, hash),
        };
        let way = alias.way.way();
        if let Way::Bad(reason) = way {
            return self.bad_line(reason);
        }
        self.counts.samples += 1;
        self.counts.tagged += u64::from(alias.is_tagged);
        self.counts.tag_errors += u64::from(alias.tag_errors);
        match way {
            Way::Drop => return self.counts.dropped += 1,
            Way::EmptyName => return self.counts.empty_name += 1,
            Way::To(_) | Way::Overflow | Way::Bad(_) => {}
        }
        let count = times(key.kind, rate);
        let rule = self.mapping.rules.get(usize::from(alias.rule));
        let treatment = rule.map_or(&self.mapping.rest, |rule| &rule.treatment);
        let until = match treatment.ttl {
            0 => FOR_EVER,
            ttl => seconds(self.now).saturating_add(ttl),
        };
        let scale = treatment.scale;
        match rule {
            Some(_) => self.counts.mapped += count,
            None => self.counts.unmapped += count,
        }
        let Way::To(at) = way else {
            return self.overflow(key.kind, said, rate);
        };
        self.series[at as usize].until = until;
        match self.apply(at, key.kind, said, (rate, count), scale) {
            true => self.counts.counted(key.kind, count),
            false => self.counts.negative += 1,
        }
    }

    fn bad_sample(&mut self, reason: Reason) {
        self.counts.samples += 1;
        self.bad_line(reason);
    }

    fn bad_line(&mut self, reason: Reason) {
        self.is_bad = true;
        self.counts.error(reason);
    }

    fn other(&mut self, other: Other) {
        match other {
            Other::Event => self.counts.events += 1,
            Other::ServiceCheck => self.counts.service_checks += 1,
        }
    }
}

/// How many observations a sample stands for. Of counters, it is the value that does.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "1 and more, and so many are not observed"
)]
pub(super) fn times(kind: Kind, rate: f64) -> u64 {
    match kind {
        Kind::Timer | Kind::Observed if rate < 1.0 => (1.0 / rate) as u64,
        _ => 1,
    }
}

fn hash_labels(keys: [u64; 2], family: u32, labels: &str) -> u64 {
    let mut hasher = Sip64::new_with_keys(keys[0], keys[1]);
    hasher.write_u32(family);
    hasher.write(labels.as_bytes());
    hasher.finish()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds since the start"
)]
fn seconds(now: f64) -> u32 {
    now as u32
}
