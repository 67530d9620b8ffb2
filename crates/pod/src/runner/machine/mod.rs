//! What a pod does next: a state machine without I/O.
//!
//! The supervisor tells it what happened ([`Input`]) and when ([`Now`]); it answers with what to do ([`Action`])
//! and with the next moment at which it wants to be asked ([`Machine::wake_at`]). Nothing here opens, starts, waits
//! or reads a clock, so that order, restarts, gating and stops are tested without a process.
//!
//! ```text
//!            Begin        init, sidecar, …, main, main         all mains ended, Stop, Evict, a failed init
//!   Pending ───────▶ cursor ─────────────────────▶ Running ─────────────────────▶ stopping ──▶ Finished
//!
//!   a container:  Idle ─▶ Pulling ─▶ Starting ─▶ Up ─▶ Stopping{PreStop ▶ AwaitTurn ▶ Term ▶ Killed} ─▶ Ended
//!                            ▲   └▶ PullWait └▶ CreateWait
//!                            └─────── BackOff ◀── exit, when it is to run again
//! ```
//!
//! The rules are the kubelet's (v1.29 and later, with native sidecars), from `kuberuntime_manager.computePodActions`,
//! `kuberuntime_container.killContainer`, `kuberuntime_termination_order` and `kubelet_pods.getPhase`.
//! `pull.rs` gets their images, `create.rs` waits for what can't be made, `start.rs` brings containers up, `stop.rs` down; `replan.rs` changes what they are.

mod backoff;
mod create;
mod pull;
mod replan;
mod restart_all;
mod start;
mod status;
mod stop;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use backoff::FIRST_STEP;
pub(crate) use create::StartFailure;
pub(crate) use pull::{PULL_STEPS_MAX, PullFailure, Pulled, SHOWN, Took};
pub(crate) use replan::Replan;
pub(crate) use status::{ContainerStatus, Exit, Phase, State, Terminated};

use crate::plan::{ContainerPlan, ImageSource, PodPlan, Role};
use backoff::BackOff;
use pull::PullWait;
use replan::Change;
use restart_all::AllAgain;

/// A container, by its place in [`PodPlan::containers`].
pub(crate) type Id = usize;

/// The moment of an input: for waiting, and for people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    pub(crate) wall: SystemTime,
}

/// What happened. `run` is the run that it happened to (0, then one more for each restart), so that what arrives
/// late about an earlier run can't hit the present one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// The sandbox and the volumes are there.
    Begin,
    /// A registry is asked for its image.
    Pulling { id: Id, run: u32 },
    /// Its image is there, and those of the volumes that it mounts, or why one isn't. None: it has no image in a store.
    Pulled {
        id: Id,
        run: u32,
        pulled: Result<Option<Pulled>, PullFailure>,
    },
    /// The container's program executes.
    Started { id: Id, run: u32 },
    /// It could not be started.
    StartFailed {
        id: Id,
        run: u32,
        failure: StartFailure,
    },
    /// The postStart hook came to its end.
    PostStartDone { id: Id, run: u32, failed: bool },
    /// The preStop hook came to its end, or its time was over.
    PreStopDone { id: Id, run: u32, failed: bool },
    /// What the probes have concluded, thresholds counted.
    Probed { id: Id, run: u32, verdict: Verdict },
    /// The first process ended.
    Exited { id: Id, run: u32, exit: Exit },
    /// Another plan is in force: what it changes is restarted, begun or ended.
    Replan(Box<Replan>),
    /// The pod used more than it may: it ends as Failed.
    Evict { message: String },
    /// Stop in order within the grace period.
    Stop,
    /// The same within another one. Asked again, what is left of it can only get shorter.
    StopWithin { grace: Duration },
    /// Kill everything now.
    Kill,
    /// Nothing but time has passed.
    Tick,
}

/// A conclusion of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The startup probe succeeded.
    StartupPassed,
    /// The startup probe failed for good.
    StartupFailed,
    /// What the readiness probe says now.
    Ready(bool),
    /// The liveness probe failed for good.
    LivenessFailed,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Get its image, and those of the volumes that it mounts; answer with `Pulled`.
    Pull { id: Id, run: u32 },
    /// Start the container; answer with `Started` or `StartFailed`.
    Start { id: Id, run: u32 },
    /// Run the postStart hook; answer with `PostStartDone`.
    PostStart { id: Id, run: u32 },
    /// Run the preStop hook for at most `limit`; answer with `PreStopDone`.
    PreStop { id: Id, run: u32, limit: Duration },
    /// Ask the container to end (its stop signal), or end it (SIGKILL).
    Signal { id: Id, run: u32, kill: bool },
    /// Begin to probe; answer with `Probed`.
    Probe { id: Id, run: u32 },
    /// End its probes, hooks and pull.
    StopProbes { id: Id },
    /// Tell people.
    Event(Event),
    /// The container's status is another.
    ContainerChanged {
        id: Id,
        status: Box<ContainerStatus>,
    },
    /// The pod's phase or readiness is another.
    PodChanged { phase: Phase, ready: bool },
    /// All containers have ended for good: take the pod apart.
    Finished,
}

/// A Kubernetes event. (Kubernetes API: v1 Event.)
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// `type`: Warning rather than Normal.
    pub(crate) warning: bool,
    /// `reason`.
    pub(crate) reason: &'static str,
    /// The container that it is about; none: the pod.
    pub(crate) container: Option<Id>,
    /// `message`.
    pub(crate) message: String,
    /// It was told with the same words before, of the same trouble: it is counted and not shown.
    pub(crate) again: bool,
}

/// How the pod came to its end, for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndedBy {
    /// All main containers ended for good.
    Completion,
    /// An init container failed under `restartPolicy: Never`.
    InitFailure,
    /// Over a limit.
    Eviction,
    /// Its `activeDeadlineSeconds` are over.
    Deadline,
    /// The container of `--exit-code-from` ended.
    Chosen,
    /// Asked to.
    Request,
}

#[derive(Debug)]
struct PodStop {
    by: EndedBy,
    /// `status.message`; may be empty.
    message: String,
    deadline: Instant,
    /// A main container had failed for good before anyone asked.
    failed_before: bool,
    /// Everything was killed at once.
    forced: bool,
}

#[derive(Debug)]
struct Container {
    name: String,
    role: Role,
    /// The plan in force.
    plan: Arc<PodPlan>,
    /// False: it was taken out of the plan.
    wanted: bool,
    /// What its present run has to end for.
    change: Option<Change>,
    /// The image as the file has it.
    image: String,
    /// What it is here, for people; none: it is in the store, or has to be pulled.
    at_hand: Option<String>,
    /// Volumes that it mounts are images.
    mounts_images: bool,
    /// The last wait for an image that could not be had.
    pull_step: Option<Duration>,
    /// Why it can't be made, as long as it can't: the reason and the message.
    unmade: Option<(&'static str, String)>,
    post_start: bool,
    pre_stop: bool,
    startup: Option<ProbeGrace>,
    readiness: bool,
    liveness: Option<ProbeGrace>,
    stage: Stage,
    run: u32,
    started_at: Option<SystemTime>,
    /// When its last run ended, as long as the next one is not there.
    ended: Option<Instant>,
    backoff: BackOff,
    status: ContainerStatus,
}

/// A probe's own `terminationGracePeriodSeconds`.
#[derive(Debug, Clone, Copy)]
struct ProbeGrace(Option<Duration>);

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// Its turn has not come.
    Idle,
    /// Its image is asked for.
    Pulling,
    /// Its image can't be had; it will be asked for again.
    PullWait(PullWait),
    /// Asked for; the answer is not there yet.
    Starting,
    /// It can't be made; it will be tried again.
    CreateWait { until: Instant },
    /// Its program runs.
    Up {
        /// The postStart hook is under way.
        post_start: bool,
    },
    /// It is being ended.
    Stopping(stop::Stopping),
    /// It ended and will start again.
    BackOff { until: Instant },
    /// It ended for good, or will never begin.
    Ended,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Machine {
    pod: String,
    grace: Duration,
    /// `activeDeadlineSeconds`, and once begun the moment itself.
    active_deadline: Option<Duration>,
    begun_at: Option<Instant>,
    deadline: Option<Instant>,
    first_step: Duration,
    exit_code_from: Option<Id>,
    containers: Vec<Container>,
    /// The first container whose turn has not passed.
    cursor: Id,
    begun: bool,
    phase: Phase,
    ready: bool,
    stop: Option<PodStop>,
    all_again: AllAgain,
    finished: bool,
    actions: Vec<Action>,
}

/// (Kubernetes: `pkg/kubelet/active_deadline.go`)
const DEADLINE_EXCEEDED: &str = "Pod was active on the node longer than the specified deadline";

/// What an image is that no store has, for people: `this program`.
fn at_hand(container: &ContainerPlan) -> Option<String> {
    match &container.source {
        ImageSource::Itself => Some("this program".to_owned()),
        ImageSource::Host => Some("the machine's own programs".to_owned()),
        ImageSource::Rootfs(directory) => Some(directory.display().to_string()),
        ImageSource::Image(_) => None,
    }
}

impl Machine {
    /// Of the back-off.
    pub(crate) fn first_step(&self) -> Duration {
        self.first_step
    }

    /// A pod that has not begun. `first_step` is that of the back-off; when the container `exit_code_from` ends,
    /// the pod stops.
    pub(crate) fn new(
        plan: &Arc<PodPlan>,
        first_step: Duration,
        exit_code_from: Option<Id>,
    ) -> Self {
        let containers = (0..plan.containers.len()).map(|id| Container::new(plan, id, first_step));
        Self {
            pod: format!("{}_{}({})", plan.name, plan.namespace, plan.facts.uid),
            grace: plan.grace,
            active_deadline: plan.active_deadline,
            begun_at: None,
            deadline: None,
            first_step,
            exit_code_from,
            containers: containers.collect(),
            cursor: 0,
            begun: false,
            phase: Phase::Pending,
            ready: false,
            stop: None,
            all_again: AllAgain::Never,
            finished: false,
            actions: Vec::new(),
        }
    }

    /// Takes what happened, and says what to do about it, in this order.
    pub(crate) fn on(&mut self, now: Now, input: Input) -> Vec<Action> {
        if !self.finished {
            self.take(now, input);
            self.tick(now);
            self.advance(now);
            self.conclude();
        }
        std::mem::take(&mut self.actions)
    }

    fn take(&mut self, now: Now, input: Input) {
        match input {
            Input::Begin => {
                self.begun = true;
                self.begun_at = Some(now.at);
                self.deadline = self.active_deadline.map(|after| now.at + after);
            }
            Input::Pulling { id, run } => {
                if self.is(id, run, |stage| *stage == Stage::Pulling) || self.prefetches(id, run) {
                    self.pulling(id);
                }
            }
            Input::Pulled { id, run, pulled } => {
                if self.is(id, run, |stage| *stage == Stage::Pulling) {
                    self.pulled(now, id, pulled);
                } else if self.prefetches(id, run) {
                    self.prefetched(now, id, pulled);
                }
            }
            Input::Started { id, run } => {
                if self.is(id, run, |stage| *stage == Stage::Starting) {
                    self.started(now, id);
                }
            }
            Input::StartFailed { id, run, failure } => {
                if self.is(id, run, |stage| *stage == Stage::Starting) {
                    self.start_failed(now, id, failure);
                }
            }
            Input::PostStartDone { id, run, failed } => {
                if self.is(id, run, |stage| *stage == Stage::Up { post_start: true }) {
                    self.post_start_done(now, id, failed);
                }
            }
            Input::PreStopDone { id, run, failed } => {
                if self.is(id, run, |stage| matches!(stage, Stage::Stopping(_))) {
                    self.pre_stop_done(now, id, failed);
                }
            }
            Input::Probed { id, run, verdict } => {
                if self.is(id, run, |stage| *stage == Stage::Up { post_start: false }) {
                    self.probed(now, id, verdict);
                }
            }
            Input::Exited { id, run, exit } => {
                if self.is(id, run, |stage| {
                    matches!(stage, Stage::Up { .. } | Stage::Stopping(_))
                }) {
                    self.exited(now, id, exit);
                }
            }
            Input::Replan(replan) => self.replan(now, *replan),
            Input::Evict { message } => {
                if self.stop.is_none() {
                    self.event(true, "Evicted", None, message.clone());
                    // The kubelet's eviction leaves no grace, which killContainer raises to its minimum.
                    self.stop_pod(now, EndedBy::Eviction, Duration::ZERO);
                    self.explain(message);
                }
            }
            Input::Stop => self.stop_pod(now, EndedBy::Request, self.grace),
            Input::StopWithin { grace } => self.stop_pod(now, EndedBy::Request, grace),
            Input::Kill => self.kill_pod(now),
            Input::Tick => {}
        }
    }

    fn is(&self, id: Id, run: u32, expected: impl Fn(&Stage) -> bool) -> bool {
        let container = &self.containers[id];
        container.run == run && expected(&container.stage)
    }

    /// When to be asked again, at the latest. None: only when something happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let due = |container: &Container| match &container.stage {
            Stage::BackOff { until } | Stage::CreateWait { until } => Some(*until),
            Stage::PullWait(wait) => Some(wait.due()),
            Stage::Stopping(stopping) => stopping.due(),
            _ => None,
        };
        let deadline = self.deadline.filter(|_| self.stop.is_none());
        let all = self.containers.iter();
        let up = |container: &&Container| matches!(container.stage, Stage::Up { .. });
        let changes = all
            .clone()
            .filter(up)
            .filter_map(|container| container.change?.due());
        let again = self.all_due();
        all.filter_map(due)
            .chain(changes)
            .chain(deadline)
            .chain(again)
            .min()
    }

    /// What is known of a container.
    pub(crate) fn status(&self, id: Id) -> &ContainerStatus {
        &self.containers[id].status
    }

    /// The container whose end is the pod's.
    pub(crate) fn exit_code_from(&self) -> Option<Id> {
        self.exit_code_from
    }

    /// It was taken out of the plan, whether or not it has ended.
    pub(crate) fn is_removed(&self, id: Id) -> bool {
        !self.containers[id].wanted
    }

    /// `status.phase`.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// The condition `Ready`.
    pub(crate) fn ready(&self) -> bool {
        self.ready
    }

    /// The condition `Initialized`: all init containers have ended well and all sidecars have started.
    pub(crate) fn initialized(&self) -> bool {
        self.containers
            .get(self.cursor)
            .is_none_or(|next| next.role == Role::Main)
    }

    /// It is on its way to its end.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// A container is being ended.
    pub(crate) fn stops(&self, id: Id) -> bool {
        matches!(self.containers[id].stage, Stage::Stopping(_))
    }

    /// `status.reason`: `Evicted`, `DeadlineExceeded`, or nothing.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self.stop.as_ref()?.by {
            EndedBy::Eviction => Some("Evicted"),
            EndedBy::Deadline => Some("DeadlineExceeded"),
            _ => None,
        }
    }

    /// `status.message`, when there is one.
    pub(crate) fn message(&self) -> Option<&str> {
        let message = &self.stop.as_ref()?.message;
        (!message.is_empty()).then_some(message)
    }

    fn explain(&mut self, message: String) {
        if let Some(stop) = &mut self.stop {
            stop.message = message;
        }
    }

    /// The pod was active for as long as it may be.
    fn check_deadline(&mut self, now: Now) {
        if self.stop.is_none() && self.deadline.is_some_and(|deadline| deadline <= now.at) {
            let message = DEADLINE_EXCEEDED.to_owned();
            self.event(false, "DeadlineExceeded", None, message.clone());
            self.stop_pod(now, EndedBy::Deadline, self.grace);
            self.explain(message);
        }
    }

    /// The exit code of `podkit run` once finished: 0 when all went well, 1 when the pod failed, was evicted or had
    /// to be killed at once; with `--exit-code-from` that container's own (1 when it has none).
    pub(crate) fn exit_code(&self) -> u8 {
        if let Some(id) = self.exit_code_from {
            let code = match &self.containers[id].status.state {
                State::Terminated(end) => end.code,
                _ => 1,
            };
            // An exit code is a byte by its nature; what is not (never, from wait(2)) is a failure.
            return u8::try_from(code).unwrap_or(1);
        }
        let Some(stop) = &self.stop else { return 1 };
        match stop.by {
            EndedBy::Completion => u8::from(self.phase != Phase::Succeeded),
            EndedBy::InitFailure | EndedBy::Eviction | EndedBy::Deadline => 1,
            EndedBy::Chosen | EndedBy::Request => u8::from(stop.forced || stop.failed_before),
        }
    }

    /// Marks what follows from the containers' states: the pod's phase, its readiness, its end.
    fn conclude(&mut self) {
        let of_note = |container: &&Container| container.role != Role::Init && container.wanted;
        let ready = self.stop.is_none()
            && self.cursor == self.containers.len()
            && self
                .containers
                .iter()
                .filter(of_note)
                .all(|container| container.status.ready);
        let up = |container: &Container| {
            container.role == Role::Main && matches!(container.stage, Stage::Up { .. })
        };
        let mut phase = self.phase;
        if phase == Phase::Pending && self.containers.iter().any(up) {
            phase = Phase::Running;
        }
        let finished = self.stop.is_some()
            && self
                .containers
                .iter()
                .all(|container| container.stage == Stage::Ended);
        if finished {
            phase = self.last_phase();
        }
        if (ready, phase) != (self.ready, self.phase) {
            (self.ready, self.phase) = (ready, phase);
            self.actions.push(Action::PodChanged { phase, ready });
        }
        if finished {
            self.finished = true;
            self.actions.push(Action::Finished);
        }
    }

    /// `getPhase` of a pod whose containers have all ended for good.
    fn last_phase(&self) -> Phase {
        let by = self.stop.as_ref().map(|stop| stop.by);
        let well = |container: &Container| match &container.status.state {
            State::Terminated(end) => end.code == 0,
            _ => false,
        };
        let all_well = self
            .containers
            .iter()
            .filter(|container| container.role == Role::Main && container.wanted)
            .all(well);
        match by {
            Some(EndedBy::InitFailure | EndedBy::Eviction | EndedBy::Deadline) => Phase::Failed,
            _ if all_well => Phase::Succeeded,
            _ => Phase::Failed,
        }
    }

    fn event(
        &mut self,
        warning: bool,
        reason: &'static str,
        container: Option<Id>,
        message: String,
    ) {
        self.event_again(warning, reason, container, message, false);
    }

    /// `again`: nobody has to be shown it, see [`Event::again`].
    fn event_again(
        &mut self,
        warning: bool,
        reason: &'static str,
        container: Option<Id>,
        message: String,
        again: bool,
    ) {
        self.actions.push(Action::Event(Event {
            warning,
            reason,
            container,
            message,
            again,
        }));
    }

    fn changed(&mut self, id: Id) {
        // As it is now: the machine may go on before anyone looks.
        let status = Box::new(self.containers[id].status.clone());
        self.actions.push(Action::ContainerChanged { id, status });
    }
}
