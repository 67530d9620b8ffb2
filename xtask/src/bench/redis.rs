//! `podkit shard` against nutcracker (twemproxy), predixy and Envoy: one worker each, in front of the same Redis servers, which share a core with
//! redis-benchmark.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use podkit_testkit::machine::{cpu_nanos, rss_kib};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers;
use podkit_testkit::process::run as run_command;
use podkit_testkit::redis::{Client, Redis};
use podkit_testkit::{program, stats};

use super::report::{Goal, Report, figure, rounds};
use super::sharding::{Proxy, envoy, first_line, nutcracker, podkit, predixy};
use super::{Effort, LOAD_CORE, pin_this_thread, size};
use crate::machine::{self, require};

/// Servers behind each proxy: one, and several.
const SHARDS: [usize; 2] = [1, 4];
/// Clients of redis-benchmark.
const CLIENTS: usize = 50;
/// What shortens the way of a single command.
const BUSY: &str = "--busy-poll=1ms";
/// What saves the most CPU time.
const EAGER: &str = "--coalesce=eager";
/// Its row.
const PODKIT_EAGER: &str = "podkit --coalesce=eager";
/// Clients for the resident memory.
const MANY_CLIENTS: usize = 1000;

/// What is asked.
struct Case {
    name: &'static str,
    command: &'static str,
    /// Servers behind the proxy.
    shards: usize,
    pipeline: usize,
    /// podkit's share of the peer's operations per CPU second that is the goal.
    goal: f64,
}

const CASES: [Case; 7] = [
    Case::new("GET, one server, -P 1", "get", 1, 1, 1.3),
    Case::new("SET, one server, -P 1", "set", 1, 1, 1.3),
    Case::new("GET, one server, -P 16", "get", 1, 16, 2.0),
    Case::new("SET, one server, -P 16", "set", 1, 16, 2.0),
    Case::new("GET, four servers, -P 1", "get", 4, 1, 1.3),
    Case::new("GET, four servers, -P 16", "get", 4, 16, 2.0),
    Case::new("MGET of 100 keys, four servers", "mget", 4, 1, 2.0),
];

impl Case {
    const fn new(
        name: &'static str,
        command: &'static str,
        shards: usize,
        pipeline: usize,
        goal: f64,
    ) -> Self {
        Self {
            name,
            command,
            shards,
            pipeline,
            goal,
        }
    }

    /// Operations in a second of the effort, about.
    fn count(&self) -> usize {
        match (self.command, self.pipeline) {
            ("mget", _) => 2_000,
            (_, 1) => 20_000,
            _ => 100_000,
        }
    }
}

/// A proxy that is measured.
struct Peer {
    proxy: Proxy,
    /// Operations per CPU second, per case and round.
    per_cpu: [Vec<f64>; CASES.len()],
    /// p99 in ms, likewise.
    p99: [Vec<f64>; CASES.len()],
    /// µs more than directly, at the median of one client.
    added: Vec<f64>,
    many_kib: u64,
}

impl Peer {
    fn new(proxy: Proxy) -> Self {
        Self {
            proxy,
            per_cpu: Default::default(),
            p99: Default::default(),
            added: Vec::new(),
            many_kib: 0,
        }
    }
}

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&["redis-server", "redis-benchmark", "nutcracker", "taskset"])?;
    let most = SHARDS.into_iter().max().unwrap_or(1);
    let servers: Vec<Redis> = (0..most)
        .map(|_| Redis::start_on(free_addr(), &[], Some(LOAD_CORE)))
        .collect();
    let addrs: Vec<SocketAddr> = servers.iter().map(|server| server.addr).collect();
    let found = machine::envoy();
    let mut all = Vec::new();
    for shards in SHARDS {
        all.push(Peer::new(podkit(binary, &addrs[..shards], &[])));
        let mut eager = podkit(binary, &addrs[..shards], &[EAGER]);
        eager.name = PODKIT_EAGER;
        all.push(Peer::new(eager));
        all.push(Peer::new(nutcracker(&addrs[..shards], "redis: true")?));
        all.extend(predixy(&addrs[..shards])?.map(Peer::new));
        all.extend(envoy(found.as_deref(), &addrs[..shards])?.map(Peer::new));
    }
    let mut busy = Peer::new(podkit(binary, &addrs[..1], &[BUSY]));
    pin_this_thread()?;
    for peer in &all {
        // What MGET and GET find.
        let mut client = Client::connect(peer.proxy.addr);
        for at in 0..1000 {
            let value = "x".repeat(64);
            client.ask(&["SET", &format!("key:{at:012}"), &value]);
        }
    }
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        for (at, case) in CASES.iter().enumerate() {
            for peer in all
                .iter_mut()
                .filter(|peer| peer.proxy.shards == case.shards)
            {
                let (per_cpu, p99) = measure(peer, case, effort)?;
                peer.per_cpu[at].push(per_cpu);
                peer.p99[at].push(p99);
            }
        }
        // One key, one shard: the same server directly.
        let direct = latency(addrs[0])?;
        let one = all.iter_mut().filter(|peer| peer.proxy.shards == 1);
        for peer in one.chain([&mut busy]) {
            let through = latency(peer.proxy.addr)?;
            peer.added.push(through - direct);
        }
    }
    for peer in all.iter_mut().filter(|peer| peer.proxy.shards > 1) {
        let clients: Vec<Client> = (0..MANY_CLIENTS)
            .map(|_| {
                let mut client = Client::connect(peer.proxy.addr);
                client.ask(&["GET", "key:000000000001"]);
                client
            })
            .collect();
        peer.many_kib = rss_kib(peer.proxy.pid);
        drop(clients);
    }
    report(&all, &busy, binary, found.as_deref(), effort)
}

/// Operations per CPU second, and p99 in ms.
fn measure(peer: &Peer, case: &Case, effort: Effort) -> Result<(f64, f64)> {
    let count = case.count() * usize::try_from(effort.seconds)?;
    let mut command = peers::pinned(
        Some(LOAD_CORE),
        &program("redis-benchmark").context("redis-benchmark")?,
    );
    command
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &peer.proxy.addr.port().to_string(),
            "--csv",
            "-d",
            "64",
            "-r",
            "1000",
        ])
        .args([
            "-c",
            &CLIENTS.to_string(),
            "-n",
            &count.to_string(),
            "-P",
            &case.pipeline.to_string(),
        ]);
    match case.command {
        "mget" => {
            command.arg("mget");
            command.args((0..100).map(|at| format!("key:{:012}", at * 7 % 1000)));
        }
        name => {
            command.args(["-t", name]);
        }
    }
    let before = cpu_nanos(peer.proxy.pid);
    let finished = run_command("redis-benchmark", &mut command);
    let cpu = cpu_nanos(peer.proxy.pid) - before;
    let line = finished
        .out
        .lines()
        .rfind(|line| line.starts_with('"') && !line.starts_with("\"test\""));
    let fields: Vec<f64> = line
        .unwrap_or_default()
        .split(',')
        .skip(1)
        .filter_map(|field| field.trim_matches('"').parse().ok())
        .collect();
    // rps, avg, min, p50, p95, p99, max
    let [_, _, _, _, _, p99, _] = fields.as_slice() else {
        bail!(
            "{}: redis-benchmark says {}{}",
            peer.proxy.name,
            finished.out,
            finished.err
        );
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    Ok((count as f64 * 1e9 / cpu as f64, *p99))
}

/// µs of a GET by one client, the median of many.
fn latency(addr: SocketAddr) -> Result<f64> {
    let mut client = Client::connect(addr);
    let mut micros = Vec::new();
    for _ in 0..3000 {
        let begun = Instant::now();
        client.ask(&["GET", "key:000000000001"]);
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(stats::median(&micros))
}

fn report(
    all: &[Peer],
    busy: &Peer,
    binary: &Path,
    envoy: Option<&Path>,
    effort: Effort,
) -> Result<()> {
    let with = |shards: usize| all.iter().filter(move |peer| peer.proxy.shards == shards);
    let ours = |shards: usize, name: &str| {
        let mut found = with(shards);
        found
            .find(|peer| peer.proxy.name == name)
            .expect("it was measured")
    };
    let mut versions = size::peers(binary, &[]);
    versions.push(("nutcracker", first_line("nutcracker", &["--version"])));
    versions.push(("predixy", first_line("predixy", &["--version"])));
    versions.push(("envoy", machine::envoy_version(envoy)));
    versions.push(("redis-server", first_line("redis-server", &["--version"])));
    let mut report = Report::new("redis", "Shards of Redis", &versions, effort);
    report.paragraph(&format!(
        "The redis-servers and redis-benchmark ({CLIENTS} clients, values of 64 bytes, 1,000 keys) on one core, each proxy with one worker on the other. \
         Operations per second of the proxy's CPU time."
    ));
    let columns = [
        "server",
        "operations per CPU second",
        "of the best peer",
        "p99 ms",
    ];
    let mut goals = Vec::new();
    for (at, case) in CASES.iter().enumerate() {
        let rate = |peer: &Peer| stats::median(&peer.per_cpu[at]);
        let peers = with(case.shards).filter(|peer| !peer.proxy.name.starts_with("podkit"));
        let best = peers.map(rate).fold(0.0, f64::max);
        let rows: Vec<Vec<String>> = with(case.shards)
            .map(|peer| {
                vec![
                    peer.proxy.name.to_owned(),
                    rounds(&peer.per_cpu[at]),
                    figure(rate(peer) / best),
                    rounds(&peer.p99[at]),
                ]
            })
            .collect();
        report.table(case.name, &columns, &rows);
        for (name, how) in [("podkit", ""), (PODKIT_EAGER, ", with --coalesce=eager")] {
            goals.push(Goal {
                what: format!(
                    "{}: operations per CPU second, of the best peer's{how}",
                    case.name
                ),
                measured: rate(ours(case.shards, name)) / best,
                bound: case.goal,
                below: false,
                note: "",
            });
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a size")]
    let mib = |kib: u64| kib as f64 / 1024.0;
    let [one, many] = SHARDS;
    let mut rows: Vec<Vec<String>> = with(one)
        .zip(with(many))
        .map(|(alone, many)| {
            vec![
                alone.proxy.name.to_owned(),
                rounds(&alone.added),
                figure(mib(many.many_kib)),
            ]
        })
        .collect();
    rows.insert(
        2,
        vec![
            format!("podkit {BUSY}"),
            rounds(&busy.added),
            "not measured".to_owned(),
        ],
    );
    report.table(
        "Latency and memory",
        &[
            "",
            "µs added to a GET, median",
            "MiB resident with 1,000 clients",
        ],
        &rows,
    );
    goals.push(Goal {
        what: format!("µs added to a GET of one client, {BUSY}"),
        measured: stats::median(&busy.added),
        bound: 60.0,
        below: true,
        note: "",
    });
    goals.push(Goal {
        what: "µs added to a GET of one client".to_owned(),
        measured: stats::median(&ours(one, "podkit").added),
        bound: 60.0,
        below: true,
        note: "",
    });
    goals.push(Goal {
        what: format!("MiB resident with {MANY_CLIENTS} clients"),
        measured: mib(ours(many, "podkit").many_kib),
        bound: 8.0,
        below: true,
        note: "",
    });
    report.goals(&goals);
    report.finish(effort)
}
