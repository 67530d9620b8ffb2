//! `podkit metrics` beside the exporters that people have: the same servers, scraped in turns; statsd, and `podkit health`.

mod health;
mod statsd;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use podkit_testkit::machine::{cpu_nanos, rss_kib};
use podkit_testkit::mariadb::MariaDb;
use podkit_testkit::net::free_addr;
use podkit_testkit::postgres::Postgres;
use podkit_testkit::process::Process;
use podkit_testkit::redis::Redis;
use podkit_testkit::{http, peers, program, stats, until};

use health::Health;
use statsd::Statsd;

use super::report::{Goal, Report, figure, rounds};
use super::sharding::first_line;
use super::{Effort, LOAD_CORE, SERVER_CORE, pin_this_thread, size};
use crate::machine::require;

const PASSWORD: &str = "secret";
/// Scrapes in a second of the effort.
const SCRAPES: u64 = 50;

/// What is scraped.
struct Adapter {
    /// Whose metrics: a row has podkit's and the peer's.
    of: &'static str,
    podkit: bool,
    addr: SocketAddr,
    process: Process,
    /// CPU ms a scrape, per round.
    cpu: Vec<f64>,
    /// ms until a scrape is there: the median, per round.
    took: Vec<f64>,
}

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&[
        "nginx",
        "redis-server",
        "mariadbd",
        "prometheus-redis-exporter",
        "prometheus-mysqld-exporter",
        "prometheus-postgres-exporter",
        "taskset",
    ])?;
    let dir = tempfile::tempdir()?;
    let secret = dir.path().join("password");
    std::fs::write(&secret, PASSWORD)?;
    let secret = secret.display();
    // On the load's core, like all that is not measured.
    pin_this_thread()?;
    let redis = Redis::start_on(free_addr(), &[], Some(LOAD_CORE));
    let sql = format!(
        "CREATE USER exporter@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n\
         GRANT PROCESS, BINLOG MONITOR, SLAVE MONITOR, SELECT ON *.* TO exporter@'127.0.0.1';\n"
    );
    let mariadb = MariaDb::start_on(free_addr(), &sql, &[], Some(LOAD_CORE));
    let postgres = Postgres::start(PASSWORD, &[]);
    let sources = [
        ("Redis", format!("redis://{}", redis.addr)),
        (
            "MariaDB",
            format!(
                "mysql://{};user=exporter;password-file={secret}",
                mariadb.addr
            ),
        ),
        (
            "PostgreSQL",
            format!("postgres://{};password-file={secret}", postgres.addr),
        ),
    ];
    let mut all = Vec::new();
    for (of, source) in &sources {
        all.push(ours(binary, of, std::slice::from_ref(source)));
        all.push(match *of {
            "Redis" => theirs(
                of,
                "prometheus-redis-exporter",
                "",
                &format!("--redis.addr=redis://{}", redis.addr),
            )?,
            "MariaDB" => theirs(
                of,
                "prometheus-mysqld-exporter",
                &format!("exporter:{PASSWORD}@tcp({})/", mariadb.addr),
                "",
            )?,
            _ => theirs(
                of,
                "prometheus-postgres-exporter",
                &format!(
                    "postgresql://postgres:{PASSWORD}@{}/postgres?sslmode=disable",
                    postgres.addr
                ),
                "",
            )?,
        });
    }
    let together: Vec<String> = sources.iter().map(|(_, source)| source.clone()).collect();
    all.push(ours(binary, "all three", &together));
    let (mut statsd, mut health) = (Statsd::default(), Health::start(binary));
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        for adapter in &mut all {
            scrape(adapter, effort)?;
        }
        statsd.round(binary, effort)?;
        health.round(effort)?;
    }
    statsd.sizes(binary)?;
    report(&all, &statsd, &health, binary, effort)
}

fn ours(binary: &Path, of: &'static str, sources: &[String]) -> Adapter {
    let (addr, admin) = (free_addr(), free_addr());
    let mut command = peers::pinned(Some(SERVER_CORE), binary);
    command.args(["metrics", "--log-level", "warn"]).args([
        "--listen",
        &addr.to_string(),
        "--admin",
        &admin.to_string(),
    ]);
    for source in sources {
        command.args(["--source", source]);
    }
    Adapter::start(of, true, addr, "podkit metrics", &mut command)
}

fn theirs(of: &'static str, name: &str, source: &str, flag: &str) -> Result<Adapter> {
    let addr = free_addr();
    let found = program(name).with_context(|| format!("{name} is not installed"))?;
    let mut command = peers::pinned(Some(SERVER_CORE), &found);
    command
        .arg(format!("--web.listen-address={addr}"))
        .args(Some(flag).filter(|flag| !flag.is_empty()))
        .env("GOMAXPROCS", "1")
        .env("DATA_SOURCE_NAME", source);
    Ok(Adapter::start(of, false, addr, name, &mut command))
}

impl Adapter {
    fn start(
        of: &'static str,
        podkit: bool,
        addr: SocketAddr,
        name: &str,
        command: &mut Command,
    ) -> Self {
        let process = Process::spawn(name, command);
        until(name, || {
            assert!(!process.has_ended(), "{}", process.shown());
            http::get(addr, "/metrics").ok()
        });
        Self {
            of,
            podkit,
            addr,
            process,
            cpu: Vec::new(),
            took: Vec::new(),
        }
    }

    fn name(&self) -> &'static str {
        if self.podkit { "podkit" } else { "exporter" }
    }
}

/// As Prometheus asks: OpenMetrics if it can be had, compressed.
fn scrape(adapter: &mut Adapter, effort: Effort) -> Result<()> {
    let count = SCRAPES * effort.seconds;
    let fields = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\nAccept-Encoding: gzip\r\n";
    let mut took = Vec::new();
    let before = cpu_nanos(adapter.process.pid());
    for _ in 0..count {
        let begun = Instant::now();
        let answer = http::get_with(adapter.addr, "/metrics", fields)?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        anyhow::ensure!(
            answer.status == 200,
            "{} answers {}",
            adapter.of,
            answer.status
        );
    }
    let cpu = cpu_nanos(adapter.process.pid()) - before;
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    adapter.cpu.push(cpu as f64 / 1e6 / count as f64);
    adapter.took.push(stats::median(&took));
    Ok(())
}

/// Out of `mysqld_exporter, version 0.14.0 (…)`, or of a log line with `Redis Metrics Exporter 1.45.0`.
fn exporter_version(name: &str) -> String {
    let line = first_line(name, &["--version"]);
    let mut words = line.split_whitespace();
    words.find(|word| matches!(*word, "version" | "Exporter"));
    words.next().unwrap_or(&line).to_owned()
}

fn report(
    all: &[Adapter],
    statsd: &Statsd,
    health: &Health,
    binary: &Path,
    effort: Effort,
) -> Result<()> {
    let mut versions = size::peers(binary, &["nginx"]);
    for name in [
        "prometheus-redis-exporter",
        "prometheus-mysqld-exporter",
        "prometheus-postgres-exporter",
    ] {
        versions.push((name, exporter_version(name)));
    }
    for name in ["redis-server", "mariadbd"] {
        versions.push((name, first_line(name, &["--version"])));
    }
    let mut report = Report::new("metrics", "Metrics of servers", &versions, effort);
    report.paragraph(&format!(
        "Each adapter alone on core {SERVER_CORE}, the servers and who scrapes on core {LOAD_CORE}; {SCRAPES} scrapes for each second of a round, each on a connection \
         of its own, as Prometheus asks (OpenMetrics, gzip). CPU is that of the adapter's process. The exporters have their collectors of every day, podkit the same."
    ));
    #[expect(clippy::cast_precision_loss, reason = "a size")]
    let mb = |adapter: &Adapter| rss_kib(adapter.process.pid()) as f64 * 1024.0 / 1e6;
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|adapter| {
            vec![
                adapter.of.to_owned(),
                adapter.name().to_owned(),
                rounds(&adapter.cpu),
                rounds(&adapter.took),
                figure(mb(adapter)),
            ]
        })
        .collect();
    let columns = [
        "of",
        "by",
        "CPU ms a scrape",
        "ms a scrape, median",
        "MB resident",
    ];
    report.table("A scrape", &columns, &rows);
    let of_statsd = statsd.report(&mut report);
    let of_health = health.report(&mut report);
    let mut goals = Vec::new();
    let mut goal = |what: String, measured: f64, bound: f64, below: bool| {
        goals.push(Goal {
            what,
            measured,
            bound,
            below,
            note: "",
        });
    };
    for pair in all.chunks(2) {
        let [mine, peer] = pair else { continue };
        let ratio =
            |of: fn(&Adapter) -> &Vec<f64>| stats::median(of(mine)) / stats::median(of(peer));
        goal(
            format!(
                "{}: CPU of a scrape, at most half of the exporter's",
                mine.of
            ),
            ratio(|adapter| &adapter.cpu),
            0.5,
            true,
        );
        goal(
            format!(
                "{}: time of a scrape, at most half of the exporter's",
                mine.of
            ),
            ratio(|adapter| &adapter.took),
            0.5,
            true,
        );
        goal(
            format!("{}: at most 8 MB resident", mine.of),
            mb(mine),
            8.0,
            true,
        );
    }
    if let Some(together) = all.last() {
        goal(
            "all three: at most 16 MB resident".to_owned(),
            mb(together),
            16.0,
            true,
        );
    }
    goals.extend(of_statsd);
    goals.extend(of_health);
    report.goals(&goals);
    report.finish(effort)
}
