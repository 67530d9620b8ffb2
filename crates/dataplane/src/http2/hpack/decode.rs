//! Header blocks that came.

use super::table::{STATIC, Table};
use super::{TABLE_BYTES, huffman};

/// What one direction of a connection remembers.
#[derive(Debug)]
pub(in crate::http2) struct Decoder {
    table: Table,
    /// Of strings that came in Huffman's code.
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    pub(in crate::http2) fn new() -> Self {
        Self {
            table: Table::new(TABLE_BYTES),
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Calls `each` with each field of a whole block, for as long as it says true. None when it is not right, or was not read to
    /// its end, which ends the connection: what follows can't be read.
    pub(in crate::http2) fn decode(
        &mut self,
        mut block: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Option<()> {
        let mut begun = false;
        while let Some(first) = block.first() {
            let (bits, adds) = match first {
                0x80.. => {
                    let (name, value) = at(&self.table, number(&mut block, 7)?)?;
                    if !each(name, value) {
                        return None;
                    }
                    begun = true;
                    continue;
                }
                0x40.. => (6, true),
                // A new size of the table, which comes before all fields.
                0x20.. => {
                    let most = number(&mut block, 5)?;
                    if begun || most > TABLE_BYTES {
                        return None;
                    }
                    self.table.resize(most);
                    continue;
                }
                _ => (4, false),
            };
            begun = true;
            let index = number(&mut block, bits)?;
            let name = match index {
                0 => string(&mut block, &mut self.name)?,
                _ => {
                    let (name, _) = at(&self.table, index)?;
                    self.name.clear();
                    self.name.extend_from_slice(name);
                    &self.name
                }
            };
            let value = string(&mut block, &mut self.value)?;
            if !each(name, value) {
                return None;
            }
            if adds {
                self.table.add(name, value);
            }
        }
        Some(())
    }
}

/// The field of an index.
fn at(table: &Table, index: usize) -> Option<(&[u8], &[u8])> {
    let index = index.checked_sub(1)?;
    match STATIC.get(index) {
        Some(field) => Some(*field),
        None => table.get(index - STATIC.len()),
    }
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

/// A string (RFC 7541 section 5.2); `room` is for one in Huffman's code.
fn string<'room, 'block: 'room>(
    block: &mut &'block [u8],
    room: &'room mut Vec<u8>,
) -> Option<&'room [u8]> {
    let coded = block.first()? & 0x80 != 0;
    let len = number(block, 7)?;
    let (text, rest) = block.split_at_checked(len)?;
    *block = rest;
    if !coded {
        return Some(text);
    }
    room.clear();
    huffman::decode(text, room)?;
    Some(room)
}
