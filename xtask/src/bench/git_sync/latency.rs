//! From the end of `git push` to the file that a reader sees, in a small repository.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podkit_testkit::git::{Repository, Server};
use podkit_testkit::net::free_addr;
use podkit_testkit::process::Process;
use podkit_testkit::{http, stats, until};

use super::figure;
use super::ground::Tool;

/// Files of the repository.
const FILES: usize = 20;
const LONGEST: Duration = Duration::from_secs(30);
pub(super) const PERIOD_WORDS: &str = "500ms";
/// That with podkit's jitter.
pub(super) const PERIOD_LONGEST: Duration = Duration::from_millis(550);

/// Times in ms.
#[derive(Debug)]
pub(super) struct Latency(Vec<f64>);

impl Latency {
    pub(super) fn p99(&self) -> f64 {
        stats::percentile(&self.0, 0.99)
    }

    pub(super) fn slowest(&self) -> f64 {
        stats::percentile(&self.0, 1.0)
    }

    pub(super) fn row(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            self.0.len().to_string(),
            figure(stats::median(&self.0)),
            figure(self.p99()),
            figure(self.slowest()),
        ]
    }
}

/// Every push is told by a webhook once it has ended.
pub(super) fn with_webhook(tool: &Tool, dir: &Path, pushes: usize) -> Result<Latency> {
    let secret = dir.join("secret");
    fs::write(&secret, "s3cret\n")?;
    let hook = free_addr();
    let more = [
        format!("--webhook={hook}"),
        format!("--webhook-secret-file={}", secret.display()),
    ];
    let fields = "application/json\r\nX-Gitlab-Token: s3cret";
    follow(tool, dir, "1h", &more, pushes, || {
        let answer = http::send(hook, "POST", "/", fields, b"{}")?;
        ensure!(
            answer.status == 202,
            "the webhook answers {}",
            answer.status
        );
        Ok(())
    })
}

/// It finds out by itself.
pub(super) fn without(tool: &Tool, dir: &Path, pushes: usize) -> Result<Latency> {
    follow(tool, dir, PERIOD_WORDS, &[], pushes, || Ok(()))
}

fn follow(
    tool: &Tool,
    dir: &Path,
    period: &str,
    more: &[String],
    pushes: usize,
    tell: impl Fn() -> Result<()>,
) -> Result<Latency> {
    let dir = tempfile::tempdir_in(dir)?;
    let app = Repository::new(dir.path(), "app");
    let server = Server::start(dir.path());
    for file in 0..FILES {
        app.write(&format!("d{}/{file}", file % 4), "x".repeat(1000));
    }
    app.write("version", "0");
    app.publish("0");
    let root = dir.path().join("root");
    let mut command = tool.service(&server.url("app.git"), &root, 1, period);
    command.args(more);
    if matches!(tool, Tool::Podkit(_)) {
        command.arg(format!("--admin={}", free_addr()));
    }
    let _process = Process::spawn(tool.name(), &mut command);
    let path = root.join("app/version");
    let seen = || fs::read_to_string(&path).unwrap_or_default();
    until("the first version", || (seen() == "0").then_some(()));
    let mut times = Vec::new();
    for push in 1..=pushes {
        let version = push.to_string();
        app.write("version", &version);
        app.write(&format!("d1/{}", 1 + 4 * (push % 5)), &version);
        app.publish(&version);
        let pushed = Instant::now();
        tell()?;
        while seen() != version {
            let waited = pushed.elapsed();
            ensure!(waited < LONGEST, "push {push} is not seen after {waited:?}");
            std::thread::sleep(Duration::from_micros(500));
        }
        times.push(pushed.elapsed().as_secs_f64() * 1000.0);
        // The next push falls anywhere in the period.
        let pause = u64::try_from(push * 37 % 100).context("less than 100")?;
        std::thread::sleep(Duration::from_millis(pause));
    }
    Ok(Latency(times))
}
