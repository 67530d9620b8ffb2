//! The near side of a connection: what a client has sent, and what it is to be sent, whatever is spoken.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::reply::Outbox;
use crate::net::{Buf, Socket, Timer, Transport, asked};

/// Commands of one client without a reply before no more are read from it.
pub(crate) const MOST_WAITING: usize = 4096;
/// Bytes that a client has not taken before no more are read from it.
pub(crate) const MOST_UNREAD: usize = 256 * 1024;
/// With fewer bytes ready, and more to come, a client is written to only after the other servers have been looked at.
const SOON_BYTES: usize = 16 * 1024;
/// A read of so many bytes is one of many: the next gets a large buffer.
const BUSY_BYTES: usize = 16 * 1024;

/// A client's socket and what is on its way over it.
pub(crate) struct Near {
    pub(crate) socket: Socket,
    pub(crate) outbox: Rc<Outbox>,
    /// What was read and not understood yet.
    pub(crate) input: Option<Buf>,
    /// The last read was one of many.
    busy: bool,
    /// What is ready waits for more, until the sockets have been looked at.
    waited: bool,
    /// When it was last heard of; see [`asked`].
    heard: u32,
    /// Armed only where silence is bounded.
    timer: Timer,
    silence: Duration,
}

impl Near {
    /// `silence`: how long a client may say nothing; zero: as long as it likes.
    pub(crate) fn new(socket: Socket, timer: Timer, silence: Duration) -> Self {
        Self {
            socket,
            outbox: Rc::default(),
            input: None,
            busy: false,
            waited: false,
            heard: 0,
            timer,
            silence,
        }
    }

    /// It was silent for too long. It is looked at again when that may be, and when the process drains.
    pub(crate) fn is_over(&self, cx: &Context<'_>) -> bool {
        self.timer.expired(cx)
    }

    /// A part of the replies is ready, and the others may be here in a moment: one write instead of several. Once; then what is
    /// there is written.
    pub(crate) fn may_wait(&mut self, cx: &mut Context<'_>) -> bool {
        let bytes = self.outbox.bytes();
        let partly = bytes > 0 && bytes < SOON_BYTES && self.outbox.waiting() > 0;
        self.waited = partly && !self.waited;
        if self.waited {
            // Wakes this task after the sockets have been looked at.
            let yielded = pin!(tokio::task::yield_now());
            return yielded.poll(cx).is_pending();
        }
        false
    }

    /// Writes what is ready; true when nothing is left.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let socket = &mut self.socket;
        self.outbox.with(|out| {
            while let Some(buf) = out {
                match socket.poll_write(cx, &[IoSlice::new(buf.filled())]) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(count)) => buf.consume(count),
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => return Ok(false),
                }
                if buf.is_empty() {
                    *out = None;
                }
            }
            Ok(true)
        })
    }

    /// Reads more of the input. 0 is the end.
    pub(crate) fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.socket.poll_readable(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(result) => result?,
        }
        let fresh = || match self.busy {
            true => Buf::large(),
            false => Buf::small(),
        };
        let buf = self.input.get_or_insert_with(fresh);
        // A value that is larger than the buffer: it grows with what has come.
        let room = if buf.len() > BUSY_BYTES { buf.len() } else { 1 };
        buf.reserve(room);
        let read = self.socket.poll_read(cx, buf);
        if buf.is_empty() {
            self.input = None;
        }
        if let Poll::Ready(Ok(count)) = read {
            asked(&mut self.heard);
            self.busy = count >= BUSY_BYTES;
            if !self.silence.is_zero() {
                self.timer.arm_for(self.silence);
            }
        }
        read
    }
}
