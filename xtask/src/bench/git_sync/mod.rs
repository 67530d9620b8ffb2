//! `podkit git-sync` beside `git clone` and kubernetes/git-sync: a repository of 500 MB from the real `git http-backend` on the loopback; how
//! soon a push is seen; what idling costs.
//!
//! Nothing is pinned: the server's git is the same for all, and a clone uses the cores there are.

mod ground;
mod latency;
mod measured;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use podkit_testkit::git::Server;
use podkit_testkit::machine::cpu_time_tree;
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::version;
use podkit_testkit::process::Process;
use podkit_testkit::{stats, until};

use self::ground::{KUBERNETES, Tool};
use self::measured::{Bound, Memory, Taken, measure};
use super::report::{Goal, Report, figure, rounds};
use super::{Effort, size};
use crate::machine::require;

/// Of the cgroup in which a clone must end well.
const BOUND_BYTES: u64 = 64 << 20;
/// A clone takes long, and what is compared lies far apart.
const ROUNDS_MAX: usize = 3;
/// Between two polls where idling is measured.
const PERIOD: &str = "1s";

/// What is had of an idle one.
struct Idle {
    memory: Memory,
    polls: usize,
    requests: usize,
    bytes: u64,
    cpu: Duration,
}

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&["time"])?;
    let effort = Effort {
        rounds: effort.rounds.min(ROUNDS_MAX),
        ..effort
    };
    let kubernetes = Tool::kubernetes();
    if kubernetes.is_none() {
        eprintln!(
            "kubernetes/git-sync is not measured: it is not in PATH, nor named by {KUBERNETES}"
        );
    }
    let podkit = Tool::Podkit(binary.to_owned());
    let mut services = vec![podkit.clone()];
    services.extend(kubernetes.clone());
    let mut tools = vec![podkit, Tool::Git];
    tools.extend(kubernetes);

    let dir = tempfile::Builder::new()
        .prefix("podkit-bench-git-sync-")
        .tempdir()?;
    let pack_bytes = ground::make(dir.path(), if effort.quick { 0.04 } else { 1.0 })?;
    let server = Server::start(dir.path());
    let url = server.url("app.git");
    let clone = |tool: &Tool, depth: u32, within: Option<&Bound>| -> Result<Taken> {
        let into = dir.path().join("clone");
        let taken = measure(dir.path(), &tool.once(&url, &into, depth), within);
        fs::remove_dir_all(&into).ok();
        taken
    };
    let mut clones = [vec![Vec::new(); tools.len()], vec![Vec::new(); tools.len()]];
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        for (depth, clones) in [1, 0].into_iter().zip(&mut clones) {
            for (tool, samples) in tools.iter().zip(clones) {
                samples.push(clone(tool, depth, None)?);
            }
        }
    }
    let bound = Bound::new(BOUND_BYTES);
    let mut bounded = Vec::new();
    for tool in tools.iter().filter(|_| bound.is_some()) {
        eprintln!("{} in a cgroup", tool.name());
        bounded.push(clone(tool, 1, bound.as_ref())?);
    }
    let mut idle = Vec::new();
    for tool in &services {
        eprintln!("{} idle", tool.name());
        idle.push(watch(tool, &server, &url, &dir.path().join("idle"))?);
    }
    let polls = if effort.quick { 5 } else { 60 };
    let pushes = if effort.quick { 5 } else { 200 };
    eprintln!("pushes with a webhook");
    let hooked = latency::with_webhook(&tools[0], dir.path(), pushes)?;
    let mut polled = Vec::new();
    for tool in &services {
        eprintln!("pushes without, {}", tool.name());
        polled.push(latency::without(tool, dir.path(), polls)?);
    }

    let mut versions = size::peers(binary, &["git"]);
    if let Some(Tool::Kubernetes(path)) = tools.last() {
        let said = version(&path.to_string_lossy(), &["--version"]);
        versions.push(("kubernetes/git-sync", said));
    }
    let mut report = Report::new("git-sync", "Following a git repository", &versions, effort);
    #[expect(clippy::cast_precision_loss, reason = "bytes of a pack")]
    let megabytes = pack_bytes as f64 / 1e6;
    report.paragraph(&format!(
        "A repository of {} MB (its pack): {}. It is served by `git http-backend` over HTTP on the loopback, whose git takes its part of the same cores, and cloned into an \
         empty directory of the same disk. CPU is user and system time of the tool and all that it starts, without the server's. podkit and kubernetes/git-sync publish \
         the files behind a link, podkit after they are on the disk (fsync); `git clone` does not wait for that.",
        figure(megabytes),
        ground::WORDS
    ));
    if tools.len() < 3 {
        report.paragraph("kubernetes/git-sync was not there to be measured.");
    }
    let columns: Vec<&str> = [""]
        .into_iter()
        .chain(tools.iter().map(Tool::name))
        .collect();
    let titles = [
        "A clone of the last commit (depth 1)",
        "A clone with all history",
    ];
    for (title, clones) in titles.into_iter().zip(&clones) {
        let row = |what: &str, figures: fn(&Taken) -> f64| {
            let of = clones.iter().map(|of| rounds(&all(of, figures)));
            [what.to_owned()].into_iter().chain(of).collect()
        };
        report.table(
            title,
            &columns,
            &[
                row("wall, s", |taken| taken.wall_seconds),
                row("CPU, s", |taken| taken.cpu_seconds),
                row("peak of the largest process (VmHWM), MB", |taken| {
                    taken.largest_megabytes
                }),
                row("peak of all processes, MB", |taken| {
                    taken.resident_megabytes
                }),
                row("of that at its peak not of files (RssAnon), MB", |taken| {
                    taken.anonymous_megabytes
                }),
            ],
        );
    }
    let ends = bounded.iter().map(|taken| match taken.ended_well {
        true => format!("ends well after {} s", figure(taken.wall_seconds)),
        false => format!("fails after {} s", figure(taken.wall_seconds)),
    });
    if bound.is_some() {
        let title = "The last commit in a cgroup of 64 MiB, page cache included (once)";
        let row = [String::new()].into_iter().chain(ends).collect();
        report.table(title, &columns, &[row]);
    }
    let mut rows = vec![hooked.row(&format!("{}, webhook", tools[0].name()))];
    for (tool, latency) in services.iter().zip(&polled) {
        let what = format!("{}, every {}", tool.name(), latency::PERIOD_WORDS);
        rows.push(latency.row(&what));
    }
    report.table(
        "From the end of a push to the file that is seen, ms",
        &["", "pushes", "median", "p99", "slowest"],
        &rows,
    );
    let rows: Vec<Vec<String>> = services
        .iter()
        .zip(&idle)
        .map(|(tool, idle)| idle.row(tool.name()))
        .collect();
    report.table(
        "Idle after the clone of the large repository, a poll a second",
        &[
            "",
            "resident, MB",
            "of that not of files, MB",
            "requests of a poll",
            "bytes of a poll, both ways",
            "its own CPU of a poll, ms",
        ],
        &rows,
    );
    let peak = |of: &[Taken]| stats::percentile(&all(of, |taken| taken.largest_megabytes), 1.0);
    let beyond = polled[0].slowest() - latency::PERIOD_LONGEST.as_secs_f64() * 1000.0;
    report.goals(&[
        goal(
            "resident while the last commit is cloned, MB",
            peak(&clones[0][0]),
            64.0,
        ),
        goal(
            "resident while all history is cloned, MB",
            peak(&clones[1][0]),
            64.0,
        ),
        goal(
            "idle after that, MB resident",
            idle[0].memory.resident,
            12.0,
        ),
        goal(
            "a push with a webhook is seen, p99 in ms",
            hooked.p99(),
            200.0,
        ),
        goal(
            "without one, at the latest so many ms after the period (and a tenth, its jitter)",
            beyond,
            200.0,
        ),
        #[expect(clippy::cast_precision_loss, reason = "a few requests")]
        goal(
            "requests of an idle poll",
            idle[0].requests as f64 / idle[0].polls as f64,
            1.0,
        ),
    ]);
    report.finish(effort)
}

fn goal(what: &str, measured: f64, bound: f64) -> Goal {
    Goal {
        what: format!("{what}: {bound} at most"),
        measured,
        bound,
        below: true,
        note: "",
    }
}

fn all(of: &[Taken], figure: fn(&Taken) -> f64) -> Vec<f64> {
    of.iter().map(figure).collect()
}

/// Follows the large repository, and looks at it when it has nothing to do.
fn watch(tool: &Tool, server: &Server, url: &str, root: &Path) -> Result<Idle> {
    let seconds = 20;
    let mut command = tool.service(url, root, 1, PERIOD);
    if matches!(tool, Tool::Podkit(_)) {
        command.arg(format!("--admin={}", free_addr()));
    }
    let process = Process::spawn(tool.name(), &mut command);
    for _ in 0..60 {
        if root.join("app/huge").exists() {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    until("the clone", || root.join("app/huge").exists().then_some(()));
    std::thread::sleep(Duration::from_secs(5));
    server.requests();
    let (bytes, cpu) = (server.bytes(), cpu_time_tree(process.pid()));
    std::thread::sleep(Duration::from_secs(seconds));
    let cpu = cpu_time_tree(process.pid()).saturating_sub(cpu);
    let bytes = server.bytes() - bytes;
    let requests = server.requests();
    let memory = Memory::of(process.pid());
    drop(process);
    fs::remove_dir_all(root)?;
    // git greets at each poll.
    let greetings = requests.iter().filter(|request| request.starts_with("GET"));
    let polls = match greetings.count() {
        0 => requests.len(),
        greetings => greetings,
    };
    anyhow::ensure!(polls > 0, "{} does not poll", tool.name());
    Ok(Idle {
        memory,
        polls,
        requests: requests.len(),
        bytes,
        cpu,
    })
}

impl Idle {
    #[expect(clippy::cast_precision_loss, reason = "a few requests")]
    fn row(&self, name: &str) -> Vec<String> {
        let polls = self.polls as f64;
        vec![
            name.to_owned(),
            figure(self.memory.resident),
            figure(self.memory.anonymous),
            figure(self.requests as f64 / polls),
            figure(self.bytes as f64 / polls),
            figure(self.cpu.as_secs_f64() * 1000.0 / polls),
        ]
    }
}
