//! A transport in memory, for tests: bytes come in pieces of any size, room is bounded.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Buf, Transport};

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    bytes: VecDeque<u8>,
    ended: bool,
    /// Nobody reads any more.
    broken: bool,
    /// The end is not an orderly one.
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn wake(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    incoming: Rc<RefCell<Lane>>,
    outgoing: Rc<RefCell<Lane>>,
    /// Bytes taken at a time, over and over.
    pieces: Vec<usize>,
    next: usize,
    /// Bytes that may wait in the outgoing lane.
    room: usize,
}

/// A connection. Both ends read and write in `pieces`, and at most `room` bytes wait in each direction.
pub(crate) fn pair(pieces: &[usize], room: usize) -> (End, End) {
    let (a, b) = (Rc::new(RefCell::default()), Rc::new(RefCell::default()));
    let end = |incoming: &Rc<_>, outgoing: &Rc<_>| End {
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        pieces: pieces.to_vec(),
        next: 0,
        room,
    };
    (end(&a, &b), end(&b, &a))
}

impl End {
    fn piece(&mut self) -> usize {
        let piece = self.pieces[self.next % self.pieces.len()];
        self.next += 1;
        piece.max(1)
    }

    /// Writes all of `bytes`.
    pub(crate) async fn put(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let part = [IoSlice::new(&bytes[at..])];
            match std::future::poll_fn(|cx| self.poll_write(cx, &part)).await {
                Ok(count) => at += count,
                Err(_) => return,
            }
        }
    }

    /// Says that nothing more comes.
    pub(crate) async fn end(&mut self) {
        std::future::poll_fn(|cx| self.poll_close_write(cx))
            .await
            .unwrap();
    }

    /// Reads to the end. An error is shown as `!` at the end of what came before it.
    pub(crate) async fn get_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let mut buf = Buf::small();
            match std::future::poll_fn(|cx| self.poll_read(cx, &mut buf)).await {
                Ok(0) => return all,
                Ok(_) => all.extend_from_slice(buf.filled()),
                Err(_) => {
                    all.push(b'!');
                    return all;
                }
            }
        }
    }

    /// Reads until what came ends with `tail`.
    pub(crate) async fn get_until(&mut self, tail: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        while !all.ends_with(tail) {
            let mut buf = Buf::small();
            match std::future::poll_fn(|cx| self.poll_read(cx, &mut buf)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => all.extend_from_slice(buf.filled()),
            }
        }
        all
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut incoming = self.incoming.borrow_mut();
        incoming.broken = true;
        incoming.wake();
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.ended = true;
        outgoing.wake();
    }
}

impl Transport for End {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut lane = self.incoming.borrow_mut();
        if lane.bytes.is_empty() && !lane.ended {
            lane.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buf) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_readable(cx))?;
        let piece = self.piece();
        let mut lane = self.incoming.borrow_mut();
        if lane.reset && lane.bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = piece.min(lane.bytes.len()).min(into.spare().len());
        for (slot, byte) in into.spare().iter_mut().zip(lane.bytes.drain(..count)) {
            *slot = byte;
        }
        into.added(count);
        lane.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let piece = self.piece();
        let mut lane = self.outgoing.borrow_mut();
        if lane.broken || lane.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = piece.min(self.room.saturating_sub(lane.bytes.len()));
        if count == 0 {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = lane.bytes.len();
        lane.bytes.extend(
            parts
                .iter()
                .flat_map(|part| part.iter().copied())
                .take(count),
        );
        lane.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(lane.bytes.len() - before))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut lane = self.outgoing.borrow_mut();
        lane.ended = true;
        lane.wake();
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {
        let mut lane = self.outgoing.borrow_mut();
        lane.reset = true;
        lane.ended = true;
        lane.wake();
    }
}
