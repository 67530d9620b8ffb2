//! Where commands and replies end in the bytes that came, whatever the pieces they came in. Nothing is copied: what is found are
//! positions.
//!
//! The protocol: <https://redis.io/docs/latest/develop/reference/protocol-spec/> (RESP2 and RESP3).

use std::ops::Range;

/// What a command may be at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of a command with all its arguments.
    pub command_bytes: usize,
}

/// Arguments at most, as Redis has it.
const MOST_ARGS: u64 = 1024 * 1024;
/// Digits that an i64 has room for, whatever they are.
const SAFE_DIGITS: usize = 18;
/// Bytes of a line that says a count or a length; and of an inline command, as Redis has it.
const MOST_LINE: usize = 64 * 1024;

/// What a look at a client's bytes found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// More bytes are needed.
    Nothing,
    /// A command of so many bytes; its arguments are in [`Commands::args`].
    Command(usize),
    /// A line of so many bytes that is a command without RESP's framing: its arguments.
    Inline(usize, Vec<Vec<u8>>),
}

/// Finds commands in what a client sends. What it found stays until [`Commands::next`] is called for the bytes behind it.
#[derive(Debug, Default)]
pub struct Commands {
    /// How far it got, from the command's first byte.
    at: usize,
    /// Arguments that are still to come; None before their count is known.
    left: Option<u64>,
    args: Vec<Range<usize>>,
}

impl Commands {
    /// Where the arguments of the command that was found stand.
    pub fn args(&self) -> &[Range<usize>] {
        &self.args
    }

    /// Forgets what was found or begun.
    pub fn reset(&mut self) {
        self.at = 0;
        self.left = None;
        self.args.clear();
    }

    /// Looks for the next command in `bytes`, which begin where the last one ended, and are the same as in the last call as far as they
    /// went when that found nothing. The error is what Redis says; the connection can't go on after it.
    pub fn next(&mut self, bytes: &[u8], bounds: Bounds) -> Result<Found, &'static str> {
        if self.left == Some(0) {
            self.reset();
        }
        let mut left = match self.left {
            Some(left) => left,
            None => match bytes.first() {
                None => return Ok(Found::Nothing),
                Some(b'*') => {
                    let Some((count, next)) =
                        client_number(bytes, 1, "ERR Protocol error: invalid multibulk length")?
                    else {
                        return Ok(Found::Nothing);
                    };
                    // `*0` and `*-1` ask for nothing.
                    let count = u64::try_from(count).unwrap_or(0);
                    if count > MOST_ARGS {
                        return Err("ERR Protocol error: invalid multibulk length");
                    }
                    self.at = next;
                    count
                }
                Some(_) => return inline(bytes),
            },
        };
        while left > 0 {
            self.left = Some(left);
            match bytes.get(self.at) {
                None => return Ok(Found::Nothing),
                Some(b'$') => {}
                Some(_) => return Err("ERR Protocol error: expected '$'"),
            }
            const LENGTH: &str = "ERR Protocol error: invalid bulk length";
            let Some((length, start)) = client_number(bytes, self.at + 1, LENGTH)? else {
                return Ok(Found::Nothing);
            };
            let length = usize::try_from(length).map_err(|_| LENGTH)?;
            if length > bounds.command_bytes || start + length > bounds.command_bytes {
                return Err(LENGTH);
            }
            if bytes.len() < start + length + 2 {
                return Ok(Found::Nothing);
            }
            self.args.push(start..start + length);
            self.at = start + length + 2;
            left -= 1;
        }
        self.left = Some(0);
        Ok(Found::Command(self.at))
    }
}

/// The number of a line that begins at `at`, and where the next line begins. None when its end is not there yet.
#[inline]
fn number(
    bytes: &[u8],
    at: usize,
    wrong: &'static str,
) -> Result<Option<(i64, usize)>, &'static str> {
    let rest = bytes.get(at..).unwrap_or_default();
    let (negative, first) = match rest.first() {
        Some(b'-') => (true, 1),
        Some(b'+') => (false, 1),
        _ => (false, 0),
    };
    let (mut value, mut end) = (0_i64, first);
    while let Some(digit) = rest.get(end).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
    {
        value = match end - first < SAFE_DIGITS {
            true => value * 10 + i64::from(digit),
            false => value
                .checked_mul(10)
                .and_then(|value| value.checked_add(i64::from(digit)))
                .ok_or(wrong)?,
        };
        end += 1;
    }
    match (rest.get(end), rest.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) if end > first => {
            Ok(Some((if negative { -value } else { value }, at + end + 2)))
        }
        (None, _) if rest.len() <= MOST_LINE => Ok(None),
        (Some(b'\r'), None) if end > first => Ok(None),
        _ => Err(wrong),
    }
}

/// The same of a client: as Redis writes numbers, and no other way. What a server would not understand must not reach a connection
/// that is shared.
#[inline]
fn client_number(
    bytes: &[u8],
    at: usize,
    wrong: &'static str,
) -> Result<Option<(i64, usize)>, &'static str> {
    let digits = match bytes.get(at) {
        Some(b'+') => return Err(wrong),
        Some(b'-') => at + 1,
        _ => at,
    };
    match (bytes.get(digits), bytes.get(digits + 1)) {
        (Some(b'0'), Some(b'0'..=b'9')) => Err(wrong),
        (Some(b'0'), _) if digits > at => Err(wrong),
        _ => number(bytes, at, wrong),
    }
}

fn inline(bytes: &[u8]) -> Result<Found, &'static str> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return match bytes.len() > MOST_LINE {
            true => Err("ERR Protocol error: too big inline request"),
            false => Ok(Found::Nothing),
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let args = words(line).ok_or("ERR Protocol error: unbalanced quotes in request")?;
    Ok(Found::Inline(end + 1, args))
}

/// The words of an inline command, with quotes and escapes as Redis reads them.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut bytes = line.iter().copied().peekable();
    loop {
        while bytes
            .next_if(|b| b.is_ascii_whitespace() || *b == 0)
            .is_some()
        {}
        let Some(first) = bytes.peek().copied() else {
            return Some(words);
        };
        let mut word = Vec::new();
        let mut quote = None;
        if matches!(first, b'"' | b'\'') {
            quote = bytes.next();
        }
        loop {
            match (quote, bytes.next()) {
                (None, None) => break,
                (None, Some(byte)) if byte.is_ascii_whitespace() || byte == 0 => break,
                (None, Some(byte @ (b'"' | b'\''))) => quote = Some(byte),
                (Some(_), None) => return None,
                (Some(b'"'), Some(b'\\')) => word.push(escaped(&mut bytes)?),
                (Some(b'\''), Some(b'\\')) if bytes.peek() == Some(&b'\'') => {
                    word.extend(bytes.next());
                }
                (Some(open), Some(byte)) if byte == open => {
                    // A quote ends a word.
                    match bytes.peek() {
                        None => break,
                        Some(next) if next.is_ascii_whitespace() => break,
                        Some(_) => return None,
                    }
                }
                (_, Some(byte)) => word.push(byte),
            }
        }
        words.push(word);
    }
}

fn escaped(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>) -> Option<u8> {
    let byte = bytes.next()?;
    if byte == b'x' {
        let mut ahead = bytes.clone();
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        if let (Some(high), Some(low)) = (digit(ahead.next()), digit(ahead.next())) {
            bytes.next();
            bytes.next();
            return u8::try_from(high * 16 + low).ok();
        }
    }
    Some(match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    })
}

/// Finds the end of a reply, whatever is in it.
#[derive(Debug, Default)]
pub struct Replies {
    /// How far it got.
    at: usize,
    /// Values that are still to come; 0 before the reply has begun.
    left: u64,
    /// Where the values right in the reply end, where that is wanted.
    ends: Vec<usize>,
    /// They are noted.
    notes: bool,
}

/// Room for ends that is kept.
const KEPT_ENDS: usize = 4096;

/// What a reply is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `-` or `!`.
    Error,
    /// `>`: not an answer to anything.
    Push,
    /// Anything else.
    Value,
}

impl Replies {
    /// Whether [`Replies::ends`] are wanted of the reply that comes next; no change while it is coming.
    #[inline]
    pub(super) fn note(&mut self, wanted: bool) {
        if self.left == 0 && self.notes != wanted {
            self.notes = wanted;
            self.ends.clear();
            self.ends.shrink_to(KEPT_ENDS);
        }
    }

    /// Where each value of the aggregate ends that was found last. None of them when there are others in it, or nobody wanted them.
    pub(super) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The length of the reply that `bytes` begin with; they are the same as in the last call as far as they went when that found
    /// nothing. The error is what is wrong with it.
    #[inline]
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<(usize, Shape)>, &'static str> {
        const WRONG: &str = "it does not speak RESP";
        if self.left == 0 {
            self.left = 1;
            self.at = 0;
            self.ends.clear();
        }
        while self.left > 0 {
            let Some(kind) = bytes.get(self.at) else {
                return Ok(None);
            };
            match kind {
                b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {
                    let rest = &bytes[self.at..];
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        return Ok(None);
                    };
                    self.at += end + 1;
                    self.left -= 1;
                    self.value();
                }
                b'$' | b'=' | b'!' => {
                    let Some((length, start)) = number(bytes, self.at + 1, WRONG)? else {
                        return Ok(None);
                    };
                    let end = match usize::try_from(length) {
                        Ok(length) => start
                            .checked_add(length)
                            .and_then(|end| end.checked_add(2))
                            .ok_or(WRONG)?,
                        // The null of RESP2.
                        Err(_) => start,
                    };
                    if bytes.len() < end {
                        return Ok(None);
                    }
                    self.at = end;
                    self.left -= 1;
                    self.value();
                }
                b'*' | b'~' | b'>' | b'%' | b'|' => {
                    // One in another: whose the values are can't be told by their ends.
                    self.notes &= self.at == 0 && *kind != b'|';
                    let Some((count, next)) = number(bytes, self.at + 1, WRONG)? else {
                        return Ok(None);
                    };
                    let count = u64::try_from(count).unwrap_or(0);
                    // Pairs; and attributes stand before the value that they belong to.
                    let (each, own) = match kind {
                        b'%' => (2, 1),
                        b'|' => (2, 0),
                        _ => (1, 1),
                    };
                    let more = count.checked_mul(each).ok_or(WRONG)?;
                    self.left = self.left.checked_add(more).ok_or(WRONG)? - own;
                    self.at = next;
                }
                _ => return Err(WRONG),
            }
        }
        if !self.notes {
            self.ends.clear();
        }
        let shape = match bytes[0] {
            b'-' | b'!' => Shape::Error,
            b'>' => Shape::Push,
            _ => Shape::Value,
        };
        Ok(Some((self.at, shape)))
    }

    /// A value has ended.
    #[inline]
    fn value(&mut self) {
        if self.notes {
            self.ends.push(self.at);
        }
    }
}

/// The values right in an aggregate reply (`*`, `~`, `%`, `>`), as ranges of `reply`. None when it is something else.
pub fn elements(reply: &[u8]) -> Option<Vec<Range<usize>>> {
    let (count, mut at) = aggregate(reply)?;
    let mut elements = Vec::with_capacity(count.min(reply.len()));
    while at < reply.len() {
        let end = value_end(reply, at)?;
        elements.push(at..end);
        at = end;
    }
    Some(elements)
}

/// What the first line of an aggregate reply says, and where its first value begins. None when it is something else.
pub(super) fn aggregate(reply: &[u8]) -> Option<(usize, usize)> {
    if !matches!(reply.first(), Some(b'*' | b'~' | b'%' | b'>')) {
        return None;
    }
    let (count, at) = number(reply, 1, "").ok()??;
    Some((usize::try_from(count).unwrap_or(0), at))
}

/// Where a value ends that begins at `at`.
#[inline]
pub(super) fn value_end(reply: &[u8], at: usize) -> Option<usize> {
    // Nearly all are bulk strings.
    if reply.get(at) == Some(&b'$') {
        let (length, start) = number(reply, at + 1, "").ok()??;
        let end = usize::try_from(length).map_or(start, |length| start + length + 2);
        return (end <= reply.len()).then_some(end);
    }
    let (length, _) = Replies::default().next(reply.get(at..)?).ok()??;
    Some(at + length)
}

/// The number of a reply of an integer.
pub fn integer(reply: &[u8]) -> Option<i64> {
    match reply.first() {
        Some(b':') => Some(number(reply, 1, "").ok()??.0),
        _ => None,
    }
}

/// The text of a reply that is a bulk, verbatim or a simple string.
pub fn text(reply: &[u8]) -> Option<&[u8]> {
    match reply.first() {
        Some(b'$') => {
            let (length, start) = number(reply, 1, "").ok()??;
            reply.get(start..start + usize::try_from(length).ok()?)
        }
        // Three letters say what it is written in.
        Some(b'=') => {
            let (length, start) = number(reply, 1, "").ok()??;
            reply.get(start + 4..start + usize::try_from(length).ok()?)
        }
        Some(b'+') => reply[1..].strip_suffix(b"\r\n"),
        _ => None,
    }
}

/// Appends a command of these arguments.
pub fn put_command<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    put_line(out, b'*', args.len());
    for arg in args {
        put_bulk(out, arg.as_ref());
    }
}

/// Appends a bulk string.
pub fn put_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    put_line(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line of a count or a length.
pub fn put_line(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    let mut digits = [0; 20];
    let (mut at, mut count) = (digits.len(), count);
    loop {
        at -= 1;
        digits[at] = b'0' + (count % 10) as u8;
        count /= 10;
        if count == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
