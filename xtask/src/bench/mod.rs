//! `cargo xtask bench NAME`: podkit and its peers in one run, pinned alike, in interleaved rounds, so that what disturbs the
//! machine disturbs all of them. A figure is the median of its rounds; what is compared is the ratio.
//!
//! The server that is measured has core 0; the load generator and the upstream have core 1.

mod check;
mod git_sync;
mod http;
mod image;
mod memcached;
mod metrics;
mod pod;
mod redis;
mod report;
mod sharding;
mod sidecars;
mod size;
mod tls;
mod topz;

use anyhow::{Context, Result, bail};

use crate::build::release;

/// The core of what is measured.
const SERVER_CORE: usize = 0;
/// The core of everything else.
const LOAD_CORE: usize = 1;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// Rounds; each measures every peer once.
    rounds: usize,
    /// Seconds of load in a round, per peer.
    seconds: u64,
    /// Writes no report.
    quick: bool,
}

pub(crate) fn run(name: &str, quick: bool) -> Result<()> {
    let effort = if quick {
        Effort {
            rounds: 1,
            seconds: 1,
            quick,
        }
    } else {
        Effort {
            rounds: 7,
            seconds: 4,
            quick,
        }
    };
    let binary = release()?;
    match name {
        "http" => http::run(&binary, effort),
        "tls" => tls::run(&binary, effort),
        "check" => check::run(&binary, effort),
        "git-sync" => git_sync::run(&binary, effort),
        "image" => image::run(&binary, effort),
        "memcached" => memcached::run(&binary, effort),
        "metrics" => metrics::run(&binary, effort),
        "pod" => pod::run(&binary, effort),
        "redis" => redis::run(&binary, effort),
        "topz" => topz::run(&binary, effort),
        "sidecars" => sidecars::run(&binary, effort),
        "size" => size::run(&binary, effort),
        "all" => {
            size::run(&binary, effort)?;
            check::run(&binary, effort)?;
            topz::run(&binary, effort)?;
            sidecars::run(&binary, effort)?;
            pod::run(&binary, effort)?;
            image::run(&binary, effort)?;
            redis::run(&binary, effort)?;
            memcached::run(&binary, effort)?;
            metrics::run(&binary, effort)?;
            git_sync::run(&binary, effort)?;
            http::run(&binary, effort)?;
            tls::run(&binary, effort)
        }
        _ => bail!(
            "\"{name}\" is not a benchmark: check, git-sync, http, image, memcached, metrics, pod, redis, sidecars, tls, topz, size, all"
        ),
    }
}

/// Puts the calling thread on the core of the load.
fn pin_this_thread() -> Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(LOAD_CORE);
    rustix::thread::sched_setaffinity(None, &cores).context("sched_setaffinity")
}
