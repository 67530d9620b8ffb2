//! The cases: what is asked of each server, and what is counted.

use anyhow::{Context, Result};
use podkit_testkit::machine::cpu_time_tree;

use super::Ground;
use super::load::{Load, Until};
use super::quota::Quota;
use super::servers::{Front, Running, Task, Way, Who, start};
use super::syscalls;
use crate::bench::Effort;

/// What a case compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// CPU µs per request: less is better.
    Micros,
    /// MB of body per CPU second: more is better.
    Megabytes,
}

/// One thing to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) title: &'static str,
    pub(super) task: Task,
    pub(super) load: Load,
    pub(super) unit: Unit,
    /// The goal: podkit's figure over the best peer's, at most (µs) or at least (MB).
    pub(super) goal: Option<f64>,
    /// Requests per second under a bound on CPU, and system calls, are measured too.
    pub(super) whole: bool,
}

const TASK: Task = Task {
    front: Front::Http,
    way: Way::Tcp,
    limit: false,
    connections: 1_000,
};
const LOAD: Load = Load {
    front: Front::Http,
    path: "/small",
    connections: 64,
    streams: 1,
    fresh: false,
};
const BULK_BYTES: f64 = 1_048_576.0;

/// In the order of the page. The first and the last are compared: what the limit stage costs.
pub(super) const CASES: [Case; 7] = [
    Case {
        title: "CPU µs per kept-alive request, TCP upstream",
        task: TASK,
        load: LOAD,
        unit: Unit::Micros,
        goal: Some(0.95),
        whole: true,
    },
    Case {
        title: "CPU µs per kept-alive request, unix socket upstream",
        task: Task {
            way: Way::Unix,
            ..TASK
        },
        load: LOAD,
        unit: Unit::Micros,
        // Held against the peers over TCP, by itself.
        goal: None,
        whole: true,
    },
    Case {
        title: "CPU µs per kept-alive request over TLS",
        task: Task {
            front: Front::Https,
            ..TASK
        },
        load: Load {
            front: Front::Https,
            ..LOAD
        },
        unit: Unit::Micros,
        goal: Some(0.95),
        whole: true,
    },
    Case {
        title: "CPU µs per request, HTTP/2 down (8 connections of 8 streams), HTTP/1.1 up",
        task: Task {
            front: Front::H2c,
            ..TASK
        },
        load: Load {
            front: Front::H2c,
            connections: 8,
            streams: 8,
            ..LOAD
        },
        unit: Unit::Micros,
        goal: Some(0.95),
        whole: true,
    },
    Case {
        title: "MB per CPU second, bodies of 1 MiB",
        task: TASK,
        load: Load {
            path: "/1m",
            connections: 4,
            ..LOAD
        },
        unit: Unit::Megabytes,
        goal: Some(1.0),
        whole: false,
    },
    Case {
        title: "CPU µs per request, a connection for each",
        task: TASK,
        load: Load {
            fresh: true,
            ..LOAD
        },
        unit: Unit::Micros,
        goal: Some(0.95),
        whole: false,
    },
    Case {
        title: "CPU µs per kept-alive request with a limit by client address",
        task: Task {
            limit: true,
            ..TASK
        },
        load: LOAD,
        unit: Unit::Micros,
        goal: Some(0.95),
        whole: true,
    },
];

/// What was measured of one server in one case.
pub(super) struct Figures {
    pub(super) who: Who,
    /// In the case's unit, per round.
    pub(super) cost: Vec<f64>,
    /// Requests per second on a whole core, per round.
    pub(super) rate: Vec<f64>,
    /// Requests per second under the bound on CPU, per round; empty where not measured.
    pub(super) bounded: Vec<f64>,
    /// System calls per request, where measured.
    pub(super) calls: Option<f64>,
}

/// A case and what came of it.
pub(super) struct Measured {
    pub(super) case: Case,
    pub(super) figures: Vec<Figures>,
}

impl Measured {
    pub(super) fn of(&self, who: Who) -> Option<&Figures> {
        self.figures.iter().find(|figures| figures.who == who)
    }
}

pub(super) fn measure(ground: &Ground, effort: Effort) -> Result<Vec<Measured>> {
    let each = CASES.iter().map(|case| {
        eprintln!("{}", case.title);
        one(ground, *case, effort).with_context(|| case.title)
    });
    each.collect()
}

fn one(ground: &Ground, case: Case, effort: Effort) -> Result<Measured> {
    let mut servers: Vec<(Running, Figures)> = Vec::new();
    for who in Who::ALL {
        if let Some(running) = start(who, ground, case.task)? {
            let figures = Figures {
                who,
                cost: Vec::new(),
                rate: Vec::new(),
                bounded: Vec::new(),
                calls: None,
            };
            servers.push((running, figures));
        }
    }
    for (running, _) in &servers {
        // Its connections to the upstream are open, its memory is touched.
        warm_up(running, case.load)?;
    }
    for round in 0..effort.rounds {
        eprintln!("  round {} of {}", round + 1, effort.rounds);
        for (running, figures) in &mut servers {
            cost(running, figures, case, effort)?;
        }
    }
    if case.whole {
        for (running, figures) in &mut servers {
            figures.calls = Some(syscalls::per_request(
                running.pid(),
                running.addr,
                case.load,
            )?);
        }
        if let Some(quota) = Quota::new() {
            for (running, _) in &servers {
                quota.hold(running.pid())?;
            }
            for _ in 0..effort.rounds.min(3) {
                for (running, figures) in &mut servers {
                    figures.bounded.push(rate(running, case.load, effort)?);
                }
            }
        }
    }
    let figures = servers.into_iter().map(|(_, figures)| figures).collect();
    Ok(Measured { case, figures })
}

fn warm_up(running: &Running, load: Load) -> Result<()> {
    let kept = Load {
        fresh: false,
        ..load
    };
    let requests = u64::from(kept.connections) * 20;
    kept.run(running.addr, Until::Requests(requests))
        .with_context(|| running.who.name())?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of one round")]
fn cost(running: &Running, figures: &mut Figures, case: Case, effort: Effort) -> Result<()> {
    let before = cpu_time_tree(running.pid());
    let done = case.load.run(running.addr, Until::Seconds(effort.seconds));
    let done = done.with_context(|| running.who.name())? as f64;
    let spent = cpu_time_tree(running.pid())
        .saturating_sub(before)
        .as_secs_f64()
        .max(0.001);
    figures.cost.push(match case.unit {
        Unit::Micros => spent * 1e6 / done,
        Unit::Megabytes => done * BULK_BYTES / 1e6 / spent,
    });
    figures.rate.push(done / effort.seconds as f64);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of one round")]
fn rate(running: &Running, load: Load, effort: Effort) -> Result<f64> {
    let done = load.run(running.addr, Until::Seconds(effort.seconds));
    Ok(done.with_context(|| running.who.name())? as f64 / effort.seconds as f64)
}
