//! Header blocks that are sent.
//!
//! A field goes into the table when it is seen for the second time in a row at its place, so that what differs from answer to answer
//! (Content-Length, ETag) drives nothing out.

use super::TABLE_BYTES;
use super::table::{STATIC, Table, static_name};

/// Fields that are looked for in the table.
const PLACES: usize = 64;

/// A field that was sent.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    hash: u32,
    /// Which one of those that were added it is; 0 when it was not.
    number: u64,
}

/// What one direction of a connection remembers.
#[derive(Debug)]
pub(in crate::http2) struct Encoder {
    table: Table,
    places: Box<[Place; PLACES]>,
    /// The smallest and the last of the sizes that the next block must begin with.
    resized: Option<(usize, usize)>,
}

impl Encoder {
    pub(in crate::http2) fn new() -> Self {
        Self {
            table: Table::new(TABLE_BYTES),
            places: Box::new([Place::default(); PLACES]),
            resized: None,
        }
    }

    /// The peer's table has `most` bytes from now on.
    pub(in crate::http2) fn resize(&mut self, most: usize) {
        let most = most.min(TABLE_BYTES);
        if self.resized.is_none() && most == self.table.most() {
            return;
        }
        let least = self.resized.map_or(most, |(least, _)| least.min(most));
        self.resized = Some((least, most));
        self.table.resize(most);
    }

    /// What a block must begin with.
    pub(in crate::http2) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((least, last)) = self.resized.take() {
            if least < last {
                number(out, 0x20, 5, least);
            }
            number(out, 0x20, 5, last);
        }
    }

    pub(in crate::http2) fn status(&mut self, out: &mut Vec<u8>, code: &[u8]) {
        let known = STATIC[7..14].iter().position(|(_, value)| *value == code);
        match known {
            Some(at) => number(out, 0x80, 7, 8 + at),
            None => {
                number(out, 0, 4, 8);
                string(out, code);
            }
        }
    }

    /// A field; the name is in lower case.
    pub(in crate::http2) fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let fixed = static_name(name);
        if matches!(
            name,
            b"set-cookie" | b"authorization" | b"proxy-authorization"
        ) {
            // Not to be remembered on the way either (RFC 7541 section 7.1.3).
            return literal(out, 0x10, 4, fixed, name, value);
        }
        let hash = hash(name, value);
        let place = &mut self.places[hash as usize % PLACES];
        // One that is long would drive out all others.
        let long = (name.len() + value.len()) * 4 > self.table.most();
        if place.hash != hash || long || name == b"content-length" {
            *place = Place { hash, number: 0 };
            return literal(out, 0, 4, fixed, name, value);
        }
        if place.number > 0
            && let Ok(back) = usize::try_from(self.table.added() - place.number)
            && self.table.get(back) == Some((name, value))
        {
            return number(out, 0x80, 7, STATIC.len() + 1 + back);
        }
        self.table.add(name, value);
        place.number = self.table.added();
        literal(out, 0x40, 6, fixed, name, value);
    }
}

fn hash(name: &[u8], value: &[u8]) -> u32 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64 ^ name.len() as u64;
    for text in [name, value] {
        let (words, rest) = text.as_chunks::<8>();
        for word in words {
            hash = mixed(hash, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = mixed(hash, u64::from_le_bytes(last));
    }
    // Never 0, which is that of an empty place.
    (hash >> 32) as u32 | 1 << 31
}

fn mixed(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
    product ^ product >> 29
}

fn literal(
    out: &mut Vec<u8>,
    kind: u8,
    bits: u32,
    fixed: Option<usize>,
    name: &[u8],
    value: &[u8],
) {
    number(out, kind, bits, fixed.unwrap_or(0));
    if fixed.is_none() {
        string(out, name);
    }
    string(out, value);
}

fn number(out: &mut Vec<u8>, kind: u8, bits: u32, value: usize) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        out.push(kind | u8::try_from(value).expect("less than the mask"));
        return;
    }
    out.push(kind | u8::try_from(mask).expect("a mask of a byte"));
    let mut left = value - mask;
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    number(out, 0, 7, text.len());
    out.extend_from_slice(text);
}
