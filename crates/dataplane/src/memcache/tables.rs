//! What `stats WORD` says of several servers, by what its numbers mean: those of slab classes and sizes are added up where the classes are the
//! same, settings are said where all have the same.

use std::collections::BTreeMap;

use super::stats::{alike, gather, numbers, said, whole};
use crate::resp::Joins;

/// A kind of `stats` that several servers can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// `stats items` and `stats slabs`: of each class.
    Classes,
    /// `stats sizes`: how many there are of each size.
    Sizes,
    /// `stats settings`.
    Settings,
    /// `stats detail dump`: of each prefix of keys.
    Prefixes,
    /// `stats cachedump CLASS COUNT`: so many keys at most; 0: all.
    Keys(usize),
}

impl Table {
    /// Of the words of a command. None: it is another one.
    pub(super) fn of(words: &[&[u8]]) -> Option<Self> {
        let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
        match words {
            [_, b"items" | b"slabs", ..] => Some(Self::Classes),
            [_, b"sizes", ..] => Some(Self::Sizes),
            [_, b"settings", ..] => Some(Self::Settings),
            [_, b"detail", b"dump", ..] => Some(Self::Prefixes),
            [_, b"cachedump", _, count, ..] => number(count).map(Self::Keys),
            _ => None,
        }
    }
}

impl Joins for Table {
    fn join(&self, parts: &[&[u8]]) -> Vec<u8> {
        let parts = match whole(parts) {
            Ok(parts) => parts,
            Err(error) => return error,
        };
        match self {
            Self::Classes => classes(gather(&parts)),
            Self::Sizes => sizes(gather(&parts)),
            Self::Settings => {
                let all = gather(&parts);
                said(
                    all.iter()
                        .filter_map(|(name, values)| Some((name, setting(name, values)?))),
                )
            }
            Self::Prefixes => prefixes(parts.iter().flat_map(|part| part.lines())),
            Self::Keys(most) => {
                let most = if *most == 0 { usize::MAX } else { *most };
                let keys = parts.iter().flat_map(|part| part.lines());
                let keys = keys.filter(|line| line.starts_with("ITEM ")).take(most);
                let mut out: String = keys.map(|line| format!("{line}\r\n")).collect();
                out.push_str("END\r\n");
                out.into_bytes()
            }
        }
    }
}

/// The class of a number (`5:used_chunks`, `items:5:number`), and what it is.
fn class(name: &str) -> Option<(u32, &str)> {
    let (class, what) = name
        .strip_prefix("items:")
        .unwrap_or(name)
        .split_once(':')?;
    Some((class.parse().ok()?, what))
}

fn classes(mut all: Vec<(&str, Vec<&str>)>) -> Vec<u8> {
    // Those of all classes stay behind.
    all.sort_by_key(|(name, _)| class(name).map_or(u32::MAX, |(class, _)| class));
    let mut count: Vec<u32> = all
        .iter()
        .filter_map(|(name, _)| Some(class(name)?.0))
        .collect();
    count.dedup();
    let mut out = Vec::with_capacity(all.len());
    for (name, values) in &all {
        let what = class(name).map_or(*name, |(_, what)| what);
        let value = match (what, numbers(values)) {
            ("chunk_size" | "chunks_per_page", _) => match alike(values) {
                Some(value) => Some(value.to_owned()),
                None => {
                    let values = values.join(", ");
                    let line = format!(
                        "SERVER_ERROR the shards' slab classes are not the same: {name} is {values}\r\n"
                    );
                    return line.into_bytes();
                }
            },
            ("active_slabs", _) => Some(count.len().to_string()),
            // The oldest.
            ("age" | "age_hot" | "age_warm", Some(numbers)) => {
                numbers.into_iter().max().map(|number| number.to_string())
            }
            // How long the last one that had to go had not been asked for; 0: none had to.
            ("evicted_time", Some(numbers)) => {
                let some = numbers.into_iter().filter(|number| *number > 0);
                Some(some.min().unwrap_or(0).to_string())
            }
            (_, Some(numbers)) => Some(sum(&numbers)),
            (_, None) => alike(values).map(str::to_owned),
        };
        out.extend(value.map(|value| (name, value)));
    }
    said(out.into_iter())
}

fn sum(numbers: &[u64]) -> String {
    let sum: u128 = numbers.iter().copied().map(u128::from).sum();
    sum.to_string()
}

fn sizes(all: Vec<(&str, Vec<&str>)>) -> Vec<u8> {
    // One that does not count: what the others say is not what there is.
    if let Some((name, values)) = all.iter().find(|(name, _)| *name == "sizes_status") {
        return said(values.iter().take(1).map(|value| (name, value)));
    }
    let size =
        |(name, values): (&str, Vec<&str>)| Some((name.parse::<u64>().ok()?, numbers(&values)?));
    let mut all: Vec<(u64, Vec<u64>)> = all.into_iter().filter_map(size).collect();
    all.sort_unstable();
    said(all.iter().map(|(size, counts)| (size, sum(counts))))
}

/// One value of those of all servers. None: they differ.
fn setting(name: &str, values: &[&str]) -> Option<String> {
    match (name, numbers(values)) {
        // As `limit_maxbytes` of `stats`.
        ("maxbytes", Some(numbers)) => Some(sum(&numbers)),
        // What fits anywhere.
        ("item_size_max", Some(numbers)) => {
            numbers.into_iter().min().map(|number| number.to_string())
        }
        _ => alike(values).map(str::to_owned),
    }
}

/// `PREFIX name get 2 hit 1 set 1 del 0`: the numbers of each are added.
fn prefixes<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut all: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for line in lines.filter_map(|line| line.strip_prefix("PREFIX ")) {
        let mut words = line.split(' ');
        let counts = all.entry(words.next().unwrap_or_default()).or_default();
        while let (Some(what), Some(Ok(count))) =
            (words.next(), words.next().map(str::parse::<u64>))
        {
            match counts.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sum)) => *sum = sum.saturating_add(count),
                None => counts.push((what, count)),
            }
        }
    }
    let mut out = String::new();
    for (name, counts) in all {
        out.push_str(&format!("PREFIX {name}"));
        counts
            .iter()
            .for_each(|(what, count)| out.push_str(&format!(" {what} {count}")));
        out.push_str("\r\n");
    }
    out.push_str("END\r\n");
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What shards say, and what comes of it, with `|` for the ends of lines.
    fn check(command: &str, parts: &[&str], expected: &str) {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let parts: Vec<String> = parts.iter().map(|part| part.replace('|', "\r\n")).collect();
        let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
        let joined = Table::of(&words).expect(command).join(&parts);
        let joined = String::from_utf8(joined).unwrap().replace("\r\n", "|");
        assert_eq!(joined, expected, "{command}");
    }

    #[test]
    fn what_is_counted_of_a_class_is_added() {
        check(
            "stats items",
            &[
                "STAT items:5:number 2|STAT items:5:age 9|STAT items:5:evicted_time 0|END|",
                "STAT items:2:number 1|STAT items:2:age 3|STAT items:5:number 3|STAT items:5:age 20|STAT items:5:evicted_time 7|END|",
                "END|",
            ],
            "STAT items:2:number 1|STAT items:2:age 3|STAT items:5:number 5|STAT items:5:age 20|STAT items:5:evicted_time 7|END|",
        );
        check(
            "stats slabs",
            &[
                "STAT 1:chunk_size 96|STAT 1:used_chunks 2|STAT active_slabs 1|STAT total_malloced 10|END|",
                "STAT 1:chunk_size 96|STAT 1:used_chunks 3|STAT 12:chunk_size 1184|STAT 12:used_chunks 1|STAT active_slabs 2|STAT total_malloced 10|END|",
            ],
            "STAT 1:chunk_size 96|STAT 1:used_chunks 5|STAT 12:chunk_size 1184|STAT 12:used_chunks 1|STAT active_slabs 2|STAT total_malloced 20|END|",
        );
        check(
            "stats slabs",
            &["STAT 1:chunk_size 96|END|", "STAT 1:chunk_size 104|END|"],
            "SERVER_ERROR the shards' slab classes are not the same: 1:chunk_size is 96, 104|",
        );
        check(
            "stats slabs",
            &["END|", "SERVER_ERROR away|"],
            "SERVER_ERROR away|",
        );
    }

    #[test]
    fn other_tables_are_joined_by_what_they_mean() {
        let sizes = ["STAT 96 2|STAT 128 1|END|", "STAT 64 1|STAT 128 4|END|"];
        check("stats sizes", &sizes, "STAT 64 1|STAT 96 2|STAT 128 5|END|");
        let off = "STAT sizes_status disabled|END|";
        check("stats sizes", &[sizes[0], off], off);
        check(
            "stats settings",
            &[
                "STAT maxbytes 64|STAT tcpport 1|STAT evictions on|STAT item_size_max 9|END|",
                "STAT maxbytes 32|STAT tcpport 2|STAT evictions on|STAT item_size_max 7|END|",
            ],
            "STAT maxbytes 96|STAT evictions on|STAT item_size_max 7|END|",
        );
        check(
            "stats detail dump",
            &[
                "PREFIX b get 1 hit 1 set 0 del 2|END|",
                "PREFIX a get 1 hit 0 set 0 del 0|PREFIX b get 4 hit 1 set 3 del 0|END|",
            ],
            "PREFIX a get 1 hit 0 set 0 del 0|PREFIX b get 5 hit 2 set 3 del 2|END|",
        );
        let keys = [
            "ITEM a [1 b; 0 s]|ITEM b [1 b; 0 s]|END|",
            "ITEM c [1 b; 0 s]|END|",
        ];
        check(
            "stats cachedump 1 0",
            &keys,
            "ITEM a [1 b; 0 s]|ITEM b [1 b; 0 s]|ITEM c [1 b; 0 s]|END|",
        );
        check("stats cachedump 1 1", &keys, "ITEM a [1 b; 0 s]|END|");
        for other in [
            "stats",
            "stats conns",
            "stats cachedump 1",
            "stats detail on",
        ] {
            let words: Vec<&[u8]> = other.split(' ').map(str::as_bytes).collect();
            assert_eq!(Table::of(&words), None, "{other}");
        }
    }
}
