//! The names that are shown. Two kinds of values with one name are told apart by what the later one's name ends in: nothing is lost.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::staggered::Staggered;

/// What a family's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    Counter,
    Gauge,
    Set,
    Summary,
    Histogram,
}

impl Shape {
    /// What a name that is another kind's already gets.
    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_counter",
            Self::Gauge => "_gauge",
            Self::Set => "_set",
            Self::Summary => "_summary",
            Self::Histogram => "_histogram",
        }
    }

    /// What its samples' names end in.
    fn ends(self) -> &'static [&'static str] {
        match self {
            Self::Counter | Self::Gauge | Self::Set => &[""],
            Self::Summary => &["", "_sum", "_count"],
            Self::Histogram => &["", "_sum", "_count", "_bucket"],
        }
    }

    /// Labels that are its own.
    pub(super) fn reserved(self) -> &'static [&'static str] {
        match self {
            Self::Counter | Self::Gauge | Self::Set => &[],
            Self::Summary => &["quantile"],
            Self::Histogram => &["le"],
        }
    }
}

/// A name and its kind. There may be as many as series: it is small.
#[derive(Debug)]
pub(super) struct Family {
    /// As it is shown.
    pub(super) name: Box<str>,
    rare: Option<Box<Rare>>,
    /// Its series; without any it is forgotten.
    series: u32,
    pub(super) shape: Shape,
}

/// What few families have.
#[derive(Debug, Default)]
struct Rare {
    /// The name that was asked for, when it was another's.
    asked: Option<Box<str>>,
    help: Option<Arc<str>>,
}

impl Family {
    fn asked(&self) -> &str {
        let asked = self.rare.as_ref().and_then(|rare| rare.asked.as_deref());
        asked.unwrap_or(&self.name)
    }

    pub(super) fn help(&self) -> Option<&str> {
        self.rare.as_ref()?.help.as_deref()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Families {
    list: Vec<Option<Family>>,
    free: Vec<u32>,
    hash: RandomState,
    /// By the names of samples.
    names: Staggered<Named>,
    /// Those that are shown by another name than they were asked for, by that.
    split: HashTable<u32>,
}

/// A family, and which of its ends a name has: there are fewer than 2^30 of the one, and than four of the other.
#[derive(Debug, Clone, Copy)]
struct Named(u32);

impl Named {
    fn new(family: u32, end: usize) -> Self {
        Self(family << 2 | u32::try_from(end).expect("they are few"))
    }

    fn family(self) -> u32 {
        self.0 >> 2
    }

    fn end(self) -> usize {
        self.0 as usize & 3
    }
}

impl Families {
    /// The family for one more series.
    pub(super) fn take(&mut self, name: &str, shape: Shape, help: Option<&Arc<str>>) -> u32 {
        let at = match self.find(name, shape) {
            Some(at) => at,
            None => self.make(name, shape, help),
        };
        if let Some(family) = &mut self.list[at as usize] {
            family.series += 1;
        }
        at
    }

    /// The family of series that there are.
    pub(super) fn find(&self, name: &str, shape: Shape) -> Option<u32> {
        let is = |at: u32| {
            let family = self.get(at);
            family.is_some_and(|one| one.shape == shape && one.asked() == name)
        };
        let hash = hash_name(&self.hash, name, "");
        let found = self
            .names
            .find(hash, |one| one.end() == 0 && is(one.family()));
        let split = || self.split.find(hash, |at| is(*at)).copied();
        found.map(|one| one.family()).or_else(split)
    }

    fn make(&mut self, asked: &str, shape: Shape, help: Option<&Arc<str>>) -> u32 {
        let mut name = asked.to_owned();
        while !self.is_free(&name, shape) {
            name.push_str(shape.suffix());
        }
        let rare = (name != asked || help.is_some()).then(|| {
            Box::new(Rare {
                asked: (name != asked).then(|| asked.into()),
                help: help.cloned(),
            })
        });
        let at = self.free.pop().unwrap_or_else(|| {
            if self.list.len() == self.list.capacity() {
                self.list.reserve_exact(self.list.len() / 8 + 64);
            }
            self.list.push(None);
            u32::try_from(self.list.len() - 1).expect("there are no more than series")
        });
        self.list[at as usize] = Some(Family {
            name: name.into(),
            rare,
            series: 0,
            shape,
        });
        let (list, hash) = (&self.list, &self.hash);
        let of = |at: u32| {
            list[at as usize]
                .as_ref()
                .expect("what is in a table is there")
        };
        let sample = |one: &Named| {
            let family = of(one.family());
            hash_name(hash, &family.name, family.shape.ends()[one.end()])
        };
        for end in 0..shape.ends().len() {
            let one = Named::new(at, end);
            self.names.insert(sample(&one), one, sample);
        }
        if of(at).asked() != &*of(at).name {
            let asked = |at: &u32| hash_name(hash, of(*at).asked(), "");
            self.split.insert_unique(asked(&at), at, asked);
        }
        at
    }

    fn is_free(&self, name: &str, shape: Shape) -> bool {
        let taken = |end: &str| {
            let is = |one: &Named| {
                self.get(one.family()).is_some_and(|family| {
                    let theirs = family.shape.ends()[one.end()];
                    let (own, their) = (name.bytes(), family.name.bytes());
                    own.chain(end.bytes()).eq(their.chain(theirs.bytes()))
                })
            };
            self.names
                .find(hash_name(&self.hash, name, end), is)
                .is_some()
        };
        !shape.ends().iter().any(|end| taken(end))
    }

    /// A series of it is gone.
    pub(super) fn give_back(&mut self, at: u32) {
        let place = &mut self.list[at as usize];
        let Some(family) = place else { return };
        family.series -= 1;
        if family.series > 0 {
            return;
        }
        if let Some(family) = place.take() {
            for end in family.shape.ends() {
                let hash = hash_name(&self.hash, &family.name, end);
                self.names.remove(hash, |one| one.family() == at);
            }
            let hash = hash_name(&self.hash, family.asked(), "");
            if let Ok(entry) = self.split.find_entry(hash, |one| *one == at) {
                entry.remove();
            }
            self.free.push(at);
        }
    }

    pub(super) fn get(&self, at: u32) -> Option<&Family> {
        self.list[at as usize].as_ref()
    }

    /// Those that there are.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Family> {
        self.list.iter().flatten()
    }

    /// How many have another name than they were asked for.
    pub(super) fn split(&self) -> usize {
        self.iter().filter(|one| one.asked() != &*one.name).count()
    }
}

fn hash_name(hash: &RandomState, name: &str, end: &str) -> u64 {
    let mut hasher = hash.build_hasher();
    hasher.write(name.as_bytes());
    hasher.write(end.as_bytes());
    hasher.finish()
}
