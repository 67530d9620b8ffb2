//! The chunked transfer coding (RFC 9112 section 7.1), read strictly and a piece at a time.
//!
//! A proxy forwards chunks as they are: what is checked here can be read in one way only, so it is not written again.
//! The last chunk and the trailers are kept back until all of them are there and right: a body whose end is wrong is
//! never seen as complete by the other side.

use memchr::memchr;

use super::reject::Reject;

/// Bytes of a size line at most, extensions included.
const MAX_LINE_BYTES: usize = 1024;
/// Bytes of framing beyond what the data is worth, at most: a body of one-byte chunks costs more than it carries.
const MAX_EXCESS_BYTES: u64 = 64 * 1024;

/// Follows a chunked body.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Chunks {
    state: State,
    excess: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// A size line comes.
    #[default]
    Size,
    /// So many bytes of data come.
    Data(u64),
    /// The CRLF after the data comes.
    DataEnd,
    /// The last chunk was seen: the trailer section comes.
    Trailers,
}

/// What comes next in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes of data.
    Data(usize),
    /// So many bytes of framing.
    Framing(usize),
    /// The last chunk's line of so many bytes; the trailer section follows, up to and with its empty line.
    Last(usize),
    /// More input is needed to tell.
    More,
}

impl Chunks {
    /// Looks at the start of `input` and counts what it returns as consumed.
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<Step, Reject> {
        match self.state {
            State::Size => self.size_line(input),
            State::Data(left) => {
                let here = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                if here == 0 {
                    return Ok(Step::More);
                }
                let left = left - here as u64;
                self.state = if left == 0 {
                    State::DataEnd
                } else {
                    State::Data(left)
                };
                Ok(Step::Data(here))
            }
            State::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    Ok(Step::Framing(2))
                }
                [] | [b'\r'] => Ok(Step::More),
                _ => Err(Reject::Bad("a chunk is longer than its size")),
            },
            State::Trailers => Ok(Step::More),
        }
    }

    fn size_line(&mut self, input: &[u8]) -> Result<Step, Reject> {
        let window = &input[..input.len().min(MAX_LINE_BYTES)];
        let Some(newline) = memchr(b'\n', window) else {
            return match input.len() < MAX_LINE_BYTES {
                true if input.first().is_none_or(u8::is_ascii_hexdigit) => Ok(Step::More),
                true => Err(Reject::Bad("a chunk size is not valid")),
                false => Err(Reject::Bad("a chunk size line is too long")),
            };
        };
        let line = input[..newline]
            .strip_suffix(b"\r")
            .ok_or(Reject::Bad("a chunk size line ends with a bare LF"))?;
        let size = parse_size(line)?;
        let framing = newline + 1;
        self.excess = (self.excess + framing as u64 + 2).saturating_sub(16 + 2 * size);
        if self.excess > MAX_EXCESS_BYTES {
            return Err(Reject::Bad("too much chunk framing for its data"));
        }
        if size == 0 {
            self.state = State::Trailers;
            return Ok(Step::Last(framing));
        }
        self.state = State::Data(size);
        Ok(Step::Framing(framing))
    }
}

fn parse_size(line: &[u8]) -> Result<u64, Reject> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    if digits == 0 || digits > 15 {
        return Err(Reject::Bad("a chunk size is not valid"));
    }
    // chunk-ext = *( BWS ";" … ), of which only the outline is checked: nothing that could end a line.
    let extension = line[digits..].trim_ascii_start();
    let visible = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if line.len() > digits && (extension.first() != Some(&b';') || !extension.iter().all(visible)) {
        return Err(Reject::Bad("a chunk size is not valid"));
    }
    let size = line[..digits].iter().fold(0, |size, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            _ => (digit | 0x20) - b'a' + 10,
        };
        (size << 4) | u64::from(value)
    });
    Ok(size)
}
