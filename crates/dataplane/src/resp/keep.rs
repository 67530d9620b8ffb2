//! What a module may want to know: what became of a command that was not done, and what a server says of itself before it is used.
//!
//! Both are called while a lane is at work: they note what they are told and send nothing from within.

use std::fmt;

use super::reply::Ticket;

/// Why a command was not answered as it should be. Each has the reply that its client gets unless somebody knows better.
#[derive(Debug, Clone, Copy)]
pub enum Failure<'a> {
    /// The server says so.
    Error(&'a [u8]),
    /// It was sent, at least in part, and the connection ended: it may have been done.
    Lost(&'a [u8]),
    /// Nothing of it was sent.
    Unsent(&'a [u8]),
}

impl<'a> Failure<'a> {
    /// The reply.
    pub fn line(self) -> &'a [u8] {
        match self {
            Self::Error(line) | Self::Lost(line) | Self::Unsent(line) => line,
        }
    }
}

/// A command that its module wants back when it was not done.
pub trait Keep: fmt::Debug {
    /// The ticket is answered, or goes with the command when it is sent again.
    fn failed(self: Box<Self>, failure: Failure<'_>, ticket: Ticket);
}

/// Looks at the connections to a server.
pub trait Watch: fmt::Debug {
    /// What a connection begins with besides its greeting; an error is why it can't be used.
    fn first(&self) -> Option<&[u8]> {
        None
    }

    /// What a connection is asked when it was opened.
    fn question(&self) -> &[u8];

    /// What it says. The error, one line, is why it can't be used.
    fn accepts(&self, reply: &[u8]) -> Result<(), String>;

    /// What is asked behind each batch in which something was marked.
    fn behind(&self) -> &[u8];

    /// What it says to that; None: it did not. `marked` are the module's own numbers, of all that was marked in the batch.
    fn settled(&self, marked: Vec<u16>, reply: Option<&[u8]>);
}
