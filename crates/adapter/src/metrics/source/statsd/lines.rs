//! Lines of a stream, however it is cut.

use memchr::{memchr, memrchr};

/// Longer ones are not read.
const MOST: usize = 64 << 10;

/// What is between two reads.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
    /// Until its end.
    skipping: bool,
}

/// Whole lines, or one that was too long.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    Whole(&'a [u8]),
    TooLong,
}

impl Lines {
    /// Takes what was read.
    pub(super) fn feed(&mut self, mut chunk: &[u8], mut take: impl FnMut(Piece<'_>)) {
        if self.skipping {
            let Some(end) = memchr(b'\n', chunk) else {
                return;
            };
            self.skipping = false;
            chunk = &chunk[end + 1..];
        }
        if let Some(last) = memrchr(b'\n', chunk) {
            let mut whole = &chunk[..last];
            if !self.rest.is_empty() {
                let end = memchr(b'\n', chunk).unwrap_or(last);
                self.rest.extend_from_slice(&chunk[..end]);
                take(match self.rest.len() > MOST {
                    true => Piece::TooLong,
                    false => Piece::Whole(&self.rest),
                });
                self.rest.clear();
                whole = whole.get(end + 1..).unwrap_or_default();
            }
            if !whole.is_empty() {
                take(Piece::Whole(whole));
            }
            chunk = &chunk[last + 1..];
        }
        self.rest.extend_from_slice(chunk);
        if self.rest.len() > MOST {
            take(Piece::TooLong);
            self.rest = Vec::new();
            self.skipping = true;
        }
    }

    /// The stream is at its end: so is its last line.
    pub(super) fn end(&mut self, mut take: impl FnMut(Piece<'_>)) {
        if !self.rest.is_empty() {
            take(Piece::Whole(&self.rest));
        }
    }
}
