//! One reply out of those of several upstreams.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::info::info;
use super::reply::put;
use super::scan::{aggregate, elements, integer, put_bulk, put_line, text};
use crate::net::Buf;

/// Of those that have something, whose turn it is.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Of the room that is made for parts before they are there.
const ROOM: usize = 64 * 1024;

/// Makes one reply of those of all parts, in another protocol.
pub trait Joins: Debug {
    /// `parts` are in the order of the tickets.
    fn join(&self, parts: &[&[u8]]) -> Vec<u8>;
}

/// How parts become one.
#[derive(Debug)]
pub enum Merge {
    /// `+OK` when all say so.
    Ok,
    /// Numbers are added.
    Sum,
    /// One value after the other, each from the part that is named here.
    Values(Vec<u16>),
    /// The values of all parts, one part after the other.
    Append,
    /// What the first part says.
    First,
    /// What one says that has something, another one each time.
    Some,
    /// A cursor and values of this shard of so many: the cursor goes on with the next shard when it has ended in this one.
    Cursor(u64, u64),
    /// Of numbers of nothing (0) and something (1) at each place: the least (SCRIPT EXISTS).
    Least,
    /// INFO: what is counted is added, of those that say it.
    Info,
    /// What one says that could do it, whatever errors others have (SCRIPT KILL).
    Killed,
    /// Another protocol's way.
    By(Box<dyn Joins>),
}

/// A reply in the making.
#[derive(Debug)]
pub(crate) struct Join {
    merge: Merge,
    parts: Vec<Option<Part>>,
    left: usize,
    /// The replies of all parts, as they came.
    bytes: Vec<u8>,
    /// Where the values of each end, where whoever read it has noted that.
    ends: Vec<usize>,
    /// Nobody wants it.
    muted: bool,
}

/// The reply of one upstream.
#[derive(Debug, Clone)]
struct Part {
    /// Of the bytes.
    reply: Range<usize>,
    /// Of the ends.
    ends: Range<usize>,
}

impl Join {
    /// Of so many parts.
    pub(crate) fn new(merge: Merge, parts: usize) -> Self {
        Self {
            merge,
            parts: vec![None; parts],
            left: parts,
            bytes: Vec::new(),
            ends: Vec::new(),
            muted: false,
        }
    }

    /// Nobody wants it: it is done when all parts are there, and empty.
    pub(super) fn mute(&mut self) {
        self.muted = true;
    }

    /// It is made of the values in its parts: where those end is worth noting.
    pub(super) fn is_of_values(&self) -> bool {
        matches!(self.merge, Merge::Values(_))
    }

    /// A part has come. `ends`: of its values, or none where they were not noted.
    pub(super) fn part(&mut self, part: u32, reply: &[u8], ends: &[usize]) {
        if let Some(place @ None) = self.parts.get_mut(part as usize) {
            if self.bytes.is_empty() {
                // As if the others were as large, unless that would be much.
                self.bytes.reserve((reply.len() * self.left).min(ROOM));
                self.ends.reserve((ends.len() * self.left).min(ROOM));
            }
            let (start, first) = (self.bytes.len(), self.ends.len());
            self.bytes.extend_from_slice(reply);
            self.ends.extend_from_slice(ends);
            *place = Some(Part {
                reply: start..self.bytes.len(),
                ends: first..self.ends.len(),
            });
            self.left -= 1;
        }
    }

    /// Appends the whole, when all parts are there. An error of any part is that of the whole: half an answer would look like one.
    pub(super) fn finish(&self, out: &mut Option<Buf>) -> bool {
        if self.left > 0 {
            return false;
        }
        if self.muted {
            return true;
        }
        let there = self.parts.iter().flatten();
        let parts: Vec<&[u8]> = there.map(|part| &self.bytes[part.reply.clone()]).collect();
        let error = parts
            .iter()
            .find(|part| matches!(part.first(), Some(b'-' | b'!')))
            .filter(|_| !matches!(self.merge, Merge::By(_) | Merge::Info | Merge::Killed));
        if let Some(error) = error {
            put(out, error);
            return true;
        }
        let whole = match &self.merge {
            Merge::Ok => Some(b"+OK\r\n".to_vec()),
            Merge::First => parts.first().map(|part| part.to_vec()),
            Merge::Some => {
                let nothing = |part: &&&[u8]| !matches!(**part, b"$-1\r\n" | b"_\r\n");
                let found: Vec<&&[u8]> = parts.iter().filter(nothing).collect();
                let turn = TURN.fetch_add(1, Ordering::Relaxed);
                let found = found.get(turn % found.len().max(1)).copied();
                found.or(parts.first()).map(|part| part.to_vec())
            }
            Merge::Cursor(shard, shards) => {
                parts.first().and_then(|part| cursor(part, *shard, *shards))
            }
            Merge::Sum => sum(&parts),
            Merge::Append => append(&parts),
            Merge::Values(owners) => {
                let ends = |part: &Part| &self.ends[part.ends.clone()];
                let ends = self.parts.iter().flatten().map(ends);
                let parts = parts.iter().copied().zip(ends);
                if put_values(parts, owners, out.get_or_insert_with(Buf::small)) {
                    return true;
                }
                None
            }
            Merge::Least => least(&parts),
            Merge::Info => info(&parts),
            Merge::Killed => killed(&parts),
            Merge::By(joins) => Some(joins.join(&parts)),
        };
        match whole {
            Some(whole) => put(out, &whole),
            None => put(out, b"-ERR the shards' replies are not of one form\r\n"),
        }
        true
    }
}

fn sum(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let mut numbers = parts.iter().map(|part| integer(part));
    let sum = numbers.try_fold(0_i64, |sum, number| sum.checked_add(number?))?;
    Some(format!(":{sum}\r\n").into_bytes())
}

fn append(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let found: Option<Vec<Vec<Range<usize>>>> = parts.iter().map(|part| elements(part)).collect();
    let found = found?;
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    let kind = *parts.first()?.first()?;
    if parts.iter().any(|part| part.first() != Some(&kind)) {
        return None;
    }
    // A map counts its pairs.
    let each = if kind == b'%' { 2 } else { 1 };
    let values: usize = found.iter().map(Vec::len).sum();
    put_line(&mut out, kind, values / each);
    for (part, ranges) in parts.iter().zip(&found) {
        if let (Some(first), Some(last)) = (ranges.first(), ranges.last()) {
            out.extend_from_slice(&part[first.start..last.end]);
        }
    }
    Some(out)
}

/// Appends the values in the order of their owners; nothing, and false, when a part has not as many as it owns. Each part has the ends of
/// its values with it, or none.
fn put_values<'a>(
    parts: impl Iterator<Item = (&'a [u8], &'a [usize])> + Clone,
    owners: &[u16],
    out: &mut Buf,
) -> bool {
    let mut left = Vec::with_capacity(4);
    for (reply, ends) in parts.clone() {
        let Some((count, first)) = aggregate(reply) else {
            return false;
        };
        let mut ends = Cow::Borrowed(ends);
        if ends.is_empty() {
            let values = elements(reply).unwrap_or_default();
            ends = Cow::Owned(values.iter().map(|value| value.end).collect());
        }
        if ends.len() != count || ends.last().is_some_and(|end| *end > reply.len()) {
            return false;
        }
        left.push((reply, first, ends, 0));
    }
    out.reserve(parts.map(|(reply, _)| reply.len()).sum::<usize>() + 16);
    let before = out.len();
    let mut line = Vec::with_capacity(16);
    put_line(&mut line, b'*', owners.len());
    out.put(&line);
    for owner in owners {
        // Where the next value of its part begins, and which it is.
        let next = left.get_mut(usize::from(*owner));
        let value = next.and_then(|(reply, start, ends, at)| {
            let end = *ends.get(*at)?;
            let value = reply.get(*start..end)?;
            (*start, *at) = (end, *at + 1);
            Some(value)
        });
        let Some(value) = value else {
            out.truncate(before);
            return false;
        };
        out.put(value);
    }
    // None is left over.
    let is_whole = left.iter().all(|(_, _, ends, at)| *at == ends.len());
    if !is_whole {
        out.truncate(before);
    }
    is_whole
}

/// One that did it; else one that could not (UNKILLABLE); else one that had nothing to kill.
fn killed(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let rank = |part: &&&[u8]| match part.first() {
        Some(b'-') if part.starts_with(b"-NOTBUSY") => 2,
        Some(b'-' | b'!') => 1,
        _ => 0,
    };
    parts.iter().min_by_key(rank).map(|part| part.to_vec())
}

fn cursor(part: &[u8], shard: u64, shards: u64) -> Option<Vec<u8>> {
    let ranges = elements(part)?;
    let [inner, values] = ranges.as_slice() else {
        return None;
    };
    let inner: u64 = std::str::from_utf8(text(&part[inner.clone()])?)
        .ok()?
        .parse()
        .ok()?;
    let whole = match inner {
        0 if shard + 1 == shards => 0,
        0 => shard + 1,
        inner => inner.checked_mul(shards)?.checked_add(shard)?,
    };
    let mut out = b"*2\r\n".to_vec();
    put_bulk(&mut out, whole.to_string().as_bytes());
    out.extend_from_slice(&part[values.clone()]);
    Some(out)
}

fn least(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let mut least: Option<Vec<i64>> = None;
    for part in parts {
        let numbers: Option<Vec<i64>> = elements(part)?
            .into_iter()
            .map(|range| integer(&part[range]))
            .collect();
        let numbers = numbers?;
        least = Some(match least {
            None => numbers,
            Some(known) if known.len() == numbers.len() => {
                known.iter().zip(&numbers).map(|(a, b)| *a.min(b)).collect()
            }
            Some(_) => return None,
        });
    }
    let least = least?;
    let mut out = Vec::new();
    put_line(&mut out, b'*', least.len());
    least
        .iter()
        .for_each(|number| out.extend_from_slice(format!(":{number}\r\n").as_bytes()));
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(merge: Merge, parts: &[&str]) -> String {
        let mut join = Join::new(merge, parts.len());
        let mut out = None;
        for (at, part) in parts.iter().enumerate() {
            assert!(!join.finish(&mut out));
            join.part(at as u32, part.as_bytes(), &[]);
        }
        assert!(join.finish(&mut out));
        String::from_utf8(out.unwrap().filled().to_vec()).unwrap()
    }

    #[test]
    fn parts_become_what_one_server_would_say() {
        assert_eq!(join(Merge::Sum, &[":2\r\n", ":40\r\n"]), ":42\r\n");
        assert_eq!(join(Merge::Ok, &["+OK\r\n", "+OK\r\n"]), "+OK\r\n");
        assert_eq!(
            join(
                Merge::Append,
                &["*1\r\n$1\r\na\r\n", "*0\r\n", "*1\r\n$1\r\nb\r\n"]
            ),
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n"
        );
        let whole = join(
            Merge::Values(vec![0, 1, 0]),
            &["*2\r\n$1\r\na\r\n$-1\r\n", "*1\r\n$1\r\nb\r\n"],
        );
        assert_eq!(whole, "*3\r\n$1\r\na\r\n$1\r\nb\r\n$-1\r\n");
        let scan = |shard, next: &str| {
            join(
                Merge::Cursor(shard, 3),
                &[&format!("*2\r\n${}\r\n{next}\r\n*0\r\n", next.len())],
            )
        };
        assert_eq!(scan(0, "5"), "*2\r\n$2\r\n15\r\n*0\r\n");
        assert_eq!(scan(1, "0"), "*2\r\n$1\r\n2\r\n*0\r\n");
        assert_eq!(scan(2, "0"), "*2\r\n$1\r\n0\r\n*0\r\n");
        // More than a number holds, which a server could say.
        let most = format!(":{}\r\n", i64::MAX);
        assert!(join(Merge::Sum, &[&most, ":1\r\n"]).starts_with("-ERR"));
        assert_eq!(
            join(Merge::Some, &["$-1\r\n", "$1\r\na\r\n"]),
            "$1\r\na\r\n"
        );
        assert_eq!(
            join(Merge::Least, &["*2\r\n:1\r\n:1\r\n", "*2\r\n:1\r\n:0\r\n"]),
            "*2\r\n:1\r\n:0\r\n"
        );
    }

    #[test]
    fn all_that_have_something_are_heard() {
        let parts = ["$-1\r\n", "$1\r\na\r\n", "$1\r\nb\r\n"];
        let heard: Vec<String> = (0..20).map(|_| join(Merge::Some, &parts)).collect();
        assert!(
            parts[1..]
                .iter()
                .all(|part| heard.iter().any(|one| one == part))
        );
        assert!(!heard.iter().any(|one| one == parts[0]));
        assert_eq!(join(Merge::Some, &parts[..1]), parts[0]);
    }

    #[test]
    fn a_script_is_killed_where_it_runs() {
        let kill = |parts: &[&str]| join(Merge::Killed, parts);
        let nothing = "-NOTBUSY No scripts in execution right now.\r\n";
        assert_eq!(kill(&[nothing, "+OK\r\n", nothing]), "+OK\r\n");
        assert_eq!(kill(&[nothing, nothing]), nothing);
        let writes = "-UNKILLABLE Sorry\r\n";
        assert_eq!(kill(&[nothing, writes]), writes);
    }

    #[test]
    fn an_error_of_one_is_that_of_all() {
        assert_eq!(join(Merge::Sum, &[":2\r\n", "-ERR no\r\n"]), "-ERR no\r\n");
        assert!(join(Merge::Sum, &[":2\r\n", "+OK\r\n"]).starts_with("-ERR the shards"));
        assert!(join(Merge::Values(vec![0, 1]), &["*0\r\n", "*1\r\n:1\r\n"]).starts_with("-ERR"));
    }
}
