//! A response's body on its way to the client.

use std::io;
use std::task::{Context, Poll, ready};

use super::rewrite::Framing;
use crate::http::chunked::{Chunks, Step};
use crate::http::conn::{Conn, Cut, poll_write_from};
use crate::http::head::{BodyKind, Scanner, parse_trailers};
use crate::http::limits::HttpLimits;
use crate::http::reject::Reject;
use crate::net::{Buf, Transport};
use crate::upstream::Wire;

/// A body of which so much is left is read into a large buffer: fewer system calls.
const LARGE_FROM_BYTES: u64 = 64 * 1024;

/// A copy of so much costs less than a second part in a system call.
const ONE_PIECE_BYTES: usize = 4 * 1024;

/// Moves a body. Its bytes go to the client from the buffer that they were read into.
#[derive(Debug)]
pub(super) struct Relay {
    left: Left,
    framing: Framing,
    /// What goes before the checked bytes: the head at first, then chunk sizes.
    before: Buf,
    /// Bytes from the upstream.
    input: Option<Buf>,
    /// Bytes at the start of the input that go to the client next.
    checked: usize,
    /// What goes after them.
    after: &'static [u8],
    /// Bytes of framing behind them that do not.
    skip: usize,
    /// Before, checked and after are what is sent next; nothing else is looked at until it is.
    staged: bool,
    /// Bytes of them that were sent.
    sent: usize,
    ended: bool,
    /// The upstream closes after it.
    closes: bool,
    /// The client's connection ends with it.
    last: bool,
    /// Bytes sent since the start.
    moved: u64,
}

#[derive(Debug)]
enum Left {
    Nothing,
    Bytes(u64),
    Chunks(Chunks),
    Trailers(Scanner),
    UntilClose,
}

/// Whose fault it is that an answer did not get through.
#[derive(Debug)]
pub(super) enum RelayError {
    /// The client's.
    Client(Cut),
    /// The upstream broke off, or its framing is wrong.
    Upstream(&'static str),
}

/// What a relay waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// The client, to take more.
    Client,
    /// The upstream, to send more.
    Upstream,
}

impl Relay {
    /// `head`: the rewritten head; `input`: what came behind the upstream's.
    /// `last`: the client's connection ends with it.
    pub(super) fn new(
        kind: BodyKind,
        framing: Framing,
        last: bool,
        head: Buf,
        input: Option<Buf>,
    ) -> Self {
        Self {
            left: match kind {
                BodyKind::None => Left::Nothing,
                BodyKind::Length(length) => Left::Bytes(length),
                BodyKind::Chunked => Left::Chunks(Chunks::default()),
                BodyKind::UntilClose => Left::UntilClose,
            },
            framing,
            before: head,
            input,
            checked: 0,
            after: b"",
            skip: 0,
            staged: false,
            sent: 0,
            ended: false,
            closes: kind == BodyKind::UntilClose,
            last,
            moved: 0,
        }
    }

    /// Everything came as it was announced and nothing behind it: the upstream's connection can be used again.
    pub(super) fn is_clean(&self) -> bool {
        self.ended && !self.closes && self.input.is_none()
    }

    /// Bytes that went to the client so far.
    pub(super) fn progress(&self) -> u64 {
        self.moved + self.sent as u64
    }

    /// What it waits for when it is pending.
    pub(super) fn waits(&self) -> Waits {
        match self.staged {
            true => Waits::Client,
            false => Waits::Upstream,
        }
    }

    fn total(&self) -> usize {
        self.before.len() + self.checked + self.after.len()
    }

    fn consume(&mut self, count: usize) {
        if let Some(input) = &mut self.input {
            input.consume(count);
            if input.is_empty() {
                self.input = None;
            }
        }
    }

    /// Moves on as far as it can without waiting. Ready when all is sent and flushed.
    pub(super) fn poll<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<T>,
        upstream: &mut Wire,
        limits: &HttpLimits,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            if !self.staged {
                self.check(limits)?;
                self.stage();
            }
            if self.staged {
                ready!(self.poll_send(cx, conn))
                    .map_err(|error| RelayError::Client(error.into()))?;
                continue;
            }
            if matches!(self.left, Left::Nothing) {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            match ready!(self.poll_receive(cx, upstream, limits)) {
                Ok(0) => self.end()?,
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(RelayError::Upstream("it broke off its answer"))),
            }
        }
    }

    /// Sends before, checked and after. What is small goes in one piece.
    fn poll_send<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<T>,
    ) -> Poll<io::Result<()>> {
        let total = self.total();
        if self.last && matches!(self.left, Left::Nothing) {
            conn.io.last();
        }
        while self.sent < total {
            let input = self.input.as_ref().map_or(&[][..], Buf::filled);
            let parts = [self.before.filled(), &input[..self.checked], self.after];
            match ready!(poll_write_from(&mut conn.io, cx, &parts, self.sent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        // What was taken need not be held here while it is flushed.
        self.moved += total as u64;
        self.sent = 0;
        self.before.clear();
        self.after = b"";
        self.consume(self.checked + self.skip);
        self.checked = 0;
        self.skip = 0;
        ready!(conn.io.poll_flush(cx))?;
        self.staged = false;
        Poll::Ready(Ok(()))
    }

    /// What was checked is to be sent. Little of it behind a head goes with that in one piece.
    fn stage(&mut self) {
        self.staged = self.total() > 0;
        if self.before.is_empty() || self.checked == 0 || self.checked > ONE_PIECE_BYTES {
            return;
        }
        let input = self.input.as_ref().map_or(&[][..], Buf::filled);
        self.before.put(&input[..self.checked]);
        self.before.put(self.after);
        self.consume(self.checked + self.skip);
        (self.checked, self.skip, self.after) = (0, 0, b"");
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Wire,
        limits: &HttpLimits,
    ) -> Poll<io::Result<usize>> {
        if self.input.is_none() {
            ready!(upstream.poll_readable(cx))?;
            let large = matches!(
                self.left,
                Left::Bytes(LARGE_FROM_BYTES..) | Left::Chunks(_) | Left::UntilClose
            ) && self.moved > 8 * 1024;
            self.input = Some(if large { Buf::large() } else { Buf::small() });
        }
        let input = self.input.get_or_insert_with(Buf::small);
        if input.spare().is_empty() {
            input.reserve(limits.head_bytes());
        }
        let read = upstream.poll_read(cx, input);
        if input.is_empty() {
            self.input = None;
        }
        read
    }

    /// The upstream has closed.
    fn end(&mut self) -> Result<(), RelayError> {
        if !matches!(self.left, Left::UntilClose) {
            return Err(RelayError::Upstream(
                "it closed before the end of its answer",
            ));
        }
        self.left = Left::Nothing;
        if self.framing == Framing::Chunked {
            self.before.put(b"0\r\n\r\n");
        }
        Ok(())
    }

    /// Looks at the input: what goes to the client next.
    fn check(&mut self, limits: &HttpLimits) -> Result<(), RelayError> {
        let wrong = |_: Reject| RelayError::Upstream("its chunked body is not valid");
        let input = self.input.as_ref().map_or(&[][..], Buf::filled);
        match &mut self.left {
            Left::Nothing | Left::Trailers(_) => {}
            Left::Bytes(left) => {
                self.checked =
                    usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= self.checked as u64;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
            }
            Left::UntilClose => {
                self.checked = input.len();
                if self.checked > 0 && self.framing == Framing::Chunked {
                    self.before.put_hex(self.checked as u64);
                    self.before.put(b"\r\n");
                    self.after = b"\r\n";
                }
            }
            Left::Chunks(chunks) => {
                // As they are for a client that reads chunks, their data alone for one that does not.
                let kept = self.framing == Framing::Chunked;
                loop {
                    match chunks.step(&input[self.checked..]).map_err(wrong)? {
                        Step::Data(count) => self.checked += count,
                        Step::Framing(count) if kept => self.checked += count,
                        Step::Framing(count) if self.checked > 0 => {
                            self.skip = count;
                            break;
                        }
                        Step::Framing(count) => {
                            self.consume(count);
                            return self.check(limits);
                        }
                        Step::More => break,
                        Step::Last(_) if self.checked > 0 => {
                            // Seen again when what comes before it is sent.
                            *chunks = Chunks::default();
                            break;
                        }
                        Step::Last(count) => {
                            self.left = Left::Trailers(Scanner::default());
                            self.consume(count);
                            break;
                        }
                    }
                }
            }
        }
        self.check_trailers(limits)
    }

    fn check_trailers(&mut self, limits: &HttpLimits) -> Result<(), RelayError> {
        let Left::Trailers(scanner) = &mut self.left else {
            return Ok(());
        };
        let wrong = |_: Reject| RelayError::Upstream("its trailers are not valid");
        let input = self.input.as_ref().map_or(&[][..], Buf::filled);
        let Some(len) = scanner.find(input, true).map_err(wrong)? else {
            return match input.len() >= limits.head_bytes() {
                true => Err(RelayError::Upstream("its trailers are too long")),
                false => Ok(()),
            };
        };
        let mut trailers = Vec::new();
        parse_trailers(&input[..len], limits.fields(), &mut trailers).map_err(wrong)?;
        self.consume(len);
        if self.framing == Framing::Chunked {
            self.before.put(b"0\r\n");
            self.before.put(&trailers);
            self.before.put(b"\r\n");
        }
        self.left = Left::Nothing;
        Ok(())
    }
}
