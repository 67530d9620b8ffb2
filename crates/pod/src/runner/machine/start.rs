//! Bringing containers up: the order, the gates, and what follows when one ends while the pod is to run.

use super::stop::Why;
use super::{
    Action, Container, EndedBy, Exit, Id, Machine, Now, Stage, StartFailure, State, Terminated,
    Verdict,
};
use crate::plan::Role;
use crate::probe::go_duration;

impl Machine {
    /// Moves the cursor as far as it goes, and starts what it reaches.
    ///
    /// Once it has passed a sidecar, that one's troubles don't hold up what comes after it (its restarts are its
    /// own), as with the kubelet, which looks for the *last* init container that has begun.
    pub(super) fn advance(&mut self, now: Now) {
        if !self.begun || self.stop.is_some() || self.ends_all() {
            return;
        }
        while let Some(container) = self.containers.get(self.cursor) {
            if container.stage == Stage::Idle && container.wanted {
                self.start(now, self.cursor);
            }
            if !self.containers[self.cursor].lets_next_begin() {
                return;
            }
            self.cursor += 1;
        }
    }

    /// Begins a run: the first, or the next after an end.
    pub(super) fn start(&mut self, now: Now, id: Id) {
        let container = &mut self.containers[id];
        if matches!(container.stage, Stage::BackOff { .. }) {
            container.run += 1;
        }
        if let Some(ended) = container.ended {
            container.backoff.restarted(ended, now.at);
        }
        container.stage = Stage::Starting;
        container.started_at = None;
        if container.unmade.is_none() {
            container.status.state = State::creating();
            self.changed(id);
        }
        let container = &self.containers[id];
        if container.at_hand.is_none() || container.mounts_images {
            return self.pull(id);
        }
        self.tell_at_hand(id);
        self.create(id);
    }

    /// Asks for a start; its image is there.
    pub(super) fn create(&mut self, id: Id) {
        let container = &mut self.containers[id];
        container.stage = Stage::Starting;
        if container.unmade.is_none() {
            container.status.state = State::creating();
        }
        let run = container.run;
        self.actions.push(Action::Start { id, run });
    }

    /// It was made: from now on this run counts.
    fn created(&mut self, id: Id) {
        let container = &mut self.containers[id];
        container.unmade = None;
        container.ended = None;
        container.status.restarts = container.run;
        let message = format!("Created container {}", container.name);
        self.event(false, "Created", Some(id), message);
    }

    pub(super) fn started(&mut self, now: Now, id: Id) {
        self.created(id);
        let stopping = self.stop.is_some();
        let container = &mut self.containers[id];
        container.started_at = Some(now.wall);
        container.status.state = State::Running { since: now.wall };
        let post_start = container.post_start && !stopping;
        container.stage = Stage::Up { post_start };
        let (run, message) = (
            container.run,
            format!("Started container {}", container.name),
        );
        self.changed(id);
        self.event(false, "Started", Some(id), message);
        if stopping {
            self.stop_late_starter(now, id);
        } else if self.ends_all() {
            self.kill(now, id);
        } else if self.outdated(id) {
            self.end_outdated(now, id);
        } else if post_start {
            self.actions.push(Action::PostStart { id, run });
        } else {
            self.begin_probes(id);
        }
    }

    pub(super) fn start_failed(&mut self, now: Now, id: Id, failure: StartFailure) {
        let why = failure.message;
        if let Some(reason) = failure.waiting {
            return self.create_failed(now, id, reason, why);
        }
        self.created(id);
        self.event(true, "Failed", Some(id), format!("Error: {why}"));
        // What runc's callers report for a program that can't be executed.
        let end = Terminated {
            code: 128,
            signal: None,
            reason: "StartError",
            message: why,
            started: None,
            finished: now.wall,
        };
        self.ended(now, id, end, false);
    }

    pub(super) fn post_start_done(&mut self, now: Now, id: Id, failed: bool) {
        self.containers[id].stage = Stage::Up { post_start: false };
        if failed {
            // The hook's own words may hold secrets; the kubelet doesn't show them either.
            let message = "PostStartHook failed".to_owned();
            self.event(true, "FailedPostStartHook", Some(id), message);
            self.stop_container(now, id, Why::PostStart, self.grace);
        } else {
            self.begin_probes(id);
        }
    }

    fn begin_probes(&mut self, id: Id) {
        let container = &self.containers[id];
        let run = container.run;
        let gated = container.startup.is_some();
        if !gated {
            self.past_startup(id);
        }
        let container = &self.containers[id];
        if gated || container.readiness || container.liveness.is_some() {
            self.actions.push(Action::Probe { id, run });
        }
    }

    fn past_startup(&mut self, id: Id) {
        let container = &mut self.containers[id];
        container.status.started = true;
        container.status.ready = !container.readiness;
        self.changed(id);
    }

    pub(super) fn probed(&mut self, now: Now, id: Id, verdict: Verdict) {
        let container = &self.containers[id];
        let (started, ready) = (container.status.started, container.status.ready);
        match verdict {
            Verdict::StartupPassed if !started => self.past_startup(id),
            Verdict::StartupFailed if !started => {
                let grace = container.startup.and_then(|probe| probe.0);
                self.stop_container(now, id, Why::Startup, grace.unwrap_or(self.grace));
            }
            Verdict::Ready(now_ready) if started && now_ready != ready => {
                self.containers[id].status.ready = now_ready;
                self.changed(id);
            }
            Verdict::LivenessFailed if started => {
                let grace = container.liveness.and_then(|probe| probe.0);
                self.stop_container(now, id, Why::Liveness, grace.unwrap_or(self.grace));
            }
            _ => {}
        }
    }

    pub(super) fn exited(&mut self, now: Now, id: Id, exit: Exit) {
        let container = &self.containers[id];
        let end = Terminated {
            code: exit.code,
            signal: exit.signal,
            reason: exit.reason(),
            message: exit.message,
            started: container.started_at,
            finished: now.wall,
        };
        let asked = matches!(container.stage, Stage::Stopping(_));
        self.actions.push(Action::StopProbes { id });
        self.ended(now, id, end, asked);
    }

    /// A run is over: what next? `asked`: the runner ended it, so that it is not the end that
    /// `--exit-code-from` waits for.
    fn ended(&mut self, now: Now, id: Id, end: Terminated, asked: bool) {
        let failed = end.code != 0;
        let again = self.runs_again(id, end.code);
        let container = &mut self.containers[id];
        container.stage = Stage::Ended;
        container.status.state = State::Terminated(end.clone());
        container.status.ready = false;
        container.status.started = false;
        let (name, role) = (container.name.clone(), container.role);
        self.changed(id);
        if self.stop.is_some() {
            self.give_turns(now);
        } else if self.exit_code_from == Some(id) && !asked {
            self.stop_pod(now, EndedBy::Chosen, self.grace);
        } else if self.ends_all() {
            self.begin_all(now);
        } else if self.outdated(id) {
            self.renew(now, id);
        } else if self.asks_for_all(id, end.code) {
            self.restart_all(now, id);
        } else if again {
            let container = &mut self.containers[id];
            container.status.last = Some(end);
            container.ended = Some(now.at);
            let wait = container.backoff.wait(now.at);
            let until = now.at + wait;
            container.stage = Stage::BackOff { until };
            if !wait.is_zero() {
                // The kubelet's words: how long is in the state, so that the event is the same each time.
                let pod = &self.pod;
                let wait = go_duration(wait);
                container.status.state = State::Waiting {
                    reason: "CrashLoopBackOff",
                    message: format!(
                        "back-off {wait} restarting failed container={name} pod={pod}"
                    ),
                    until: Some(until),
                };
                let event = format!("Back-off restarting failed container {name} in pod {pod}");
                self.changed(id);
                self.event(true, "BackOff", Some(id), event);
            }
        } else if role == Role::Init && failed {
            self.stop_pod(now, EndedBy::InitFailure, self.grace);
        } else if self.mains_ended() {
            self.stop_pod(now, EndedBy::Completion, self.grace);
        }
    }

    /// Whether a container whose run ended with `code` is to run again.
    pub(super) fn runs_again(&self, id: Id, code: i32) -> bool {
        let plan = &self.containers[id].plan;
        plan.containers[id].restarts(plan.restart_policy, code)
    }

    pub(super) fn mains_ended(&self) -> bool {
        self.containers
            .iter()
            .filter(|container| container.role == Role::Main && container.wanted)
            .all(|container| container.stage == Stage::Ended)
    }

    /// Does what time alone brings about.
    pub(super) fn tick(&mut self, now: Now) {
        self.check_deadline(now);
        self.begin_all(now);
        for id in 0..self.containers.len() {
            self.tick_change(now, id);
            match &self.containers[id].stage {
                Stage::BackOff { until } | Stage::CreateWait { until } if *until <= now.at => {
                    self.start(now, id);
                }
                Stage::PullWait(_) => self.tick_pull(now, id),
                Stage::Stopping(_) => self.tick_stop(now, id),
                _ => {}
            }
        }
    }
}

impl Container {
    /// Whether what stands after it in the file may begin.
    fn lets_next_begin(&self) -> bool {
        if !self.wanted {
            return true;
        }
        match (self.role, &self.stage) {
            (_, Stage::Idle) | (Role::Main, Stage::Pulling) => false,
            (Role::Init, stage) => {
                let well = matches!(&self.status.state, State::Terminated(end) if end.code == 0);
                *stage == Stage::Ended && well
            }
            (Role::Sidecar, _) => self.status.started,
            // The kubelet starts one after the other, and each one's postStart holds up the next.
            (Role::Main, Stage::Starting) => !self.post_start,
            (Role::Main, stage) => *stage != Stage::Up { post_start: true },
        }
    }
}
