//! Latency at half load, open loop: requests are due at fixed times whatever became of those before, and each is timed from
//! when it was due, so that a server that stalls is not asked less meanwhile.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use podkit_testkit::{http, stats};

use super::cases::Measured;
use super::servers::{Front, Task, Way, Who, start};
use super::{Ground, NAME};
use crate::bench::{Effort, pin_this_thread};

/// Connections, each with a thread and an equal share of the rate.
const CONNECTIONS: u32 = 32;

/// What was seen of one server, milliseconds, per round.
pub(super) struct Latency {
    pub(super) who: Who,
    pub(super) median: Vec<f64>,
    pub(super) p99: Vec<f64>,
    pub(super) p999: Vec<f64>,
}

/// The latencies and the rate at which they were taken.
pub(super) struct AtRate {
    pub(super) per_second: f64,
    pub(super) all: Vec<Latency>,
}

pub(super) fn measure(ground: &Ground, measured: &[Measured], effort: Effort) -> Result<AtRate> {
    let plain = measured
        .first()
        .context("the first case is the plain one")?;
    // Half of what the slowest of those that are compared can do: the same rate for all.
    let compared = [Who::Podkit, Who::Nginx, Who::Haproxy];
    let rates = compared
        .iter()
        .filter_map(|who| Some(stats::median(&plain.of(*who)?.rate)));
    let per_second = rates.fold(f64::INFINITY, f64::min) / 2.0;
    let task = Task {
        front: Front::Http,
        way: Way::Tcp,
        limit: false,
        connections: 1_000,
    };
    let mut servers = Vec::new();
    for who in Who::ALL {
        if let Some(running) = start(who, ground, task)? {
            servers.push((
                running,
                Latency {
                    who,
                    median: vec![],
                    p99: vec![],
                    p999: vec![],
                },
            ));
        }
    }
    for round in 0..effort.rounds {
        eprintln!("latency, round {} of {}", round + 1, effort.rounds);
        for (running, latency) in &mut servers {
            let seconds = effort.seconds.max(2);
            let millis =
                load(running.addr, per_second, seconds).with_context(|| running.who.name())?;
            latency.median.push(stats::median(&millis));
            latency.p99.push(stats::percentile(&millis, 0.99));
            latency.p999.push(stats::percentile(&millis, 0.999));
        }
    }
    let all = servers.into_iter().map(|(_, latency)| latency).collect();
    Ok(AtRate { per_second, all })
}

/// Milliseconds from when each request was due to its whole answer.
fn load(addr: SocketAddr, per_second: f64, seconds: u64) -> Result<Vec<f64>> {
    let pause = Duration::from_secs_f64(f64::from(CONNECTIONS) / per_second);
    let begin = Instant::now() + Duration::from_millis(50);
    let end = begin + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|at| scope.spawn(move || ask(addr, begin + pause * at / CONNECTIONS, pause, end)))
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().expect("a client does not panic")?);
        }
        Ok(all)
    })
}

fn ask(addr: SocketAddr, first: Instant, pause: Duration, end: Instant) -> Result<Vec<f64>> {
    pin_this_thread()?;
    let mut stream = http::dial(addr)?;
    let request = format!("GET /small HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let mut millis = Vec::new();
    let mut due = first;
    while due < end {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let answer = http::exchange(&mut stream, request.as_bytes())?;
        if answer.status != 200 {
            bail!("answers {}", answer.status);
        }
        millis.push(due.elapsed().as_secs_f64() * 1e3);
        due += pause;
    }
    Ok(millis)
}
