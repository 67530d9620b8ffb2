//! The processes at one moment, as people and programs read them: rows and sums, in seconds, bytes and percent.
//!
//! All answers (page, text, JSON, metrics) are made of one [`Snapshot`], so that they can't disagree.

use std::collections::BTreeMap;

use serde::Serialize;

use super::census::Census;
use super::cgroup::Figures;
use super::container::{PodState, rank};
use super::query::{Asked, At};
use super::ring::{Life, Look, Now, State};

/// What the machine counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Units {
    /// Clock ticks a second, in which `/proc` gives CPU time.
    pub(crate) ticks_per_second: u64,
    /// Bytes of a page of memory.
    pub(crate) page_bytes: u64,
}

/// The order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Most CPU first, short-lived children included.
    Cpu,
    /// Most resident memory first.
    Memory,
    /// By process id.
    Pid,
    /// Most CPU time ever first.
    Time,
    /// Most threads first.
    Threads,
    /// Youngest first.
    Start,
    /// By command.
    Command,
}

impl Sort {
    pub(crate) const EXPECTED: &str = "cpu, memory, pid, time, threads, start or command";

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "cpu" => Self::Cpu,
            "memory" | "rss" => Self::Memory,
            "pid" => Self::Pid,
            "time" => Self::Time,
            "threads" => Self::Threads,
            "start" => Self::Start,
            "command" => Self::Command,
            _ => return None,
        })
    }

    /// Puts the rows in this order; equals by process id.
    fn apply(self, rows: &mut [Process<'_>]) {
        let cpu = |row: &Process<'_>| {
            row.cpu_percent.unwrap_or(0.0) + row.short_lived_cpu_percent.unwrap_or(0.0)
        };
        rows.sort_by(|a, b| {
            let order = match self {
                Self::Cpu => cpu(b).total_cmp(&cpu(a)),
                Self::Memory => b.memory_bytes.cmp(&a.memory_bytes),
                Self::Pid => std::cmp::Ordering::Equal,
                Self::Time => b.cpu_seconds.total_cmp(&a.cpu_seconds),
                Self::Threads => b.threads.cmp(&a.threads),
                Self::Start => b.started.total_cmp(&a.started),
                Self::Command => a.command.cmp(&b.command),
            };
            order.then(a.pid.cmp(&b.pid))
        });
    }
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Process<'a> {
    /// The process id.
    pub(crate) pid: u32,
    /// Its parent's; 0 when that is outside the namespace.
    pub(crate) ppid: u32,
    /// The container it belongs to.
    pub(crate) container: &'a str,
    /// The user it runs as.
    pub(crate) user: &'a str,
    /// `R`, `S`, `D`, `Z`, `T`, `t`, `I`.
    pub(crate) state: char,
    /// CPU of its own since the look before, in percent of one CPU; null at the first look.
    pub(crate) cpu_percent: Option<f64>,
    /// The same of its children that came and went unseen.
    pub(crate) short_lived_cpu_percent: Option<f64>,
    /// CPU time of its own since it started.
    pub(crate) cpu_seconds: f64,
    /// Resident memory, as `/proc/PID/stat` says.
    pub(crate) memory_bytes: u64,
    /// Threads.
    pub(crate) threads: u32,
    /// When it started, in clock ticks since boot: with the id, what tells processes apart.
    pub(crate) start_ticks: u64,
    /// The same as Unix time in seconds.
    pub(crate) started: f64,
    /// Its short name.
    pub(crate) name: &'a str,
    /// Its command line, secrets masked; `[name]` when it has none.
    pub(crate) command: String,
}

/// One container.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Container {
    /// Its name.
    pub(crate) name: String,
    /// CPU of its processes, short-lived ones included, in percent of one CPU.
    pub(crate) cpu_percent: Option<f64>,
    /// Sum of its processes' resident memory: what they share counts more than once.
    pub(crate) memory_bytes: u64,
    /// Its processes.
    pub(crate) processes: u32,
    /// Their threads.
    pub(crate) threads: u32,
    /// How often it was restarted, where the pod state says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restarts: Option<u32>,
    /// When it was started, where the pod state says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<String>,
    /// What its cgroup says, at the latest look only and where it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cgroup: Option<Figures>,
}

/// How far the history goes, and what bounds it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct History {
    /// Looks kept.
    pub(crate) looks: usize,
    /// From the oldest to the latest.
    pub(crate) seconds: f64,
    /// As far as `--history` would let it go.
    pub(crate) seconds_max: f64,
    /// Memory taken.
    pub(crate) bytes: usize,
    /// `--history-memory`.
    pub(crate) bytes_max: usize,
    /// It is shorter than `--history` because memory was short.
    pub(crate) cut_by_memory: bool,
}

/// The processes at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Snapshot<'a> {
    /// The look's number since the start.
    pub(crate) look: u64,
    /// When the look was, Unix time in seconds.
    pub(crate) at: f64,
    /// How long before the answer.
    pub(crate) age_seconds: f64,
    /// Since the look before; what percentages are of.
    pub(crate) elapsed_seconds: f64,
    /// It is the latest look.
    pub(crate) latest: bool,
    /// The pod's name, where the pod state says so.
    pub(crate) pod: &'a str,
    /// Processes and threads that came and went since the look before and that no look saw; null when the kernel
    /// doesn't tell.
    pub(crate) short_lived: Option<u32>,
    /// Processes first seen in this look, and seen gone.
    pub(crate) appeared: u32,
    pub(crate) disappeared: u32,
    /// Processes beyond `--max-processes`, not among the rows.
    pub(crate) skipped: u32,
    /// topz sees no process but itself: the pod doesn't share its PID namespace.
    pub(crate) alone: bool,
    /// Sums.
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) memory_bytes: u64,
    pub(crate) threads: u32,
    /// All processes, of which the query may want fewer.
    pub(crate) total: usize,
    pub(crate) history: History,
    pub(crate) containers: Vec<Container>,
    pub(crate) processes: Vec<Process<'a>>,
}

/// All that a snapshot is made of besides what was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) census: &'a Census,
    pub(crate) pod: &'a PodState,
    pub(crate) figures: &'a BTreeMap<String, Figures>,
    pub(crate) units: Units,
    /// The process that asks: topz.
    pub(crate) own_pid: u32,
    /// Now, in milliseconds since boot and since 1970.
    pub(crate) boot_ms: u64,
    pub(crate) wall_ms: u64,
}

impl<'a> Source<'a> {
    /// Makes the snapshot that was asked for.
    ///
    /// # Errors
    /// One line when the history does not go there.
    pub(crate) fn snapshot(&self, asked: &Asked) -> Result<Snapshot<'a>, String> {
        let ring = self.census.ring();
        let Some((oldest, newest, _)) = ring.ends() else {
            return Err("no look was taken yet".to_owned());
        };
        let back = match asked.at {
            At::Now => None,
            At::Ago(ago) => Some(ago),
            // Both clocks are cut to milliseconds, each by itself: the time that a look shows must find that look.
            At::Wall(wall) => Some(self.wall_ms.saturating_sub(wall.saturating_add(1))),
        };
        // The latest look is up to an interval old: what is asked of the time after it is asked of it.
        let wanted = back
            .map(|back| self.boot_ms.saturating_sub(back))
            .filter(|at| *at < newest.boot_ms);
        let past;
        let (look, state) = match wanted {
            None => match ring.latest() {
                Some(latest) => latest,
                None => return Err("no look was taken yet".to_owned()),
            },
            Some(boot_ms) => {
                let Some(found) = ring.at(boot_ms) else {
                    let reach = seconds(self.boot_ms.saturating_sub(oldest.boot_ms));
                    return Err(format!("the history goes back {reach:.0} s only"));
                };
                past = found;
                (past.0, &past.1)
            }
        };
        Ok(self.rows(asked, look, state, look.number == newest.number))
    }

    fn rows(&self, asked: &Asked, look: Look, state: &State, latest: bool) -> Snapshot<'a> {
        let mut rows = Vec::new();
        let mut containers: BTreeMap<u16, Container> = BTreeMap::new();
        let mut sums = (0u64, 0u64, 0u32, 0usize);
        let mut alone = true;
        for (slot, now) in state.living() {
            let Some(life) = self.census.ring().life(slot) else {
                continue;
            };
            let container = containers.entry(life.container).or_default();
            let ticks = u64::from(now.ticks) + u64::from(now.short);
            let memory = u64::from(now.rss) * self.units.page_bytes;
            container.processes += 1;
            container.threads += now.threads;
            container.memory_bytes += memory;
            // Ticks of this look's span, turned into percent below.
            container.cpu_percent = Some(container.cpu_percent.unwrap_or(0.0) + ticks as f64);
            sums = (
                sums.0 + ticks,
                sums.1 + memory,
                sums.2.saturating_add(now.threads),
                sums.3 + 1,
            );
            alone &= life.pid == self.own_pid;
            let name = self.census.names().get(life.container).name.as_str();
            let wanted = asked
                .container
                .as_deref()
                .is_none_or(|wanted| wanted == name)
                && asked.pid.is_none_or(|pid| pid == life.pid);
            if wanted {
                rows.push(self.process(look, life, now));
            }
        }
        asked.sort.apply(&mut rows);
        rows.truncate(asked.limit.unwrap_or(usize::MAX));
        let mut containers: Vec<Container> = containers
            .into_iter()
            .map(|(number, sums)| self.container(look, number, &sums, latest))
            .collect();
        containers.sort_by(|a, b| rank(&a.name).cmp(&rank(&b.name)));
        Snapshot {
            look: look.number,
            at: seconds(look.wall_ms),
            age_seconds: seconds(self.boot_ms.saturating_sub(look.boot_ms)),
            elapsed_seconds: seconds(look.elapsed_ms.into()),
            latest,
            pod: &self.pod.pod,
            short_lived: self.census.knows_missed().then_some(look.missed),
            appeared: look.started,
            disappeared: look.ended,
            skipped: look.skipped,
            alone,
            cpu_percent: self.percent(sums.0, look.elapsed_ms),
            memory_bytes: sums.1,
            threads: sums.2,
            total: sums.3,
            history: self.history(),
            containers,
            processes: rows,
        }
    }

    fn process(&self, look: Look, life: &'a Life, now: &Now) -> Process<'a> {
        let command = match life.command.is_empty() {
            true => format!("[{}]", life.name),
            false => life.command.to_string(),
        };
        let running_ms =
            look.boot_ms as f64 - life.start as f64 * 1e3 / self.units.ticks_per_second as f64;
        Process {
            pid: life.pid,
            ppid: life.ppid,
            container: &self.census.names().get(life.container).name,
            user: &life.user,
            state: char::from(now.state),
            cpu_percent: self.percent(now.ticks.into(), look.elapsed_ms),
            short_lived_cpu_percent: self.percent(now.short.into(), look.elapsed_ms),
            cpu_seconds: now.total as f64 / self.units.ticks_per_second as f64,
            memory_bytes: u64::from(now.rss) * self.units.page_bytes,
            threads: now.threads,
            start_ticks: life.start,
            started: round((look.wall_ms as f64 - running_ms.max(0.0)) / 1e3, 1e2),
            name: &life.name,
            command,
        }
    }

    fn container(&self, look: Look, number: u16, sums: &Container, latest: bool) -> Container {
        let name = self.census.names().get(number).name.clone();
        let runner = self
            .pod
            .containers
            .iter()
            .find(|container| container.name == name);
        Container {
            cpu_percent: self.percent(sums.cpu_percent.unwrap_or(0.0) as u64, look.elapsed_ms),
            restarts: runner.map(|runner| runner.restarts),
            started: runner
                .map(|runner| runner.started.clone())
                .filter(|started| !started.is_empty()),
            cgroup: if latest {
                self.figures.get(&name).cloned()
            } else {
                None
            },
            name,
            ..sums.clone()
        }
    }

    /// How far the history goes.
    pub(crate) fn history(&self) -> History {
        let ring = self.census.ring();
        let (from, to, looks) = ring
            .ends()
            .map_or((0, 0, 0), |(a, b, n)| (a.boot_ms, b.boot_ms, n));
        History {
            looks,
            seconds: seconds(to - from),
            seconds_max: seconds(ring.span_ms()),
            bytes: ring.bytes(),
            bytes_max: ring.limit(),
            cut_by_memory: ring.is_cut(),
        }
    }

    /// Ticks spent over so many milliseconds, in percent of one CPU. None without a span.
    pub(crate) fn percent(&self, ticks: u64, elapsed_ms: u32) -> Option<f64> {
        let possible = self.units.ticks_per_second as f64 * f64::from(elapsed_ms) / 1e3;
        (elapsed_ms > 0).then(|| round(ticks as f64 * 100.0 / possible, 10.0))
    }
}

/// Milliseconds in seconds.
pub(crate) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1e3
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
