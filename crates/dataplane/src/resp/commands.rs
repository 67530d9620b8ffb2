//! What is known of Redis' commands: how many arguments, which of them are keys, and what a proxy may do with them.
//!
//! From the public reference of Redis 7 and 8 (<https://redis.io/docs/latest/commands/>: arity, flags, key specifications). A command
//! that is not here is asked from the server (`COMMAND INFO`) or treated as a write.

use std::ops::Range;

/// What a command is to who passes it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Changes nothing.
    Read,
    /// May change something.
    Write,
    /// May change something, and may wait for it.
    Blocks,
    /// Changes nothing, and may wait.
    BlocksRead,
    /// A script or function: whatever it does, its keys are named.
    Script,
    /// Messages come on the connection from then on.
    Subscribe,
    /// Concerns the connection, not the data.
    Session,
    /// Concerns the server.
    Admin,
    /// Something about the server that changes no data.
    Other,
}

/// Where a command's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// There are none.
    None,
    /// From `first` to `last` (from the end when negative), every `step` arguments.
    Range {
        /// The first.
        first: usize,
        /// The last.
        last: isize,
        /// From one to the next.
        step: usize,
    },
    /// Argument `at` says how many follow it; `lead` is one more, before it (0: there is none).
    Counted {
        /// Where the number stands.
        at: usize,
        /// A destination.
        lead: usize,
        /// From one to the next.
        step: usize,
    },
    /// The first half of what follows STREAMS.
    Streams,
    /// The first argument, and those behind STORE or STOREDIST.
    Store,
    /// The third argument, or those behind KEYS.
    Migrate,
    /// The second argument, where the first is USAGE.
    Memory,
    /// The second argument, where the first asks for one; all from there for DIGEST-VALUE.
    Debug,
}

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// In small letters.
    pub name: &'static str,
    /// How many words it has with its name; at least so many when negative.
    pub arity: i32,
    /// What it is.
    pub kind: Kind,
    /// Where its keys are.
    pub keys: Keys,
}

impl Command {
    /// So many words are right for it.
    pub fn takes(&self, words: usize) -> bool {
        let least = self.arity.unsigned_abs() as usize;
        match self.arity < 0 {
            true => words >= least,
            false => words == least,
        }
    }
}

/// The words of a command, in the bytes that it came in.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    bytes: &'a [u8],
    ranges: &'a [Range<usize>],
}

impl<'a> Words<'a> {
    /// Those that `ranges` are of `bytes`.
    pub fn new(bytes: &'a [u8], ranges: &'a [Range<usize>]) -> Self {
        Self { bytes, ranges }
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// One of them; the name is word 0.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&'a [u8]> {
        self.bytes.get(self.ranges.get(at)?.clone())
    }

    /// Some words in a row as they came, each with its length before it and its line's end. Not word 0.
    #[inline]
    pub fn framed(&self, words: Range<usize>) -> Option<&'a [u8]> {
        let before = self.ranges.get(words.start.checked_sub(1)?)?;
        let last = self.ranges.get(words.end.checked_sub(1)?)?;
        self.bytes.get(before.end + 2..last.end + 2)
    }

    /// That word is `wanted`, whatever the case of its letters.
    pub fn is(&self, at: usize, wanted: &[u8]) -> bool {
        self.get(at)
            .is_some_and(|word| word.eq_ignore_ascii_case(wanted))
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.ranges.iter().map(|range| &bytes[range.clone()])
    }
}

/// What DEBUG says of a key.
const OF_KEY: [&str; 6] = [
    "htstats-key",
    "listpack",
    "object",
    "quicklist",
    "sdslen",
    "ziplist",
];

impl Keys {
    /// Calls `each` with the place of every key among `words` (the name is word 0). False when they can't be told, such as when a count
    /// is no number.
    pub fn each(self, words: &Words<'_>, mut each: impl FnMut(usize)) -> bool {
        let len = words.len();
        match self {
            Self::None => {}
            Self::Range { first, last, step } => {
                let last = match usize::try_from(last) {
                    Ok(last) => last,
                    Err(_) => match len.checked_add_signed(last) {
                        Some(last) => last,
                        None => return false,
                    },
                };
                if last >= len {
                    return false;
                }
                (first..=last).step_by(step).for_each(each);
            }
            Self::Counted { at, lead, step } => {
                let Some(count) = words.get(at).and_then(decimal) else {
                    return false;
                };
                let Some(end) = count.checked_mul(step).and_then(|n| n.checked_add(at + 1)) else {
                    return false;
                };
                if end > len {
                    return false;
                }
                if lead > 0 {
                    each(lead);
                }
                (at + 1..end).step_by(step).for_each(each);
            }
            Self::Streams => {
                // A group and its consumer may be called so too.
                let from = if words.is(1, b"group") { 4 } else { 1 };
                let Some(at) = position(words, from, b"streams") else {
                    return false;
                };
                let rest = len - at - 1;
                if rest == 0 || rest % 2 == 1 {
                    return false;
                }
                (at + 1..at + 1 + rest / 2).for_each(each);
            }
            Self::Store => {
                if len < 2 {
                    return false;
                }
                each(1);
                let is_store = |at: &usize| words.is(*at, b"store") || words.is(*at, b"storedist");
                let stores = (2..len.saturating_sub(1)).filter(is_store);
                stores.map(|at| at + 1).for_each(each);
            }
            Self::Migrate => match words.get(3) {
                None => return false,
                Some([]) => match position(words, 4, b"keys") {
                    Some(at) => (at + 1..len).for_each(each),
                    None => return false,
                },
                Some(_) => each(3),
            },
            Self::Memory => {
                if words.is(1, b"usage") && len > 2 {
                    each(2);
                }
            }
            Self::Debug => {
                if words.is(1, b"digest-value") {
                    (2..len).for_each(each);
                } else if len > 2 && OF_KEY.iter().any(|word| words.is(1, word.as_bytes())) {
                    each(2);
                }
            }
        }
        true
    }
}

fn position(words: &Words<'_>, from: usize, wanted: &[u8]) -> Option<usize> {
    (from..words.len()).find(|at| words.is(*at, wanted))
}

fn decimal(word: &[u8]) -> Option<usize> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

const fn command(name: &'static str, arity: i32, kind: Kind, keys: Keys) -> Command {
    Command {
        name,
        arity,
        kind,
        keys,
    }
}

const fn range(first: usize, last: isize, step: usize) -> Keys {
    Keys::Range { first, last, step }
}

const fn counted(at: usize, lead: usize, step: usize) -> Keys {
    Keys::Counted { at, lead, step }
}

/// All of them, by name.
#[rustfmt::skip]
pub static COMMANDS: &[Command] = &[
    command("acl", -2, Kind::Other, Keys::None),
    command("append", 3, Kind::Write, range(1, 1, 1)),
    command("asking", 1, Kind::Session, Keys::None),
    command("auth", -2, Kind::Session, Keys::None),
    command("bgrewriteaof", 1, Kind::Admin, Keys::None),
    command("bgsave", -1, Kind::Admin, Keys::None),
    command("bitcount", -2, Kind::Read, range(1, 1, 1)),
    command("bitfield", -2, Kind::Write, range(1, 1, 1)),
    command("bitfield_ro", -2, Kind::Read, range(1, 1, 1)),
    command("bitop", -4, Kind::Write, range(2, -1, 1)),
    command("bitpos", -3, Kind::Read, range(1, 1, 1)),
    command("blmove", 6, Kind::Blocks, range(1, 2, 1)),
    command("blmpop", -5, Kind::Blocks, counted(2, 0, 1)),
    command("blpop", -3, Kind::Blocks, range(1, -2, 1)),
    command("brpop", -3, Kind::Blocks, range(1, -2, 1)),
    command("brpoplpush", 4, Kind::Blocks, range(1, 2, 1)),
    command("bzmpop", -5, Kind::Blocks, counted(2, 0, 1)),
    command("bzpopmax", -3, Kind::Blocks, range(1, -2, 1)),
    command("bzpopmin", -3, Kind::Blocks, range(1, -2, 1)),
    command("client", -2, Kind::Session, Keys::None),
    command("cluster", -2, Kind::Other, Keys::None),
    command("command", -1, Kind::Other, Keys::None),
    command("config", -2, Kind::Other, Keys::None),
    command("copy", -3, Kind::Write, range(1, 2, 1)),
    command("dbsize", 1, Kind::Read, Keys::None),
    command("debug", -2, Kind::Admin, Keys::Debug),
    command("decr", 2, Kind::Write, range(1, 1, 1)),
    command("decrby", 3, Kind::Write, range(1, 1, 1)),
    command("del", -2, Kind::Write, range(1, -1, 1)),
    command("delex", -2, Kind::Write, range(1, 1, 1)),
    command("digest", 2, Kind::Read, range(1, 1, 1)),
    command("discard", 1, Kind::Session, Keys::None),
    command("dump", 2, Kind::Read, range(1, 1, 1)),
    command("echo", 2, Kind::Other, Keys::None),
    command("eval", -3, Kind::Script, counted(2, 0, 1)),
    command("eval_ro", -3, Kind::Script, counted(2, 0, 1)),
    command("evalsha", -3, Kind::Script, counted(2, 0, 1)),
    command("evalsha_ro", -3, Kind::Script, counted(2, 0, 1)),
    command("exec", 1, Kind::Session, Keys::None),
    command("exists", -2, Kind::Read, range(1, -1, 1)),
    command("expire", -3, Kind::Write, range(1, 1, 1)),
    command("expireat", -3, Kind::Write, range(1, 1, 1)),
    command("expiretime", 2, Kind::Read, range(1, 1, 1)),
    command("failover", -1, Kind::Admin, Keys::None),
    command("fcall", -3, Kind::Script, counted(2, 0, 1)),
    command("fcall_ro", -3, Kind::Script, counted(2, 0, 1)),
    command("flushall", -1, Kind::Write, Keys::None),
    command("flushdb", -1, Kind::Write, Keys::None),
    command("function", -2, Kind::Other, Keys::None),
    command("geoadd", -5, Kind::Write, range(1, 1, 1)),
    command("geodist", -4, Kind::Read, range(1, 1, 1)),
    command("geohash", -2, Kind::Read, range(1, 1, 1)),
    command("geopos", -2, Kind::Read, range(1, 1, 1)),
    command("georadius", -6, Kind::Write, Keys::Store),
    command("georadius_ro", -6, Kind::Read, range(1, 1, 1)),
    command("georadiusbymember", -5, Kind::Write, Keys::Store),
    command("georadiusbymember_ro", -5, Kind::Read, range(1, 1, 1)),
    command("geosearch", -7, Kind::Read, range(1, 1, 1)),
    command("geosearchstore", -8, Kind::Write, range(1, 2, 1)),
    command("get", 2, Kind::Read, range(1, 1, 1)),
    command("getbit", 3, Kind::Read, range(1, 1, 1)),
    command("getdel", 2, Kind::Write, range(1, 1, 1)),
    command("getex", -2, Kind::Write, range(1, 1, 1)),
    command("getrange", 4, Kind::Read, range(1, 1, 1)),
    command("getset", 3, Kind::Write, range(1, 1, 1)),
    command("hdel", -3, Kind::Write, range(1, 1, 1)),
    command("hello", -1, Kind::Session, Keys::None),
    command("hexists", 3, Kind::Read, range(1, 1, 1)),
    command("hexpire", -6, Kind::Write, range(1, 1, 1)),
    command("hexpireat", -6, Kind::Write, range(1, 1, 1)),
    command("hexpiretime", -5, Kind::Read, range(1, 1, 1)),
    command("hget", 3, Kind::Read, range(1, 1, 1)),
    command("hgetall", 2, Kind::Read, range(1, 1, 1)),
    command("hgetdel", -5, Kind::Write, range(1, 1, 1)),
    command("hgetex", -5, Kind::Write, range(1, 1, 1)),
    command("hincrby", 4, Kind::Write, range(1, 1, 1)),
    command("hincrbyfloat", 4, Kind::Write, range(1, 1, 1)),
    command("hkeys", 2, Kind::Read, range(1, 1, 1)),
    command("hlen", 2, Kind::Read, range(1, 1, 1)),
    command("hmget", -3, Kind::Read, range(1, 1, 1)),
    command("hmset", -4, Kind::Write, range(1, 1, 1)),
    command("hpersist", -5, Kind::Write, range(1, 1, 1)),
    command("hpexpire", -6, Kind::Write, range(1, 1, 1)),
    command("hpexpireat", -6, Kind::Write, range(1, 1, 1)),
    command("hpexpiretime", -5, Kind::Read, range(1, 1, 1)),
    command("hpttl", -5, Kind::Read, range(1, 1, 1)),
    command("hrandfield", -2, Kind::Read, range(1, 1, 1)),
    command("hscan", -3, Kind::Read, range(1, 1, 1)),
    command("hset", -4, Kind::Write, range(1, 1, 1)),
    command("hsetex", -6, Kind::Write, range(1, 1, 1)),
    command("hsetnx", 4, Kind::Write, range(1, 1, 1)),
    command("hstrlen", 3, Kind::Read, range(1, 1, 1)),
    command("httl", -5, Kind::Read, range(1, 1, 1)),
    command("hvals", 2, Kind::Read, range(1, 1, 1)),
    command("incr", 2, Kind::Write, range(1, 1, 1)),
    command("incrby", 3, Kind::Write, range(1, 1, 1)),
    command("incrbyfloat", 3, Kind::Write, range(1, 1, 1)),
    command("info", -1, Kind::Other, Keys::None),
    command("keys", 2, Kind::Read, Keys::None),
    command("lastsave", 1, Kind::Other, Keys::None),
    command("latency", -2, Kind::Other, Keys::None),
    command("lcs", -3, Kind::Read, range(1, 2, 1)),
    command("lindex", 3, Kind::Read, range(1, 1, 1)),
    command("linsert", 5, Kind::Write, range(1, 1, 1)),
    command("llen", 2, Kind::Read, range(1, 1, 1)),
    command("lmove", 5, Kind::Write, range(1, 2, 1)),
    command("lmpop", -4, Kind::Write, counted(1, 0, 1)),
    command("lolwut", -1, Kind::Read, Keys::None),
    command("lpop", -2, Kind::Write, range(1, 1, 1)),
    command("lpos", -3, Kind::Read, range(1, 1, 1)),
    command("lpush", -3, Kind::Write, range(1, 1, 1)),
    command("lpushx", -3, Kind::Write, range(1, 1, 1)),
    command("lrange", 4, Kind::Read, range(1, 1, 1)),
    command("lrem", 4, Kind::Write, range(1, 1, 1)),
    command("lset", 4, Kind::Write, range(1, 1, 1)),
    command("ltrim", 4, Kind::Write, range(1, 1, 1)),
    command("memory", -2, Kind::Read, Keys::Memory),
    command("mget", -2, Kind::Read, range(1, -1, 1)),
    command("migrate", -6, Kind::Write, Keys::Migrate),
    command("module", -2, Kind::Other, Keys::None),
    command("monitor", 1, Kind::Admin, Keys::None),
    command("move", 3, Kind::Write, range(1, 1, 1)),
    command("mset", -3, Kind::Write, range(1, -1, 2)),
    command("msetex", -4, Kind::Write, counted(1, 0, 2)),
    command("msetnx", -3, Kind::Write, range(1, -1, 2)),
    command("multi", 1, Kind::Session, Keys::None),
    command("object", -2, Kind::Read, range(2, 2, 1)),
    command("persist", 2, Kind::Write, range(1, 1, 1)),
    command("pexpire", -3, Kind::Write, range(1, 1, 1)),
    command("pexpireat", -3, Kind::Write, range(1, 1, 1)),
    command("pexpiretime", 2, Kind::Read, range(1, 1, 1)),
    command("pfadd", -2, Kind::Write, range(1, 1, 1)),
    command("pfcount", -2, Kind::Read, range(1, -1, 1)),
    command("pfdebug", 3, Kind::Write, range(2, 2, 1)),
    command("pfmerge", -2, Kind::Write, range(1, -1, 1)),
    command("pfselftest", 1, Kind::Admin, Keys::None),
    command("ping", -1, Kind::Other, Keys::None),
    command("psetex", 4, Kind::Write, range(1, 1, 1)),
    command("psubscribe", -2, Kind::Subscribe, Keys::None),
    command("psync", -3, Kind::Admin, Keys::None),
    command("pttl", 2, Kind::Read, range(1, 1, 1)),
    command("publish", 3, Kind::Write, Keys::None),
    command("pubsub", -2, Kind::Other, Keys::None),
    command("punsubscribe", -1, Kind::Subscribe, Keys::None),
    command("quit", -1, Kind::Session, Keys::None),
    command("randomkey", 1, Kind::Read, Keys::None),
    command("readonly", 1, Kind::Session, Keys::None),
    command("readwrite", 1, Kind::Session, Keys::None),
    command("rename", 3, Kind::Write, range(1, 2, 1)),
    command("renamenx", 3, Kind::Write, range(1, 2, 1)),
    command("replconf", -1, Kind::Admin, Keys::None),
    command("replicaof", 3, Kind::Admin, Keys::None),
    command("reset", 1, Kind::Session, Keys::None),
    command("restore", -4, Kind::Write, range(1, 1, 1)),
    command("restore-asking", -4, Kind::Write, range(1, 1, 1)),
    command("role", 1, Kind::Other, Keys::None),
    command("rpop", -2, Kind::Write, range(1, 1, 1)),
    command("rpoplpush", 3, Kind::Write, range(1, 2, 1)),
    command("rpush", -3, Kind::Write, range(1, 1, 1)),
    command("rpushx", -3, Kind::Write, range(1, 1, 1)),
    command("sadd", -3, Kind::Write, range(1, 1, 1)),
    command("save", 1, Kind::Admin, Keys::None),
    command("scan", -2, Kind::Read, Keys::None),
    command("scard", 2, Kind::Read, range(1, 1, 1)),
    command("script", -2, Kind::Other, Keys::None),
    command("sdiff", -2, Kind::Read, range(1, -1, 1)),
    command("sdiffstore", -3, Kind::Write, range(1, -1, 1)),
    command("select", 2, Kind::Session, Keys::None),
    command("set", -3, Kind::Write, range(1, 1, 1)),
    command("setbit", 4, Kind::Write, range(1, 1, 1)),
    command("setex", 4, Kind::Write, range(1, 1, 1)),
    command("setnx", 3, Kind::Write, range(1, 1, 1)),
    command("setrange", 4, Kind::Write, range(1, 1, 1)),
    command("shutdown", -1, Kind::Admin, Keys::None),
    command("sinter", -2, Kind::Read, range(1, -1, 1)),
    command("sintercard", -3, Kind::Read, counted(1, 0, 1)),
    command("sinterstore", -3, Kind::Write, range(1, -1, 1)),
    command("sismember", 3, Kind::Read, range(1, 1, 1)),
    command("slaveof", 3, Kind::Admin, Keys::None),
    command("slowlog", -2, Kind::Other, Keys::None),
    command("smembers", 2, Kind::Read, range(1, 1, 1)),
    command("smismember", -3, Kind::Read, range(1, 1, 1)),
    command("smove", 4, Kind::Write, range(1, 2, 1)),
    command("sort", -2, Kind::Write, Keys::Store),
    command("sort_ro", -2, Kind::Read, Keys::Store),
    command("spop", -2, Kind::Write, range(1, 1, 1)),
    command("spublish", 3, Kind::Write, range(1, 1, 1)),
    command("srandmember", -2, Kind::Read, range(1, 1, 1)),
    command("srem", -3, Kind::Write, range(1, 1, 1)),
    command("sscan", -3, Kind::Read, range(1, 1, 1)),
    command("ssubscribe", -2, Kind::Subscribe, range(1, -1, 1)),
    command("strlen", 2, Kind::Read, range(1, 1, 1)),
    command("subscribe", -2, Kind::Subscribe, Keys::None),
    command("substr", 4, Kind::Read, range(1, 1, 1)),
    command("sunion", -2, Kind::Read, range(1, -1, 1)),
    command("sunionstore", -3, Kind::Write, range(1, -1, 1)),
    command("sunsubscribe", -1, Kind::Subscribe, range(1, -1, 1)),
    command("swapdb", 3, Kind::Write, Keys::None),
    command("sync", 1, Kind::Admin, Keys::None),
    command("time", 1, Kind::Other, Keys::None),
    command("touch", -2, Kind::Read, range(1, -1, 1)),
    command("ttl", 2, Kind::Read, range(1, 1, 1)),
    command("type", 2, Kind::Read, range(1, 1, 1)),
    command("unlink", -2, Kind::Write, range(1, -1, 1)),
    command("unsubscribe", -1, Kind::Subscribe, Keys::None),
    command("unwatch", 1, Kind::Session, Keys::None),
    command("vadd", -5, Kind::Write, range(1, 1, 1)),
    command("vcard", 2, Kind::Read, range(1, 1, 1)),
    command("vdim", 2, Kind::Read, range(1, 1, 1)),
    command("vemb", -3, Kind::Read, range(1, 1, 1)),
    command("vgetattr", 3, Kind::Read, range(1, 1, 1)),
    command("vinfo", 2, Kind::Read, range(1, 1, 1)),
    command("vismember", 3, Kind::Read, range(1, 1, 1)),
    command("vlinks", -3, Kind::Read, range(1, 1, 1)),
    command("vrandmember", -2, Kind::Read, range(1, 1, 1)),
    command("vrange", -4, Kind::Read, range(1, 1, 1)),
    command("vrem", 3, Kind::Write, range(1, 1, 1)),
    command("vsetattr", 4, Kind::Write, range(1, 1, 1)),
    command("vsim", -4, Kind::Read, range(1, 1, 1)),
    command("wait", 3, Kind::Blocks, Keys::None),
    command("waitaof", -4, Kind::Blocks, Keys::None),
    command("watch", -2, Kind::Session, range(1, -1, 1)),
    command("xack", -4, Kind::Write, range(1, 1, 1)),
    command("xackdel", -6, Kind::Write, range(1, 1, 1)),
    command("xadd", -5, Kind::Write, range(1, 1, 1)),
    command("xautoclaim", -6, Kind::Write, range(1, 1, 1)),
    command("xclaim", -6, Kind::Write, range(1, 1, 1)),
    command("xdel", -3, Kind::Write, range(1, 1, 1)),
    command("xdelex", -5, Kind::Write, range(1, 1, 1)),
    command("xgroup", -2, Kind::Write, range(2, 2, 1)),
    command("xinfo", -2, Kind::Read, range(2, 2, 1)),
    command("xlen", 2, Kind::Read, range(1, 1, 1)),
    command("xpending", -3, Kind::Read, range(1, 1, 1)),
    command("xrange", -4, Kind::Read, range(1, 1, 1)),
    command("xread", -4, Kind::BlocksRead, Keys::Streams),
    command("xreadgroup", -7, Kind::Blocks, Keys::Streams),
    command("xrevrange", -4, Kind::Read, range(1, 1, 1)),
    command("xsetid", -3, Kind::Write, range(1, 1, 1)),
    command("xtrim", -4, Kind::Write, range(1, 1, 1)),
    command("zadd", -4, Kind::Write, range(1, 1, 1)),
    command("zcard", 2, Kind::Read, range(1, 1, 1)),
    command("zcount", 4, Kind::Read, range(1, 1, 1)),
    command("zdiff", -3, Kind::Read, counted(1, 0, 1)),
    command("zdiffstore", -4, Kind::Write, counted(2, 1, 1)),
    command("zincrby", 4, Kind::Write, range(1, 1, 1)),
    command("zinter", -3, Kind::Read, counted(1, 0, 1)),
    command("zintercard", -3, Kind::Read, counted(1, 0, 1)),
    command("zinterstore", -4, Kind::Write, counted(2, 1, 1)),
    command("zlexcount", 4, Kind::Read, range(1, 1, 1)),
    command("zmpop", -4, Kind::Write, counted(1, 0, 1)),
    command("zmscore", -3, Kind::Read, range(1, 1, 1)),
    command("zpopmax", -2, Kind::Write, range(1, 1, 1)),
    command("zpopmin", -2, Kind::Write, range(1, 1, 1)),
    command("zrandmember", -2, Kind::Read, range(1, 1, 1)),
    command("zrange", -4, Kind::Read, range(1, 1, 1)),
    command("zrangebylex", -4, Kind::Read, range(1, 1, 1)),
    command("zrangebyscore", -4, Kind::Read, range(1, 1, 1)),
    command("zrangestore", -5, Kind::Write, range(1, 2, 1)),
    command("zrank", 3, Kind::Read, range(1, 1, 1)),
    command("zrem", -3, Kind::Write, range(1, 1, 1)),
    command("zremrangebylex", 4, Kind::Write, range(1, 1, 1)),
    command("zremrangebyrank", 4, Kind::Write, range(1, 1, 1)),
    command("zremrangebyscore", 4, Kind::Write, range(1, 1, 1)),
    command("zrevrange", -4, Kind::Read, range(1, 1, 1)),
    command("zrevrangebylex", -4, Kind::Read, range(1, 1, 1)),
    command("zrevrangebyscore", -4, Kind::Read, range(1, 1, 1)),
    command("zrevrank", 3, Kind::Read, range(1, 1, 1)),
    command("zscan", -3, Kind::Read, range(1, 1, 1)),
    command("zscore", 3, Kind::Read, range(1, 1, 1)),
    command("zunion", -3, Kind::Read, counted(1, 0, 1)),
    command("zunionstore", -4, Kind::Write, counted(2, 1, 1)),
];

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    fn keys(line: &str) -> Option<Vec<&str>> {
        let mut ranges = Vec::new();
        let mut start = 0;
        for word in line.split(' ') {
            ranges.push(start..start + word.len());
            start += word.len() + 1;
        }
        let words = Words::new(line.as_bytes(), &ranges);
        let mut found = Vec::new();
        let keys = find(words.get(0)?)?.keys;
        let known = keys.each(&words, |at| found.push(&line[ranges[at].clone()]));
        known.then_some(found)
    }

    #[test]
    fn keys_are_found_where_the_reference_says() {
        let found = |line| keys(line).unwrap();
        assert_eq!(found("get a"), ["a"]);
        assert_eq!(found("mset a 1 b 2"), ["a", "b"]);
        assert_eq!(found("blpop a b 0"), ["a", "b"]);
        assert_eq!(found("zunionstore d 2 a b weights 1 2"), ["d", "a", "b"]);
        assert_eq!(found("eval script 1 a b"), ["a"]);
        assert_eq!(found("xread count 2 streams a b 0 0"), ["a", "b"]);
        assert_eq!(found("xreadgroup group streams c noack streams a >"), ["a"]);
        assert_eq!(found("sort a by x store d"), ["a", "d"]);
        assert_eq!(found("migrate h 1 k 0 1"), ["k"]);
        assert_eq!(found("bitop and d a b"), ["d", "a", "b"]);
        assert_eq!(found("object encoding a"), ["a"]);
        assert_eq!(found("memory usage a"), ["a"]);
        assert_eq!(found("debug object a"), ["a"]);
        assert_eq!(found("debug digest-value a b"), ["a", "b"]);
        assert_eq!(found("debug sleep 1"), Vec::<&str>::new());
        assert_eq!(found("memory doctor"), Vec::<&str>::new());
        assert_eq!(found("ping"), Vec::<&str>::new());
        assert_eq!(keys("eval script x a"), None);
        assert_eq!(keys("eval script 3 a"), None);
        assert_eq!(keys("xread streams a"), None);
    }
}
