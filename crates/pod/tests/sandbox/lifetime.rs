//! What lives as long as what, and what is left.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use podkit_pod::sandbox::{
    ExitStatus, PodSandbox, PrivateMounts, SandboxSpec, Signal, StartError, in_user_namespace,
};

use crate::support::*;

/// A supervisor of its own: starts a pod with two containers and a command in one, prints their ids, and waits.
pub(crate) fn creator(how: &str) -> ExitCode {
    let private = podkit_pod::sandbox::enter_private_mounts().unwrap();
    if how == "removed" {
        // As when podkit is built anew while a pod runs.
        std::fs::remove_file(std::env::current_exe().unwrap()).unwrap();
    }
    let spec = SandboxSpec {
        share_process_namespace: how == "shared",
        host: podkit_pod::plan::HostNamespaces {
            pid: how == "host",
            ..Default::default()
        },
        ..SandboxSpec::new("testpod")
    };
    let pod = PodSandbox::create(&private, spec).unwrap();
    let (first, _output) = start(&pod, inside("spawn-sleep ; sleep"));
    let (second, _output) = start(&pod, inside("sleep"));
    let spec = podkit_pod::sandbox::ExecSpec {
        argv: argv("sleep"),
        stdio: Default::default(),
    };
    let third = pod.exec(&second, &spec).unwrap();
    let network = std::fs::read_link(format!("/proc/{}/ns/net", pod.init().pid())).unwrap();
    println!(
        "{} {} {} {} {}",
        pod.init().pid(),
        first.pid(),
        second.pid(),
        third.pid(),
        network.display()
    );
    std::thread::sleep(Duration::from_secs(600));
    ExitCode::SUCCESS
}

/// A process's network namespace, held open: the kernel gives the number of one that is gone to the next.
fn held_network(pid: impl std::fmt::Display) -> std::fs::File {
    std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap()
}

/// All processes with that network namespace: those of the pod, however they are called.
fn processes_of(network: &str) -> Vec<i32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read_link(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|link| link.to_str() == Some(network))
        })
        .collect()
}

pub(super) fn the_death_of_the_supervisor_kills_all(_private: &PrivateMounts) {
    let copy = tempfile::tempdir().unwrap();
    for how in ["shared", "apart", "host", "removed"] {
        let mut exe = std::env::current_exe().unwrap();
        if how == "removed" {
            std::fs::copy(&exe, copy.path().join("podkit")).unwrap();
            exe = copy.path().join("podkit");
        }
        let mut creator = Command::new(exe)
            .args(["creator", how])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(creator.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let (network, _held) = (words[4], held_network(words[0]));
        // The init, three processes, and one that the application made.
        eventually("the application's own process", || {
            processes_of(network).len() == 5
        });
        for pid in &words[..4] {
            assert!(
                processes_of(network).contains(&pid.parse().unwrap()),
                "{pid} of {line}"
            );
        }
        creator.kill().unwrap();
        creator.wait().unwrap();
        eventually("the death of the pod", || processes_of(network).is_empty());
    }
}

fn descriptors() -> BTreeSet<String> {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let target = std::fs::read_link(entry.path()).ok()?;
            (!target.starts_with("/proc"))
                .then(|| format!("{:?} {}", entry.file_name(), target.display()))
        })
        .collect()
}

fn mounts() -> usize {
    std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .count()
}

fn children() -> String {
    let task = format!("/proc/self/task/{}/children", std::process::id());
    std::fs::read_to_string(task).unwrap()
}

pub(super) fn destroy_leaves_nothing(private: &PrivateMounts) {
    let before = (descriptors(), mounts(), children());
    let (network, held) = {
        let pod = shared_pod(private);
        let (first, _output) = start(&pod, inside("spawn-sleep ; sleep"));
        let (_second, _output) = start(&pod, inside("sleep"));
        // Unreaped, and its handle dropped.
        drop(start(&pod, inside("exit 0")));
        let held = held_network(first.pid());
        let network = std::fs::read_link(format!("/proc/{}/ns/net", first.pid())).unwrap();
        pod.destroy(LONG).unwrap();
        assert_eq!(finish(&first), ExitStatus::Signal(9));
        pod.destroy(LONG).unwrap();
        (network, held)
    };
    assert!(processes_of(network.to_str().unwrap()).is_empty());
    drop(held);
    assert_eq!((descriptors(), mounts(), children()), before);
}

pub(super) fn twenty_rounds_leak_nothing(private: &PrivateMounts) {
    let before = (descriptors(), mounts(), children());
    for round in 0..20 {
        let pod = if round % 2 == 0 {
            pod(private)
        } else {
            shared_pod(private)
        };
        assert_eq!(run(&pod, inside("exit 4")).0, ExitStatus::Code(4));
        assert!(
            pod.start(&podkit_pod::sandbox::ContainerStart::new(
                podkit_pod::image::Root::Itself,
                vec!["/no".into()]
            ))
            .is_err()
        );
        drop(start(&pod, inside("sleep")));
        pod.destroy(LONG).unwrap();
    }
    assert_eq!((descriptors(), mounts(), children()), before);
}

pub(super) fn the_stage_is_closed_to_others(private: &PrivateMounts) {
    // A stage that waits for its job, run by another user than root so that /proc tells: the files of a process that is not
    // dumpable belong to root. (proc_pid(5))
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).unwrap();
    let exe = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let spawn = |name: &str, last: &str| {
        Command::new(format!("/proc/self/fd/{}", exe.as_raw_fd()))
            .arg0(name)
            .args([last, "wait-input"])
            .uid(65534)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let owner = |pid: u32| std::fs::metadata(format!("/proc/{pid}/fd")).unwrap().uid();
    let mut stage = spawn("podkit-stage", &theirs.as_raw_fd().to_string());
    let mut other = spawn("podkit", "inside");
    eventually("the stage's first call", || owner(stage.id()) == 0);
    assert_eq!(owner(other.id()), 65534);
    for child in [&mut stage, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    // The init has no capability that its neighbours lack, and can't be looked into all the same.
    let pod = shared_pod(private);
    let (_, text) = run(
        &pod,
        inside("link /proc/1/exe ; cat /proc/1/environ ; cat /proc/1/maps"),
    );
    for line in [
        "/proc/1/exe -> Err(Os { code: 13",
        "/proc/1/environ: 13",
        "/proc/1/maps: 13",
    ] {
        has(&text, line);
    }
    pod.destroy(LONG).unwrap();
}

pub(super) fn kill_rest_of_a_shared_pod(private: &PrivateMounts) {
    let pod = shared_pod(private);
    let (other, _output) = start(&pod, inside("sleep"));
    let (process, mut output) = start(&pod, inside("spawn-sleep ; exit 0"));
    assert_eq!(finish(&process), ExitStatus::Code(0));
    assert_eq!(pod.kill_rest(&process).unwrap(), 1);
    // The one left behind held the pipe open.
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    has(&text, "spawned ");
    assert_eq!(other.try_wait().unwrap(), None);
    // One that ends at once can't be looked at any more, and is known all the same.
    for _ in 0..10 {
        let mut container = podkit_pod::sandbox::ContainerStart::new(
            podkit_pod::image::Root::Host,
            ["sh", "-c", "exec 3>&- ; sleep 600 & exit 0"]
                .map(str::to_owned)
                .into(),
        );
        let (output, stdio) = captured();
        container.stdio = stdio;
        let process = pod.start(&container).unwrap();
        drop(container);
        finish(&process);
        assert_eq!(pod.kill_rest(&process).unwrap(), 1);
        drop(output);
    }
    pod.destroy(LONG).unwrap();
}

pub(super) fn sandbox_gone(private: &PrivateMounts) {
    // A start that comes before the init gets to die succeeds, and is killed with the rest.
    let gone = |pod: &PodSandbox| match pod.start(&inside("sleep")) {
        Ok(process) => assert_eq!(finish(&process), ExitStatus::Signal(9)),
        Err(error) => assert!(matches!(error, StartError::SandboxGone), "{error}"),
    };
    // While it goes, and when it is gone.
    for wait in [0, 0, 0, 100, 300, 1000, 3000] {
        let pod = pod(private);
        let (process, _output) = start(&pod, inside("sleep"));
        pod.init().signal(Signal::KILL).unwrap();
        std::thread::sleep(Duration::from_micros(wait));
        gone(&pod);
        assert_eq!(finish(&process), ExitStatus::Signal(9));
        pod.destroy(LONG).unwrap();
        assert!(matches!(
            pod.start(&inside("sleep")),
            Err(StartError::SandboxGone)
        ));
    }
}

pub(super) fn small_init(private: &PrivateMounts) {
    let pod = pod(private);
    let rollup =
        std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pod.init().pid())).unwrap();
    let kib = |name: &str| {
        field(&rollup, name)
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    println!(
        "  init: {} KiB resident, {} KiB private",
        kib("Rss:"),
        kib("Private_Dirty:") + kib("Private_Clean:")
    );
    assert!(kib("Rss:") < 64, "{rollup}");
    pod.destroy(LONG).unwrap();
}

/// User and system time of this process (by its reaped children too), in clock ticks of 10 ms. (proc_pid_stat(5))
fn cpu_ticks() -> [u64; 2] {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<u64> = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .skip(11)
        .take(4)
        .map(|f| f.parse().unwrap())
        .collect();
    [fields[0] + fields[1], fields[2] + fields[3]]
}

pub(super) fn how_long_a_start_takes(private: &PrivateMounts) {
    let timed = |what: &str, action: &mut dyn FnMut()| {
        let before = cpu_ticks();
        let mut times: Vec<Duration> = (0..10)
            .map(|_| {
                let start = Instant::now();
                action();
                start.elapsed()
            })
            .collect();
        times.sort();
        let [own, children] =
            [0, 1].map(|index| (cpu_ticks()[index] - before[index]) as f64 / 10.0);
        println!(
            "  {what}: {:?} at best, {:?} median; CPU {own:.1} ms here, {children:.1} ms in what was started",
            times[0],
            times[times.len() / 2]
        );
        times[times.len() / 2]
    };
    timed("make and destroy a pod", &mut || {
        pod(private).destroy(LONG).unwrap()
    });
    let pod = pod(private);
    let (container, _output) = start(&pod, inside("sleep"));
    let median = timed("start a container", &mut || {
        drop(start(&pod, inside("exit 0")))
    });
    timed("exec", &mut || drop(exec(&pod, &container, "exit 0")));
    let confined = || {
        let mut start = inside("exit 0");
        start.security.seccomp = podkit_pod::plan::Seccomp::RuntimeDefault;
        start
    };
    timed("start a container with RuntimeDefault", &mut || {
        drop(run(&pod, confined()))
    });
    timed("start and wait, without", &mut || {
        drop(run(&pod, inside("exit 0")))
    });
    pod.destroy(LONG).unwrap();
    let pod = shared_pod(private);
    timed("start a container that shares PIDs", &mut || {
        drop(start(&pod, inside("exit 0")))
    });
    timed("the same with RuntimeDefault", &mut || {
        drop(start(&pod, confined()))
    });
    pod.destroy(LONG).unwrap();
    // A tenth of this is usual; a busy machine must not fail the test.
    assert!(median < Duration::from_millis(250));
}

/// A signal with a handler interrupts system calls of the supervisor: a start must not notice.
pub(super) fn signals_do_not_break_a_start(private: &PrivateMounts) {
    use std::sync::atomic::{AtomicBool, Ordering};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let kind = tokio::signal::unix::SignalKind::user_defined1();
    let _handler = tokio::signal::unix::signal(kind).unwrap();
    let pod = pod(private);
    let done = AtomicBool::new(false);
    let me = rustix::process::getpid();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                rustix::process::kill_process(me, Signal::USR1).unwrap();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        for _ in 0..20 {
            let exited = std::panic::catch_unwind(|| run(&pod, inside("exit 2")).0);
            if exited.as_ref().ok() != Some(&ExitStatus::Code(2)) {
                done.store(true, Ordering::Relaxed);
                panic!("a signal broke a start");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    pod.destroy(LONG).unwrap();
}

/// A command whose caller gave up is reaped all the same: else its container, the init of their PID namespace, could not end.
pub(super) fn forgotten_commands_do_not_hold_a_container(private: &PrivateMounts) {
    let pod = pod(private);
    let (container, _output) = start(&pod, inside("sleep"));
    let sleep = podkit_pod::sandbox::ExecSpec {
        argv: argv("sleep"),
        stdio: Default::default(),
    };
    drop(pod.exec(&container, &sleep).unwrap());
    container.signal(Signal::KILL).unwrap();
    assert_eq!(finish(&container), ExitStatus::Signal(9));
    pod.destroy(LONG).unwrap();
}

/// Exec probes go on for weeks: whatever one of them leaves behind adds up. Without root a hundred must do.
pub(super) fn a_thousand_commands_leak_nothing(private: &PrivateMounts) {
    let pod = shared_pod(private);
    let mut container = inside("sleep");
    container.security.seccomp = podkit_pod::plan::Seccomp::RuntimeDefault;
    let (container, _output) = start(&pod, container);
    let before = (descriptors(), mounts(), children());
    let ticks = cpu_ticks();
    let commands = if in_user_namespace() { 100 } else { 1000 };
    for _ in 0..commands {
        assert_eq!(exec(&pod, &container, "exit 0").0, ExitStatus::Code(0));
    }
    let [own, others] =
        [0, 1].map(|index| (cpu_ticks()[index] - ticks[index]) as f64 * 10.0 / f64::from(commands));
    println!("  a command: CPU {own:.2} ms here, {others:.2} ms in what was started");
    // The reaper may still hold the last one's.
    eventually("the end of the last command", || {
        (descriptors(), mounts(), children()) == before
    });
    // The stage of this very command is reaped as soon as the command runs.
    has(&exec(&pod, &container, "zombies").1, "zombies 0");
    pod.destroy(LONG).unwrap();
}
