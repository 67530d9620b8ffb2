//! What is known of a name as it was sent: small, since there may be as many as series, and more.

use super::line::Reason;

/// What is done with the samples of an alias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Way {
    To(u32),
    Drop,
    Overflow,
    EmptyName,
    Bad(Reason),
}

/// 96 bits, of which the first 64 are those that a table wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash(pub(super) [u32; 3]);

impl Hash {
    pub(super) fn first(self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }
}

/// A name with its tags and kind, as it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alias {
    pub(super) hash: Hash,
    pub(super) way: Packed,
    /// Of the rule that it was mapped by, or [`NO_RULE`].
    pub(super) rule: u16,
    pub(super) is_tagged: bool,
    pub(super) tag_errors: u8,
}

/// There are fewer rules.
pub(super) const NO_RULE: u16 = u16::MAX;

/// A [`Way`] in half the space: above [`MOST_SERIES`] numbers are none of series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed(u32);

/// Series, at most.
pub(super) const MOST_SERIES: u32 = 100_000_000;

impl From<Way> for Packed {
    fn from(way: Way) -> Self {
        Self(match way {
            Way::To(at) => at,
            Way::Drop => u32::MAX,
            Way::Overflow => u32::MAX - 1,
            Way::EmptyName => u32::MAX - 2,
            Way::Bad(reason) => MOST_SERIES + reason as u32,
        })
    }
}

impl Packed {
    pub(super) fn way(self) -> Way {
        const OVERFLOW: u32 = u32::MAX - 1;
        const EMPTY_NAME: u32 = u32::MAX - 2;
        match self.0 {
            at if at < MOST_SERIES => Way::To(at),
            u32::MAX => Way::Drop,
            OVERFLOW => Way::Overflow,
            EMPTY_NAME => Way::EmptyName,
            bad => Way::Bad(Reason::ALL[(bad - MOST_SERIES) as usize]),
        }
    }
}
