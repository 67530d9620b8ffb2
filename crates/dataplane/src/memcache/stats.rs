//! What `stats` says of several servers: what one that has done all their work would say.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Display;

use crate::resp::Joins;

/// Numbers that do not add up: of those of all servers the least.
const LEAST: [&str; 2] = ["accepting_conns", "uptime"];
/// Or the largest.
const MOST: [&str; 6] = [
    "hash_is_expanding",
    "hash_power_level",
    "lru_crawler_running",
    "slab_reassign_running",
    "time",
    "time_since_server_cert_refresh",
];
/// Said only when all servers say the same.
const ALIKE: [&str; 1] = ["pointer_size"];

/// Joins them.
#[derive(Debug)]
pub(super) struct Stats;

impl Joins for Stats {
    fn join(&self, parts: &[&[u8]]) -> Vec<u8> {
        let parts = match whole(parts) {
            Ok(parts) => parts,
            Err(error) => return error,
        };
        said(
            gather(&parts)
                .iter()
                .filter_map(|(name, values)| Some((name, one(name, values)?))),
        )
    }
}

/// The replies, as text; or the first that is none.
pub(super) fn whole<'a>(parts: &[&'a [u8]]) -> Result<Vec<Cow<'a, str>>, Vec<u8>> {
    let is_whole = |part: &&&[u8]| part.ends_with(b"END\r\n");
    if let Some(error) = parts.iter().find(|part| !is_whole(part)) {
        return Err(error.to_vec());
    }
    Ok(parts
        .iter()
        .map(|part| String::from_utf8_lossy(part))
        .collect())
}

/// What there is, and what each says of it. In the order of the first; what only others have comes behind.
pub(super) fn gather<'a>(parts: &'a [Cow<'_, str>]) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut places = HashMap::new();
    for part in parts {
        for stat in part.lines().filter_map(|line| line.strip_prefix("STAT ")) {
            let (name, value) = stat.split_once(' ').unwrap_or((stat, ""));
            let place = *places.entry(name).or_insert(all.len());
            match all.get_mut(place) {
                Some((_, values)) => values.push(value),
                None => all.push((name, vec![value])),
            }
        }
    }
    all
}

/// As a reply.
pub(super) fn said<N: Display, V: Display>(all: impl Iterator<Item = (N, V)>) -> Vec<u8> {
    let mut whole = String::new();
    for (name, value) in all {
        whole.push_str(&format!("STAT {name} {value}\r\n"));
    }
    whole.push_str("END\r\n");
    whole.into_bytes()
}

/// What all say, if it is the same.
pub(super) fn alike<'a>(values: &[&'a str]) -> Option<&'a str> {
    let first = *values.first()?;
    values.iter().all(|value| *value == first).then_some(first)
}

/// All of them, if they are numbers.
pub(super) fn numbers(values: &[&str]) -> Option<Vec<u64>> {
    values.iter().map(|value| value.parse().ok()).collect()
}

/// One value of those of all servers. None: none would be right.
fn one(name: &str, values: &[&str]) -> Option<String> {
    let alike = || alike(values).map(str::to_owned);
    match name {
        // Whom the client is connected to.
        "pid" => return Some(std::process::id().to_string()),
        "version" => {
            return values
                .iter()
                .min_by_key(|said| version(said))
                .map(|said| (*said).to_owned());
        }
        _ if ALIKE.contains(&name) => return alike(),
        _ => {}
    }
    if let Some(numbers) = numbers(values) {
        let number = match name {
            _ if LEAST.contains(&name) => numbers.into_iter().min().map(u128::from)?,
            _ if MOST.contains(&name) => numbers.into_iter().max().map(u128::from)?,
            _ => numbers.into_iter().map(u128::from).sum(),
        };
        return Some(number.to_string());
    }
    let micros = values
        .iter()
        .map(|value| micros(value))
        .collect::<Option<Vec<u64>>>();
    match micros {
        Some(micros) => {
            let sum: u64 = micros.iter().sum();
            Some(format!("{}.{:06}", sum / 1_000_000, sum % 1_000_000))
        }
        None => alike(),
    }
}

/// Of seconds as memcached writes them (`rusage_user`).
fn micros(text: &str) -> Option<u64> {
    let (seconds, micros) = text.split_once('.')?;
    if micros.len() != 6 {
        return None;
    }
    let (seconds, micros): (u32, u32) = (seconds.parse().ok()?, micros.parse().ok()?);
    Some(u64::from(seconds) * 1_000_000 + u64::from(micros))
}

/// To be compared: `1.6.9` is before `1.6.18`.
fn version(text: &str) -> Vec<u32> {
    let numbers = text.split(|letter: char| !letter.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// The oldest version that a server says, so that what clients do by it goes with all. One that is away does not count: clients ask for it to learn whether
/// they are connected.
#[derive(Debug)]
pub(super) struct Version;

impl Joins for Version {
    fn join(&self, parts: &[&[u8]]) -> Vec<u8> {
        let said = parts.iter().filter(|part| part.starts_with(b"VERSION "));
        let least = said.min_by_key(|part| version(&String::from_utf8_lossy(part)));
        least
            .or(parts.first())
            .map(|part| part.to_vec())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn joined(parts: &[&str]) -> String {
        let parts: Vec<Vec<u8>> = parts
            .iter()
            .map(|part| part.replace('|', "\r\n").into_bytes())
            .collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        String::from_utf8(Stats.join(&parts))
            .unwrap()
            .replace("\r\n", "|")
    }

    #[test]
    fn several_say_what_one_would() {
        let one = "STAT pid 1|STAT uptime 90|STAT time 100|STAT version 1.6.18|STAT pointer_size 64|STAT rusage_user 1.900000|STAT get_hits 7|STAT x a b|END|";
        let other = "STAT pid 2|STAT uptime 30|STAT time 99|STAT version 1.6.9|STAT pointer_size 64|STAT rusage_user 0.200001|STAT new 4|STAT get_hits 5|STAT x a c|END|";
        let pid = std::process::id();
        assert_eq!(
            joined(&[one, other]),
            format!(
                "STAT pid {pid}|STAT uptime 30|STAT time 100|STAT version 1.6.9|STAT pointer_size 64|STAT rusage_user 2.100001|STAT get_hits 12|STAT new 4|END|"
            )
        );
        assert_eq!(joined(&[one, "SERVER_ERROR away|"]), "SERVER_ERROR away|");
        let most = format!("STAT n {}|END|", u64::MAX);
        assert_eq!(
            joined(&[&most, &most]),
            format!("STAT n {}|END|", u128::from(u64::MAX) * 2)
        );
    }

    #[test]
    fn the_oldest_version_counts() {
        let of = |parts: &[&str]| {
            let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            String::from_utf8(Version.join(&parts)).unwrap()
        };
        assert_eq!(
            of(&[
                "SERVER_ERROR x\r\n",
                "VERSION 1.6.18\r\n",
                "VERSION 1.6.9\r\n"
            ]),
            "VERSION 1.6.9\r\n"
        );
        assert_eq!(
            of(&["SERVER_ERROR x\r\n", "SERVER_ERROR y\r\n"]),
            "SERVER_ERROR x\r\n"
        );
    }

    proptest! {
        #[test]
        fn counters_add_up_whatever_servers_lack(
            counts in vec(vec(proptest::option::of(0_u64..1 << 60), 5), 1..6),
        ) {
            let part = |counts: &Vec<Option<u64>>| {
                let lines = counts.iter().enumerate().filter_map(|(at, count)| {
                    Some(format!("STAT c{at} {}|", (*count)?))
                });
                format!("{}END|", lines.collect::<String>())
            };
            let parts: Vec<String> = counts.iter().map(part).collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let whole = joined(&parts);
            for at in 0..5 {
                let there: Vec<u64> = counts.iter().filter_map(|counts| counts[at]).collect();
                let line = format!("STAT c{at} {}|", there.iter().sum::<u64>());
                prop_assert_eq!(whole.matches(&line).count(), usize::from(!there.is_empty()));
            }
        }
    }
}
