//! The two halves of a stream's body: DATA frames and trailers as the bytes of HTTP/1.1, and the other way round.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::request::{Shape, put_field, read_fields};
use crate::net::{Buf, SMALL_BYTES};

/// Bytes of a DATA frame's payload, in one of the buffers that this thread lends.
#[derive(Debug)]
pub(crate) struct Payload(Buf);

impl bytes::Buf for Payload {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn chunk(&self) -> &[u8] {
        self.0.filled()
    }

    fn advance(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl Payload {
    fn of(bytes: &[u8]) -> Self {
        let mut buf = match bytes.len() > SMALL_BYTES {
            true => Buf::large(),
            false => Buf::small(),
        };
        buf.put(bytes);
        Self(buf)
    }
}

/// An error of h2 as one of a connection.
pub(super) fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(reset);
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

pub(super) fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Room that a chunk's framing takes, and what makes a chunk worth it.
pub(super) const CHUNK_ROOM: usize = 64;

/// What the peer sends, read as a body of HTTP/1.1.
pub(super) struct Incoming {
    recv: RecvStream,
    shape: Shape,
    held: Bytes,
    /// The last chunk and the trailers.
    tail: Option<Buf>,
    ended: bool,
}

impl Incoming {
    pub(super) fn new(recv: RecvStream, shape: Shape) -> Self {
        Self {
            recv,
            shape,
            held: Bytes::new(),
            tail: None,
            ended: shape == Shape::None,
        }
    }

    /// All of it was read.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.held.is_empty() && self.tail.is_none()
    }

    /// Ready when there is something to read, or nothing more comes.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.is_empty() && self.tail.is_none() && !self.ended {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(bytes)) => self.held = bytes,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => {
                    let trailers = ready!(self.recv.poll_trailers(cx)).map_err(broken)?;
                    self.ended = true;
                    if self.shape == Shape::Chunked {
                        self.tail = Some(last_chunk(trailers.as_ref())?);
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is there. 0 is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Buf,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx))?;
        let before = into.len();
        if !self.held.is_empty() {
            self.read_data(into)?;
        }
        // Often all of a short body is here already.
        if self.held.is_empty()
            && self.tail.is_none()
            && !self.ended
            && let Poll::Ready(Err(error)) = self.poll_ready(cx)
        {
            return Poll::Ready(Err(error));
        }
        if self.held.is_empty()
            && let Some(tail) = self.tail.take()
        {
            into.put(tail.filled());
        }
        Poll::Ready(Ok(into.len() - before))
    }

    fn read_data(&mut self, into: &mut Buf) -> io::Result<()> {
        let count = match self.shape {
            Shape::Chunked => {
                if into.spare().len() <= CHUNK_ROOM {
                    into.reserve(2 * CHUNK_ROOM);
                }
                let count = self.held.len().min(into.spare().len() - CHUNK_ROOM);
                into.put_hex(count as u64);
                into.put(b"\r\n");
                into.put(&self.held[..count]);
                into.put(b"\r\n");
                count
            }
            Shape::None | Shape::Length | Shape::Raw => {
                let count = self.held.len().min(into.spare().len());
                into.put(&self.held[..count]);
                count
            }
        };
        bytes::Buf::advance(&mut self.held, count);
        // What was read may be followed by as much.
        let released = self.recv.flow_control().release_capacity(count);
        released.map_err(broken)
    }
}

fn last_chunk(trailers: Option<&http::HeaderMap>) -> io::Result<Buf> {
    let mut out = Buf::small();
    out.put(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        put_field(&mut out, name.as_str().as_bytes(), value.as_bytes())
            .map_err(|malformed| invalid(malformed.0))?;
    }
    out.put(b"\r\n");
    Ok(out)
}

/// What comes next in a body of HTTP/1.1 that we wrote ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Length(u64),
    /// The digits of a chunk's size so far.
    Size(u64),
    /// The rest of a size line.
    SizeEnd(u64),
    Chunk(u64),
    /// So many bytes of the line end behind a chunk.
    ChunkEnd(u8),
    Trailers,
    Raw,
    Nothing,
}

/// Where a body is sent.
pub(super) trait Lane {
    /// Takes as much as flow control and the bound on what waits allow. `last`: nothing is behind `bytes`.
    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        last: bool,
    ) -> Poll<io::Result<usize>>;

    /// Says that nothing more comes.
    fn end(&mut self) -> io::Result<()>;

    /// Sends the trailers' field lines, up to the empty one.
    fn trailers(&mut self, lines: &[u8]) -> io::Result<()>;
}

impl Lane for SendStream<Payload> {
    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        if self.capacity() < bytes.len() {
            self.reserve_capacity(bytes.len());
        }
        while self.capacity() == 0 {
            match ready!(self.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(reset())),
            }
        }
        let count = self.capacity().min(bytes.len());
        let ends = last && count == bytes.len();
        let sent = self.send_data(Payload::of(&bytes[..count]), ends);
        Poll::Ready(sent.map(|()| count).map_err(broken))
    }

    fn end(&mut self) -> io::Result<()> {
        self.send_data(Payload::of(&[]), true).map_err(broken)
    }

    fn trailers(&mut self, lines: &[u8]) -> io::Result<()> {
        let trailers = read_fields(&Bytes::copy_from_slice(lines), 0);
        let trailers = trailers.ok_or_else(|| invalid("trailers are not valid"))?;
        self.send_trailers(trailers.headers).map_err(broken)
    }
}

/// What we send, written as a body of HTTP/1.1.
pub(super) struct Outgoing<L> {
    pub(super) lane: L,
    left: Left,
    /// The trailer section so far.
    trailers: Vec<u8>,
}

impl<L: Lane> Outgoing<L> {
    /// `length` of [`Shape::Length`]. A body that is empty by its head must have ended with it.
    pub(super) fn new(lane: L, shape: Shape, length: u64) -> Self {
        Self {
            lane,
            left: left(shape, length),
            trailers: Vec::new(),
        }
    }

    /// A body of this shape follows.
    pub(super) fn begin(&mut self, shape: Shape, length: u64) {
        self.left = left(shape, length);
    }

    /// END_STREAM was sent.
    pub(super) fn is_done(&self) -> bool {
        self.left == Left::Nothing
    }

    /// Ends a tunnel, if it is one.
    pub(super) fn end_tunnel(&mut self) -> io::Result<()> {
        if self.left != Left::Raw {
            return Ok(());
        }
        self.left = Left::Nothing;
        self.lane.end()
    }

    /// Takes the start of `bytes`, which is not empty.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.left {
            Left::Length(left) => {
                let here = within(left, bytes);
                let last = here.len() as u64 == left;
                let count = ready!(self.lane.poll_data(cx, here, last))?;
                self.left = match left - count as u64 {
                    0 => Left::Nothing,
                    left => Left::Length(left),
                };
                Poll::Ready(Ok(count))
            }
            Left::Chunk(left) => {
                let count = ready!(self.lane.poll_data(cx, within(left, bytes), false))?;
                self.left = match left - count as u64 {
                    0 => Left::ChunkEnd(2),
                    left => Left::Chunk(left),
                };
                Poll::Ready(Ok(count))
            }
            Left::Raw => self.lane.poll_data(cx, bytes, false),
            Left::Trailers => Poll::Ready(self.take_trailers(bytes)),
            Left::Nothing => Poll::Ready(Err(invalid("bytes behind the end of a message"))),
            Left::Size(_) | Left::SizeEnd(_) | Left::ChunkEnd(_) => {
                Poll::Ready(self.take_framing(bytes[0]).map(|()| 1))
            }
        }
    }

    /// A byte between chunks.
    fn take_framing(&mut self, byte: u8) -> io::Result<()> {
        self.left = match (self.left, byte) {
            (Left::Size(size), digit) if digit.is_ascii_hexdigit() => {
                let value = char::from(digit).to_digit(16).unwrap_or_default();
                Left::Size(size << 4 | u64::from(value))
            }
            (Left::Size(0) | Left::SizeEnd(0), b'\n') => Left::Trailers,
            (Left::Size(size) | Left::SizeEnd(size), b'\n') => Left::Chunk(size),
            // An extension, which has no meaning for us (RFC 9112 section 7.1.1).
            (Left::Size(size) | Left::SizeEnd(size), _) => Left::SizeEnd(size),
            (Left::ChunkEnd(2), b'\r') => Left::ChunkEnd(1),
            (Left::ChunkEnd(1), b'\n') => Left::Size(0),
            _ => return Err(invalid("a chunk is longer than its size")),
        };
        Ok(())
    }

    fn take_trailers(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let had = self.trailers.len();
        self.trailers.extend_from_slice(bytes);
        let end = match self.trailers.starts_with(b"\r\n") {
            true => Some(2),
            false => memchr::memmem::find(&self.trailers, b"\r\n\r\n").map(|at| at + 4),
        };
        let Some(end) = end else {
            return Ok(bytes.len());
        };
        self.left = Left::Nothing;
        match end {
            2 => self.lane.end()?,
            _ => self.lane.trailers(&self.trailers[..end])?,
        }
        Ok(end - had)
    }
}

fn left(shape: Shape, length: u64) -> Left {
    match shape {
        Shape::None => Left::Nothing,
        Shape::Length => Left::Length(length),
        Shape::Chunked => Left::Size(0),
        Shape::Raw => Left::Raw,
    }
}

fn within(left: u64, bytes: &[u8]) -> &[u8] {
    &bytes[..usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))]
}
