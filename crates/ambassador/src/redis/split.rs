//! The clients of one worker.
//!
//! A client's pipeline is done in its order: while a command of it is at the primary all that follow go there too, and what is for the primary
//! waits until the replica has answered what came before.

use std::rc::Rc;
use std::task::Context;

use podkit_dataplane::resp::{Greeting, Merge, Node, Opening, Place, Request, Router, Sender, Way};

use super::commands::{Class, class};
use super::held::{Course, Kept};
use super::router::{AT_PRIMARY, AT_REPLICA, Local, NOWHERE};

/// A command has to wait for what its client has at a replica (`before`: where that is), or it might be done before that.
pub(super) fn has_to_wait(class: Class, before: u8) -> bool {
    class != Class::Read && before >= AT_REPLICA
}

/// Where a client's commands are, once one more was `sent` there: at a replica as long as one may be, though a read behind it is at the primary.
pub(super) fn after(before: u8, sent: u8) -> u8 {
    if before >= AT_REPLICA { before } else { sent }
}

/// SCRIPT KILL and FUNCTION KILL.
pub(super) fn is_kill(request: &Request<'_>) -> bool {
    let name = request.command.map_or("", |command| command.name);
    matches!(name, "script" | "function") && request.words.is(1, b"kill")
}

/// Ends the script that runs, on whichever of these it does.
pub(super) fn kill(nodes: &[Rc<Node>], request: &Request<'_>, sender: &Sender<'_>) {
    let tickets = sender.tickets(Merge::Killed, nodes.len());
    for (node, ticket) in nodes.iter().zip(tickets) {
        let lane = node.lane(sender.greeting, sender.way.get());
        lane.send(request.bytes, ticket);
    }
}

/// What a worker's clients are served by.
#[derive(Debug)]
pub(super) struct Split(pub(super) Rc<Local>);

impl Router for Split {
    fn place(&self, _request: &Request<'_>) -> Place {
        Place::Own
    }

    fn send(&self, request: &Request<'_>, sender: &Sender<'_>, cx: &Context<'_>) -> bool {
        let local = &self.0;
        local.follow(false);
        let mut numbers = local.numbers.borrow_mut();
        let said = match request.command {
            Some(_) => None,
            None => local.said(request),
        };
        let class = class(request, said, &mut numbers);
        let before = match sender.waiting() {
            0 => NOWHERE,
            _ => u8::try_from(sender.note.get()).unwrap_or(AT_PRIMARY),
        };
        if has_to_wait(class, before) {
            return false;
        }
        if !local.has_room(sender, cx) {
            return false;
        }
        // It has to pass what the script keeps waiting.
        if is_kill(request) && !local.held.borrow().has_writes() && local.primary().is_some() {
            kill(&local.busy(), request, sender);
            sender.note.set(u32::from(AT_PRIMARY));
            return true;
        }
        let class = match class {
            // In the order of the client's pipeline.
            Class::Read if before == AT_PRIMARY => Class::Own,
            class => class,
        };
        let kept = Box::new(Kept {
            local: local.me.clone(),
            order: local.next(),
            bytes: request.bytes.into(),
            greeting: sender.greeting.cloned(),
            class,
            way: sender.way.get(),
            is_first: before == NOWHERE && sender.way.get() != Way::Common,
            numbers: numbers.as_slice().into(),
            replica: None,
            term: 0,
            since: None,
            why: local.nobody(class).to_owned(),
            course: Course::default(),
        });
        drop(numbers);
        let (note, way) = local.dispatch(kept, sender.ticket(), before);
        sender.note.set(u32::from(after(before, note)));
        sender.way.set(way);
        true
    }

    fn stays(&self, _request: &Request<'_>) -> Result<Option<Rc<Node>>, Vec<u8>> {
        // Where the client's connection is, or the primary.
        Ok(None)
    }

    fn first(&self) -> Rc<Node> {
        self.0.stands()
    }

    fn open(&self, _node: Rc<Node>, greeting: Option<Greeting>) -> Opening {
        let local = Rc::clone(&self.0);
        Box::pin(local.open(greeting))
    }

    fn done(&self, _node: &Rc<Node>) {
        self.0.fence_all();
    }

    fn is_single(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a client's commands are that were sent here, one after the other.
    fn sent(all: &[u8]) -> u8 {
        all.iter().fold(NOWHERE, |before, to| after(before, *to))
    }

    #[test]
    fn what_is_for_the_primary_waits_for_reads_at_a_replica() {
        let check = |all: &[u8], waits: bool| {
            for class in [Class::Write, Class::Own, Class::Other] {
                assert_eq!(has_to_wait(class, sent(all)), waits, "{all:?}");
            }
            assert!(!has_to_wait(Class::Read, sent(all)));
        };
        check(&[], false);
        check(&[AT_PRIMARY], false);
        check(&[AT_REPLICA], true);
        check(&[AT_REPLICA + 1, AT_REPLICA], true);
        // The second read is of a key that the replica does not have yet: the first one is still there.
        check(&[AT_REPLICA + 1, AT_PRIMARY], true);
        check(&[AT_REPLICA, AT_PRIMARY, AT_PRIMARY], true);
    }
}
