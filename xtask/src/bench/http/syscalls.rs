//! System calls per request, as strace counts them.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use podkit_testkit::machine::tree;
use podkit_testkit::process::Process;
use rustix::process::Signal;

use super::load::{Load, Until};

/// So many requests that opening the connections does not count.
const REQUESTS: u64 = 20_000;

/// System calls of the process `pid` and all below it while requests are answered, per request.
#[expect(clippy::cast_precision_loss, reason = "counts of one run")]
pub(super) fn per_request(pid: u32, addr: SocketAddr, load: Load) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let table = dir.path().join("table");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(&table);
    for pid in tree(pid) {
        command.args(["-p", &pid.to_string()]);
    }
    let mut strace = Process::spawn("strace", &mut command);
    strace.wait_line("strace is attached", |line| line.contains("attached"));
    let done = load.run(addr, Until::Requests(REQUESTS));
    strace.signal(Signal::INT);
    // Killed by the signal that ends it on purpose.
    strace.wait();
    let done = done?;
    let text = std::fs::read_to_string(&table)?;
    let total = text.lines().find(|line| line.trim_end().ends_with("total"));
    let total = total.with_context(|| format!("strace gives no total: {text}"))?;
    let calls = total
        .split_whitespace()
        .next()
        .and_then(|word| word.parse::<u64>().ok());
    Ok(calls.context("strace gives no total")? as f64 / done as f64)
}
