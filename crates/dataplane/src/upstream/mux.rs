//! A worker's connections of HTTP/2 to one upstream: few, with many requests on each.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::client::{Builder, Connection, SendRequest};
use http::uri::Scheme;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::wire::Wire;
use crate::http2::{Exchange, Io, Open, Payload};

/// Bytes of an answer that an upstream may send before they are taken, for a stream and for all of a connection: what a
/// slow client can make us hold of a fast upstream.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes of a head at most; the proxy's own bound is looked at when it is read.
const HEADER_LIST_BYTES: u32 = 1 << 20;

/// Bytes of a request's body that wait for a slow upstream.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How often a connection is looked at: is it old, does the other side still answer?
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A connection with requests on it is asked so often, and is given up when no answer came until the next time.
const PING_EVERY: Duration = Duration::from_secs(10);

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Mux {
    open: RefCell<Vec<Rc<Line>>>,
    /// Somebody dials; who needs a connection too waits for that one.
    dialling: Cell<bool>,
    dialled: Notify,
}

/// One connection.
struct Line {
    send: RefCell<SendRequest<Payload>>,
    scheme: Scheme,
    used: Cell<Instant>,
    /// Requests on it.
    active: Rc<Cell<usize>>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    /// Streams that may be opened now; None when it is at its end.
    fn room(&self) -> Option<usize> {
        let mut send = self.send.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        match send.poll_ready(&mut cx) {
            Poll::Ready(Err(_)) => None,
            Poll::Ready(Ok(())) | Poll::Pending => {
                let most = send.current_max_send_streams();
                Some(most.saturating_sub(self.active.get()))
            }
        }
    }
}

/// The right to dial; given back in any case.
pub(super) struct Dialling<'a>(&'a Mux);

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.dialling.set(false);
        self.0.dialled.notify_waiters();
    }
}

impl Mux {
    /// A stream on a connection that has room. With as many connections as there may be, one that must wait for its turn.
    pub(super) fn take(&self, most: usize) -> Option<Exchange> {
        let mut open = self.open.borrow_mut();
        let mut best: Option<(usize, Rc<Line>)> = None;
        open.retain(|line| match line.room() {
            Some(room) => {
                if best.as_ref().is_none_or(|(known, _)| room > *known) {
                    best = Some((room, Rc::clone(line)));
                }
                true
            }
            None => false,
        });
        let (room, line) = best?;
        if room == 0 && open.len() < most {
            return None;
        }
        line.used.set(Instant::now());
        let send = line.send.borrow().clone();
        let open = Open::count(&line.active);
        Some(Exchange::new(send, line.scheme.clone(), open))
    }

    /// The right to dial, or None after somebody else has.
    pub(super) async fn dial(&self) -> Option<Dialling<'_>> {
        if self.dialling.get() {
            self.dialled.notified().await;
            return None;
        }
        self.dialling.set(true);
        Some(Dialling(self))
    }

    /// Speaks HTTP/2 on `wire` from now on.
    pub(super) async fn add(
        self: &Rc<Self>,
        wire: Wire,
        scheme: Scheme,
        idle_timeout: Duration,
    ) -> io::Result<()> {
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .enable_push(false);
        let (send, connection) = builder
            .handshake(Io::new(wire))
            .await
            .map_err(io::Error::other)?;
        let line = Rc::new(Line {
            send: RefCell::new(send),
            scheme,
            used: Cell::new(Instant::now()),
            active: Rc::default(),
        });
        let kept = Rc::downgrade(&line);
        self.open.borrow_mut().push(line);
        let mux = Rc::downgrade(self);
        drop(tokio::task::spawn_local(live(
            connection,
            kept,
            mux,
            idle_timeout,
        )));
        Ok(())
    }

    /// Opens nothing more on what is open.
    pub(super) fn clear(&self) {
        self.open.borrow_mut().clear();
    }

    fn remove(&self, gone: &Weak<Line>) {
        self.open
            .borrow_mut()
            .retain(|line| !std::ptr::eq(Rc::as_ptr(line), gone.as_ptr()));
    }
}

/// Moves a connection's frames until it ends: with its last stream once nobody can open another.
async fn live(
    mut connection: Connection<Io<Wire>, Payload>,
    line: Weak<Line>,
    mux: Weak<Mux>,
    idle_timeout: Duration,
) {
    let mut pings = connection.ping_pong();
    let mut asked: Option<Instant> = None;
    loop {
        let ended = tokio::time::timeout(LOOK_EVERY, &mut connection).await;
        if ended.is_ok() {
            break;
        }
        let now = Instant::now();
        if let (Some(pings), Some(since)) = (&mut pings, asked) {
            let mut cx = Context::from_waker(Waker::noop());
            match pings.poll_pong(&mut cx) {
                Poll::Ready(Ok(_)) => asked = None,
                Poll::Ready(Err(_)) => break,
                // What waits for it gets an error, and may be sent elsewhere.
                Poll::Pending if now.duration_since(since) >= PING_EVERY => break,
                Poll::Pending => {}
            }
        }
        let Some(line) = line.upgrade() else {
            continue;
        };
        let busy = line.active.get() > 0;
        let idle = now.duration_since(line.used.get());
        if !busy && idle >= idle_timeout {
            if let Some(mux) = mux.upgrade() {
                mux.remove(&Rc::downgrade(&line));
            }
        } else if busy
            && asked.is_none()
            && idle >= PING_EVERY
            && let Some(pings) = &mut pings
            && pings.send_ping(h2::Ping::opaque()).is_ok()
        {
            asked = Some(now);
        }
    }
    if let Some(mux) = mux.upgrade() {
        mux.remove(&line);
    }
}
