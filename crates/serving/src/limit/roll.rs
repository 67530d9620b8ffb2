//! Who is limited now: the keys that were refused lately, for people (no I/O).
//!
//! Each worker has a roll of its own, whose lock nobody else wants but the page, once a second; a request does not wait for the
//! page but is not noted then. A roll is bounded: the key whose last refusal is the longest ago makes room.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::rule::{Key, Rule};

/// Keys on a roll at most.
const MOST: usize = 256;

/// A key that was not refused for so long is not limited any more.
const NOW: Duration = Duration::from_secs(60);

/// The keys that one worker has refused lately, by tag.
#[derive(Debug, Default)]
pub(super) struct Roll(HashMap<u64, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    rule: String,
    key: String,
    shadow: bool,
    since: Instant,
    last: Instant,
    allowed: u64,
    denied: u64,
}

/// A key, as the page has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Limited {
    pub(super) key: String,
    pub(super) rule: String,
    /// The rule only counts: it would have been refused.
    pub(super) shadow: bool,
    /// Since it is on the roll.
    pub(super) allowed: u64,
    pub(super) denied: u64,
    /// Seconds since the first refusal, and since the last one.
    pub(super) since_seconds: u64,
    pub(super) last_seconds: u64,
}

impl Roll {
    /// A request of this key was let through.
    pub(super) fn allowed(&mut self, tag: u64) {
        if let Some(entry) = self.0.get_mut(&tag) {
            entry.allowed += 1;
        }
    }

    /// A request of this key was refused. `key`: the bytes that it is told apart by.
    pub(super) fn denied(&mut self, tag: u64, rule: &Rule, key: &[u8], now: Instant) {
        if let Some(entry) = self.0.get_mut(&tag) {
            entry.denied += 1;
            entry.last = now;
            return;
        }
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, entry)| entry.last)
        {
            let oldest = *oldest.0;
            self.0.remove(&oldest);
        }
        let entry = Entry {
            rule: rule.name.clone(),
            key: shown(&rule.key, key, tag),
            shadow: rule.shadow,
            since: now,
            last: now,
            allowed: 0,
            denied: 1,
        };
        self.0.insert(tag, entry);
    }
}

/// Who is limited now by all workers, the busiest first.
pub(super) fn limited(rolls: &[Arc<Mutex<Roll>>], now: Instant) -> Vec<Limited> {
    let mut all: HashMap<u64, Entry> = HashMap::new();
    for roll in rolls {
        let mut roll = roll.lock().unwrap_or_else(PoisonError::into_inner);
        roll.0
            .retain(|_, entry| now.saturating_duration_since(entry.last) < NOW);
        for (tag, entry) in &roll.0 {
            all.entry(*tag)
                .and_modify(|sum| {
                    sum.allowed += entry.allowed;
                    sum.denied += entry.denied;
                    sum.since = sum.since.min(entry.since);
                    sum.last = sum.last.max(entry.last);
                })
                .or_insert_with(|| entry.clone());
        }
    }
    let seconds = |at: Instant| now.saturating_duration_since(at).as_secs();
    let mut limited: Vec<Limited> = all
        .into_values()
        .map(|entry| Limited {
            since_seconds: seconds(entry.since),
            last_seconds: seconds(entry.last),
            key: entry.key,
            rule: entry.rule,
            shadow: entry.shadow,
            allowed: entry.allowed,
            denied: entry.denied,
        })
        .collect();
    limited.sort_by(|a, b| b.denied.cmp(&a.denied).then_with(|| a.key.cmp(&b.key)));
    limited
}

/// A key for people. Of what may be a secret (a token, a session) only the begin is shown, and a number to tell it by.
fn shown(kind: &Key, key: &[u8], tag: u64) -> String {
    if key.is_empty() {
        return match kind {
            Key::Global => "all together".to_owned(),
            _ => "without it".to_owned(),
        };
    }
    let text = String::from_utf8_lossy(key);
    let begin = |most: usize| text.chars().take(most).collect::<String>();
    match (kind, <[u8; 4]>::try_from(key), <[u8; 16]>::try_from(key)) {
        (Key::Ip, Ok(ip), _) => Ipv4Addr::from(ip).to_string(),
        (Key::Ip, _, Ok(ip)) => Ipv6Addr::from(ip).to_string(),
        (Key::Header(_) | Key::Cookie(_) | Key::Query(_), ..) => {
            let most = if text.len() > 8 { 4 } else { 1 };
            format!("{}… (#{:08x})", begin(most), tag >> 32)
        }
        _ if text.chars().count() > 80 => format!("{}…", begin(80)),
        _ => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use podkit_foundation::params::ParamType as _;

    use super::*;

    #[test]
    fn workers_are_added_up_and_who_rests_is_gone() {
        let rule = Rule::parse("name=api key=ip rate=1/s").unwrap();
        let rolls: Vec<_> = (0..2).map(|_| Arc::<Mutex<Roll>>::default()).collect();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for (worker, seconds) in [(0, 0), (1, 5), (1, 7)] {
            let mut roll = rolls[worker].lock().unwrap();
            roll.denied(1, &rule, &[192, 0, 2, 1], at(seconds));
            roll.allowed(1);
            roll.allowed(2);
        }
        let expected = Limited {
            key: "192.0.2.1".to_owned(),
            rule: "api".to_owned(),
            shadow: false,
            allowed: 3,
            denied: 3,
            since_seconds: 10,
            last_seconds: 3,
        };
        assert_eq!(limited(&rolls, at(10)), [expected]);
        assert_eq!(limited(&rolls, at(200)), []);
    }

    #[test]
    fn a_roll_is_bounded_and_shows_no_secret() {
        let rule = Rule::parse("name=api key=header:X-Key rate=1/s").unwrap();
        let roll = Arc::<Mutex<Roll>>::default();
        let begin = Instant::now();
        for tag in 0..1_000_u64 {
            let now = begin + Duration::from_millis(tag);
            let mut roll = roll.lock().unwrap();
            roll.denied(tag << 32, &rule, b"secret-token-of-a-client", now);
        }
        let now = begin + Duration::from_secs(1);
        let limited = limited(&[roll], now);
        assert_eq!(limited.len(), MOST);
        assert!(limited.iter().any(|one| one.key == "secr… (#000003e7)"));
        assert_eq!(shown(&Key::Path, b"/<b>\xff", 0), "/<b>\u{fffd}");
        assert_eq!(shown(&Key::Ip, &[0; 16], 0), "::");
        assert_eq!(shown(&Key::Ip, b"", 0), "without it");
    }
}
