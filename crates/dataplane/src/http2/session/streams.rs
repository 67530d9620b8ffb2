//! The streams of a connection.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Reason, Session, Shared};
use crate::net::Buf;

/// Bytes of a body's room that are kept for the next stream.
const ROOM_KEPT: usize = 16 * 1024;

/// One stream, for as long as somebody holds it.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) id: u32,
    /// What came and was not read begins at `read`.
    pub(super) body: Vec<u8>,
    pub(super) read: usize,
    /// Trailers as field lines.
    pub(super) trailers: Option<Vec<u8>>,
    pub(super) recv_window: i64,
    pub(super) recv_taken: i64,
    /// What Content-Length says is still to come.
    pub(super) length: Option<u64>,
    /// The client has said all.
    pub(super) recv_ended: bool,
    pub(super) window: i64,
    /// We have.
    pub(super) send_ended: bool,
    /// It was broken off, by one side or the other.
    pub(super) reset: bool,
    /// The client did.
    pub(super) reset_by_client: bool,
    /// What is wrong with it.
    pub(super) wrong: Option<&'static str>,
    /// It is among those that wait for room.
    pub(super) queued: bool,
    pub(super) counted: bool,
    pub(super) waker: Option<Waker>,
}

impl Entry {
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn wait(&mut self, cx: &mut Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    /// Nothing may come for it any more, and the client knows.
    pub(super) fn is_closed(&self) -> bool {
        self.reset_by_client || self.recv_ended && self.send_ended && !self.reset
    }

    pub(super) fn unread(&self) -> usize {
        self.body.len() - self.read
    }
}

/// A stream, as who serves it holds it. Dropped before it is over, it is broken off.
pub(in crate::http2) struct Handle {
    pub(super) session: Shared,
    pub(super) at: usize,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.session.borrow_mut().let_go(self.at);
    }
}

impl Handle {
    pub(in crate::http2) fn new(session: &Shared, at: usize) -> Self {
        let session = Rc::clone(session);
        Self { session, at }
    }

    /// Ready when there is something to read, or all was read.
    pub(in crate::http2) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = &mut *self.session.borrow_mut();
        let entry = &mut session.streams[self.at];
        if let Some(why) = entry.wrong {
            return Poll::Ready(Err(super::super::halves::invalid(why)));
        }
        if entry.reset || session.dead && !entry.recv_ended {
            return Poll::Ready(Err(broken()));
        }
        if entry.unread() > 0 || entry.recv_ended {
            return Poll::Ready(Ok(()));
        }
        entry.wait(cx);
        Poll::Pending
    }

    /// Ready when it is broken off.
    pub(in crate::http2) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let session = &mut *self.session.borrow_mut();
        let entry = &mut session.streams[self.at];
        if entry.reset || session.dead {
            return Poll::Ready(broken());
        }
        entry.wait(cx);
        Poll::Pending
    }

    /// Bytes that came and were not read.
    pub(in crate::http2) fn unread(&self) -> usize {
        self.session.borrow().streams[self.at].unread()
    }

    /// The client has said all.
    pub(in crate::http2) fn is_ended(&self) -> bool {
        self.session.borrow().streams[self.at].recv_ended
    }

    /// Something about it is wrong by the protocol.
    pub(in crate::http2) fn is_malformed(&self) -> bool {
        self.session.borrow().streams[self.at].wrong.is_some()
    }

    /// Moves `count` bytes of those that came.
    pub(in crate::http2) fn read(&mut self, count: usize, into: &mut Buf) {
        let session = &mut *self.session.borrow_mut();
        let entry = &mut session.streams[self.at];
        into.put(&entry.body[entry.read..entry.read + count]);
        entry.read += count;
        if entry.read == entry.body.len() {
            entry.body.clear();
            entry.read = 0;
        } else if entry.read * 2 >= entry.body.len() {
            entry.body.drain(..entry.read);
            entry.read = 0;
        }
        session.released(self.at, count);
    }

    /// The trailers' field lines, once the body is read.
    pub(in crate::http2) fn take_trailers(&mut self) -> Option<Vec<u8>> {
        self.session.borrow_mut().streams[self.at].trailers.take()
    }

    /// Breaks it off.
    pub(in crate::http2) fn reset(&mut self, reason: Reason) {
        self.session.borrow_mut().reset(self.at, reason);
    }
}

pub(super) fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Session {
    /// Who holds the stream `id`.
    pub(super) fn find(&self, id: u32) -> Option<usize> {
        let place = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.by_id[place].1)
    }

    /// A stream that came.
    pub(super) fn open(&mut self, id: u32, ends: bool, length: Option<u64>) -> usize {
        let at = self.free.pop().unwrap_or_else(|| {
            self.streams.push(Entry::default());
            self.streams.len() - 1
        });
        let entry = &mut self.streams[at];
        *entry = Entry {
            id,
            body: std::mem::take(&mut entry.body),
            recv_window: self.stream_window + self.lenience,
            window: self.first_window,
            recv_ended: ends,
            length,
            counted: true,
            ..Entry::default()
        };
        self.active += 1;
        self.by_id.push_back((id, at));
        at
    }

    /// Counts a stream that is over for both sides no more.
    pub(super) fn settle(&mut self, at: usize) {
        let entry = &mut self.streams[at];
        let over = entry.reset || entry.recv_ended && entry.send_ended;
        if over && std::mem::take(&mut entry.counted) {
            self.active -= 1;
        }
    }

    /// Breaks a stream off, if it is not over.
    pub(super) fn reset(&mut self, at: usize, reason: Reason) {
        let entry = &mut self.streams[at];
        if entry.reset || self.dead || entry.recv_ended && entry.send_ended {
            return;
        }
        entry.reset = true;
        entry.wake();
        let (id, ended) = (entry.id, entry.recv_ended);
        self.refuse(id, ended, reason);
        self.settle(at);
    }

    /// Sends RST_STREAM. `ended`: the client has said all.
    pub(super) fn refuse(&mut self, id: u32, ended: bool, reason: Reason) {
        self.put_reset(id, reason);
        if !ended {
            if self.resets.len() == super::RESETS_KEPT {
                self.resets.pop_front();
                self.resets_forgotten = true;
            }
            self.resets.push_back(id);
        }
        self.wake_task();
    }

    /// So many bytes of a stream's body were read.
    fn released(&mut self, at: usize, count: usize) {
        let bytes = i64::try_from(count).expect("less than a window");
        let entry = &mut self.streams[at];
        entry.recv_taken += bytes;
        if entry.recv_taken * 2 >= self.stream_window && !entry.recv_ended && !entry.reset {
            let more = std::mem::take(&mut entry.recv_taken);
            entry.recv_window += more;
            let id = entry.id;
            self.put_update(id, more);
            self.wake_task();
        }
        self.took(bytes);
    }

    /// Nobody serves it any more.
    fn let_go(&mut self, at: usize) {
        let entry = &mut self.streams[at];
        let reason = match entry.send_ended {
            // The rest of the request is not wanted (RFC 9113 section 8.1).
            true => Reason::NoError,
            false => Reason::Cancel,
        };
        let unread = entry.unread();
        entry.body.clear();
        entry.body.shrink_to(ROOM_KEPT);
        entry.read = 0;
        entry.waker = None;
        let id = entry.id;
        self.reset(at, reason);
        self.took(i64::try_from(unread).expect("less than a window"));
        let entry = &mut self.streams[at];
        if std::mem::take(&mut entry.counted) {
            self.active -= 1;
        }
        entry.id = 0;
        if std::mem::take(&mut entry.queued) {
            self.waiting.retain(|(_, other)| *other != id);
            self.crowded.retain(|(_, other)| *other != id);
        }
        if let Ok(place) = self.by_id.binary_search_by_key(&id, |(id, _)| *id) {
            self.by_id.remove(place);
        }
        self.free.push(at);
        self.pass_on();
        if self.by_id.is_empty() {
            self.wake_task();
        }
    }
}
