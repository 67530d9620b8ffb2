//! Trailers that hold a pseudo-field, which makes their message malformed (RFC 9113 section 8.1). No I/O.
//!
//! The h2 crate drops such a field and hands the rest on, so header blocks that are not the first of their stream are looked at
//! here, beside the crate: a pseudo-field is known by its index in HPACK's static table or by the colon that its name begins with
//! (RFC 7541 section 6). That costs requests without trailers nothing. What is not known here is what was put into the dynamic
//! table: to know that, every block would have to be decoded twice. Such a field is dropped, as ever.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::flood::{CONTINUATION, HEADERS};

const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// The static table begins with the pseudo-fields (RFC 7541 appendix A).
const PSEUDO: std::ops::RangeInclusive<usize> = 1..=14;
/// A colon in HPACK's Huffman code: 7 bits.
const HUFFMAN_COLON: u8 = 0x5c;

/// Streams whose trailers are known to be malformed, and were not read yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Malformed(Rc<RefCell<VecDeque<u32>>>);

impl Malformed {
    /// How many are remembered: those of streams that nobody reads any more are forgotten.
    const MOST: usize = 1024;

    fn add(&self, stream: u32) {
        let mut streams = self.0.borrow_mut();
        if streams.len() == Self::MOST {
            streams.pop_front();
        }
        streams.push_back(stream);
    }

    /// Whether `stream` is one of them; it is forgotten then.
    pub(super) fn take(&self, stream: u32) -> bool {
        let mut streams = self.0.borrow_mut();
        let found = streams.iter().position(|one| *one == stream);
        found.is_some_and(|at| streams.remove(at).is_some())
    }
}

/// Follows the header blocks of a connection.
#[derive(Debug, Default)]
pub(super) struct Trailers {
    malformed: Malformed,
    /// The last stream that was opened.
    opened: u32,
    block: Option<Block>,
}

/// Trailers that are on their way. h2 bounds how long they get.
#[derive(Debug)]
struct Block {
    stream: u32,
    /// The fields so far; of the first frame all of its payload, padding included.
    bytes: Vec<u8>,
    /// Of the first frame.
    flags: u8,
    /// Length of the first frame.
    first: usize,
    /// Bytes that the frame which began last still has.
    left: usize,
    /// No frame follows it.
    last: bool,
}

impl Trailers {
    pub(super) fn malformed(&self) -> Malformed {
        self.malformed.clone()
    }

    /// A frame of `len` bytes begins. True when what is in it must be shown to [`Trailers::payload`].
    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, len: usize) -> bool {
        let last = flags & END_HEADERS != 0;
        match (kind, &mut self.block) {
            (HEADERS, _) if stream > self.opened => {
                self.opened = stream;
                self.block = None;
            }
            (HEADERS, _) => {
                self.block = Some(Block {
                    stream,
                    bytes: Vec::new(),
                    flags,
                    first: len,
                    left: len,
                    last,
                });
            }
            (CONTINUATION, Some(block)) => (block.left, block.last) = (len, last),
            _ => self.block = None,
        }
        self.look();
        self.block.is_some()
    }

    /// A piece of the payload of the frame that began last.
    pub(super) fn payload(&mut self, bytes: &[u8]) {
        if let Some(block) = &mut self.block {
            block.bytes.extend_from_slice(bytes);
            block.left = block.left.saturating_sub(bytes.len());
            self.look();
        }
    }

    /// Looks at the block when it is whole.
    fn look(&mut self) {
        let Some(block) = self.block.take_if(|block| block.last && block.left == 0) else {
            return;
        };
        let (first, rest) = block.bytes.split_at(block.first.min(block.bytes.len()));
        // What is not right in it is found by h2, and ends the connection.
        let fields = fields(first, block.flags).map(|first| [first, rest].concat());
        if fields.and_then(|fields| holds_pseudo(&fields)) == Some(true) {
            self.malformed.add(block.stream);
        }
    }
}

/// What of a HEADERS frame is fields (RFC 9113 section 6.2). None when it is not right.
fn fields(mut payload: &[u8], flags: u8) -> Option<&[u8]> {
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (len, rest) = payload.split_first()?;
        (padding, payload) = (usize::from(*len), rest);
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(5..)?;
    }
    payload.get(..payload.len().checked_sub(padding)?)
}

/// Whether one of these fields is a pseudo-field. None when they are not right.
fn holds_pseudo(mut block: &[u8]) -> Option<bool> {
    while let Some(first) = block.first() {
        let (bits, is_whole) = match first {
            0x80.. => (7, true),
            0x40.. => (6, false),
            // A new size of the dynamic table.
            0x20.. => {
                number(&mut block, 5)?;
                continue;
            }
            _ => (4, false),
        };
        let index = number(&mut block, bits)?;
        let is_named = index == 0 && !is_whole;
        if PSEUDO.contains(&index) || is_named && is_pseudo_name(&mut block)? {
            return Some(true);
        }
        if !is_whole {
            string(&mut block)?;
        }
    }
    Some(false)
}

fn is_pseudo_name(block: &mut &[u8]) -> Option<bool> {
    let (name, is_huffman) = string(block)?;
    let first = name.first();
    Some(first.is_some_and(|byte| match is_huffman {
        true => byte >> 1 == HUFFMAN_COLON,
        false => *byte == b':',
    }))
}

/// A number whose first bits are the last ones of a byte (RFC 7541 section 5.1).
fn number(block: &mut &[u8], bits: u32) -> Option<usize> {
    let mask = (1 << bits) - 1;
    let (first, mut rest) = block.split_first()?;
    let mut value = usize::from(first & mask);
    if value == usize::from(mask) {
        for shift in (0..28).step_by(7) {
            let (byte, after) = rest.split_first()?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Some(value);
            }
        }
        return None;
    }
    *block = rest;
    Some(value)
}

/// A string as it is coded, and whether that is by Huffman (RFC 7541 section 5.2).
fn string<'a>(block: &mut &'a [u8]) -> Option<(&'a [u8], bool)> {
    let is_huffman = block.first()? & 0x80 != 0;
    let len = number(block, 7)?;
    let (text, rest) = block.split_at_checked(len)?;
    *block = rest;
    Some((text, is_huffman))
}

#[cfg(test)]
mod tests;
