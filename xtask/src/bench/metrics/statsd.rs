//! statsd: how fast lines are counted, and how large what is counted is.

use std::io::{BufWriter, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podkit_testkit::machine::{cpu_nanos, rss_kib};
use podkit_testkit::net::free_addr;
use podkit_testkit::{http, stats};

use super::super::Effort;
use super::super::report::{Goal, Report, figure, rounds};
use super::{Adapter, ours};

/// Bytes of a packet at most: what fits into an Ethernet frame.
const PACKET: usize = 1400;
/// Names of the counters that are sent.
const NAMES: usize = 1000;
/// How many series there are when their size is taken: as many as may be unless `max-series` says more, and some more; one table of all
/// of the latter would be less than half full.
const SERIES: [usize; 2] = [100_000, 230_000];
/// What a series is made of.
const KINDS: [(&str, &str); 3] = [
    (
        "counters, three tags",
        "app.request:1|c|#route:rAT,env:prod,host:web1",
    ),
    (
        "counters, a name each",
        "app.request.route.rAT.prod.web1:1|c",
    ),
    ("gauges, a name each", "app.request.route.rAT.prod.web1:1|g"),
];

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Statsd {
    lines: Vec<f64>,
    /// Of each kind, at each count.
    bytes: Vec<[f64; SERIES.len()]>,
}

impl Statsd {
    pub(super) fn round(&mut self, binary: &Path, effort: Effort) -> Result<()> {
        self.lines.push(lines_per_cpu_second(binary, effort)?);
        Ok(())
    }

    pub(super) fn sizes(&mut self, binary: &Path) -> Result<()> {
        for (_, line) in KINDS {
            let mut bytes = [0.0; SERIES.len()];
            for (bytes, count) in bytes.iter_mut().zip(SERIES) {
                *bytes = bytes_a_series(binary, line, count)?;
            }
            self.bytes.push(bytes);
        }
        Ok(())
    }

    pub(super) fn report(&self, report: &mut Report) -> [Goal; 2] {
        report.table(
            "statsd, UDP packets of 1,400 bytes, 1,000 counters with two tags",
            &["", "lines a CPU second"],
            &[vec!["podkit".to_owned(), rounds(&self.lines)]],
        );
        let counts = SERIES.map(|count| format!("{count} of them"));
        let columns: Vec<&str> = ["series"]
            .into_iter()
            .chain(counts.iter().map(String::as_str))
            .collect();
        let rows: Vec<Vec<String>> = KINDS
            .iter()
            .zip(&self.bytes)
            .map(|((kind, _), bytes)| {
                let figures = bytes.iter().copied().map(figure);
                [(*kind).to_owned()].into_iter().chain(figures).collect()
            })
            .collect();
        report.table("statsd, resident bytes a series", &columns, &rows);
        let most = self.bytes.iter().flatten().copied().fold(0.0, f64::max);
        [
            Goal {
                what: "statsd: at least a million lines a CPU second".to_owned(),
                measured: stats::median(&self.lines),
                bound: 1e6,
                below: false,
                note: "",
            },
            Goal {
                what: "statsd: at most 200 bytes a series".to_owned(),
                measured: most,
                bound: 200.0,
                below: true,
                note: "",
            },
        ]
    }
}

/// Counters in packets, as fast as they are taken: lines that were counted, by seconds of CPU.
fn lines_per_cpu_second(binary: &Path, effort: Effort) -> Result<f64> {
    let (adapter, at) = start(binary, "proto=udp;read-buffer=64Mi");
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
    ensure!(counted > 0.0, "no line was counted");
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    Ok(counted * 1e9 / cpu as f64)
}

/// So many series of a kind, each with one sample, in a process of their own: what its resident memory grew by.
fn bytes_a_series(binary: &Path, line: &str, count: usize) -> Result<f64> {
    let (adapter, at) = start(binary, "proto=tcp;max-series=1000000");
    let before = rss_kib(adapter.process.pid());
    let mut stream = TcpStream::connect(at)?;
    let mut writer = BufWriter::new(&stream);
    for at in 0..count {
        writeln!(writer, "{}", line.replace("AT", &at.to_string()))?;
    }
    writer.flush()?;
    drop(writer);
    // It ends the connection when it has read all of it.
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    let grown = (rss_kib(adapter.process.pid()) - before) * 1024;
    let text = http::get(adapter.addr, "/metrics")?.text();
    let seen = text
        .lines()
        .filter(|line| line.starts_with("app_request"))
        .count();
    ensure!(seen == count, "{seen} of {count} series are there");
    #[expect(clippy::cast_precision_loss, reason = "a size")]
    Ok(grown as f64 / count as f64)
}

fn start(binary: &Path, keys: &str) -> (Adapter, SocketAddr) {
    let at = free_addr();
    let source = format!("statsd://{at};{keys}");
    (ours(binary, "statsd", &[source]), at)
}
