//! A key of a rule as 64 bits (no I/O).
//!
//! SipHash-1-3 (Aumasson and Bernstein, 2012) under a key that nobody outside knows: nobody can make two keys meet, or find one
//! that meets a victim's. The rule is told by what makes its counts its own, not by its place: a rule that stays when others come
//! and go keeps them.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// Makes tags.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tags(SipHasher13);

impl Tags {
    /// Under this secret key.
    pub(super) fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(key))
    }

    /// The tag of a key under the rule of this [`Rule::id`](super::rule::Rule::id); never 0.
    pub(super) fn tag(&self, rule: u64, key: &[u8]) -> u64 {
        let mut hash = self.0;
        hash.write_u64(rule);
        hash.write(key);
        hash.finish().max(1)
    }
}
