//! A request's body on its way to the upstream, beside which the answer may already come.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use crate::http::chunked::{Chunks, Step};
use crate::http::conn::{Conn, Cut};
use crate::http::head::{BodyKind, Scanner, parse_trailers};
use crate::http::limits::HttpLimits;
use crate::http::reject::Reject;
use crate::net::{Buf, Transport};
use crate::upstream::Wire;

/// Moves a body. Bytes go from the connection's input to the socket as they are; nothing is copied.
#[derive(Debug)]
pub(super) struct Pump {
    left: Left,
    /// Bytes at the start of the input that were looked at and may be sent.
    checked: usize,
    /// The last chunk and the trailers, sent when all of them are right.
    tail: Vec<u8>,
    tail_sent: usize,
    /// Bytes of data that may still come, where that is bounded.
    allowed: Option<u64>,
    /// Bytes that came since the start.
    pub(super) moved: u64,
}

#[derive(Debug)]
enum Left {
    Bytes(u64),
    Chunks(Chunks),
    Trailers(Scanner),
    Nothing,
    /// The upstream takes no more.
    GivenUp,
}

/// Whose fault it is that a body did not get through.
#[derive(Debug)]
pub(super) enum PumpError {
    /// The client's.
    Client(Cut),
    /// The upstream takes no more; it may have answered all the same.
    Upstream,
}

impl From<Reject> for PumpError {
    fn from(reject: Reject) -> Self {
        Self::Client(reject.into())
    }
}

impl Pump {
    /// For a body of `kind`; None when there is none.
    pub(super) fn new(kind: BodyKind, limits: &HttpLimits) -> Result<Option<Self>, Reject> {
        let allowed = limits.body_bytes();
        let left = match kind {
            BodyKind::None | BodyKind::UntilClose => return Ok(None),
            BodyKind::Length(length) if allowed.is_some_and(|allowed| length > allowed) => {
                return Err(Reject::BodyTooLarge);
            }
            BodyKind::Length(length) => Left::Bytes(length),
            BodyKind::Chunked => Left::Chunks(Chunks::default()),
        };
        Ok(Some(Self {
            left,
            checked: 0,
            tail: Vec::new(),
            tail_sent: 0,
            allowed,
            moved: 0,
        }))
    }

    /// Appends what of the body is at the start of `input` to the head in `out`, as far as it fits without growing, so
    /// that both go in one system call. Returns how much of `input` is used up.
    pub(super) fn put_first(
        &mut self,
        input: &[u8],
        out: &mut Buf,
        limits: &HttpLimits,
    ) -> Result<usize, Reject> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let count = self.check(rest, limits)?;
            if self.checked == 0 {
                used += count;
                break;
            }
            let here = self.checked.min(out.spare().len());
            out.put(&rest[..here]);
            self.checked -= here;
            used += here;
            if self.checked > 0 {
                break;
            }
        }
        if self.checked == 0 && !self.tail.is_empty() && self.tail.len() <= out.spare().len() {
            out.put(&self.tail);
            self.tail_sent = self.tail.len();
        }
        Ok(used)
    }

    /// All of the body was sent.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.left, Left::Nothing) && self.checked == 0 && self.tail_sent == self.tail.len()
    }

    /// It is the client that is waited for, not the upstream.
    pub(super) fn is_waiting_for_client(&self) -> bool {
        !matches!(self.left, Left::GivenUp)
            && self.checked == 0
            && self.tail_sent == self.tail.len()
    }

    /// Sends nothing more and is never done.
    pub(super) fn give_up(&mut self) {
        self.left = Left::GivenUp;
        self.checked = 0;
    }

    /// Moves on as far as it can without waiting. Ready when all is sent.
    pub(super) fn poll<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<T>,
        upstream: &mut Wire,
        limits: &HttpLimits,
    ) -> Poll<Result<(), PumpError>> {
        loop {
            if matches!(self.left, Left::GivenUp) {
                return Poll::Pending;
            }
            while self.checked > 0 {
                let part = [IoSlice::new(&conn.input()[..self.checked])];
                let count =
                    ready!(upstream.poll_write(cx, &part)).map_err(|_| PumpError::Upstream)?;
                conn.consume(count);
                self.checked -= count;
            }
            let skipped = self.check(conn.input(), limits)?;
            conn.consume(skipped);
            if self.checked > 0 {
                continue;
            }
            while self.tail_sent < self.tail.len() {
                let part = [IoSlice::new(&self.tail[self.tail_sent..])];
                let count =
                    ready!(upstream.poll_write(cx, &part)).map_err(|_| PumpError::Upstream)?;
                self.tail_sent += count;
            }
            if self.is_done() {
                return Poll::Ready(Ok(()));
            }
            let room = limits.head_bytes();
            match ready!(conn.poll_fill(cx, room)) {
                Ok(0) => {
                    let broken = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(PumpError::Client(broken.into())));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(PumpError::Client(error.into()))),
            }
        }
    }

    /// Looks at `input`: sets what may be sent from its start; returns what is to be thrown away there, which comes
    /// only with nothing to send.
    fn check(&mut self, input: &[u8], limits: &HttpLimits) -> Result<usize, Reject> {
        debug_assert_eq!(self.checked, 0, "what was checked is sent first");
        match &mut self.left {
            Left::Nothing | Left::GivenUp => Ok(0),
            Left::Bytes(left) => {
                let here = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= here as u64;
                self.moved += here as u64;
                self.checked = here;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
                Ok(0)
            }
            Left::Chunks(chunks) => {
                let mut data = 0;
                loop {
                    match chunks.step(&input[self.checked..])? {
                        Step::Data(count) => {
                            self.checked += count;
                            data += count as u64;
                        }
                        Step::Framing(count) => self.checked += count,
                        Step::More => break,
                        Step::Last(_) if self.checked > 0 => {
                            // Seen again when what comes before it is sent.
                            *chunks = Chunks::default();
                            break;
                        }
                        Step::Last(count) => {
                            self.left = Left::Trailers(Scanner::default());
                            return Ok(count + self.check_trailers(&input[count..], limits)?);
                        }
                    }
                }
                self.moved += data;
                if let Some(allowed) = &mut self.allowed {
                    *allowed = allowed.checked_sub(data).ok_or(Reject::BodyTooLarge)?;
                }
                Ok(0)
            }
            Left::Trailers(_) => self.check_trailers(input, limits),
        }
    }

    fn check_trailers(&mut self, input: &[u8], limits: &HttpLimits) -> Result<usize, Reject> {
        let Left::Trailers(scanner) = &mut self.left else {
            return Ok(0);
        };
        let Some(len) = scanner.find(input, true)? else {
            return match input.len() >= limits.head_bytes() {
                true => Err(Reject::HeadTooLarge),
                false => Ok(0),
            };
        };
        self.tail.extend_from_slice(b"0\r\n");
        parse_trailers(&input[..len], limits.fields(), &mut self.tail)?;
        self.tail.extend_from_slice(b"\r\n");
        self.left = Left::Nothing;
        Ok(len)
    }
}
