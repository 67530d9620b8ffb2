//! The machine against a world of words: every action becomes a short line, so that a test reads as a story.

mod create;
mod order;
mod pull;
mod replan;
mod restart;
mod stop;
mod world;

use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::plan::{Action as Do, ProbePlan, RestartPolicy};
use crate::runner::testing;

const S: Duration = Duration::from_secs(1);

fn container(name: &str, role: Role) -> ContainerPlan {
    ContainerPlan {
        role,
        ..testing::container(name)
    }
}

fn probe(grace: Option<Duration>) -> Option<ProbePlan> {
    Some(ProbePlan {
        action: Do::Exec(vec![]),
        initial_delay: Duration::ZERO,
        period: S,
        timeout: S,
        success_threshold: 1,
        failure_threshold: 1,
        grace,
    })
}

fn plan(restart_policy: RestartPolicy, containers: Vec<ContainerPlan>) -> PodPlan {
    PodPlan {
        restart_policy,
        ..testing::plan(containers)
    }
}

/// A machine, its clock, and the names of its containers.
struct Story {
    machine: Machine,
    names: Vec<String>,
    now: Now,
    begin: Instant,
}

impl Story {
    fn new(plan: &PodPlan) -> Self {
        Self::with(plan, None)
    }

    fn with(plan: &PodPlan, exit_code_from: Option<Id>) -> Self {
        let at = Instant::now();
        Self {
            machine: Machine::new(&Arc::new(plan.clone()), FIRST_STEP, exit_code_from),
            names: plan.containers.iter().map(|c| c.name.clone()).collect(),
            now: Now {
                at,
                wall: SystemTime::UNIX_EPOCH,
            },
            begin: at,
        }
    }

    fn id(&self, name: &str) -> (Id, u32) {
        let id = self.names.iter().position(|n| n == name).unwrap();
        (id, self.machine.containers[id].run)
    }

    fn status(&self, name: &str) -> &ContainerStatus {
        self.machine.status(self.id(name).0)
    }

    /// What the machine does, without the events and changes.
    fn on(&mut self, input: Input) -> Vec<String> {
        let actions = self.machine.on(self.now, input);
        actions
            .iter()
            .filter_map(|action| self.word(action))
            .collect()
    }

    fn word(&self, action: &Action) -> Option<String> {
        let name = |id: Id| &self.names[id];
        Some(match *action {
            Action::Pull { id, .. } => format!("pull {}", name(id)),
            Action::Start { id, .. } => format!("start {}", name(id)),
            Action::PostStart { id, .. } => format!("postStart {}", name(id)),
            Action::PreStop { id, limit, .. } => format!("preStop {} {limit:?}", name(id)),
            Action::Signal { id, kill, .. } => {
                format!("{} {}", if kill { "KILL" } else { "TERM" }, name(id))
            }
            Action::Probe { id, .. } => format!("probe {}", name(id)),
            Action::Finished => "finished".to_owned(),
            Action::StopProbes { .. }
            | Action::Event(_)
            | Action::ContainerChanged { .. }
            | Action::PodChanged { .. } => return None,
        })
    }

    /// The events, as `Reason message`.
    fn events(&mut self, input: Input) -> Vec<String> {
        let actions = self.machine.on(self.now, input);
        let event = |action| match action {
            Action::Event(event) => Some(format!("{} {}", event.reason, event.message)),
            _ => None,
        };
        actions.into_iter().filter_map(event).collect()
    }

    /// The reason and the message of a container that waits.
    fn waits(&self, name: &str) -> (&str, &str) {
        match &self.status(name).state {
            State::Waiting {
                reason, message, ..
            } => (reason, message),
            other => panic!("{other:?}"),
        }
    }

    fn begin(&mut self) -> Vec<String> {
        self.on(Input::Begin)
    }

    fn started(&mut self, name: &str) -> Vec<String> {
        let (id, run) = self.id(name);
        self.on(Input::Started { id, run })
    }

    fn exited(&mut self, name: &str, code: i32) -> Vec<String> {
        let (id, run) = self.id(name);
        let exit = exit(code);
        self.on(Input::Exited { id, run, exit })
    }

    fn probed(&mut self, name: &str, verdict: Verdict) -> Vec<String> {
        let (id, run) = self.id(name);
        self.on(Input::Probed { id, run, verdict })
    }

    fn hook(&mut self, name: &str, failed: bool) -> Vec<String> {
        let (id, run) = self.id(name);
        match self.machine.containers[id].stage {
            Stage::Up { .. } => self.on(Input::PostStartDone { id, run, failed }),
            _ => self.on(Input::PreStopDone { id, run, failed }),
        }
    }

    /// Lets time pass to `at` after the begin.
    fn at(&mut self, at: Duration) -> Vec<String> {
        let target = self.begin + at;
        let step = target.saturating_duration_since(self.now.at);
        self.now.at = target;
        self.now.wall += step;
        self.on(Input::Tick)
    }

    /// When the machine wants to be asked, since the begin.
    fn wake(&self) -> Option<Duration> {
        Some(self.machine.wake_at()? - self.begin)
    }
}

fn exit(code: i32) -> Exit {
    Exit {
        code,
        signal: (code > 128).then(|| code - 128),
        oom: false,
        message: String::new(),
    }
}

const NOTHING: [&str; 0] = [];
