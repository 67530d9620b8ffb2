//! One try at getting a request answered: send it, wait for the head of the answer, relay the answer.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};
use std::time::Duration;

use super::exchange::{After, Fail, Sent, Try};
use super::pace::Pace;
use super::pump::Pump;
use super::relay::{Relay, RelayError, Waits};
use super::rewrite::{Framing, ResponseOptions, put_response};
use super::watch::Watch;
use super::{Fault, Proxy};
use crate::http::conn::{Conn, Cut, Found};
use crate::http::head::{BodyKind, Method, Scanner};
use crate::http::reject::Reject;
use crate::net::{Buf, Transport, tunnel};
use crate::upstream::{UpstreamLimits, Wire};

/// Interim answers that are forwarded for one request; more are an upstream that has lost its way.
const MAX_INTERIM: u32 = 32;

/// What became of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) after: After,
    pub(super) reusable: bool,
    /// Bytes that went to the client.
    pub(super) bytes: u64,
}

impl Proxy {
    /// One try. `kept`: the connection was used before, and may have been closed by the upstream meanwhile.
    pub(super) async fn attempt<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        try_on: &Try<'_>,
        out: &Buf,
        pump: &mut Option<Pump>,
        upstream: &mut Wire,
        kept: bool,
    ) -> Result<Answered, Fail> {
        let limits = try_on.forward.cluster.limits();
        let (asked, name) = (try_on.asked, try_on.picked.endpoint().name());
        let whole = pump.is_none();
        // All of it went out at once, so that all of it can go out again.
        let harmless = whole && asked.method.is_idempotent();
        conn.timer.arm(try_on.deadline);
        if let Err(failed) = Self::send_head(conn, out, upstream).await {
            match failed {
                // Nothing of it went out.
                SendFail {
                    sent: 0,
                    timeout: false,
                } if kept => return Err(Fail::Stale),
                SendFail { sent: 0, timeout } => {
                    let status = if timeout { 504 } else { 502 };
                    let why = "the upstream takes no request";
                    return Err(Fail::Again(Sent::Nothing, Fault::Upstream, status, why));
                }
                SendFail { timeout: true, .. } => {
                    let why = "the upstream takes no request";
                    return Err(Fail::Tell(Fault::Upstream, 504, why));
                }
                // It may have answered before it closed.
                SendFail { .. } => {}
            }
        }
        let mut input = None;
        let mut interim = 0;
        loop {
            let got = self
                .receive_head(
                    conn,
                    pump,
                    (upstream, limits.response_timeout),
                    &mut input,
                    asked.method,
                )
                .await;
            // Neither an interim answer nor the begin of one came.
            let nothing = interim == 0 && input.is_none();
            let found = match got {
                Ok(Some(found)) => found,
                Ok(None) if kept && harmless && nothing => return Err(Fail::Stale),
                // It says so itself, and so it may go elsewhere (RFC 9113 section 8.7).
                Ok(None) if whole && nothing && upstream.is_unprocessed() => {
                    if kept {
                        return Err(Fail::Stale);
                    }
                    let why = "the upstream refuses the request";
                    return Err(Fail::Again(Sent::Nothing, Fault::Upstream, 503, why));
                }
                Ok(None) => {
                    let why = "the upstream closed without an answer";
                    return Err(match harmless && nothing {
                        true => Fail::Again(Sent::Harmless, Fault::Upstream, 502, why),
                        false => Fail::Tell(Fault::Upstream, 502, why),
                    });
                }
                Err(Fail::Tell(fault, 504, why)) if harmless && nothing => {
                    return Err(Fail::Again(Sent::Harmless, fault, 504, why));
                }
                Err(fail) => return Err(fail),
            };
            let (head, out) =
                self.take_response(conn, &mut input, found, try_on, pump.is_none())?;
            if head.status == 101 && !whole && pump.is_some() {
                let why = "the upstream changed to another protocol in the middle of a request";
                return Err(Fail::Tell(Fault::Upstream, 502, why));
            }
            if head.status == 101 {
                // Boxed: it is rare, and other requests should not have room for it.
                let tunnel = self.tunnel(conn, upstream, input, out, limits.tunnel_timeout);
                return Box::pin(tunnel).await;
            }
            if head.status < 200 {
                interim += 1;
                if interim > MAX_INTERIM {
                    let why = "the upstream sends interim answers without end";
                    return Err(Fail::Tell(Fault::Upstream, 502, why));
                }
                // They are for clients that know them (RFC 9110 section 15.2).
                if asked.minor == 1 {
                    let pause = self.settings.limits.idle_timeout;
                    conn.send(&[out.filled()], pause)
                        .await
                        .map_err(Fail::Client)?;
                    conn.timer.arm_for(limits.response_timeout);
                }
                continue;
            }
            let last = !head.keep_alive;
            let mut relay = Relay::new(head.body, head.framing, last, out, input);
            self.relay(conn, pump, upstream, &mut relay, (name, limits))
                .await?;
            let complete = pump.is_none();
            return Ok(Answered {
                status: head.status,
                after: After::of(*asked, head.keep_alive && complete),
                reusable: head.reusable && complete && relay.is_clean(),
                bytes: relay.progress(),
            });
        }
    }

    /// This and what follows are not `async fn`, which would have room for what they are given twice.
    fn send_head<T: Transport>(
        conn: &Conn<T>,
        out: &Buf,
        upstream: &mut Wire,
    ) -> impl Future<Output = Result<(), SendFail>> {
        let bytes = out.filled();
        let mut sent = 0;
        poll_fn(move |cx| {
            while sent < bytes.len() {
                let part = [IoSlice::new(&bytes[sent..])];
                match upstream.poll_write(cx, &part) {
                    Poll::Ready(Ok(count @ 1..)) => sent += count,
                    Poll::Ready(_) => {
                        return Poll::Ready(Err(SendFail {
                            sent,
                            timeout: false,
                        }));
                    }
                    Poll::Pending if conn.timer.expired(cx) => {
                        return Poll::Ready(Err(SendFail {
                            sent,
                            timeout: true,
                        }));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Waits for a whole head while the body goes out; None when the upstream closed before it.
    fn receive_head<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        pump: &mut Option<Pump>,
        (upstream, response_timeout): (&mut Wire, Duration),
        input: &mut Option<Buf>,
        method: Method,
    ) -> impl Future<Output = Result<Option<Found>, Fail>> {
        let limits = &self.settings.limits;
        let (mut scanner, mut tried) = (Scanner::default(), false);
        let head_bytes = limits.head_bytes();
        let mut pace = Pace::new(pump.as_ref(), response_timeout);
        let mut watch = Watch::new(conn, pump.as_ref());
        poll_fn(move |cx| {
            loop {
                if let Some(have) = input.as_ref().filter(|input| !input.is_empty()) {
                    if !tried {
                        tried = true;
                        let mut head = self.response.borrow_mut();
                        let taken =
                            head.take(have.filled(), limits.fields(), method == Method::Head);
                        if let Some(len) = taken.filter(|len| *len <= head_bytes) {
                            return Poll::Ready(Ok(Some(Found { len, parsed: true })));
                        }
                    }
                    match scanner.find(have.filled(), false) {
                        Ok(Some(len)) if len <= head_bytes => {
                            return Poll::Ready(Ok(Some(Found { len, parsed: false })));
                        }
                        Ok(None) if have.len() < head_bytes => {}
                        Ok(_) => {
                            let why = "the upstream's answer has a head that is too large";
                            return Poll::Ready(Err(Fail::Tell(Fault::Upstream, 502, why)));
                        }
                        Err(_) => unreachable!("line ends of answers are not checked"),
                    }
                }
                match poll_more(cx, upstream, input, head_bytes) {
                    Poll::Ready(Ok(1..)) => continue,
                    Poll::Ready(_) => return Poll::Ready(Ok(None)),
                    Poll::Pending => {}
                }
                break;
            }
            if let Err(fail) = pace.pump(cx, conn, pump, upstream, &self.settings.limits) {
                return Poll::Ready(Err(fail));
            }
            watch.begin(cx, conn);
            if pump.is_none() && conn.input().is_empty() {
                watch.look(cx, conn)?;
            }
            if conn.timer.expired(cx) {
                return Poll::Ready(Err(match pump {
                    Some(pump) if pump.is_waiting_for_client() => Fail::Reject(Reject::BodyTimeout),
                    _ => Fail::Tell(Fault::Upstream, 504, "the upstream did not answer in time"),
                }));
            }
            Poll::Pending
        })
    }

    /// Parses an answer's head and writes it for the client. Waits for nothing.
    fn take_response<T: Transport>(
        &self,
        conn: &Conn<T>,
        input: &mut Option<Buf>,
        Found { len, parsed }: Found,
        try_on: &Try<'_>,
        complete: bool,
    ) -> Result<(Taken, Buf), Fail> {
        let limits = &self.settings.limits;
        let asked = try_on.asked;
        let wrong = |why| Fail::Tell(Fault::Upstream, 502, why);
        let Some(have) = input else {
            return Err(wrong("the upstream's answer is empty"));
        };
        let bytes = &have.filled()[..len];
        let mut head = self.response.borrow_mut();
        // Nobody else's was parsed since: nothing was waited for.
        let parsed = match parsed {
            true => Ok(()),
            false => head.parse(bytes, limits.fields(), asked.method == Method::Head),
        };
        if let Err(reject) = parsed {
            tracing::debug!(upstream = try_on.picked.endpoint().name(), why = %reject, "the answer is not valid");
            return Err(wrong("the upstream's answer is not valid HTTP"));
        }
        let status = head.status();
        if status == 101 && !(asked.wants_upgrade && head.upgrade().is_some()) {
            return Err(wrong(
                "the upstream changed to another protocol without being asked",
            ));
        }
        let framing = match head.body() {
            BodyKind::Chunked | BodyKind::UntilClose if asked.minor == 0 => Framing::Close,
            BodyKind::Chunked | BodyKind::UntilClose => Framing::Chunked,
            BodyKind::None | BodyKind::Length(_) => Framing::Kept,
        };
        let keep_alive =
            asked.keep_alive && complete && framing != Framing::Close && !conn.worker.closing();
        let taken = Taken {
            status,
            body: head.body(),
            framing,
            keep_alive,
            reusable: head.keep_alive(),
        };
        let options = ResponseOptions {
            framing,
            connection: match (keep_alive, asked.minor) {
                _ if status < 200 => None,
                (false, _) => Some("close"),
                (true, 0) => Some("keep-alive"),
                (true, _) => None,
            },
            more: try_on.forward.settings.response_fields.as_bytes(),
            staged: try_on.staged,
            // A session that is new, or whose endpoint is lost.
            cookie: match asked.wanted.sticky == Some(try_on.picked.endpoint().id()) {
                true => b"",
                false => try_on.picked.cookie().as_bytes(),
            },
        };
        let mut out = Buf::small();
        put_response(&mut out, &mut head, bytes, options);
        have.consume(len);
        if have.is_empty() {
            *input = None;
        }
        Ok((taken, out))
    }

    /// Sends the answer's head and body while the request's body may still go out.
    fn relay<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        pump: &mut Option<Pump>,
        upstream: &mut Wire,
        relay: &mut Relay,
        (name, upstream_limits): (&str, &UpstreamLimits),
    ) -> impl Future<Output = Result<(), Fail>> {
        let limits = &self.settings.limits;
        let mut pace = Pace::beside_answer(pump.as_ref(), upstream_limits);
        let mut waited: Option<(Waits, u64)> = None;
        poll_fn(move |cx| {
            match relay.poll(cx, conn, upstream, limits) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(RelayError::Client(cut))) => {
                    return Poll::Ready(Err(Fail::Client(cut)));
                }
                Poll::Ready(Err(RelayError::Upstream(why))) => {
                    tracing::debug!(upstream = name, why, "an answer is incomplete");
                    return Poll::Ready(Err(Fail::Broken(Fault::Upstream)));
                }
                Poll::Pending => {}
            }
            if let Err(fail) = pace.pump(cx, conn, pump, upstream, &self.settings.limits) {
                return Poll::Ready(Err(match fail {
                    Fail::Client(cut) => Fail::Client(cut),
                    _ => Fail::Broken(Fault::Client),
                }));
            }
            let waits = (relay.waits(), relay.progress());
            if waited != Some(waits) {
                waited = Some(waits);
                conn.timer.arm_for(match waits.0 {
                    Waits::Client => limits.idle_timeout,
                    Waits::Upstream if pump.is_some() => upstream_limits.tunnel_timeout,
                    Waits::Upstream => upstream_limits.response_timeout,
                });
            }
            if conn.timer.expired(cx) {
                return Poll::Ready(Err(match waits.0 {
                    Waits::Client => Fail::Client(Cut::Timeout),
                    Waits::Upstream => Fail::Broken(Fault::Upstream),
                }));
            }
            Poll::Pending
        })
    }

    /// After 101: bytes both ways until both sides have ended.
    async fn tunnel<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        upstream: &mut Wire,
        input: Option<Buf>,
        mut out: Buf,
        idle: Duration,
    ) -> Result<Answered, Fail> {
        self.metrics.upgrade();
        if let Some(input) = input {
            out.put(input.filled());
        }
        let from_client = conn.take_input();
        let worker = std::rc::Rc::clone(&conn.worker);
        // How it ends is the two sides' business; a tunnel has no answer that could be cut short.
        drop(
            tunnel(
                &mut conn.io,
                from_client,
                upstream,
                Some(out),
                &worker,
                idle,
            )
            .await,
        );
        Ok(Answered {
            status: 101,
            after: After::Close,
            reusable: false,
            bytes: 0,
        })
    }
}

/// What was found in an answer's head.
#[derive(Debug, Clone, Copy)]
struct Taken {
    status: u16,
    body: BodyKind,
    framing: Framing,
    keep_alive: bool,
    reusable: bool,
}

/// A request that was not sent whole.
#[derive(Debug, Clone, Copy)]
struct SendFail {
    sent: usize,
    timeout: bool,
}

/// Reads what the upstream has sent behind `input`; takes a buffer only when there is something.
fn poll_more(
    cx: &mut Context<'_>,
    upstream: &mut Wire,
    input: &mut Option<Buf>,
    room: usize,
) -> Poll<io::Result<usize>> {
    if input.is_none() {
        std::task::ready!(upstream.poll_arrival(cx))?;
    }
    let buf = input.get_or_insert_with(Buf::small);
    if buf.spare().is_empty() {
        buf.reserve(room);
    }
    let read = upstream.poll_read(cx, buf);
    if buf.is_empty() {
        *input = None;
    }
    read
}
