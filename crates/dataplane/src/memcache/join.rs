//! One reply out of those of several servers.

use std::ops::Range;

use super::reply::item;
use crate::resp::Joins;

/// The values of keys that several servers have, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Values {
    /// The line that asked.
    pub(super) line: Vec<u8>,
    /// Where in it each key is, and which part has it.
    pub(super) keys: Vec<(Range<usize>, usize)>,
}

impl Joins for Values {
    fn join(&self, parts: &[&[u8]]) -> Vec<u8> {
        let is_whole = |part: &&&[u8]| part.ends_with(b"END\r\n");
        if let Some(error) = parts.iter().find(|part| !is_whole(part)) {
            return error.to_vec();
        }
        let mut whole = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        let mut left = parts.to_vec();
        for (key, part) in &self.keys {
            let Some(left) = left.get_mut(*part) else {
                continue;
            };
            if let Some(length) = item(left, &self.line[key.clone()]) {
                whole.extend_from_slice(&left[..length]);
                *left = &left[length..];
            }
        }
        whole.extend_from_slice(b"END\r\n");
        whole
    }
}

/// What all servers say, or what the first says that says something else.
#[derive(Debug)]
pub(super) struct Same {
    /// Nothing of it is for the client.
    pub(super) hidden: bool,
}

impl Joins for Same {
    fn join(&self, parts: &[&[u8]]) -> Vec<u8> {
        let other = |part: &&&[u8]| !matches!(**part, b"OK\r\n" | b"RESET\r\n");
        let said = parts.iter().find(other).or(parts.first());
        match self.hidden {
            true => Vec::new(),
            false => said.map(|part| part.to_vec()).unwrap_or_default(),
        }
    }
}
