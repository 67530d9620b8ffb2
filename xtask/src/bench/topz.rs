//! `podkit topz` on a machine with 1,000 more processes: what a look costs, and what it keeps. Beside it, the tools that look at the
//! same: `top` in batch mode, once a second, and prometheus-process-exporter, scraped once a second, when they are installed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use podkit_testkit::machine::{cpu_time_tree, pss_kib, rss_kib};
use podkit_testkit::net::free_addr;
use podkit_testkit::process::Process;
use podkit_testkit::{http, peers, program, stats, until};

use super::report::{Goal, Report, figure, rounds};
use super::{Effort, LOAD_CORE, SERVER_CORE, size};
use crate::machine::require;

const PROCESSES: usize = 1000;

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&["prometheus-process-exporter", "top", "taskset"])?;
    let idle = {
        let topz = Topz::start(binary, &[]);
        (rss_kib(topz.process.pid()), pss_kib(topz.process.pid()))
    };
    // One shell that starts them all, so that ending it ends them. Nine of ten sleep; the others start a process a second.
    let script = format!(
        "for i in $(seq {}); do sleep 100000 & done; for i in $(seq {}); do (while :; do sleep 1; done) & done; \
         echo up; trap 'kill $(jobs -p)' TERM; wait",
        PROCESSES * 9 / 10,
        PROCESSES / 20
    );
    let mut crowd = Process::spawn(
        "a crowd",
        peers::pinned(Some(LOAD_CORE), Path::new("/bin/bash")).args(["-c", &script]),
    );
    crowd.wait_line("the crowd", |line| line == "up");

    let topz = Topz::start(binary, &[]);
    let seconds = if effort.quick { 3 } else { 10 };
    let mut all: Vec<(String, Vec<f64>)> = vec![("podkit topz".to_owned(), Vec::new())];
    let exporter = Exporter::start();
    if exporter.is_some() {
        all.push(("prometheus-process-exporter".to_owned(), Vec::new()));
    }
    if program("top").is_some() {
        all.push(("top -b".to_owned(), Vec::new()));
    }
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        for (name, samples) in &mut all {
            samples.push(match name.as_str() {
                "podkit topz" => topz.cpu_per_scan(seconds)?,
                "top -b" => top(seconds)?,
                _ => exporter
                    .as_ref()
                    .context("it was started")?
                    .cpu_per_scrape(seconds)?,
            });
        }
    }
    drop(topz);
    // Ten minutes of looks in one: ten times as often.
    let topz = Topz::start(binary, &["--interval", "100ms", "--history", "1m"]);
    let minute = if effort.quick { 3.0 } else { 60.0 };
    until_longer("a full ring", Duration::from_secs(120), || {
        Ok(topz.metric("podkit_topz_history_seconds")? >= minute - 1.0)
    })?;
    let ring = topz.metric("podkit_topz_history_bytes")?;
    let full = rss_kib(topz.process.pid());
    let length = http::get(topz.listen, "/api/processes")?.json();
    let seen = length["processes"].as_array().map_or(0, Vec::len);
    crowd.signal(rustix::process::Signal::TERM);
    crowd.wait();

    let versions = size::peers(binary, &["top"]);
    let mut report = Report::new("topz", "A look at 1,000 processes", &versions, effort);
    report.paragraph(&format!(
        "{seen} processes were there: {PROCESSES} of a crowd, of which nine of ten sleep and the others start a process a second, and the machine's own. CPU is user and system time of the looking process on core {SERVER_CORE}, divided by the looks it took; once a second for each."
    ));
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|(name, samples)| vec![name.clone(), rounds(samples)])
        .collect();
    report.table("CPU ms per look", &["", "less is better"], &rows);
    report.table(
        "Memory of topz",
        &["", "KiB"],
        &[
            vec!["at rest, resident".to_owned(), idle.0.to_string()],
            vec!["at rest, proportional (PSS)".to_owned(), idle.1.to_string()],
            vec![
                "with a full ring: 600 looks at the crowd".to_owned(),
                full.to_string(),
            ],
            vec![
                "of that the ring, as topz counts it".to_owned(),
                figure(ring / 1024.0),
            ],
        ],
    );
    #[expect(clippy::cast_precision_loss, reason = "KiB of one process")]
    report.goals(&[
        Goal {
            what: "a look at 1,000 processes at most 12 ms of CPU".to_owned(),
            measured: stats::median(&all[0].1),
            bound: 12.0,
            below: true,
            note: "",
        },
        Goal {
            what: "its ring at most 16 MB".to_owned(),
            measured: ring / 1e6,
            bound: 16.0,
            below: true,
            note: "",
        },
        Goal {
            what: "an idle topz at most 6 MB resident".to_owned(),
            measured: idle.0 as f64 * 1024.0 / 1e6,
            bound: 6.0,
            below: true,
            note: "",
        },
    ]);
    report.finish(effort)
}

/// A running topz, its page on a port of its own.
struct Topz {
    process: Process,
    listen: SocketAddr,
}

impl Topz {
    fn start(binary: &Path, args: &[&str]) -> Self {
        let listen = free_addr();
        let mut command = peers::pinned(Some(SERVER_CORE), binary);
        command.args([
            "topz",
            "--listen",
            &listen.to_string(),
            "--admin",
            &listen.to_string(),
        ]);
        let process = Process::spawn("podkit topz", command.args(args));
        until("podkit topz", || {
            assert!(!process.has_ended(), "{}", process.shown());
            http::get(listen, "/readyz")
                .ok()
                .filter(|answer| answer.status == 200)
        });
        Self { process, listen }
    }

    fn metric(&self, name: &str) -> Result<f64> {
        let text = http::get(self.listen, "/metrics")?.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
            .with_context(|| format!("/metrics has no {name}"))
    }

    fn cpu_per_scan(&self, seconds: u64) -> Result<f64> {
        let pid = self.process.pid();
        let looks = self.metric("podkit_topz_looks_total")?;
        let before = cpu_time_tree(pid);
        std::thread::sleep(Duration::from_secs(seconds));
        let spent = cpu_time_tree(pid) - before;
        Ok(spent.as_secs_f64() * 1e3 / (self.metric("podkit_topz_looks_total")? - looks))
    }
}

/// `top` in batch mode; what it takes to start is in.
fn top(seconds: u64) -> Result<f64> {
    let found = program("top").context("top is missing")?;
    let mut command = peers::pinned(Some(SERVER_CORE), &found);
    command.args(["-b", "-d", "1"]);
    let process = Process::spawn("top", &mut command);
    std::thread::sleep(Duration::from_secs(seconds));
    let spent = cpu_time_tree(process.pid());
    let looks = process
        .lines()
        .iter()
        .filter(|line| line.text.starts_with("top -"))
        .count();
    if looks == 0 {
        bail!("top took no look");
    }
    #[expect(clippy::cast_precision_loss, reason = "a few looks")]
    Ok(spent.as_secs_f64() * 1e3 / looks as f64)
}

/// prometheus-process-exporter over every process, grouped by name.
struct Exporter {
    process: Process,
    listen: SocketAddr,
}

impl Exporter {
    fn start() -> Option<Self> {
        let found = program("prometheus-process-exporter")?;
        let listen = free_addr();
        let mut command = peers::pinned(Some(SERVER_CORE), &found);
        command.args([
            "-procnames",
            "sleep,podkit",
            "-web.listen-address",
            &listen.to_string(),
        ]);
        let process = Process::spawn("process-exporter", &mut command);
        until("process-exporter", || http::get(listen, "/metrics").ok());
        Some(Self { process, listen })
    }

    fn cpu_per_scrape(&self, seconds: u64) -> Result<f64> {
        let pid = self.process.pid();
        let before = cpu_time_tree(pid);
        let started = Instant::now();
        for scrape in 0..seconds {
            http::get(self.listen, "/metrics")?;
            std::thread::sleep(Duration::from_secs(scrape + 1).saturating_sub(started.elapsed()));
        }
        let spent = cpu_time_tree(pid) - before;
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        Ok(spent.as_secs_f64() * 1e3 / seconds as f64)
    }
}

fn until_longer(
    what: &str,
    longest: Duration,
    mut look: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    while !look()? {
        if started.elapsed() > longest {
            bail!("{what}: not within {longest:?}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
