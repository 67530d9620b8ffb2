//! Which shards a command goes to, and what becomes of their replies.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use podkit_dataplane::resp::scan::{put_bulk, put_command, put_line};
use podkit_dataplane::resp::{Command, Keys, Merge, Node, Part, Place, Request, Router, Words};
use podkit_foundation::telemetry::metrics::Counter;

use super::failure::{Key, key};
use super::hot::Sampler;
use super::params::ShardSaid;
use super::service::Shared;

/// How a shard that is new is made.
type Make = Box<dyn Fn(&ShardSaid) -> Rc<Node>>;

/// The shards as one worker sees them.
pub(super) struct Local {
    shared: Arc<Shared>,
    make: Make,
    state: RefCell<State>,
    /// Which change of the shards the state is of.
    seen: Cell<u64>,
    refused: Counter,
    hot: Option<Sampler>,
}

struct State {
    nodes: Vec<(ShardSaid, Rc<Node>, Counter)>,
    shards: Arc<super::params::Shards>,
}

/// With --on-failure rehash.
const NONE_LEFT: &[u8] = b"-ERR no shard can be reached\r\n";

/// Commands about a server that have no meaning over several.
const OF_ONE: [&str; 13] = [
    "bgrewriteaof",
    "bgsave",
    "cluster",
    "debug",
    "failover",
    "latency",
    "module",
    "psync",
    "replconf",
    "replicaof",
    "save",
    "shutdown",
    "slaveof",
];

impl Local {
    /// `make` opens nothing yet.
    pub(super) fn new(
        shared: Arc<Shared>,
        make: impl Fn(&ShardSaid) -> Rc<Node> + 'static,
    ) -> Self {
        let refused = shared.refused();
        let local = Self {
            state: RefCell::new(State {
                nodes: Vec::new(),
                shards: shared.shards(),
            }),
            seen: Cell::new(u64::MAX),
            make: Box::new(make),
            refused,
            hot: shared.hot.sampler(),
            shared,
        };
        local.follow();
        local
    }

    /// Takes over a change of the shards. Those that stay keep their connections.
    pub(super) fn follow(&self) {
        let now = self.shared.changes();
        if self.seen.replace(now) == now {
            return;
        }
        let shards = self.shared.shards();
        let mut state = self.state.borrow_mut();
        let mut known: HashMap<Key, (Rc<Node>, Counter)> = HashMap::new();
        for (said, node, counter) in state.nodes.drain(..) {
            known.insert(key(&said), (node, counter));
        }
        for away in &shards.away {
            // One that comes back is a new one.
            if let Some((node, _)) = known.remove(away) {
                node.cut();
            }
        }
        for said in &shards.all {
            let (node, counter) = match known.remove(&key(said)) {
                Some(known) => known,
                None => ((self.make)(said), self.shared.commands(&said.name)),
            };
            state.nodes.push((said.clone(), node, counter));
        }
        state.shards = shards;
    }

    fn refuse(&self, why: &str) -> Vec<u8> {
        self.refused.inc();
        format!("-{why}\r\n").into_bytes()
    }

    /// Where the keys of a command are. None: it has none. The error is a reply.
    fn keys_at(&self, state: &State, request: &Request<'_>) -> Result<Option<usize>, Vec<u8>> {
        let Some(command) = request.command else {
            let name =
                String::from_utf8_lossy(request.words.get(0).unwrap_or_default()).into_owned();
            let why = format!(
                "ERR podkit does not know where the keys of '{name}' are, so it can't choose a shard"
            );
            return Err(self.refuse(&why));
        };
        let (mut at, mut apart) = (None, false);
        let told = command.keys.each(&request.words, |word| {
            let key = request.words.get(word).unwrap_or_default();
            let here = state.shards.ring.place(key);
            apart |= *at.get_or_insert(here) != here;
        });
        if !told {
            return Err(self.refuse("ERR syntax error: the keys of the command can't be told"));
        }
        match apart {
            true => Err(self.refuse("CROSSSLOT Keys in request don't hash to the same shard")),
            false => Ok(at),
        }
    }

    /// The first shard that is there.
    fn least(state: &State) -> usize {
        let out = &state.shards.left_out;
        out.iter().position(|out| !out).unwrap_or_default()
    }

    fn to(state: &State, at: usize) -> Place {
        let (_, node, counter) = &state.nodes[at];
        counter.inc();
        Place::One(Rc::clone(node))
    }

    /// The same to all.
    fn all(state: &State, request: &Request<'_>, merge: Merge) -> Place {
        let part = |(_, node, counter): &(ShardSaid, Rc<Node>, Counter)| {
            counter.inc();
            Part {
                node: Rc::clone(node),
                bytes: request.bytes.to_vec(),
            }
        };
        let there = state.nodes.iter().zip(&state.shards.left_out);
        let there = there.filter(|(_, out)| !**out).map(|(node, _)| part(node));
        Place::Split(there.collect(), merge)
    }

    /// A command of many keys that each shard does for its own. `step`: words for a key.
    fn split(
        state: &State,
        request: &Request<'_>,
        step: usize,
        merge: fn(Vec<Vec<u32>>) -> Merge,
    ) -> Place {
        let words = &request.words;
        let count = (words.len() - 1) / step;
        // Which shard has each key; and then for each shard which keys it has.
        let mut places: Vec<Vec<u32>> = vec![Vec::new(); state.nodes.len()];
        for at in 0..count {
            let key = words.get(1 + at * step).unwrap_or_default();
            places[state.shards.ring.place(key)].push(u32::try_from(at).unwrap_or(u32::MAX));
        }
        let used = places.iter().filter(|places| !places.is_empty()).count();
        if used == 1 {
            let at = places.iter().position(|places| !places.is_empty());
            return Self::to(state, at.unwrap_or_default());
        }
        let mut parts = Vec::with_capacity(used);
        for (places, (_, node, counter)) in places.iter().zip(&state.nodes) {
            if places.is_empty() {
                continue;
            }
            counter.inc();
            let mut bytes = Vec::with_capacity(request.bytes.len() / used + 64);
            put_line(&mut bytes, b'*', 1 + places.len() * step);
            put_bulk(&mut bytes, words.get(0).unwrap_or_default());
            for place in places {
                let first = 1 + *place as usize * step;
                (first..first + step)
                    .for_each(|at| put_bulk(&mut bytes, words.get(at).unwrap_or_default()));
            }
            parts.push(Part {
                node: Rc::clone(node),
                bytes,
            });
        }
        places.retain(|places| !places.is_empty());
        Place::Split(parts, merge(places))
    }

    /// One shard after the other: the cursor says which, besides where in it.
    fn scan(&self, state: &State, request: &Request<'_>) -> Place {
        let count = state.nodes.len() as u64;
        let cursor = request
            .words
            .get(1)
            .and_then(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok());
        let Some(cursor) = cursor else {
            return Place::Answer(b"-ERR invalid cursor\r\n".to_vec());
        };
        let (shard, inner) = ((cursor % count) as usize, (cursor / count).to_string());
        if state.shards.left_out[shard] {
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
        let (_, node, counter) = &state.nodes[shard];
        counter.inc();
        let part = Part {
            node: Rc::clone(node),
            bytes,
        };
        Place::Split(vec![part], Merge::Cursor(shard as u64, count))
    }

    fn several(&self, state: &State, request: &Request<'_>, command: &Command) -> Place {
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
            "script" | "function" if words.is(1, b"exists") => {
                Self::all(state, request, Merge::Least)
            }
            "script" | "function" => {
                let reads = ["help", "list", "stats", "dump"];
                match reads.iter().any(|word| words.is(1, word.as_bytes())) {
                    true => Self::to(state, Self::least(state)),
                    false => Self::all(state, request, Merge::First),
                }
            }
            "config" if !words.is(1, b"get") && !words.is(1, b"help") => {
                Self::all(state, request, Merge::Ok)
            }
            "slowlog" if words.is(1, b"reset") => Self::all(state, request, Merge::Ok),
            name if OF_ONE.contains(&name) => {
                let why = format!("ERR '{name}' is about one server, and there are several shards");
                Place::Answer(self.refuse(&why))
            }
            _ if command.keys == Keys::None => Self::to(state, Self::least(state)),
            _ => match self.keys_at(state, request) {
                Ok(at) => Self::to(state, at.unwrap_or_else(|| Self::least(state))),
                Err(reply) => Place::Answer(reply),
            },
        }
    }
}

impl Router for Local {
    fn place(&self, request: &Request<'_>) -> Place {
        self.follow();
        let state = &*self.state.borrow();
        let words = &request.words;
        match request.command {
            _ if state.shards.none_is_left() => Place::Answer(NONE_LEFT.to_vec()),
            _ if state.nodes.len() == 1 => Self::to(state, 0),
            Some(command) if command.name == "ping" => Place::Answer(ping(words)),
            Some(command) if command.name == "echo" => {
                let mut reply = Vec::new();
                put_bulk(&mut reply, words.get(1).unwrap_or_default());
                Place::Answer(reply)
            }
            Some(command) => self.several(state, request, command),
            None => match self.keys_at(state, request) {
                Ok(at) => Self::to(state, at.unwrap_or_else(|| Self::least(state))),
                Err(reply) => Place::Answer(reply),
            },
        }
    }

    fn stays(&self, request: &Request<'_>) -> Result<Option<Rc<Node>>, Vec<u8>> {
        self.follow();
        let state = self.state.borrow();
        if state.shards.none_is_left() {
            return Err(NONE_LEFT.to_vec());
        }
        if state.nodes.len() == 1 {
            return Ok(Some(Rc::clone(&state.nodes[0].1)));
        }
        let name = request.command.map_or("", |command| command.name);
        if matches!(name, "script" | "function") {
            return Err(self.refuse("ERR a script has to be killed on its shard itself"));
        }
        let at = self.keys_at(&state, request)?;
        Ok(at.map(|at| {
            state.nodes[at].2.inc();
            Rc::clone(&state.nodes[at].1)
        }))
    }

    fn first(&self) -> Rc<Node> {
        self.follow();
        let state = self.state.borrow();
        Rc::clone(&state.nodes[Self::least(&state)].1)
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
        self.state.borrow().nodes.len() == 1
    }
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
