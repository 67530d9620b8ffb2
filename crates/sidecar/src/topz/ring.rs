//! The history: every look of the last minutes, in a few bytes per process and look.
//!
//! A process that idles costs nothing, one that works four to six bytes a look: a look is kept as what changed
//! since the one before (varints, see [`Change`]), and what never changes (pid, command, container) is in a
//! table of lives that looks refer to by number.
//!
//! ```text
//!   base ──▶ look ──▶ look ──▶ … ──▶ look ═ now        oldest on the left
//!   (state)  (changes)               (changes)  (state)
//! ```
//!
//! The oldest look is dropped by applying it to `base`. A view of the past is `base` with the looks up to then
//! applied: reading costs a walk, a few milliseconds at worst, so that the write, once a second for ever, costs
//! next to nothing. A table of columns with fixed widths was rejected: it is three times as big for a busy pod
//! and fifty times for an idle one. Compressing would cost more CPU than the scan.
//!
//! Bounds: the time span, and the memory. When memory is short the oldest looks go first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

/// What stays the same for as long as it is in the table; an exec or a new parent makes another life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    /// The process id.
    pub(crate) pid: u32,
    /// Its parent's.
    pub(crate) ppid: u32,
    /// When it started, in clock ticks since boot.
    pub(crate) start: u64,
    /// The number of its container.
    pub(crate) container: u16,
    /// The user it runs as: the name in its own root's `/etc/passwd`, else the number.
    pub(crate) user: Arc<str>,
    /// Its short name.
    pub(crate) name: Arc<str>,
    /// Its command line, secrets masked.
    pub(crate) command: Arc<str>,
}

impl Life {
    fn bytes(&self) -> usize {
        // Two counters before the text of an Arc.
        self.name.len() + self.command.len() + 32
    }
}

/// What a look says of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// CPU time of its own since it started, in clock ticks.
    pub(crate) total: u64,
    /// CPU time of its own since the look before, in clock ticks.
    pub(crate) ticks: u32,
    /// CPU time of children that it reaped since the look before and that no look had seen spend it.
    pub(crate) short: u32,
    /// Resident memory in pages.
    pub(crate) rss: u32,
    /// Threads.
    pub(crate) threads: u32,
    /// The state's letter.
    pub(crate) state: u8,
}

/// What a look says of all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Its number, counted from 1.
    pub(crate) number: u64,
    /// When it was, in milliseconds since 1970.
    pub(crate) wall_ms: u64,
    /// When it was, in milliseconds since boot.
    pub(crate) boot_ms: u64,
    /// Milliseconds since the look before; 0 for the first.
    pub(crate) elapsed_ms: u32,
    /// Processes and threads that came and went since the look before, unseen.
    pub(crate) missed: u32,
    /// Processes that were seen for the first time.
    pub(crate) started: u32,
    /// Processes that had gone.
    pub(crate) ended: u32,
    /// Processes that were there and beyond the bound on how many are watched.
    pub(crate) skipped: u32,
}

/// The processes at one look: for each number of the table what was last said of it, None when it isn't alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    slots: Vec<Option<Now>>,
}

impl State {
    /// The living, with their numbers.
    pub(crate) fn living(&self) -> impl Iterator<Item = (u32, &Now)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, now)| Some((slot as u32, now.as_ref()?)))
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Now> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn set(&mut self, slot: u32, now: Option<Now>) {
        let slot = slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, None);
        }
        self.slots[slot] = now;
    }

    /// Before a look is applied: what was spent since the look before starts from nothing again.
    fn rest(&mut self) {
        for now in self.slots.iter_mut().flatten() {
            now.ticks = 0;
            now.short = 0;
        }
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Now>>()
    }

    /// Applies one look's changes.
    fn apply(&mut self, changes: &[u8], mut ended: impl FnMut(u32)) {
        self.rest();
        let mut rest = changes;
        let mut slot = 0;
        while let Some(change) = Change::read(&mut rest, &mut slot) {
            match change {
                Change::Enter(now) => self.set(slot, Some(now)),
                Change::Leave => {
                    self.set(slot, None);
                    ended(slot);
                }
                Change::Differ {
                    ticks,
                    short,
                    rss,
                    threads,
                    state,
                } => {
                    if let Some(Some(now)) = self.slots.get_mut(slot as usize) {
                        now.ticks = ticks;
                        now.short = short;
                        now.total += u64::from(ticks);
                        now.rss = now.rss.wrapping_add_signed(rss);
                        now.threads = now.threads.wrapping_add_signed(threads);
                        now.state = state.unwrap_or(now.state);
                    }
                }
            }
        }
    }
}

/// One process's part of a look. Written as a varint of (distance to the number before, doubled twice, plus the
/// kind), then what the kind calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Enter(Now),
    Leave,
    Differ {
        ticks: u32,
        short: u32,
        rss: i32,
        threads: i32,
        state: Option<u8>,
    },
}

const DIFFER: u64 = 0;
const ENTER: u64 = 1;
const LEAVE: u64 = 2;

const HAS_TICKS: u8 = 1;
const HAS_SHORT: u8 = 2;
const HAS_RSS: u8 = 4;
const HAS_THREADS: u8 = 8;
const HAS_STATE: u8 = 16;

impl Change {
    fn between(before: &Now, after: &Now) -> Option<Self> {
        let change = Self::Differ {
            ticks: after.ticks,
            short: after.short,
            rss: after.rss.wrapping_sub(before.rss) as i32,
            threads: after.threads.wrapping_sub(before.threads) as i32,
            state: (after.state != before.state).then_some(after.state),
        };
        let same = Self::Differ {
            ticks: 0,
            short: 0,
            rss: 0,
            threads: 0,
            state: None,
        };
        (change != same).then_some(change)
    }

    fn write(self, out: &mut Vec<u8>, distance: u32) {
        let mut head = |kind| put(out, u64::from(distance) << 2 | kind);
        match self {
            Self::Leave => head(LEAVE),
            Self::Enter(now) => {
                head(ENTER);
                put(out, now.total);
                put(out, now.ticks.into());
                put(out, now.short.into());
                put(out, now.rss.into());
                put(out, now.threads.into());
                out.push(now.state);
            }
            Self::Differ {
                ticks,
                short,
                rss,
                threads,
                state,
            } => {
                head(DIFFER);
                let mark = out.len();
                out.push(0);
                let mut has = 0;
                if ticks != 0 {
                    has |= HAS_TICKS;
                    put(out, ticks.into());
                }
                if short != 0 {
                    has |= HAS_SHORT;
                    put(out, short.into());
                }
                if rss != 0 {
                    has |= HAS_RSS;
                    put(out, zigzag(rss));
                }
                if threads != 0 {
                    has |= HAS_THREADS;
                    put(out, zigzag(threads));
                }
                if let Some(state) = state {
                    has |= HAS_STATE;
                    out.push(state);
                }
                out[mark] = has;
            }
        }
    }

    /// The next change, and in `slot` whom it is about. None at the end.
    fn read(bytes: &mut &[u8], slot: &mut u32) -> Option<Self> {
        let head = take(bytes)?;
        *slot = slot.wrapping_add((head >> 2) as u32);
        Some(match head & 3 {
            LEAVE => Self::Leave,
            ENTER => Self::Enter(Now {
                total: take(bytes)?,
                ticks: take(bytes)? as u32,
                short: take(bytes)? as u32,
                rss: take(bytes)? as u32,
                threads: take(bytes)? as u32,
                state: take_byte(bytes)?,
            }),
            _ => {
                let has = take_byte(bytes)?;
                let mut number = |bit| if has & bit != 0 { take(bytes) } else { Some(0) };
                Self::Differ {
                    ticks: number(HAS_TICKS)? as u32,
                    short: number(HAS_SHORT)? as u32,
                    rss: unzigzag(number(HAS_RSS)?),
                    threads: unzigzag(number(HAS_THREADS)?),
                    state: if has & HAS_STATE != 0 {
                        Some(take_byte(bytes)?)
                    } else {
                        None
                    },
                }
            }
        })
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// Small numbers of either sign as small numbers: 0, -1, 1, -2, … become 0, 1, 2, 3, …
fn zigzag(value: i32) -> u64 {
    u64::from((value << 1 ^ value >> 31) as u32)
}

fn unzigzag(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

/// The ring of looks.
#[derive(Debug)]
pub(crate) struct Ring {
    lives: Vec<Option<Life>>,
    /// Numbers to use again, lowest first, so that a burst's high ones fall out of use and the table can shrink.
    free: BinaryHeap<Reverse<u32>>,
    life_bytes: usize,
    base: State,
    now: State,
    looks: VecDeque<(Look, Box<[u8]>)>,
    look_bytes: usize,
    span_ms: u64,
    limit: usize,
    scratch: Vec<u8>,
    /// The oldest look went because memory was short, not because it was old.
    cut: bool,
}

impl Ring {
    /// An empty ring that reaches `span_ms` back and takes at most `limit` bytes.
    pub(crate) fn new(span_ms: u64, limit: usize) -> Self {
        Self {
            lives: Vec::new(),
            free: BinaryHeap::new(),
            life_bytes: 0,
            base: State::default(),
            now: State::default(),
            looks: VecDeque::new(),
            look_bytes: 0,
            span_ms,
            limit,
            scratch: Vec::new(),
            cut: false,
        }
    }

    /// A number for a life that is about to enter.
    pub(crate) fn add(&mut self, life: Life) -> u32 {
        self.life_bytes += life.bytes();
        if let Some(Reverse(slot)) = self.free.pop() {
            self.lives[slot as usize] = Some(life);
            return slot;
        }
        self.lives.push(Some(life));
        (self.lives.len() - 1) as u32
    }

    /// Who goes by this number.
    pub(crate) fn life(&self, slot: u32) -> Option<&Life> {
        self.lives.get(slot as usize)?.as_ref()
    }

    /// Adds a look: `next` has an entry for each living process, by number, in any order without repetition. Calls
    /// `forgotten` with every life that neither a process nor the history needs any more.
    pub(crate) fn push(
        &mut self,
        look: Look,
        next: &mut [(u32, Now)],
        forgotten: impl FnMut(Life),
    ) {
        next.sort_unstable_by_key(|(slot, _)| *slot);
        self.scratch.clear();
        let mut last = 0;
        let mut write = |out: &mut Vec<u8>, slot: u32, change: Change| {
            change.write(out, slot - last);
            last = slot;
        };
        let mut coming = next.iter().peekable();
        for slot in 0..self.lives.len() as u32 {
            let after = coming
                .next_if(|(number, _)| *number == slot)
                .map(|(_, now)| now);
            match (self.now.get(slot), after) {
                (Some(before), Some(after)) => {
                    if let Some(change) = Change::between(before, after) {
                        write(&mut self.scratch, slot, change);
                    }
                }
                (None, Some(after)) => write(&mut self.scratch, slot, Change::Enter(*after)),
                (Some(_), None) => write(&mut self.scratch, slot, Change::Leave),
                (None, None) => {}
            }
        }
        let changes: Box<[u8]> = self.scratch.as_slice().into();
        self.now.apply(&changes, |_| {});
        self.look_bytes += changes.len() + size_of::<(Look, Box<[u8]>)>();
        self.looks.push_back((look, changes));
        self.drop_old(look.boot_ms, forgotten);
    }

    fn drop_old(&mut self, now_ms: u64, mut forgotten: impl FnMut(Life)) {
        while self.looks.len() > 1 {
            let old = self
                .looks
                .front()
                .is_some_and(|(look, _)| now_ms - look.boot_ms.min(now_ms) > self.span_ms);
            let full = self.bytes() > self.limit;
            if !old && !full {
                break;
            }
            self.cut = !old;
            let Some((_, changes)) = self.looks.pop_front() else {
                break;
            };
            self.look_bytes -= changes.len() + size_of::<(Look, Box<[u8]>)>();
            let Self {
                base,
                lives,
                free,
                life_bytes,
                ..
            } = self;
            base.apply(&changes, |slot| {
                if let Some(life) = lives.get_mut(slot as usize).and_then(Option::take) {
                    *life_bytes -= life.bytes();
                    free.push(Reverse(slot));
                    forgotten(life);
                }
            });
        }
        self.shrink();
    }

    /// Gives the memory of a burst of processes back, once all that came with it is forgotten.
    fn shrink(&mut self) {
        if self.free.len() < 256 || self.free.len() < self.lives.len() / 2 {
            return;
        }
        let used = self
            .lives
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |last| last + 1);
        if used < self.lives.len() / 2 {
            self.lives.truncate(used);
            self.lives.shrink_to_fit();
            self.free.retain(|Reverse(slot)| (*slot as usize) < used);
            self.free.shrink_to_fit();
            for state in [&mut self.base, &mut self.now] {
                state.slots.truncate(used);
                state.slots.shrink_to_fit();
            }
            self.scratch.shrink_to_fit();
        }
    }

    /// The memory that all of it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.look_bytes
            + self.life_bytes
            + self.lives.capacity() * size_of::<Option<Life>>()
            + self.free.capacity() * size_of::<u32>()
            + self.base.bytes()
            + self.now.bytes()
            + self.scratch.capacity()
            + (self.looks.capacity() - self.looks.len()) * size_of::<(Look, Box<[u8]>)>()
    }

    /// The memory that it may take.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How far back it may go, in milliseconds.
    pub(crate) fn span_ms(&self) -> u64 {
        self.span_ms
    }

    /// Whether memory rather than age ended the history the last time that a look was dropped.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// The oldest look and the newest, and how many there are.
    pub(crate) fn ends(&self) -> Option<(Look, Look, usize)> {
        Some((
            self.looks.front()?.0,
            self.looks.back()?.0,
            self.looks.len(),
        ))
    }

    /// The newest look.
    pub(crate) fn latest(&self) -> Option<(Look, &State)> {
        Some((self.looks.back()?.0, &self.now))
    }

    /// The last look that was not after `boot_ms`, with the processes at that time. None before the history.
    pub(crate) fn at(&self, boot_ms: u64) -> Option<(Look, State)> {
        let after = self
            .looks
            .partition_point(|(look, _)| look.boot_ms <= boot_ms);
        let wanted = after.checked_sub(1)?;
        let mut state = self.base.clone();
        for (_, changes) in self.looks.iter().take(after) {
            state.apply(changes, |_| {});
        }
        Some((self.looks[wanted].0, state))
    }

    /// Calls `visit` with every look, oldest first.
    pub(crate) fn walk(&self, mut visit: impl FnMut(&Look, &State)) {
        let mut state = self.base.clone();
        for (look, changes) in &self.looks {
            state.apply(changes, |_| {});
            visit(look, &state);
        }
    }
}
