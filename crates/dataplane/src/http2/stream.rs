//! A client's stream as a connection of HTTP/1.1 that carries one request.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::halves::{CHUNK_ROOM, Outgoing, invalid};
use super::request::Shape;
use super::session::{Born, Handle, Reason, Shared};
use crate::net::{Buf, Transport};

/// One stream: reads as the request, takes the answer.
pub(crate) struct Stream {
    /// What was not read of the request's head.
    head: Option<Buf>,
    answer: Outgoing<Handle>,
    shape: Shape,
    /// It says that its body is empty but has not ended: nothing is read of it before it has, so that nothing malformed is forwarded.
    unended: bool,
    /// All of the request was read.
    is_read: bool,
    /// The answer's final head was sent.
    begun: bool,
    /// What came of a head.
    partial: Vec<u8>,
    to_head: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("to_head", &self.to_head)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(session: &Shared, born: Born) -> Self {
        Self {
            head: Some(born.head),
            answer: Outgoing::new(Handle::new(session, born.at), Shape::None, 0),
            shape: born.shape,
            unended: born.unended,
            is_read: born.shape == Shape::None,
            begun: false,
            partial: Vec::new(),
            to_head: born.to_head,
        }
    }

    /// It asked for a WebSocket.
    fn is_tunnel(&self) -> bool {
        self.shape == Shape::Raw
    }

    fn is_answered(&self) -> bool {
        self.begun && self.answer.is_done()
    }

    fn handle(&mut self) -> &mut Handle {
        &mut self.answer.lane
    }

    /// Ready when what was said of an empty body has proved true; bytes of one break the stream off.
    fn poll_unended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unended {
            ready!(self.handle().poll_ready(cx))?;
            self.unended = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads of the body. 0 is the end.
    fn poll_body(&mut self, cx: &mut Context<'_>, into: &mut Buf) -> Poll<io::Result<usize>> {
        ready!(self.handle().poll_ready(cx))?;
        let before = into.len();
        let chunked = self.shape == Shape::Chunked;
        if chunked && into.spare().len() <= CHUNK_ROOM {
            into.reserve(2 * CHUNK_ROOM);
        }
        let room = into.spare().len() - if chunked { CHUNK_ROOM } else { 0 };
        let count = self.handle().unread().min(room);
        if count > 0 {
            if chunked {
                into.put_hex(count as u64);
                into.put(b"\r\n");
            }
            self.handle().read(count, into);
            if chunked {
                into.put(b"\r\n");
            }
        }
        // Often all of a short body is here already.
        if self.handle().unread() == 0 && self.handle().is_ended() {
            self.is_read = true;
            if chunked {
                into.put(b"0\r\n");
                if let Some(trailers) = self.handle().take_trailers() {
                    into.put(&trailers);
                }
                into.put(b"\r\n");
            }
        }
        Poll::Ready(Ok(into.len() - before))
    }

    /// Takes the start of `bytes`.
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.begun {
            return self.answer.poll_write(cx, bytes);
        }
        ready!(self.handle().poll_room(cx))?;
        let had = self.partial.len();
        // Nearly always all of it comes at once.
        if had == 0
            && let Some(at) = memchr::memmem::find(bytes, b"\r\n\r\n")
        {
            self.send_head(&bytes[..at + 4])?;
            return Poll::Ready(Ok(at + 4));
        }
        self.partial.extend_from_slice(bytes);
        let Some(at) = memchr::memmem::find(&self.partial, b"\r\n\r\n") else {
            return Poll::Ready(Ok(bytes.len()));
        };
        let text = std::mem::take(&mut self.partial);
        self.send_head(&text[..at + 4])?;
        Poll::Ready(Ok(at + 4 - had))
    }

    /// Sends a head that we wrote.
    fn send_head(&mut self, text: &[u8]) -> io::Result<()> {
        let wrong = || invalid("an answer's head can't be said in HTTP/2");
        // HTTP/1.1 200 …
        let code = text
            .get(9..12)
            .filter(|code| code.iter().all(u8::is_ascii_digit));
        let code = code.ok_or_else(wrong)?;
        let number = code
            .iter()
            .fold(0, |so_far, digit| so_far * 10 + u16::from(digit - b'0'));
        let line = memchr::memchr(b'\n', text).ok_or_else(wrong)?;
        let lines = &text[line + 1..];
        let switches = number == 101 && self.is_tunnel();
        if number < 200 && !switches {
            // Nothing else is spoken on this stream.
            if number == 101 {
                return Err(invalid("an answer changes to another protocol"));
            }
            return self.handle().head(code, lines, false, b"");
        }
        if switches {
            self.handle()
                .head(b"200", lines, false, b"sec-websocket-accept")?;
            return self.begin(Shape::Raw, 0);
        }
        let (shape, length) = match self.to_head || matches!(number, 204 | 304) {
            true => (Shape::None, 0),
            false => framing(lines).ok_or_else(wrong)?,
        };
        self.handle().head(code, lines, shape == Shape::None, b"")?;
        self.begin(shape, length)
    }

    fn begin(&mut self, shape: Shape, length: u64) -> io::Result<()> {
        self.begun = true;
        self.answer.begin(shape, length);
        Ok(())
    }
}

/// How the body behind these field lines is framed, and its length.
fn framing(lines: &[u8]) -> Option<(Shape, u64)> {
    let mut length = 0;
    for line in lines.split(|byte| *byte == b'\n') {
        // Most are known not to be one of the two by their first byte.
        match line.first() {
            Some(b't' | b'T') if is_field(line, b"transfer-encoding:") => {
                return Some((Shape::Chunked, 0));
            }
            Some(b'c' | b'C') if is_field(line, b"content-length:") => {
                let digits = line[b"content-length:".len()..].trim_ascii();
                length = std::str::from_utf8(digits).ok()?.parse().ok()?;
            }
            _ => {}
        }
    }
    Some(match length {
        0 => (Shape::None, 0),
        _ => (Shape::Length, length),
    })
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(name))
}

impl Transport for Stream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unended(cx))?;
        if self.head.is_some() || self.is_answered() {
            return Poll::Ready(Ok(()));
        }
        if !self.is_read {
            return self.handle().poll_ready(cx);
        }
        if self.is_tunnel() {
            return Poll::Ready(Ok(()));
        }
        // All was asked; what can still come is that the client changes its mind.
        self.handle().poll_reset(cx).map(Err)
    }

    /// The request; then the end, once it is answered: each stream carries one.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buf) -> Poll<io::Result<usize>> {
        ready!(self.poll_unended(cx))?;
        if let Some(mut head) = self.head.take() {
            let count = head.len();
            if into.is_empty() {
                *into = head;
                return Poll::Ready(Ok(count));
            }
            let count = count.min(into.spare().len());
            into.put(&head.filled()[..count]);
            head.consume(count);
            self.head = Some(head).filter(|head| !head.is_empty());
            return Poll::Ready(Ok(count));
        }
        if self.is_answered() {
            return Poll::Ready(Ok(0));
        }
        if !self.is_read {
            return self.poll_body(cx, into);
        }
        if self.is_tunnel() {
            return Poll::Ready(Ok(0));
        }
        self.handle().poll_reset(cx).map(Err)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        for part in parts {
            let mut rest = &part[..];
            while !rest.is_empty() {
                match self.poll_take(cx, rest) {
                    Poll::Ready(Ok(count)) => {
                        rest = &rest[count..];
                        taken += count;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if taken == 0 => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(Ok(taken)),
                }
            }
        }
        Poll::Ready(Ok(taken))
    }

    /// What was taken is within the bound on what waits for a client; the connection's task sends it.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// After an early answer the client is told that the rest of its request is not wanted when the stream is dropped.
    fn poll_close_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.begun {
            true => self.answer.end_tunnel()?,
            false => self.handle().reset(Reason::Internal),
        }
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {
        let reason = match self.handle().is_malformed() {
            true => Reason::Protocol,
            false => Reason::Internal,
        };
        self.handle().reset(reason);
    }
}
