//! Consistent hashing: a key finds its endpoint, and keeps it while others come and go.
//!
//! - *maglev* (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016): one lookup in a table
//!   of 65,537 slots; shares within a percent; when an endpoint comes or goes, up to about twice the keys move that must.
//! - *ketama* (Karger et al., "Consistent Hashing and Random Trees", 1997; points as in libketama): a ring of 160 points per
//!   weight; only the keys of who comes or goes move; shares within about ten percent.
//! - *rendezvous* (Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1998; weights by Schindelhauer and
//!   Schomaker, 2005): the highest of all endpoints' scores; exact shares, only the keys that must move; costs a hash per
//!   endpoint and request, and a logarithm where weights differ.
//!
//! Tables are made of the members, ready or not. A key whose endpoint can't be used goes to the next in an order of its own, so
//! that an endpoint that is away for a while moves its own keys and no others, whatever the table, and gets them back.
//! Endpoints are hashed by name: replicas with the same members agree. Attackers can choose keys that meet at one
//! endpoint, which no fixed hash prevents: `--load-bound` does.

podkit_foundation::choices! {
    /// `--hash`.
    pub enum Hashing {
        /// Maglev's table.
        Maglev = "maglev",
        /// A ring.
        Ketama = "ketama",
        /// The highest score.
        Rendezvous = "rendezvous",
    }
}

/// Slots of a maglev table: a prime, a hundred times what a hundred endpoints need for shares within a percent.
const SLOTS: usize = 65_537;

/// Points on the ring for each unit of weight: libketama has so many for each server.
const POINTS: u64 = 160;

/// Points on the ring at most.
const MAX_POINTS: u64 = 1 << 20;

/// Steps in a key's own order before every member is looked at in turn.
const PROBES: u64 = 64;

/// FNV-1a, 64 bits, mixed: the same everywhere and forever, so that replicas of all versions agree.
pub fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The finaliser of MurmurHash3: every bit depends on every bit.
pub fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A member of a table: its index among the candidates, the hash of its name, its weight.
pub type Entry = (u32, u64, u32);

/// Finds the endpoint of a key. Immutable; workers share it.
#[derive(Debug, Clone)]
pub struct Table {
    entries: Vec<Entry>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The entry of each slot; empty without entries.
    Maglev(Vec<u32>),
    /// Points and their entries, by point.
    Ketama(Vec<(u64, u32)>),
    /// Whether weights differ.
    Rendezvous(bool),
}

impl Table {
    /// Of these members. Who has no weight is left out.
    pub fn new(hashing: Hashing, members: impl IntoIterator<Item = Entry>) -> Self {
        let entries: Vec<Entry> = members
            .into_iter()
            .filter(|(_, _, weight)| *weight > 0)
            .collect();
        let kind = match hashing {
            Hashing::Maglev => Kind::Maglev(maglev(&entries)),
            Hashing::Ketama => Kind::Ketama(ketama(&entries)),
            Hashing::Rendezvous => {
                let first = entries.first().map(|entry| entry.2);
                Kind::Rendezvous(entries.iter().any(|entry| Some(entry.2) != first))
            }
        };
        Self { entries, kind }
    }

    /// The first member in the order of `key` that `accept` takes.
    pub fn find(&self, key: u64, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        match &self.kind {
            Kind::Maglev(slots) => {
                if slots.is_empty() {
                    return None;
                }
                let slot = |probe: u64| {
                    let at = match probe {
                        0 => key,
                        _ => mix(key.wrapping_add(probe.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
                    };
                    slots[(at % SLOTS as u64) as usize]
                };
                let mut members = (0..PROBES).map(|probe| self.entries[slot(probe) as usize].0);
                members
                    .find(|member| accept(*member))
                    .or_else(|| self.any(key, accept))
            }
            Kind::Ketama(points) => {
                let from = points.partition_point(|(point, _)| *point < key);
                let ring = points[from..].iter().chain(&points[..from]);
                let mut members = ring.map(|(_, entry)| self.entries[*entry as usize].0);
                let mut last = None;
                members.find(|member| last.replace(*member) != Some(*member) && accept(*member))
            }
            Kind::Rendezvous(is_weighted) => {
                let entries = self.entries.iter();
                let open = entries.filter(|(member, _, _)| accept(*member));
                let highest = if *is_weighted {
                    let scored = open.map(|entry| (score(key, entry), entry));
                    let highest = scored.max_by(|a, b| a.0.total_cmp(&b.0));
                    highest.map(|(_, entry)| entry)
                } else {
                    // Scores of like weights are in the order of what was drawn.
                    open.max_by_key(|entry| drawn(key, entry))
                };
                highest.map(|entry| entry.0)
            }
        }
    }

    fn any(&self, key: u64, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let count = self.entries.len();
        let from = (key % count.max(1) as u64) as usize;
        let mut members = (0..count).map(|step| self.entries[(from + step) % count].0);
        members.find(|member| accept(*member))
    }
}

/// `-weight / ln(u)`, u in (0, 1) as drawn: the highest wins as often as its weight says.
fn score(key: u64, entry: &Entry) -> f64 {
    let unit = (drawn(key, entry) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(entry.2) / unit.ln()
}

/// 53 bits from the hash of key and name.
fn drawn(key: u64, (_, name, _): &Entry) -> u64 {
    mix(key ^ name.rotate_left(17)) >> 11
}

/// Each entry in its own order of the slots takes the next free one, in turns as often as its weight says.
fn maglev(entries: &[Entry]) -> Vec<u32> {
    if entries.is_empty() {
        return Vec::new();
    }
    let size = SLOTS as u64;
    let most = entries.iter().map(|entry| entry.2).max().unwrap_or(1);
    let mut slots = vec![u32::MAX; SLOTS];
    // Offset, skip, how far it is in its order, and the weight it has not used up.
    let mut state: Vec<(u64, u64, u64, u64)> = entries
        .iter()
        .map(|(_, name, _)| {
            let skip = mix(name ^ 0x5851_f42d_4c95_7f2d) % (size - 1) + 1;
            (name % size, skip, 0, 0)
        })
        .collect();
    let mut left = SLOTS;
    while left > 0 {
        for (at, (offset, skip, next, credit)) in state.iter_mut().enumerate() {
            *credit += u64::from(entries[at].2);
            if *credit < u64::from(most) {
                continue;
            }
            *credit -= u64::from(most);
            loop {
                let slot = ((*offset + *next * *skip) % size) as usize;
                *next += 1;
                if slots[slot] == u32::MAX {
                    slots[slot] = at as u32;
                    break;
                }
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    slots
}

/// Points of each entry, by its weight; when two entries have the same point, the lower name has it.
fn ketama(entries: &[Entry]) -> Vec<(u64, u32)> {
    let whole: u64 = entries.iter().map(|entry| u64::from(entry.2)).sum();
    let scale = (POINTS as f64).min(MAX_POINTS as f64 / whole.max(1) as f64);
    let mut points = Vec::new();
    for (at, (_, name, weight)) in entries.iter().enumerate() {
        let count = ((f64::from(*weight) * scale) as u64).max(1);
        for point in 0..count {
            points.push((mix(name.wrapping_add(mix(point + 1))), at as u32));
        }
    }
    points.sort_unstable_by_key(|(point, at)| (*point, entries[*at as usize].1));
    points.dedup_by_key(|(point, _)| *point);
    points
}
