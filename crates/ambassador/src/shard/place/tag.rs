//! Hash tags: the part of a key that decides its place, so that keys which belong together can stay together.

use podkit_foundation::params::ParamType;

/// `--hash-tag`: the two bytes that the part stands between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashTag([u8; 2]);

impl HashTag {
    /// `{}`: Redis Cluster's.
    pub const BRACES: Self = Self(*b"{}");

    /// What stands between the first opening byte and the first closing one after it, or the whole key when that is nothing: the rule
    /// of nutcracker (`server_pool_idx`) and of Redis Cluster ("Hash tags" in its specification).
    pub fn part(self, key: &[u8]) -> &[u8] {
        let [open, close] = self.0;
        let find = |byte: u8, key: &[u8]| key.iter().position(|other| *other == byte);
        find(open, key)
            .map(|at| &key[at + 1..])
            .and_then(|rest| Some(&rest[..find(close, rest)?]))
            .filter(|part| !part.is_empty())
            .unwrap_or(key)
    }
}

impl ParamType for HashTag {
    const TYPE_NAME: &'static str = "hash tag";
    const EXPECTED: &'static str = "two characters, such as {}";

    fn parse(text: &str) -> Result<Self, String> {
        let bytes = text.as_bytes().try_into();
        bytes.map(Self).map_err(|_| String::new())
    }
}
