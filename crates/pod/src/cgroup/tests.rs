use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::detect::{Layout, detect};
use super::limits::{quota_us, shares, tasks_max, weight};
use super::*;
use crate::plan::{ContainerPlan, ImageSource};

#[test]
fn numbers_are_those_of_the_kubelet() {
    for (milli, expected) in [(1, 1000), (10, 1000), (100, 10_000), (1500, 150_000)] {
        assert_eq!(quota_us(milli), expected, "{milli}m");
    }
    for (milli, expected) in [
        (0, 2),
        (1, 2),
        (100, 102),
        (1000, 1024),
        (10_000_000, 262_144),
    ] {
        assert_eq!(shares(milli), expected, "{milli}m");
    }
    // opencontainers/cgroups, utils_test.go: TestConvertCPUSharesToCgroupV2Value.
    for (shares, expected) in [
        (2, 1),
        (1024, 100),
        (262_144, 10_000),
        (1, 1),
        (300_000, 10_000),
    ] {
        assert_eq!(weight(shares), expected, "{shares} shares");
    }
    // 100m beside 1: about one to ten still.
    assert_eq!(weight(102), 17);
    let of = |pid: Option<u64>, threads: Option<u64>| {
        tasks_max(|file| if file == "pid_max" { pid } else { threads })
    };
    assert_eq!(of(Some(4_194_304), Some(127_000)), 127_000);
    assert_eq!(of(Some(32_768), None), 32_768);
    assert_eq!(of(None, None), 32_768);
}

/// A directory that looks like mounted cgroups, with the two proc files that describe it.
struct Fake {
    dir: tempfile::TempDir,
    mountinfo: String,
    own: String,
}

impl Fake {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            mountinfo: "22 1 0:20 / / rw - ext4 /dev/vda rw\n".into(),
            own: String::new(),
        }
    }

    fn mount(mut self, kind: &str, point: &str, options: &str, root: &str) -> Self {
        fs::create_dir_all(self.path(point)).unwrap();
        self.mountinfo += &format!(
            "30 22 0:30 {root} {} rw,nosuid shared:4 - {kind} {kind} {options}\n",
            point.replace(' ', "\\040")
        );
        self
    }

    fn own(mut self, line: &str) -> Self {
        self.own += line;
        self.own += "\n";
        self
    }

    fn dir(self, path: &str) -> Self {
        fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    fn file(self, path: &str, text: &str) -> Self {
        fs::write(self.path(path), text).unwrap();
        self
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.dir.path().join(absolute.trim_start_matches('/'))
    }

    fn detect(&self) -> Layout {
        detect(&self.mountinfo, &self.own, self.dir.path())
    }

    fn cgroups(&self) -> Cgroups {
        Cgroups {
            layout: self.detect(),
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }
}

const GIB: u64 = 1 << 30;

fn container(name: &str, resources: Resources) -> ContainerPlan {
    ContainerPlan {
        resources,
        ..ContainerPlan::new(name, ImageSource::Host)
    }
}

fn pod(name: &str, containers: Vec<ContainerPlan>) -> PodPlan {
    PodPlan {
        labels: Default::default(),
        annotations: Default::default(),
        hostname: name.into(),
        ..PodPlan::new(name, containers)
    }
}

fn limited() -> Resources {
    Resources {
        cpu_limit_milli: Some(500),
        memory_limit_bytes: Some(GIB),
        cpu_request_milli: Some(100),
        memory_request_bytes: None,
        ..Resources::default()
    }
}

#[tokio::test]
async fn v2_delegates_from_an_ancestor_without_processes() {
    let fake = Fake::new()
        .mount("cgroup2", "/sys/fs/cgroup", "rw,nsdelegate", "/")
        .own("0::/user.slice/session.scope")
        .dir("/sys/fs/cgroup/user.slice/session.scope")
        .file(
            "/sys/fs/cgroup/cgroup.controllers",
            "cpuset cpu io memory pids",
        )
        .file("/sys/fs/cgroup/user.slice/cgroup.type", "domain\n")
        .file("/sys/fs/cgroup/user.slice/cgroup.procs", "")
        .file(
            "/sys/fs/cgroup/user.slice/cgroup.controllers",
            "cpu memory pids",
        )
        .file(
            "/sys/fs/cgroup/user.slice/cgroup.subtree_control",
            "memory pids",
        )
        .file(
            "/sys/fs/cgroup/user.slice/session.scope/cgroup.type",
            "domain\n",
        )
        .file(
            "/sys/fs/cgroup/user.slice/session.scope/cgroup.procs",
            "42\n",
        )
        .file(
            "/sys/fs/cgroup/user.slice/session.scope/cgroup.controllers",
            "memory pids",
        );
    let cgroups = fake.cgroups();
    assert_eq!(cgroups.kind(), "v2");
    let plan = pod(
        "web",
        vec![
            container("app", limited()),
            container("idle", Resources::default()),
        ],
    );
    let group = cgroups.pod(&plan).await;
    let (app, warnings) = group.container("app", &plan.containers[0].resources);
    assert_eq!(warnings, Vec::<String>::new());
    // Only what is missing is enabled, one by one.
    assert_eq!(
        fake.read("/sys/fs/cgroup/user.slice/cgroup.subtree_control"),
        "+cpu"
    );
    let (idle, warnings) = group.container("idle", &plan.containers[1].resources);
    assert_eq!(warnings, Vec::<String>::new());
    let at = "/sys/fs/cgroup/user.slice/podkit/web";
    assert_eq!(app.procs_files(), [fake.path(at).join("app/cgroup.procs")]);
    assert_eq!(fake.read(&format!("{at}/app/cpu.max")), "50000 100000");
    assert_eq!(fake.read(&format!("{at}/app/cpu.weight")), "17");
    assert_eq!(fake.read(&format!("{at}/app/memory.max")), GIB.to_string());
    assert_eq!(fake.read(&format!("{at}/app/memory.oom.group")), "1");
    // The pod weighs as much as its containers together, one without a request as least.
    assert_eq!(fake.read(&format!("{at}/cpu.weight")), "17");
    assert_eq!(fake.read(&format!("{at}/idle/cpu.weight")), "1");
    assert!(!fake.path(&format!("{at}/idle/cpu.max")).exists());
    assert_eq!(idle.procs_files().len(), 1);
    fs::write(
        fake.path(&format!("{at}/app/memory.events")),
        "low 0\noom 3\noom_kill 2\n",
    )
    .unwrap();
    fs::write(
        fake.path(&format!("{at}/app/cpu.stat")),
        "usage_usec 7500\nuser_usec 1\n",
    )
    .unwrap();
    fs::write(fake.path(&format!("{at}/app/memory.current")), "4096\n").unwrap();
    assert_eq!(app.oom_kills(), 2);
    let usage = Usage {
        cpu_usec: Some(7500),
        memory_bytes: Some(4096),
    };
    assert_eq!(app.usage(), usage);
}

#[tokio::test]
async fn a_pod_has_limits_of_its_own() {
    let own = Resources {
        cpu_limit_milli: Some(1500),
        cpu_request_milli: Some(1000),
        memory_limit_bytes: Some(GIB),
        ..Resources::default()
    };
    let plan = PodPlan {
        resources: own,
        ..pod("web", vec![container("app", Resources::default())])
    };
    let v2 = Fake::new()
        .mount("cgroup2", "/cg", "rw", "/")
        .own("0::/")
        .file("/cg/cgroup.controllers", "cpu memory")
        .file("/cg/cgroup.subtree_control", "cpu memory");
    let group = v2.cgroups().pod(&plan).await;
    let (_, warnings) = group.container("app", &plan.containers[0].resources);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(v2.read("/cg/podkit/web/cpu.max"), "150000 100000");
    assert_eq!(v2.read("/cg/podkit/web/cpu.weight"), "100");
    assert_eq!(v2.read("/cg/podkit/web/memory.max"), GIB.to_string());
    // One container over the pod's memory is killed, and not the pod.
    assert!(!v2.path("/cg/podkit/web/memory.oom.group").exists());
    assert_eq!(v2.read("/cg/podkit/web/app/memory.oom.group"), "1");
    assert!(!v2.path("/cg/podkit/web/app/memory.max").exists());

    let v1 = Fake::new()
        .mount("cgroup", "/cg/cpu", "rw,cpu", "/")
        .mount("cgroup", "/cg/memory", "rw,memory", "/")
        .own("2:cpu:/")
        .own("1:memory:/");
    let group = v1.cgroups().pod(&plan).await;
    let (app, _) = group.container("app", &plan.containers[0].resources);
    // In both hierarchies, though it asks for nothing itself: the pod's limits are met there.
    assert_eq!(app.procs_files().len(), 2);
    assert_eq!(v1.read("/cg/cpu/podkit/web/cpu.cfs_quota_us"), "150000");
    assert_eq!(v1.read("/cg/cpu/podkit/web/cpu.shares"), "1024");
    let limit = v1.read("/cg/memory/podkit/web/memory.limit_in_bytes");
    assert_eq!(limit, GIB.to_string());

    let none = Fake::new();
    let group = none.cgroups().pod(&plan).await;
    let (_, warnings) = group.container("app", &plan.containers[0].resources);
    let expected = ["limits.cpu", "requests.cpu", "limits.memory"];
    let expected = expected.map(|field| {
        format!("resources.{field} of the pod: not enforced: no cgroup hierarchy is mounted")
    });
    assert_eq!(warnings, expected);
}

#[tokio::test]
async fn v2_that_can_not_delegate_is_a_warning_by_field() {
    // A container with its own cgroup namespace: the root that it sees is not the hierarchy's.
    let fake = Fake::new()
        .mount("cgroup2", "/sys/fs/cgroup", "rw", "/")
        .own("0::/")
        .file("/sys/fs/cgroup/cgroup.type", "domain\n")
        .file("/sys/fs/cgroup/cgroup.procs", "1\n7\n")
        .file("/sys/fs/cgroup/cgroup.controllers", "cpu memory")
        .file("/sys/fs/cgroup/cgroup.subtree_control", "");
    let plan = pod("web", vec![container("app", limited())]);
    let group = fake.cgroups().pod(&plan).await;
    let (app, warnings) = group.container("app", &plan.containers[0].resources);
    // It still tells the processes apart and kills them.
    assert_eq!(app.procs_files().len(), 1);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    let starts = [
        "resources.limits.cpu",
        "resources.requests.cpu",
        "resources.limits.memory",
    ];
    for (warning, field) in warnings.iter().zip(starts) {
        assert!(
            warning.starts_with(&format!("{field} of container app: not enforced: ")),
            "{warning}"
        );
        assert!(warning.contains("holds processes"), "{warning}");
    }
}

#[tokio::test]
async fn hybrid_uses_the_v1_hierarchies_that_are_asked_for() {
    let fake = Fake::new()
        .mount("cgroup", "/cg/cpu,cpuacct", "rw,cpu,cpuacct", "/")
        .mount("cgroup", "/cg/memory", "rw,memory", "/")
        .mount("cgroup", "/cg/pids", "rw,pids", "/")
        .mount("cgroup2", "/cg/unified", "rw", "/")
        .own("4:memory:/ci/job")
        .own("3:cpu,cpuacct:/")
        .own("2:pids:/")
        .own("0::/")
        .dir("/cg/memory/ci/job");
    let cgroups = fake.cgroups();
    assert_eq!(cgroups.kind(), "hybrid");
    let memory_only = Resources {
        memory_limit_bytes: Some(GIB),
        ..Resources::default()
    };
    let plan = pod("p", vec![container("a", memory_only)]);
    let group = cgroups.pod(&plan).await;
    let (a, warnings) = group.container("a", &memory_only);
    assert_eq!(warnings, Vec::<String>::new());
    let at = |hierarchy: &str| fake.path(hierarchy).join("podkit/p/a");
    assert_eq!(
        a.dirs().collect::<Vec<_>>(),
        [at("/cg/unified"), at("/cg/memory/ci/job"), at("/cg/pids")]
    );
    // The pod's tasks together are bounded.
    let most = fs::read_to_string(fake.path("/cg/pids/podkit/p/pids.max")).unwrap();
    assert!(most.parse::<u64>().unwrap() > 100, "{most}");
    assert_eq!(
        fs::read_to_string(at("/cg/memory/ci/job").join("memory.limit_in_bytes")).unwrap(),
        GIB.to_string()
    );
    assert!(!fake.path("/cg/cpu,cpuacct/podkit").exists());
    fs::write(
        at("/cg/memory/ci/job").join("memory.oom_control"),
        "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
    )
    .unwrap();
    assert_eq!(a.oom_kills(), 5);

    let plan = pod("q", vec![container("b", limited())]);
    let (_, warnings) = cgroups.pod(&plan).await.container("b", &limited());
    assert_eq!(warnings, Vec::<String>::new());
    let cpu = fake.path("/cg/cpu,cpuacct/podkit/q");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(read(cpu.join("b/cpu.cfs_quota_us")), "50000");
    assert_eq!(read(cpu.join("b/cpu.cfs_period_us")), "100000");
    assert_eq!(read(cpu.join("b/cpu.shares")), "102");
    assert_eq!(read(cpu.join("cpu.shares")), "102");
}

#[tokio::test]
async fn v1_alone_still_tells_containers_apart() {
    let fake = Fake::new()
        .mount("cgroup", "/cg/memory", "rw,memory", "/docker/abc")
        .mount("cgroup", "/cg/with space/pids", "rw,pids", "/docker/abc")
        .own("2:memory:/docker/abc")
        .own("1:pids:/elsewhere");
    let cgroups = fake.cgroups();
    assert_eq!(cgroups.kind(), "v1");
    let plan = pod("p", vec![container("a", limited())]);
    let group = cgroups.pod(&plan).await;
    let (plain, warnings) = group.container("plain", &Resources::default());
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        plain.dirs().collect::<Vec<_>>(),
        [fake.path("/cg/with space/pids/podkit/p/plain")]
    );
    let (_, warnings) = group.container("a", &limited());
    assert_eq!(
        warnings,
        [
            "resources.limits.cpu of container a: not enforced: this machine has no cgroup controller for cpu",
            "resources.requests.cpu of container a: not enforced: this machine has no cgroup controller for cpu"
        ]
    );
}

#[tokio::test]
async fn without_cgroups_every_limit_is_a_warning() {
    let fake = Fake::new();
    let cgroups = fake.cgroups();
    assert_eq!(cgroups.kind(), "none");
    cgroups.warm_up();
    let plan = pod("p", vec![container("a", limited())]);
    let group = cgroups.pod(&plan).await;
    let (a, warnings) = group.container("a", &limited());
    assert_eq!(warnings.len(), 3);
    assert!(
        warnings[2].ends_with(
            "limits.memory of container a: not enforced: no cgroup hierarchy is mounted"
        ),
        "{warnings:?}"
    );
    assert!(a.procs_files().is_empty());
    assert_eq!((a.oom_kills(), a.usage()), (0, Usage::default()));
    a.kill_all();
    a.remove().await.unwrap();
    group.remove().await.unwrap();
}

#[test]
fn the_warm_up_never_moves_a_process() {
    // The own cgroup lies outside of what is mounted: writing to the mount's root would be a move.
    let fake = Fake::new()
        .mount("cgroup2", "/cg", "rw", "/")
        .own("0::/../other")
        .file("/cg/cgroup.procs", "");
    assert_eq!(fake.detect().own_procs, None);
    let fake = fake.own("").dir("/cg/x").file("/cg/x/cgroup.procs", "");
    let own = detect(&fake.mountinfo, "0::/x\n", fake.dir.path()).own_procs;
    assert_eq!(own, Some(fake.path("/cg/x/cgroup.procs")));
}

/// The groups of this machine, when the tests may make some.
fn real() -> Option<Cgroups> {
    let cgroups = Cgroups::detect();
    if !rustix::process::geteuid().is_root() || cgroups.kind() == "none" {
        eprintln!("skipped: needs root and a cgroup hierarchy that can be written to");
        return None;
    }
    Some(cgroups)
}

fn name(what: &str) -> String {
    format!("podkit-test-{what}-{}", std::process::id())
}

/// A shell that joins the groups, then runs `script`.
fn run_in(group: &ContainerCgroup, script: &str) -> Child {
    let joins: String = group
        .procs_files()
        .iter()
        .map(|f| format!("echo $$ > {}; ", f.display()))
        .collect();
    let mut child = Command::new("sh")
        .args(["-c", &format!("{joins} echo joined; read go; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 7];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}

fn assert_gone(cgroups: &Cgroups, pod: &str) {
    for hierarchy in &cgroups.layout.usable {
        let left = hierarchy.base.join("podkit").join(pod);
        assert!(!left.exists(), "{} is left", left.display());
    }
}

#[tokio::test]
async fn real_limits_kill_count_and_leave_nothing() {
    let Some(cgroups) = real() else { return };
    cgroups.warm_up();
    let pod_name = name("limits");
    let tight = Resources {
        cpu_limit_milli: Some(200),
        memory_limit_bytes: Some(32 << 20),
        cpu_request_milli: Some(100),
        memory_request_bytes: None,
        ..Resources::default()
    };
    let plan = pod(&pod_name, vec![container("app", tight)]);
    let group = cgroups.pod(&plan).await;
    let (app, warnings) = group.container("app", &tight);
    assert_eq!(warnings, Vec::<String>::new());

    // 64 MiB in a group of 32 MiB: killed by the kernel, and counted.
    let mut hog = run_in(
        &app,
        "x=$(head -c 67108864 /dev/zero | tr '\\0' a); echo ${#x}",
    );
    let end = hog.wait().unwrap();
    assert!(!end.success() || app.oom_kills() > 0, "{end}");
    assert!(app.oom_kills() > 0, "the kernel has counted no kill");

    // Spinning at 200m gets a fifth of the time, and half a period's worth more at most.
    let before = app.usage().cpu_usec.unwrap();
    let begun = Instant::now();
    let mut spin = run_in(&app, "while :; do :; done");
    let (spent, elapsed) = loop {
        std::thread::sleep(Duration::from_millis(20));
        let spent = app.usage().cpu_usec.unwrap() - before;
        let elapsed = begun.elapsed().as_micros() as u64;
        let enough = spent >= 60_000 && elapsed >= 600_000;
        if enough || elapsed > 30_000_000 {
            break (spent, elapsed);
        }
    };
    assert!(app.populated());
    app.kill_all();
    spin.wait().unwrap();
    assert!(
        (60_000..elapsed / 5 + 60_000).contains(&spent),
        "{spent} µs in {elapsed} µs at 200m"
    );
    assert!(app.usage().memory_bytes.is_some());

    // Busy for as long as the killed ones need to go: removal waits for them.
    let mut forks = run_in(&app, "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait");
    std::thread::sleep(Duration::from_millis(50));
    app.kill_all();
    forks.wait().unwrap();
    app.remove().await.unwrap();
    group.remove().await.unwrap();
    assert_gone(&cgroups, &pod_name);
}

#[tokio::test]
async fn real_stale_groups_are_cleaned_up() {
    let Some(cgroups) = real() else { return };
    let pod_name = name("stale");
    let plan = pod(&pod_name, vec![container("app", limited())]);
    let first = cgroups.pod(&plan).await;
    let (app, _) = first.container("app", &limited());
    // The supervisor dies without a word; a process stays behind, in a group that it made itself.
    let nested = app.dirs().next().unwrap().join("nested");
    fs::create_dir(&nested).unwrap();
    let mut left = run_in(
        &app,
        &format!(
            "echo $$ > {}/cgroup.procs; exec sleep 1000",
            nested.display()
        ),
    );
    for _ in 0..100 {
        if fs::read_to_string(nested.join("cgroup.procs"))
            .unwrap()
            .contains(&left.id().to_string())
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // Reaped as the machine's init would.
    let reaper = std::thread::spawn(move || left.wait().unwrap());
    drop((first, app));
    let second = cgroups.pod(&plan).await;
    assert!(!reaper.join().unwrap().success());
    assert!(!nested.exists());
    let (again, warnings) = second.container("app", &limited());
    assert_eq!(warnings, Vec::<String>::new());
    assert!(!again.populated());
    second.remove().await.unwrap();
    assert_gone(&cgroups, &pod_name);
}

#[tokio::test]
async fn real_pods_of_one_name_do_not_meet() {
    let Some(cgroups) = real() else { return };
    let pod_name = name("twins");
    let plan = pod(&pod_name, vec![container("app", limited())]);
    // Two state directories: the second supervisor must not take the first one's processes for stale ones.
    let first = cgroups.pod(&plan).await;
    let (app, _) = first.container("app", &limited());
    let mut lives = run_in(&app, "exec sleep 1000");
    let second = cgroups.pod(&plan).await;
    let (twin, _) = second.container("app", &limited());
    assert!(
        twin.dirs()
            .next()
            .unwrap()
            .ends_with(format!("{pod_name}~2/app"))
    );
    assert!(app.populated() && !twin.populated());
    twin.kill_all();
    assert!(lives.try_wait().unwrap().is_none());
    // The first ends; a third takes its place and leaves the second alone.
    app.kill_all();
    lives.wait().unwrap();
    first.remove().await.unwrap();
    drop(first);
    let third = cgroups.pod(&plan).await;
    assert!(third.relative.ends_with(&pod_name));
    assert!(twin.dirs().next().unwrap().is_dir());
    // One that is given up before its first container leaves nothing.
    let given_up = cgroups.pod(&plan).await;
    assert!(given_up.relative.ends_with(format!("{pod_name}~3")));
    drop(given_up);
    assert_gone(&cgroups, &format!("{pod_name}~3"));
    // The second dies without a word: whoever comes next cleans up after it.
    drop((second, twin));
    third.remove().await.unwrap();
    drop(third);
    let last = cgroups.pod(&plan).await;
    assert_gone(&cgroups, &format!("{pod_name}~2"));
    last.remove().await.unwrap();
    assert_gone(&cgroups, &pod_name);
}

#[tokio::test]
async fn real_kill_all_on_v1_meets_what_forks_meanwhile() {
    let Some(mut cgroups) = real() else { return };
    cgroups.layout.usable.retain(|h| h.version == Version::V1);
    if cgroups.layout.usable.is_empty() {
        eprintln!("skipped: no v1 hierarchy");
        return;
    }
    let pod_name = name("forks");
    let plan = pod(&pod_name, vec![container("app", Resources::default())]);
    let group = cgroups.pod(&plan).await;
    let (app, _) = group.container("app", &Resources::default());
    let mut forks = run_in(
        &app,
        "f() { sleep 1000 & sleep 0.01; f & }; while :; do f; done",
    );
    std::thread::sleep(Duration::from_millis(100));
    app.kill_all();
    forks.wait().unwrap();
    // What could fork once more before its own signal came is met by a second call at the latest.
    for _ in 0..50 {
        if !app.populated() {
            break;
        }
        app.kill_all();
        std::thread::sleep(Duration::from_millis(10));
    }
    app.remove().await.unwrap();
    group.remove().await.unwrap();
    assert_gone(&cgroups, &pod_name);
}

#[test]
fn paths_injected_do_not_reach_the_machine() {
    let layout = detect(
        "30 22 0:30 / /nowhere rw - cgroup2 cgroup2 rw\n",
        "0::/\n",
        Path::new("/nonexistent"),
    );
    assert!(layout.usable.is_empty());
    assert!(layout.mounted);
}

/// On a kernel with version 1: what was written is what is in force.
#[test]
fn devices_of_version_1() {
    let top = Path::new("/sys/fs/cgroup/devices");
    let dir = top.join(format!("podkit-test-devices-{}", std::process::id()));
    if fs::create_dir(&dir).is_err() {
        return;
    }
    let guarded = devices::guard_v1(&dir);
    let list = fs::read_to_string(dir.join("devices.list"));
    fs::remove_dir(&dir).unwrap();
    guarded.unwrap();
    let mut list: Vec<String> = list.unwrap().lines().map(str::to_owned).collect();
    list.sort();
    assert_eq!(
        list,
        [
            "b *:* m",
            "c *:* m",
            "c 136:* rwm",
            "c 1:3 rwm",
            "c 1:5 rwm",
            "c 1:7 rwm",
            "c 1:8 rwm",
            "c 1:9 rwm",
            "c 5:0 rwm",
            "c 5:1 rwm",
            "c 5:2 rwm"
        ]
    );
}

/// Only what the verifier takes is any good; the sandbox's tests show what it does.
#[test]
fn the_device_program_is_well_formed() {
    let program = devices::program();
    for (at, [code, _, o0, o1, ..]) in program.iter().enumerate() {
        let offset = i16::from_ne_bytes([*o0, *o1]);
        let jumps = [0x16, 0x56].contains(code);
        assert!(
            !jumps || at + 1 + (offset as usize) < program.len(),
            "instruction {at}"
        );
    }
    assert_eq!(program.last().map(|code| code[0]), Some(0x95));
}
