//! W3C Trace Context (Recommendation of 2021, "Level 1"): which trace a request belongs to.
//!
//! podkit records no spans. A valid traceparent is therefore passed on as it came: a new parent id would name a span that nobody
//! has, and break the tree. Where there is none, or one that is not valid, one can be made, so that the application's logs and the
//! access log can be put side by side; tracestate goes with the traceparent that it belonged to. That is not the default:
//! applications decide by the sampled flag whether they record, and without a traceparent they decide themselves.

use std::cell::Cell;

use crate::http::head::{Known, RequestHead};
use crate::upstream::pick::mix;

podkit_foundation::choices! {
    /// `--traceparent`.
    pub enum Traceparent {
        /// What comes is passed on.
        Pass = "pass",
        /// Where none comes, or a wrong one, a new one is made.
        Make = "make",
    }
}

/// Bytes of a traceparent of version 00: `00-32 hex-16 hex-2 hex`.
pub(super) const BYTES: usize = 55;

/// Makes ids that no other process makes.
#[derive(Debug)]
pub(super) struct Ids {
    state: [Cell<u64>; 2],
}

impl Ids {
    pub(super) fn new() -> Self {
        let mut seed = [0; 16];
        // Without random bytes nothing would have started; ids that repeat would still be ids.
        aws_lc_rs::rand::fill(&mut seed).ok();
        let (a, b) = seed.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().map_or(1, u64::from_le_bytes);
        Self {
            state: [Cell::new(number(a)), Cell::new(number(b))],
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014), two of them.
    fn next(&self, of: usize) -> u64 {
        let state = self.state[of].get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state[of].set(state);
        mix(state)
    }

    /// A new traceparent; sampled in `percent` of a hundred.
    pub(super) fn make(&self, percent: u16) -> [u8; BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let (high, low) = (self.next(0), self.next(1));
        put_hex(&mut text[3..19], high);
        // All zero is no id.
        put_hex(&mut text[19..35], low.max(1));
        put_hex(&mut text[36..52], self.next(0).max(1));
        if self.next(1) % 100 < u64::from(percent) {
            text[54] = b'1';
        }
        text
    }
}

fn put_hex(out: &mut [u8], number: u64) {
    for (at, digit) in out.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * at) & 0xf) as usize];
    }
}

/// The trace id of a traceparent; None when it is not valid.
pub(super) fn trace_id(value: &[u8]) -> Option<&[u8]> {
    let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    if value.len() < BYTES || value[2] != b'-' || value[35] != b'-' || value[52] != b'-' {
        return None;
    }
    let (version, trace, parent, flags) =
        (&value[..2], &value[3..35], &value[36..52], &value[53..55]);
    // A later version may be longer, after another dash.
    let length = match version {
        b"00" => value.len() == BYTES,
        b"ff" => false,
        _ => value.len() == BYTES || value[BYTES] == b'-',
    };
    let right = length && hex(version) && hex(trace) && hex(parent) && hex(flags);
    (right && !zero(trace) && !zero(parent)).then_some(trace)
}

/// The request's traceparent, when it has one that is valid.
pub(super) fn valid<'b>(head: &RequestHead, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let mut fields = head
        .fields
        .iter()
        .filter(|field| field.known == Known::Traceparent && !field.dropped);
    let value = fields.next()?.value.bytes(bytes);
    (fields.next().is_none() && trace_id(value).is_some()).then_some(value)
}

/// Takes out what is not valid, before a new one is put in.
pub(super) fn drop_fields(head: &mut RequestHead) {
    for field in &mut head.fields {
        field.dropped |= matches!(field.known, Known::Traceparent | Known::Tracestate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_valid() {
        let check =
            |text: &str, valid| assert_eq!(trace_id(text.as_bytes()).is_some(), valid, "{text}");
        // The specification's example.
        check(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            true,
        );
        check(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            false,
        );
        check(
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            true,
        );
        check(
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            false,
        );
        check(
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            false,
        );
        check(
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            false,
        );
        check(
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            false,
        );
        check(
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            false,
        );
        check(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            false,
        );
        check("", false);
    }

    #[test]
    fn what_is_made_is_valid_and_new() {
        let (a, b) = (Ids::new(), Ids::new());
        let made: std::collections::BTreeSet<_> =
            (0..1000).flat_map(|_| [a.make(100), b.make(0)]).collect();
        assert_eq!(made.len(), 2000);
        assert!(made.iter().all(|one| trace_id(one).is_some()));
        let sampled = made.iter().filter(|one| one.ends_with(b"-01")).count();
        assert_eq!(sampled, 1000);
    }
}
