//! Where a command goes: what a module decides, and the rest of the engine does.

use std::rc::Rc;

use super::commands::{Command, Words};
use super::join::Merge;
use super::node::Node;

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

    /// A command was taken, for counts of the module's own.
    fn taken(&self, _request: &Request<'_>) {}
}

/// One that its module keeps a hand on.
impl<R: Router> Router for Rc<R> {
    fn place(&self, request: &Request<'_>) -> Place {
        R::place(self, request)
    }

    fn stays(&self, request: &Request<'_>) -> Result<Option<Rc<Node>>, Vec<u8>> {
        R::stays(self, request)
    }

    fn first(&self) -> Rc<Node> {
        R::first(self)
    }

    fn is_single(&self) -> bool {
        R::is_single(self)
    }

    fn taken(&self, request: &Request<'_>) {
        R::taken(self, request);
    }
}
