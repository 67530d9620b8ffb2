//! Which endpoint gets a request: priorities, panic, then a policy (no I/O; loads and randomness are arguments).
//!
//! ```text
//!   candidates ─► levels, one per priority ─► a level by its share ─► policy ─► index of a candidate
//!                 (usable ones, weights)      (spill-over)            p2c, least, round-robin, random, hash
//! ```
//!
//! - *p2c*: the less loaded of two drawn at random (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
//!   2001). Within a constant of the best there is, costs two reads however many endpoints there are, and no herd runs to
//!   the one that looks idle to all workers at once; so it is the default.
//! - *least*: the least loaded of all; those that are alike take turns as in round-robin.
//! - *round-robin*: smooth weighted, as nginx has had it since 1.3: each turn all gain their weight, the richest is taken and pays
//!   the sum; so weights 5, 1, 1 give a a b a c a a.
//! - *random*: by weight.
//! - *hash*: the same key, the same endpoint; see [`Hashing`].
//!
//! Load is compared as requests in flight per weight.

mod hash;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

pub use hash::{Entry, Hashing, Table, fnv, mix};

podkit_foundation::choices! {
    /// `--policy`.
    pub enum Policy {
        /// The less loaded of two at random.
        P2c = "p2c",
        /// The least loaded.
        Least = "least",
        /// In turn, by weight.
        RoundRobin = "round-robin",
        /// At random, by weight.
        Random = "random",
        /// By the key of the request.
        Hash = "hash",
    }
}

/// How endpoints are picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The policy.
    pub policy: Policy,
    /// For `hash`: how keys find their endpoint.
    pub hashing: Hashing,
    /// For `hash`: an endpoint takes at most so many times its fair share of what is in flight; None for no bound.
    pub load_bound: Option<f64>,
    /// When fewer than this part of all endpoints are usable, all are used (0.0 to 1.0). None usable is always too few.
    pub panic_share: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            policy: Policy::P2c,
            hashing: Hashing::Maglev,
            load_bound: None,
            panic_share: 0.0,
        }
    }
}

/// An endpoint, as far as picking goes. Its index in the list is its name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its share, at any scale; 0: never picked.
    pub weight: u32,
    /// Lower is used first.
    pub priority: u16,
    /// Ready, not ejected.
    pub usable: bool,
    /// Takes nothing new, whatever else is true (drained).
    pub drained: bool,
}

/// A level that is not wholly usable keeps all its load until this share of it is lost: 1 / 1.4, Envoy's
/// "overprovisioning factor". Below that the rest of the load spills over to the next level.
const OVERPROVISION: f64 = 1.4;

/// Shares of levels are counted in these.
const WHOLE: u64 = 1 << 32;

/// A worker's state of picking, made anew when the candidates change.
#[derive(Debug)]
pub struct Balance {
    rules: Rules,
    levels: Vec<Level>,
    panic: bool,
}

/// The candidates of one priority.
#[derive(Debug)]
struct Level {
    priority: u16,
    /// Of all requests, up to and including this level; of [`WHOLE`].
    upto: u64,
    members: Vec<u32>,
    weights: Vec<u64>,
    /// Sums of the weights up to and including each.
    sums: Vec<u64>,
    /// The balances of round-robin.
    credit: Vec<i64>,
}

/// What is asked of a pick.
pub struct Ask<'a> {
    /// The hash of the request's key; without one `hash` does as `p2c`.
    pub key: Option<u64>,
    /// Requests in flight at a candidate.
    pub load: &'a dyn Fn(u32) -> u32,
    /// It was tried for this request and failed.
    pub tried: &'a dyn Fn(u32) -> bool,
    /// No candidate was tried yet.
    pub fresh: bool,
}

impl Balance {
    /// For these candidates.
    pub fn new(rules: Rules, candidates: &[Candidate]) -> Self {
        let open = |one: &Candidate| one.weight > 0 && !one.drained;
        let all = candidates.iter().filter(|one| open(one)).count();
        let usable = candidates
            .iter()
            .filter(|one| open(one) && one.usable)
            .count();
        let panic = all > 0 && (usable == 0 || (usable as f64) < rules.panic_share * all as f64);
        let mut priorities: Vec<u16> = candidates
            .iter()
            .filter(|one| open(one))
            .map(|one| one.priority)
            .collect();
        priorities.sort_unstable();
        priorities.dedup();
        let mut levels: Vec<Level> = Vec::new();
        let mut given = 0;
        for priority in priorities {
            let (mut level, mut whole) = (Level::new(priority), 0_u64);
            for (at, one) in candidates.iter().enumerate() {
                if !open(one) || one.priority != priority {
                    continue;
                }
                whole += u64::from(one.weight);
                if one.usable || panic {
                    level.add(at as u32, one.weight);
                }
            }
            let there = level.sums.last().copied().unwrap_or(0) as f64 / whole.max(1) as f64;
            let share = ((there * OVERPROVISION).min(1.0) * WHOLE as f64) as u64;
            given = (given + share.min(WHOLE - given)).min(WHOLE);
            level.upto = given;
            if !level.members.is_empty() {
                levels.push(level);
            }
        }
        // What no level can take is shared as the levels' shares are.
        if given > 0 && given < WHOLE {
            for level in &mut levels {
                level.upto = ((level.upto as f64 / given as f64) * WHOLE as f64) as u64;
            }
        }
        if let Some(last) = levels.last_mut() {
            last.upto = WHOLE;
        }
        Self {
            rules,
            levels,
            panic,
        }
    }

    /// All are used since too few are usable.
    pub fn panics(&self) -> bool {
        self.panic
    }

    /// A candidate; None when there is none that was not tried. `tables`: by priority, for `hash`. `random` is asked for
    /// numbers as needed.
    pub fn pick(
        &mut self,
        ask: &Ask<'_>,
        tables: &[(u16, Table)],
        random: &mut dyn FnMut() -> u64,
    ) -> Option<u32> {
        let at = match self.levels.len() {
            0 => return None,
            1 => 0,
            _ => {
                let draw = match (self.rules.policy, ask.key) {
                    (Policy::Hash, Some(key)) => mix(key ^ 0x9e37_79b9_7f4a_7c15),
                    _ => random(),
                } % WHOLE;
                self.levels.partition_point(|level| level.upto <= draw)
            }
        };
        let count = self.levels.len();
        let rules = self.rules;
        let mut order = std::iter::once(at).chain((0..count).filter(|other| *other != at));
        order.find_map(|at| self.levels[at].pick(rules, ask, tables, random))
    }
}

impl Level {
    fn new(priority: u16) -> Self {
        Self {
            priority,
            upto: 0,
            members: Vec::new(),
            weights: Vec::new(),
            sums: Vec::new(),
            credit: Vec::new(),
        }
    }

    fn add(&mut self, member: u32, weight: u32) {
        let sum = self.sums.last().copied().unwrap_or(0) + u64::from(weight);
        self.members.push(member);
        self.weights.push(weight.into());
        self.sums.push(sum);
        self.credit.push(0);
    }

    fn pick(
        &mut self,
        rules: Rules,
        ask: &Ask<'_>,
        tables: &[(u16, Table)],
        random: &mut dyn FnMut() -> u64,
    ) -> Option<u32> {
        if let [only] = self.members[..] {
            return (ask.fresh || !(ask.tried)(only)).then_some(only);
        }
        let position = match (rules.policy, ask.key) {
            (Policy::Hash, Some(key)) => return self.by_key(rules, key, ask, tables),
            (Policy::RoundRobin, _) => {
                self.in_turn(|level, at| ask.fresh || !(ask.tried)(level.members[at]))
            }
            (Policy::Random, _) if ask.fresh => Some(self.draw(random())),
            (Policy::P2c | Policy::Hash, _) if ask.fresh => Some(self.of_two(ask, random)),
            // One that was tried is left out: the whole list is looked at, which is rare.
            (Policy::Random | Policy::P2c | Policy::Hash | Policy::Least, _) => self.least(ask),
        };
        position.map(|at| self.members[at])
    }

    /// By weight.
    fn draw(&self, random: u64) -> usize {
        let whole = self.sums.last().copied().unwrap_or(1).max(1);
        let at = random % whole;
        self.sums.partition_point(|sum| *sum <= at)
    }

    fn of_two(&self, ask: &Ask<'_>, random: &mut dyn FnMut() -> u64) -> usize {
        let first = self.draw(random());
        let mut second = self.draw(random());
        if second == first {
            // Drawn once more, and then the next one: a heavy one must not meet itself alone.
            second = self.draw(random());
        }
        if second == first {
            second = (first + 1) % self.members.len();
        }
        match self.compare(ask, second, first) {
            Ordering::Less => second,
            Ordering::Equal | Ordering::Greater => first,
        }
    }

    /// Compares what is in flight per weight. Without this request: where nothing is in flight all are equal, and what decides
    /// then (the draw, the turn) is fair by weight; with it the heaviest would win every time.
    fn compare(&self, ask: &Ask<'_>, a: usize, b: usize) -> Ordering {
        let load = |at: usize| u64::from((ask.load)(self.members[at]));
        (load(a) * self.weights[b]).cmp(&(load(b) * self.weights[a]))
    }

    /// The least loaded; those that are alike take turns by weight.
    fn least(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let open = |one: u32| ask.fresh || !(ask.tried)(one);
        let all = (0..self.members.len()).filter(|at| open(self.members[*at]));
        let least = all.min_by(|a, b| self.compare(ask, *a, *b))?;
        self.in_turn(|level, at| {
            open(level.members[at]) && level.compare(ask, at, least) == Ordering::Equal
        })
    }

    /// Smooth weighted round-robin among those that `open` accepts.
    fn in_turn(&mut self, open: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let (mut best, mut whole): (Option<usize>, i64) = (None, 0);
        for at in 0..self.members.len() {
            if !open(self, at) {
                continue;
            }
            let weight = i64::try_from(self.weights[at]).unwrap_or(i64::MAX);
            whole += weight;
            self.credit[at] += weight;
            if best.is_none_or(|best| self.credit[at] > self.credit[best]) {
                best = Some(at);
            }
        }
        let best = best?;
        self.credit[best] -= whole;
        Some(best)
    }

    /// The key's endpoint, or the next in the key's own order that is usable, was not tried, and has room.
    fn by_key(
        &self,
        rules: Rules,
        key: u64,
        ask: &Ask<'_>,
        tables: &[(u16, Table)],
    ) -> Option<u32> {
        let at = |member: u32| self.members.binary_search(&member).ok();
        let open = |member: u32| at(member).is_some() && (ask.fresh || !(ask.tried)(member));
        let (_, table) = tables.iter().find(|(of, _)| *of == self.priority)?;
        let Some(bound) = rules.load_bound else {
            return table.find(key, open);
        };
        // Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018).
        let total: u64 = self
            .members
            .iter()
            .map(|one| u64::from((ask.load)(*one)))
            .sum();
        let whole = self.sums.last().copied().unwrap_or(1).max(1);
        let has_room = |member: u32| {
            let Some(at) = at(member) else { return false };
            let fair = (total + 1) as f64 * self.weights[at] as f64 / whole as f64;
            f64::from((ask.load)(member)) + 1.0 <= (bound * fair).ceil()
        };
        table
            .find(key, |member| open(member) && has_room(member))
            .or_else(|| table.find(key, open))
    }
}
