//! docs/benchmarks/http.md.

use anyhow::{Context, Result};
use podkit_testkit::stats;

use super::Ground;
use super::cases::{Figures, Measured, Unit};
use super::idle::Idle;
use super::latency::AtRate;
use super::quota;
use super::servers::{Front, Way, Who};
use crate::bench::report::{Goal, Report, figure, rounds};
use crate::bench::{Effort, LOAD_CORE, SERVER_CORE, size};
use crate::machine::envoy_version;

pub(super) fn write(
    ground: &Ground,
    measured: &[Measured],
    idle: &[Idle],
    latency: &AtRate,
    effort: Effort,
) -> Result<()> {
    let mut versions = size::peers(
        &ground.podkit,
        &["nginx", "haproxy", "caddy", "h2load", "wrk"],
    );
    versions.push(("envoy", envoy_version(ground.envoy.as_deref())));
    let mut report = Report::new("http", "A reverse proxy for HTTP", &versions, effort);
    report.paragraph(&format!(
        "Each server has one worker on core {SERVER_CORE} and the same plain nginx behind it, which is on core {LOAD_CORE} with the load. Each adds \
         X-Forwarded-For and -Proto. CPU is user and system time of all of a server's processes. Kept-alive: 64 connections of h2load, answers of 100 bytes; \
         bodies of 1 MiB: 4 connections; a connection for each request: wrk. Requests per second are with the server bound to {} by a cgroup, so that it is what \
         holds the load up. System calls are strace's count over 20,000 requests.",
        quota::WORDS
    ));
    let mut goals = Vec::new();
    for one in measured {
        goals.extend(case(&mut report, one)?);
    }
    goals.push(unix_gain(measured)?);
    goals.push(limit_cost(measured)?);
    goals.extend(idle_table(&mut report, idle));
    goals.push(latency_table(&mut report, latency)?);
    report.goals(&goals);
    report.finish(effort)
}

fn median(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| stats::median(samples))
}

fn shown(samples: &[f64]) -> String {
    match samples {
        [] => "—".to_owned(),
        some => rounds(some),
    }
}

/// The best of nginx and HAProxy: what the goals are held against. Envoy and Caddy are shown.
fn best(measured: &Measured, of: impl Fn(&Figures) -> Option<f64>, less: bool) -> Option<f64> {
    let both = [Who::Nginx, Who::Haproxy];
    let all = both.iter().filter_map(|who| of(measured.of(*who)?));
    all.reduce(if less { f64::min } else { f64::max })
}

fn case(report: &mut Report, measured: &Measured) -> Result<Option<Goal>> {
    let case = &measured.case;
    let less = case.unit == Unit::Micros;
    let best =
        best(measured, |figures| median(&figures.cost), less).context("a peer was measured")?;
    let rows: Vec<Vec<String>> = measured
        .figures
        .iter()
        .map(|figures| {
            vec![
                figures.who.name().to_owned(),
                rounds(&figures.cost),
                figure(stats::median(&figures.cost) / best),
                shown(&figures.bounded),
                figures.calls.map_or("—".to_owned(), figure),
            ]
        })
        .collect();
    let columns = [
        "server",
        if less {
            "less is better"
        } else {
            "more is better"
        },
        "of the best of nginx and HAProxy",
        "requests per second under a CPU bound",
        "system calls per request",
    ];
    report.table(case.title, &columns, &rows);
    let ours = measured.of(Who::Podkit).context("podkit was measured")?;
    Ok(case.goal.map(|bound| Goal {
        what: format!(
            "{}: at {} {bound} of the best of nginx and HAProxy",
            case.title,
            if less { "most" } else { "least" }
        ),
        measured: stats::median(&ours.cost) / best,
        bound,
        below: less,
        note: "",
    }))
}

/// What a unix socket to the application is worth: podkit's cost with one, of the best cost that the peers have over TCP.
fn unix_gain(measured: &[Measured]) -> Result<Goal> {
    let case = |way: Way| {
        let mut with = measured.iter().filter(|one| one.case.task.way == way);
        with.next().context("it was measured")
    };
    let theirs = best(case(Way::Tcp)?, |figures| median(&figures.cost), true);
    let ours = case(Way::Unix)?
        .of(Who::Podkit)
        .context("podkit was measured")?;
    Ok(Goal {
        what: "a unix socket upstream: at most 0.75 of the best of nginx and HAProxy over TCP"
            .to_owned(),
        measured: stats::median(&ours.cost) / theirs.context("a peer was measured")?,
        bound: 0.75,
        below: true,
        note: "",
    })
}

/// What the limit stage adds, the fields of its answers included: the last case's cost less the first's.
fn limit_cost(measured: &[Measured]) -> Result<Goal> {
    let cost = |limit: bool| {
        let mut with = measured.iter().filter(|one| one.case.task.limit == limit);
        let ours = with.next().and_then(|one| one.of(Who::Podkit));
        ours.map(|figures| stats::median(&figures.cost))
            .context("podkit was measured")
    };
    Ok(Goal {
        what: "the limit stage adds at most 0.5 µs, its answers' fields included".to_owned(),
        measured: cost(true)? - cost(false)?,
        bound: 0.5,
        below: true,
        note: "",
    })
}

fn idle_table(report: &mut Report, idle: &[Idle]) -> Vec<Goal> {
    let front = |front| match front {
        Front::Http => "plain",
        Front::Https => "TLS",
        Front::H2c => "HTTP/2",
    };
    let rows: Vec<Vec<String>> = idle
        .iter()
        .map(|one| {
            vec![
                one.who.name().to_owned(),
                front(one.front).to_owned(),
                one.connections.to_string(),
                figure(one.bytes_each / 1024.0),
            ]
        })
        .collect();
    report.table(
        "Idle connections: KiB of the server's memory each",
        &["server", "", "connections", "KiB each"],
        &rows,
    );
    let ours = idle.iter().filter(|one| one.who == Who::Podkit);
    ours.map(|one| {
        let bound = if one.front == Front::Http { 3.0 } else { 14.0 };
        Goal {
            what: format!(
                "an idle connection, {}: at most {bound} KiB",
                front(one.front)
            ),
            measured: one.bytes_each / 1024.0,
            bound,
            below: true,
            note: "",
        }
    })
    .collect()
}

fn latency_table(report: &mut Report, latency: &AtRate) -> Result<Goal> {
    let rows: Vec<Vec<String>> = latency
        .all
        .iter()
        .map(|one| {
            vec![
                one.who.name().to_owned(),
                rounds(&one.median),
                rounds(&one.p99),
                rounds(&one.p999),
            ]
        })
        .collect();
    report.table(
        &format!(
            "Latency in ms at {} requests per second, from when each was due",
            figure(latency.per_second)
        ),
        &["server", "median", "p99", "p99.9"],
        &rows,
    );
    let p99 = |one: &super::latency::Latency| stats::median(&one.p99);
    let ours = latency
        .all
        .iter()
        .find(|one| one.who == Who::Podkit)
        .map(p99);
    let peers = latency
        .all
        .iter()
        .filter(|one| one.who != Who::Podkit)
        .map(p99);
    Ok(Goal {
        what: "p99 at half load: no worse than the best peer's".to_owned(),
        measured: ours.context("podkit was measured")? / peers.fold(f64::INFINITY, f64::min),
        bound: 1.0,
        below: true,
        note: "",
    })
}
