//! Names that are made up: `metadata.generateName` and five characters, as the API server makes them. (Kubernetes:
//! `apiserver/pkg/storage/names`)
//!
//! The files of a run are read more than once: by each supervisor, and after each edit; an object has to have one name in all of
//! them. So it is not drawn: it follows from the seed of the run and from the object, which is the how manieth of its kind,
//! namespace and prefix. Not from its place in the files, for then an edit above it would rename it.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};

/// None is a vowel, or looks like another. (Kubernetes: `util/rand`)
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How many of them.
const SUFFIX_BYTES: usize = 5;
/// Of the whole name, which has to do for a label. A longer prefix is cut, as the API server cuts it.
const NAME_BYTES: usize = 63;

/// What the made-up names of one run follow from; that of `check`, whose names are examples, is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NameSeed(pub u64);

impl NameSeed {
    /// Another one each time.
    pub fn random() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }
}

/// The end of a made-up name, out of a random number.
pub(crate) fn suffix(mut number: u64) -> String {
    let base = LETTERS.len() as u64;
    let letters = std::iter::repeat_with(|| {
        let letter = LETTERS[(number % base) as usize];
        number /= base;
        char::from(letter)
    });
    letters.take(SUFFIX_BYTES).collect()
}

/// The names of one reading.
#[derive(Debug, Default)]
pub(super) struct Names {
    seed: NameSeed,
    /// How many there were of a kind, namespace and prefix.
    given: HashMap<(&'static str, String, String), u32>,
}

impl Names {
    pub(super) fn new(seed: NameSeed) -> Self {
        Self {
            seed,
            given: HashMap::new(),
        }
    }

    /// The next name with this prefix that is not taken.
    pub(super) fn next(
        &mut self,
        kind: &'static str,
        namespace: &str,
        prefix: &str,
        taken: impl Fn(&str) -> bool,
    ) -> String {
        let key = (kind, namespace.to_owned(), prefix.to_owned());
        let count = self.given.entry(key).or_default();
        let kept = prefix.floor_char_boundary(NAME_BYTES - SUFFIX_BYTES);
        loop {
            let mut hasher = DefaultHasher::new();
            (self.seed.0, kind, namespace, prefix, *count).hash(&mut hasher);
            *count += 1;
            let end = suffix(hasher.finish());
            let name = format!("{}{end}", &prefix[..kept]);
            if !taken(&name) {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(seed: u64) -> Vec<String> {
        let mut names = Names::new(NameSeed(seed));
        let all = [("Pod", "web-"), ("Job", "web-"), ("Pod", "web-")];
        all.map(|(kind, prefix)| names.next(kind, "default", prefix, |_| false))
            .into()
    }

    #[test]
    fn a_seed_gives_the_same_names_each_time_and_another_seed_others() {
        let names = three(1);
        assert_eq!(names, three(1));
        for (at, name) in names.iter().enumerate() {
            let end = name.strip_prefix("web-").unwrap();
            assert_eq!(end.len(), SUFFIX_BYTES, "{name}");
            assert!(end.bytes().all(|byte| LETTERS.contains(&byte)), "{name}");
            assert!(!names[..at].contains(name), "{names:?}");
            assert!(!three(2).contains(name), "{name}");
        }
        assert_ne!(NameSeed::random(), NameSeed::random());
    }

    #[test]
    fn others_between_do_not_rename() {
        let mut names = Names::new(NameSeed(1));
        names.next("Pod", "default", "other-", |_| false);
        names.next("Pod", "elsewhere", "web-", |_| false);
        assert_eq!(names.next("Pod", "default", "web-", |_| false), three(1)[0]);
    }

    #[test]
    fn a_name_is_neither_taken_nor_too_long() {
        let first = three(1)[0].clone();
        let mut names = Names::new(NameSeed(1));
        let next = names.next("Pod", "default", "web-", |name| name == first);
        assert_eq!(next, three(1)[2]);
        let long = names.next("Pod", "default", &"x".repeat(80), |_| false);
        assert_eq!(long.len(), NAME_BYTES);
    }

    #[test]
    fn a_suffix_has_every_letter_in_every_place() {
        assert_eq!(suffix(0), "bbbbb");
        assert_eq!(suffix(27_u64.pow(5) - 1), "99999");
        assert_eq!(suffix(27), "bcbbb");
    }
}
