//! Which shards a command goes to, and what becomes of their replies.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use podkit_dataplane::resp::scan::{put_bulk, put_command, put_line};
use podkit_dataplane::resp::{
    Command, Keys, Merge, Node, Part, Place, Request, Router, Sender, Words,
};

use super::hot::Sampler;
use super::members::{Members, State};
use crate::known::{Known, Look};

/// The shards of one worker.
pub(super) struct Local {
    pub(super) members: Rc<Members<Rc<Node>>>,
    pub(super) hot: Option<Sampler>,
    pub(super) known: Arc<Known>,
}

/// With --on-failure rehash.
const NONE_LEFT: &[u8] = b"-ERR no shard can be reached\r\n";

/// Commands about a server that have no meaning over several.
const OF_ONE: [&str; 10] = [
    "cluster",
    "debug",
    "failover",
    "latency",
    "module",
    "psync",
    "replconf",
    "replicaof",
    "shutdown",
    "slaveof",
];

/// What DEBUG does to each of them.
const EACH: [&str; 7] = [
    "change-repl-id",
    "loadaof",
    "quicklist-packed-threshold",
    "reload",
    "set-active-expire",
    "set-disable-deny-scripts",
    "sleep",
];

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
        let keys = (1..words.len()).step_by(step);
        // Which shard has each key; then which part.
        let place = |at| state.shards.ring.place(words.get(at).unwrap_or_default());
        let mut owners: Vec<u16> = keys.clone().map(|at| place(at) as u16).collect();
        let mut counts = vec![0; state.len()];
        for owner in &owners {
            counts[usize::from(*owner)] += 1;
        }
        let used = counts.iter().filter(|count| **count > 0).count();
        if used == 1 {
            return Self::to(state, usize::from(owners[0]));
        }
        let mut parts = Vec::with_capacity(used);
        let mut part_of = vec![0; state.len()];
        for (at, (count, part)) in counts.iter().zip(&mut part_of).enumerate() {
            if *count == 0 {
                continue;
            }
            *part = parts.len() as u16;
            // A part has room for as much as it would have on average, and half as much again.
            let mut bytes = Vec::with_capacity(request.bytes.len() * 3 / (used * 2) + 64);
            put_line(&mut bytes, b'*', 1 + count * step);
            put_bulk(&mut bytes, words.get(0).unwrap_or_default());
            parts.push(Part {
                node: state.send(at),
                bytes,
            });
        }
        for (owner, at) in owners.iter_mut().zip(keys) {
            *owner = part_of[usize::from(*owner)];
            let part = words.framed(at..at + step).unwrap_or_default();
            parts[usize::from(*owner)].bytes.extend_from_slice(part);
        }
        Place::Split(parts, merge(owners))
    }

    /// One shard after the other: the cursor says which, besides where in it.
    fn scan(&self, state: &State<Rc<Node>>, request: &Request<'_>) -> Place {
        let count = state.len() as u64;
        let cursor = request
            .words
            .get(1)
            .and_then(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok());
        let Some(cursor) = cursor else {
            return Place::Answer(b"-ERR invalid cursor\r\n".to_vec());
        };
        let (shard, inner) = ((cursor % count) as usize, (cursor / count).to_string());
        if !state.is_there(shard) {
            // It has no key now: on with the next one.
            let next = (shard as u64 + 1) % count;
            let mut reply = b"*2\r\n".to_vec();
            put_bulk(&mut reply, next.to_string().as_bytes());
            reply.extend_from_slice(b"*0\r\n");
            return Place::Answer(reply);
        }
        let mut words: Vec<&[u8]> = request.words.iter().collect();
        words[1] = inner.as_bytes();
        let mut bytes = Vec::new();
        put_command(&mut bytes, &words);
        let part = Part {
            node: state.send(shard),
            bytes,
        };
        Place::Split(vec![part], Merge::Cursor(shard as u64, count))
    }

    fn several(&self, state: &State<Rc<Node>>, request: &Request<'_>, command: &Command) -> Place {
        let words = &request.words;
        match command.name {
            "mget" => Self::split(state, request, 1, Merge::Values),
            "del" | "unlink" | "exists" | "touch" => Self::split(state, request, 1, |_| Merge::Sum),
            "mset" if words.len() % 2 == 1 => Self::split(state, request, 2, |_| Merge::Ok),
            "dbsize" => Self::all(state, request, Merge::Sum),
            "flushall" | "flushdb" | "swapdb" => Self::all(state, request, Merge::Ok),
            "keys" => Self::all(state, request, Merge::Append),
            "randomkey" => Self::all(state, request, Merge::Some),
            "scan" => self.scan(state, request),
            "script" | "function" if words.is(1, b"kill") => {
                Self::all(state, request, Merge::Killed)
            }
            "script" | "function" if words.is(1, b"exists") => {
                Self::all(state, request, Merge::Least)
            }
            "script" | "function" => {
                let reads = ["help", "list", "stats", "dump"];
                match reads.iter().any(|word| words.is(1, word.as_bytes())) {
                    true => Self::to(state, state.least()),
                    false => Self::all(state, request, Merge::First),
                }
            }
            "config" if !words.is(1, b"get") && !words.is(1, b"help") => {
                Self::all(state, request, Merge::Ok)
            }
            "acl"
                if ["setuser", "load", "save"]
                    .iter()
                    .any(|word| words.is(1, word.as_bytes())) =>
            {
                Self::all(state, request, Merge::Ok)
            }
            "acl" if words.is(1, b"deluser") => Self::all(state, request, Merge::First),
            "slowlog" if words.is(1, b"reset") => Self::all(state, request, Merge::Ok),
            "bgrewriteaof" | "bgsave" | "save" => Self::all(state, request, Merge::First),
            "info" => Self::all(state, request, Merge::Info),
            "debug"
                if !has_keys(request) && EACH.iter().any(|word| words.is(1, word.as_bytes())) =>
            {
                Self::all(state, request, Merge::Ok)
            }
            name if OF_ONE.contains(&name) && !has_keys(request) => {
                let why = format!("ERR '{name}' is about one server, and there are several shards");
                Place::Answer(self.refuse(&why))
            }
            _ if command.keys == Keys::None => Self::to(state, state.least()),
            _ => match self.keys_at(state, request) {
                Ok(at) => Self::to(state, at.unwrap_or_else(|| state.least())),
                Err(reply) => Place::Answer(reply),
            },
        }
    }
}

impl Router for Local {
    fn place(&self, request: &Request<'_>) -> Place {
        self.members.follow();
        let state = &*self.members.state();
        let words = &request.words;
        match request.command {
            _ if state.shards.none_is_left() => Place::Answer(NONE_LEFT.to_vec()),
            _ if state.len() == 1 => Self::to(state, 0),
            Some(command) if command.name == "ping" => Place::Answer(ping(words)),
            Some(command) if command.name == "echo" => {
                let mut reply = Vec::new();
                put_bulk(&mut reply, words.get(1).unwrap_or_default());
                Place::Answer(reply)
            }
            Some(command) => self.several(state, request, command),
            // What is known of it is looked at again when a shard has said it: see send().
            None if self.look(state, request) == Look::Asked => Place::Own,
            None => match self.keys_at(state, request) {
                Ok(at) => Self::to(state, at.unwrap_or_else(|| state.least())),
                Err(reply) => Place::Answer(reply),
            },
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

/// It names some, as DEBUG may.
fn has_keys(request: &Request<'_>) -> bool {
    let mut has = false;
    let keys = request.command.map_or(Keys::None, |command| command.keys);
    let _told: bool = keys.each(&request.words, |_| has = true);
    has
}

fn ping(words: &Words<'_>) -> Vec<u8> {
    match words.len() {
        1 => b"+PONG\r\n".to_vec(),
        2 => {
            let mut reply = Vec::new();
            put_bulk(&mut reply, words.get(1).unwrap_or_default());
            reply
        }
        _ => b"-ERR wrong number of arguments for 'ping' command\r\n".to_vec(),
    }
}
