//! Probes and hooks of a running container: [`ProbeState`] says when, [`attempt`] looks, the machine is told.
//!
//! As with the kubelet, but for how soon a success is noticed. The kubelet's first probe comes a moment after the start,
//! when its sync loop has seen the container; the next one a whole period later. Here the attempts that count begin after
//! [`SETTLE`], which is about that moment; and while a container has never been started (or ready) there are tries in between,
//! from [`EAGER_FIRST`] on and rarer and rarer. A try counts only when it succeeds; what fails is neither
//! counted nor told. So a container that is up after 5 ms is ready after 5 ms, and none fails earlier than on a cluster.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::machine::{Input, Verdict};
use super::supervise::{Note, Subject};
use crate::plan::{Action, ContainerPlan, ProbePlan};
use crate::probe::{
    Change, Exec, ExecEnd, ExecOutcome, OUTPUT_BYTES_MAX, Outcome, ProbeKind, ProbeState, attempt,
};
use crate::sandbox::{ExecSpec, Process, Signal, Stdio};

/// From the start to the first attempt that counts.
const SETTLE: Duration = Duration::from_secs(1);
/// From the start, or the last try, to the next: half as long again each time.
const EAGER_FIRST: Duration = Duration::from_millis(2);
/// The same for commands, each of which costs some milliseconds of CPU.
const EAGER_FIRST_EXEC: Duration = Duration::from_millis(20);
const EAGER_MAX: Duration = Duration::from_secs(1);
/// How long a probe's command may take to die of SIGKILL.
const REAP_MAX: Duration = Duration::from_secs(1);
/// Between the end of a hook that was killed with its container and the container's own.
const SAME_END: Duration = Duration::from_millis(100);

/// Probes one run of a container for as long as this is polled.
pub(super) async fn probe(subject: Subject, run: u32, notes: mpsc::UnboundedSender<Note>) {
    let (id, since) = (subject.id, subject.running.since);
    let mut schedule = Schedule::new(subject.running.container(), since);
    let mut attempts = JoinSet::new();
    loop {
        let now = Instant::now();
        while let Some(kind) = schedule.take_due(now) {
            if let Some(plan) = schedule.state.plan(kind) {
                let (action, time) = (plan.action.clone(), plan.timeout);
                let subject = subject.clone();
                attempts.spawn_local(async move {
                    let outcome = attempt(&action, time, subject.net.as_ref(), &subject).await;
                    (kind, outcome)
                });
            }
        }
        let wake = schedule.wake_at();
        tokio::select! {
            Some(done) = attempts.join_next() => {
                let (kind, outcome) = match done {
                    Ok(done) => done,
                    Err(error) => {
                        tracing::error!(%error, container = id, "a probe has failed to run");
                        return;
                    }
                };
                let (tell, change) = schedule.record(kind, &outcome, Instant::now());
                if tell && let Some(message) = outcome.event(kind) {
                    let _unheard = notes.send(Note::Unhealthy { id, message });
                }
                if let Some(change) = change {
                    let verdict = verdict(change);
                    let _unheard = notes.send(Note::Input(Input::Probed { id, run, verdict }));
                }
            }
            () = until(wake), if wake.is_some() => {}
            else => return,
        }
    }
}

fn verdict(change: Change) -> Verdict {
    match change {
        Change::Started => Verdict::StartupPassed,
        Change::Ready(ready) => Verdict::Ready(ready),
        Change::Restart {
            kind: ProbeKind::Startup,
            ..
        } => Verdict::StartupFailed,
        Change::Restart { .. } => Verdict::LivenessFailed,
    }
}

/// Runs a postStart or preStop hook; the error is for nobody's eyes (it may hold secrets) but the debug log.
pub(super) async fn hook(
    subject: &Subject,
    action: &Action,
    limit: Option<Duration>,
) -> Result<(), String> {
    let done = crate::probe::hook(action, limit, subject.net.as_ref(), subject).await;
    // The end of a container's first process kills what else runs in it, and so the hook that has asked for this end.
    if done.is_err() && limit.is_some() {
        let ended = subject.running.process.exited();
        if tokio::time::timeout(SAME_END, ended).await.is_ok() {
            return Ok(());
        }
    }
    if let Err(error) = &done {
        tracing::debug!(container = subject.id, error, "a hook failed");
    }
    done
}

/// When to look: [`ProbeState`]'s attempts, and the tries between them. Without I/O.
#[derive(Debug)]
struct Schedule {
    state: ProbeState,
    /// Has the container a startup or readiness probe that has never succeeded? That one is tried eagerly.
    eager: Option<ProbeKind>,
    readiness: bool,
    next_try: Instant,
    pause: Duration,
    /// Which are being looked at, and whether a failure counts.
    under_way: Vec<(ProbeKind, bool)>,
}

impl Schedule {
    fn new(container: &ContainerPlan, since: Instant) -> Self {
        let delay = |probe: &Option<ProbePlan>| probe.as_ref().map(|probe| probe.initial_delay);
        let startup = delay(&container.startup).map(|delay| (ProbeKind::Startup, delay));
        let readiness = delay(&container.readiness).map(|delay| (ProbeKind::Readiness, delay));
        let eager = startup.or(readiness);
        Self {
            state: ProbeState::new(container, since + SETTLE),
            eager: eager.map(|(kind, _)| kind),
            readiness: readiness.is_some(),
            next_try: since + eager.map_or(Duration::ZERO, |(_, delay)| delay),
            pause: first_pause(eager.and_then(|(kind, _)| plan_of(container, kind))),
            under_way: Vec::new(),
        }
    }

    /// A probe that is due; it counts as under way until it is recorded. To be asked until there is none.
    fn take_due(&mut self, now: Instant) -> Option<ProbeKind> {
        while let Some(kind) = self.state.take_due(now) {
            match self.under_way.iter_mut().find(|(other, _)| *other == kind) {
                // The try that is under way is the attempt then.
                Some((_, counts)) => *counts = true,
                None => {
                    self.under_way.push((kind, true));
                    return Some(kind);
                }
            }
        }
        let kind = self.eager.filter(|kind| !self.looks_at(*kind))?;
        if self.next_try > now {
            return None;
        }
        self.under_way.push((kind, false));
        Some(kind)
    }

    fn looks_at(&self, kind: ProbeKind) -> bool {
        self.under_way.iter().any(|(other, _)| *other == kind)
    }

    fn wake_at(&self) -> Option<Instant> {
        let eager = self.eager.filter(|kind| !self.looks_at(*kind));
        let next_try = eager.map(|_| self.next_try);
        [self.state.wake_at(), next_try].into_iter().flatten().min()
    }

    /// What came of it: whether people are to be told, and what has changed.
    fn record(
        &mut self,
        kind: ProbeKind,
        outcome: &Outcome,
        now: Instant,
    ) -> (bool, Option<Change>) {
        let counts = self.under_way.contains(&(kind, true));
        self.under_way.retain(|(other, _)| *other != kind);
        let well = matches!(outcome, Outcome::Success | Outcome::Warning(_));
        let change = match (counts, well) {
            (true, _) => self.state.record(kind, outcome, now),
            (false, true) => self.state.record_early(kind, now),
            (false, false) => None,
        };
        if self.eager == Some(kind) {
            if change.is_some() {
                let next = kind == ProbeKind::Startup && self.readiness;
                self.eager = next.then_some(ProbeKind::Readiness);
                self.next_try = now;
                self.pause = first_pause(self.state.plan(ProbeKind::Readiness));
            } else {
                self.next_try = now + self.pause;
                self.pause = (self.pause * 3 / 2).min(EAGER_MAX);
            }
        }
        (counts || well, change)
    }
}

fn plan_of(container: &ContainerPlan, kind: ProbeKind) -> Option<&ProbePlan> {
    match kind {
        ProbeKind::Startup => container.startup.as_ref(),
        ProbeKind::Readiness => container.readiness.as_ref(),
        ProbeKind::Liveness => container.liveness.as_ref(),
    }
}

fn first_pause(probe: Option<&ProbePlan>) -> Duration {
    match probe.map(|probe| &probe.action) {
        Some(Action::Exec(_)) => EAGER_FIRST_EXEC,
        _ => EAGER_FIRST,
    }
}

impl Exec for Subject {
    async fn exec(&self, argv: &[String], time: Option<Duration>) -> io::Result<ExecOutcome> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let exec = ExecSpec {
            argv: argv.to_vec(),
            stdio: Stdio::Fds {
                stdin: None,
                stdout: Some(write.try_clone()?),
                stderr: Some(write),
            },
        };
        let (ground, running) = (Arc::clone(&self.ground), Arc::clone(&self.running));
        let begin = move || {
            let process = ground.sandbox.exec(&running.process, &exec);
            process.map(Killed)
        };
        let begun = tokio::task::spawn_blocking(begin).await;
        let process = begun.map_err(io::Error::other)?.map_err(io::Error::other)?;
        let output = Receiver::from_owned_fd(read)?;
        let mut kept = Vec::new();
        let run = async {
            tokio::select! {
                status = process.0.exited() => status,
                never = drain(&output, &mut kept) => match never {},
            }
        };
        let ended = match time {
            Some(time) => tokio::time::timeout(time, run).await.ok(),
            None => Some(run.await),
        };
        // What it wrote last; who else has the pipe is not waited for.
        // Not through the runtime: it may not have seen yet that there is something.
        take(&mut kept, |buffer| Ok(rustix::io::read(&output, buffer)?));
        let end = match ended {
            Some(status) => ExecEnd::Exit(status?.code()),
            None => {
                process.0.signal(Signal::KILL)?;
                let reaped = tokio::time::timeout(REAP_MAX, process.0.exited()).await;
                if reaped.is_err() {
                    tracing::warn!(pid = process.0.pid(), "a killed command has not ended yet");
                }
                ExecEnd::TimedOut
            }
        };
        Ok(ExecOutcome { end, output: kept })
    }
}

/// A command in a container: whoever gives up on it ends it.
#[derive(Debug)]
struct Killed(Process);

impl Drop for Killed {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None))
            && let Err(error) = self.0.signal(Signal::KILL)
        {
            tracing::warn!(pid = self.0.pid(), %error, "a command could not be killed");
        }
    }
}

/// Reads for as long as this is polled; keeps the beginning.
async fn drain(pipe: &Receiver, kept: &mut Vec<u8>) -> std::convert::Infallible {
    loop {
        if pipe.readable().await.is_err() || !take(kept, |buffer| pipe.try_read(buffer)) {
            return std::future::pending().await;
        }
    }
}

/// Reads what is there; false when no more will come.
fn take(kept: &mut Vec<u8>, read: impl Fn(&mut [u8]) -> io::Result<usize>) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => {
                let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
