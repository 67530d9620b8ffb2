//! Which shards a command goes to, and what becomes of their replies.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use podkit_dataplane::resp::scan::put_bulk;
use podkit_dataplane::resp::{Command, Keys, Merge, Node, Part, Place, Request, Router, Sender};

use super::hot::Sampler;
use super::members::{Members, State};
use super::spread::{Spread, parted, spread, step};
use crate::known::{Known, Look};

/// The shards of one worker.
pub(super) struct Local {
    pub(super) members: Rc<Members<Rc<Node>>>,
    pub(super) hot: Option<Sampler>,
    pub(super) known: Arc<Known>,
}

/// With --on-failure rehash.
const NONE_LEFT: &[u8] = b"-ERR no shard can be reached\r\n";

impl Local {
    fn refuse(&self, why: &str) -> Vec<u8> {
        self.members.refused();
        format!("-{why}\r\n").into_bytes()
    }

    /// Where the keys of a command are. None: it has none. The error is a reply.
    fn keys_at(
        &self,
        state: &State<Rc<Node>>,
        request: &Request<'_>,
    ) -> Result<Option<usize>, Vec<u8>> {
        let keys = match request.command {
            Some(command) => command.keys,
            None => self.keys_said(state, request)?,
        };
        let (mut at, mut apart) = (None, false);
        let told = keys.each(&request.words, |word| {
            let key = request.words.get(word).unwrap_or_default();
            let here = state.shards.ring.place(key);
            apart |= *at.get_or_insert(here) != here;
        });
        if !told {
            // It is wrong, and any server says how.
            return Ok(None);
        }
        match apart {
            true => Err(self.refuse("CROSSSLOT Keys in request don't hash to the same shard")),
            false => Ok(at),
        }
    }

    /// What is known of a command that podkit does not know. A shard is asked when none ever was.
    fn look(&self, state: &State<Rc<Node>>, request: &Request<'_>) -> Look {
        match self.known.look(request) {
            Look::Ask(name) => {
                let node = state.way(state.least());
                Arc::clone(&self.known).ask(name, node);
                Look::Asked
            }
            known => known,
        }
    }

    /// Where they are in a command that podkit does not know, as a shard says. The error is a reply.
    fn keys_said(&self, state: &State<Rc<Node>>, request: &Request<'_>) -> Result<Keys, Vec<u8>> {
        let why = match self.look(state, request) {
            Look::Said(said) => match said.keys {
                _ if said.waits => "it may keep a connection waiting".to_owned(),
                Some(keys) => return Ok(keys),
                None => "where its keys are depends on its words".to_owned(),
            },
            // A shard says so.
            Look::Nobody => return Ok(Keys::None),
            Look::Unanswered(why) => why,
            // Within a transaction nobody waits for that.
            Look::Asked | Look::Ask(_) => "a shard is asked for it just now".to_owned(),
        };
        let name = String::from_utf8_lossy(request.words.get(0).unwrap_or_default()).into_owned();
        let why = format!("ERR podkit does not know '{name}', and can't choose a shard: {why}");
        Err(self.refuse(&why))
    }

    fn to(state: &State<Rc<Node>>, at: usize) -> Place {
        Place::One(state.send(at))
    }

    /// The same to all.
    fn all(state: &State<Rc<Node>>, request: &Request<'_>, merge: Merge) -> Place {
        let part = |at| Part {
            node: state.send(at),
            bytes: request.bytes.to_vec(),
        };
        let there = (0..state.len()).filter(|at| state.is_there(*at));
        Place::Split(there.map(part).collect(), merge)
    }

    /// A command of many keys that each shard does for its own. `step`: words for a key.
    fn split(
        state: &State<Rc<Node>>,
        request: &Request<'_>,
        step: usize,
        merge: fn(Vec<u16>) -> Merge,
    ) -> Place {
        let words = &request.words;
        let place = |at| state.shards.ring.place(words.get(at).unwrap_or_default());
        let keys = (1..words.len()).step_by(step);
        let owners: Vec<u16> = keys.map(|at| place(at) as u16).collect();
        let first = owners.first().map_or(0, |owner| usize::from(*owner));
        let Some(parted) = parted(request, step, owners, state.len()) else {
            return Self::to(state, first);
        };
        let part = |(at, bytes)| Part {
            node: state.send(at),
            bytes,
        };
        let parts = parted.parts.into_iter().map(part).collect();
        Place::Split(parts, merge(parted.part_of))
    }

    /// One shard after the other: the cursor says which, besides where in it.
    fn scan(state: &State<Rc<Node>>, request: &Request<'_>) -> Place {
        let count = state.len() as u64;
        let Some((shard, bytes)) = step(request, state.len()) else {
            return Place::Answer(b"-ERR invalid cursor\r\n".to_vec());
        };
        if !state.is_there(shard) {
            // It has no key now: on with the next one.
            let next = (shard as u64 + 1) % count;
            let mut reply = b"*2\r\n".to_vec();
            put_bulk(&mut reply, next.to_string().as_bytes());
            reply.extend_from_slice(b"*0\r\n");
            return Place::Answer(reply);
        }
        let part = Part {
            node: state.send(shard),
            bytes,
        };
        Place::Split(vec![part], Merge::Cursor(shard as u64, count))
    }

    fn keyed(&self, state: &State<Rc<Node>>, request: &Request<'_>) -> Place {
        match self.keys_at(state, request) {
            Ok(at) => Self::to(state, at.unwrap_or_else(|| state.least())),
            Err(reply) => Place::Answer(reply),
        }
    }

    fn several(&self, state: &State<Rc<Node>>, request: &Request<'_>, command: &Command) -> Place {
        match spread(command, request) {
            Spread::Answer(reply) => Place::Answer(reply),
            Spread::Keys(step, merge) => Self::split(state, request, step, merge),
            Spread::All(merge) => Self::all(state, request, merge),
            Spread::Scan => Self::scan(state, request),
            Spread::Any => Self::to(state, state.least()),
            Spread::Keyed => self.keyed(state, request),
            Spread::OfOne => {
                let name = command.name;
                let why = format!("ERR '{name}' is about one server, and there are several shards");
                Place::Answer(self.refuse(&why))
            }
        }
    }
}

impl Router for Local {
    fn place(&self, request: &Request<'_>) -> Place {
        self.members.follow();
        let state = &*self.members.state();
        match request.command {
            _ if state.shards.none_is_left() => Place::Answer(NONE_LEFT.to_vec()),
            _ if state.len() == 1 => Self::to(state, 0),
            Some(command) => self.several(state, request, command),
            // What is known of it is looked at again when a shard has said it: see send().
            None if self.look(state, request) == Look::Asked => Place::Own,
            None => self.keyed(state, request),
        }
    }

    fn send(&self, request: &Request<'_>, _sender: &Sender<'_>, cx: &Context<'_>) -> bool {
        if !self.known.wait(request, cx.waker()) {
            cx.waker().wake_by_ref();
        }
        false
    }

    fn stays(&self, request: &Request<'_>) -> Result<Option<Rc<Node>>, Vec<u8>> {
        self.members.follow();
        let state = self.members.state();
        if state.shards.none_is_left() {
            return Err(NONE_LEFT.to_vec());
        }
        if state.len() == 1 {
            return Ok(Some(state.way(0)));
        }
        let at = self.keys_at(&state, request)?;
        Ok(at.map(|at| state.send(at)))
    }

    fn first(&self) -> Rc<Node> {
        self.members.follow();
        let state = self.members.state();
        state.way(state.least())
    }

    fn all(&self) -> Vec<Rc<Node>> {
        self.members.follow();
        let state = self.members.state();
        let there = (0..state.len()).filter(|at| state.is_there(*at));
        there.map(|at| state.way(at)).collect()
    }

    fn news(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let mut news = self.members.news();
        Box::pin(async move { drop(news.changed().await) })
    }

    #[inline]
    fn taken(&self, request: &Request<'_>) {
        if let (Some(hot), Some(command)) = (&self.hot, request.command)
            && hot.is_due()
        {
            // What can't be told was refused.
            let _told: bool = command.keys.each(&request.words, |word| {
                hot.add(request.words.get(word).unwrap_or_default());
            });
        }
    }

    fn is_single(&self) -> bool {
        self.members.state().len() == 1
    }
}
