//! What streams send.

use std::io;
use std::task::{Context, Poll};

use super::frames::*;
use super::streams::{Handle, broken};
use super::{HEADER_BYTES, MAX_FRAME, Reason, Session};
use crate::http2::halves::{Lane, invalid};

/// Longer names are not looked for.
const NAME_ROOM: usize = 64;

impl Handle {
    /// Ready when there is room for a head.
    pub(in crate::http2) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = &mut *self.session.borrow_mut();
        let entry = &mut session.streams[self.at];
        if entry.reset || session.dead {
            return Poll::Ready(Err(broken()));
        }
        if session.waits() < session.out_most {
            return Poll::Ready(Ok(()));
        }
        if session.queue(self.at, cx) {
            session.crowded.push((self.at, session.streams[self.at].id));
        }
        Poll::Pending
    }

    /// Sends a head: its code and its field lines up to the empty one.
    pub(in crate::http2) fn head(
        &mut self,
        code: &[u8],
        lines: &[u8],
        ends: bool,
        leave_out: &[u8],
    ) -> io::Result<()> {
        let session = &mut *self.session.borrow_mut();
        let mut block = std::mem::take(&mut session.scratch);
        block.clear();
        session.encoder.begin(&mut block);
        session.encoder.status(&mut block, code);
        let written = session.put_lines(&mut block, lines, leave_out);
        match written {
            Some(()) => session.put_block(self.at, &block, ends),
            // What was put into the table is not known to the client.
            None => session.end(Reason::Internal),
        }
        session.scratch = block;
        written.ok_or_else(|| invalid("an answer's head can't be said in HTTP/2"))
    }
}

impl Lane for Handle {
    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        let session = &mut *self.session.borrow_mut();
        let entry = &session.streams[self.at];
        if entry.reset || session.dead {
            return Poll::Ready(Err(broken()));
        }
        let (id, mut window) = (entry.id, entry.window);
        let mut taken = 0;
        while taken < bytes.len() && session.waits() < session.out_most {
            let room = window.min(session.window);
            let room = usize::try_from(room).unwrap_or(0).min(MAX_FRAME);
            let count = room.min(bytes.len() - taken);
            if count == 0 {
                break;
            }
            let ends = last && taken + count == bytes.len();
            session.put_frame(DATA, if ends { END_STREAM } else { 0 }, id, count);
            session.put(&bytes[taken..taken + count]);
            taken += count;
            let count = i64::try_from(count).expect("a frame's length");
            window -= count;
            session.window -= count;
        }
        session.streams[self.at].window = window;
        if taken > 0 {
            if last && taken == bytes.len() {
                session.streams[self.at].send_ended = true;
                session.settle(self.at);
            }
            session.wake_task();
            session.pass_on();
            return Poll::Ready(Ok(taken));
        }
        match window > 0 {
            true if session.queue(self.at, cx) => {
                let id = session.streams[self.at].id;
                session.waiting.push_back((self.at, id));
            }
            true => {}
            false => {
                session.streams[self.at].wait(cx);
                // It may have been its turn, which it can't use.
                session.pass_on();
            }
        }
        Poll::Pending
    }

    fn end(&mut self) -> io::Result<()> {
        let session = &mut *self.session.borrow_mut();
        let entry = &mut session.streams[self.at];
        if entry.reset || session.dead {
            return Err(broken());
        }
        let id = entry.id;
        entry.send_ended = true;
        session.put_frame(DATA, END_STREAM, id, 0);
        session.settle(self.at);
        session.wake_task();
        Ok(())
    }

    fn trailers(&mut self, lines: &[u8]) -> io::Result<()> {
        let session = &mut *self.session.borrow_mut();
        let entry = &session.streams[self.at];
        if entry.reset || session.dead {
            return Err(broken());
        }
        let mut block = Vec::new();
        session.encoder.begin(&mut block);
        if session.put_lines(&mut block, lines, b"").is_none() {
            session.end(Reason::Internal);
            return Err(invalid("trailers are not valid"));
        }
        session.put_block(self.at, &block, true);
        Ok(())
    }
}

impl Session {
    /// Waits for its turn. False when it is in a queue already.
    fn queue(&mut self, at: usize, cx: &mut Context<'_>) -> bool {
        let entry = &mut self.streams[at];
        entry.wait(cx);
        !std::mem::replace(&mut entry.queued, true)
    }

    /// Encodes field lines, which are checked already, without those about a connection of HTTP/1.1. None when they are not
    /// what we would write.
    fn put_lines(&mut self, block: &mut Vec<u8>, lines: &[u8], leave_out: &[u8]) -> Option<()> {
        let mut rest = lines;
        loop {
            let end = memchr::memchr(b'\n', rest)?;
            let line = rest[..end].strip_suffix(b"\r")?;
            rest = &rest[end + 1..];
            if line.is_empty() {
                return Some(());
            }
            let colon = memchr::memchr(b':', line)?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            let mut room = [0; NAME_ROOM];
            let long;
            let name = match room.get_mut(..name.len()) {
                Some(room) => {
                    room.copy_from_slice(name);
                    room.make_ascii_lowercase();
                    &*room
                }
                None => {
                    long = name.to_ascii_lowercase();
                    &long
                }
            };
            if super::asked::is_about_connection(name) || name == leave_out {
                continue;
            }
            self.encoder.field(block, name, value);
        }
    }

    /// Sends a header block of a stream.
    fn put_block(&mut self, at: usize, block: &[u8], ends: bool) {
        let id = self.streams[at].id;
        self.put_block_of(id, block, ends);
        if ends {
            self.streams[at].send_ended = true;
            self.settle(at);
        }
        self.wake_task();
    }

    pub(super) fn put_block_of(&mut self, id: u32, block: &[u8], ends: bool) {
        self.room(block.len() + HEADER_BYTES);
        let mut kind = HEADERS;
        let mut flags = if ends { END_STREAM } else { 0 };
        let mut rest = block;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(MAX_FRAME));
            rest = after;
            if rest.is_empty() {
                flags |= END_HEADERS;
            }
            self.put_frame(kind, flags, id, piece.len());
            self.put(piece);
            if rest.is_empty() {
                return;
            }
            (kind, flags) = (CONTINUATION, 0);
        }
    }
}
