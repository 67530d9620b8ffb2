//! How a client gets its connection of its own: the first one, and another when what it waits for belongs elsewhere.
//!
//! That may take a while, for want of a server or of a slot that is on its way. Others can end the client meanwhile, or its waiting.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{ID, On, Told};
use super::commands::Kind;
use super::front::{Client, Front};
use super::journal::{Step, Waiting};
use super::lane::Greeting;
use super::node::Node;
use super::private::Private;
use super::route::{Elsewhere, Request, Router};
use super::scan::Replies;
use super::session::Taken;
use crate::upstream::Wire;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
/// How soon what has to wait is tried again.
const AGAIN: Duration = Duration::from_millis(20);

impl<R: Router> Client<R> {
    /// Waits for something other than a server's reply; whom others call is answered meanwhile. `blocks`: its first command is one whose waiting
    /// they may end.
    pub(super) async fn while_called<T>(
        &mut self,
        blocks: bool,
        what: impl Future<Output = T>,
    ) -> Result<T, Told> {
        let (mut what, waits) = (pin!(what), if blocks { On::Podkit } else { On::Nothing });
        poll_fn(|cx| match what.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => match self.told(waits, cx) {
                Some(told) => Poll::Ready(Err(told)),
                None => Poll::Pending,
            },
        })
        .await
    }

    /// What waits is sent to where it belongs, if it can be.
    pub(super) async fn go_on(&mut self, private: &mut Private, place: &Elsewhere, line: &[u8]) {
        (private.wire, private.retirement, private.there) = (None, None, None);
        let node = private.node.take();
        private.input = None;
        private.scan = Replies::default();
        private.out.clear();
        private.void |= private.journal.is_settled();
        if private.void && private.journal.is_within() {
            let null = self.null();
            for (ticket, step) in private.journal.give_up() {
                ticket.reply(if step == Step::End {
                    null
                } else {
                    b"+QUEUED\r\n"
                });
            }
            private.void = private.multi;
            return;
        }
        loop {
            let first = private.journal.first().map(|bytes| Taken::again(bytes));
            let request = first.as_ref().map(Taken::request);
            let blocks = !private.multi && request.as_ref().is_some_and(may_block);
            let since = *private.since.get_or_insert_with(Instant::now);
            let finding = find(
                Rc::clone(&self.front),
                self.alone(),
                place,
                (private.journal.is_single() && !private.multi, node.clone()),
                request.as_ref(),
                since,
            );
            let found = self.while_called(blocks, finding).await;
            match found {
                Ok(found) => return self.resume(private, found, line),
                Err(Told::End) => {
                    private.over = true;
                    return;
                }
                Err(Told::Unblock(how)) => {
                    if let (Some(ticket), Some(request)) = (private.journal.skip_first(), &request)
                    {
                        ticket.reply(&self.unblocked(how, request));
                    }
                    private.since = None;
                    if private.journal.waiting.is_empty() {
                        return;
                    }
                }
            }
        }
    }
    fn resume(&mut self, private: &mut Private, found: Option<Found>, line: &[u8]) {
        let void = private.void;
        let out =
            found.and_then(|found| Some((private.journal.replay(found.asking, void)?, found)));
        match out {
            Some((out, Found { node, wire, .. })) => {
                private.retirement = Some(Box::pin(Rc::clone(&node).retirement()));
                (private.node, private.wire, private.out) = (Some(node), Some(wire), out);
                self.introduce(private);
            }
            None => {
                let why = String::from_utf8_lossy(line.get(1..).unwrap_or_default());
                let reply = format!(
                    "-ERR the command belongs elsewhere and was not done ({})\r\n",
                    why.trim_end()
                );
                let waiting = private.journal.give_up();
                waiting.for_each(|(ticket, _)| ticket.reply(reply.as_bytes()));
                private.aborted = private.multi;
            }
        }
    }

    /// Opens the first one, for `request`. The error is the reply to that.
    pub(super) async fn open(
        &mut self,
        private: &mut Private,
        node: Rc<Node>,
        request: &Request<'_>,
    ) -> Result<(), Vec<u8>> {
        let (front, greeting) = (Rc::clone(&self.front), self.alone());
        let opening = async move {
            match node.spare(greeting.as_ref()).await {
                Some(wire) => Ok((node, wire)),
                None => front.router.open(node, greeting).await,
            }
        };
        let blocks = !private.multi && may_block(request);
        let opened = match self.while_called(blocks, opening).await {
            Ok(opened) => opened,
            Err(Told::Unblock(how)) => return Err(self.unblocked(how, request)),
            Err(Told::End) => {
                private.over = true;
                Err("others have ended the client".to_owned())
            }
        };
        let (node, wire) = opened.map_err(|why| format!("-ERR {why}\r\n").into_bytes())?;
        node.prepare(self.alone().as_ref());
        private.retirement = Some(Box::pin(Rc::clone(&node).retirement()));
        (private.node, private.wire) = (Some(node), Some(wire));
        // The client has its +OK.
        if private.multi {
            private.out.splice(0..0, MULTI.iter().copied());
            let waiting = Waiting::nobody(Step::Begin);
            private.journal.put_first(MULTI, waiting);
        }
        self.introduce(private);
        Ok(())
    }

    /// The reply to a command whose waiting others have ended, as Redis has it.
    fn unblocked(&self, how: &str, request: &Request<'_>) -> Vec<u8> {
        let name = request.command.map_or("", |command| command.name);
        match (how, name) {
            ("ERROR", _) => b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n".to_vec(),
            (_, "wait") => b":0\r\n".to_vec(),
            (_, "waitaof") => b"*2\r\n:0\r\n:0\r\n".to_vec(),
            _ => self.null().to_vec(),
        }
    }

    /// Asks who it is there, before all else, where others may ask.
    fn introduce(&self, private: &mut Private) {
        if self.who.is_known() {
            private.out.splice(0..0, ID.iter().copied());
            private.journal.lead(Step::Id);
        }
    }
}

/// A command of the kind that waits.
fn may_block(request: &Request<'_>) -> bool {
    request
        .command
        .is_some_and(|command| matches!(command.kind, Kind::Blocks | Kind::BlocksRead))
}

/// A connection to where what waits belongs.
struct Found {
    node: Rc<Node>,
    wire: Wire,
    /// It is asked for by `ASKING`.
    asking: bool,
}

/// Finds it, as the server that did not do the command said. `may_ask`: it is one command, and in no transaction.
async fn find<R: Router>(
    front: Rc<Front<R>>,
    greeting: Option<Greeting>,
    place: &Elsewhere,
    (may_ask, node): (bool, Option<Rc<Node>>),
    first: Option<&Request<'_>>,
    since: Instant,
) -> Option<Found> {
    let router = &front.router;
    let (to, asking) = match place {
        Elsewhere::At(node, false) => (Some(Rc::clone(node)), false),
        Elsewhere::At(node, true) if may_ask => (Some(Rc::clone(node)), true),
        // A transaction can't be told of: it waits until all is there.
        Elsewhere::At(..) | Elsewhere::Later => {
            tokio::time::sleep(AGAIN).await;
            let stays = first.map(|first| router.stays(first));
            (stays.and_then(Result::ok).flatten().or(node), false)
        }
    };
    let to = to.filter(|_| since.elapsed() < router.hold())?;
    let (node, wire) = router.open(to, greeting).await.ok()?;
    Some(Found { node, wire, asking })
}
