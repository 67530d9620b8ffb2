//! Commands that wait at one worker: put there, sent again, given up.

use std::time::Instant;

use podkit_dataplane::resp::{Ticket, Way};

use super::commands::Class;
use super::held::Kept;
use super::router::{AT_PRIMARY, Local, NOWHERE};

impl Local {
    /// Tries to send what waits, in order.
    pub(super) fn release(&self) {
        let all = self.held.borrow_mut().take();
        for (mut kept, ticket) in all {
            kept.course.told = false;
            let hold = self.shared.params.hold;
            if kept.since.is_some_and(|since| since.elapsed() >= hold) {
                self.shared.expired.inc();
                let line = format!(
                    "-ERR podkit kept the command for {} ms (--hold), and it was not done: {}\r\n",
                    hold.as_millis(),
                    kept.why
                );
                ticket.reply(line.as_bytes());
                continue;
            }
            // Those before it that are for the primary wait on.
            let behind = kept.leads() && self.held.borrow().has_writes();
            let sent = match behind {
                true => Err((kept, ticket)),
                false => self.try_send(kept, ticket, NOWHERE),
            };
            match sent {
                Ok(_) => self.shared.replayed.inc(),
                Err((kept, ticket)) => self.wait(kept, ticket),
            }
        }
    }

    pub(super) fn wait(&self, mut kept: Box<Kept>, ticket: Ticket) {
        let params = &self.shared.params;
        let began = kept.since.is_none();
        kept.since.get_or_insert_with(Instant::now);
        // Its client takes it to be there from now on.
        kept.is_first = false;
        let refused = match params.hold.is_zero() {
            true => Err((kept, ticket)),
            false => self.held.borrow_mut().put(kept, ticket, params.hold_size.0),
        };
        match refused {
            Ok(()) if began => self.news.notify_one(),
            Ok(()) => self.again.notify_one(),
            Err((kept, ticket)) => self.no_room(&kept, ticket),
        }
    }

    fn no_room(&self, kept: &Kept, ticket: Ticket) {
        self.shared.turned_away.inc();
        let why = match self.shared.params.hold.is_zero() {
            true => "",
            false => " and no room to keep the command (--hold-size)",
        };
        let line = format!(
            "-ERR no server for the command now{why}; it was not done: {}\r\n",
            kept.why
        );
        ticket.reply(line.as_bytes());
    }

    /// Sends it, or keeps it, behind what waits. Returns where it is, for its client, and by which way it went.
    pub(super) fn dispatch(&self, kept: Box<Kept>, ticket: Ticket, before: u8) -> (u8, Way) {
        let way = kept.way;
        let waits = kept.class != Class::Read && self.held.borrow().has_writes();
        let sent = match waits {
            true => Err((kept, ticket)),
            false => self.try_send(kept, ticket, before),
        };
        match sent {
            Ok(sent) => sent,
            Err((kept, ticket)) => {
                self.wait(kept, ticket);
                (AT_PRIMARY, way)
            }
        }
    }

    /// Takes one that a server sent here, to be sent at once.
    pub(super) fn turned(&self, mut kept: Box<Kept>, ticket: Ticket) {
        kept.local = self.me.clone();
        // What its client sent behind it went by the same way.
        kept.is_first = false;
        let most = self.shared.params.hold_size.0;
        let refused = self.held.borrow_mut().put(kept, ticket, most);
        match refused {
            Ok(()) => self.news.notify_one(),
            Err((kept, ticket)) => self.no_room(&kept, ticket),
        }
    }

    /// It has no servers any more. What waits is given back.
    pub(super) fn end(&self) -> Vec<(Box<Kept>, Ticket)> {
        let mut state = self.state.borrow_mut();
        let primary = state.primary.take();
        let replicas = std::mem::take(&mut state.replicas);
        drop(state);
        let replicas = replicas.values().map(|(_, node)| node);
        for node in primary.iter().chain(replicas) {
            node.retire("it is no node of the cluster any more");
        }
        self.over.set(true);
        self.news.notify_one();
        self.held.borrow_mut().take().collect()
    }

    /// It was not done; it is sent again, or later. Called by lanes at work: nothing is sent here.
    pub(super) fn hold(&self, kept: Box<Kept>, ticket: Ticket) {
        self.wait(kept, ticket);
    }
}
