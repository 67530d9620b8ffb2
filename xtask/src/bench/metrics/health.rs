//! `podkit health`: what an answer costs, beside a fixed one of nginx, and what those who ask cost the server that is tried.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podkit_testkit::machine::{cpu_nanos, rss_kib, tree};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::Server;
use podkit_testkit::process::Process;
use podkit_testkit::redis::Redis;
use podkit_testkit::{http, peers, stats, until};

use super::super::report::{Goal, Report, figure, rounds};
use super::super::{Effort, LOAD_CORE, SERVER_CORE};

/// Requests in a second of the effort.
const REQUESTS: u64 = 2000;
/// Who ask once a period.
const PROBERS: usize = 100;
const PERIOD: Duration = Duration::from_millis(500);
const REQUEST: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: app\r\n\r\n";

/// One that tries a Redis, and an nginx that always says yes.
pub(super) struct Health {
    process: Process,
    redis: Redis,
    ours: Asked,
    /// Tries that the server saw in a period.
    tries: Vec<f64>,
    nginx: Server,
    theirs: Asked,
}

/// Who is asked, one request at a time.
struct Asked {
    addr: SocketAddr,
    /// CPU µs a request, on one connection and with a connection each, per round.
    kept: Vec<f64>,
    fresh: Vec<f64>,
}

impl Health {
    pub(super) fn start(binary: &Path) -> Self {
        let redis = Redis::start_on(free_addr(), &[], Some(LOAD_CORE));
        let (addr, admin) = (free_addr(), free_addr());
        let mut command = peers::pinned(Some(SERVER_CORE), binary);
        command.args(["health", "--log-level", "warn"]).args([
            format!("--listen={addr}"),
            format!("--admin={admin}"),
            format!("--probe=store=redis://{}", redis.addr),
            format!("--period={}ms", PERIOD.as_millis()),
        ]);
        let process = Process::spawn("podkit health", &mut command);
        until("podkit health", || {
            assert!(!process.has_ended(), "{}", process.shown());
            let answer = http::get(addr, "/readyz").ok()?;
            (answer.status == 200).then_some(())
        });
        let fixed = free_addr();
        let config = format!(
            "server {{ listen {fixed}; location = /readyz {{ default_type text/plain; return 200 \"ok\\n\"; }} }}"
        );
        Self {
            process,
            redis,
            ours: Asked::new(addr),
            tries: Vec::new(),
            nginx: peers::nginx(&config, None, fixed, Some(SERVER_CORE)),
            theirs: Asked::new(fixed),
        }
    }

    pub(super) fn round(&mut self, effort: Effort) -> Result<()> {
        self.ours.round(&[self.process.pid()], effort)?;
        let workers = tree(self.nginx.process.pid());
        self.theirs.round(&workers, effort)?;
        self.tries.push(self.tries_a_period(effort)?);
        Ok(())
    }

    fn tries_a_period(&self, effort: Effort) -> Result<f64> {
        let (begun, before) = (Instant::now(), self.pings()?);
        let mut probers = Vec::new();
        for _ in 0..PROBERS {
            probers.push(http::dial(self.ours.addr)?);
        }
        let until = begun + Duration::from_secs(effort.seconds);
        let mut next = begun;
        while next < until {
            for prober in &mut probers {
                let status = http::exchange(prober, REQUEST)?.status;
                ensure!(status == 200, "/readyz answers {status}");
            }
            next += PERIOD;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let periods = begun.elapsed().as_secs_f64() / PERIOD.as_secs_f64();
        Ok((self.pings()? - before) / periods)
    }

    /// How many PINGs the server has answered: each try sends one.
    fn pings(&self) -> Result<f64> {
        let text = self.redis.client().line("info commandstats");
        let calls = text.lines().find_map(|line| {
            let rest = line.strip_prefix("cmdstat_ping:calls=")?;
            rest.split(',').next()?.parse().ok()
        });
        calls.context("the server has seen no PING")
    }

    pub(super) fn report(&self, report: &mut Report) -> [Goal; 3] {
        #[expect(clippy::cast_precision_loss, reason = "a size")]
        let mb = rss_kib(self.process.pid()) as f64 * 1024.0 / 1e6;
        let tries = format!("tries that the server saw a period, {PROBERS} probers");
        let rows = [
            (
                "CPU µs, on a kept connection",
                rounds(&self.ours.kept),
                rounds(&self.theirs.kept),
            ),
            (
                "CPU µs, with a connection each",
                rounds(&self.ours.fresh),
                rounds(&self.theirs.fresh),
            ),
            (tries.as_str(), rounds(&self.tries), String::new()),
            ("MB resident", figure(mb), String::new()),
        ];
        report.table(
            "health, one probe of a Redis, `/readyz`, one request at a time",
            &["", "podkit", "nginx, a fixed answer"],
            &rows.map(|(what, ours, theirs)| vec![what.to_owned(), ours, theirs]),
        );
        let goal = |what: &str, measured, bound| Goal {
            what: what.to_owned(),
            measured,
            bound,
            below: true,
            note: "",
        };
        [
            goal(
                "health: `/readyz` at most 30 µs of CPU, on a kept connection",
                stats::median(&self.ours.kept),
                30.0,
            ),
            goal(
                "health: the same with a connection each",
                stats::median(&self.ours.fresh),
                30.0,
            ),
            // A tick may fall on either end of what was looked at.
            goal(
                "health: 100 probers cost one try a period",
                stats::median(&self.tries),
                1.2,
            ),
        ]
    }
}

impl Asked {
    fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            kept: Vec::new(),
            fresh: Vec::new(),
        }
    }

    fn round(&mut self, pids: &[u32], effort: Effort) -> Result<()> {
        let count = REQUESTS * effort.seconds;
        let mut stream = http::dial(self.addr)?;
        let kept = cpu(pids, count, || {
            Ok(http::exchange(&mut stream, REQUEST)?.status)
        })?;
        let fresh = cpu(pids, count, || Ok(http::get(self.addr, "/readyz")?.status))?;
        self.kept.push(kept);
        self.fresh.push(fresh);
        Ok(())
    }
}

/// CPU µs of these processes for each of so many requests.
fn cpu(pids: &[u32], count: u64, mut ask: impl FnMut() -> Result<u16>) -> Result<f64> {
    let spent = || pids.iter().copied().map(cpu_nanos).sum::<u64>();
    let before = spent();
    for _ in 0..count {
        let status = ask()?;
        ensure!(status == 200, "/readyz answers {status}");
    }
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    Ok((spent() - before) as f64 / 1e3 / count as f64)
}
