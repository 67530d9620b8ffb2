//! What becomes of a command that is done over several servers: which do it, and how their replies become one. The same for shards and
//! for the nodes of a Redis Cluster.

use podkit_dataplane::resp::scan::{put_bulk, put_command, put_line};
use podkit_dataplane::resp::{Command, Keys, Merge, Request, Words};

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

/// How a command is done.
pub(crate) enum Spread {
    /// Each server does it for its own keys; every key has so many words.
    Keys(usize, fn(Vec<u16>) -> Merge),
    /// All do it.
    All(Merge),
    /// One after the other, as the cursor says.
    Scan,
    /// Any does it.
    Any,
    /// Where its keys are.
    Keyed,
    /// Nobody.
    OfOne,
    /// Nobody: it is the same wherever it is done.
    Answer(Vec<u8>),
}

/// How this one is done.
#[inline]
pub(crate) fn spread(command: &Command, request: &Request<'_>) -> Spread {
    match command.keys {
        ONE_KEY => Spread::Keyed,
        _ => by_name(command, request),
    }
}

/// Most have one key, and are done where it is.
const ONE_KEY: Keys = Keys::Range {
    first: 1,
    last: 1,
    step: 1,
};

fn by_name(command: &Command, request: &Request<'_>) -> Spread {
    let words = &request.words;
    let is = |names: &[&str]| names.iter().any(|name| words.is(1, name.as_bytes()));
    match command.name {
        "ping" => Spread::Answer(ping(words)),
        "echo" => {
            let mut reply = Vec::new();
            put_bulk(&mut reply, words.get(1).unwrap_or_default());
            Spread::Answer(reply)
        }
        "mget" => Spread::Keys(1, Merge::Values),
        "del" | "unlink" | "exists" | "touch" => Spread::Keys(1, |_| Merge::Sum),
        "mset" if words.len() % 2 == 1 => Spread::Keys(2, |_| Merge::Ok),
        "dbsize" => Spread::All(Merge::Sum),
        "flushall" | "flushdb" | "swapdb" => Spread::All(Merge::Ok),
        "keys" => Spread::All(Merge::Append),
        "randomkey" => Spread::All(Merge::Some),
        "scan" => Spread::Scan,
        "script" | "function" if is(&["kill"]) => Spread::All(Merge::Killed),
        "script" | "function" if is(&["exists"]) => Spread::All(Merge::Least),
        "script" | "function" if is(&["help", "list", "stats", "dump"]) => Spread::Any,
        "script" | "function" | "bgrewriteaof" | "bgsave" | "save" => Spread::All(Merge::First),
        "config" if !words.is(1, b"get") && !words.is(1, b"help") => Spread::All(Merge::Ok),
        "acl" if is(&["setuser", "load", "save"]) => Spread::All(Merge::Ok),
        "acl" if is(&["deluser"]) => Spread::All(Merge::First),
        "slowlog" if words.is(1, b"reset") => Spread::All(Merge::Ok),
        "info" => Spread::All(Merge::Info),
        "debug" if is(&EACH) && !has_keys(command, words) => Spread::All(Merge::Ok),
        name if OF_ONE.contains(&name) && !has_keys(command, words) => Spread::OfOne,
        _ if command.keys == Keys::None => Spread::Any,
        _ => Spread::Keyed,
    }
}

/// It names some, as DEBUG may.
fn has_keys(command: &Command, words: &Words<'_>) -> bool {
    let mut has = false;
    let _told: bool = command.keys.each(words, |_| has = true);
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

/// A command of many keys in parts.
pub(crate) struct Parts {
    /// Whose each is, and the command that it gets.
    pub(crate) parts: Vec<(usize, Vec<u8>)>,
    /// Which part has each key.
    pub(crate) part_of: Vec<u16>,
}

/// Parts a command by who has each of its keys (`owners`, numbers below `count`), which have `step` words each. None: one has all.
pub(crate) fn parted(
    request: &Request<'_>,
    step: usize,
    mut owners: Vec<u16>,
    count: usize,
) -> Option<Parts> {
    let words = &request.words;
    let mut counts = vec![0; count];
    for owner in &owners {
        counts[usize::from(*owner)] += 1;
    }
    let used = counts.iter().filter(|count| **count > 0).count();
    if used <= 1 {
        return None;
    }
    let mut parts = Vec::with_capacity(used);
    let mut part_of = vec![0; count];
    for (at, (count, part)) in counts.iter().zip(&mut part_of).enumerate() {
        if *count == 0 {
            continue;
        }
        *part = parts.len() as u16;
        // A part has room for as much as it would have on average, and half as much again.
        let mut bytes = Vec::with_capacity(request.bytes.len() * 3 / (used * 2) + 64);
        put_line(&mut bytes, b'*', 1 + count * step);
        put_bulk(&mut bytes, words.get(0).unwrap_or_default());
        parts.push((at, bytes));
    }
    for (owner, at) in owners.iter_mut().zip((1..words.len()).step_by(step)) {
        *owner = part_of[usize::from(*owner)];
        let part = words.framed(at..at + step).unwrap_or_default();
        parts[usize::from(*owner)].1.extend_from_slice(part);
    }
    Some(Parts {
        parts,
        part_of: owners,
    })
}

/// A step of SCAN over `count` servers: on which, and the command for it. None: the cursor is none.
pub(crate) fn step(request: &Request<'_>, count: usize) -> Option<(usize, Vec<u8>)> {
    let word = request.words.get(1)?;
    let cursor: u64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    let count = count as u64;
    let inner = (cursor / count).to_string();
    let mut words: Vec<&[u8]> = request.words.iter().collect();
    words[1] = inner.as_bytes();
    let mut bytes = Vec::new();
    put_command(&mut bytes, &words);
    Some(((cursor % count) as usize, bytes))
}

#[cfg(test)]
mod tests {
    use podkit_dataplane::resp::COMMANDS;

    use super::*;

    #[test]
    fn what_has_one_key_is_done_where_it_is() {
        let bytes = b"namekey";
        let ranges = [0..4, 4..7];
        let mut seen = 0;
        for command in COMMANDS.iter().filter(|command| command.keys == ONE_KEY) {
            let request = Request {
                bytes,
                words: Words::new(bytes, &ranges),
                command: Some(command),
            };
            assert!(
                matches!(by_name(command, &request), Spread::Keyed),
                "{}",
                command.name
            );
            seen += 1;
        }
        assert!(seen > 100, "{seen}");
    }
}
