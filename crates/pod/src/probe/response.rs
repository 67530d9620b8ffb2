//! A response as a probe reads it: a head of bounded size, and the first bytes of the body by its framing. (RFC 9112)

use super::OUTPUT_BYTES_MAX;
use super::errno_text;
use super::http::{Failed, request_error};
use super::tls::Stream;

const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;
/// Interim (1xx) responses before the real one. (Go: 5)
const INTERIM_MAX: usize = 5;
/// Of a response that is not HTTP, in the message.
const SHOWN_BYTES_MAX: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes are to come.
    Length(u64),
    Chunked,
    /// Until the connection ends.
    End,
}

/// Reads up to the end of the head; what came after it is returned with it.
pub(super) async fn read_head(stream: &mut Stream) -> Result<(Head, Vec<u8>), Failed> {
    let mut buffer = Vec::new();
    let mut interim = 0;
    loop {
        match parse_head(&buffer).map_err(Failed::Request)? {
            Some((head, length)) if (100..200).contains(&head.status) && head.status != 101 => {
                interim += 1;
                if interim > INTERIM_MAX {
                    return Err(Failed::Request(
                        "net/http: too many 1xx informational responses".into(),
                    ));
                }
                buffer.drain(..length);
            }
            Some((head, length)) => return Ok((head, buffer.split_off(length))),
            None => {
                if buffer.len() >= HEAD_BYTES_MAX {
                    return Err(Failed::Request(format!(
                        "net/http: server response headers exceeded {HEAD_BYTES_MAX} bytes; aborted"
                    )));
                }
                let mut piece = [0; 4096];
                match stream
                    .read(&mut piece)
                    .await
                    .map_err(|e| request_error(&e))?
                {
                    0 if buffer.is_empty() => return Err(Failed::Request("EOF".into())),
                    0 => return Err(Failed::Request("unexpected EOF".into())),
                    read => buffer.extend_from_slice(&piece[..read]),
                }
            }
        }
    }
}

/// A complete head and its length; none when more is needed.
pub(super) fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(format!(
                "net/http: more than {HEADERS_MAX} response headers"
            ));
        }
        Err(_) => {
            let line = bytes.split(|b| *b == b'\n').next().unwrap_or(bytes);
            let shown = &line[..line.len().min(SHOWN_BYTES_MAX)];
            return Err(format!(
                "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"{}\"",
                shown.trim_ascii_end().escape_ascii()
            ));
        }
    };
    let status = response.code.unwrap_or(0);
    let values = |name: &'static str| {
        let named = response
            .headers
            .iter()
            .filter(move |h| h.name.eq_ignore_ascii_case(name));
        named.map(|h| String::from_utf8_lossy(h.value).trim().to_string())
    };
    let chunked = values("transfer-encoding")
        .next_back()
        .is_some_and(|v| v.to_ascii_lowercase().ends_with("chunked"));
    let framing = if matches!(status, 100..200 | 204 | 304) {
        Framing::Length(0)
    } else if chunked {
        Framing::Chunked
    } else {
        let mut lengths = values("content-length");
        match lengths.next() {
            None => Framing::End,
            Some(first) => {
                let number: Option<u64> = first.parse().ok();
                match number {
                    Some(number) if lengths.all(|other| other == first) => Framing::Length(number),
                    _ => return Err(format!("bad Content-Length {first:?}")),
                }
            }
        }
    };
    let head = Head {
        status,
        location: values("location").next(),
        framing,
    };
    Ok(Some((head, length)))
}

/// A body on its way, of which the first [`OUTPUT_BYTES_MAX`] bytes are kept and the rest is not read.
pub(super) struct Body {
    framing: Framing,
    chunk: Chunk,
    pub(super) kept: Vec<u8>,
    /// Of the framing of chunks: a bound on what is read beside the data.
    overhead: usize,
}

/// Where in the chunked coding (RFC 9112, 7.1) the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size {
        value: u64,
        digits: u8,
    },
    /// An extension, ignored, up to the end of the line.
    Extension {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataEnd,
    /// Trailers: `empty` so far is the line.
    Trailer {
        empty: bool,
    },
    Done,
}

impl Body {
    pub(super) fn new(head: &Head) -> Self {
        Self {
            framing: head.framing,
            chunk: Chunk::Size {
                value: 0,
                digits: 0,
            },
            kept: Vec::new(),
            overhead: 0,
        }
    }

    pub(super) async fn read(&mut self, stream: &mut Stream, rest: &[u8]) -> Result<(), Failed> {
        let mut done = self.feed(rest).map_err(Failed::Body)?;
        let mut piece = [0; 4096];
        while !done {
            let read = stream.read(&mut piece).await;
            done = match read.map_err(|error| Failed::Body(errno_text(&error)))? {
                0 if self.framing == Framing::End => true,
                0 => return Err(Failed::Body("unexpected EOF".into())),
                read => self.feed(&piece[..read]).map_err(Failed::Body)?,
            };
        }
        Ok(())
    }

    /// Takes what has come; true when there is no more, or enough.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, String> {
        match &mut self.framing {
            Framing::End => self.keep(bytes),
            Framing::Length(left) => {
                let take = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                let last = *left == 0;
                self.keep(&bytes[..take]);
                return Ok(last || self.full());
            }
            Framing::Chunked => {
                while !bytes.is_empty() && self.chunk != Chunk::Done && !self.full() {
                    if let Chunk::Data { left } = &mut self.chunk {
                        let take = bytes
                            .len()
                            .min(usize::try_from(*left).unwrap_or(usize::MAX));
                        *left -= take as u64;
                        if *left == 0 {
                            self.chunk = Chunk::DataEnd;
                        }
                        self.keep(&bytes[..take]);
                        bytes = &bytes[take..];
                    } else {
                        self.chunk = step(self.chunk, bytes[0])?;
                        self.overhead += 1;
                        bytes = &bytes[1..];
                    }
                }
                return Ok(self.chunk == Chunk::Done || self.full());
            }
        }
        Ok(self.full())
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = OUTPUT_BYTES_MAX - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn full(&self) -> bool {
        self.kept.len() >= OUTPUT_BYTES_MAX || self.overhead >= HEAD_BYTES_MAX
    }
}

/// One byte of the chunked framing.
fn step(at: Chunk, byte: u8) -> Result<Chunk, String> {
    let bad = || Err("invalid byte in chunk length".to_string());
    let sized = |value| match value {
        0 => Chunk::Trailer { empty: true },
        left => Chunk::Data { left },
    };
    Ok(match (at, byte) {
        (Chunk::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
            if digits >= 15 {
                return Err("http chunk length too large".to_string());
            }
            let digit = char::from(byte).to_digit(16).unwrap_or(0);
            Chunk::Size {
                value: value * 16 + u64::from(digit),
                digits: digits + 1,
            }
        }
        (Chunk::Size { digits: 0, .. }, _) => return bad(),
        (Chunk::Size { value, .. } | Chunk::Extension { value }, b'\n') => sized(value),
        (Chunk::Size { value, .. }, b';' | b' ' | b'\t' | b'\r')
        | (Chunk::Extension { value }, _) => Chunk::Extension { value },
        (Chunk::Size { .. }, _) => return bad(),
        (Chunk::DataEnd, b'\r') => Chunk::DataEnd,
        (Chunk::DataEnd, b'\n') => Chunk::Size {
            value: 0,
            digits: 0,
        },
        (Chunk::DataEnd, _) => return Err("malformed chunked encoding".to_string()),
        (Chunk::Trailer { empty: true }, b'\n') => Chunk::Done,
        (Chunk::Trailer { .. }, b'\n') => Chunk::Trailer { empty: true },
        (Chunk::Trailer { empty }, b'\r') => Chunk::Trailer { empty },
        (Chunk::Trailer { .. }, _) => Chunk::Trailer { empty: false },
        (Chunk::Data { .. } | Chunk::Done, _) => at,
    })
}
