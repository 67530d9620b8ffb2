//! The clients of one worker: which shard has what they ask for.
//!
//! A client's pipeline is done in its order where that can be seen: at one server. Since who has a slot may change while commands are on their
//! way, a client sends nothing more after a change before all of them are answered.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use podkit_dataplane::resp::{
    Elsewhere, Greeting, Keys, Merge, Node, Opening, Place, Request, Router, Sender, Way,
};

use super::nodes::{Nodes, State, UNKNOWN};
use crate::known::Said;
use crate::redis::commands::{Class, class};
use crate::redis::fence::number;
use crate::redis::held::{Course, Kept};
use crate::redis::router::{AT_PRIMARY, Local, NOWHERE};
use crate::redis::split::{after, has_to_wait, is_kill, kill};
use crate::shard::spread::{Spread, parted, spread, step};

const CROSSSLOT: &[u8] = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n";
/// Bits of a client's note that say where its commands are; above them is the era.
const WHERE: u32 = 8;

/// What any node may be asked of the cluster.
const ASKED: [&str; 12] = [
    "count-failure-reports",
    "help",
    "info",
    "keyslot",
    "links",
    "myid",
    "myshardid",
    "nodes",
    "replicas",
    "shards",
    "slaves",
    "slots",
];

/// What a worker's clients are served by.
#[derive(Debug)]
pub(in crate::redis) struct Over(pub(in crate::redis) Rc<Nodes>);

/// A command for one shard.
struct Part {
    local: Rc<Local>,
    slot: Option<u16>,
    numbers: Box<[u16]>,
    /// None: as it came.
    bytes: Option<Vec<u8>>,
}

/// Where a command goes.
enum Plan {
    One(Part),
    /// Their replies become one.
    Parts(Vec<Part>, Merge),
    Answer(Vec<u8>),
}

/// The slot of a command's keys. None: it has none. The error is a reply.
fn slot_of(request: &Request<'_>, said: Option<Said>) -> Result<Option<u16>, Vec<u8>> {
    let word = |at: usize| request.words.get(at).unwrap_or_default();
    // As nearly all have it. If this one does not, its node says where it belongs.
    const USUAL: Keys = Keys::Range {
        first: 1,
        last: 1,
        step: 1,
    };
    let keys = match request.command {
        Some(command) => command.keys,
        None if request.words.len() == 1 => Keys::None,
        None => said.and_then(|said| said.keys).unwrap_or(USUAL),
    };
    let (mut slot, mut apart) = (None, false);
    let told = keys.each(&request.words, |at| {
        let here = number(word(at));
        apart |= *slot.get_or_insert(here) != here;
    });
    match (told, apart) {
        // It is wrong, and any node says how.
        (false, _) => Ok(None),
        (true, true) => Err(CROSSSLOT.to_vec()),
        (true, false) => Ok(slot),
    }
}

impl Over {
    /// `said`: of a command that podkit does not know; `numbers`: those that the fences are to have.
    fn plan(state: &State, request: &Request<'_>, said: Option<Said>, numbers: &[u16]) -> Plan {
        let to = |slot: Option<u16>| Part {
            local: slot
                .and_then(|slot| state.owner(slot))
                .unwrap_or_else(|| Rc::clone(&state.shards[0])),
            slot,
            numbers: numbers.into(),
            bytes: None,
        };
        let keyed = || match slot_of(request, said) {
            Ok(slot) => Plan::One(to(slot)),
            Err(reply) => Plan::Answer(reply),
        };
        let Some(command) = request.command else {
            return keyed();
        };
        if command.name == "cluster" {
            return match of_cluster(request) {
                Ok(slot) => Plan::One(to(slot)),
                Err(reply) => Plan::Answer(reply),
            };
        }
        match spread(command, request) {
            Spread::Answer(reply) => Plan::Answer(reply),
            Spread::Keys(step, merge) => Self::split(state, request, step, merge),
            Spread::All(merge) => {
                let part = |local: &Rc<Local>| Part {
                    local: Rc::clone(local),
                    ..to(None)
                };
                Plan::Parts(state.shards.iter().map(part).collect(), merge)
            }
            Spread::Scan => {
                let count = state.shards.len();
                let Some((at, bytes)) = step(request, count) else {
                    return Plan::Answer(b"-ERR invalid cursor\r\n".to_vec());
                };
                let part = Part {
                    local: Rc::clone(&state.shards[at]),
                    bytes: Some(bytes),
                    ..to(None)
                };
                Plan::Parts(vec![part], Merge::Cursor(at as u64, count as u64))
            }
            Spread::Any => Plan::One(to(None)),
            Spread::Keyed => keyed(),
            Spread::OfOne => {
                let name = command.name;
                let line = format!("-ERR '{name}' is about one server, and there are several\r\n");
                Plan::Answer(line.into_bytes())
            }
        }
    }

    /// A command of many keys, in parts of one slot each: a node does none whose keys are of several, though all were its own.
    fn split(
        state: &State,
        request: &Request<'_>,
        step: usize,
        merge: fn(Vec<u16>) -> Merge,
    ) -> Plan {
        let words = &request.words;
        let keys = (1..words.len()).step_by(step);
        let slots: Vec<u16> = keys
            .map(|at| number(words.get(at).unwrap_or_default()))
            .collect();
        let mut distinct = slots.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let place = |slot: &u16| distinct.binary_search(slot).unwrap_or_default() as u16;
        let part = |slot: u16, bytes| Part {
            local: state
                .owner(slot)
                .unwrap_or_else(|| Rc::clone(&state.shards[0])),
            slot: Some(slot),
            numbers: Box::new([slot]),
            bytes,
        };
        let owners = slots.iter().map(place).collect();
        match parted(request, step, owners, distinct.len()) {
            None => Plan::One(part(slots[0], None)),
            Some(parted) => {
                let parts = parted.parts.into_iter();
                let parts = parts.map(|(at, bytes)| part(distinct[at], Some(bytes)));
                Plan::Parts(parts.collect(), merge(parted.part_of))
            }
        }
    }

    /// Nothing is known yet. False: the client waits.
    fn without(&self, sender: &Sender<'_>, cx: &Context<'_>) -> bool {
        let nodes = &self.0;
        if nodes.began.elapsed() < nodes.cluster.params.hold {
            nodes.crowd.borrow_mut().push(cx.waker().clone());
            return false;
        }
        sender.answer(format!("-ERR {UNKNOWN}: it was not done\r\n").as_bytes());
        true
    }
}

/// Where a CLUSTER command goes. The error is a reply.
fn of_cluster(request: &Request<'_>) -> Result<Option<u16>, Vec<u8>> {
    let words = &request.words;
    if words.is(1, b"countkeysinslot") || words.is(1, b"getkeysinslot") {
        let slot = words
            .get(2)
            .and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        return Ok(slot);
    }
    match ASKED.iter().any(|name| words.is(1, name.as_bytes())) {
        true => Ok(None),
        false => {
            let name = String::from_utf8_lossy(words.get(1).unwrap_or_default()).to_lowercase();
            let name = name.escape_debug();
            let line = format!(
                "-ERR podkit does not change a cluster: 'cluster {name}' is for the node itself\r\n"
            );
            Err(line.into_bytes())
        }
    }
}

impl Router for Over {
    fn place(&self, _request: &Request<'_>) -> Place {
        Place::Own
    }

    fn send(&self, request: &Request<'_>, sender: &Sender<'_>, cx: &Context<'_>) -> bool {
        let nodes = &self.0;
        nodes.follow();
        let state = nodes.state();
        if state.shards.is_empty() {
            return self.without(sender, cx);
        }
        let (note, era) = (sender.note.get(), nodes.era());
        let before = match sender.waiting() {
            0 => NOWHERE,
            _ if note >> WHERE != era => return false,
            _ => (note & 0xff) as u8,
        };
        let mut numbers = nodes.numbers.borrow_mut();
        let said = match request.command {
            Some(_) => None,
            None => state.shards[0].said(request),
        };
        let class = class(request, said, &mut numbers);
        if has_to_wait(class, before) {
            return false;
        }
        let class = match class {
            // In the order of the client's pipeline.
            Class::Read if before == AT_PRIMARY => Class::Own,
            class => class,
        };
        if is_kill(request) {
            // It has to pass what the script keeps waiting.
            let nodes: Vec<Rc<Node>> = state.shards.iter().flat_map(|one| one.busy()).collect();
            if !nodes.is_empty() {
                kill(&nodes, request, sender);
                sender.note.set(era << WHERE | u32::from(AT_PRIMARY));
                return true;
            }
        }
        let plan = Self::plan(&state, request, said, &numbers);
        drop(numbers);
        let (parts, merge) = match plan {
            Plan::Answer(reply) => {
                sender.answer(&reply);
                return true;
            }
            Plan::One(part) => (vec![part], None),
            Plan::Parts(parts, merge) => (parts, Some(merge)),
        };
        for part in &parts {
            part.local.follow(false);
            if !part.local.has_room(sender, cx) {
                return false;
            }
        }
        let mut sent = NOWHERE;
        let mut each = |part: Part, ticket| {
            let kept = Box::new(Kept {
                local: part.local.me.clone(),
                order: nodes.next(),
                bytes: part.bytes.as_deref().unwrap_or(request.bytes).into(),
                greeting: sender.greeting.cloned(),
                class,
                way: sender.way.get(),
                is_first: before == NOWHERE && sender.way.get() != Way::Common,
                numbers: part.numbers,
                replica: None,
                term: 0,
                since: None,
                why: part.local.nobody(class).to_owned(),
                course: Course {
                    slot: part.slot,
                    ..Course::default()
                },
            });
            let (note, way) = part.local.dispatch(kept, ticket, before);
            sent = sent.max(note);
            sender.way.set(way);
        };
        match merge {
            None => parts
                .into_iter()
                .for_each(|part| each(part, sender.ticket())),
            Some(merge) => {
                let tickets = sender.tickets(merge, parts.len());
                parts
                    .into_iter()
                    .zip(tickets)
                    .for_each(|(part, ticket)| each(part, ticket));
            }
        }
        let note = u32::from(after(before, sent));
        sender.note.set(era << WHERE | note);
        true
    }

    fn stays(&self, request: &Request<'_>) -> Result<Option<Rc<Node>>, Vec<u8>> {
        self.0.follow();
        let state = self.0.state();
        let said = match (request.command, state.shards.first()) {
            (None, Some(shard)) => shard.said(request),
            _ => None,
        };
        let slot = slot_of(request, said)?;
        let local = slot.and_then(|slot| state.owner(slot));
        drop(state);
        Ok(local.map(|local| local.stands()))
    }

    fn first(&self) -> Rc<Node> {
        self.0.follow();
        let first = self.0.state().shards.first().map(Rc::clone);
        first.map_or_else(|| Rc::clone(&self.0.nobody), |local| local.stands())
    }

    fn all(&self) -> Vec<Rc<Node>> {
        self.0.follow();
        let shards = self.0.state().shards.clone();
        shards.iter().map(|local| local.stands()).collect()
    }

    fn news(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let mut changes = self.0.cluster.map.subscribe();
        Box::pin(async move { drop(changes.changed().await) })
    }

    fn open(&self, node: Rc<Node>, greeting: Option<Greeting>) -> Opening {
        match self.0.shard_of(&node) {
            Some(local) => Box::pin(local.open(greeting)),
            None => Box::pin(Rc::clone(&self.0).open_any(greeting)),
        }
    }

    fn done(&self, node: &Rc<Node>) {
        if let Some(local) = self.0.shard_of(node) {
            local.fence_all();
        }
    }

    fn elsewhere(&self, error: &[u8], node: &Rc<Node>) -> Option<Elsewhere> {
        self.0.elsewhere(error, node)
    }

    fn hold(&self) -> Duration {
        self.0.cluster.params.hold
    }

    fn is_single(&self) -> bool {
        false
    }
}
