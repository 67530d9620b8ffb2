//! The thread that looks, once an interval, and what it shares with those who ask.
//!
//! It is a thread of its own because reading `/proc` can wait: a command line is read through the memory map of its
//! process, and waits while that is held, as long as it takes. The probes must answer meanwhile, so that nothing is
//! read while the shared state is locked; `/readyz` says when looks don't come any more.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::census::{Census, Facts, Instant};
use super::cgroup::{Cgroups, Figures};
use super::container::PodState;
use super::metrics::Cost;
use super::procfs::Proc;
use super::ring::Ring;
use super::snapshot::{Source, Units};
use super::stat::Reading;

/// What the looks have brought, for all who ask.
#[derive(Debug)]
pub(crate) struct Seen {
    census: Census,
    pod: PodState,
    figures: BTreeMap<String, Figures>,
    units: Units,
    own_pid: u32,
    /// What the looks cost.
    pub(crate) cost: Cost,
    /// Why the latest look, or the pod state, could not be read.
    pub(crate) trouble: Option<String>,
}

impl Seen {
    /// What answers are made of, as of this moment.
    pub(crate) fn source(&self, now: Instant) -> Source<'_> {
        Source {
            census: &self.census,
            pod: &self.pod,
            figures: &self.figures,
            units: self.units,
            own_pid: self.own_pid,
            boot_ms: now.boot_ms,
            wall_ms: now.wall_ms,
        }
    }

    /// When the process that goes by this id now started, in clock ticks since boot.
    pub(crate) fn start_of(&self, pid: u32) -> Option<u64> {
        self.census.start_of(pid)
    }

    /// Milliseconds since the latest look.
    pub(crate) fn age_ms(&self, now: Instant) -> Option<u64> {
        let (look, _) = self.census.ring().latest()?;
        Some(now.boot_ms.saturating_sub(look.boot_ms))
    }
}

/// [`Seen`], shared between the thread that looks and those that answer.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Seen>>);

impl Shared {
    /// Waits for a few microseconds at most: nobody reads or writes a file while holding it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where things are: the machine's places, or a test's.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// `/proc`.
    pub(crate) proc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub(crate) cgroup: PathBuf,
    /// `--pod-state`.
    pub(crate) pod_state: PathBuf,
}

/// Who looks.
#[derive(Debug)]
pub(crate) struct Watcher {
    proc: Proc,
    pid_max: Option<u32>,
    cgroups: Cgroups,
    pod_file: PodFile,
    readings: Vec<Reading>,
    processes_max: usize,
    shared: Shared,
}

impl Watcher {
    /// Opens `/proc`; takes no look yet.
    ///
    /// # Errors
    /// When `/proc` can't be opened.
    pub(crate) fn new(places: &Places, ring: Ring, processes_max: usize) -> io::Result<Self> {
        let mut proc = Proc::open(&places.proc)?;
        let units = Units {
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            page_bytes: rustix::param::page_size() as u64,
        };
        let seen = Seen {
            census: Census::new(ring),
            pod: PodState::default(),
            figures: BTreeMap::new(),
            units,
            own_pid: std::process::id(),
            cost: Cost::default(),
            trouble: None,
        };
        Ok(Self {
            pid_max: proc.pid_max(),
            proc,
            cgroups: Cgroups::new(&places.cgroup),
            pod_file: PodFile::new(&places.pod_state),
            readings: Vec::new(),
            processes_max,
            shared: Shared(Arc::new(Mutex::new(seen))),
        })
    }

    /// What the looks bring.
    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Takes a look.
    pub(crate) fn look(&mut self, now: Instant) {
        let (wall, cpu) = (elapsed(ClockId::Monotonic), elapsed(ClockId::ThreadCPUTime));
        let pod = self.pod_file.changed();
        let last_pid = self.proc.last_pid();
        let listed = self.proc.readings(&mut self.readings, self.processes_max);
        let skipped = match &listed {
            Ok(skipped) => *skipped,
            Err(error) => {
                self.shared.lock().trouble = Some(format!("/proc can't be listed: {error}"));
                return;
            }
        };
        let asks = {
            let mut seen = self.shared.lock();
            match pod {
                Some(Ok(state)) => {
                    seen.census.pod_state(&state);
                    seen.pod = state;
                    seen.trouble = None;
                }
                Some(Err(why)) => {
                    tracing::warn!(
                        why,
                        "the pod state can't be used; the one before stays in force"
                    );
                    seen.trouble = Some(why);
                }
                None => {}
            }
            seen.census.asks(&self.readings)
        };
        let mut facts: Vec<(u32, Facts)> = asks
            .into_iter()
            .map(|pid| (pid, self.proc.facts(pid)))
            .collect();
        let firsts = {
            let mut seen = self.shared.lock();
            seen.census.look(
                now,
                &self.readings,
                &mut facts,
                (last_pid, self.pid_max),
                skipped,
            );
            seen.census.firsts()
        };
        let figures = self.cgroups.figures(&self.proc, &firsts);
        let mut seen = self.shared.lock();
        seen.figures = figures;
        seen.cost.last_seconds = (elapsed(ClockId::Monotonic) - wall).as_secs_f64();
        seen.cost.cpu_seconds += (elapsed(ClockId::ThreadCPUTime) - cpu).as_secs_f64();
    }

    /// Looks once an interval for as long as `go_on` says so after each rest. The second look comes soon, so that
    /// there are percentages; and it never takes more than a tenth of the time, however many processes there are.
    pub(crate) fn run(mut self, interval: Duration, mut rest: impl FnMut(Duration) -> bool) {
        const SOON: Duration = Duration::from_millis(200);
        self.look(now());
        if !rest(SOON.min(interval)) {
            return;
        }
        let mut due = elapsed(ClockId::Monotonic);
        loop {
            let before = elapsed(ClockId::Monotonic);
            self.look(now());
            let after = elapsed(ClockId::Monotonic);
            due = next_due(due, interval, before, after);
            if !rest(due - after) {
                return;
            }
        }
    }
}

/// When the next look is due, after one that was due at `due` and took from `before` to `after`: kept to the beat
/// rather than to the end of the look, but never before nine times what the look took; missed beats are not made up for.
pub(crate) fn next_due(
    due: Duration,
    interval: Duration,
    before: Duration,
    after: Duration,
) -> Duration {
    (due + interval).max(after + (after - before) * 9)
}

/// The time, by both clocks that looks carry.
pub(crate) fn now() -> Instant {
    let millis = |clock| u64::try_from(elapsed(clock).as_millis()).unwrap_or(u64::MAX);
    Instant {
        wall_ms: millis(ClockId::Realtime),
        boot_ms: millis(ClockId::Boottime),
    }
}

fn elapsed(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

/// Whether the pod state at `path` can be used: read whole, once. A file that isn't there is no fault.
pub(crate) fn check_pod_state(path: &Path) -> Result<(), String> {
    PodFile::new(path)
        .changed()
        .map_or(Ok(()), |read| read.map(drop))
}

/// The pod state's file, read again when it is another.
#[derive(Debug)]
struct PodFile {
    path: PathBuf,
    last: Option<(u64, u64, i64, u64)>,
}

/// A pod state that is longer isn't one.
const POD_STATE_MAX: u64 = 1 << 20;

impl PodFile {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            last: None,
        }
    }

    /// The state when the file has changed since it was last read; None when it hasn't, or isn't there.
    fn changed(&mut self) -> Option<Result<PodState, String>> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::metadata(&self.path).ok()?;
        let mark = (
            found.dev(),
            found.ino(),
            found.mtime(),
            found.mtime_nsec().unsigned_abs(),
        );
        if self.last == Some(mark) {
            return None;
        }
        self.last = Some(mark);
        let shown = self.path.display();
        if !found.is_file() || found.len() > POD_STATE_MAX {
            return Some(Err(format!("{shown} is not a file of at most 1 MiB")));
        }
        let text = std::fs::read(&self.path).map_err(|error| format!("{shown}: {error}"));
        Some(text.and_then(|text| PodState::parse(&text).map_err(|why| format!("{shown}: {why}"))))
    }
}
