//! Where replies end (no I/O).

/// Bytes of a line of a reply at most.
const MOST_LINE: usize = 16 * 1024;
/// Bytes of a value at most; memcached's own bound (`-I`).
const MOST_VALUE: usize = 1 << 30;

/// How far a reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// It says itself where it ends.
    Itself,
    /// The reply to the `mn` behind it.
    Noop,
}

/// Finds the replies of a server. It remembers how far it has looked.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// The part of the reply that was understood.
    at: usize,
    /// No line ends before this.
    looked: usize,
    /// ERROR was said.
    error: bool,
}

impl Replies {
    /// How long the reply is that `bytes` begin with. The error is one line.
    pub(super) fn next(&mut self, bytes: &[u8], until: Until) -> Result<Option<usize>, String> {
        loop {
            let from = self.looked.max(self.at);
            let Some(end) = bytes
                .get(from..)
                .and_then(|rest| Some(from + memchr::memchr(b'\n', rest)?))
            else {
                self.looked = bytes.len();
                return match bytes.len().saturating_sub(self.at) > MOST_LINE {
                    true => Err("a line of its reply does not end".to_owned()),
                    false => Ok(None),
                };
            };
            let (line, end) = (bytes[self.at..end].trim_ascii_end(), end + 1);
            let value = match line {
                [b'V', b'A', b' ', ..] => Some(value(line, 1)?),
                [b'V', b'A', b'L', b'U', b'E', b' ', ..] => Some(value(line, 3)?),
                _ => None,
            };
            // The line is looked at again when its value was not there yet.
            let after = end + value.map_or(0, |length| length + 2);
            if bytes.len() < after {
                return Ok(None);
            }
            let goes_on = match until {
                Until::Itself => {
                    let lists: [&[u8]; 4] = [b"VALUE ", b"STAT ", b"ITEM ", b"PREFIX "];
                    lists.iter().any(|word| line.starts_with(word))
                }
                // A server without meta commands says ERROR to both.
                Until::Noop => line != b"MN" && !(line == b"ERROR" && self.error),
            };
            if !goes_on {
                *self = Self::default();
                return Ok(Some(after));
            }
            self.error |= line == b"ERROR";
            self.at = after;
        }
    }
}

/// How long the value is that follows a line.
fn value(line: &[u8], word: usize) -> Result<usize, String> {
    let said = line.split(|byte| *byte == b' ').nth(word);
    let length = said.and_then(|said| std::str::from_utf8(said).ok()?.parse().ok());
    length
        .filter(|length| *length <= MOST_VALUE)
        .ok_or_else(|| format!("its reply has no length: {}", String::from_utf8_lossy(line)))
}

/// How long the first value of a reply to `get` is, its line included, when it is that of `key`.
pub(super) fn item(reply: &[u8], key: &[u8]) -> Option<usize> {
    let rest = reply.strip_prefix(b"VALUE ")?.strip_prefix(key)?;
    rest.strip_prefix(b" ")?;
    let end = memchr::memchr(b'\n', reply)?;
    let length = end + 1 + value(reply[..end].trim_ascii_end(), 3).ok()? + 2;
    (length <= reply.len()).then_some(length)
}
