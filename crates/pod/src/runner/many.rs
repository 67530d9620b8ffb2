//! Several pods in the files, or Jobs, which make pods of their own: one supervisor process for each, and this process over them.
//!
//! Each is podkit itself with one more option. Its standard output comes here and goes on line by line; its standard
//! input is a pipe whose end means stop, so that none outlives this process. They are in process groups of their own: a
//! Ctrl-C reaches them once, from here. Where pulls are shown on a terminal, this process asks each for its own by the control socket
//! and draws them all; then standard error comes here, too, since what others write there would tear the bars.

mod edits;
mod unseen;

use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use podkit_foundation::error::Failure;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use super::again::again;
use super::detach;
use super::job::{End, JobState};
use super::layout::Layout;
use super::logs::Lines;
use super::output::{Queue, harmless};
use super::prepare::Pods;
use super::signals::{Ask, Signals};
use super::{OutputFormat, RunOptions, Screen, pulls};
use crate::manifest::{NameSeed, suffix};
use crate::plan::{PodPlan, pod_key};

/// A supervisor's own lines are at most 16 KiB of a log, which JSON may make six times as long.
const LINE_MAX: usize = 128 * 1024;
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);
/// How long standard error may stay open after standard output, in case that somebody else holds it.
const ERRORS_PATIENCE: Duration = Duration::from_millis(200);
/// Between two looks at how often the containers of a Job's pods were restarted.
const LOOK: Duration = Duration::from_millis(500);

/// A supervisor that was started.
struct Supervisor {
    pod: String,
    child: Child,
    pidfd: OwnedFd,
    /// Its end asks for a stop.
    _stdin: Option<ChildStdin>,
    ended: bool,
    /// An edit of the files has ended it: how it takes that is nobody's failure.
    leaves: bool,
    /// And begins it anew.
    again: bool,
}

/// Runs all pods to their end. The exit code is the worst, or that of the pod with the container of `--exit-code-from`.
pub(super) fn run(options: &RunOptions, pods: &Pods) -> Result<u8, Failure> {
    if options.files.iter().any(|file| file.as_os_str() == "-") {
        return Err(Failure::Usage(
            "several pods, or a Job, can't come from standard input, which can be read once only: give a file"
                .to_owned(),
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime("starting the supervisors", error))?;
    let queue = Queue::to_stdout(options.screen.clone());
    let beside = options.screen.as_ref().map(|screen| Beside {
        screen: Arc::clone(screen),
        errors: Queue::to_stderr(Arc::clone(screen)),
    });
    if options.detached {
        detach::warn(pods.remarks());
    } else {
        for remark in pods.remarks() {
            queue.push(remark_line(options.output, remark).as_bytes());
        }
    }
    let result = LocalSet::new().block_on(&runtime, supervise(options, pods, &queue, &beside));
    let begun = Instant::now();
    queue.finish(OUTPUT_PATIENCE);
    if let Some(beside) = &beside {
        let left = OUTPUT_PATIENCE.saturating_sub(begun.elapsed());
        beside.errors.finish(left);
    }
    result
}

/// A remark about the files, which are all pods'.
fn remark_line(format: OutputFormat, remark: &str) -> String {
    match format {
        OutputFormat::Text => format!("podkit ! Warning: {remark}\n"),
        OutputFormat::Json => {
            let ts = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            format!(
                "{}\n",
                serde_json::json!({"ts": ts, "type": "warning", "message": remark})
            )
        }
    }
}

/// The supervisors that were started, and who waits for their ends.
struct Crowd<'a> {
    options: &'a RunOptions,
    queue: &'a Queue,
    beside: &'a Option<Beside>,
    layout: Layout,
    supervisors: Vec<Supervisor>,
    ends: tokio::task::JoinSet<usize>,
}

/// Where pulls are shown.
#[derive(Debug, Clone)]
struct Beside {
    screen: Arc<dyn Screen>,
    /// To standard error.
    errors: Queue,
}

/// Who hears a supervisor.
#[derive(Debug, Clone, Copy)]
enum Heard<'a> {
    /// Whoever reads what this process shows.
    Here,
    /// Whoever has asked for the pods, and waits until they have begun.
    ByCaller,
    /// Nobody: it is of a detached run, and of a pod that began later.
    Unseen(&'a PodPlan),
}

impl Crowd<'_> {
    /// The supervisor of a pod, while it lives.
    fn living(&mut self, pod: &str) -> Option<&mut Supervisor> {
        let mut all = self.supervisors.iter_mut();
        all.find(|one| one.pod == pod && !one.ended)
    }

    fn start(&mut self, pod: &str, job_pod: Option<&str>, heard: Heard<'_>) -> Result<(), Failure> {
        let failed = |error| Failure::runtime("starting a supervisor", error);
        let at = self.supervisors.len();
        let shown = self.beside.is_some();
        let mut supervisor = start(self.options, pod, job_pod, (heard, shown)).map_err(failed)?;
        let (out, err) = (
            supervisor.child.stdout.take(),
            supervisor.child.stderr.take(),
        );
        let end = || -> io::Result<_> { crate::sys::watch_readable(supervisor.pidfd.try_clone()?) };
        match (heard, out, err) {
            (Heard::Here, Some(out), err) => {
                let show = Show::new(self.options.output, at, self.queue);
                let (beside, pod, run) = (self.beside.clone(), pod.to_owned(), self.run_dir(pod));
                // Nobody but the supervisor holds the other end: it closes when that process ends.
                self.ends.spawn_local(async move {
                    match (beside, err) {
                        (Some(beside), Some(err)) => {
                            beside
                                .pass_on(out.into(), err.into(), show, (&pod, &run))
                                .await;
                        }
                        _ => pass_on(out.into(), show, &Notify::new()).await,
                    }
                    at
                });
            }
            (Heard::Unseen(plan), Some(out), Some(err)) => {
                let (plan, layout, logs) = (plan.clone(), self.layout.clone(), self.logs());
                let end = end().map_err(failed)?;
                self.ends.spawn_local(async move {
                    match unseen::begun(out.into(), err.into(), &end).await {
                        Ok(()) => drop(end.readable().await),
                        Err(why) => unseen::reject(&layout, &plan, &why, &logs),
                    }
                    at
                });
            }
            _ => {
                let end = end().map_err(failed)?;
                self.ends.spawn_local(async move {
                    // An error would come again and again: its end is waited for below.
                    let _ended = end.readable().await;
                    at
                });
            }
        }
        self.supervisors.push(supervisor);
        Ok(())
    }

    /// Starts a pod that is there by an edit of the files.
    fn start_later(&mut self, pod: &str, plan: &PodPlan) -> Result<(), Failure> {
        let heard = match self.options.detached {
            true => Heard::Unseen(plan),
            false => Heard::Here,
        };
        self.start(pod, None, heard)
    }

    /// What is no single pod's to say: where all is shown, or in the logs of the supervisors that live.
    fn warn(&self, message: &str) {
        if self.options.detached {
            unseen::log(&self.logs(), message);
        } else {
            let line = remark_line(self.options.output, message);
            self.queue.push(line.as_bytes());
        }
    }

    fn run_dir(&self, pod: &str) -> PathBuf {
        let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
        self.layout
            .paths(&pod_key(namespace, name))
            .run()
            .to_owned()
    }

    /// `supervisor.log` of each that lives.
    fn logs(&self) -> Vec<PathBuf> {
        let living = self.supervisors.iter().filter(|one| !one.ended);
        let log = |one: &Supervisor| {
            let (namespace, name) = one.pod.split_once('/')?;
            let paths = self.layout.paths(&pod_key(namespace, name));
            Some(paths.supervisor_log())
        };
        living.filter_map(log).collect()
    }
}

async fn supervise(
    options: &RunOptions,
    pods: &Pods,
    queue: &Queue,
    beside: &Option<Beside>,
) -> Result<u8, Failure> {
    let mut signals =
        Signals::new(None).map_err(|error| Failure::runtime("taking signals", error))?;
    let mut crowd = Crowd {
        options,
        queue,
        beside,
        layout: Layout::new(options.state_dir.as_deref()),
        supervisors: Vec::new(),
        ends: tokio::task::JoinSet::new(),
    };
    let heard = match options.detached {
        true => Heard::ByCaller,
        false => Heard::Here,
    };
    for pod in pods.names() {
        crowd.start(pod, None, heard)?;
    }
    if options.detached {
        detach::fall_silent().map_err(|error| Failure::runtime("starting a supervisor", error))?;
    }
    let now = Instant::now();
    let plans = pods.jobs().iter().cloned();
    let mut jobs: Vec<Job> = plans
        .map(|plan| Job::new(JobState::new(plan, options.backoff, now)))
        .collect();
    let chosen = options
        .exit_code_from
        .as_deref()
        .and_then(|name| pods.pod_of(name));
    let (mut worst, mut chosen_code) = (0, None);
    let mut known = edits::Edits::new(pods);
    let mut edited = options.watch.then(|| edits::follow(options, pods));
    loop {
        for job in &mut jobs {
            worst = worst.max(job.go_on(&mut crowd)?);
        }
        if crowd.ends.is_empty() && jobs.iter().all(|job| job.told) {
            return Ok(chosen_code.unwrap_or(worst));
        }
        let wake = jobs.iter().filter_map(|job| job.wake_at()).min();
        tokio::select! {
            ask = signals.next() => {
                let times = if ask == Ask::Kill { "again" } else { "once" };
                tracing::debug!(times, "asked to stop");
                edited = None;
                for job in &mut jobs {
                    job.state.stop();
                    job.asked = true;
                }
                // A supervisor that is asked a second time kills.
                ask_all(&crowd.supervisors);
            }
            Some(end) = crowd.ends.join_next() => {
                let Ok(at) = end else {
                    worst = worst.max(1);
                    continue;
                };
                let supervisor = &mut crowd.supervisors[at];
                let code = code(supervisor.child.wait());
                let pod = supervisor.pod.clone();
                supervisor.ended = true;
                if supervisor.leaves {
                    if supervisor.again
                        && edited.is_some()
                        && let Some(plan) = known.plan(&pod)
                    {
                        crowd.start_later(&pod, plan)?;
                    }
                    continue;
                }
                match jobs.iter_mut().find(|job| job.has(&pod)) {
                    // A pod of a Job that fails may be followed by one that succeeds.
                    Some(job) => job.ended(&pod, code == 0),
                    None => worst = worst.max(code),
                }
                if chosen == Some(pod.as_str()) {
                    chosen_code = Some(code);
                    edited = None;
                    for job in &mut jobs {
                        job.state.stop();
                        job.asked = true;
                    }
                    ask_all(&crowd.supervisors);
                }
            }
            Some(edit) = next(&mut edited) => match edit {
                Ok(pods) => known.apply(&pods, &mut crowd)?,
                Err(error) => {
                    crowd.warn(&format!("no pod comes or goes with this edit: {error}"));
                }
            },
            () = until(wake) => {}
        }
    }
}

/// The next edit of the files.
async fn next(edited: &mut Option<mpsc::UnboundedReceiver<edits::Edit>>) -> Option<edits::Edit> {
    match edited {
        Some(edited) => edited.recv().await,
        None => std::future::pending().await,
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A Job that runs.
struct Job {
    state: JobState,
    /// Its pods were asked to stop.
    asked: bool,
    /// Its end was told.
    told: bool,
    /// When restarts are looked at next.
    look_at: Instant,
}

impl Job {
    fn new(state: JobState) -> Self {
        Self {
            state,
            asked: false,
            told: false,
            look_at: Instant::now() + LOOK,
        }
    }

    fn has(&self, pod: &str) -> bool {
        let name = pod.split_once('/').map_or(pod, |(_, name)| name);
        let namespace = &self.state.plan().namespace;
        pod.starts_with(&format!("{namespace}/")) && self.state.active().any(|one| one == name)
    }

    fn ended(&mut self, pod: &str, well: bool) {
        let name = pod.split_once('/').map_or(pod, |(_, name)| name);
        self.state.ended(Instant::now(), name, well);
    }

    fn wake_at(&self) -> Option<Instant> {
        let look = self.state.counts_restarts().then_some(self.look_at);
        [self.state.wake_at(), look].into_iter().flatten().min()
    }

    /// Starts what is to begin, and ends what is over. The exit code, once it has ended.
    fn go_on(&mut self, crowd: &mut Crowd<'_>) -> Result<u8, Failure> {
        let now = Instant::now();
        if self.state.counts_restarts() && self.look_at <= now {
            self.look_at = now + LOOK;
            let namespace = &self.state.plan().namespace;
            let of = |pod: &str| restarts(&crowd.layout, &pod_key(namespace, pod));
            let restarts = self.state.active().map(of).sum();
            self.state.restarted(restarts);
        }
        for pod in self.state.begin(now, || suffix(NameSeed::random().0)) {
            let full = format!("{}/{}", pod.namespace, pod.name);
            let index = pod.index.map(|index| format!("/{index}"));
            let of_job = format!(
                "{}/{}/{}{}",
                pod.namespace,
                pod.job,
                pod.name,
                index.unwrap_or_default()
            );
            self.tell(
                crowd,
                "SuccessfulCreate",
                &format!("Created pod: {}", pod.name),
                false,
            );
            crowd.start(&full, Some(&of_job), Heard::Here)?;
        }
        let Some(end) = self.state.end() else {
            return Ok(0);
        };
        if !std::mem::replace(&mut self.asked, true) {
            let of_job = |supervisor: &&Supervisor| self.has(&supervisor.pod);
            ask_all(crowd.supervisors.iter().filter(of_job));
        }
        if self.state.active().next().is_none() && !std::mem::replace(&mut self.told, true) {
            let (reason, message) = end.words();
            self.tell(crowd, reason, message, end != End::Complete);
        }
        Ok(u8::from(end != End::Complete))
    }

    /// An event about the Job.
    fn tell(&self, crowd: &Crowd<'_>, reason: &str, message: &str, warning: bool) {
        let plan = self.state.plan();
        let line = match crowd.options.output {
            OutputFormat::Text => {
                let mark = if warning { '!' } else { '*' };
                format!("{} {mark} {reason}: {message}\n", plan.name)
            }
            OutputFormat::Json => {
                let ts = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
                let level = if warning { "Warning" } else { "Normal" };
                let line = serde_json::json!({
                    "ts": ts,
                    "type": "event",
                    "job": plan.name,
                    "namespace": plan.namespace,
                    "level": level,
                    "reason": reason,
                    "message": message,
                });
                format!("{line}\n")
            }
        };
        crowd.queue.push(line.as_bytes());
    }
}

/// How often the containers of a pod that runs were restarted, by what its supervisor writes; 0 while it has written nothing.
fn restarts(layout: &Layout, pod: &str) -> u32 {
    let state = std::fs::read(layout.paths(pod).state()).unwrap_or_default();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap_or_default();
    let lists = ["initContainerStatuses", "containerStatuses"];
    let all = lists
        .iter()
        .filter_map(|list| state["status"][list].as_array());
    let counts = all.flatten().filter_map(|one| one["restartCount"].as_u64());
    u32::try_from(counts.sum::<u64>()).unwrap_or(u32::MAX)
}

fn start(
    options: &RunOptions,
    pod: &str,
    job_pod: Option<&str>,
    (heard, shown): (Heard<'_>, bool),
) -> io::Result<Supervisor> {
    let of_job = job_pod.map(|pod| ["--job-pod", pod]);
    let (out, err) = match heard {
        Heard::Here if shown => (Stdio::piped(), Stdio::piped()),
        Heard::Here => (Stdio::piped(), Stdio::inherit()),
        // It reports there, and shows nothing.
        Heard::ByCaller => (Stdio::inherit(), Stdio::inherit()),
        Heard::Unseen(_) => (Stdio::piped(), Stdio::piped()),
    };
    let mut child = again(options)
        .args(["--only-pod", pod])
        .args(of_job.into_iter().flatten())
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without an id"))?;
    Ok(Supervisor {
        pod: pod.to_owned(),
        pidfd: pidfd_open(pid, PidfdFlags::empty())?,
        _stdin: child.stdin.take(),
        child,
        ended: false,
        leaves: false,
        again: false,
    })
}

fn ask_all<'a>(supervisors: impl IntoIterator<Item = &'a Supervisor>) {
    for supervisor in supervisors {
        match pidfd_send_signal(&supervisor.pidfd, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::error!(pod = supervisor.pod, %error, "could not be stopped"),
        }
    }
}

fn code(status: io::Result<std::process::ExitStatus>) -> u8 {
    let code = status.ok().and_then(|status| status.code());
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// How one pod's lines are shown.
struct Show {
    terminal: bool,
    color: Option<&'static str>,
    queue: Queue,
}

impl Show {
    fn new(format: OutputFormat, at: usize, queue: &Queue) -> Self {
        const COLORS: [&str; 4] = ["36", "33", "32", "35"];
        let terminal = format == OutputFormat::Text && io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            terminal,
            color: (terminal && !plain).then_some(COLORS[at % COLORS.len()]),
            queue: queue.clone(),
        }
    }

    /// For a supervisor's standard error.
    fn errors(queue: &Queue) -> Self {
        Self {
            terminal: false,
            color: None,
            queue: queue.clone(),
        }
    }

    fn line(&self, line: &[u8], to: &mut Vec<u8>) {
        if !self.terminal {
            to.extend_from_slice(line);
            to.push(b'\n');
            return;
        }
        // The name, and the mark after it.
        let name = line.iter().position(|byte| *byte == b' ').unwrap_or(0);
        let (name, rest) = line.split_at(name);
        if let Some(color) = self.color {
            to.extend_from_slice(format!("\x1b[{color}m").as_bytes());
            to.extend_from_slice(name);
            to.extend_from_slice(b"\x1b[0m");
        } else {
            to.extend_from_slice(name);
        }
        if harmless(&String::from_utf8_lossy(rest), self.color.is_some(), to) {
            to.extend_from_slice(b"\x1b[0m");
        }
        to.push(b'\n');
    }
}

impl Beside {
    /// Shows what a supervisor says and pulls, until its end.
    async fn pass_on(&self, out: OwnedFd, err: OwnedFd, show: Show, (pod, run): (&str, &Path)) {
        let (errors, speaks) = (Show::errors(&self.errors), Notify::new());
        let errors = tokio::task::spawn_local(async move {
            pass_on(err, errors, &Notify::new()).await;
        });
        let pulls = async {
            // It says nothing before it listens.
            speaks.notified().await;
            pulls::show_told(run, pod, &*self.screen).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = pass_on(out, show, &speaks) => {}
            () = pulls => {}
        }
        self.screen.show(pod, Vec::new());
        let _patience = tokio::time::timeout(ERRORS_PATIENCE, errors).await;
    }
}

/// Shows the lines of one of a supervisor's pipes, until its end.
async fn pass_on(pipe: OwnedFd, show: Show, speaks: &Notify) {
    let mut lines = Lines::new(LINE_MAX);
    let mut buffer = vec![0; 16 * 1024];
    let Ok(pipe) = Receiver::from_owned_fd(pipe) else {
        return;
    };
    loop {
        show.queue.room().await;
        if pipe.readable().await.is_err() {
            return;
        }
        let mut shown = Vec::new();
        match pipe.try_read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Ok(0) | Err(_) => return,
            Ok(count) => {
                speaks.notify_one();
                let lines = lines.feed(&buffer[..count]).into_iter();
                for line in lines.filter(|line| !line.end_only) {
                    show.line(&line.bytes, &mut shown);
                }
            }
        }
        show.queue.push(&shown);
        tokio::task::yield_now().await;
    }
}
