//! What the sidecars promise while nothing happens and while everything does: memory at rest, the time from a change to its being
//! applied, no reader that sees half a set, no kill that leaves one. No peer publishes a set at once, validates and confirms it, so there is
//! none to measure against.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use podkit_testkit::etcd::Etcd;
use podkit_testkit::git::Repository;
use podkit_testkit::machine::{pss_kib, rss_kib};
use podkit_testkit::net::free_addr;
use podkit_testkit::process::Process;
use podkit_testkit::versions::{MADE, TEMPLATE, look, write};
use podkit_testkit::{http, peers, stats, until};
use rustix::process::Signal;

use super::report::{Goal, Report, figure};
use super::{Effort, LOAD_CORE, SERVER_CORE, size};
use crate::machine::require;

/// A directory that a benchmark has for itself.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir().context("a directory for temporary files")?;
        std::fs::create_dir(dir.path().join("source"))?;
        std::fs::write(dir.path().join("source/t"), TEMPLATE)?;
        let ground = Self(dir);
        write(&ground.source(), 0);
        Ok(ground)
    }

    fn source(&self) -> std::path::PathBuf {
        self.0.path().join("source")
    }

    fn out(&self) -> std::path::PathBuf {
        self.0.path().join("out")
    }

    /// A config that follows the directory, and publishes version 0 first.
    fn config(&self, binary: &Path) -> Process {
        let source = format!("--source=file:{}", self.source().display());
        let out = format!("--out={}", self.out().display());
        started(binary, &["config", &source, &out, MADE])
    }
}

/// A module that runs and is ready.
fn started(binary: &Path, args: &[&str]) -> Process {
    let admin = free_addr();
    let mut command = peers::pinned(Some(SERVER_CORE), binary);
    command.args(args).args(["--admin", &admin.to_string()]);
    let process = Process::spawn(&format!("podkit {}", args[0]), &mut command);
    until("readiness", || {
        assert!(!process.has_ended(), "{}", process.shown());
        http::get(admin, "/readyz")
            .ok()
            .filter(|answer| answer.status == 200)
    });
    process
}

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&["etcd", "etcdctl", "taskset", "git"])?;
    let idle = idle(binary)?;
    let (mut from_file, mut from_etcd) = (Vec::new(), Vec::new());
    let changes = if effort.quick { 20 } else { 100 };
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        from_file.extend(file_to_applied(binary, changes)?);
        from_etcd.extend(etcd_to_applied(binary, changes)?);
    }
    let (publishes, looks) = match effort.quick {
        true => (100, 5_000),
        false => (1_000, 50_000),
    };
    let torn = torn(binary, publishes, looks)?;
    let kills = if effort.quick { 50 } else { 500 };
    let bad = killed(binary, kills)?;

    let versions = size::peers(binary, &["etcd"]);
    let mut report = Report::new(
        "sidecars",
        "Sidecars at rest and at work",
        &versions,
        effort,
    );
    report.paragraph(&format!(
        "The module that is measured has core {SERVER_CORE}. Memory is read two seconds after the module is ready. A change is applied when the file that people read has it: config follows a directory (a file is renamed into it) or etcd's watch (a key is put), and makes one more file by a template; it is looked at every 0.1 ms."
    ));
    let rows: Vec<Vec<String>> = idle
        .iter()
        .map(|(name, rss, pss)| vec![(*name).to_owned(), rss.to_string(), pss.to_string()])
        .collect();
    report.table(
        "Memory at rest, KiB",
        &["", "resident", "proportional (PSS)"],
        &rows,
    );
    let row = |name: &str, samples: &[f64]| {
        vec![
            name.to_owned(),
            samples.len().to_string(),
            figure(stats::median(samples)),
            figure(stats::percentile(samples, 0.99)),
            figure(stats::percentile(samples, 1.0)),
        ]
    };
    report.table(
        "From a change to its being applied, ms",
        &["", "changes", "p50", "p99", "longest"],
        &[
            row("a file in a directory", &from_file),
            row("a key in etcd", &from_etcd),
        ],
    );
    report.table(
        "Whole sets",
        &["", "", "not whole"],
        &[
            vec![
                "reads of two files of a version, by a reader that loops".to_owned(),
                format!("{} during {publishes} publishes", torn.reads),
                torn.halves.to_string(),
            ],
            vec![
                "SIGKILL at a random moment while it publishes".to_owned(),
                kills.to_string(),
                bad.to_string(),
            ],
        ],
    );
    let megabytes = |module: &str| {
        let of_module = idle.iter().filter(|(name, ..)| name.starts_with(module));
        let most = of_module.map(|(_, rss, _)| *rss).max().unwrap_or(0);
        mib(most)
    };
    let goal = |what: &str, measured: f64, bound: f64| Goal {
        what: what.to_owned(),
        measured,
        bound,
        below: true,
        note: "",
    };
    report.goals(&[
        goal(
            "an idle agent at most 2 MB resident",
            megabytes("agent"),
            2.0,
        ),
        goal(
            "an idle config at most 6 MB resident",
            megabytes("config"),
            6.0,
        ),
        goal(
            "an idle git-sync at most 12 MB resident",
            megabytes("git-sync"),
            12.0,
        ),
        goal(
            "a change of a file applied within 50 ms (p99)",
            stats::percentile(&from_file, 0.99),
            50.0,
        ),
        goal(
            "a change in etcd applied within 50 ms (p99)",
            stats::percentile(&from_etcd, 0.99),
            50.0,
        ),
        goal("no read that is not whole", float(torn.halves), 0.0),
        goal("no kill that leaves what is not whole", float(bad), 0.0),
    ]);
    report.finish(effort)
}

#[expect(clippy::cast_precision_loss, reason = "KiB of one process")]
fn mib(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn float(count: usize) -> f64 {
    count as f64
}

/// Resident and proportional memory of each while nothing happens.
fn idle(binary: &Path) -> Result<Vec<(&'static str, u64, u64)>> {
    let mut all = Vec::new();
    let mut weigh = |name, process: &Process| {
        std::thread::sleep(Duration::from_secs(2));
        all.push((name, rss_kib(process.pid()), pss_kib(process.pid())));
    };
    let ground = Ground::new()?;
    weigh("config, a directory", &ground.config(binary));

    let ground = Ground::new()?;
    let client = free_addr();
    let etcd = Etcd::start(ground.0.path(), client, &[]);
    etcd.put("app/a", "0");
    let source = format!("--source=etcd://{client}/app/");
    let out = format!("--out={}", ground.out().display());
    weigh(
        "config, etcd's watch",
        &started(binary, &["config", &source, &out]),
    );
    drop(etcd);

    let repository = Repository::new(ground.0.path(), "app");
    repository.write("index.html", "hello");
    repository.publish("first");
    let repo = format!("--repo={}", repository.bare.display());
    let root = format!("--root={}", ground.0.path().join("root").display());
    weigh(
        "git-sync, a small repository",
        &started(binary, &["git-sync", &repo, &root, "--ref=main"]),
    );

    let mut command = peers::pinned(Some(SERVER_CORE), binary);
    let socket = ground.0.path().join("agent.sock");
    command
        .args(["agent", "--allow=true", "--socket"])
        .arg(&socket)
        .args(["--", "sh", "-c", "echo up; sleep 100000 & wait"]);
    let agent = Process::spawn("podkit agent", &mut command);
    agent.wait_line("the application", |line| line == "up");
    weigh("agent", &agent);
    Ok(all)
}

/// The time until `out` has what `change` was told to make, in ms, so often.
fn applied(
    out: &Path,
    changes: u64,
    change: impl Fn(u64),
    now: impl Fn(&Path) -> Option<u64>,
) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for number in 1..=changes {
        // Nothing of the former round's quiet time.
        std::thread::sleep(Duration::from_millis(20));
        let begun = Instant::now();
        change(number);
        while now(out) != Some(number) {
            if begun.elapsed() > Duration::from_secs(10) {
                bail!("change {number} is not applied within 10 s");
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

fn file_to_applied(binary: &Path, changes: u64) -> Result<Vec<f64>> {
    let ground = Ground::new()?;
    let _config = ground.config(binary);
    let source = ground.source();
    let now = |out: &Path| look(out).ok().flatten();
    applied(&ground.out(), changes, |number| write(&source, number), now)
}

fn etcd_to_applied(binary: &Path, changes: u64) -> Result<Vec<f64>> {
    let ground = Ground::new()?;
    let client = free_addr();
    let etcd = Etcd::start(ground.0.path(), client, &[]);
    etcd.put("app/a", "0");
    let source = format!("--source=etcd://{client}/app/");
    let out = format!("--out={}", ground.out().display());
    let _config = started(binary, &["config", &source, &out]);
    let now = |out: &Path| std::fs::read_to_string(out.join("a")).ok()?.parse().ok();
    // The time of etcdctl is not in it, that of etcd's own disk is.
    let times = applied(
        &ground.out(),
        changes,
        |number| etcd.put_fast("app/a", &number.to_string()),
        now,
    );
    drop(etcd);
    times
}

struct Torn {
    reads: usize,
    halves: usize,
}

/// A reader that loops while versions are published.
fn torn(binary: &Path, publishes: u64, looks: usize) -> Result<Torn> {
    let ground = Ground::new()?;
    let _config = ground.config(binary);
    let (done, out) = (AtomicBool::new(false), ground.out());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut seen, mut halves) = (0, 0);
            while !done.load(Ordering::Relaxed) || seen < looks {
                halves += usize::from(!matches!(look(&out), Ok(Some(_))));
                seen += 1;
            }
            Torn {
                reads: seen * 2,
                halves,
            }
        });
        for number in 1..=publishes {
            write(&ground.source(), number);
            let begun = Instant::now();
            while look(&out) != Ok(Some(number)) {
                if begun.elapsed() > Duration::from_secs(10) {
                    done.store(true, Ordering::Relaxed);
                    bail!("version {number} is not published within 10 s");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        done.store(true, Ordering::Relaxed);
        Ok(reader.join().expect("the reader does not panic"))
    })
}

/// How many of so many kills left what is not whole.
fn killed(binary: &Path, kills: u64) -> Result<usize> {
    let ground = Ground::new()?;
    let source = format!("--source=file:{}", ground.source().display());
    let out = format!("--out={}", ground.out().display());
    let done = AtomicBool::new(false);
    let mut bad = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                write(&ground.source(), number);
                std::thread::sleep(Duration::from_millis(3));
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for kill in 0..kills {
            let mut command = peers::pinned(Some(LOAD_CORE), binary);
            command.args(["config", "--admin=127.0.0.1:0", &source, &out, MADE]);
            let mut config = Process::spawn("podkit config", &mut command);
            std::thread::sleep(Duration::from_micros(1_000 + kill * 7_919 % 60_000));
            config.signal(Signal::KILL);
            config.wait();
            bad += usize::from(look(&ground.out()).is_err());
        }
        done.store(true, Ordering::Relaxed);
    });
    match look(&ground.out()) {
        Ok(Some(1..)) => Ok(bad),
        other => bail!("the victims published nothing: {other:?}"),
    }
}
