//! `podkit metrics` beside the exporters that people have: the same servers, scraped in turns; and statsd by UDP.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use podkit_testkit::machine::{cpu_nanos, rss_kib};
use podkit_testkit::mariadb::MariaDb;
use podkit_testkit::net::free_addr;
use podkit_testkit::postgres::Postgres;
use podkit_testkit::process::Process;
use podkit_testkit::redis::Redis;
use podkit_testkit::{http, peers, program, stats, until};

use super::report::{Goal, Report, figure, rounds};
use super::sharding::first_line;
use super::{Effort, LOAD_CORE, SERVER_CORE, pin_this_thread, size};
use crate::machine::require;

const PASSWORD: &str = "secret";
/// Scrapes in a second of the effort.
const SCRAPES: u64 = 50;
/// Bytes of a packet at most: what fits into an Ethernet frame.
const PACKET: usize = 1400;
/// Names of the counters that are sent.
const NAMES: usize = 1000;

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
    let mut statsd = Vec::new();
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        for adapter in &mut all {
            scrape(adapter, effort)?;
        }
        statsd.push(lines_per_cpu_second(binary, effort)?);
    }
    report(&all, &statsd, binary, effort)
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

/// Counters in packets, as fast as they are taken: lines that were counted, by seconds of CPU.
fn lines_per_cpu_second(binary: &Path, effort: Effort) -> Result<f64> {
    let at = free_addr();
    let source = format!("statsd://{at};proto=udp;read-buffer=64Mi");
    let adapter = ours(binary, "statsd", &[source]);
    let mut packets: Vec<Vec<u8>> = vec![Vec::new()];
    for name in 0..NAMES {
        let line = format!("bench.counter_{name}:1|c|#service:web,zone:a\n");
        if packets
            .last()
            .is_some_and(|last| last.len() + line.len() > PACKET)
        {
            packets.push(Vec::new());
        }
        packets
            .last_mut()
            .context("there is one")?
            .extend_from_slice(line.as_bytes());
    }
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(at)?;
    let before = cpu_nanos(adapter.process.pid());
    let until = Instant::now() + Duration::from_secs(effort.seconds);
    while Instant::now() < until {
        for packet in &packets {
            socket.send(packet)?;
        }
    }
    // What is in the socket's queue still.
    std::thread::sleep(Duration::from_millis(500));
    let cpu = cpu_nanos(adapter.process.pid()) - before;
    let text = http::get(adapter.addr, "/metrics")?.text();
    let counted: f64 = text
        .lines()
        .filter(|line| line.starts_with("bench_counter_"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    anyhow::ensure!(counted > 0.0, "no line was counted");
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    Ok(counted * 1e9 / cpu as f64)
}

fn report(all: &[Adapter], statsd: &[f64], binary: &Path, effort: Effort) -> Result<()> {
    let mut versions = size::peers(binary, &[]);
    for name in [
        "prometheus-redis-exporter",
        "prometheus-mysqld-exporter",
        "prometheus-postgres-exporter",
    ] {
        versions.push((name, first_line(name, &["--version"])));
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
    report.table(
        "statsd, UDP packets of 1,400 bytes, 1,000 counters with two tags",
        &["", "lines a CPU second"],
        &[vec!["podkit".to_owned(), rounds(statsd)]],
    );
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
    goal(
        "statsd: at least a million lines a CPU second".to_owned(),
        stats::median(statsd),
        1e6,
        false,
    );
    report.goals(&goals);
    report.finish(effort)
}
