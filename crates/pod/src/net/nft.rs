//! What is asked of nf_tables (nfnetlink, `linux/netfilter/nf_tables.h`): a batch of changes that comes into force as a
//! whole or not at all, and what is there.
//!
//! The `nft` program is not needed for it, so a machine without it has egress too.

use std::io;

use super::netlink::{
    Message, NETFILTER, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Reply, Socket, attribute,
    attributes, string,
};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
/// `struct nfgenmsg`.
const FIXED_BYTES: usize = 4;
/// `NFPROTO_…`.
pub(super) const UNSPEC: u8 = 0;
pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
/// `NF_INET_…`.
pub(super) const HOOK_FORWARD: u32 = 2;
pub(super) const HOOK_OUTPUT: u32 = 3;
pub(super) const HOOK_POSTROUTING: u32 = 4;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const LIST_ELEM: u16 = 1;
/// nft's datatype `ifname`, by which it lists the set.
const TYPE_IFNAME: u32 = 41;
const IFNAME_BYTES: usize = 16;
const REGISTER: u32 = 1;
const REGISTER_2: u32 = 2;

fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags, &[family, 0, 0, 0])
}

/// `add table`; with `new` an error when it is there.
pub(super) fn add_table(family: u8, table: &str, new: bool) -> Message {
    let exclusive = if new { NLM_F_EXCL } else { 0 };
    message(NEWTABLE, NLM_F_CREATE | exclusive, family)
        .text(1, table)
        .be32(2, 0)
}

/// `delete table`, with all that is in it.
pub(super) fn delete_table(family: u8, table: &str) -> Message {
    message(DELTABLE, 0, family).text(1, table)
}

/// `add chain … { type KIND hook HOOK priority PRIORITY; }`, policy accept.
pub(super) fn add_chain(
    family: u8,
    table: &str,
    chain: &str,
    kind: &str,
    hook: u32,
    priority: i32,
) -> Message {
    message(NEWCHAIN, NLM_F_CREATE, family)
        .text(1, table)
        .text(3, chain)
        .nest(4, &[], |at| {
            at.be32(1, hook).attr(2, &priority.to_be_bytes())
        })
        .be32(5, NF_ACCEPT)
        .text(7, kind)
}

/// `add set … { type ifname; }`.
pub(super) fn add_names(family: u8, table: &str, set: &str) -> Message {
    message(NEWSET, NLM_F_CREATE, family)
        .text(1, table)
        .text(2, set)
        .be32(3, 0)
        .be32(4, TYPE_IFNAME)
        .be32(5, IFNAME_BYTES as u32)
        .be32(10, 1)
}

/// `add element … { "NAME" }`.
pub(super) fn add_name(family: u8, table: &str, set: &str, name: &str) -> Message {
    let mut key = name.as_bytes().to_vec();
    key.resize(IFNAME_BYTES, 0);
    message(NEWSETELEM, NLM_F_CREATE, family)
        .text(1, table)
        .text(2, set)
        .nest(3, &[], |list| {
            list.nest(LIST_ELEM, &[], |one| {
                one.nest(1, &[], |data| data.attr(1, &key))
            })
        })
}

/// `delete rule … handle HANDLE`.
pub(super) fn delete_rule(family: u8, table: &str, chain: &str, handle: [u8; 8]) -> Message {
    message(DELRULE, 0, family)
        .text(1, table)
        .text(2, chain)
        .attr(3, &handle)
}

/// A rule, expression by expression.
pub(super) struct Expressions(Vec<Expression>);

type Expression = Box<dyn FnOnce(Message) -> Message>;

impl Expressions {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    fn push(mut self, name: &'static str, data: impl FnOnce(Message) -> Message + 'static) -> Self {
        self.0.push(Box::new(move |list: Message| {
            list.nest(LIST_ELEM, &[], |one| one.text(1, name).nest(2, &[], data))
        }));
        self
    }

    /// Compares the register with `value`; a shorter one with its beginning.
    fn compare(self, same: bool, value: Vec<u8>) -> Self {
        self.push("cmp", move |e| {
            e.be32(1, REGISTER)
                .be32(2, u32::from(!same))
                .nest(3, &[], |data| data.attr(1, &value))
        })
    }

    fn meta(self, key: u32) -> Self {
        self.push("meta", move |e| e.be32(1, REGISTER).be32(2, key))
    }

    /// `iifname "START*"`.
    pub(super) fn in_by(self, start: &str) -> Self {
        self.meta(6).compare(true, start.into())
    }

    /// `iifname != "START*"`.
    pub(super) fn not_in_by(self, start: &str) -> Self {
        self.meta(6).compare(false, start.into())
    }

    /// `oifname "START*"`.
    pub(super) fn out_by(self, start: &str) -> Self {
        self.meta(7).compare(true, start.into())
    }

    /// `oifname != "START*"`.
    pub(super) fn not_out_by(self, start: &str) -> Self {
        self.meta(7).compare(false, start.into())
    }

    /// `iifname @SET`.
    pub(super) fn in_by_any(self, set: &'static str) -> Self {
        self.meta(6)
            .push("lookup", move |e| e.text(1, set).be32(2, REGISTER))
    }

    /// Compares bytes of the IPv4 header.
    fn header(self, offset: u32, value: Vec<u8>) -> Self {
        let length = value.len() as u32;
        self.push("payload", move |e| {
            e.be32(1, REGISTER)
                .be32(2, 1)
                .be32(3, offset)
                .be32(4, length)
        })
        .compare(true, value)
    }

    /// `ip saddr A.B.0.0/16`, or of any other whole bytes.
    pub(super) fn source(self, start: &[u8]) -> Self {
        self.header(12, start.to_vec())
    }

    /// `ip daddr`, likewise.
    pub(super) fn destination(self, start: &[u8]) -> Self {
        self.header(16, start.to_vec())
    }

    /// `tcp dport` or `udp dport`, by the protocol's number.
    pub(super) fn port(self, protocol: u8, port: u16) -> Self {
        self.meta(16)
            .compare(true, vec![protocol])
            .push("payload", |e| {
                e.be32(1, REGISTER).be32(2, 2).be32(3, 2).be32(4, 2)
            })
            .compare(true, port.to_be_bytes().to_vec())
    }

    /// `ct state { … }` (key 0) or `ct status { … }` (key 2): whether one of the bits is set.
    fn tracked(self, key: u32, bits: u32, set: bool) -> Self {
        let mask = bits.to_ne_bytes();
        self.push("ct", move |e| e.be32(1, REGISTER).be32(2, key))
            .push("bitwise", move |e| {
                e.be32(1, REGISTER)
                    .be32(2, REGISTER)
                    .be32(3, 4)
                    .nest(4, &[], |data| data.attr(1, &mask))
                    .nest(5, &[], |data| data.attr(1, &[0; 4]))
            })
            .compare(!set, vec![0; 4])
    }

    /// Not `ct state established,related`.
    pub(super) fn not_an_answer(self) -> Self {
        self.tracked(0, 0b110, false)
    }

    /// `ct state new`.
    pub(super) fn new_connection(self) -> Self {
        self.tracked(0, 0b1000, true)
    }

    /// `ct status != dnat`.
    pub(super) fn not_redirected(self) -> Self {
        self.tracked(2, 1 << 5, false)
    }

    /// `counter`.
    pub(super) fn counter(self) -> Self {
        self.push("counter", |e| e.attr(1, &[0; 8]).attr(2, &[0; 8]))
    }

    fn verdict(self, code: u32) -> Self {
        self.push("immediate", move |e| {
            e.be32(1, 0)
                .nest(2, &[], |data| data.nest(2, &[], |v| v.be32(1, code)))
        })
    }

    /// `accept`.
    pub(super) fn accept(self) -> Self {
        self.verdict(NF_ACCEPT)
    }

    /// `drop`.
    pub(super) fn drop(self) -> Self {
        self.verdict(NF_DROP)
    }

    /// `masquerade`.
    pub(super) fn masquerade(self) -> Self {
        self.push("masq", |e| e)
    }

    /// `dnat to ADDRESS:PORT`.
    pub(super) fn redirect(self, address: [u8; 4], port: u16) -> Self {
        let load = |register: u32, value: Vec<u8>| {
            move |e: Message| {
                e.be32(1, register)
                    .nest(2, &[], |data| data.attr(1, &value))
            }
        };
        self.push("immediate", load(REGISTER, address.to_vec()))
            .push("immediate", load(REGISTER_2, port.to_be_bytes().to_vec()))
            .push("nat", |e| {
                e.be32(1, 1)
                    .be32(2, u32::from(IPV4))
                    .be32(3, REGISTER)
                    .be32(5, REGISTER_2)
            })
    }

    /// `add rule`.
    pub(super) fn append(self, family: u8, table: &str, chain: &str) -> Message {
        self.rule(NLM_F_CREATE | NLM_F_APPEND, family, table, chain)
    }

    /// `insert rule … comment COMMENT`: at the head of the chain.
    pub(super) fn insert(self, family: u8, table: &str, chain: &str, comment: &str) -> Message {
        // A comment as nft and iptables write it: type, length, text with its NUL.
        let mut data = vec![0, comment.len() as u8 + 1];
        data.extend(comment.as_bytes());
        data.push(0);
        self.rule(NLM_F_CREATE, family, table, chain).attr(7, &data)
    }

    fn rule(self, flags: u16, family: u8, table: &str, chain: &str) -> Message {
        message(NEWRULE, flags, family)
            .text(1, table)
            .text(2, chain)
            .nest(4, &[], |list| {
                self.0.into_iter().fold(list, |list, one| list.with(one))
            })
    }
}

/// A chain that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
    /// Where it hangs, when it is a base chain.
    pub(super) hook: Option<u32>,
    /// Its policy is drop.
    pub(super) drops: bool,
}

/// A rule that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) handle: [u8; 8],
    pub(super) comment: Option<String>,
    /// Its expressions, as the kernel has them.
    pub(super) expressions: Vec<u8>,
}

/// An nf_tables socket in the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Nft(Socket);

impl Nft {
    pub(super) fn open() -> io::Result<Self> {
        Socket::open(NETFILTER).map(Self)
    }

    /// One that was opened elsewhere.
    pub(super) fn of(socket: Socket) -> Self {
        Self(socket)
    }

    /// All of it, or an error and nothing.
    pub(super) fn commit(&mut self, changes: Vec<Message>) -> io::Result<()> {
        let edge = |kind: u16| {
            let subsystem = SUBSYSTEM.to_be_bytes();
            Message::new(kind, 0, &[UNSPEC, 0, subsystem[0], subsystem[1]])
        };
        let mut batch = vec![edge(BATCH_BEGIN)];
        let answered = changes.len();
        batch.extend(changes);
        batch.push(edge(BATCH_END));
        // The kernel answers to the messages in between only.
        self.0.batch(batch, answered)
    }

    /// Whether the table is there.
    pub(super) fn has_table(&mut self, family: u8, table: &str) -> io::Result<bool> {
        let ask = message(GETTABLE, 0, family).text(1, table);
        match self.0.get(ask, |_| Some(())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Every chain of every table.
    pub(super) fn chains(&mut self) -> io::Result<Vec<Chain>> {
        self.0.dump(&message(GETCHAIN, 0, UNSPEC), chain_of)
    }

    /// The rules of a table; those of one chain where one is given.
    pub(super) fn rules(
        &mut self,
        family: u8,
        table: &str,
        chain: Option<&str>,
    ) -> io::Result<Vec<Rule>> {
        let mut ask = message(GETRULE, 0, family).text(1, table);
        if let Some(chain) = chain {
            ask = ask.text(2, chain);
        }
        // Older kernels don't filter.
        let wanted = |body: &[u8]| {
            let named = |kind, name| attribute(body, kind).is_some_and(|have| string(have) == name);
            named(1, table) && chain.is_none_or(|chain| named(2, chain))
        };
        self.0.dump(&ask, |reply| {
            let body = reply.body.get(FIXED_BYTES..)?;
            wanted(body).then(|| rule_of(body))?
        })
    }

    /// What a set of interface names has.
    pub(super) fn names(&mut self, family: u8, table: &str, set: &str) -> io::Result<Vec<String>> {
        let ask = message(GETSETELEM, 0, family).text(1, table).text(2, set);
        let lists = self.0.dump(&ask, |reply| {
            let list = attribute(reply.body.get(FIXED_BYTES..)?, 3)?;
            let name = |one: &[u8]| Some(string(attribute(attribute(one, 1)?, 1)?));
            Some(attributes(list).filter_map(|(_, one)| name(one)).collect())
        })?;
        Ok(lists
            .into_iter()
            .flat_map(|list: Vec<String>| list)
            .collect())
    }
}

fn chain_of(reply: &Reply<'_>) -> Option<Chain> {
    let (fixed, rest) = reply.body.split_at_checked(FIXED_BYTES)?;
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(*bytes.first_chunk()?));
    let hook = attribute(rest, 4).and_then(|hook| number(attribute(hook, 1)?));
    Some(Chain {
        family: *fixed.first()?,
        table: string(attribute(rest, 1)?),
        name: string(attribute(rest, 3)?),
        hook,
        drops: attribute(rest, 5).and_then(number) == Some(NF_DROP),
    })
}

fn rule_of(body: &[u8]) -> Option<Rule> {
    let comment = attribute(body, 7).and_then(|data| {
        let (head, text) = data.split_at_checked(2)?;
        (head[0] == 0).then(|| string(text))
    });
    Some(Rule {
        handle: *attribute(body, 3)?.first_chunk()?,
        comment,
        expressions: attribute(body, 4).unwrap_or_default().to_vec(),
    })
}
