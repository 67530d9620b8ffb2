//! `podkit shard --protocol memcached` against nutcracker (twemproxy): one worker each, in front of the same memcached servers, which share a
//! core with the load.
//!
//! The load is made here, since no program for it is packaged: all clients ask, and then all are read, again and again. So the proxy sees
//! many clients at a time and is never left without work for longer than that takes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use podkit_testkit::machine::cpu_nanos;
use podkit_testkit::memcached::{Client, Memcached};
use podkit_testkit::net::free_addr;
use podkit_testkit::stats;

use super::report::{Goal, Report, figure, rounds};
use super::sharding::{Proxy, first_line, nutcracker, podkit};
use super::{Effort, LOAD_CORE, pin_this_thread, size};
use crate::machine::require;

/// Servers behind each proxy: one, and several.
const SHARDS: [usize; 2] = [1, 4];
/// Clients of the load.
const CLIENTS: usize = 50;
/// Keys that there are.
const KEYS: usize = 1000;
/// Bytes of a value.
const VALUE: usize = 64;

/// What is asked.
struct Case {
    name: &'static str,
    kind: Kind,
    /// Servers behind the proxy.
    shards: usize,
    pipeline: usize,
    /// podkit's share of the peer's operations per CPU second that is the goal.
    goal: f64,
}

#[derive(Clone, Copy)]
enum Kind {
    Get,
    Set,
    /// get of so many keys.
    Many(usize),
}

const CASES: [Case; 6] = [
    Case::new("get, one server, one at a time", Kind::Get, 1, 1, 1.3),
    Case::new("set, one server, one at a time", Kind::Set, 1, 1, 1.3),
    Case::new("get, one server, 16 at a time", Kind::Get, 1, 16, 2.0),
    Case::new("get, four servers, one at a time", Kind::Get, 4, 1, 1.3),
    Case::new("get, four servers, 16 at a time", Kind::Get, 4, 16, 2.0),
    Case::new("get of 100 keys, four servers", Kind::Many(100), 4, 1, 2.0),
];

impl Case {
    const fn new(
        name: &'static str,
        kind: Kind,
        shards: usize,
        pipeline: usize,
        goal: f64,
    ) -> Self {
        Self {
            name,
            kind,
            shards,
            pipeline,
            goal,
        }
    }

    /// What a client sends in a turn, and how long the replies to it are.
    fn turn(&self, client: usize) -> (Vec<u8>, usize) {
        let (mut request, mut length) = (String::new(), 0);
        for at in 0..self.pipeline {
            let first = (client * 31 + at * 7) % KEYS;
            let value = |at: usize| format!("VALUE {} 0 {VALUE}\r\n", key(at)).len() + VALUE + 2;
            match self.kind {
                Kind::Get => {
                    request += &format!("get {}\r\n", key(first));
                    length += value(first) + "END\r\n".len();
                }
                Kind::Set => {
                    request += &set(first);
                    length += "STORED\r\n".len();
                }
                Kind::Many(count) => {
                    request += "get";
                    for at in (0..count).map(|at| (first + at * 7) % KEYS) {
                        request += " ";
                        request += &key(at);
                        length += value(at);
                    }
                    request += "\r\n";
                    length += "END\r\n".len();
                }
            }
        }
        (request.into_bytes(), length)
    }
}

fn key(at: usize) -> String {
    format!("key:{at:012}")
}

fn set(at: usize) -> String {
    format!("set {} 0 0 {VALUE}\r\n{}\r\n", key(at), "x".repeat(VALUE))
}

/// A proxy that is measured.
struct Peer {
    proxy: Proxy,
    /// Operations per CPU second, per case and round.
    per_cpu: [Vec<f64>; CASES.len()],
}

impl Peer {
    fn new(proxy: Proxy) -> Self {
        let per_cpu = Default::default();
        Self { proxy, per_cpu }
    }
}

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&["memcached", "nutcracker", "taskset"])?;
    let most = SHARDS.into_iter().max().unwrap_or(1);
    let servers: Vec<Memcached> = (0..most)
        .map(|_| Memcached::start_on(free_addr(), Some(LOAD_CORE)))
        .collect();
    let addrs: Vec<SocketAddr> = servers.iter().map(|server| server.addr).collect();
    let mut all = Vec::new();
    for shards in SHARDS {
        let protocol = ["--protocol", "memcached"];
        all.push(Peer::new(podkit(binary, &addrs[..shards], &protocol)));
        all.push(Peer::new(nutcracker(&addrs[..shards], "redis: false")?));
    }
    pin_this_thread()?;
    for peer in &all {
        // What is asked for is there, wherever the proxy looks for it.
        let mut client = Client::connect(peer.proxy.addr);
        for at in 0..KEYS {
            client.exchange(set(at).as_bytes(), usize::MAX, "STORED\r\n");
        }
    }
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        for (at, case) in CASES.iter().enumerate() {
            for peer in all
                .iter_mut()
                .filter(|peer| peer.proxy.shards == case.shards)
            {
                let per_cpu = measure(peer, case, effort)?;
                peer.per_cpu[at].push(per_cpu);
            }
        }
    }
    report(&all, binary, effort)
}

/// Operations per CPU second.
fn measure(peer: &Peer, case: &Case, effort: Effort) -> Result<f64> {
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let stream = TcpStream::connect(peer.proxy.addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (request, length) = case.turn(client);
        clients.push((stream, request, vec![0; length]));
    }
    let (mut turns, begun) = (0_usize, Instant::now());
    let before = cpu_nanos(peer.proxy.pid);
    while begun.elapsed() < Duration::from_secs(effort.seconds) {
        for (stream, request, _) in &mut clients {
            stream.write_all(request)?;
        }
        for (stream, _, reply) in &mut clients {
            stream.read_exact(reply)?;
        }
        turns += 1;
    }
    let cpu = cpu_nanos(peer.proxy.pid) - before;
    for (_, _, reply) in &clients {
        let whole = reply.ends_with(b"END\r\n") || reply.ends_with(b"STORED\r\n");
        ensure!(
            whole,
            "{}: {:?}",
            peer.proxy.name,
            String::from_utf8_lossy(reply)
        );
    }
    let count = turns * CLIENTS * case.pipeline;
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    Ok(count as f64 * 1e9 / cpu as f64)
}

fn report(all: &[Peer], binary: &Path, effort: Effort) -> Result<()> {
    let of = |name: &str, shards: usize| {
        let mut found = all.iter();
        found
            .find(|peer| peer.proxy.name == name && peer.proxy.shards == shards)
            .expect("it was measured")
    };
    let mut versions = size::peers(binary, &[]);
    versions.push(("nutcracker", first_line("nutcracker", &["--version"])));
    versions.push(("memcached", first_line("memcached", &["--version"])));
    let mut report = Report::new("memcached", "Shards of memcached", &versions, effort);
    report.paragraph(&format!(
        "The memcached servers and the load ({CLIENTS} clients, values of {VALUE} bytes, {KEYS} keys) on one core, each proxy with one worker on the other. \
         Operations per second of the proxy's CPU time."
    ));
    let columns = ["", "podkit", "nutcracker", "podkit / nutcracker"];
    let (mut goals, mut rows) = (Vec::new(), Vec::new());
    for (at, case) in CASES.iter().enumerate() {
        let [ours, theirs] = ["podkit", "nutcracker"].map(|name| of(name, case.shards));
        let [mine, peers] = [ours, theirs].map(|peer| stats::median(&peer.per_cpu[at]));
        rows.push(vec![
            case.name.to_owned(),
            rounds(&ours.per_cpu[at]),
            rounds(&theirs.per_cpu[at]),
            figure(mine / peers),
        ]);
        goals.push(Goal {
            what: format!("{}: operations per CPU second, of nutcracker's", case.name),
            measured: mine / peers,
            bound: case.goal,
            below: false,
            note: "",
        });
    }
    report.table("Operations per CPU second", &columns, &rows);
    report.goals(&goals);
    report.finish(effort)
}
