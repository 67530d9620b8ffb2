//! A client's connection of HTTP/2.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use h2::Reason;
use h2::server::{Builder, Connection};
use tokio::time::Instant;

use super::flood::{Flood, PREFACE};
use super::halves::Payload;
use super::io::Io;
use super::limits::{CONTROL_BURST_SECONDS, Http2Limits};
use super::stream::Stream;
use super::trailers::Malformed;
use crate::http::HttpLimits;
use crate::net::{Buf, NEWCOMER, Timer, Transport, Worker};

/// Streams that a client reset before they were looked at, at most (CVE-2023-44487); h2's own default.
const UNSEEN_RESETS: usize = 20;

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

/// What happens next on a connection.
enum Event {
    Stream(Stream, Open),
    /// A request that can't be taken.
    Malformed(&'static str),
    End(End),
}

/// Serves `io` to its end: `start` is called for each stream. `first`: bytes that were read already.
///
/// When the process drains the client gets GOAWAY in two steps (RFC 9113 section 6.8): no request that is on its way is lost.
pub(crate) async fn serve<T: Transport + Unpin>(
    io: T,
    first: Option<Buf>,
    worker: &Rc<Worker>,
    limits: &Http2Limits,
    http: &HttpLimits,
    mut start: impl FnMut(Stream, Open),
    mut malformed: impl FnMut(&'static str),
) -> End {
    let timer = worker.clock.timer();
    let flooded = Rc::new(Cell::new(false));
    let burst = u64::from(limits.h2_max_control_frames) * CONTROL_BURST_SECONDS;
    let flood = Flood::new(
        PREFACE.len(),
        burst,
        limits.control_refill(),
        Instant::now(),
    );
    let malformed_trailers = flood.malformed();
    let io = Io::new(io, first, Some(flood), Rc::clone(&flooded));
    let connection = match handshake(io, &flooded, &timer, worker, limits, http).await {
        Ok(connection) => connection,
        Err(end) => return end,
    };
    timer.disarm();
    let mut life = Life {
        connection,
        timer,
        worker: Rc::clone(worker),
        idle_timeout: http.idle_timeout,
        open: Rc::default(),
        flooded,
        malformed_trailers,
        stage: Stage::Busy,
    };
    loop {
        match life.next().await {
            Event::Stream(stream, open) => start(stream, open),
            Event::Malformed(why) => malformed(why),
            Event::End(end) => return end,
        }
    }
}

async fn handshake<T: Transport + Unpin>(
    io: Io<T>,
    flooded: &Cell<bool>,
    timer: &Timer,
    worker: &Worker,
    limits: &Http2Limits,
    http: &HttpLimits,
) -> Result<Connection<Io<T>, Payload>, End> {
    let mut builder = Builder::new();
    builder
        .initial_window_size(limits.stream_window())
        .initial_connection_window_size(limits.connection_window())
        .max_concurrent_streams(limits.h2_max_streams)
        .max_header_list_size(u32::try_from(http.head_bytes()).unwrap_or(u32::MAX))
        .max_send_buffer_size(limits.send_buffer())
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .enable_connect_protocol();
    let mut shake = pin!(builder.handshake(io));
    timer.arm_for(http.head_timeout);
    poll_fn(|cx| match shake.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result.map_err(|_| End::Closed)),
        // Together with the preface already: there is no connection yet that could say why it ends.
        Poll::Pending if flooded.get() => Poll::Ready(Err(End::Flood)),
        Poll::Pending => {
            if worker.draining() {
                timer.shorten(NEWCOMER);
            }
            match timer.expired(cx) {
                true => Poll::Ready(Err(End::Closed)),
                false => Poll::Pending,
            }
        }
    })
    .await
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Streams are open, or may be.
    Busy,
    /// None is; the timer says for how long that may be.
    Idle,
    /// The client was told to go elsewhere; open streams end.
    Leaving,
    /// Nothing is served any more; what is left to be said is sent.
    Ending(End),
}

struct Life<T> {
    connection: Connection<Io<T>, Payload>,
    timer: Timer,
    worker: Rc<Worker>,
    idle_timeout: Duration,
    open: Rc<Cell<usize>>,
    flooded: Rc<Cell<bool>>,
    malformed_trailers: Malformed,
    stage: Stage,
}

impl<T: Transport + Unpin> Life<T> {
    async fn next(&mut self) -> Event {
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
                    return Poll::Ready(match accepted {
                        Some(Ok((request, respond))) => {
                            let open = Open::count(&self.open);
                            match Stream::new(request, respond, &self.malformed_trailers) {
                                Ok(stream) => Event::Stream(stream, open),
                                Err(malformed) => Event::Malformed(malformed.0),
                            }
                        }
                        Some(Err(error)) if error.is_io() || error.is_remote() => {
                            Event::End(End::Closed)
                        }
                        Some(Err(_)) => Event::End(End::Protocol),
                        None => Event::End(match self.stage {
                            Stage::Ending(end) => end,
                            _ => End::Closed,
                        }),
                    });
                }
                if self.flooded.get() && !matches!(self.stage, Stage::Ending(_)) {
                    self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    self.ending(End::Flood);
                    continue;
                }
                if self.worker.closing() && matches!(self.stage, Stage::Busy | Stage::Idle) {
                    self.connection.graceful_shutdown();
                    self.stage = Stage::Leaving;
                    self.timer.disarm();
                    continue;
                }
                self.pace();
                if !self.timer.expired(cx) {
                    return Poll::Pending;
                }
                match self.stage {
                    Stage::Ending(end) => return Poll::Ready(Event::End(end)),
                    _ => {
                        self.connection.abrupt_shutdown(Reason::NO_ERROR);
                        self.ending(End::Closed);
                    }
                }
            }
        })
        .await
    }

    fn ending(&mut self, end: End) {
        self.stage = Stage::Ending(end);
        self.timer.arm_for(FAREWELL);
    }

    /// Keeps the deadline of a connection without streams.
    fn pace(&mut self) {
        let quiet = self.open.get() == 0;
        match self.stage {
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
