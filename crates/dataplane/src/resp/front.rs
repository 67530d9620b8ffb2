//! Clients: their commands are read, sent where they belong, and answered in order.
//!
//! ```text
//!   read ─▶ commands ─▶ Router ─▶ lanes (shared connections)          replies ─▶ outbox ─▶ one write a turn
//!                  └─▶ what needs a connection of its own: session, private
//! ```

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use podkit_foundation::params::Size;

use super::client::Who;
use super::commands::{Kind, Words};
use super::hearing::Hearing;
use super::join::Join;
use super::lane::Greeting;
use super::names::find;
use super::near::{MOST_UNREAD, MOST_WAITING, Near};
use super::route::{Place, Request, Router, Sender};
use super::scan::{Bounds, Commands, Found, put_command};
use super::way::Way;
use crate::net::{Accepted, Coalesce, Guard, Serve, Worker};

podkit_foundation::params! {
    /// What clients may do.
    pub struct RespLimits {
        /// Client connections at most; those past it are closed at once.
        max_connections: u32 { default: Some("10000"), bounds: Some((1, 10_000_000)) },
        /// Bytes of a command at most, its values included.
        max_command_size: Size { default: Some("512Mi"), bounds: Some((1024, 4_294_967_296)) },
        /// Bytes of replies that a client has not taken, at most; then it is cut.
        max_reply_size: Size { default: Some("1Gi"), bounds: Some((1024, 17_179_869_184)) },
        /// How long a client may be silent; 0s: as long as it likes.
        client_timeout: Duration { default: Some("0s"), bounds: Some((0, 604_800_000)) },
        /// Where a worker waits for several commands before it looks at its sockets again, as network cards do with their interrupts: CPU time for latency.
        ///
        /// `queued`: where commands queue at the servers, for half as long as they do. `eager`: wherever many clients ask, for an eighth of the
        /// time after which each asks again; a command that takes 200 µs may take 650 then. `never`: each is done as soon as it
        /// comes. No longer than 200 µs, and only where that gathers three commands or pipelines.
        coalesce: Coalesce { default: Some("queued") },
    }
}

/// Serves the clients of one worker.
#[derive(Debug)]
pub struct Front<R> {
    pub(super) router: R,
    limits: RespLimits,
}

impl<R: Router> Front<R> {
    /// With what `router` decides.
    pub fn new(router: R, limits: RespLimits) -> Rc<Self> {
        Rc::new(Self { router, limits })
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            command_bytes: usize::try_from(self.limits.max_command_size.0).unwrap_or(usize::MAX),
        }
    }
}

impl<R: Router> Serve for Front<R> {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            mut socket,
            peer,
            worker,
            guard,
        } = accepted;
        if socket.watch().is_err() {
            return;
        }
        let silence = self.limits.client_timeout;
        let mut client = Client {
            front: self,
            near: Near::new(socket, worker.clock.timer(), silence),
            worker,
            scan: Commands::default(),
            special: false,
            ending: false,
            greeting: None,
            who: Who::new(peer),
            note: Cell::new(0),
            way: Cell::default(),
            hears: None,
            _guard: guard,
        };
        let ended = client.live().await;
        client.near.outbox.close();
        if let Err(error) = ended
            && error.kind() == io::ErrorKind::Other
        {
            tracing::debug!(%peer, why = %error, "a client was cut");
        }
    }
}

/// A connection of a client.
pub(super) struct Client<R> {
    pub(super) front: Rc<Front<R>>,
    pub(super) near: Near,
    pub(super) worker: Rc<Worker>,
    pub(super) scan: Commands,
    /// The next command is one that has to be alone.
    special: bool,
    /// It is closed when all is answered.
    pub(super) ending: bool,
    /// What it has asked for, where that is not what the module says.
    pub(super) greeting: Option<Greeting>,
    /// Who it is, for others.
    pub(super) who: Who,
    /// By which its last command went.
    pub(super) way: Cell<Way>,
    /// The module's own.
    note: Cell<u32>,
    /// What it hears of several servers.
    pub(super) hears: Option<Box<Hearing>>,
    _guard: Guard,
}

/// Why a turn ended.
enum Turn {
    /// There may be other servers to hear of.
    News,
    /// The first command of the input has to be alone, and nothing is waited for.
    Special,
    /// The client is gone, or has been told all.
    Over,
}

/// What became of a command.
enum Outcome {
    Sent,
    /// It has to be alone.
    Special,
    /// The way is full: later.
    Later,
}

impl<R: Router> Client<R> {
    async fn live(&mut self) -> io::Result<()> {
        loop {
            match poll_fn(|cx| self.turn(cx)).await? {
                Turn::Over => return Ok(()),
                // Boxed: it is rare and large, and would make every client's task so.
                Turn::Special => Box::pin(self.special()).await?,
                Turn::News => Box::pin(self.renew()).await?,
            }
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        self.near.outbox.watch(cx);
        if self.near.may_wait(cx) {
            return Poll::Pending;
        }
        if self.is_killed(cx) {
            return Poll::Ready(Ok(Turn::Over));
        }
        loop {
            let mut flushed = self.near.flush(cx)?;
            if self.hears.is_some() {
                if self.hear(cx)? {
                    return Poll::Ready(Ok(Turn::News));
                }
                flushed = self.near.flush(cx)?;
            }
            if self.near.outbox.bytes() as u64 > self.front.limits.max_reply_size.0 {
                return Poll::Ready(Err(io::Error::other(
                    "it does not take its replies (--max-reply-size)",
                )));
            }
            let waiting = self.near.outbox.waiting();
            if self.special && waiting == 0 {
                self.special = false;
                return Poll::Ready(Ok(Turn::Special));
            }
            if self.ending {
                return match waiting == 0 && flushed {
                    true => Poll::Ready(Ok(Turn::Over)),
                    false => Poll::Pending,
                };
            }
            if self.special || waiting >= MOST_WAITING || self.near.outbox.bytes() >= MOST_UNREAD {
                return Poll::Pending;
            }
            // What is there first; then what comes.
            if self.near.input.is_some() {
                match self.take(cx) {
                    Outcome::Later => return Poll::Pending,
                    Outcome::Special => continue,
                    Outcome::Sent if self.ending || self.near.outbox.bytes() > 0 => continue,
                    Outcome::Sent => {}
                }
                if self.near.outbox.waiting() >= MOST_WAITING {
                    return Poll::Pending;
                }
            }
            if self.worker.draining() && waiting == 0 && self.near.input.is_none() {
                return Poll::Ready(Ok(Turn::Over));
            }
            match self.near.read(cx) {
                // It sends no more, and may still read.
                Poll::Ready(Ok(0)) => self.ending = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // Armed only where silence is bounded; it also tells that the process drains.
                    if self.near.is_over(cx)
                        && !self.hears.as_ref().is_some_and(|one| one.listens())
                    {
                        return Poll::Ready(Err(io::Error::other(
                            "it was silent (--client-timeout)",
                        )));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Takes the commands that are there.
    fn take(&mut self, cx: &mut Context<'_>) -> Outcome {
        let Some(mut buf) = self.near.input.take() else {
            return Outcome::Sent;
        };
        let bounds = self.front.bounds();
        let mut taken = 0;
        let outcome = loop {
            let bytes = &buf.filled()[taken..];
            let length = match self.scan.next(bytes, bounds) {
                Ok(Found::Nothing) => break Outcome::Sent,
                Ok(Found::Command(length)) => length,
                Ok(Found::Inline(length, words)) => {
                    // As any other from here on.
                    let mut framed = Vec::new();
                    if !words.is_empty() {
                        put_command(&mut framed, &words);
                    }
                    framed.extend_from_slice(&bytes[length..]);
                    buf.clear();
                    buf.put(&framed);
                    taken = 0;
                    self.scan.reset();
                    continue;
                }
                Err(why) => {
                    self.near.outbox.answer(format!("-{why}\r\n").as_bytes());
                    self.ending = true;
                    taken = buf.len();
                    break Outcome::Sent;
                }
            };
            let request = Request {
                bytes: &bytes[..length],
                words: Words::new(bytes, self.scan.args()),
                command: None,
            };
            match self.send(request, cx) {
                Outcome::Sent => taken += length,
                other => {
                    self.scan.reset();
                    self.special |= matches!(other, Outcome::Special);
                    break other;
                }
            }
            if self.near.outbox.waiting() >= MOST_WAITING {
                break Outcome::Sent;
            }
        };
        buf.consume(taken);
        if !buf.is_empty() {
            self.near.input = Some(buf);
        }
        outcome
    }

    #[inline]
    fn send(&self, mut request: Request<'_>, cx: &Context<'_>) -> Outcome {
        let Some(name) = request.words.get(0) else {
            return Outcome::Sent;
        };
        request.command = find(name);
        if let Some(command) = request.command {
            if !command.takes(request.words.len()) {
                let name = command.name;
                let line = format!("-ERR wrong number of arguments for '{name}' command\r\n");
                self.near.outbox.answer(line.as_bytes());
                return Outcome::Sent;
            }
            if is_special(command.kind, &request) {
                return Outcome::Special;
            }
        }
        if self.hears.is_some() && self.only_hears() {
            return Outcome::Special;
        }
        let is_script = request
            .command
            .is_some_and(|command| command.kind == Kind::Script);
        // The first script behind nothing.
        let mut is_first = false;
        if is_script || self.way.get() != Way::Common {
            let waiting = self.near.outbox.waiting();
            match Way::of(is_script, self.way.get(), waiting) {
                Some(way) => self.way.set(way),
                None => return Outcome::Later,
            }
            is_first = is_script && waiting == 0;
        }
        let (router, greeting) = (&self.front.router, self.greeting.as_ref());
        let node = match router.place(&request) {
            Place::One(node) => node,
            Place::Any => router.first(),
            Place::Own => {
                let sender = Sender {
                    outbox: &self.near.outbox,
                    greeting,
                    note: &self.note,
                    way: &self.way,
                };
                if !router.send(&request, &sender, cx) {
                    return Outcome::Later;
                }
                router.taken(&request);
                return Outcome::Sent;
            }
            Place::Answer(reply) => {
                router.taken(&request);
                self.near.outbox.answer(&reply);
                return Outcome::Sent;
            }
            Place::Split(parts, merge) => {
                let lanes: Vec<_> = parts
                    .iter()
                    .map(|part| part.node.lane(greeting, self.way.get()))
                    .collect();
                if !lanes.iter().all(|lane| lane.has_room(cx)) {
                    return Outcome::Later;
                }
                router.taken(&request);
                let join = Join::new(merge, parts.len());
                let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                let tickets = self.near.outbox.tickets(join, count);
                for ((part, lane), ticket) in parts.iter().zip(&lanes).zip(tickets) {
                    lane.send(&part.bytes, ticket);
                }
                return Outcome::Sent;
            }
        };
        if is_first {
            self.way.set(node.script_way(greeting));
        }
        let lane = node.lane(greeting, self.way.get());
        if !lane.has_room(cx) {
            return Outcome::Later;
        }
        router.taken(&request);
        lane.send(request.bytes, self.near.outbox.ticket());
        Outcome::Sent
    }
}

/// It needs a connection of its own, or changes what the client's connection is.
fn is_special(kind: Kind, request: &Request<'_>) -> bool {
    match kind {
        Kind::Session | Kind::Subscribe | Kind::Blocks => true,
        Kind::BlocksRead => {
            let words = &request.words;
            (1..words.len()).any(|at| words.is(at, b"block"))
        }
        // From then on the server sends what it likes.
        Kind::Admin => {
            let name = request.command.map_or("", |command| command.name);
            matches!(name, "monitor" | "sync" | "psync")
        }
        Kind::Read | Kind::Write | Kind::Script | Kind::Other => false,
    }
}
