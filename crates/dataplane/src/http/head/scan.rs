//! Where a head ends.
//!
//! httparse starts over with every call, so a head that drips in byte by byte would cost the square of its length. The
//! scanner looks at each byte once and httparse runs once, on the whole head.

use memchr::memchr;

use super::Reject;

/// Looks for the empty line that ends a head. One per connection and direction; start over with `Scanner::default()`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scanner {
    /// Looked at up to here.
    at: usize,
    /// The line that is being looked at starts here.
    line: usize,
    /// The length of the first line; 0 while it is incomplete.
    first_line: usize,
}

impl Scanner {
    /// The length of the head at the start of `bytes`, its empty line included, or None when more must come. `bytes`
    /// are those of the last call and what came after them.
    ///
    /// A line that ends with a bare LF is refused when `strict`, as is a head that can't be one by its first byte.
    pub fn find(&mut self, bytes: &[u8], strict: bool) -> Result<Option<usize>, Reject> {
        while let Some(found) = memchr(b'\n', &bytes[self.at..]) {
            let newline = self.at + found;
            let crlf = newline > self.line && bytes[newline - 1] == b'\r';
            if !crlf && strict {
                return Err(Reject::Bad("a line ends with a bare LF"));
            }
            let text = newline - usize::from(crlf) - self.line;
            self.at = newline + 1;
            self.line = self.at;
            if self.first_line == 0 {
                self.first_line = self.at;
            }
            if text == 0 {
                return Ok(Some(self.at));
            }
        }
        self.at = bytes.len();
        if strict
            && bytes
                .first()
                .is_some_and(|first| !is_token(*first) && *first != b'\r')
        {
            return Err(Reject::Bad("not an HTTP request"));
        }
        Ok(None)
    }

    /// Of a head that is longer than `max` bytes: the first line alone is.
    pub fn is_first_line_over(&self, max: usize) -> bool {
        self.first_line == 0 || self.first_line > max
    }
}

/// A `tchar` (RFC 9110 section 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}
