//! The rim around the machine: it waits for what happens, asks the machine, and does what it says.

mod replan;
mod told;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::container::{Begun, Ground, Running, follow_logs};
use super::definition::Reread;
use super::images::{Got, Images};
use super::log_files::LogFiles;
use super::machine::{Action, Event, Id, Input, Machine, Now, StartFailure, State};
use super::network::Network;
use super::output::{Item, Output, Turn};
use super::probing;
use super::signals::{Ask, Signals};
use super::state::PodObject;
use crate::control::{Asked, Board, EventLog, Refusal, Server};
use crate::image::{Pulls, Store};
use crate::manifest::nearest;
use crate::net::{Egress, Forwarder, PodNet, Publisher};
use crate::plan::{ContainerPlan, ImageSource};
pub(super) use replan::Followed;

/// How long between two looks at the volumes, and how many entries one look takes: some milliseconds of CPU.
const LIMITS_PERIOD: Duration = Duration::from_secs(1);
const LIMITS_ENTRIES: usize = 4096;

/// How long the kernel may take to end what was killed.
const DESTROY_MAX: Duration = Duration::from_secs(10);

/// What the supervisor's tasks tell it.
#[derive(Debug)]
pub(super) enum Note {
    /// For the machine.
    Input(Input),
    /// What came of a container's start.
    Start(Answer),
    /// What came of asking for a container's image, and for those of the volumes that it mounts.
    Pulled {
        id: Id,
        run: u32,
        got: Box<Got>,
        waited: Duration,
    },
    /// Something about the image of a volume, for people.
    VolumeImage {
        warning: bool,
        reason: &'static str,
        message: String,
    },
    /// The files that define the pod were looked at.
    Reread(Reread),
    /// A probe has failed and people are to be told.
    Unhealthy { id: Id, message: String },
}

/// What came of a start: a program that executes, or why there is none.
#[derive(Debug)]
pub(super) struct Answer {
    id: Id,
    run: u32,
    begun: Result<Box<Begun>, StartFailure>,
}

/// One pod, running.
pub(super) struct Supervisor {
    ground: Arc<Ground>,
    net: Arc<PodNet>,
    egress: Option<Egress>,
    /// Works while it lives.
    _forwarder: Option<Forwarder>,
    publisher: Publisher,
    machine: Machine,
    images: Images,
    output: Output,
    files: LogFiles,
    notes: mpsc::UnboundedSender<Note>,
    inbox: mpsc::UnboundedReceiver<Note>,
    /// What the machine is to be told next.
    inputs: VecDeque<Input>,
    turns: Turns,
    running: Vec<Option<Arc<Running>>>,
    /// Probes and hooks of each container's present run.
    tasks: Vec<Vec<AbortHandle>>,
    object: PodObject,
    /// What others may see, and what they ask for.
    board: Rc<Board>,
    asks: mpsc::UnboundedSender<Asked>,
    asked: mpsc::UnboundedReceiver<Asked>,
    was_ready: Vec<bool>,
    pod_was_ready: bool,
    /// Whether the addresses have been shown.
    opened: bool,
    /// To be shown at the beginning.
    warnings: Vec<String>,
    dns_events: Vec<String>,
    warned: Vec<String>,
    /// Until it is followed.
    followed: Option<Followed>,
    /// `--watch`.
    apply: bool,
    /// The object is another, and nobody was shown it.
    stale: bool,
}

impl Supervisor {
    pub(super) fn new(
        ground: Ground,
        network: Network,
        publisher: Publisher,
        machine: Machine,
        output: Output,
        (store, files): (Store, LogFiles),
        (detached, followed): (bool, Option<Followed>),
    ) -> Self {
        let plan = ground.plan();
        let count = plan.containers.len();
        let (notes, inbox) = mpsc::unbounded_channel();
        let pulls = Pulls::default();
        let images = Images::begin(store, &plan, &pulls, machine.first_step(), &notes);
        let (asks, asked) = mpsc::unbounded_channel();
        let object = PodObject::new(&plan, network.net.address(), SystemTime::now(), detached);
        let board = Rc::new(Board::new(EventLog::new(&plan), pulls));
        Self {
            ground: Arc::new(ground),
            net: Arc::new(network.net),
            egress: network.egress,
            _forwarder: network.forwarder,
            publisher,
            machine,
            images,
            output,
            files,
            notes,
            inbox,
            inputs: VecDeque::from([Input::Begin]),
            turns: Turns::default(),
            running: (0..count).map(|_| None).collect(),
            tasks: vec![Vec::new(); count],
            object,
            board,
            asks,
            asked,
            was_ready: vec![false; count],
            pod_was_ready: false,
            opened: false,
            warnings: network.warnings,
            dns_events: network.resolv.events,
            warned: Vec::new(),
            apply: followed.as_ref().is_some_and(|followed| followed.apply),
            followed,
            stale: false,
        }
    }

    /// Listens for the other commands, and shows the pod to them. An error is one line for people.
    pub(super) fn open(&mut self) -> Result<Server, String> {
        self.write_state();
        let (board, net) = (Rc::clone(&self.board), Arc::clone(&self.net));
        Server::listen(self.ground.paths.run(), board, net, self.asks.clone())
            .map_err(|error| format!("listening on the pod's control socket: {error}"))
    }

    /// The images that are on their way.
    pub(super) fn pulls(&self) -> Pulls {
        self.board.pulls().clone()
    }

    /// Runs the pod to its end.
    pub(super) async fn run(mut self, mut signals: Signals, server: Server) -> Outcome {
        let warnings = std::mem::take(&mut self.warnings);
        for warning in self.publisher.warnings().to_vec().iter().chain(&warnings) {
            self.warn(warning);
        }
        for message in std::mem::take(&mut self.dns_events) {
            self.tell(&Event {
                warning: true,
                reason: "DNSConfigForming",
                container: None,
                message,
                again: false,
            });
        }
        self.publisher.serve(&self.net);
        let limits = self.watch_limits();
        let follows = self.follow_files();
        let init = self.ground.sandbox.init().clone();
        let mut sandbox_ended = std::pin::pin!(async move { init.exited().await });
        let mut sandbox_lives = true;
        loop {
            if let Some(input) = self.inputs.pop_front() {
                if self.step(input) {
                    break;
                }
                continue;
            }
            let wake = self.machine.wake_at();
            tokio::select! {
                // Its sender is self: it can't end.
                Some(note) = self.inbox.recv() => self.take(note),
                ask = signals.next() => self.signalled(ask),
                Some(asked) = self.asked.recv() => self.asked(asked),
                _ = &mut sandbox_ended, if sandbox_lives => {
                    sandbox_lives = false;
                    self.sandbox_lost();
                }
                () = until(wake) => self.inputs.push_back(Input::Tick),
            }
        }
        for task in [limits, follows].into_iter().flatten() {
            task.abort();
        }
        self.end(server).await
    }

    /// Tells the machine and does what it says; true at the pod's end.
    fn step(&mut self, input: Input) -> bool {
        let now = Now {
            at: Instant::now(),
            wall: SystemTime::now(),
        };
        let actions = self.machine.on(now, input);
        let of_state = |action: &Action| {
            matches!(
                action,
                Action::ContainerChanged { .. } | Action::PodChanged { .. }
            )
        };
        // Before anything is said: who acts on an event finds the state that it is about.
        if actions.iter().any(of_state) || std::mem::take(&mut self.stale) {
            self.write_state();
        }
        let mut finished = false;
        for action in actions {
            finished |= action == Action::Finished;
            self.perform(action);
        }
        finished
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Pull { id, run } => {
                let plan = self.ground.plan();
                let task = self.images.pull(&plan, id, run, &self.notes);
                self.tasks[id].push(task);
            }
            Action::Start { id, run } => self.start(id, run),
            Action::Signal { id, run: _, kill } => {
                if let Some(running) = &self.running[id] {
                    running.signal(kill);
                }
            }
            Action::Probe { id, run } => self.probe(id, run),
            Action::StopProbes { id } => self.end_tasks(id),
            Action::PostStart { id, run } => {
                let hook = self.planned(id, |container| &container.post_start);
                let answer = move |failed| Input::PostStartDone { id, run, failed };
                self.hook(id, hook, None, answer);
            }
            Action::PreStop { id, run, limit } => {
                let hook = self.planned(id, |container| &container.pre_stop);
                let answer = move |failed| Input::PreStopDone { id, run, failed };
                self.hook(id, hook, Some(limit), answer);
            }
            Action::Event(event) => self.tell(&event),
            Action::ContainerChanged { id, status } => {
                if matches!(status.state, State::Terminated(_)) {
                    self.running[id] = None;
                }
                let was_ready = std::mem::replace(&mut self.was_ready[id], status.ready);
                let turn = Turn::new(was_ready, status.ready, self.machine.stops(id));
                self.output.show(&Item::Container {
                    container: id,
                    status: &status,
                    turn,
                });
            }
            Action::PodChanged { phase, ready } => {
                let was_ready = std::mem::replace(&mut self.pod_was_ready, ready);
                let turn = Turn::new(was_ready, ready, self.machine.stopping());
                self.output.show(&Item::Pod { phase, ready, turn });
                if ready && !std::mem::replace(&mut self.opened, true) {
                    self.show_addresses();
                    crate::sys::give_back_start();
                }
            }
            // The loop ends by it.
            Action::Finished => {}
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Input(input) => self.inputs.push_back(input),
            Note::Pulled {
                id,
                run,
                got,
                waited,
            } => {
                let plan = self.ground.plan();
                let location = match &plan.containers[id].source {
                    ImageSource::Image(location) => Some(location),
                    _ => None,
                };
                let input = self.images.pulled(location, id, run, *got, waited);
                self.inputs.push_back(input);
            }
            Note::VolumeImage {
                warning,
                reason,
                message,
            } => self.tell_pod(warning, reason, message),
            Note::Start(answer) => {
                for answer in self.turns.give(answer) {
                    let input = self.answered(answer);
                    self.inputs.push_back(input);
                }
            }
            Note::Reread(reread) => self.reread(reread),
            Note::Unhealthy { id, message } => {
                self.tell(&Event {
                    warning: true,
                    reason: "Unhealthy",
                    container: Some(id),
                    message,
                    again: false,
                });
            }
        }
    }

    fn start(&mut self, id: Id, run: u32) {
        self.turns.ask(id, run);
        let (ground, notes) = (Arc::clone(&self.ground), self.notes.clone());
        let images = self.images.here(&self.ground.plan(), id);
        // A stage is executed and waited for, and cgroups are slow to make: not on this thread.
        tokio::task::spawn_blocking(move || {
            let begun = ground.start(id, &images).map(Box::new);
            // Nobody listens any more when the supervisor has given up; the sandbox's end ends what was begun.
            let _unheard = notes.send(Note::Start(Answer { id, run, begun }));
        });
    }

    fn answered(&mut self, answer: Answer) -> Input {
        let Answer { id, run, begun } = answer;
        match begun {
            Ok(begun) => self.begun(id, run, *begun),
            Err(failure) => Input::StartFailed { id, run, failure },
        }
    }

    fn begun(&mut self, id: Id, run: u32, begun: Begun) -> Input {
        for warning in begun.warnings {
            self.warn(&warning);
        }
        let running = Arc::new(begun.running);
        self.running[id] = Some(Arc::clone(&running));
        let logs = follow_logs(begun.outputs, &running, run, &self.output, &self.files);
        let (ground, notes) = (Arc::clone(&self.ground), self.notes.clone());
        tokio::task::spawn_local(async move {
            let exit = running.end(&ground, logs).await;
            let _unheard = notes.send(Note::Input(Input::Exited { id, run, exit }));
        });
        Input::Started { id, run }
    }

    /// A hook of the container as it runs.
    fn planned(
        &self,
        id: Id,
        hook: impl Fn(&ContainerPlan) -> &Option<crate::plan::Action>,
    ) -> Option<crate::plan::Action> {
        let running = self.running[id].as_ref()?;
        hook(running.container()).clone()
    }

    fn probe(&mut self, id: Id, run: u32) {
        let Some(subject) = self.subject(id) else {
            return;
        };
        let task = tokio::task::spawn_local(probing::probe(subject, run, self.notes.clone()));
        self.tasks[id].push(task.abort_handle());
    }

    fn hook(
        &mut self,
        id: Id,
        hook: Option<crate::plan::Action>,
        limit: Option<Duration>,
        answer: impl FnOnce(bool) -> Input + Send + 'static,
    ) {
        let (Some(subject), Some(hook)) = (self.subject(id), hook) else {
            return;
        };
        let notes = self.notes.clone();
        let task = tokio::task::spawn_local(async move {
            let failed = probing::hook(&subject, &hook, limit).await.is_err();
            let _unheard = notes.send(Note::Input(answer(failed)));
        });
        self.tasks[id].push(task.abort_handle());
    }

    /// What probes and hooks of a container's present run look at.
    fn subject(&self, id: Id) -> Option<Subject> {
        Some(Subject {
            id,
            ground: Arc::clone(&self.ground),
            net: Arc::clone(&self.net),
            running: Arc::clone(self.running[id].as_ref()?),
        })
    }

    fn end_tasks(&mut self, id: Id) {
        for task in self.tasks[id].drain(..) {
            task.abort();
        }
    }

    fn signalled(&mut self, ask: Ask) {
        match ask {
            Ask::Stop => self.stop(None),
            Ask::Kill => self.stop(Some(Duration::ZERO)),
        }
    }

    fn asked(&mut self, asked: Asked) {
        match asked {
            Asked::Stop(grace) => self.stop(grace),
            Asked::Subject(name, answer) => {
                // Who asked may have gone.
                let _unwanted = answer.send(self.subject_of(&name));
            }
        }
    }

    /// Somebody wants the pod gone: within its own grace period or the one given; none at all kills it.
    fn stop(&mut self, grace: Option<Duration>) {
        let plan = &self.ground.plan();
        let (message, input) = match grace {
            Some(Duration::ZERO) => (format!("Killing pod {}", plan.name), Input::Kill),
            _ => (
                format!("Stopping pod {} (ask again to kill it)", plan.name),
                grace.map_or(Input::Stop, |grace| Input::StopWithin { grace }),
            ),
        };
        self.object
            .delete(SystemTime::now(), grace.unwrap_or(plan.grace));
        self.tell(&Event {
            warning: false,
            reason: "Killing",
            container: None,
            message,
            again: false,
        });
        self.write_state();
        self.inputs.push_back(input);
    }

    /// The present run of a container, by its name.
    fn subject_of(&self, name: &str) -> Result<Subject, Refusal> {
        let plan = &self.ground.plan();
        let known = || plan.containers.iter().map(|one| one.name.as_str());
        let Some(id) = known().position(|known| known == name) else {
            let near = nearest(name, known()).map(|near| format!("; did you mean {near}?"));
            let message = format!(
                "container {name} is not valid for pod {}{}",
                plan.name,
                near.unwrap_or_default()
            );
            return Err(Refusal::new("BadRequest", message));
        };
        self.subject(id).ok_or_else(|| {
            let message = format!("container not found (\"{name}\"): it does not run");
            Refusal::new("NotFound", message)
        })
    }

    /// The pod's init was killed, by someone who may: all its processes are gone with it.
    fn sandbox_lost(&mut self) {
        self.tell(&Event {
            warning: true,
            reason: "SandboxChanged",
            container: None,
            message: "Pod sandbox changed, it will be killed".to_owned(),
            again: false,
        });
        self.inputs.push_back(Input::Kill);
    }

    /// Looks at the emptyDirs with a sizeLimit, now and then.
    fn watch_limits(&self) -> Option<AbortHandle> {
        let lock = |ground: &Ground| {
            ground
                .volumes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .has_limits()
        };
        if !lock(&self.ground) {
            return None;
        }
        let (ground, notes) = (Arc::clone(&self.ground), self.notes.clone());
        let task = tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(LIMITS_PERIOD).await;
                let ground = Arc::clone(&ground);
                let look = tokio::task::spawn_blocking(move || {
                    let mut volumes = ground
                        .volumes
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    volumes.over_limit(LIMITS_ENTRIES)
                });
                if let Ok(Some(over)) = look.await {
                    let message = over.to_string();
                    let _unheard = notes.send(Note::Input(Input::Evict { message }));
                    return;
                }
            }
        });
        Some(task.abort_handle())
    }

    /// Takes the pod apart. Nothing of it is left running.
    async fn end(mut self, server: Server) -> Outcome {
        for id in 0..self.tasks.len() {
            self.end_tasks(id);
        }
        self.images.end();
        self.publisher.close().await;
        let phase = self.machine.phase();
        let exit_code = self.machine.exit_code();
        let mut left = Vec::new();
        // The kernel takes some tens of milliseconds for an interface: meanwhile the rest goes.
        let egress = self.egress.take();
        let egress = tokio::task::spawn_blocking(move || drop(egress));
        if let Err(error) = self.ground.sandbox.destroy(DESTROY_MAX) {
            left.push(error.to_string());
        }
        server.close().await;
        drop(self.net);
        {
            let mut volumes = self
                .ground
                .volumes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = volumes.remove() {
                left.push(error.to_string());
            }
        }
        if let Err(error) = self.ground.cgroup.remove().await {
            left.push(error.to_string());
        }
        if let Err(error) = egress.await {
            left.push(format!("the pod's way out: {error}"));
        }
        for message in &left {
            self.output.show(&Item::Warning { message });
        }
        self.output.show(&Item::End { phase, exit_code });
        Outcome {
            exit_code,
            deleted: self.object.deleted(),
            record: self.board.record(),
        }
    }
}

/// What came of a pod.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Of `podkit run`.
    pub(super) exit_code: u8,
    /// Somebody wanted it gone.
    pub(super) deleted: bool,
    /// The pod and its events, at the end.
    pub(super) record: serde_json::Value,
}

/// Containers are started side by side, because most of a start is waiting for the kernel, and are told of in the order
/// in which they were asked for, as if one had been started after the other. Restarts have no order.
#[derive(Debug, Default)]
struct Turns {
    asked: VecDeque<Id>,
    held: Vec<Answer>,
}

impl Turns {
    fn ask(&mut self, id: Id, run: u32) {
        if run == 0 {
            self.asked.push_back(id);
        }
    }

    /// What may be told now.
    fn give(&mut self, answer: Answer) -> Vec<Answer> {
        if answer.run > 0 {
            return vec![answer];
        }
        self.held.push(answer);
        let mut told = Vec::new();
        while let Some(next) = self.asked.front() {
            let Some(at) = self.held.iter().position(|held| held.id == *next) else {
                break;
            };
            told.push(self.held.swap_remove(at));
            self.asked.pop_front();
        }
        told
    }
}

/// What a probe or a hook looks at: one run of a container.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) id: Id,
    pub(crate) ground: Arc<Ground>,
    pub(crate) net: Arc<PodNet>,
    pub(crate) running: Arc<Running>,
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
