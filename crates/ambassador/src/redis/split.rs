//! The clients of one worker.
//!
//! A client's pipeline is done in its order: while a command of it is at the primary all that follow go there too, and what is for the primary
//! waits until the replica has answered what came before.

use std::rc::Rc;
use std::task::Context;
use std::time::Instant;

use podkit_dataplane::resp::{Greeting, Node, Opening, Place, Request, Router, Sender, Way};

use super::commands::{Class, class};
use super::fence::ALL;
use super::held::Kept;
use super::params::ReadFrom;
use super::router::{AGAIN, AT_PRIMARY, AT_REPLICA, Local, NOWHERE};

/// SCRIPT KILL and FUNCTION KILL.
fn is_kill(request: &Request<'_>) -> bool {
    let name = request.command.map_or("", |command| command.name);
    matches!(name, "script" | "function") && request.words.is(1, b"kill")
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
            _ => sender.note.get(),
        };
        if class != Class::Read && before >= AT_REPLICA {
            return false;
        }
        // Behind what waits; or there is room in the primary's lane.
        let waits =
            (class != Class::Read || before == AT_PRIMARY) && local.held.borrow().has_writes();
        if !waits
            && let Some(primary) = local.primary()
            && !primary.lane(sender.greeting, sender.way.get()).has_room(cx)
        {
            return false;
        }
        if !waits && is_kill(request) && local.primary().is_some() {
            local.kill(request, sender);
            sender.note.set(AT_PRIMARY);
            return true;
        }
        let order = local.order.get();
        local.order.set(order + 1);
        let class = match class {
            // In the order of the client's pipeline.
            Class::Read if before == AT_PRIMARY => Class::Own,
            class => class,
        };
        let kept = Box::new(Kept {
            local: local.me.clone(),
            order,
            bytes: request.bytes.into(),
            greeting: sender.greeting.cloned(),
            class,
            way: sender.way.get(),
            is_first: before == NOWHERE && sender.way.get() != Way::Common,
            numbers: numbers.as_slice().into(),
            replica: None,
            term: 0,
            since: None,
            why: match (class, local.shared.params.read) {
                (Class::Read, ReadFrom::Replica) => "no replica can be read from".to_owned(),
                _ => "there is no primary".to_owned(),
            },
        });
        drop(numbers);
        let sent = match waits {
            true => Err((kept, sender.ticket())),
            false => local.try_send(kept, sender.ticket(), before),
        };
        let note = match sent {
            Ok((note, way)) => {
                sender.way.set(way);
                note
            }
            Err((kept, ticket)) => {
                local.wait(kept, ticket);
                AT_PRIMARY
            }
        };
        sender.note.set(note);
        true
    }

    fn stays(&self, _request: &Request<'_>) -> Result<Option<Rc<Node>>, Vec<u8>> {
        // Where the client's connection is, or the primary.
        Ok(None)
    }

    fn first(&self) -> Rc<Node> {
        self.0.follow(false);
        let nobody = || Rc::clone(&self.0.state.borrow().nobody);
        self.0.primary().unwrap_or_else(nobody)
    }

    fn open(&self, _node: Rc<Node>, greeting: Option<Greeting>) -> Opening {
        let local = Rc::clone(&self.0);
        Box::pin(async move {
            let began = Instant::now();
            loop {
                local.follow(false);
                let why = match local.primary() {
                    None => "there is no primary".to_owned(),
                    Some(node) => match node.open(greeting.as_ref()).await {
                        Ok(wire) => return Ok((node, wire)),
                        Err(why) => why,
                    },
                };
                if began.elapsed() >= local.shared.params.hold {
                    return Err(why);
                }
                tokio::time::sleep(AGAIN).await;
            }
        })
    }

    fn done(&self) {
        let local = &self.0;
        let Some(primary) = local.primary() else {
            return;
        };
        local.shared.fences.begin(&[ALL]);
        primary.lane(None, Way::Common).mark(&[ALL]);
    }

    fn is_single(&self) -> bool {
        true
    }
}
