//! Commands that wait for a server: in the order in which they came, within bounds of time and size.
//!
//! A command comes back from its lane when it was not done: nothing of it was sent, or the server said that it is not the one for it
//! (`READONLY`, `LOADING`, `MASTERDOWN`), or it changes nothing. It is sent again when there is a server. A write that was sent and not
//! answered does not come back: nobody knows whether it was done.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Instant;

use podkit_dataplane::resp::{Failure, Greeting, Keep, Ticket, Way};

use super::commands::Class;
use super::router::Local;

/// A command, as it is needed to send it again.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) local: Weak<Local>,
    /// Its place among all commands of the worker.
    pub(super) order: u64,
    pub(super) bytes: Rc<[u8]>,
    pub(super) greeting: Option<Greeting>,
    pub(super) class: Class,
    /// By which of the server's connections it goes.
    pub(super) way: Way,
    /// A script before which its client has nothing that waits.
    pub(super) is_first: bool,
    /// Of its keys.
    pub(super) numbers: Box<[u16]>,
    /// The replica that it was sent to; None: the primary.
    pub(super) replica: Option<String>,
    /// The term in which it was sent.
    pub(super) term: u64,
    /// Since when it waits.
    pub(super) since: Option<Instant>,
    /// What was said last instead of a reply.
    pub(super) why: String,
    /// What a cluster makes of it.
    pub(super) course: Course,
}

/// A command's course through a cluster.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Course {
    /// Of its keys, where they are known.
    pub(super) slot: Option<u16>,
    /// The server has the slot not yet, and does it all the same when it is told so.
    pub(super) asking: bool,
    /// A server has just said that it belongs here, and it was not sent since. The map may know less.
    pub(super) told: bool,
    /// What waits for the same server need not wait behind it.
    pub(super) alone: bool,
    /// How often it was sent elsewhere.
    pub(super) turns: u8,
}

impl Kept {
    /// Those behind it have to wait for it.
    pub(super) fn leads(&self) -> bool {
        self.class != Class::Read && !self.course.alone
    }

    /// It may be done twice.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self.class, Class::Read | Class::Own)
    }
}

/// What an error reply means for who routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the answer.
    Answer,
    /// The server is a replica: it was not done.
    Demoted,
    /// The server can't now: it was not done.
    NotNow,
    /// The replica does not have the script.
    NoScript,
    /// The server takes nothing but the end of a script.
    Busy,
}

/// Reads an error reply.
pub(super) fn verdict(reply: &[u8]) -> Verdict {
    let code = reply.split(|byte| matches!(byte, b' ' | b'\r')).next();
    match code.unwrap_or_default() {
        b"-READONLY" => Verdict::Demoted,
        b"-LOADING" | b"-MASTERDOWN" | b"-CLUSTERDOWN" => Verdict::NotNow,
        b"-NOSCRIPT" => Verdict::NoScript,
        b"-BUSY" => Verdict::Busy,
        _ => Verdict::Answer,
    }
}

impl Keep for Kept {
    fn failed(mut self: Box<Self>, failure: Failure<'_>, mut ticket: Ticket) {
        let Some(local) = self.local.upgrade() else {
            return ticket.reply(failure.line());
        };
        if let Some(nodes) = local.cluster() {
            match nodes.turned(self, failure, ticket) {
                Some((kept, back)) => (self, ticket) = (kept, back),
                None => return,
            }
        }
        match failure {
            Failure::Error(line) => match verdict(line) {
                Verdict::Answer => return ticket.reply(line),
                // Of the primary it is.
                Verdict::NoScript | Verdict::Busy if self.replica.is_none() => {
                    return ticket.reply(line);
                }
                Verdict::Demoted if self.replica.is_none() => local.refused(self.term),
                // The primary can, if anybody can.
                Verdict::NoScript | Verdict::Demoted | Verdict::Busy => self.class = Class::Own,
                Verdict::NotNow => {}
            },
            Failure::Lost(line) if !self.is_safe() => {
                local.uncertain();
                return ticket.reply(line);
            }
            Failure::Lost(_) | Failure::Unsent(_) => {}
        }
        if let Some(replica) = self.replica.take() {
            local.avoid(&replica);
        }
        self.why = String::from_utf8_lossy(failure.line())
            .trim_start_matches('-')
            .trim_end()
            .to_owned();
        local.hold(self, ticket);
    }
}

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Held {
    all: BTreeMap<u64, (Box<Kept>, Ticket)>,
    bytes: u64,
    /// How many are for the primary.
    writes: usize,
}

impl Held {
    /// Takes one; gives it back when there is no room for it.
    pub(super) fn put(
        &mut self,
        kept: Box<Kept>,
        ticket: Ticket,
        most: u64,
    ) -> Result<(), (Box<Kept>, Ticket)> {
        let size = kept.bytes.len() as u64;
        if self.bytes + size > most {
            return Err((kept, ticket));
        }
        self.bytes += size;
        self.writes += usize::from(kept.leads());
        self.all.insert(kept.order, (kept, ticket));
        Ok(())
    }

    /// All of them, in order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Box<Kept>, Ticket)> + use<> {
        std::mem::take(self).all.into_values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Commands for the primary have to wait behind others.
    pub(super) fn has_writes(&self) -> bool {
        self.writes > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_certainly_not_done_is_not_the_answer() {
        let check = |line: &str, expected| assert_eq!(verdict(line.as_bytes()), expected, "{line}");
        check(
            "-READONLY You can't write against a read only replica.\r\n",
            Verdict::Demoted,
        );
        check("-LOADING Redis is loading\r\n", Verdict::NotNow);
        check("-MASTERDOWN Link with MASTER is down\r\n", Verdict::NotNow);
        check("-CLUSTERDOWN The cluster is down\r\n", Verdict::NotNow);
        check("-NOSCRIPT No matching script.\r\n", Verdict::NoScript);
        check("-ERR READONLY\r\n", Verdict::Answer);
        check("-BUSY Redis is busy running a script.\r\n", Verdict::Busy);
        check(
            "-BUSYKEY Target key name already exists.\r\n",
            Verdict::Answer,
        );
        check("-READONLYX\r\n", Verdict::Answer);
        check("-WRONGTYPE Operation against a key\r\n", Verdict::Answer);
        check("-\r\n", Verdict::Answer);
    }
}
