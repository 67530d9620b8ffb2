//! Packets: a length of three bytes, a number, and what is inside.

use super::super::Fault;

/// Reads what is inside a packet. Everything comes from a peer: what is not there is a fault and no panic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    /// A whole number of `count` bytes, the lowest first.
    pub(super) fn number(&mut self, count: usize) -> Result<u64, Fault> {
        let bytes = self.take(count)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Text up to a NUL, or to the end.
    pub(super) fn text(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0);
        let text = &self.0[..end.unwrap_or(self.0.len())];
        self.0 = self.0.get(text.len() + 1..).unwrap_or_default();
        text
    }

    /// A number that says itself how long it is.
    pub(super) fn encoded(&mut self) -> Result<u64, Fault> {
        match self.byte()? {
            small @ 0..=0xfa => Ok(small.into()),
            0xfc => self.number(2),
            0xfd => self.number(3),
            0xfe => self.number(8),
            _ => Err(Fault::lost("sent a length that is none")),
        }
    }

    /// A value with its length before it; None for NULL.
    pub(super) fn value(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        if self.0.first() == Some(&0xfb) {
            self.0 = &self.0[1..];
            return Ok(None);
        }
        let count = self.encoded()?;
        let count = usize::try_from(count).map_err(|_| short())?;
        self.take(count).map(Some)
    }
}

fn short() -> Fault {
    Fault::lost("sent a packet that is too short")
}

/// A packet around `inside`, which is far below 16 MiB.
pub(super) fn packet(number: u8, inside: &[u8]) -> Vec<u8> {
    let length = u32::try_from(inside.len()).expect("questions are short");
    let mut packet = Vec::with_capacity(4 + inside.len());
    packet.extend_from_slice(&length.to_le_bytes()[..3]);
    packet.push(number);
    packet.extend_from_slice(inside);
    packet
}

/// A value with its length before it.
pub(super) fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    match u16::try_from(value.len()) {
        Ok(short @ 0..=0xfa) => out.push(short.to_le_bytes()[0]),
        Ok(more) => {
            out.push(0xfc);
            out.extend_from_slice(&more.to_le_bytes());
        }
        Err(_) => {
            out.push(0xfe);
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        }
    }
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_come_out_as_they_went_in(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..8)) {
            let mut out = Vec::new();
            for value in &values {
                put_value(&mut out, value);
            }
            let mut reader = Reader(&out);
            for value in &values {
                prop_assert_eq!(reader.value().unwrap(), Some(&value[..]));
            }
            prop_assert!(reader.0.is_empty() && reader.value().is_err());
        }

        #[test]
        fn nothing_that_comes_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader(&bytes);
            while reader.value().is_ok() && !reader.0.is_empty() {}
            let mut reader = Reader(&bytes);
            while !reader.0.is_empty() {
                reader.text();
            }
        }
    }
}
