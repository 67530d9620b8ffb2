//! One request and its answer, after another.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::pump::{Pump, PumpError};
use super::relay::{Relay, RelayError, Waits};
use super::rewrite::{Client, Framing, ResponseOptions, put_error, put_request, put_response};
use super::{Fault, Proxy};
use crate::http::conn::{Conn, Cut};
use crate::http::head::{BodyKind, Method, Scanner};
use crate::http::reject::Reject;
use crate::net::{Buf, Socket, Transport, tunnel};
use crate::upstream::ConnectError;

/// What must be known of a request until its answer was sent.
#[derive(Debug, Clone, Copy)]
struct Asked {
    method: Method,
    minor: u8,
    keep_alive: bool,
    wants_upgrade: bool,
    /// All of it has come, body included.
    whole: bool,
    since: Instant,
}

/// Why there is no answer, or only a part of one.
#[derive(Debug)]
enum Fail {
    /// The client is told, when nothing was sent yet.
    Tell(Fault, u16, &'static str),
    /// What the client sent is not taken.
    Reject(Reject),
    /// The client is gone.
    Client(Cut),
    /// The answer was begun and can't be ended.
    Broken(Fault),
    /// Nothing came back on a kept connection: the upstream had closed it.
    Stale,
}

/// What comes after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Next,
    Close,
}

impl Proxy {
    /// Forwards requests until one says that it was the last.
    pub(super) async fn requests<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        client: &Client,
    ) -> Result<(), Cut> {
        let limits = &self.settings.limits;
        let mut first = true;
        loop {
            let len = match conn.head(limits, first).await {
                Ok(len) => len,
                Err(Cut::Rejected(reject)) => {
                    self.tell(conn, None, Fault::Client, reject.status(), reject)
                        .await?;
                    return Ok(());
                }
                Err(cut) => return Err(cut),
            };
            first = false;
            let since = Instant::now();
            let (asked, out, pump) = match self.take_request(conn, len, client, since) {
                Ok(taken) => taken,
                Err(reject) => {
                    self.tell(conn, None, Fault::Client, reject.status(), reject)
                        .await?;
                    return Ok(());
                }
            };
            match self.exchange(conn, asked, out, pump).await {
                Ok(After::Next) => {}
                Ok(After::Close) => return Ok(()),
                Err(Fail::Tell(fault, status, why)) => {
                    if self.tell(conn, Some(asked), fault, status, why).await? == After::Close {
                        return Ok(());
                    }
                }
                Err(Fail::Reject(reject)) => {
                    let asked = Asked {
                        whole: false,
                        ..asked
                    };
                    let status = reject.status();
                    self.tell(conn, Some(asked), Fault::Client, status, reject)
                        .await?;
                    return Ok(());
                }
                Err(Fail::Client(cut)) => {
                    self.metrics.fault(Fault::Client);
                    return Err(cut);
                }
                Err(Fail::Broken(fault)) => {
                    self.metrics.fault(fault);
                    return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
                }
                Err(Fail::Stale) => unreachable!("tried again by exchange"),
            }
        }
    }

    /// Sends a small answer of our own. The connection goes on only when it is known where the next request begins.
    async fn tell<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        asked: Option<Asked>,
        fault: Fault,
        status: u16,
        why: impl std::fmt::Display,
    ) -> Result<After, Cut> {
        self.metrics.fault(fault);
        let limits = &self.settings.limits;
        let mut out = Buf::small();
        let method = asked.map_or(Method::Other, |asked| asked.method);
        let known = asked.is_some_and(|asked| asked.whole && asked.keep_alive && asked.minor == 1);
        let after = match known && !conn.worker.closing() {
            true => After::Next,
            false => After::Close,
        };
        put_error(
            &mut out,
            status,
            &why.to_string(),
            method,
            after == After::Close,
        );
        conn.send(&[out.filled()], limits.body_timeout).await?;
        let took = asked.map_or(Duration::ZERO, |asked| asked.since.elapsed());
        self.metrics.answer(status, took);
        conn.timer.arm_for(limits.idle_timeout);
        Ok(after)
    }

    /// Parses the head of `len` bytes and writes it for the upstream, the body's begin behind it. Waits for nothing.
    fn take_request<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        len: usize,
        client: &Client,
        since: Instant,
    ) -> Result<(Asked, Buf, Option<Pump>), Reject> {
        let limits = &self.settings.limits;
        let mut head = self.request.borrow_mut();
        let input = conn.input();
        let bytes = &input[..len];
        head.parse(bytes, limits.fields())?;
        let mut asked = Asked {
            method: head.method(),
            minor: head.minor(),
            keep_alive: head.keep_alive(),
            wants_upgrade: head.upgrade().is_some(),
            whole: true,
            since,
        };
        let mut pump = Pump::new(head.body(), limits)?;
        let mut out = Buf::small();
        put_request(
            &mut out,
            &mut head,
            bytes,
            client,
            self.pool.target().host(),
        );
        let mut used = len;
        if let Some(some) = &mut pump {
            used += some.put_first(&input[len..], &mut out, limits)?;
            if some.is_done() {
                pump = None;
            }
        }
        asked.whole = pump.is_none();
        conn.consume(used);
        Ok((asked, out, pump))
    }

    /// Sends the request and relays the answer; once more on a new connection when a kept one was closed.
    async fn exchange<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        asked: Asked,
        out: Buf,
        mut pump: Option<Pump>,
    ) -> Result<After, Fail> {
        if let Some(mut upstream) = self.pool.take() {
            match self
                .attempt(conn, asked, &out, &mut pump, &mut upstream, true)
                .await
            {
                Err(Fail::Stale) => self.metrics.retries.inc(),
                Ok(answered) => return Ok(self.done(conn, asked, upstream, answered)),
                Err(fail) => return Err(fail),
            }
        }
        let mut upstream = self.connect().await?;
        let answered = self
            .attempt(conn, asked, &out, &mut pump, &mut upstream, false)
            .await?;
        Ok(self.done(conn, asked, upstream, answered))
    }

    /// Counts the answer, and keeps the upstream's connection when it can be used again.
    fn done<T: Transport>(
        &self,
        conn: &Conn<T>,
        asked: Asked,
        upstream: Socket,
        answered: Answered,
    ) -> After {
        let now = Instant::now();
        conn.timer.arm(now + self.settings.limits.idle_timeout);
        self.metrics
            .answer(answered.status, now.duration_since(asked.since));
        if answered.reusable {
            self.pool.keep(upstream, now);
        }
        answered.after
    }

    async fn connect(&self) -> Result<Socket, Fail> {
        self.pool.connect().await.map_err(|error| {
            let fault = match &error {
                ConnectError::Exhausted(_) => Fault::Podkit,
                _ => Fault::Upstream,
            };
            tracing::debug!(upstream = %self.pool.target().addr(), why = %error, "can't connect");
            let told = match &error {
                ConnectError::Timeout => "the upstream did not accept the connection in time",
                ConnectError::Refused => "the upstream accepts no connections",
                ConnectError::Exhausted(_) => "no more connections can be opened",
                ConnectError::Name(_) => "the upstream's name can't be resolved",
                ConnectError::Failed(_) => "the upstream can't be reached",
            };
            Fail::Tell(fault, error.status(), told)
        })
    }
}

/// What became of an answer.
#[derive(Debug, Clone, Copy)]
struct Answered {
    status: u16,
    after: After,
    reusable: bool,
}

impl Proxy {
    /// One try. `kept`: the connection was used before, and may have been closed by the upstream meanwhile.
    async fn attempt<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        asked: Asked,
        out: &Buf,
        pump: &mut Option<Pump>,
        upstream: &mut Socket,
        kept: bool,
    ) -> Result<Answered, Fail> {
        let limits = self.pool.limits();
        let whole = pump.is_none();
        conn.timer.arm(asked.since + limits.response_timeout);
        let sent = self.send_head(conn, out, upstream).await;
        match sent {
            Ok(()) => {}
            // Nothing of it went out.
            Err(SendFail { sent: 0, .. }) if kept => return Err(Fail::Stale),
            Err(SendFail { timeout: true, .. }) => {
                return Err(Fail::Tell(
                    Fault::Upstream,
                    504,
                    "the upstream takes no request",
                ));
            }
            // It may have answered before it closed.
            Err(_) => {}
        }
        let mut input = None;
        let mut scanner = Scanner::default();
        loop {
            let got = self
                .receive_head(conn, pump, upstream, &mut input, &mut scanner)
                .await?;
            let len = match got {
                Some(len) => len,
                None if kept && whole && asked.method.is_idempotent() && input.is_none() => {
                    return Err(Fail::Stale);
                }
                None => {
                    return Err(Fail::Tell(
                        Fault::Upstream,
                        502,
                        "the upstream closed without an answer",
                    ));
                }
            };
            let bare_lf = scanner.saw_bare_lf();
            scanner = Scanner::default();
            let (head, out) =
                self.take_response(conn, &mut input, len, bare_lf, asked, pump.is_none())?;
            if head.status == 101 {
                return self.tunnel(conn, upstream, input, out).await;
            }
            if head.status < 200 {
                // Interim answers are for clients that know them (RFC 9110 section 15.2).
                if asked.minor == 1 {
                    let sent = conn
                        .send(&[out.filled()], self.settings.limits.body_timeout)
                        .await;
                    sent.map_err(Fail::Client)?;
                    conn.timer.arm_for(limits.response_timeout);
                }
                continue;
            }
            let mut relay = Relay::new(head.body, head.framing, out, input);
            self.relay(conn, pump, upstream, &mut relay).await?;
            let complete = pump.is_none();
            return Ok(Answered {
                status: head.status,
                after: match head.keep_alive && complete {
                    true => After::Next,
                    false => After::Close,
                },
                reusable: head.reusable && complete && relay.is_clean(),
            });
        }
    }

    async fn send_head<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        out: &Buf,
        upstream: &mut Socket,
    ) -> Result<(), SendFail> {
        let bytes = out.filled();
        let mut sent = 0;
        poll_fn(|cx| {
            while sent < bytes.len() {
                let part = [std::io::IoSlice::new(&bytes[sent..])];
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
        .await
    }

    /// Waits for a whole head while the body goes out; returns its length, None when the upstream closed before it.
    async fn receive_head<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        pump: &mut Option<Pump>,
        upstream: &mut Socket,
        input: &mut Option<Buf>,
        scanner: &mut Scanner,
    ) -> Result<Option<usize>, Fail> {
        let limits = &self.settings.limits;
        let head_bytes = limits.head_bytes();
        let mut pace = Pace::new(pump.as_ref());
        // A client that has closed its side can still read; one that reset is gone.
        let mut watching = true;
        poll_fn(|cx| {
            loop {
                if let Some(have) = input.as_ref().filter(|input| !input.is_empty()) {
                    match scanner.find(have.filled(), false) {
                        Ok(Some(len)) if len <= head_bytes => return Poll::Ready(Ok(Some(len))),
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
            if let Err(fail) = pace.pump(cx, conn, pump, upstream, self) {
                return Poll::Ready(Err(fail));
            }
            if watching && pump.is_none() && conn.input().is_empty() {
                match conn.poll_fill(cx, 0) {
                    Poll::Ready(Ok(_)) => watching = false,
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready(Err(Fail::Client(error.into())));
                    }
                    Poll::Pending => {}
                }
            }
            if conn.timer.expired(cx) {
                return Poll::Ready(Err(match pump {
                    Some(pump) if pump.is_waiting_for_client() => Fail::Reject(Reject::BodyTimeout),
                    _ => Fail::Tell(Fault::Upstream, 504, "the upstream did not answer in time"),
                }));
            }
            Poll::Pending
        })
        .await
    }

    /// Parses an answer's head and writes it for the client. Waits for nothing.
    fn take_response<T: Transport>(
        &self,
        conn: &Conn<T>,
        input: &mut Option<Buf>,
        len: usize,
        bare_lf: bool,
        asked: Asked,
        complete: bool,
    ) -> Result<(Taken, Buf), Fail> {
        let limits = &self.settings.limits;
        let wrong = |why| Fail::Tell(Fault::Upstream, 502, why);
        let Some(have) = input else {
            return Err(wrong("the upstream's answer is empty"));
        };
        let bytes = &have.filled()[..len];
        let mut head = self.response.borrow_mut();
        if let Err(reject) = head.parse(bytes, limits.fields(), asked.method == Method::Head) {
            tracing::debug!(upstream = %self.pool.target().addr(), why = %reject, "the answer is not valid");
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
            more: self.settings.response_fields.as_bytes(),
            bare_lf,
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
    async fn relay<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        pump: &mut Option<Pump>,
        upstream: &mut Socket,
        relay: &mut Relay,
    ) -> Result<(), Fail> {
        let limits = &self.settings.limits;
        let mut pace = Pace::new(pump.as_ref());
        let mut waited: Option<(Waits, u64)> = None;
        poll_fn(|cx| {
            match relay.poll(cx, conn, upstream, limits) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(RelayError::Client(cut))) => {
                    return Poll::Ready(Err(Fail::Client(cut)));
                }
                Poll::Ready(Err(RelayError::Upstream(why))) => {
                    tracing::debug!(upstream = %self.pool.target().addr(), why, "an answer is incomplete");
                    return Poll::Ready(Err(Fail::Broken(Fault::Upstream)));
                }
                Poll::Pending => {}
            }
            if let Err(fail) = pace.pump(cx, conn, pump, upstream, self) {
                return Poll::Ready(Err(match fail {
                    Fail::Client(cut) => Fail::Client(cut),
                    _ => Fail::Broken(Fault::Client),
                }));
            }
            let waits = (relay.waits(), relay.moved);
            if waited != Some(waits) {
                waited = Some(waits);
                conn.timer.arm_for(match waits.0 {
                    Waits::Client => limits.body_timeout,
                    Waits::Upstream => self.pool.limits().response_timeout,
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
        .await
    }

    /// After 101: bytes both ways until both sides have ended.
    async fn tunnel<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        upstream: &mut Socket,
        input: Option<Buf>,
        mut out: Buf,
    ) -> Result<Answered, Fail> {
        self.metrics.upgrades.inc();
        if let Some(input) = input {
            out.put(input.filled());
        }
        let from_client = conn.take_input();
        let idle = self.pool.limits().tunnel_timeout;
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

/// Keeps the deadlines of a body that is being sent, which are not those of the answer.
struct Pace {
    /// When we began to wait for the client, and what had come until then.
    moved: u64,
    waiting_since: Option<Instant>,
    /// Time that the client took, all pauses together.
    spent: Duration,
}

impl Pace {
    fn new(pump: Option<&Pump>) -> Self {
        Self {
            moved: pump.map_or(0, |pump| pump.moved),
            waiting_since: None,
            spent: Duration::ZERO,
        }
    }

    /// Moves the body on and arms the deadline for what it waits for. The pump goes when it is done.
    fn pump<T: Transport>(
        &mut self,
        cx: &mut std::task::Context<'_>,
        conn: &mut Conn<T>,
        slot: &mut Option<Pump>,
        upstream: &mut Socket,
        proxy: &Proxy,
    ) -> Result<(), Fail> {
        let Some(pump) = slot else {
            return Ok(());
        };
        let limits = &proxy.settings.limits;
        match pump.poll(cx, conn, upstream, limits) {
            Poll::Ready(Ok(())) => {
                *slot = None;
                conn.timer.arm_for(proxy.pool.limits().response_timeout);
                Ok(())
            }
            // The upstream takes no more; what it answers tells why.
            Poll::Ready(Err(PumpError::Upstream)) => {
                pump.give_up();
                conn.timer.arm_for(proxy.pool.limits().response_timeout);
                Ok(())
            }
            Poll::Ready(Err(PumpError::Client(Cut::Rejected(reject)))) => Err(Fail::Reject(reject)),
            Poll::Ready(Err(PumpError::Client(cut))) => Err(Fail::Client(cut)),
            Poll::Pending => {
                let progress = pump.moved != self.moved;
                if progress || self.waiting_since.is_none() {
                    let now = Instant::now();
                    if let Some(since) = self.waiting_since.replace(now) {
                        self.spent += now.duration_since(since);
                    }
                    self.moved = pump.moved;
                    let deadline = match pump.is_waiting_for_client() {
                        true => now + limits.body_timeout.min(self.allowance(limits)),
                        false => now + proxy.pool.limits().response_timeout,
                    };
                    conn.timer.arm(deadline);
                }
                Ok(())
            }
        }
    }

    /// How long the next byte may take for the body to keep `--min-body-rate`.
    fn allowance(&self, limits: &crate::http::HttpLimits) -> Duration {
        match limits.min_body_rate.0 {
            0 => Duration::MAX,
            rate => {
                let earned = limits.body_timeout + Duration::from_secs(self.moved / rate);
                earned.saturating_sub(self.spent)
            }
        }
    }
}

/// Reads what the upstream has sent behind `input`; takes a buffer only when there is something.
fn poll_more(
    cx: &mut std::task::Context<'_>,
    upstream: &mut Socket,
    input: &mut Option<Buf>,
    room: usize,
) -> Poll<io::Result<usize>> {
    if input.is_none() {
        std::task::ready!(upstream.poll_readable(cx))?;
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
