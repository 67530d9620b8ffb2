//! Where a command goes: what a module decides, and the rest of the engine does.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use super::commands::{Command, Words};
use super::join::{Join, Merge};
use super::lane::Greeting;
use super::node::Node;
use super::reply::{Outbox, Ticket};
use super::way::Way;
use crate::upstream::Wire;

/// A command that has come.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// As it is to be sent.
    pub bytes: &'a [u8],
    /// Its words.
    pub words: Words<'a>,
    /// What is known of it.
    pub command: Option<&'static Command>,
}

/// Where it goes.
#[derive(Debug)]
pub enum Place {
    /// To one server.
    One(Rc<Node>),
    /// It names no key: any server will do, and the module's first is taken.
    Any,
    /// To several, whose replies become one.
    Split(Vec<Part>, Merge),
    /// The module sends it itself: see [`Router::send`].
    Own,
    /// Nowhere: this is the reply.
    Answer(Vec<u8>),
}

/// What a server gets of a command.
#[derive(Debug)]
pub struct Part {
    /// The server.
    pub node: Rc<Node>,
    /// The command.
    pub bytes: Vec<u8>,
}

/// A client whose command a module sends itself.
#[derive(Debug)]
pub struct Sender<'a> {
    pub(super) outbox: &'a Rc<Outbox>,
    /// What it asked for, where that is not what the module says.
    pub greeting: Option<&'a Greeting>,
    /// The module's own note about this client.
    pub note: &'a Cell<u32>,
    /// By which the command goes; a script before which nothing waits may be given [`Node::script_way`].
    pub way: &'a Cell<Way>,
}

impl Sender<'_> {
    /// Where the reply goes. Taken in the order of the commands.
    pub fn ticket(&self) -> Ticket {
        self.outbox.ticket()
    }

    /// Where the replies of so many parts go, which become one. Likewise.
    pub fn tickets(&self, merge: Merge, parts: usize) -> impl Iterator<Item = Ticket> + use<> {
        let count = u32::try_from(parts).unwrap_or(u32::MAX);
        self.outbox.tickets(Join::new(merge, parts), count)
    }

    /// The reply is known.
    pub fn answer(&self, reply: &[u8]) {
        self.outbox.answer(reply);
    }

    /// How many commands of it have no reply yet.
    pub fn waiting(&self) -> usize {
        self.outbox.waiting()
    }
}

/// Where a command belongs that a server did not do.
#[derive(Debug)]
pub enum Elsewhere {
    /// To this one; it has to be told `ASKING` first, if so said.
    At(Rc<Node>, bool),
    /// To whoever has its keys in a moment.
    Later,
}

/// A connection that is being opened, and to where.
pub type Opening = Pin<Box<dyn Future<Output = Result<(Rc<Node>, Wire), String>>>>;

/// Decides for one worker.
pub trait Router: 'static {
    /// Where a command goes that is neither about the connection nor waits.
    fn place(&self, request: &Request<'_>) -> Place;

    /// Where one goes that must stay on one connection: all its keys are on one server. None: it has no key. The error is a reply.
    fn stays(&self, request: &Request<'_>) -> Result<Option<Rc<Node>>, Vec<u8>>;

    /// Where everything goes that names no key.
    fn first(&self) -> Rc<Node>;

    /// There is one server only: nothing has to be split or kept apart.
    fn is_single(&self) -> bool;

    /// All servers, for who wants to hear of each what it says by itself.
    fn all(&self) -> Vec<Rc<Node>> {
        vec![self.first()]
    }

    /// Ready when these may be others.
    fn news(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(std::future::pending())
    }

    /// Sends what [`Place::Own`] was said of. False: not now; the client's task has to be woken when it can be, which it is with each reply.
    fn send(&self, _request: &Request<'_>, _sender: &Sender<'_>, _cx: &Context<'_>) -> bool {
        unreachable!("said by place() only where this is there")
    }

    /// Opens a connection of one client's own to where `node` was meant.
    fn open(&self, node: Rc<Node>, greeting: Option<Greeting>) -> Opening {
        Box::pin(async move {
            let wire = node.open(greeting.as_ref()).await?;
            Ok((node, wire))
        })
    }

    /// A command that may have changed something was answered on such a connection, of `node`.
    fn done(&self, _node: &Rc<Node>) {}

    /// What an error on such a connection, of `node`, says of where its command belongs, which was not done. None: it is the answer.
    fn elsewhere(&self, _error: &[u8], _node: &Rc<Node>) -> Option<Elsewhere> {
        None
    }

    /// How long that may go on.
    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    /// A command was taken, for counts of the module's own.
    fn taken(&self, _request: &Request<'_>) {}
}
