//! Clients that speak HTTP/2: each stream goes the way of a connection that carries one request.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::rewrite::Client;
use super::{Fault, Proxy};
use crate::http::conn::{Conn, Cut};
use crate::http2::{End, Open, Stream, serve};
use crate::net::{Buf, Peer, Timer, Transport, Worker};

/// How long a task waits for another stream. Making one costs as much as an eighth of a request, and a connection that is idle
/// should not hold any.
const PATIENCE: Duration = Duration::from_secs(1);

impl Proxy {
    /// Serves a connection of HTTP/2 to its end. `first`: bytes of it that were read already; `request_fields`: whole
    /// field lines added to each of its requests.
    pub async fn serve_http2<T: Transport + Unpin>(
        self: &Rc<Self>,
        io: T,
        first: Option<Buf>,
        peer: Peer,
        worker: Rc<Worker>,
        request_fields: &[u8],
    ) {
        let client = Rc::new(self.client(peer, request_fields).of_http2());
        let settings = &self.settings;
        let bench = Bench::default();
        let start = |stream, open| {
            let Some((stream, open)) = bench.give(stream, open) else {
                return;
            };
            let (proxy, client, worker) = (Rc::clone(self), Rc::clone(&client), Rc::clone(&worker));
            let task = proxy.streams((stream, open), bench.clone(), client, worker);
            drop(tokio::task::spawn_local(task));
        };
        let malformed = |why| {
            tracing::debug!(%peer, why, "a request is malformed");
            self.metrics.fault(Fault::Client);
        };
        self.metrics.http2_connections.inc();
        let (limits, http) = (&settings.http2, &settings.limits);
        let end = serve(io, first, &worker, limits, http, start, malformed).await;
        bench.close();
        match end {
            End::Closed => {}
            End::Protocol => self.metrics.fault(Fault::Client),
            End::Flood => {
                tracing::debug!(%peer, "a client sends frames of control without end");
                self.metrics.floods.inc();
                self.metrics.fault(Fault::Client);
            }
        }
    }

    /// Serves one stream after another.
    async fn streams(
        self: Rc<Self>,
        first: (Stream, Open),
        bench: Bench,
        client: Rc<Client>,
        worker: Rc<Worker>,
    ) {
        let mut timer = worker.clock.timer();
        let seat = Rc::new(Seat::default());
        let mut next = Some(first);
        while let Some((stream, open)) = next {
            let mut conn = Conn::with_timer(stream, timer, Rc::clone(&worker));
            match self.requests(&mut conn, &client).await {
                Ok(()) => conn.finish().await,
                Err(Cut::Closed) => conn.close().await,
                Err(Cut::Timeout | Cut::Broken(_) | Cut::Rejected(_) | Cut::Http2) => {
                    conn.io.abort();
                }
            }
            timer = conn.timer;
            drop((conn.io, open));
            next = bench.wait(&seat, &timer).await;
        }
    }
}

/// The tasks of a connection that wait for a stream.
#[derive(Clone, Default)]
struct Bench(Rc<Waiting>);

#[derive(Default)]
struct Waiting {
    seats: RefCell<Vec<Rc<Seat>>>,
    closed: Cell<bool>,
}

/// One of them.
#[derive(Default)]
struct Seat {
    stream: RefCell<Option<(Stream, Open)>>,
    waker: RefCell<Option<Waker>>,
}

impl Seat {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Bench {
    /// To the one that came last; gives the stream back when none waits.
    fn give(&self, stream: Stream, open: Open) -> Option<(Stream, Open)> {
        let Some(seat) = self.0.seats.borrow_mut().pop() else {
            return Some((stream, open));
        };
        seat.stream.replace(Some((stream, open)));
        seat.wake();
        None
    }

    /// Waits for a stream. None when none came for a while, or none will.
    async fn wait(&self, seat: &Rc<Seat>, timer: &Timer) -> Option<(Stream, Open)> {
        if self.0.closed.get() {
            return None;
        }
        self.0.seats.borrow_mut().push(Rc::clone(seat));
        timer.arm_for(PATIENCE);
        poll_fn(|cx| {
            if let Some(given) = seat.stream.take() {
                return Poll::Ready(Some(given));
            }
            if self.0.closed.get() || timer.expired(cx) {
                self.0
                    .seats
                    .borrow_mut()
                    .retain(|other| !Rc::ptr_eq(other, seat));
                return Poll::Ready(None);
            }
            seat.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// No stream will come.
    fn close(&self) {
        self.0.closed.set(true);
        for seat in self.0.seats.take() {
            seat.wake();
        }
    }
}
