//! From look to look: who came, who went, who became something else, what each spent, and what nobody saw.
//!
//! Sans-IO: readings, facts and the clock come in as arguments; the result is a look in the [`Ring`]. Facts cost a
//! few reads a process, and reading a command line may wait for as long as its process holds its memory map, so that
//! [`Census::asks`] says first whose are wanted: few, and they are read while nobody waits for this structure.
//!
//! **CPU that no look saw being spent.** A process that starts and ends between two looks leaves a trace: the
//! parent that waits for it inherits its CPU time (`cutime`). What a parent's account grows by, less what looks
//! had already seen of the children that went, is time that short-lived children spent. It is shown beside the
//! parent's own and counted to its container: a shell loop around `grep` shows the CPU that it costs.
//!
//! **How many they were.** Process ids are handed out in order, so that the distance between the last id handed
//! out now and then (`ns_last_pid`, per PID namespace) is how many processes and threads were made; less those
//! seen, so many came and went. A thread takes an id as well, so that it can't be told whether a short-lived one
//! was a process or a thread. `/proc/stat`'s count of forks was rejected: it is the whole machine's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::container::{KERNEL, Names, POD, PodState};
use super::ring::{Life, Look, Now, Ring};
use super::stat::{Comm, Reading};

/// What is known of a process besides its reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The command line, secrets masked; empty when it has none or it can't be read.
    pub(crate) command: String,
    /// The name of the user it runs as, or the number.
    pub(crate) user: Option<Arc<str>>,
    /// The container's name by its cgroup.
    pub(crate) container: Option<String>,
}

/// When a look is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instant {
    /// Milliseconds since 1970.
    pub(crate) wall_ms: u64,
    /// Milliseconds since boot, suspended time included.
    pub(crate) boot_ms: u64,
}

/// Facts are read again every so many looks, a few processes each time: titles and users change without a sign.
const REFRESH_LOOKS: u64 = 30;

/// The lowest id that is handed out after the ids have wrapped (`RESERVED_PIDS` in the kernel's kernel/pid.c).
const FIRST_PID_AGAIN: u32 = 300;

/// Containers remembered at once; past it they share one name.
const CONTAINERS_MAX: usize = 128;

/// A process as the last look left it.
#[derive(Debug, Clone, Copy)]
struct Known {
    reading: Reading,
    /// Its number in the ring.
    slot: u32,
    container: u16,
    /// The pod state said so, which a cgroup can't overrule.
    by_state: bool,
    /// The look that saw it first.
    since: u64,
}

/// A container's first process, as the pod state names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Root {
    name: String,
    pid: u32,
    /// When that process started, once a look has seen it: its id may come again for another.
    start: Option<u64>,
}

/// All processes, and their history.
#[derive(Debug)]
pub(crate) struct Census {
    known: Vec<Known>,
    names: Names,
    ring: Ring,
    roots: Vec<Root>,
    last_pid: Option<u32>,
    looks: u64,
    missed_total: u64,
    started_total: u64,
    ended_total: u64,
}

/// The ids handed out between two looks.
#[derive(Debug, Clone, Copy)]
struct Handed {
    after: u32,
    last: u32,
    max: Option<u32>,
}

impl Handed {
    /// How many, or None when they wrapped and it isn't known where.
    fn count(self) -> Option<u32> {
        if self.last >= self.after {
            return Some(self.last - self.after);
        }
        let max = self.max.filter(|max| *max > self.after)?;
        Some((max - 1 - self.after) + (self.last + 1).saturating_sub(FIRST_PID_AGAIN))
    }

    fn contains(self, pid: u32) -> bool {
        if self.last >= self.after {
            return pid > self.after && pid <= self.last;
        }
        pid > self.after || (FIRST_PID_AGAIN..=self.last).contains(&pid)
    }
}

impl Census {
    /// Nothing seen yet; `ring` takes what will be.
    pub(crate) fn new(ring: Ring) -> Self {
        Self {
            known: Vec::new(),
            names: Names::new(CONTAINERS_MAX),
            ring,
            roots: Vec::new(),
            last_pid: None,
            looks: 0,
            missed_total: 0,
            started_total: 0,
            ended_total: 0,
        }
    }

    /// Takes note of a pod state that has changed. Processes that no earlier state claimed are asked again.
    pub(crate) fn pod_state(&mut self, state: &PodState) {
        let old = std::mem::take(&mut self.roots);
        for container in state
            .containers
            .iter()
            .filter(|c| c.pid > 0 && !c.name.is_empty())
        {
            let same = old
                .iter()
                .find(|root| root.pid == container.pid && root.name == container.name);
            let fresh = || Root {
                name: container.name.clone(),
                pid: container.pid,
                start: None,
            };
            self.roots.push(same.cloned().unwrap_or_else(fresh));
        }
    }

    /// The processes whose facts the next [`Census::look`] wants, in the order of their ids.
    pub(crate) fn asks(&self, readings: &[Reading]) -> Vec<u32> {
        let ask = |(old, reading): &(Option<&Known>, &Reading)| match old {
            None => true,
            Some(old) => self.asks_again(old, reading),
        };
        pair(&self.known, readings)
            .into_iter()
            .filter(ask)
            .map(|(_, reading)| reading.pid)
            .collect()
    }

    fn asks_again(&self, old: &Known, reading: &Reading) -> bool {
        let looks = self.looks + 1;
        // A child may be seen between its fork and its exec: ask again at the next look.
        let unsettled = looks == old.since + 1 && old.since > 1;
        let due = (looks + u64::from(reading.pid)).is_multiple_of(REFRESH_LOOKS);
        // A zombie has no command line any more; what it had still tells more.
        (executed(&old.reading, reading) || unsettled || due) && reading.state != b'Z'
    }

    /// Takes a look. `readings` and `facts` are in the order of their ids; `last_pid` was read before them, `pid_max` is
    /// where ids start again, `skipped` how many processes were left out.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        readings: &[Reading],
        facts: &mut [(u32, Facts)],
        (last_pid, pid_max): (Option<u32>, Option<u32>),
        skipped: usize,
    ) {
        let first = self.looks == 0;
        self.looks += 1;
        let before = std::mem::take(&mut self.known);
        let mut look = Look {
            number: self.looks,
            wall_ms: now.wall_ms,
            boot_ms: now.boot_ms,
            skipped: u32::try_from(skipped).unwrap_or(u32::MAX),
            ..Look::default()
        };
        if let Some((last, _)) = self.ring.latest() {
            look.elapsed_ms =
                u32::try_from(now.boot_ms.saturating_sub(last.boot_ms)).unwrap_or(u32::MAX);
        }

        let pairs = pair(&before, readings);
        let gone: Vec<&Known> = {
            let mut living = pairs.iter().filter_map(|(old, _)| *old).peekable();
            before
                .iter()
                .filter(|known| living.next_if(|old| std::ptr::eq(*old, *known)).is_none())
                .collect()
        };
        let short = short_lived(&before, &pairs, &gone);
        let handed = self.last_pid.zip(last_pid).map(|(after, last)| Handed {
            after,
            last,
            max: pid_max,
        });
        look.missed = handed
            .and_then(|handed| missed(handed, &before, &pairs))
            .unwrap_or(0);
        look.ended = gone.len() as u32;
        if !first {
            look.started = pairs.iter().filter(|(old, _)| old.is_none()).count() as u32;
        }

        let rebound = self.bind_roots(readings);
        let mut next: Vec<(u32, Now)> = Vec::with_capacity(readings.len());
        let mut known: Vec<Known> = Vec::with_capacity(readings.len());
        for (&(old, reading), &short) in pairs.iter().zip(&short) {
            let at = facts.binary_search_by_key(&reading.pid, |(pid, _)| *pid);
            let facts = at.ok().map(|at| std::mem::take(&mut facts[at].1));
            let claimed = |census: &Self| census.claimed(reading, readings, &before);
            let entry = match old {
                None => {
                    let claimed = claimed(self);
                    self.welcome(reading, facts.unwrap_or_default(), claimed)
                }
                Some(old) => {
                    let adopted = !old.by_state && old.reading.ppid != reading.ppid;
                    let claimed = if rebound || adopted {
                        claimed(self)
                    } else {
                        None
                    };
                    self.again(old, reading, facts, claimed)
                }
            };
            let spent = reading.ticks - old.map_or(0, |old| old.reading.ticks.min(reading.ticks));
            // At the first look nobody knows when what a process has spent was spent; its container owes it anyway.
            let (ticks, short_now) = if first { (0, 0) } else { (spent, short) };
            self.names.get_mut(entry.container).ticks += spent + short;
            let whole = |ticks: u64| u32::try_from(ticks).unwrap_or(u32::MAX);
            next.push((
                entry.slot,
                Now {
                    total: reading.ticks,
                    ticks: whole(ticks),
                    short: whole(short_now),
                    rss: reading.rss,
                    threads: reading.threads,
                    state: reading.state,
                },
            ));
            known.push(entry);
        }
        self.known = known;
        self.last_pid = last_pid;
        self.missed_total += u64::from(look.missed);
        self.started_total += u64::from(look.started);
        self.ended_total += u64::from(look.ended);
        let Self { ring, names, .. } = self;
        ring.push(look, &mut next, |life| names.release(life.container));
    }

    /// Finds the processes that the pod state names. True when one was found that wasn't known before.
    fn bind_roots(&mut self, readings: &[Reading]) -> bool {
        let mut rebound = false;
        for root in self.roots.iter_mut().filter(|root| root.start.is_none()) {
            if let Ok(at) = readings.binary_search_by_key(&root.pid, |reading| reading.pid) {
                root.start = Some(readings[at].start);
                rebound = true;
            }
        }
        rebound
    }

    /// A process that is seen for the first time; `claimed` is the container that the pod state gives it.
    fn welcome(&mut self, reading: &Reading, facts: Facts, claimed: Option<String>) -> Known {
        let by_state = claimed.is_some();
        let otherwise = if reading.kernel { KERNEL } else { POD };
        let container = claimed
            .or(facts.container)
            .unwrap_or_else(|| otherwise.to_owned());
        let container = self.names.hold(&container);
        let slot = self.ring.add(Life {
            pid: reading.pid,
            ppid: reading.ppid,
            start: reading.start,
            container,
            user: facts.user.unwrap_or_else(|| Arc::from("?")),
            name: lossy(&reading.comm),
            command: facts.command.into(),
        });
        Known {
            reading: *reading,
            slot,
            container,
            by_state,
            since: self.looks,
        }
    }

    /// A process that was there before: the same, or something else by now.
    fn again(
        &mut self,
        old: &Known,
        reading: &Reading,
        facts: Option<Facts>,
        claimed: Option<String>,
    ) -> Known {
        let mut entry = Known {
            reading: *reading,
            ..*old
        };
        if facts.is_none() && claimed.is_none() && old.reading.ppid == reading.ppid {
            return entry;
        }
        let Some(life) = self.ring.life(old.slot).cloned() else {
            return entry;
        };
        let mut fresh = Life {
            ppid: reading.ppid,
            ..life.clone()
        };
        let mut by_cgroup = None;
        if let Some(facts) = facts {
            fresh.name = lossy(&reading.comm);
            fresh.user = facts.user.unwrap_or(fresh.user);
            if !facts.command.is_empty() || executed(&old.reading, reading) {
                fresh.command = facts.command.into();
            }
            by_cgroup = facts.container;
        }
        entry.by_state |= claimed.is_some();
        let moved = claimed.or(if entry.by_state { None } else { by_cgroup });
        let moved = moved.filter(|name| self.names.get(old.container).name != *name);
        if fresh == life && moved.is_none() {
            return entry;
        }
        // Texts that are the same are kept once.
        if fresh.command == life.command {
            fresh.command = life.command;
        }
        if fresh.name == life.name {
            fresh.name = life.name;
        }
        fresh.container = match moved {
            Some(name) => self.names.hold(&name),
            // The new life holds the number as well as the old one does.
            None => self.names.hold_again(old.container),
        };
        entry.container = fresh.container;
        entry.slot = self.ring.add(fresh);
        entry
    }

    /// The container that the pod state gives this process: its own, or its nearest ancestor's.
    fn claimed(&self, reading: &Reading, readings: &[Reading], before: &[Known]) -> Option<String> {
        let mut at = *reading;
        for _ in 0..64 {
            let is_root = |root: &&Root| root.pid == at.pid && root.start == Some(at.start);
            if let Some(root) = self.roots.iter().find(is_root) {
                return Some(root.name.clone());
            }
            if let Ok(known) = before.binary_search_by_key(&at.pid, |known| known.reading.pid)
                && before[known].by_state
                && before[known].reading.start == at.start
            {
                return Some(self.names.get(before[known].container).name.clone());
            }
            at = readings[readings
                .binary_search_by_key(&at.ppid, |reading| reading.pid)
                .ok()?];
        }
        None
    }

    /// The history.
    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The containers.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Processes and threads that came and went unseen, processes seen starting, and processes seen gone,
    /// all since the first look.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        (self.missed_total, self.started_total, self.ended_total)
    }

    /// Each container by name with the process in it that started first: id and start.
    pub(crate) fn firsts(&self) -> Vec<(String, u32, u64)> {
        let mut firsts: BTreeMap<u16, (u64, u32)> = BTreeMap::new();
        for known in self
            .known
            .iter()
            .filter(|known| known.reading.state != b'Z')
        {
            let this = (known.reading.start, known.reading.pid);
            firsts
                .entry(known.container)
                .and_modify(|first| *first = this.min(*first))
                .or_insert(this);
        }
        let name = |number| self.names.get(number).name.clone();
        firsts
            .into_iter()
            .map(|(number, (start, pid))| (name(number), pid, start))
            .collect()
    }

    /// When the process that goes by this id now started, in clock ticks since boot.
    pub(crate) fn start_of(&self, pid: u32) -> Option<u64> {
        let at = self
            .known
            .binary_search_by_key(&pid, |known| known.reading.pid)
            .ok()?;
        Some(self.known[at].reading.start)
    }

    /// Whether the kernel tells which process id was handed out last.
    pub(crate) fn knows_missed(&self) -> bool {
        self.last_pid.is_some()
    }
}

/// Pairs each reading with the same process before. Both are in the order of their ids.
fn pair<'a>(before: &'a [Known], readings: &'a [Reading]) -> Vec<(Option<&'a Known>, &'a Reading)> {
    let mut old = before.iter().peekable();
    let mut pairs = Vec::with_capacity(readings.len());
    for reading in readings {
        while old
            .next_if(|known| known.reading.pid < reading.pid)
            .is_some()
        {}
        let same = old.next_if(|known| known.reading.pid == reading.pid);
        pairs.push((
            same.filter(|known| known.reading.start == reading.start),
            reading,
        ));
    }
    pairs
}

/// For each pair, the CPU time (ticks) of children reaped since the look before that no look had seen.
fn short_lived(
    before: &[Known],
    pairs: &[(Option<&Known>, &Reading)],
    gone: &[&Known],
) -> Vec<u64> {
    // What looks had seen of those that went, owed by the nearest ancestor that is still there.
    let mut seen = vec![0u64; pairs.len()];
    let index = |pid: u32| {
        pairs
            .binary_search_by_key(&pid, |(_, reading)| reading.pid)
            .ok()
    };
    let living = |pid: u32| index(pid).filter(|&at| pairs[at].0.is_some());
    for known in gone {
        let mut parent = known.reading.ppid;
        let mut heir = None;
        for _ in 0..64 {
            heir = living(parent);
            let Ok(up) = before.binary_search_by_key(&parent, |known| known.reading.pid) else {
                break;
            };
            if heir.is_some() {
                break;
            }
            parent = before[up].reading.ppid;
        }
        if let Some(heir) = heir {
            seen[heir] += known.reading.ticks + known.reading.children;
        }
    }
    let mut unpaid = 0;
    let mut short: Vec<u64> = pairs
        .iter()
        .zip(&seen)
        .map(|((old, reading), seen)| {
            let grown =
                reading.children - old.map_or(0, |old| old.reading.children.min(reading.children));
            unpaid += seen.saturating_sub(grown);
            grown.saturating_sub(*seen)
        })
        .collect();
    // Orphans are waited for by the namespace's first process: what their ancestors did not inherit, it did.
    if let Some(first) = index(1) {
        short[first] = short[first].saturating_sub(unpaid);
    }
    short
}

/// How many of the ids handed out belong to none that was seen: processes and threads that came and went.
fn missed(handed: Handed, before: &[Known], pairs: &[(Option<&Known>, &Reading)]) -> Option<u32> {
    let count = handed.count()?;
    let mut seen = 0u32;
    for (old, reading) in pairs {
        seen += u32::from(handed.contains(reading.pid));
        // A new process's first thread has the process's id; every further thread took one.
        let threads = old.map_or(1, |old| old.reading.threads.max(1));
        seen = seen.saturating_add(reading.threads.saturating_sub(threads));
    }
    // Some were seen by the last look after its count was read, and are gone now.
    let still = |pid: u32| {
        pairs
            .binary_search_by_key(&pid, |(_, reading)| reading.pid)
            .is_ok()
    };
    let then = before
        .iter()
        .filter(|known| handed.contains(known.reading.pid) && !still(known.reading.pid));
    Some(
        count
            .saturating_sub(seen)
            .saturating_sub(then.count() as u32),
    )
}

/// Whether it has become another program, or another name, since.
fn executed(was: &Reading, is: &Reading) -> bool {
    was.comm != is.comm || was.exec != is.exec
}

fn lossy(comm: &Comm) -> Arc<str> {
    let text = String::from_utf8_lossy(comm.as_bytes());
    if text.contains(char::is_control) {
        return text.replace(char::is_control, " ").into();
    }
    text.into()
}
