//! From look to look, with invented readings and clock.

use crate::topz::census::*;
use crate::topz::container::PodState;
use crate::topz::query::{Asked, At};
use crate::topz::ring::Ring;
use crate::topz::snapshot::{Snapshot, Sort, Source, Units};
use crate::topz::stat::{Comm, Reading};

/// A pod of processes that a test moves on, one second a look.
struct Pod {
    census: Census,
    state: PodState,
    processes: Vec<Reading>,
    commands: std::collections::BTreeMap<u32, Facts>,
    second: u64,
    last_pid: Option<u32>,
    asked: Vec<u32>,
}

impl Pod {
    fn new() -> Self {
        let census = Census::new(Ring::new(600_000, 1 << 20));
        Self {
            census,
            state: PodState::default(),
            processes: Vec::new(),
            commands: Default::default(),
            second: 100,
            last_pid: Some(10),
            asked: Vec::new(),
        }
    }

    fn start(&mut self, pid: u32, ppid: u32, cgroup: Option<&str>) -> &mut Reading {
        let reading = Reading {
            pid,
            ppid,
            start: self.second * 100,
            state: b'S',
            threads: 1,
            ticks: 0,
            children: 0,
            rss: 10,
            exec: 1,
            kernel: false,
            comm: Comm::new(b"sh"),
        };
        self.commands.insert(
            pid,
            Facts {
                command: format!("command {pid}"),
                user: Some("root".into()),
                container: cgroup.map(str::to_owned),
            },
        );
        self.processes.retain(|old| old.pid != pid);
        self.processes.push(reading);
        self.processes.sort_by_key(|reading| reading.pid);
        self.at(pid)
    }

    fn at(&mut self, pid: u32) -> &mut Reading {
        self.processes
            .iter_mut()
            .find(|reading| reading.pid == pid)
            .unwrap()
    }

    /// It ends; its parent waits for it and inherits its time, or its pid 1 does when it is an orphan.
    fn end(&mut self, pid: u32, reaper: Option<u32>) {
        let gone = *self.at(pid);
        self.processes.retain(|reading| reading.pid != pid);
        for child in self
            .processes
            .iter_mut()
            .filter(|reading| reading.ppid == pid)
        {
            child.ppid = 1;
        }
        if let Some(reaper) = reaper {
            self.at(reaper).children += gone.ticks + gone.children;
        }
    }

    fn containers(&mut self, text: &str) {
        self.state = PodState::parse(text.as_bytes()).unwrap();
        self.census.pod_state(&self.state);
    }

    fn look(&mut self) {
        self.second += 1;
        self.asked = self.census.asks(&self.processes);
        let mut facts: Vec<(u32, Facts)> = self
            .asked
            .iter()
            .map(|pid| (*pid, self.commands[pid].clone()))
            .collect();
        let now = Instant {
            wall_ms: self.second * 1000,
            boot_ms: self.second * 1000,
        };
        self.census.look(
            now,
            &self.processes,
            &mut facts,
            (self.last_pid, Some(1000)),
            0,
        );
    }

    fn see<R>(&self, at: At, read: impl FnOnce(&Snapshot<'_>) -> R) -> R {
        let figures = Default::default();
        let units = Units {
            ticks_per_second: 100,
            page_bytes: 4096,
        };
        let source = Source {
            census: &self.census,
            pod: &self.state,
            figures: &figures,
            units,
            own_pid: 1,
            boot_ms: self.second * 1000,
            wall_ms: self.second * 1000,
        };
        let asked = Asked {
            at,
            sort: Sort::Pid,
            container: None,
            pid: None,
            limit: None,
        };
        read(&source.snapshot(&asked).unwrap())
    }

    fn container_of(&self, pid: u32) -> String {
        self.see(At::Now, |seen| {
            seen.processes
                .iter()
                .find(|row| row.pid == pid)
                .unwrap()
                .container
                .to_owned()
        })
    }

    fn cpu(&self, pid: u32) -> (Option<f64>, Option<f64>) {
        self.see(At::Now, |seen| {
            let row = seen.processes.iter().find(|row| row.pid == pid).unwrap();
            (row.cpu_percent, row.short_lived_cpu_percent)
        })
    }

    fn container_ticks(&self, name: &str) -> u64 {
        self.census
            .names()
            .ticks()
            .into_iter()
            .find(|(known, _)| *known == name)
            .unwrap()
            .1
    }
}

const STATE: &str =
    r#"{"pod":"web","containers":[{"name":"app","pid":10},{"name":"tls","pid":20,"restarts":3}]}"#;

#[test]
fn percentages_are_of_the_time_between_looks() {
    let mut pod = Pod::new();
    pod.start(10, 1, None).ticks = 500;
    pod.look();
    assert_eq!(pod.cpu(10), (None, None), "no span yet");
    pod.at(10).ticks = 550;
    pod.start(11, 10, None).ticks = 20;
    pod.look();
    assert_eq!(pod.cpu(10), (Some(50.0), Some(0.0)));
    assert_eq!(
        pod.cpu(11),
        (Some(20.0), Some(0.0)),
        "all that a new process has spent it spent now"
    );
    pod.look();
    assert_eq!(pod.cpu(10), (Some(0.0), Some(0.0)));
    let (then, total) = pod.see(At::Ago(1000), |seen| {
        (seen.processes[0].cpu_percent, seen.processes[0].cpu_seconds)
    });
    assert_eq!((then, total), (Some(50.0), 5.5));
}

#[test]
fn descent_decides_and_orphans_are_remembered() {
    let mut pod = Pod::new();
    pod.containers(STATE);
    pod.start(1, 0, None);
    pod.start(10, 1, Some("by-cgroup"));
    pod.start(11, 10, Some("by-cgroup"));
    pod.start(12, 11, None);
    pod.start(20, 0, None);
    pod.start(30, 0, Some("by-cgroup"));
    pod.look();
    let found = [1, 10, 11, 12, 20, 30].map(|pid| pod.container_of(pid));
    assert_eq!(found, ["(pod)", "app", "app", "app", "tls", "by-cgroup"]);
    pod.end(11, Some(10));
    pod.look();
    assert_eq!(
        (pod.at(12).ppid, pod.container_of(12)),
        (1, "app".to_owned())
    );
    pod.start(13, 12, None);
    pod.end(10, Some(1));
    pod.look();
    assert_eq!(pod.container_of(13), "app", "the child of an orphan");
    assert_eq!(
        pod.see(At::Now, |seen| seen
            .containers
            .iter()
            .find(|c| c.name == "tls")
            .unwrap()
            .restarts),
        Some(3)
    );
}

#[test]
fn a_restart_and_a_late_pod_state_are_followed() {
    let mut pod = Pod::new();
    pod.start(1, 0, None);
    pod.start(10, 1, None);
    pod.start(11, 10, None);
    pod.look();
    assert_eq!(pod.container_of(11), "(pod)");
    pod.containers(STATE);
    pod.look();
    assert_eq!(
        (pod.container_of(10), pod.container_of(11)),
        ("app".to_owned(), "app".to_owned())
    );
    // The first process dies and its id goes to a stranger before the runner says anything.
    pod.end(10, Some(1));
    pod.end(11, Some(1));
    pod.start(10, 1, Some("stranger"));
    pod.look();
    assert_eq!(pod.container_of(10), "stranger");
    pod.containers(r#"{"containers":[{"name":"app","pid":40}]}"#);
    pod.start(40, 1, None);
    pod.start(41, 40, None);
    pod.look();
    assert_eq!(
        (pod.container_of(41), pod.container_of(10)),
        ("app".to_owned(), "stranger".to_owned())
    );
}

#[test]
fn facts_are_asked_for_when_they_may_have_changed() {
    let mut pod = Pod::new();
    pod.start(10, 1, None);
    pod.look();
    assert_eq!(pod.asked, [10]);
    pod.look();
    assert!(pod.asked.is_empty());
    pod.start(12, 10, None);
    pod.look();
    assert_eq!(pod.asked, [12]);
    pod.look();
    assert_eq!(
        pod.asked,
        [12],
        "again, since it may have been between fork and exec"
    );
    pod.look();
    assert!(pod.asked.is_empty());
    pod.at(12).exec = 2;
    pod.commands.get_mut(&12).unwrap().command = "execed".to_owned();
    pod.look();
    assert_eq!(pod.asked, [12]);
    assert_eq!(
        pod.see(At::Now, |seen| seen.processes[1].command.clone()),
        "execed"
    );
    assert_eq!(
        pod.see(At::Ago(1000), |seen| seen.processes[1].command.clone()),
        "command 12",
        "the past keeps its own"
    );
    let looks = (0..60)
        .filter(|_| {
            pod.look();
            pod.asked.contains(&10)
        })
        .count();
    assert_eq!(looks, 2, "every thirty looks");
    pod.at(12).state = b'Z';
    pod.at(12).comm = Comm::new(b"other");
    pod.look();
    assert!(!pod.asked.contains(&12), "a zombie has nothing to tell");
}

#[test]
fn time_of_children_that_nobody_saw_shows_at_their_parent() {
    let mut pod = Pod::new();
    pod.start(1, 0, None);
    pod.start(10, 1, Some("app"));
    pod.look();
    pod.look();
    // grep, grep, grep: 30 ticks in all, between two looks.
    pod.at(10).children += 30;
    pod.look();
    assert_eq!(pod.cpu(10), (Some(0.0), Some(30.0)));
    assert_eq!(pod.container_ticks("app"), 30);
    // One that was seen at 40 ticks, and ends at 45: five are new.
    pod.start(11, 10, Some("app")).ticks = 40;
    pod.look();
    pod.at(11).ticks = 45;
    pod.end(11, Some(10));
    pod.look();
    assert_eq!(pod.cpu(10), (Some(0.0), Some(5.0)));
    assert_eq!(pod.container_ticks("app"), 75);
}

#[test]
fn the_time_of_an_orphan_is_not_counted_twice() {
    let mut pod = Pod::new();
    pod.start(1, 0, None);
    pod.start(10, 1, Some("app"));
    pod.start(11, 10, Some("app")).ticks = 7;
    pod.start(12, 11, Some("app")).ticks = 100;
    pod.look();
    pod.look();
    // 11 ends and 12 is pid 1's now; then 12 ends, and pid 1 inherits what was seen of it.
    pod.end(11, Some(10));
    pod.end(12, Some(1));
    pod.look();
    assert_eq!((pod.cpu(1).1, pod.cpu(10).1), (Some(0.0), Some(0.0)));
    assert_eq!(pod.container_ticks("app"), 107);
}

#[test]
fn what_came_and_went_is_counted() {
    let mut pod = Pod::new();
    pod.start(10, 1, None);
    pod.look();
    let missed = |pod: &Pod| pod.see(At::Now, |seen| seen.short_lived);
    pod.last_pid = Some(15);
    pod.start(13, 10, None);
    pod.at(10).threads = 2;
    pod.look();
    assert_eq!(
        missed(&pod),
        Some(3),
        "five ids, less one process and one thread"
    );
    // 18 is made after the count was read: seen now, counted at the next look.
    pod.last_pid = Some(17);
    pod.start(18, 10, None);
    pod.look();
    assert_eq!(missed(&pod), Some(2));
    pod.last_pid = Some(18);
    pod.end(18, Some(10));
    pod.look();
    assert_eq!(missed(&pod), Some(0));
    assert_eq!(
        pod.see(At::Now, |seen| (seen.appeared, seen.disappeared)),
        (0, 1)
    );
    // Ids start again at 300 after 999.
    pod.last_pid = Some(998);
    pod.look();
    pod.start(302, 10, None);
    pod.last_pid = Some(304);
    pod.look();
    assert_eq!(missed(&pod), Some(5), "999 and 300 to 304, less 302");
    pod.last_pid = None;
    pod.look();
    assert_eq!(missed(&pod), None);
    assert_eq!(pod.census.totals().0, 3 + 2 + 980 + 5);
}

#[test]
fn a_reused_id_is_another_process() {
    let mut pod = Pod::new();
    pod.start(10, 1, Some("a")).ticks = 900;
    pod.look();
    pod.start(10, 1, Some("b")).ticks = 3;
    pod.look();
    assert_eq!(
        (pod.container_of(10), pod.cpu(10).0),
        ("b".to_owned(), Some(3.0))
    );
    assert_eq!(
        pod.see(At::Now, |seen| (seen.appeared, seen.disappeared)),
        (1, 1)
    );
}
