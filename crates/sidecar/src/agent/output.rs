//! The last bytes of what a command says.

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Tail {
    kept: VecDeque<u8>,
    max: usize,
}

impl Tail {
    pub(super) fn new(max: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            max,
        }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.max)..];
        let excess = (self.kept.len() + bytes.len()).saturating_sub(self.max);
        self.kept.drain(..excess);
        self.kept.extend(bytes);
    }

    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.kept.make_contiguous()).into_owned()
    }
}
