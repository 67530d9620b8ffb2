//! Which shards a command goes to, and what becomes of their replies.

use std::rc::Rc;

use podkit_dataplane::resp::scan::{put_bulk, put_command, put_line};
use podkit_dataplane::resp::{Command, Keys, Merge, Node, Part, Place, Request, Router, Words};

use super::hot::Sampler;
use super::members::{Members, State};

/// The shards of one worker.
pub(super) struct Local(pub(super) Rc<Members<Rc<Node>>>, pub(super) Option<Sampler>);

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
    fn refuse(&self, why: &str) -> Vec<u8> {
        self.0.refused();
        format!("-{why}\r\n").into_bytes()
    }

    /// Where the keys of a command are. None: it has none. The error is a reply.
    fn keys_at(
        &self,
        state: &State<Rc<Node>>,
        request: &Request<'_>,
    ) -> Result<Option<usize>, Vec<u8>> {
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
            "slowlog" if words.is(1, b"reset") => Self::all(state, request, Merge::Ok),
            name if OF_ONE.contains(&name) => {
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
        self.0.follow();
        let state = &*self.0.state();
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
            None => match self.keys_at(state, request) {
                Ok(at) => Self::to(state, at.unwrap_or_else(|| state.least())),
                Err(reply) => Place::Answer(reply),
            },
        }
    }

    fn stays(&self, request: &Request<'_>) -> Result<Option<Rc<Node>>, Vec<u8>> {
        self.0.follow();
        let state = self.0.state();
        if state.shards.none_is_left() {
            return Err(NONE_LEFT.to_vec());
        }
        if state.len() == 1 {
            return Ok(Some(state.way(0)));
        }
        let name = request.command.map_or("", |command| command.name);
        if matches!(name, "script" | "function") {
            return Err(self.refuse("ERR a script has to be killed on its shard itself"));
        }
        let at = self.keys_at(&state, request)?;
        Ok(at.map(|at| state.send(at)))
    }

    fn first(&self) -> Rc<Node> {
        self.0.follow();
        let state = self.0.state();
        state.way(state.least())
    }

    #[inline]
    fn taken(&self, request: &Request<'_>) {
        if let (Some(hot), Some(command)) = (&self.1, request.command)
            && hot.is_due()
        {
            // What can't be told was refused.
            let _told: bool = command.keys.each(&request.words, |word| {
                hot.add(request.words.get(word).unwrap_or_default());
            });
        }
    }

    fn is_single(&self) -> bool {
        self.0.state().len() == 1
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
