//! Load generators, on the core of the load.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, bail};
use podkit_testkit::peers::pinned;
use podkit_testkit::process::run;
use podkit_testkit::program;

use super::servers::Front;
use crate::bench::LOAD_CORE;

/// What is asked, how, and by how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) front: Front,
    pub(super) path: &'static str,
    pub(super) connections: u32,
    /// Requests at a time on each connection: more than one over HTTP/2 only.
    pub(super) streams: u32,
    /// A connection for each request.
    pub(super) fresh: bool,
}

/// For how long.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    Seconds(u64),
    Requests(u64),
}

impl Load {
    /// Requests that were answered with 200. An error when one failed.
    pub(super) fn run(&self, addr: SocketAddr, until: Until) -> Result<u64> {
        match (self.fresh, until) {
            (true, Until::Seconds(seconds)) => self.wrk(addr, seconds),
            (true, Until::Requests(_)) => bail!("wrk counts seconds"),
            (false, until) => self.h2load(addr, until),
        }
    }

    fn program(name: &str) -> Result<Command> {
        let found = program(name).with_context(|| format!("{name} is missing"))?;
        Ok(pinned(Some(LOAD_CORE), &found))
    }

    fn h2load(&self, addr: SocketAddr, until: Until) -> Result<u64> {
        let mut command = Self::program("h2load")?;
        command.arg("-t1");
        let url = match self.front {
            Front::Http => {
                command.arg("--h1");
                format!("http://{addr}{}", self.path)
            }
            Front::Https => {
                command.arg("--h1");
                format!("https://{addr}{}", self.path)
            }
            Front::H2c => format!("http://{addr}{}", self.path),
        };
        command.args([
            format!("-c{}", self.connections),
            format!("-m{}", self.streams),
        ]);
        match until {
            Until::Seconds(seconds) => command.arg(format!("-D{seconds}")),
            Until::Requests(requests) => command.arg(format!("-n{requests}")),
        };
        let output = run("h2load", command.arg(url)).ok();
        // requests: 41001 total, 41065 started, 41001 done, 41001 succeeded, 0 failed, 0 errored, 0 timeout
        let line = output.lines().find(|line| line.starts_with("requests:"));
        let line = line.with_context(|| format!("h2load says no count: {output}"))?;
        let count = |word: &str| -> Option<u64> {
            let before = line.split(word).next()?;
            before.trim_end().rsplit([' ', ',']).next()?.parse().ok()
        };
        let (succeeded, failed) = (count("succeeded"), count("failed"));
        if failed != Some(0) || succeeded.is_none_or(|count| count == 0) {
            bail!("{addr}{}: {line}", self.path);
        }
        succeeded.context("h2load says no count")
    }

    fn wrk(&self, addr: SocketAddr, seconds: u64) -> Result<u64> {
        let mut command = Self::program("wrk")?;
        command.args([
            "-t1",
            &format!("-c{}", self.connections),
            &format!("-d{seconds}"),
        ]);
        command.args(["-H", "Connection: close"]);
        let output = run("wrk", command.arg(format!("http://{addr}{}", self.path))).ok();
        //   24180 requests in 2.00s, 5.44MB read
        let count = output.lines().find_map(|line| {
            let (count, _) = line.trim().split_once(" requests in ")?;
            count.parse::<u64>().ok()
        });
        let bad = output.lines().find(|line| line.contains("Non-2xx"));
        match (count, bad) {
            (Some(count @ 1..), None) => Ok(count),
            _ => bail!("{addr}{}: {output}", self.path),
        }
    }
}
