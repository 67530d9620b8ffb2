//! Bytes both ways until both sides have ended: upgraded connections and `--mode tcp`.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::buffer::Buf;
use super::socket::Transport;
use super::worker::Worker;

/// A read of so many bytes is one of many: the next gets a large buffer.
const BUSY_BYTES: usize = 16 * 1024;

/// One direction.
#[derive(Debug)]
struct Lane {
    buf: Option<Buf>,
    /// The last read filled its buffer: the next one gets a large one.
    busy: bool,
    unflushed: bool,
    ended: bool,
    closed: bool,
    moved: u64,
}

impl Lane {
    fn new(buf: Option<Buf>) -> Self {
        Self {
            buf: buf.filter(|buf| !buf.is_empty()),
            busy: false,
            unflushed: false,
            ended: false,
            closed: false,
            moved: 0,
        }
    }

    /// Moves on as far as it can without waiting. Ready when `from` has ended and `to` was told.
    fn poll<A: Transport, B: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut A,
        to: &mut B,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(buf) = &mut self.buf {
                match ready!(to.poll_write(cx, &[IoSlice::new(buf.filled())]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => {
                        buf.consume(count);
                        self.moved += count as u64;
                        self.unflushed = true;
                    }
                }
                if buf.is_empty() {
                    self.buf = None;
                }
                continue;
            }
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.unflushed {
                ready!(to.poll_flush(cx))?;
                self.unflushed = false;
            }
            if self.ended {
                ready!(to.poll_close_write(cx))?;
                self.closed = true;
                continue;
            }
            ready!(from.poll_readable(cx))?;
            let mut buf = if self.busy {
                Buf::large()
            } else {
                Buf::small()
            };
            let count = ready!(from.poll_read(cx, &mut buf))?;
            self.ended = count == 0;
            self.busy = count >= BUSY_BYTES;
            if count > 0 {
                self.buf = Some(buf);
            }
        }
    }
}

/// Moves bytes between `a` and `b` until both have ended, one side has broken off, or neither has sent anything for
/// `idle`. An end of one side is passed on while the other may still send. `from_a` and `from_b` are bytes that were read
/// already. Returns the bytes moved from `a` and from `b`.
pub async fn tunnel<A: Transport, B: Transport>(
    a: &mut A,
    from_a: Option<Buf>,
    b: &mut B,
    from_b: Option<Buf>,
    worker: &Rc<Worker>,
    idle: Duration,
) -> io::Result<(u64, u64)> {
    let timer = worker.clock.timer();
    let (mut there, mut back) = (Lane::new(from_a), Lane::new(from_b));
    timer.arm_for(idle);
    let mut seen = 0;
    let result = poll_fn(|cx| {
        let first = there.poll(cx, a, b);
        let second = back.poll(cx, b, a);
        match (first, second) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => {
                let moved = there.moved + back.moved;
                if moved != seen {
                    seen = moved;
                    timer.arm_for(idle);
                }
                match timer.expired(cx) {
                    true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    false => Poll::Pending,
                }
            }
        }
    })
    .await;
    if result.is_err() {
        a.abort();
        b.abort();
    }
    result.map(|()| (there.moved, back.moved))
}
