//! `podkit tls` against nginx and HAProxy: TLS in front of the same plain HTTP server, one worker each, the same certificate
//! (ECDSA P-256), X25519 for all, no resumption.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use podkit_testkit::certs::{Authority, Pair};
use podkit_testkit::machine::{cpu_time_tree, pss_kib, rss_kib, tree};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::{self, Server, haproxy, nginx};
use podkit_testkit::process::{Process, run as run_command};
use podkit_testkit::tls::{Client, Options};
use podkit_testkit::{http, stats, until};

use super::report::{Goal, Report, figure, rounds};
use super::{Effort, LOAD_CORE, SERVER_CORE, pin_this_thread, size};
use crate::machine::require;

const NAME: &str = "localhost";

/// How the peers reach the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    Unix,
}

/// What is measured: a server in front of the upstream.
struct Peer {
    name: &'static str,
    way: Way,
    addr: SocketAddr,
    pid: u32,
    /// Keeps it running.
    _server: Running,
    /// CPU µs per kept-alive request, per round.
    request_micros: Vec<f64>,
    /// Kept-alive requests per second, per round.
    requests: Vec<f64>,
    /// Full handshakes per CPU second, per round.
    handshakes: Vec<f64>,
    /// MB per CPU second, per round, of 1 MiB and of 10 MiB bodies.
    bulk: [Vec<f64>; 2],
    rss_kib: u64,
    pss_kib: u64,
}

#[expect(dead_code, reason = "held so that they run")]
enum Running {
    Peer(Server),
    Podkit(Process, tempfile::TempDir),
}

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&["nginx", "haproxy", "h2load", "taskset"])?;
    let pair = Authority::new("podkit bench").server(&[NAME]);
    let plain = free_addr();
    let upstream = upstream(plain)?;
    let socket = upstream.dir().join("up.sock").display().to_string();

    let mut all = Vec::new();
    for way in [Way::Tcp, Way::Unix] {
        let target = match way {
            Way::Tcp => plain.to_string(),
            Way::Unix => format!("unix:{socket}"),
        };
        all.push(podkit(binary, way, &target, &pair)?);
        all.push(peer_nginx(way, &target, &pair));
        all.push(peer_haproxy(way, &target, &pair));
    }
    for peer in &mut all {
        // At rest, before anything was asked of it.
        let pids = tree(peer.pid);
        peer.rss_kib = pids.iter().map(|pid| rss_kib(*pid)).sum();
        peer.pss_kib = pids.iter().map(|pid| pss_kib(*pid)).sum();
    }
    let agreed = all.iter().map(agreed).collect::<Result<Vec<_>>>()?;

    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        for peer in &mut all {
            measure(peer, effort)?;
        }
    }
    report(&all, &agreed, binary, effort)
}

/// nginx with a fixed answer of 100 bytes and two files, on TCP and on a unix socket.
fn upstream(plain: SocketAddr) -> Result<Server> {
    let body = "x".repeat(100);
    let config = format!(
        "server {{ listen {plain}; listen unix:DIR/up.sock; root DIR;\n\
         location = /small {{ default_type text/plain; return 200 {body}; }} }}"
    );
    let server = nginx(&config, None, plain, Some(LOAD_CORE));
    for (name, bytes) in [("1m", 1 << 20), ("10m", 10 << 20)] {
        std::fs::write(server.dir().join(name), vec![b'x'; bytes])?;
    }
    Ok(server)
}

fn podkit(binary: &Path, way: Way, target: &str, pair: &Pair) -> Result<Peer> {
    let dir = tempfile::tempdir()?;
    let (cert, key) = pair.write(dir.path(), "server");
    let (addr, admin) = (free_addr(), free_addr());
    let mut command = peers::pinned(Some(SERVER_CORE), binary);
    command
        .args(["tls", "--workers", "1", "--log-level", "warn"])
        .args(["--listen", &addr.to_string(), "--admin", &admin.to_string()])
        .args(["--upstream", target])
        .arg("--cert")
        .arg(cert)
        .arg("--key")
        .arg(key);
    let process = Process::spawn("podkit tls", &mut command);
    until("podkit tls", || {
        assert!(!process.has_ended(), "{}", process.shown());
        http::get(admin, "/readyz")
            .ok()
            .filter(|answer| answer.status == 200)
    });
    let pid = process.pid();
    Ok(peer(
        "podkit",
        way,
        addr,
        pid,
        Running::Podkit(process, dir),
    ))
}

fn peer_nginx(way: Way, target: &str, pair: &Pair) -> Peer {
    let addr = free_addr();
    let config = format!(
        "upstream up {{ server {target}; keepalive 128; keepalive_requests 100000000; }}\n\
         server {{ listen {addr} ssl; ssl_certificate DIR/server.crt; ssl_certificate_key DIR/server.key;\n\
         ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519:prime256v1; proxy_max_temp_file_size 0;\n\
         location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Forwarded-Host $host; }} }}"
    );
    let server = nginx(&config, Some(pair), addr, Some(SERVER_CORE));
    let pid = server.process.pid();
    peer("nginx", way, addr, pid, Running::Peer(server))
}

fn peer_haproxy(way: Way, target: &str, pair: &Pair) -> Peer {
    let addr = free_addr();
    let target = target.replace("unix:", "unix@");
    let config = format!(
        "  http-reuse always\n  option forwardfor\n\
         frontend f\n  bind {addr} ssl crt DIR/server.pem curves X25519:P-256 ssl-min-ver TLSv1.2\n\
         \x20 http-request set-header X-Forwarded-Proto https\n\
         \x20 http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
         \x20 default_backend b\n\
         backend b\n  server s {target} pool-max-conn 128\n"
    );
    let server = haproxy(&config, Some(pair), addr, Some(SERVER_CORE));
    let pid = server.process.pid();
    peer("haproxy", way, addr, pid, Running::Peer(server))
}

fn peer(name: &'static str, way: Way, addr: SocketAddr, pid: u32, server: Running) -> Peer {
    Peer {
        name,
        way,
        addr,
        pid,
        _server: server,
        request_micros: Vec::new(),
        requests: Vec::new(),
        handshakes: Vec::new(),
        bulk: [Vec::new(), Vec::new()],
        rss_kib: 0,
        pss_kib: 0,
    }
}

/// What a client that offers X25519 alone agrees on with a server: the same for all, or the comparison is none.
fn agreed(peer: &Peer) -> Result<String> {
    let client = client();
    let mut stream = client
        .connect(peer.addr, NAME)
        .with_context(|| peer.name.to_owned())?;
    let request = format!("GET /small HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let answer = http::exchange(&mut stream, request.as_bytes())?;
    if answer.status != 200 || answer.body.len() != 100 {
        bail!(
            "{} answers {} with {} bytes",
            peer.name,
            answer.status,
            answer.body.len()
        );
    }
    let connection = &stream.conn;
    let suite = connection
        .negotiated_cipher_suite()
        .map(|suite| format!("{:?}", suite.suite()));
    let group = connection
        .negotiated_key_exchange_group()
        .map(|group| format!("{:?}", group.name()));
    Ok(format!(
        "{:?}, {}, {}",
        connection.protocol_version().context("no version")?,
        suite.context("no suite")?,
        group.context("no group")?
    ))
}

fn client() -> Client {
    Client::new(&Options {
        x25519_only: true,
        ..Options::default()
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of one round")]
fn measure(peer: &mut Peer, effort: Effort) -> Result<()> {
    let pid = peer.pid;
    let cpu = |work: &mut dyn FnMut() -> Result<u64>| -> Result<(f64, f64)> {
        let before = cpu_time_tree(pid);
        let done = work()?;
        let spent = cpu_time_tree(pid).saturating_sub(before);
        Ok((done as f64, spent.as_secs_f64().max(0.001)))
    };
    let addr = peer.addr;
    let (count, seconds) = cpu(&mut || load(addr, "/small", 32, effort.seconds))?;
    peer.request_micros.push(seconds * 1e6 / count);
    peer.requests.push(count / effort.seconds as f64);
    for (index, (path, bytes)) in [("/1m", 1 << 20), ("/10m", 10 << 20)]
        .into_iter()
        .enumerate()
    {
        let (count, seconds) = cpu(&mut || load(addr, path, 4, effort.seconds.min(2)))?;
        peer.bulk[index].push(count * f64::from(bytes) / 1e6 / seconds);
    }
    if peer.way == Way::Tcp {
        let (count, seconds) = cpu(&mut || shakes(addr, effort.seconds))?;
        peer.handshakes.push(count / seconds);
    }
    Ok(())
}

/// Requests that were answered within `seconds` over `connections` that are kept. By h2load, not wrk: over TLS wrk 4.1 now and
/// then never asks anything.
fn load(addr: SocketAddr, path: &str, connections: u32, seconds: u64) -> Result<u64> {
    let found = podkit_testkit::program("h2load").context("h2load is missing")?;
    let mut command = peers::pinned(Some(LOAD_CORE), &found);
    command.args(["--h1", "-t1", "-m1"]);
    command.args([
        format!("-c{connections}"),
        format!("-D{seconds}"),
        format!("https://{addr}{path}"),
    ]);
    let output = run_command("h2load", &mut command).ok();
    // requests: 41001 total, 41065 started, 41001 done, 41001 succeeded, 0 failed, 0 errored, 0 timeout
    let line = output.lines().find(|line| line.starts_with("requests:"));
    let line = line.with_context(|| format!("h2load says no count: {output}"))?;
    let count = |word: &str| -> Option<u64> {
        let before = line.split(word).next()?;
        before.trim_end().rsplit([' ', ',']).next()?.parse().ok()
    };
    let (succeeded, failed) = (count("succeeded"), count("failed"));
    if failed != Some(0) || succeeded.is_none_or(|count| count == 0) {
        bail!("{addr}{path}: {line}");
    }
    succeeded.context("h2load says no count")
}

/// Full handshakes within `seconds`, by four clients on the core of the load.
fn shakes(addr: SocketAddr, seconds: u64) -> Result<u64> {
    let client = client();
    let until = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| -> Result<u64> {
                    pin_this_thread()?;
                    let mut count = 0;
                    while Instant::now() < until {
                        client.shake(addr, NAME)?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a client does not panic"))
            .sum()
    })
}

fn report(all: &[Peer], agreed: &[String], binary: &Path, effort: Effort) -> Result<()> {
    let versions = size::peers(binary, &["nginx", "haproxy", "h2load"]);
    let mut report = Report::new("tls", "TLS in front of an HTTP service", &versions, effort);
    report.paragraph(&format!(
        "Each server has one worker on core {SERVER_CORE}, an ECDSA P-256 certificate, and the same plain nginx behind it, which is on core {LOAD_CORE} \
         with the load. Each adds X-Forwarded-For, -Proto and -Host. CPU is user and system time of all of a server's processes. Kept-alive: 32 connections \
         of h2load, answers of 100 bytes. Bulk: 4 connections. Handshakes: full ones, no resumption, nothing asked after them."
    ));
    let rows: Vec<Vec<String>> = all
        .iter()
        .zip(agreed)
        .filter(|(peer, _)| peer.way == Way::Tcp)
        .map(|(peer, agreed)| vec![peer.name.to_owned(), agreed.clone()])
        .collect();
    report.table(
        "What a client that offers X25519 agrees on",
        &["server", ""],
        &rows,
    );

    let mut goals = Vec::new();
    let tables: [(&str, Way, Figure, bool); 6] = [
        (
            "CPU µs per kept-alive request, TCP upstream",
            Way::Tcp,
            |peer| &peer.request_micros,
            true,
        ),
        (
            "CPU µs per kept-alive request, unix socket upstream",
            Way::Unix,
            |peer| &peer.request_micros,
            true,
        ),
        (
            "Full handshakes per CPU second",
            Way::Tcp,
            |peer| &peer.handshakes,
            false,
        ),
        (
            "MB per CPU second, bodies of 1 MiB, TCP upstream",
            Way::Tcp,
            |peer| &peer.bulk[0],
            false,
        ),
        (
            "MB per CPU second, bodies of 10 MiB, TCP upstream",
            Way::Tcp,
            |peer| &peer.bulk[1],
            false,
        ),
        (
            "Kept-alive requests per second, one core, TCP upstream",
            Way::Tcp,
            |peer| &peer.requests,
            false,
        ),
    ];
    for (title, way, figures, less) in tables {
        let ratio = table(&mut report, title, all, way, figures, less);
        let bound = match title {
            _ if title.starts_with("CPU") => 0.95,
            _ if title.starts_with("Kept-alive requests") => continue,
            _ => 1.0,
        };
        goals.push(Goal {
            what: format!(
                "{title}: {} {bound} of the best peer",
                if less { "at most" } else { "at least" }
            ),
            measured: ratio,
            bound,
            below: less,
            note: "",
        });
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .filter(|peer| peer.way == Way::Tcp)
        .map(|peer| {
            vec![
                peer.name.to_owned(),
                peer.rss_kib.to_string(),
                peer.pss_kib.to_string(),
            ]
        })
        .collect();
    report.table(
        "Memory at rest, KiB, all processes of a server",
        &["server", "resident", "proportional (PSS)"],
        &rows,
    );
    let ours = all
        .iter()
        .find(|peer| peer.name == "podkit")
        .context("podkit was measured")?;
    #[expect(clippy::cast_precision_loss, reason = "KiB of one process")]
    goals.push(Goal {
        what: "an idle tls at most 6 MB resident".to_owned(),
        measured: ours.rss_kib as f64 * 1024.0 / 1e6,
        bound: 6.0,
        below: true,
        note: "",
    });
    report.goals(&goals);
    report.finish(effort)
}

type Figure = fn(&Peer) -> &Vec<f64>;

/// One figure of all peers of one way, and podkit's ratio to the best of the others.
fn table(
    report: &mut Report,
    title: &str,
    all: &[Peer],
    way: Way,
    figures: Figure,
    less: bool,
) -> f64 {
    let these: Vec<&Peer> = all.iter().filter(|peer| peer.way == way).collect();
    let others = these.iter().filter(|peer| peer.name != "podkit");
    let others = others.map(|peer| stats::median(figures(peer)));
    let best = if less {
        others.fold(f64::INFINITY, f64::min)
    } else {
        others.fold(0.0, f64::max)
    };
    let mut ours = 0.0;
    let rows: Vec<Vec<String>> = these
        .iter()
        .map(|peer| {
            let ratio = stats::median(figures(peer)) / best;
            if peer.name == "podkit" {
                ours = ratio;
            }
            vec![peer.name.to_owned(), rounds(figures(peer)), figure(ratio)]
        })
        .collect();
    report.table(
        title,
        &[
            "server",
            if less {
                "less is better"
            } else {
                "more is better"
            },
            "of the best peer",
        ],
        &rows,
    );
    ours
}
