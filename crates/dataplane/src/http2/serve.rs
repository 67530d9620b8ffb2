//! A client's connection of HTTP/2.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::flood::{Flood, PREFACE};
use super::limits::{CONTROL_BURST_SECONDS, Http2Limits};
use super::session::{HEADER_BYTES, MAX_FRAME, Reason, Session, Shared, Step};
use super::stream::Stream;
use crate::http::HttpLimits;
use crate::net::{Buf, NEWCOMER, Timer, Transport, Worker};

/// How long what is left to be said on a connection may take, once it was told to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// A stream that is being served, counted for as long as it is held.
#[derive(Debug)]
pub(crate) struct Open(Rc<Cell<usize>>);

impl Open {
    pub(crate) fn count(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In order, or the client went away.
    Closed,
    /// The client broke the protocol, and was told.
    Protocol,
    /// The client flooded us, and was told.
    Flood,
}

/// Serves `io` to its end: `start` is called for each stream, `malformed` for each request that can't be taken. `first`: bytes that
/// were read already.
///
/// When the process drains the client gets GOAWAY in two steps (RFC 9113 section 6.8): no request that is on its way is lost.
pub(crate) async fn serve<T: Transport + Unpin>(
    io: T,
    first: Option<Buf>,
    worker: &Rc<Worker>,
    limits: &Http2Limits,
    http: &HttpLimits,
    start: impl FnMut(Stream, Open),
    malformed: impl FnMut(&'static str),
) -> End {
    let timer = worker.clock.timer();
    timer.arm_for(http.head_timeout);
    let mut flood = Flood::new(
        PREFACE.len(),
        u64::from(limits.h2_max_control_frames) * CONTROL_BURST_SECONDS,
        limits.control_refill(),
        Instant::now(),
    );
    let first = first.filter(|first| !first.is_empty());
    let flooded = first
        .as_ref()
        .is_some_and(|first| !flood.take(first.filled(), Instant::now));
    let mut life = Life {
        io,
        session: Rc::new(RefCell::new(Session::new(limits, http.head_bytes()))),
        held: first,
        looked: false,
        paused: false,
        flood,
        flooded,
        timer,
        worker: Rc::clone(worker),
        idle_timeout: http.idle_timeout,
        open: Rc::default(),
        stage: Stage::Greeting,
        start,
        malformed,
    };
    poll_fn(|cx| life.poll(cx)).await
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The client's preface did not come yet; the timer says until when it must.
    Greeting,
    /// Streams are open, or may be.
    Busy,
    /// None is; the timer says for how long that may be.
    Idle,
    /// The client was told to go elsewhere; open streams end.
    Leaving,
    /// Nothing is served any more; what is left to be said is sent.
    Ending(End),
}

struct Life<T, S, M> {
    io: T,
    session: Shared,
    /// Read, and not a whole frame.
    held: Option<Buf>,
    /// What is held was looked at.
    looked: bool,
    /// Nothing was read, since too much waits to be sent.
    paused: bool,
    flood: Flood,
    flooded: bool,
    timer: Timer,
    worker: Rc<Worker>,
    idle_timeout: Duration,
    open: Rc<Cell<usize>>,
    stage: Stage,
    start: S,
    malformed: M,
}

impl<T, S, M> Drop for Life<T, S, M> {
    fn drop(&mut self) {
        self.session.borrow_mut().die();
    }
}

impl<T: Transport + Unpin, S: FnMut(Stream, Open), M: FnMut(&'static str)> Life<T, S, M> {
    /// A turn: one read, what it brought, and one write for all that the streams have to say.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.session.borrow_mut().set_task(cx.waker());
        if !self.is_ending() && self.read(cx).is_err() {
            return Poll::Ready(End::Closed);
        }
        loop {
            if self.flooded && !self.is_ending() {
                self.end(End::Flood, Reason::EnhanceYourCalm);
            }
            if self.worker.closing() && matches!(self.stage, Stage::Busy | Stage::Idle) {
                self.session.borrow_mut().leave();
                self.stage = Stage::Leaving;
                self.timer.disarm();
            }
            if self.stage == Stage::Leaving && self.session.borrow().has_left() {
                self.ending(End::Closed);
            }
            let Ok(all) = self.write(cx) else {
                return Poll::Ready(self.ended());
            };
            if self.paused && !self.session.borrow().is_full() {
                // It was not read, and nobody would say that there is something.
                cx.waker().wake_by_ref();
            }
            if all && self.is_ending() && self.io.poll_close_write(cx).is_ready() {
                return Poll::Ready(self.ended());
            }
            self.pace();
            if !self.timer.expired(cx) {
                return Poll::Pending;
            }
            match self.stage {
                Stage::Ending(end) => return Poll::Ready(end),
                Stage::Greeting => return Poll::Ready(End::Closed),
                _ => self.end(End::Closed, Reason::NoError),
            }
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending(_))
    }

    fn ended(&self) -> End {
        match self.stage {
            Stage::Ending(end) => end,
            _ => End::Closed,
        }
    }

    /// Reads once. Error: the connection is over.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.held.is_some() && !self.looked {
            self.take();
        }
        self.paused = self.session.borrow().is_full();
        if self.flooded || self.is_ending() || self.paused {
            return Ok(());
        }
        match self.io.poll_readable(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(readable) => readable?,
        }
        let mut input = self.held.take().unwrap_or_else(Buf::small);
        input.reserve_for(HEADER_BYTES + MAX_FRAME);
        let had = input.len();
        let read = self.io.poll_read(cx, &mut input);
        self.flooded = !self.flood.take(&input.filled()[had..], Instant::now);
        self.held = Some(input).filter(|input| !input.is_empty());
        match read {
            Poll::Pending => return Ok(()),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(_)) => {}
        }
        if !self.flooded {
            self.take();
            // There may be more; the streams come first.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Looks at what is held.
    fn take(&mut self) {
        let Some(mut input) = self.held.take() else {
            return;
        };
        loop {
            let step = self.session.borrow_mut().take(&mut input);
            match step {
                Step::More => break,
                Step::Born(born) => {
                    let open = Open::count(&self.open);
                    (self.start)(Stream::new(&self.session, born), open);
                }
                Step::Malformed(why) => (self.malformed)(why),
                Step::Fatal(reason) => {
                    self.end(End::Protocol, reason);
                    return;
                }
            }
        }
        let faults = self.session.borrow_mut().take_faults();
        self.flooded |= !self.flood.faults(faults, Instant::now);
        if self.stage == Stage::Greeting && self.session.borrow().is_open() {
            self.stage = Stage::Busy;
            self.timer.disarm();
        }
        self.looked = true;
        self.held = Some(input).filter(|input| !input.is_empty());
    }

    /// Sends what there is. True when all of it is with the kernel.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let session = &mut *self.session.borrow_mut();
        let mut sent = 0;
        while let Some(bytes) = session.to_send() {
            match self.io.poll_write(cx, &[IoSlice::new(bytes)]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    let count = count?;
                    session.sent(count);
                    sent += count;
                }
            }
        }
        if sent > 0 {
            self.flood.sent(sent);
            session.pass_on();
        }
        match self.io.poll_flush(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(flushed) => flushed.map(|()| session.to_send().is_none()),
        }
    }

    /// Says why, and serves nothing any more.
    fn end(&mut self, end: End, reason: Reason) {
        self.session.borrow_mut().end(reason);
        self.ending(end);
    }

    fn ending(&mut self, end: End) {
        self.stage = Stage::Ending(end);
        self.timer.arm_for(FAREWELL);
    }

    /// Keeps the deadline of a connection without streams.
    fn pace(&mut self) {
        let quiet = self.open.get() == 0;
        match self.stage {
            Stage::Greeting if self.worker.draining() => self.timer.shorten(NEWCOMER),
            Stage::Busy if quiet => {
                self.stage = Stage::Idle;
                self.timer.arm_for(self.idle_timeout);
            }
            Stage::Idle if !quiet => {
                self.stage = Stage::Busy;
                self.timer.disarm();
            }
            // While it drains, a client that only holds the connection open must not hold that up.
            Stage::Leaving if quiet && self.worker.draining() => self.timer.shorten(FAREWELL),
            Stage::Leaving if !quiet => self.timer.disarm(),
            Stage::Leaving if quiet => self.timer.shorten(self.idle_timeout),
            _ => {}
        }
    }
}
