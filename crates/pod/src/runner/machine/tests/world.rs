//! Any sequence of happenings, sane and insane, against a model of the world that only knows processes.
//!
//! Checked: no container is started twice at a time, or after the pod's stop; a main container only when every
//! init container has ended well and every sidecar was up once; every signal meets a process; whatever
//! happened, a stop comes to its end within the grace period and nothing still runs then.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Op {
    Pull {
        pick: usize,
        fails: bool,
    },
    Start {
        pick: usize,
        fails: Fails,
    },
    Exit {
        pick: usize,
        code: i32,
    },
    Hook {
        id: Id,
        failed: bool,
    },
    Probe {
        id: Id,
        verdict: Verdict,
    },
    Pass(u64),
    /// Something about a run that isn't there.
    Stale {
        id: Id,
        run: u32,
    },
    /// An edit: this container is another, with another image or without; or it is gone; or there is one more.
    Edit {
        id: Id,
        image: bool,
    },
    Remove {
        id: Id,
    },
    Add,
    Stop,
    Kill,
    Evict,
}

/// What comes of a start.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fails {
    Not,
    /// Its program can't be executed.
    Runs,
    /// It can't be made.
    Made,
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0usize..6;
    let verdict = prop_oneof![
        Just(Verdict::StartupPassed),
        Just(Verdict::StartupFailed),
        any::<bool>().prop_map(Verdict::Ready),
        Just(Verdict::LivenessFailed),
    ];
    let fails = prop_oneof![8 => Just(Fails::Not), 1 => Just(Fails::Runs), 1 => Just(Fails::Made)];
    let code = prop_oneof![Just(0), Just(1), Just(137)];
    prop_oneof![
        4 => (id.clone(), prop::bool::weighted(0.2)).prop_map(|(pick, fails)| Op::Pull { pick, fails }),
        6 => (id.clone(), fails).prop_map(|(pick, fails)| Op::Start { pick, fails }),
        4 => (id.clone(), code).prop_map(|(pick, code)| Op::Exit { pick, code }),
        3 => (id.clone(), any::<bool>()).prop_map(|(id, failed)| Op::Hook { id, failed }),
        4 => (id.clone(), verdict).prop_map(|(id, verdict)| Op::Probe { id, verdict }),
        4 => (0u64..700).prop_map(Op::Pass),
        1 => (id.clone(), 0u32..3).prop_map(|(id, run)| Op::Stale { id, run }),
        2 => (id.clone(), any::<bool>()).prop_map(|(id, image)| Op::Edit { id, image }),
        1 => id.clone().prop_map(|id| Op::Remove { id }),
        1 => Just(Op::Add),
        1 => prop_oneof![8 => Just(Op::Stop), 1 => Just(Op::Kill), 1 => Just(Op::Evict)],
    ]
}

fn any_plan() -> impl Strategy<Value = PodPlan> {
    let bits = any::<u8>();
    let policy = prop_oneof![
        Just(RestartPolicy::Always),
        Just(RestartPolicy::OnFailure),
        Just(RestartPolicy::Never)
    ];
    let before = vec((any::<bool>(), bits), 0..4);
    let mains = vec(any::<u8>(), 1..3);
    (policy, before, mains).prop_map(|(policy, before, mains)| {
        let before = before.into_iter().enumerate().map(|(at, (sidecar, bits))| {
            let role = if sidecar { Role::Sidecar } else { Role::Init };
            (format!("i{at}"), role, bits)
        });
        let mains = mains
            .into_iter()
            .enumerate()
            .map(|(at, bits)| (format!("m{at}"), Role::Main, bits));
        let build = |(name, role, bits): (String, Role, u8)| {
            let mut made = container(&name, role);
            let on = |bit: u8| bits & (1 << bit) != 0;
            if on(5) {
                let reference = "r.example/x:1".parse().unwrap();
                made.source = ImageSource::Image(crate::image::Location::Registry(reference));
            }
            if on(6) {
                made.mounts
                    .push(crate::plan::MountPlan::new("image", "/image"));
            }
            if on(7) {
                made.restart_rules = vec![crate::plan::RestartRule {
                    all: true,
                    not_in: false,
                    codes: vec![1],
                }];
            }
            if role != Role::Init {
                made.startup = on(0).then(|| probe(None)).flatten();
                made.readiness = on(1).then(|| probe(None)).flatten();
                made.liveness = on(2).then(|| probe(Some(7 * S))).flatten();
                made.post_start = on(3).then(|| Do::Exec(vec![]));
                made.pre_stop = on(4).then(|| Do::Exec(vec![]));
            }
            made
        };
        let mut made = plan(policy, before.chain(mains).map(build).collect());
        let reference = "r.example/volume:1".parse().unwrap();
        made.volumes.push(crate::plan::VolumePlan {
            name: "image".to_owned(),
            kind: crate::plan::VolumeKind::Image {
                image: "r.example/volume:1".to_owned(),
                location: crate::image::Location::Registry(reference),
                pull: crate::plan::PullPolicy::IfNotPresent,
            },
        });
        made
    })
}

/// What the kernel would know.
struct World {
    plan: PodPlan,
    machine: Machine,
    now: Now,
    /// Whose image was asked for.
    pulling: BTreeMap<Id, u32>,
    /// Asked to start, by container.
    starting: BTreeMap<Id, u32>,
    running: BTreeMap<Id, u32>,
    killed: Vec<Id>,
    /// Taken out by an edit at some time: what comes after it did not wait for it.
    removed: Vec<Id>,
    was_up: Vec<bool>,
    ended_well: Vec<bool>,
    stopping: bool,
    /// There was an edit.
    edited: bool,
    /// Killed at once: what is being started then ends with the sandbox.
    forced: bool,
    finished: bool,
}

impl World {
    fn new(plan: PodPlan) -> Self {
        let count = plan.containers.len();
        Self {
            machine: Machine::new(&Arc::new(plan.clone()), S, None),
            plan,
            now: Now {
                at: Instant::now(),
                wall: SystemTime::UNIX_EPOCH,
            },
            pulling: BTreeMap::new(),
            starting: BTreeMap::new(),
            running: BTreeMap::new(),
            killed: vec![],
            removed: vec![],
            was_up: vec![false; count],
            ended_well: vec![false; count],
            stopping: false,
            edited: false,
            forced: false,
            finished: false,
        }
    }

    fn tell(&mut self, input: Input) {
        let actions = self.machine.on(self.now, input);
        assert!(!self.finished || actions.is_empty(), "acts after its end");
        for action in &actions {
            self.take(action);
        }
        self.stopping |= self.machine.stopping();
    }

    fn take(&mut self, action: &Action) {
        match *action {
            Action::Pull { id, run } => {
                assert!(!self.stopping, "pulls {id} while stopping");
                // Only the image of its next run, for an edit.
                let next = self
                    .running
                    .get(&id)
                    .is_none_or(|present| run == present + 1);
                assert!(next, "{id} runs already");
                let before = self.pulling.insert(id, run);
                let again = self.running.contains_key(&id) && self.edited;
                assert!(before.is_none() || again, "{id} pulls twice");
                self.may_start(id);
            }
            Action::Start { id, run } => {
                assert!(!self.pulling.contains_key(&id), "{id} has no image yet");
                assert!(!self.stopping, "starts {id} while stopping");
                assert!(!self.running.contains_key(&id), "{id} runs twice");
                assert!(self.starting.insert(id, run).is_none(), "{id} starts twice");
                self.may_start(id);
            }
            Action::Signal { id, run, kill } => {
                assert_eq!(self.running.get(&id), Some(&run), "no such process");
                if kill {
                    self.killed.push(id);
                }
            }
            Action::PostStart { id, run }
            | Action::PreStop { id, run, .. }
            | Action::Probe { id, run, .. } => {
                assert_eq!(self.running.get(&id), Some(&run), "nothing to do it in");
            }
            Action::StopProbes { id } => {
                self.pulling.remove(&id);
            }
            Action::Finished => {
                assert!(self.pulling.is_empty(), "a pull goes on");
                assert!(self.running.is_empty());
                assert!(self.starting.is_empty() || self.forced, "one is forgotten");
                self.finished = true;
            }
            _ => {}
        }
    }

    fn may_start(&self, id: Id) {
        for (before, other) in self.plan.containers[..id].iter().enumerate() {
            match other.role {
                Role::Init => assert!(self.ended_well[before], "{id} overtakes {before}"),
                Role::Sidecar => assert!(
                    self.was_up[before] || self.removed.contains(&before),
                    "{id} overtakes {before}"
                ),
                Role::Main => {}
            }
        }
    }

    fn pull(&mut self, id: Id, fails: bool) {
        let Some(run) = self.pulling.remove(&id) else {
            return;
        };
        let pulled = match fails {
            true => Err(PullFailure {
                reason: "ErrImagePull",
                message: String::new(),
                of_volume: None,
            }),
            false => {
                let pulls = matches!(self.plan.containers[id].source, ImageSource::Image(_));
                Ok(pulls.then(|| Pulled {
                    image_id: String::new(),
                    took: None,
                    size_bytes: 0,
                }))
            }
        };
        self.tell(Input::Pulling { id, run });
        self.tell(Input::Pulled { id, run, pulled });
    }

    fn start(&mut self, id: Id, fails: Fails) {
        let Some(run) = self.starting.remove(&id) else {
            return;
        };
        if fails != Fails::Not {
            let failure = StartFailure {
                waiting: (fails == Fails::Made).then_some("CreateContainerError"),
                message: String::new(),
            };
            self.tell(Input::StartFailed { id, run, failure });
        } else {
            // After a kill the sandbox's end is its end, and the machine's no business.
            if !self.forced {
                self.running.insert(id, run);
                self.was_up[id] = true;
            }
            self.tell(Input::Started { id, run });
        }
    }

    fn exit(&mut self, id: Id, code: i32) {
        let Some(run) = self.running.remove(&id) else {
            return;
        };
        self.killed.retain(|killed| *killed != id);
        self.ended_well[id] = code == 0;
        // An edited container is started anew on its own.
        if self.plan.containers[id].restarts_all(code) && !self.edited {
            self.ended_well.fill(false);
            self.was_up.fill(false);
        }
        let exit = exit(code);
        self.tell(Input::Exited { id, run, exit });
    }

    fn edit(&mut self, changed: Vec<Id>, removed: Vec<Id>) {
        self.edited = true;
        self.removed.extend(&removed);
        // Once it stops nothing is added, so that those who ask about ids ask about the machine's.
        if self.machine.stopping() {
            let known = self.machine.containers.len();
            self.plan.containers.truncate(known);
            self.was_up.truncate(known);
            self.ended_well.truncate(known);
        }
        let plan = Arc::new(self.plan.clone());
        self.tell(Input::Replan(Box::new(Replan {
            plan,
            changed,
            removed,
        })));
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.wall += time;
        self.tell(Input::Tick);
    }

    fn apply(&mut self, op: Op) {
        let count = self.plan.containers.len();
        match op {
            Op::Pull { pick, fails } => {
                let ids: Vec<Id> = self.pulling.keys().copied().collect();
                if let Some(id) = ids.get(pick % ids.len().max(1)) {
                    self.pull(*id, fails);
                }
            }
            Op::Start { pick, fails } => {
                let ids: Vec<Id> = self.starting.keys().copied().collect();
                if let Some(id) = ids.get(pick % ids.len().max(1)) {
                    self.start(*id, fails);
                }
            }
            Op::Exit { pick, code } => {
                let ids: Vec<Id> = self.running.keys().copied().collect();
                if let Some(id) = ids.get(pick % ids.len().max(1)) {
                    self.exit(*id, code);
                }
            }
            Op::Hook { id, failed } => {
                let id = id % count;
                let run = self.running.get(&id).copied().unwrap_or(9);
                self.tell(Input::PostStartDone { id, run, failed });
                self.tell(Input::PreStopDone { id, run, failed });
            }
            Op::Probe { id, verdict } => {
                let id = id % count;
                let run = self.running.get(&id).copied().unwrap_or(9);
                self.tell(Input::Probed { id, run, verdict });
            }
            Op::Pass(seconds) => self.pass(Duration::from_secs(seconds)),
            Op::Stale { id, run } => {
                let id = id % count;
                let present = self.machine.containers[id].run;
                let run = if run == present { run + 1 } else { run };
                let exit = exit(0);
                self.tell(Input::Exited { id, run, exit });
                self.tell(Input::Started { id, run });
            }
            Op::Edit { id, image } => {
                let id = id % count;
                // A changed init container restarts the whole pod.
                if self.plan.containers[id].role != Role::Init {
                    let container = &mut self.plan.containers[id];
                    container.args.push("x".to_owned());
                    if image {
                        let tag = container.args.len();
                        let reference = format!("r.example/x:{tag}").parse().unwrap();
                        container.source =
                            ImageSource::Image(crate::image::Location::Registry(reference));
                    }
                    self.edit(vec![id], vec![]);
                }
            }
            Op::Remove { id } => {
                let id = id % count;
                let mains = self.plan.containers.iter().enumerate();
                let mains = mains
                    .filter(|(id, one)| one.role == Role::Main && !self.machine.is_removed(*id));
                let last = mains.count() == 1;
                let role = self.plan.containers[id].role;
                let stays = role == Role::Init || (role == Role::Main && last);
                if !stays && !self.machine.is_removed(id) {
                    self.edit(vec![], vec![id]);
                }
            }
            Op::Add => {
                let name = format!("new{count}");
                self.plan.containers.push(container(&name, Role::Main));
                self.was_up.push(false);
                self.ended_well.push(false);
                self.edit(vec![], vec![]);
            }
            Op::Stop => self.tell(Input::Stop),
            Op::Kill => {
                self.forced = true;
                self.tell(Input::Kill);
            }
            Op::Evict => self.tell(Input::Evict {
                message: String::new(),
            }),
        }
    }

    /// Stops it; only what is killed ends. Answers how long it took.
    fn stop(&mut self) -> Duration {
        let asked = self.now.at;
        self.tell(Input::Stop);
        for _ in 0..200 {
            for id in self.starting.keys().copied().collect::<Vec<_>>() {
                self.start(id, Fails::Not);
            }
            for id in self.killed.clone() {
                self.exit(id, 137);
            }
            if self.finished {
                return self.now.at - asked;
            }
            if let Some(wake) = self.machine.wake_at() {
                self.now.at = self.now.at.max(wake);
                self.tell(Input::Tick);
            }
        }
        panic!("no end: {:?}", self.machine);
    }
}

proptest! {
    // What goes wrong takes a rare sequence.
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn any_story_keeps_the_rules_and_comes_to_its_end(
        plan in any_plan(),
        ops in vec(op(), 0..80),
    ) {
        let mut world = World::new(plan);
        world.tell(Input::Begin);
        for op in ops {
            world.apply(op);
        }
        let took = if world.finished { Duration::ZERO } else { world.stop() };
        prop_assert!(took <= 32 * S, "took {took:?}");
        prop_assert!(world.running.is_empty());
    }
}
