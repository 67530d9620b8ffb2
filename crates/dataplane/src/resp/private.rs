//! Commands that need a connection of the client's own for a while: transactions (MULTI, WATCH), and those that wait (BLPOP).
//!
//! A transaction goes to the server of its first key; one whose keys are on several is refused as Redis Cluster does, and EXEC
//! fails then. The connection is given up when nothing on it is left that the next command could depend on; the next who needs one gets it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::client::{ID, There};
use super::commands::Kind;
use super::front::Client;
use super::lane::Greeting;
use super::node::Node;
use super::reply::Ticket;
use super::route::{Request, Router};
use super::scan::{Replies, Shape};
use super::session::Taken;
use crate::net::{Buf, Transport};
use crate::upstream::Wire;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";

/// A connection of the client's own, and what is on it.
#[derive(Default)]
struct Private {
    node: Option<Rc<Node>>,
    /// As whom its server knows it, where others may ask.
    there: Option<There>,
    wire: Option<Wire>,
    /// Ready when the server may not be used any more.
    retirement: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// To be sent.
    out: Vec<u8>,
    waiting: VecDeque<Waiting>,
    input: Option<Buf>,
    scan: Replies,
    multi: bool,
    watching: bool,
    /// A command of the transaction was refused here.
    aborted: bool,
}

/// A command without a reply yet.
struct Waiting {
    /// Who waits for it; None: nobody.
    ticket: Option<Ticket>,
    /// It may have changed something.
    changes: bool,
    /// The reply says who it is there.
    is_id: bool,
}

impl Waiting {
    const NOBODY: Self = Self {
        ticket: None,
        changes: false,
        is_id: false,
    };
}

/// Why a turn ended.
enum Turn {
    /// Commands of the client are there.
    Input,
    /// Nothing is left on it.
    Done,
    /// The client is gone.
    Gone,
    /// The server is.
    Lost(String),
}

impl Private {
    /// It has to be kept for the next command.
    fn is_held(&self) -> bool {
        self.multi || self.watching
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
            match poll_fn(|cx| self.private_turn(&mut private, cx)).await? {
                Turn::Input => {}
                Turn::Done => {
                    private.put_back(self.greeting.as_ref());
                    return Ok(());
                }
                // What it waited for is never answered.
                Turn::Gone => return Err(io::ErrorKind::ConnectionAborted.into()),
                Turn::Lost(why) => {
                    let name = private.node.as_ref().map_or("", |node| node.name());
                    let line = format!(
                        "-ERR the connection to {name} ended before it replied ({why}): what the command does may have been done\r\n"
                    );
                    private
                        .waiting
                        .drain(..)
                        .filter_map(|waiting| waiting.ticket)
                        .for_each(|ticket| ticket.reply(line.as_bytes()));
                    // Redis would have forgotten it too.
                    return Ok(());
                }
            }
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
            "exec" | "discard" => return self.end(private, name, taken),
            "watch" if private.multi => {
                return self
                    .near
                    .outbox
                    .answer(b"-ERR WATCH inside MULTI is not allowed\r\n");
            }
            "watch" => private.watching = true,
            "unwatch" => private.watching = false,
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
        if let Err(reply) = self.choose(private, &request).await {
            private.aborted = private.multi;
            private.watching &= name != "watch";
            return self.near.outbox.answer(&reply);
        }
        let reads = request
            .command
            .is_some_and(|command| matches!(command.kind, Kind::Read | Kind::BlocksRead));
        private.out.extend_from_slice(&taken.bytes);
        private.waiting.push_back(Waiting {
            ticket: Some(self.near.outbox.ticket()),
            changes: !belongs && !private.multi && !reads,
            ..Waiting::NOBODY
        });
    }

    /// Makes sure of a connection to where the command belongs.
    async fn choose(
        &mut self,
        private: &mut Private,
        request: &Request<'_>,
    ) -> Result<(), Vec<u8>> {
        let router = &self.front.router;
        let wanted = router.stays(request)?;
        if let Some(node) = &private.node {
            return match wanted {
                Some(wanted) if !Rc::ptr_eq(&wanted, node) => {
                    Err(b"-CROSSSLOT Keys in request don't hash to the same shard\r\n".to_vec())
                }
                _ => Ok(()),
            };
        }
        let node = wanted.unwrap_or_else(|| router.first());
        let greeting = self.greeting.as_ref();
        let opened = match node.spare(greeting).await {
            Some(wire) => Ok((node, wire)),
            None => router.open(node, greeting.cloned()).await,
        };
        let (node, wire) = opened.map_err(|why| format!("-ERR {why}\r\n").into_bytes())?;
        node.prepare(greeting);
        private.retirement = Some(Box::pin(Rc::clone(&node).retirement()));
        (private.node, private.wire) = (Some(node), Some(wire));
        if self.who.is_known() {
            private.out.extend_from_slice(ID);
            private.waiting.push_back(Waiting {
                is_id: true,
                ..Waiting::NOBODY
            });
        }
        // The client has its +OK.
        if private.multi {
            private.out.extend_from_slice(MULTI);
            private.waiting.push_back(Waiting::NOBODY);
        }
        Ok(())
    }

    /// EXEC and DISCARD.
    fn end(&mut self, private: &mut Private, name: &str, taken: &Taken) {
        let aborted = std::mem::take(&mut private.aborted) && name == "exec";
        (private.multi, private.watching) = (false, false);
        const ABORTED: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
        match (private.node.is_some(), aborted) {
            (false, true) => self.near.outbox.answer(ABORTED),
            (false, false) if name == "exec" => self.near.outbox.answer(b"*0\r\n"),
            (false, false) => self.near.outbox.answer(b"+OK\r\n"),
            (true, true) => {
                private.out.extend_from_slice(DISCARD);
                private.waiting.push_back(Waiting::NOBODY);
                self.near.outbox.answer(ABORTED);
            }
            (true, false) => {
                private.out.extend_from_slice(&taken.bytes);
                private.waiting.push_back(Waiting {
                    ticket: Some(self.near.outbox.ticket()),
                    changes: name == "exec",
                    ..Waiting::NOBODY
                });
            }
        }
    }

    fn private_turn(
        &mut self,
        private: &mut Private,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Turn>> {
        self.near.outbox.watch(cx);
        if let Err(why) = private.carry(cx, &self.front.router) {
            return Poll::Ready(Ok(Turn::Lost(why)));
        }
        // Once it is known who it is there.
        if private.there.is_some() || private.wire.is_none() {
            let waits = !private.waiting.is_empty();
            let there = private.there.as_ref().filter(|_| waits);
            if self.is_killed(there, cx) {
                return Poll::Ready(Ok(Turn::Gone));
            }
        }
        self.near.flush(cx)?;
        if private.waiting.is_empty() && !private.is_held() {
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
    /// Moves what can be moved without waiting.
    fn carry(&mut self, cx: &mut Context<'_>, router: &impl Router) -> Result<(), String> {
        if let Some(retirement) = &mut self.retirement
            && retirement.as_mut().poll(cx).is_ready()
        {
            self.retirement = None;
            return Err("it is not used any more".to_owned());
        }
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
        if let Poll::Ready(Err(error)) = wire.poll_flush(cx) {
            return Err(error.to_string());
        }
        loop {
            let buf = self.input.get_or_insert_with(Buf::small);
            buf.reserve(1);
            match wire.poll_read(cx, buf) {
                Poll::Pending => {
                    if buf.is_empty() {
                        self.input = None;
                    }
                    return Ok(());
                }
                Poll::Ready(Ok(0)) => return Err("it closed the connection".to_owned()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error.to_string()),
            }
            while let Some((length, shape)) = self.scan.next(buf.filled())? {
                if shape != Shape::Push {
                    match self.waiting.pop_front() {
                        Some(waiting) => {
                            if let Some(node) = self.node.as_ref().filter(|_| waiting.is_id) {
                                self.there = Some(There {
                                    node: Rc::clone(node),
                                    said: buf.filled()[..length].to_vec(),
                                });
                            }
                            if waiting.changes {
                                router.done();
                            }
                            if let Some(ticket) = waiting.ticket {
                                ticket.reply(&buf.filled()[..length]);
                            }
                        }
                        None => return Err("it replied to nothing".to_owned()),
                    }
                }
                buf.consume(length);
            }
        }
    }
}
