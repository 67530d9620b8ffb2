//! Commands that need a connection of the client's own for a while: transactions (MULTI, WATCH), and those that wait (BLPOP).
//!
//! A transaction goes to the server of its first key; one whose keys are on several is refused as Redis Cluster does, and EXEC
//! fails then. What was not done since its keys are elsewhere now is sent there, a transaction from its begin; one that watches something fails
//! as if that had been changed. The connection is given up when nothing on it is left that the next command could depend on; the next who needs
//! one gets it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::client::{On, There};
use super::commands::Kind;
use super::front::Client;
use super::journal::{Journal, Step, Waiting};
use super::lane::Greeting;
use super::node::Node;
use super::reply::Mute;
use super::route::{Elsewhere, Request, Router};
use super::scan::{Replies, Shape};
use super::session::Taken;
use super::track::FORGET;
use crate::net::{Buf, Transport};
use crate::upstream::Wire;

const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";

/// A connection of the client's own, and what is on it.
#[derive(Default)]
pub(super) struct Private {
    pub(super) node: Option<Rc<Node>>,
    /// As whom its server knows it, where others may ask.
    pub(super) there: Option<There>,
    pub(super) wire: Option<Wire>,
    /// Ready when the server may not be used any more.
    pub(super) retirement: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// The command by which its server was chosen.
    began: Option<Box<[u8]>>,
    /// To be sent.
    pub(super) out: Vec<u8>,
    pub(super) journal: Journal,
    pub(super) input: Option<Buf>,
    pub(super) scan: Replies,
    pub(super) multi: bool,
    watching: bool,
    /// A command of the transaction was refused here.
    pub(super) aborted: bool,
    /// What was watched is elsewhere now: as if it had been changed.
    pub(super) void: bool,
    /// Since when it is sent elsewhere without being done.
    pub(super) since: Option<Instant>,
    /// Others have ended its client.
    pub(super) over: bool,
    /// Something may have been read that the client keeps.
    reads: bool,
}

/// Why a turn ended.
enum Turn {
    /// Commands of the client are there.
    Input,
    /// Nothing is left on it.
    Done,
    /// The client is gone.
    Gone,
    /// The connection has no use any more.
    Ended(End),
}

/// Why a connection has no use.
enum End {
    /// It was lost.
    Lost(String),
    /// The first command without a reply belongs elsewhere, as this error says.
    Elsewhere(Elsewhere, Vec<u8>),
}

impl Private {
    /// It has to be kept for the next command.
    fn is_held(&self) -> bool {
        self.multi || self.watching
    }

    /// What it began with belongs there by now: where it is, its server will say so.
    fn has_gone_to(&self, router: &impl Router, to: &Rc<Node>) -> bool {
        let began = self.began.as_ref().map(|bytes| Taken::again(bytes));
        let now = began.map(|taken| router.stays(&taken.request()));
        matches!(now, Some(Ok(Some(now))) if Rc::ptr_eq(&now, to))
    }

    /// Gives up the connection, for others: nothing is left on it.
    fn put_back(self, greeting: Option<&Greeting>) {
        if let (Some(node), Some(wire), None) = (&self.node, self.wire, &self.input) {
            node.put_back(greeting, wire);
        }
    }
}

impl<R: Router> Client<R> {
    /// Does `first`, and what belongs to it.
    pub(super) async fn private(&mut self, first: Taken) -> io::Result<()> {
        let mut private = Private::default();
        self.add(&mut private, &first).await;
        loop {
            // What has come already is read before anything is waited for.
            while private.is_held() {
                match self.next() {
                    Ok(Some(taken)) => self.add(&mut private, &taken).await,
                    Ok(None) => break,
                    Err(why) => {
                        self.near.outbox.answer(format!("-{why}\r\n").as_bytes());
                        self.ending = true;
                        return Ok(());
                    }
                }
            }
            if private.over {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match poll_fn(|cx| self.private_turn(&mut private, cx)).await? {
                Turn::Input => {}
                Turn::Done => {
                    if private.reads && self.greeting.as_ref().is_some_and(|one| one.tracks) {
                        self.near.outbox.behind(FORGET);
                    }
                    private.put_back(self.alone().as_ref());
                    return Ok(());
                }
                // What it waited for is never answered.
                Turn::Gone => return Err(io::ErrorKind::ConnectionAborted.into()),
                Turn::Ended(End::Lost(why)) => {
                    let name = private.node.as_ref().map_or("", |node| node.name());
                    let line = format!(
                        "-ERR the connection to {name} ended before it replied ({why}): what the command does may have been done\r\n"
                    );
                    let waiting = private.journal.give_up();
                    waiting.for_each(|(ticket, _)| ticket.reply(line.as_bytes()));
                    // Redis would have forgotten it too.
                    return Ok(());
                }
                Turn::Ended(End::Elsewhere(place, line)) => {
                    self.go_on(&mut private, &place, &line).await;
                }
            }
        }
    }

    /// That there is nothing, as EXEC says when something that was watched has been changed.
    pub(super) fn null(&self) -> &'static [u8] {
        let resp3 = |greeting: &Greeting| greeting.resp3;
        match self.greeting.as_ref().is_some_and(resp3) {
            true => b"_\r\n",
            false => b"*-1\r\n",
        }
    }

    /// Puts a command on the connection, or answers it here.
    async fn add(&mut self, private: &mut Private, taken: &Taken) {
        let request = taken.request();
        let name = request.command.map_or("", |command| command.name);
        match name {
            "quit" | "reset" => {
                *private = Private::default();
                if name == "quit" {
                    self.ending = true;
                    return self.near.outbox.answer(b"+OK\r\n");
                }
                self.greeting = None;
                self.who.name.clear();
                self.near.outbox.mute(Mute::Nobody);
                return self.near.outbox.answer(b"+RESET\r\n");
            }
            "multi" if private.multi => {
                return self
                    .near
                    .outbox
                    .answer(b"-ERR MULTI calls can not be nested\r\n");
            }
            "multi" => {
                private.multi = true;
                if private.node.is_none() {
                    // Where it goes is known with its first key.
                    return self.near.outbox.answer(b"+OK\r\n");
                }
            }
            "exec" | "discard" if !private.multi => {
                let line = format!("-ERR {} without MULTI\r\n", name.to_uppercase());
                return self.near.outbox.answer(line.as_bytes());
            }
            "exec" | "discard" => {
                let early = private.node.is_none() && !private.out.is_empty();
                if name == "exec"
                    && early
                    && !private.aborted
                    && let Err(reply) = self
                        .open(private, self.front.router.first(), &request)
                        .await
                {
                    private.aborted = true;
                    (private.multi, private.watching) = (false, false);
                    return self.near.outbox.answer(&reply);
                }
                return self.end(private, name, taken);
            }
            _ if private.void && private.multi && private.node.is_none() => {
                return self.near.outbox.answer(b"+QUEUED\r\n");
            }
            "watch" if private.multi => {
                return self
                    .near
                    .outbox
                    .answer(b"-ERR WATCH inside MULTI is not allowed\r\n");
            }
            "watch" => private.watching = true,
            "unwatch" => {
                (private.watching, private.void) = (false, false);
                private.journal.unsettle();
            }
            _ => {}
        }
        let alone = request
            .command
            .is_some_and(|command| matches!(command.kind, Kind::Session | Kind::Subscribe));
        let belongs = matches!(name, "multi" | "watch" | "unwatch");
        if alone && !belongs {
            private.aborted = private.multi;
            let line = format!("-ERR {name} can't be done within a transaction\r\n");
            return self.near.outbox.answer(line.as_bytes());
        }
        let chosen = self.choose(private, &request).await;
        if let Err(reply) = chosen {
            private.aborted = private.multi;
            private.watching &= name != "watch";
            return self.near.outbox.answer(&reply);
        }
        let step = match name {
            "multi" => Step::Begin,
            _ if private.multi => Step::Queued,
            _ => Step::Plain,
        };
        if private.node.is_none() {
            // Within a transaction, before a key says where: the client goes on.
            self.near.outbox.answer(b"+QUEUED\r\n");
            private.out.extend_from_slice(&taken.bytes);
            return private.journal.put(&taken.bytes, Waiting::nobody(step));
        }
        let kind = request.command.map(|command| command.kind);
        let reads = matches!(kind, Some(Kind::Read | Kind::BlocksRead));
        private.reads |= !belongs && !matches!(kind, Some(Kind::Write | Kind::Blocks));
        private.out.extend_from_slice(&taken.bytes);
        let waiting = Waiting {
            ticket: Some(self.near.outbox.ticket()),
            changes: !belongs && !private.multi && !reads,
            step,
        };
        private.journal.put(&taken.bytes, waiting);
    }

    /// Makes sure of a connection to where the command belongs; within a transaction there may be none before that is known.
    async fn choose(
        &mut self,
        private: &mut Private,
        request: &Request<'_>,
    ) -> Result<(), Vec<u8>> {
        let router = &self.front.router;
        let wanted = router.stays(request)?;
        if let Some(node) = &private.node {
            return match wanted {
                Some(wanted)
                    if !Rc::ptr_eq(&wanted, node) && !private.has_gone_to(router, &wanted) =>
                {
                    Err(b"-CROSSSLOT Keys in request don't hash to the same shard\r\n".to_vec())
                }
                _ => Ok(()),
            };
        }
        private.began = wanted.as_ref().map(|_| request.bytes.into());
        match wanted {
            None if private.multi && !router.is_single() => Ok(()),
            None => self.open(private, router.first(), request).await,
            Some(node) => self.open(private, node, request).await,
        }
    }

    /// EXEC and DISCARD.
    fn end(&mut self, private: &mut Private, name: &str, taken: &Taken) {
        let aborted = std::mem::take(&mut private.aborted) && name == "exec";
        (private.multi, private.watching) = (false, false);
        if private.node.is_none() {
            private.out.clear();
            drop(private.journal.give_up());
        }
        let void = std::mem::take(&mut private.void) && name == "exec" && !aborted;
        if void && private.node.is_none() {
            return self.near.outbox.answer(self.null());
        }
        private.void = void;
        const ABORTED: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
        match (private.node.is_some(), aborted) {
            (false, true) => self.near.outbox.answer(ABORTED),
            (false, false) if name == "exec" => self.near.outbox.answer(b"*0\r\n"),
            (false, false) => self.near.outbox.answer(b"+OK\r\n"),
            (true, true) => {
                private.out.extend_from_slice(DISCARD);
                let waiting = Waiting::nobody(Step::End);
                private.journal.put(DISCARD, waiting);
                self.near.outbox.answer(ABORTED);
            }
            (true, false) => {
                let bytes = if void { DISCARD } else { &taken.bytes };
                private.out.extend_from_slice(bytes);
                let waiting = Waiting {
                    ticket: Some(self.near.outbox.ticket()),
                    changes: name == "exec",
                    step: Step::End,
                };
                private.journal.put(&taken.bytes, waiting);
            }
        }
    }

    fn private_turn(
        &mut self,
        private: &mut Private,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Turn>> {
        self.near.outbox.watch(cx);
        if let Err(end) = private.carry(cx, &self.front.router, self.null()) {
            return Poll::Ready(Ok(Turn::Ended(end)));
        }
        let waits = match (&private.there, &private.wire) {
            _ if private.journal.waiting.is_empty() => On::Nothing,
            (Some(there), _) => On::Server(there),
            (None, Some(_)) => On::Unknown,
            (None, None) => On::Nothing,
        };
        if self.told(waits, cx).is_some() {
            return Poll::Ready(Ok(Turn::Gone));
        }
        self.near.flush(cx)?;
        if self.hears.is_some() {
            // Whether there are other servers is looked at later.
            self.hear(cx)?;
            self.near.flush(cx)?;
        }
        if private.journal.waiting.is_empty() && !private.is_held() {
            return Poll::Ready(Ok(Turn::Done));
        }
        // A client that waits can still go away, and one with a transaction goes on with it.
        match self.near.read(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(Turn::Gone)),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(Turn::Input)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Private {
    /// Moves what can be moved without waiting. `null` is what EXEC says when what was watched was changed.
    fn carry(
        &mut self,
        cx: &mut Context<'_>,
        router: &impl Router,
        null: &[u8],
    ) -> Result<(), End> {
        if let Some(retirement) = &mut self.retirement
            && retirement.as_mut().poll(cx).is_ready()
        {
            self.retirement = None;
            return Err(End::Lost("it is not used any more".to_owned()));
        }
        if self.wire.is_none() {
            return Ok(());
        }
        let lost = |why: &str| End::Lost(why.to_owned());
        self.write(cx).map_err(End::Lost)?;
        loop {
            if !self.read(cx).map_err(End::Lost)? {
                return Ok(());
            }
            while let Some(buf) = &mut self.input
                && let Some((length, shape)) = self.scan.next(buf.filled()).map_err(lost)?
            {
                let reply = &buf.filled()[..length];
                if shape != Shape::Push {
                    let Some(waiting) = self.journal.waiting.pop_front() else {
                        return Err(End::Lost("it replied to nothing".to_owned()));
                    };
                    if reply.first() == Some(&b'-')
                        && let Some(node) = &self.node
                        && let Some(place) = router.elsewhere(reply, node)
                    {
                        self.journal.waiting.push_front(waiting);
                        return Err(End::Elsewhere(place, reply.to_vec()));
                    }
                    if waiting.ticket.is_some() {
                        self.since = None;
                    }
                    if waiting.step == Step::Id
                        && let Some(node) = &self.node
                    {
                        self.there = Some(There {
                            node: Rc::clone(node),
                            said: reply.to_vec(),
                        });
                    }
                    self.journal.answered(waiting.step, self.watching);
                    if let Some(node) = self.node.as_ref().filter(|_| waiting.changes) {
                        router.done(node);
                    }
                    let void = self.void && waiting.step == Step::End;
                    self.void &= !void;
                    if let Some(ticket) = waiting.ticket {
                        ticket.reply(if void { null } else { reply });
                    }
                }
                buf.consume(length);
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        while !self.out.is_empty() {
            match wire.poll_write(cx, &[IoSlice::new(&self.out)]) {
                Poll::Ready(Ok(0)) => return Err("it takes no more bytes".to_owned()),
                Poll::Ready(Ok(count)) => drop(self.out.drain(..count)),
                Poll::Ready(Err(error)) => return Err(error.to_string()),
                Poll::Pending => break,
            }
        }
        match wire.poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error.to_string()),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// True when something came.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, String> {
        let Some(wire) = &mut self.wire else {
            return Ok(false);
        };
        let buf = self.input.get_or_insert_with(Buf::small);
        buf.reserve(1);
        match wire.poll_read(cx, buf) {
            Poll::Pending => {
                if buf.is_empty() {
                    self.input = None;
                }
                Ok(false)
            }
            Poll::Ready(Ok(0)) => Err("it closed the connection".to_owned()),
            Poll::Ready(Ok(_)) => Ok(true),
            Poll::Ready(Err(error)) => Err(error.to_string()),
        }
    }
}
