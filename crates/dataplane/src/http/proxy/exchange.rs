//! One request and its answer, after another.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::access::Entry;
use super::attempt::Answered;
use super::choice::{cookie, target};
use super::pump::Pump;
use super::rewrite::{Client, put_reply, put_request};
use super::{Fault, Forward, Proxy, Route, grpc, trace};
use crate::http::conn::{Conn, Cut, Found};
use crate::http::head::{Method, RequestHead};
use crate::http::reject::{Reject, reason};
use crate::http::stage::{Passage, Reply, Verdict, View, Waited};
use crate::http2::PREFACE;
use crate::net::{Buf, Transport};
use crate::upstream::{Affinity, ConnectError, Picked, Tried, Wanted, Wire};

/// What must be known of a request until its answer was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) minor: u8,
    pub(super) keep_alive: bool,
    pub(super) wants_upgrade: bool,
    /// A call of gRPC, whose client wants a status of gRPC's own.
    grpc: bool,
    /// All of it has come, body included.
    pub(super) whole: bool,
    pub(super) wanted: Wanted,
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
    /// Nothing of an answer came, and it may be sent again; otherwise the client is told as by `Tell`.
    Again(Sent, Fault, u16, &'static str),
}

/// What of a request may have reached an upstream that failed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing: any other endpoint may get it.
    Nothing,
    /// All of it, and its method says that it may be sent again (RFC 9110 section 9.2.2).
    Harmless,
}

/// What comes after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Next,
    /// The client may be sending still.
    Close,
    /// It has said that nothing follows, and all of its request has come.
    End,
}

impl After {
    /// `goes_on`: as far as we are concerned, the connection can carry another request.
    pub(super) fn of(asked: Asked, goes_on: bool) -> Self {
        match (asked.whole, asked.keep_alive) {
            (_, true) if goes_on => Self::Next,
            (true, false) => Self::End,
            _ => Self::Close,
        }
    }

    /// Of the last request of a connection.
    fn end(self) -> Result<(), Cut> {
        match self {
            Self::End => Err(Cut::Closed),
            _ => Ok(()),
        }
    }
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
        let mut entry = None;
        let mut passage = Passage::new();
        loop {
            passage.end();
            let mut route = None;
            let take = |input: &[u8]| self.request.borrow_mut().take(input, limits.fields());
            let found = match conn.head(limits, first, take).await {
                Ok(found) => found,
                Err(Cut::Rejected(reject)) => {
                    self.tell(conn, None, &passage, Fault::Client, reject.status(), reject)
                        .await?;
                    return Ok(());
                }
                Err(cut) => return Err(cut),
            };
            if first
                && self.takes_preface()
                && conn
                    .input()
                    .starts_with(&PREFACE[..found.len.min(PREFACE.len())])
            {
                return Err(Cut::Http2);
            }
            first = false;
            let since = Instant::now();
            let mut coming = Coming {
                found,
                client,
                since,
            };
            let mut way = Way {
                passage: &mut passage,
                route: &mut route,
                entry: &mut entry,
            };
            let mut reply = None;
            let mut taken = loop {
                match self.take_request(conn, coming, &mut way, reply.take()) {
                    // Nothing is used up yet: the head is parsed again, which is rare enough.
                    Ok(Taken::Wait(wait)) => {
                        reply = way.passage.resume(wait.await);
                        coming.found.parsed = false;
                    }
                    taken => break taken,
                }
            };
            let forward = route.as_ref().map(|route: &Rc<Route>| &*route.forward);
            let lines = forward.and_then(|forward| forward.lines.as_ref());
            let entry = lines.and(entry.as_deref());
            // Looked at where it is: what is held while something is waited for should not be held twice.
            let (asked, result) = match &mut taken {
                Ok(Taken::Wait(_)) => unreachable!("it was waited for"),
                Ok(Taken::Forward(asked, out, pump)) => {
                    let forward = forward.expect("what is forwarded has a route");
                    let told = (entry, passage.fields());
                    let result = self.exchange(conn, forward, asked, out, pump, told).await;
                    (*asked, result)
                }
                Ok(Taken::Answer(asked, reply)) => {
                    let after = self
                        .reply(conn, Some(*asked), reply, passage.fields())
                        .await?;
                    if let (Some(lines), Some(entry)) = (lines, entry) {
                        let bytes = match asked.method {
                            Method::Head => 0,
                            _ => reply.body.len() as u64,
                        };
                        entry.answered(reply.status, bytes);
                        lines.put(entry, since.elapsed());
                    }
                    match after {
                        After::Next => continue,
                        last => return last.end(),
                    }
                }
                Err(reject) => {
                    let reject = *reject;
                    self.tell(conn, None, &passage, Fault::Client, reject.status(), reject)
                        .await?;
                    return Ok(());
                }
            };
            if let (Some(lines), Some(entry)) = (lines, entry) {
                match &result {
                    Err(Fail::Tell(_, status, _)) => entry.answered(*status, 0),
                    Err(Fail::Reject(reject)) => entry.answered(reject.status(), 0),
                    _ => {}
                }
                lines.put(entry, since.elapsed());
            }
            match result {
                Ok(After::Next) => {}
                Ok(last) => return last.end(),
                Err(Fail::Tell(fault, status, why)) => {
                    let after = self
                        .tell(conn, Some(asked), &passage, fault, status, why)
                        .await?;
                    if after != After::Next {
                        return after.end();
                    }
                }
                Err(Fail::Reject(reject)) => {
                    let asked = Asked {
                        whole: false,
                        ..asked
                    };
                    let status = reject.status();
                    self.tell(conn, Some(asked), &passage, Fault::Client, status, reject)
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
                Err(Fail::Stale | Fail::Again(..)) => unreachable!("tried again by exchange"),
            }
        }
    }

    /// Sends a small answer of our own. The connection goes on only when it is known where the next request begins.
    async fn tell<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        asked: Option<Asked>,
        passage: &Passage,
        fault: Fault,
        status: u16,
        why: impl std::fmt::Display,
    ) -> Result<After, Cut> {
        self.metrics.fault(fault);
        let reply = Reply {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{why}\n").into_bytes().into(),
        };
        self.reply(conn, asked, &reply, passage.fields()).await
    }

    /// Sends an answer of our own.
    async fn reply<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        asked: Option<Asked>,
        reply: &Reply,
        staged: &[u8],
    ) -> Result<After, Cut> {
        let limits = &self.settings.limits;
        let mut out = Buf::small();
        let method = asked.map_or(Method::Other, |asked| asked.method);
        let after = asked.map_or(After::Close, |asked| {
            let known = asked.whole && asked.minor == 1;
            After::of(asked, known && !conn.worker.closing())
        });
        match asked.is_some_and(|asked| asked.grpc) && reply.status >= 400 {
            true => grpc::put_reply(&mut out, reply, staged),
            false => put_reply(&mut out, reply, staged, method, after != After::Next),
        }
        if after != After::Next {
            conn.io.last();
        }
        conn.send(&[out.filled()], limits.idle_timeout).await?;
        let took = asked.map_or(Duration::ZERO, |asked| asked.since.elapsed());
        self.metrics.answer(reply.status, took);
        conn.timer.arm_for(limits.idle_timeout);
        Ok(after)
    }

    /// Parses the head, finds its route, lets it pass the stages and writes it for the upstream, the body's begin behind it. `reply`: what a
    /// stage that waited answers.
    fn take_request<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        coming: Coming<'_>,
        way: &mut Way<'_>,
        mut reply: Option<Reply>,
    ) -> Result<Taken, Reject> {
        let Coming {
            found,
            client,
            since,
        } = coming;
        let len = found.len;
        let limits = &self.settings.limits;
        let mut head = self.request.borrow_mut();
        let input = conn.input();
        let bytes = &input[..len];
        // Nobody else's was parsed since: nothing was waited for.
        if !found.parsed {
            head.parse(bytes, limits.fields())?;
        }
        let mut asked = Asked {
            method: head.method(),
            minor: head.minor(),
            keep_alive: head.keep_alive(),
            wants_upgrade: head.upgrade().is_some(),
            grpc: client.is_http2() && grpc::is_call(&head, bytes),
            whole: true,
            wanted: Wanted::default(),
            since,
        };
        let mut pump = Pump::new(head.body(), limits)?;
        let view = View {
            head: &head,
            bytes,
            peer: client.peer(),
            scheme: client.scheme(),
            now: since,
        };
        if way.route.is_none() {
            *way.route = self.router.borrow().route(&view);
            if let Some(route) = &way.route {
                way.passage.begin(&route.stages);
            }
        }
        if way.route.is_none() {
            reply = Some(NO_ROUTE);
        } else if reply.is_none() && !way.passage.is_free() {
            match way.passage.go(&view) {
                Verdict::Pass => {}
                Verdict::Answer(made) => reply = Some(made),
                Verdict::Wait(wait) => return Ok(Taken::Wait(wait)),
            }
        }
        let forward = way.route.as_ref().map(|route| &*route.forward);
        let trusted = forward.is_some_and(|forward| forward.settings.trust.has(client.peer()));
        if let Some(forward) = forward {
            asked.wanted = forward.wanted(&head, bytes, (client, trusted), since);
        }
        let mut out = Buf::small();
        let told = trace::valid(&head, bytes);
        let made = match forward.and_then(|forward| forward.settings.make_traceparent) {
            Some(percent) if told.is_none() => {
                trace::drop_fields(&mut head);
                Some(self.ids.make(percent))
            }
            _ => None,
        };
        let made = made.as_ref().map(<[u8; trace::BYTES]>::as_slice);
        if forward.is_some_and(|forward| forward.lines.is_some()) {
            let entry = way
                .entry
                .get_or_insert_with(|| Box::new(Entry::new(client.addr())));
            let trace = told.or(made).and_then(trace::trace_id);
            let host = head.authority().map_or(&[][..], |span| span.bytes(bytes));
            let method = head.method_token().bytes(bytes);
            entry.begin(method, host, target(&head, bytes), trace);
        }
        put_request(
            &mut out,
            &mut head,
            bytes,
            (client, trusted),
            forward.map_or(("localhost", None), |forward| {
                let affinity = forward.cluster.affinity();
                (forward.cluster.host(), affinity.map(Affinity::cookie))
            }),
            made,
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
        Ok(match reply {
            // What was written for the upstream, the body's begin too, goes nowhere.
            Some(reply) => Taken::Answer(asked, reply),
            None => Taken::Forward(asked, out, pump),
        })
    }

    /// Sends the request to an endpoint and relays the answer; to another one when that fails and it may be sent again.
    async fn exchange<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        forward: &Forward,
        asked: &Asked,
        out: &Buf,
        pump: &mut Option<Pump>,
        (entry, staged): (Option<&Entry>, &[u8]),
    ) -> Result<After, Fail> {
        forward.budget.earn();
        let mut tried = Tried::default();
        let mut now = asked.since;
        let mut last = None;
        loop {
            let Some(picked) = forward.cluster.pick(asked.wanted, &tried, now) else {
                let none = Fail::Tell(Fault::Upstream, 503, "no upstream is there");
                return Err(last.unwrap_or(none));
            };
            if let Some(entry) = entry {
                entry.tried(picked.endpoint().name());
            }
            let try_on = Try {
                forward,
                picked: &picked,
                asked,
                deadline: forward.deadline(asked, now),
                entry,
                staged,
            };
            let result = self.exchange_with(&try_on, conn, out, pump).await;
            let (sent, fault, status, why) = match result {
                Err(Fail::Again(sent, fault, status, why)) => (sent, fault, status, why),
                other => return other,
            };
            now = Instant::now();
            tried.add(&picked);
            let may = tried.count() <= forward.settings.retries.most as usize
                && now < asked.since + forward.cluster.limits().response_timeout
                && (sent == Sent::Nothing || forward.budget.spend(now));
            if !may {
                return Err(Fail::Tell(fault, status, why));
            }
            last = Some(Fail::Tell(fault, status, why));
            self.metrics.retries.inc();
        }
    }

    /// Sends the request to one endpoint: on a kept connection first, and once more on a new one when that was closed.
    async fn exchange_with<T: Transport>(
        &self,
        try_on: &Try<'_>,
        conn: &mut Conn<T>,
        out: &Buf,
        pump: &mut Option<Pump>,
    ) -> Result<After, Fail> {
        let picked = try_on.picked;
        let mut kept = picked.pool().take();
        let result = loop {
            let reused = kept.is_some();
            let mut upstream = match kept.take() {
                Some(upstream) => upstream,
                None => match self.connect(picked).await {
                    Ok(upstream) => upstream,
                    Err(fail) => break Err(fail),
                },
            };
            let answered = self
                .attempt(conn, try_on, out, pump, &mut upstream, reused)
                .await;
            match answered {
                Err(Fail::Stale) if reused => self.metrics.retries.inc(),
                result => break result.map(|answered| (upstream, answered)),
            }
        };
        match result {
            Ok((upstream, answered)) => Ok(self.done(conn, try_on, upstream, answered)),
            Err(fail) => {
                let why = match &fail {
                    Fail::Tell(Fault::Upstream, _, why)
                    | Fail::Again(_, Fault::Upstream, _, why) => Some(*why),
                    Fail::Broken(Fault::Upstream) => Some("an answer was broken off"),
                    _ => None,
                };
                if let Some(why) = why {
                    try_on.forward.cluster.failed(picked, why, Instant::now());
                }
                Err(fail)
            }
        }
    }

    /// Counts the answer, and keeps the upstream's connection when it can be used again.
    fn done<T: Transport>(
        &self,
        conn: &Conn<T>,
        try_on: &Try<'_>,
        upstream: Wire,
        answered: Answered,
    ) -> After {
        let Try { picked, asked, .. } = *try_on;
        if let Some(entry) = try_on.entry {
            entry.answered(answered.status, answered.bytes);
        }
        let now = Instant::now();
        conn.timer.arm(now + self.settings.limits.idle_timeout);
        // How long a tunnel lasted says nothing about answers.
        if answered.status != 101 {
            self.metrics
                .answer(answered.status, now.duration_since(asked.since));
        }
        match answered.status {
            // What a proxy or an application that is going down says.
            502..=504 => try_on
                .forward
                .cluster
                .failed(picked, reason(answered.status), now),
            _ => picked.succeeded(),
        }
        if answered.reusable {
            picked.pool().keep(upstream, now);
        }
        answered.after
    }

    async fn connect(&self, picked: &Picked) -> Result<Wire, Fail> {
        picked.pool().connect().await.map_err(|error| {
            let fault = match &error {
                ConnectError::Exhausted(_) => Fault::Podkit,
                _ => Fault::Upstream,
            };
            tracing::debug!(upstream = picked.endpoint().name(), why = %error, "can't connect");
            let told = match &error {
                ConnectError::Timeout => "the upstream did not accept the connection in time",
                ConnectError::Refused => "the upstream accepts no connections",
                ConnectError::Exhausted(_) => "no more connections can be opened",
                ConnectError::Name(_) => "the upstream's name can't be resolved",
                ConnectError::Tls(_) => "the upstream can't be trusted by TLS",
                ConnectError::Failed(_) => "the upstream can't be reached",
            };
            Fail::Again(Sent::Nothing, fault, error.status(), told)
        })
    }
}

impl Forward {
    /// What decides where a request goes.
    fn wanted(
        &self,
        head: &RequestHead,
        bytes: &[u8],
        client: (&Client, bool),
        now: Instant,
    ) -> Wanted {
        let key = self.settings.key.as_ref();
        Wanted {
            key: key.and_then(|key| key.hash(head, bytes, client)),
            sticky: self.cluster.affinity().and_then(|affinity| {
                let value = cookie(head, bytes, affinity.cookie())?;
                self.cluster.session(value, now)
            }),
        }
    }

    /// Until when the head of an answer must be there, for a try that begins now.
    fn deadline(&self, asked: &Asked, now: Instant) -> Instant {
        let all = asked.since + self.cluster.limits().response_timeout;
        let patience = self.settings.retries.try_timeout;
        patience.map_or(all, |patience| all.min(now + patience))
    }
}

/// The answer to a request that no route is for.
const NO_ROUTE: Reply = Reply {
    status: 404,
    content_type: "text/plain; charset=utf-8",
    body: std::borrow::Cow::Borrowed(b"no route is for this host and path\n"),
};

/// One try: where, what, and until when the head of the answer must be there.
#[derive(Clone, Copy)]
pub(super) struct Try<'a> {
    pub(super) forward: &'a Forward,
    pub(super) picked: &'a Picked,
    pub(super) asked: &'a Asked,
    pub(super) deadline: Instant,
    pub(super) entry: Option<&'a Entry>,
    /// Whole field lines of the stages, for the answer.
    pub(super) staged: &'a [u8],
}

/// A request whose head has come.
#[derive(Clone, Copy)]
struct Coming<'a> {
    found: Found,
    client: &'a Client,
    since: Instant,
}

/// What belongs to a request, or to the requests of a connection, and is not known before its head is.
struct Way<'a> {
    passage: &'a mut Passage,
    route: &'a mut Option<Rc<Route>>,
    /// Boxed: most connections are not logged.
    entry: &'a mut Option<Box<Entry>>,
}

/// A request that was read.
enum Taken {
    /// To be forwarded: what is sent first, and what moves the rest of the body.
    Forward(Asked, Buf, Option<Pump>),
    /// A stage answers it.
    Answer(Asked, Reply),
    /// A stage waits.
    Wait(Pin<Box<dyn Future<Output = Waited>>>),
}
