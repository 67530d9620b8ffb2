//! Reading `/proc` and cgroups from trees of files that look like them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podkit_foundation::telemetry::metrics::{Format, Registry};

use crate::topz::census::Instant;
use crate::topz::metrics;
use crate::topz::procfs::Proc;
use crate::topz::query::{Asked, At};
use crate::topz::ring::Ring;
use crate::topz::snapshot::Sort;
use crate::topz::watch::{Places, Shared, Watcher, check_pod_state, next_due, now};

/// A `/proc`, a cgroup mount and a pod state of the test's own.
pub(super) struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let tree = Self { root };
        tree.put("proc/sys/kernel/ns_last_pid", "30\n");
        tree.put("proc/sys/kernel/pid_max", "32768\n");
        tree.put("proc/loadavg", "0.1 0.1 0.1 1/87 99\n");
        fs::create_dir_all(tree.path("cgroup")).unwrap();
        tree
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(super) fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A process with 10 pages, started at tick `pid`.
    pub(super) fn process(&self, pid: u32, ppid: u32, ticks: u32, command: &str, cgroup: &str) {
        let stat = format!(
            "{pid} (x y) S {ppid} 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 2 0 {pid} 1000 10 0 0 0 7 0 0\n"
        );
        self.put(&format!("proc/{pid}/stat"), stat);
        self.put(
            &format!("proc/{pid}/cmdline"),
            command.replace(' ', "\0") + "\0",
        );
        self.put(
            &format!("proc/{pid}/status"),
            "Name:\tx\nUid:\t1000\t1000\t1000\t1000\n",
        );
        self.put(&format!("proc/{pid}/cgroup"), cgroup);
    }

    pub(super) fn places(&self) -> Places {
        Places {
            proc: self.path("proc"),
            cgroup: self.path("cgroup"),
            pod_state: self.path("pod.json"),
        }
    }

    pub(super) fn watcher(&self) -> Watcher {
        Watcher::new(&self.places(), Ring::new(600_000, 1 << 20), 1000).unwrap()
    }
}

pub(super) fn second(second: u64) -> Instant {
    Instant {
        wall_ms: 1_700_000_000_000 + second * 1000,
        boot_ms: second * 1000,
    }
}

pub(super) const ALL: Asked = Asked {
    at: At::Now,
    sort: Sort::Pid,
    container: None,
    pid: None,
    limit: None,
};

/// pid, container, user, command of each row.
fn rows(shared: &Shared, now: Instant) -> Vec<(u32, String, String, String)> {
    let seen = shared.lock();
    let snapshot = seen.source(now).snapshot(&ALL).unwrap();
    let rows = snapshot.processes.iter();
    rows.map(|row| {
        (
            row.pid,
            row.container.to_owned(),
            row.user.to_owned(),
            row.command.clone(),
        )
    })
    .collect()
}

#[test]
fn a_tree_is_read() {
    let tree = Tree::new();
    tree.process(1, 0, 0, "pause", "0::/\n");
    tree.process(20, 1, 5, "app --password=x", "0::/podkit/web/app\n");
    tree.put(
        "proc/20/root/etc/passwd",
        "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n",
    );
    tree.put("proc/21/cmdline", "no stat here");
    tree.put("proc/self/stat", "not a number");
    tree.put("proc/4294967296/stat", "too large a number");
    let mut watcher = tree.watcher();
    let shared = watcher.shared();
    watcher.look(second(100));
    let expected = [
        (1, "(pod)".into(), "1000".into(), "pause".into()),
        (20, "app".into(), "app".into(), "app --password=***".into()),
    ];
    assert_eq!(rows(&shared, second(100)), expected);
    fs::remove_dir_all(tree.path("proc/20")).unwrap();
    tree.process(31, 1, 9, "other", "0::/podkit/web/tls\n");
    tree.put("proc/sys/kernel/ns_last_pid", "33\n");
    watcher.look(second(101));
    assert_eq!(rows(&shared, second(101))[1].1, "tls");
    let seen = shared.lock();
    let snapshot = seen.source(second(101)).snapshot(&ALL).unwrap();
    assert_eq!(
        (
            snapshot.short_lived,
            snapshot.appeared,
            snapshot.disappeared
        ),
        (Some(1), 1, 1)
    );
    assert_eq!(
        (
            snapshot.processes[1].threads,
            snapshot.processes[1].cpu_percent
        ),
        (2, Some(9.0))
    );
    assert_eq!(
        snapshot.processes[1].memory_bytes,
        10 * rustix::param::page_size() as u64
    );
}

#[test]
fn the_count_of_ids_has_a_second_source() {
    let tree = Tree::new();
    let mut proc = Proc::open(&tree.path("proc")).unwrap();
    assert_eq!((proc.last_pid(), proc.pid_max()), (Some(30), Some(32768)));
    fs::remove_file(tree.path("proc/sys/kernel/ns_last_pid")).unwrap();
    assert_eq!(proc.last_pid(), Some(99));
    fs::remove_file(tree.path("proc/loadavg")).unwrap();
    assert_eq!(proc.last_pid(), None);
}

#[test]
fn processes_past_the_bound_are_counted() {
    let tree = Tree::new();
    (1..=9).for_each(|pid| tree.process(pid, 0, 0, "x", ""));
    let mut proc = Proc::open(&tree.path("proc")).unwrap();
    let mut readings = Vec::new();
    assert_eq!(proc.readings(&mut readings, 4).unwrap(), 5);
    assert_eq!(
        readings
            .iter()
            .map(|reading| reading.pid)
            .collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
}

#[test]
fn the_pod_state_is_followed_as_it_is_replaced() {
    let tree = Tree::new();
    tree.process(5, 0, 0, "a", "0::/\n");
    let mut watcher = tree.watcher();
    let shared = watcher.shared();
    let mut at = 100;
    let mut container = |watcher: &mut Watcher| {
        at += 1;
        watcher.look(second(at));
        let trouble = shared.lock().trouble.clone();
        (rows(&shared, second(at))[0].1.clone(), trouble)
    };
    assert_eq!(
        container(&mut watcher),
        ("(pod)".to_owned(), None),
        "the file need not be there"
    );
    let replace = |text: &str| {
        tree.put("pod.json.new", text);
        fs::rename(tree.path("pod.json.new"), tree.path("pod.json")).unwrap();
    };
    replace(r#"{"pod":"web","containers":[{"name":"app","pid":5}]}"#);
    assert_eq!(container(&mut watcher), ("app".to_owned(), None));
    replace("{");
    let (name, trouble) = container(&mut watcher);
    assert!(
        name == "app"
            && trouble
                .unwrap()
                .contains("pod.json: not the runner's pod state")
    );
    replace(r#"{"pod":"web","containers":[{"name":"new","pid":5}]}"#);
    assert_eq!(container(&mut watcher), ("new".to_owned(), None));
    fs::remove_file(tree.path("pod.json")).unwrap();
    assert_eq!(
        container(&mut watcher).0,
        "new",
        "what was known stays known"
    );
}

#[test]
fn passwd_of_a_container_leads_nowhere_else() {
    let tree = Tree::new();
    for (pid, link) in [(5, "../../../outside"), (6, "/outside")] {
        tree.process(pid, 0, 0, "a", "");
        let etc = tree.path(&format!("proc/{pid}/root/etc"));
        fs::create_dir_all(&etc).unwrap();
        let target = if link.starts_with('/') {
            tree.path("outside")
        } else {
            PathBuf::from(link)
        };
        std::os::unix::fs::symlink(target, etc.join("passwd")).unwrap();
    }
    tree.put("outside", "stolen:x:1000:1000::/:/bin/sh\n");
    tree.put("proc/outside", "stolen:x:1000:1000::/:/bin/sh\n");
    // A FIFO would make whoever opens it wait for ever.
    tree.process(7, 0, 0, "a", "");
    fs::create_dir_all(tree.path("proc/7/root/etc")).unwrap();
    let fifo = tree.path("proc/7/root/etc/passwd");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let mut watcher = tree.watcher();
    watcher.look(second(100));
    assert!(
        rows(&watcher.shared(), second(100))
            .iter()
            .all(|row| row.2 == "1000")
    );
}

fn cgroup_v2(tree: &Tree, dir: &str, procs: &str, current: &str, max: &str) {
    tree.put(&format!("{dir}/cgroup.procs"), procs);
    tree.put(&format!("{dir}/memory.current"), current);
    tree.put(&format!("{dir}/memory.max"), max);
    tree.put(
        &format!("{dir}/memory.stat"),
        "anon 5\ninactive_file 100\nactive_file 7\n",
    );
    tree.put(
        &format!("{dir}/memory.events"),
        "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n",
    );
    tree.put(
        &format!("{dir}/cpu.stat"),
        "usage_usec 9\nnr_periods 10\nnr_throttled 4\nthrottled_usec 1500000\n",
    );
    tree.put(
        &format!("{dir}/cpu.pressure"),
        "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\n",
    );
}

#[test]
fn figures_of_cgroups_of_both_versions() {
    let tree = Tree::new();
    tree.process(5, 0, 0, "a", "0::/podkit/web/app\n");
    cgroup_v2(&tree, "cgroup/podkit/web/app", "5\n6\n", "1000\n", "4096\n");
    tree.process(
        6,
        0,
        0,
        "b",
        "4:memory:/podkit/web/old\n3:cpu,cpuacct:/podkit/web/old\n0::/\n",
    );
    tree.put("cgroup/memory/podkit/web/old/cgroup.procs", "6\n");
    tree.put(
        "cgroup/memory/podkit/web/old/memory.usage_in_bytes",
        "700\n",
    );
    tree.put(
        "cgroup/memory/podkit/web/old/memory.limit_in_bytes",
        "9223372036854771712\n",
    );
    tree.put(
        "cgroup/memory/podkit/web/old/memory.stat",
        "inactive_file 1\ntotal_inactive_file 200\n",
    );
    tree.put("cgroup/cpu,cpuacct/podkit/web/old/cgroup.procs", "6\n");
    tree.put(
        "cgroup/cpu,cpuacct/podkit/web/old/cpu.stat",
        "nr_periods 9\nnr_throttled 2\nthrottled_time 2500000000\n",
    );
    // A path that leads to a cgroup which doesn't list the process is another namespace's.
    tree.process(7, 0, 0, "c", "0::/podkit/web/lie\n");
    cgroup_v2(&tree, "cgroup/podkit/web/lie", "70\n", "1\n", "2\n");
    // Seen through the process's own root, where its cgroup is the root of its namespace.
    tree.process(8, 0, 0, "d", "0::/../own\n");
    cgroup_v2(&tree, "proc/8/root/sys/fs/cgroup", "8\n", "300\n", "max\n");
    let mut watcher = tree.watcher();
    let shared = watcher.shared();
    watcher.look(second(100));
    let registry = Registry::default();
    let for_metrics = shared.clone();
    registry.collect(move |encoder| {
        let seen = for_metrics.lock();
        metrics::encode(encoder, &seen.source(second(100)), seen.cost);
    });
    let text = registry.encode(Format::Prometheus);
    let pressure =
        "podkit_topz_container_pressure_ratio{container=\"app\",resource=\"cpu\"} 0.125\n";
    assert!(text.contains(pressure), "{text}");
    let seen = shared.lock();
    let snapshot = seen.source(second(100)).snapshot(&ALL).unwrap();
    let figures = |name: &str| {
        let found = snapshot
            .containers
            .iter()
            .find(|container| container.name == name);
        found.unwrap_or_else(|| panic!("{name}")).cgroup.clone()
    };
    let app = figures("app").unwrap();
    assert_eq!(
        (
            app.memory_bytes,
            app.memory_working_set_bytes,
            app.memory_limit_bytes
        ),
        (Some(1000), Some(900), Some(4096))
    );
    assert_eq!(
        (app.oom_kills, app.throttled_periods, app.throttled_seconds),
        (Some(2), Some(4), Some(1.5))
    );
    assert_eq!(
        (app.cpu_pressure_percent, app.io_pressure_percent),
        (Some(12.5), None)
    );
    let old = figures("old").unwrap();
    assert_eq!(
        (
            old.memory_bytes,
            old.memory_working_set_bytes,
            old.memory_limit_bytes
        ),
        (Some(700), Some(500), None)
    );
    assert_eq!(
        (old.throttled_periods, old.throttled_seconds),
        (Some(2), Some(2.5))
    );
    assert_eq!(figures("lie"), None);
    let own = figures("own").unwrap();
    assert_eq!(
        (own.memory_bytes, own.memory_limit_bytes),
        (Some(300), None)
    );
}

#[test]
fn both_versions_at_once_through_the_process_s_own_root() {
    let tree = Tree::new();
    let cgroups = "4:memory:/../app\n1:cpu:/../app\n0::/../app\n";
    tree.process(9, 0, 0, "a", cgroups);
    let mount = "proc/9/root/sys/fs/cgroup";
    tree.put(&format!("{mount}/memory/cgroup.procs"), "9\n");
    tree.put(&format!("{mount}/memory/memory.usage_in_bytes"), "700\n");
    tree.put(&format!("{mount}/cpu/cgroup.procs"), "9\n");
    tree.put(
        &format!("{mount}/cpu/cpu.stat"),
        "nr_periods 9\nnr_throttled 2\nthrottled_time 500000000\n",
    );
    cgroup_v2(&tree, &format!("{mount}/unified"), "9\n", "1\n", "2\n");
    let mut watcher = tree.watcher();
    let shared = watcher.shared();
    watcher.look(second(100));
    let seen = shared.lock();
    let snapshot = seen.source(second(100)).snapshot(&ALL).unwrap();
    let found = snapshot.containers[0].cgroup.clone().unwrap();
    assert_eq!(
        (
            found.memory_bytes,
            found.throttled_seconds,
            found.cpu_pressure_percent
        ),
        (Some(700), Some(0.5), Some(12.5))
    );
}

#[test]
fn a_cgroup_that_two_share_is_neithers() {
    let tree = Tree::new();
    tree.process(5, 0, 0, "a", "0::/\n");
    tree.process(6, 0, 0, "b", "0::/\n");
    tree.put(
        "pod.json",
        r#"{"containers":[{"name":"a","pid":5},{"name":"b","pid":6}]}"#,
    );
    cgroup_v2(&tree, "cgroup", "5\n6\n", "1000\n", "4096\n");
    let mut watcher = tree.watcher();
    let shared = watcher.shared();
    watcher.look(second(100));
    let seen = shared.lock();
    let snapshot = seen.source(second(100)).snapshot(&ALL).unwrap();
    assert!(
        snapshot.containers.len() == 2
            && snapshot
                .containers
                .iter()
                .all(|container| container.cgroup.is_none())
    );
}

#[test]
fn a_container_without_a_memory_cgroup_of_its_own_keeps_its_other_figures() {
    let tree = Tree::new();
    tree.process(
        1,
        0,
        0,
        "pause",
        "4:memory:/above\n0::/podkit/web/(pause)\n",
    );
    tree.process(5, 0, 0, "a", "4:memory:/above\n0::/podkit/web/app\n");
    tree.put("pod.json", r#"{"containers":[{"name":"app","pid":5}]}"#);
    tree.put("cgroup/memory/above/cgroup.procs", "1\n5\n");
    tree.put("cgroup/memory/above/memory.usage_in_bytes", "700\n");
    tree.put("cgroup/unified/podkit/web/app/cgroup.procs", "5\n");
    tree.put(
        "cgroup/unified/podkit/web/app/io.pressure",
        "some avg10=3.00 avg60=0.00 avg300=0.00 total=1\n",
    );
    let mut watcher = tree.watcher();
    let shared = watcher.shared();
    watcher.look(second(100));
    let seen = shared.lock();
    let snapshot = seen.source(second(100)).snapshot(&ALL).unwrap();
    let app = snapshot
        .containers
        .iter()
        .find(|container| container.name == "app")
        .unwrap();
    let found = app.cgroup.clone().unwrap();
    assert_eq!(
        (found.memory_bytes, found.io_pressure_percent),
        (None, Some(3.0))
    );
}

#[test]
fn looks_keep_the_beat_and_rest_when_they_are_slow() {
    let check = |due: u64, before: u64, after: u64, expected: u64| {
        let [due, before, after, expected] =
            [due, before, after, expected].map(Duration::from_millis);
        assert_eq!(
            next_due(due, Duration::from_secs(1), before, after),
            expected
        );
    };
    check(5000, 5001, 5009, 6000);
    check(5000, 5000, 5111, 6110);
    check(5000, 5000, 5400, 9000);
    check(5000, 9000, 9010, 9100);
}

#[test]
fn the_second_look_comes_soon_and_the_end_when_told() {
    let tree = Tree::new();
    tree.process(5, 0, 0, "a", "");
    let watcher = tree.watcher();
    let shared = watcher.shared();
    let mut rests = Vec::new();
    watcher.run(Duration::from_secs(1), |rest| {
        rests.push(rest);
        rests.len() < 3
    });
    assert_eq!((rests.len(), rests[0]), (3, Duration::from_millis(200)));
    assert!(shared.lock().age_ms(now()).is_some());
}

#[test]
fn a_pod_state_is_checked_when_asked() {
    let tree = Tree::new();
    let path = tree.path("pod.json");
    assert_eq!(check_pod_state(&path), Ok(()));
    tree.put("pod.json", r#"{"containers":[]}"#);
    assert_eq!(check_pod_state(&path), Ok(()));
    tree.put("pod.json", r#"{"containers":7}"#);
    assert!(
        check_pod_state(&path)
            .unwrap_err()
            .contains("pod.json: not the runner's pod state")
    );
}

#[test]
fn no_tree_is_an_error() {
    assert!(Proc::open(Path::new("/nonexistent")).is_err());
}
