//! One request and its answer, after another.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Answered;
use super::pump::Pump;
use super::rewrite::{Client, put_error, put_request};
use super::{Fault, Proxy};
use crate::http::conn::{Conn, Cut};
use crate::http::head::Method;
use crate::http::reject::Reject;
use crate::net::{Buf, Transport};
use crate::upstream::{ConnectError, Wire};

/// What must be known of a request until its answer was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) minor: u8,
    pub(super) keep_alive: bool,
    pub(super) wants_upgrade: bool,
    /// All of it has come, body included.
    pub(super) whole: bool,
    pub(super) since: Instant,
}

/// Why there is no answer, or only a part of one.
#[derive(Debug)]
pub(super) enum Fail {
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
pub(super) enum After {
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
        conn.send(&[out.filled()], limits.idle_timeout).await?;
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
        upstream: Wire,
        answered: Answered,
    ) -> After {
        let now = Instant::now();
        conn.timer.arm(now + self.settings.limits.idle_timeout);
        // How long a tunnel lasted says nothing about answers.
        if answered.status != 101 {
            self.metrics
                .answer(answered.status, now.duration_since(asked.since));
        }
        if answered.reusable {
            self.pool.keep(upstream, now);
        }
        answered.after
    }

    async fn connect(&self) -> Result<Wire, Fail> {
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
