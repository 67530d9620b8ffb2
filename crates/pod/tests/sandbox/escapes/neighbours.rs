//! Processes, keys and sockets that are not the container's: its neighbours', the init's, the supervisor's, the machine's.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};

use podkit_pod::plan::Seccomp;
use podkit_pod::sandbox::{PodSandbox, PrivateMounts, Process, Signal};

use crate::inside::attack;
use crate::support::*;

/// Looks at a process and into it by all ways that there are.
fn look(pid: i32) -> String {
    [
        format!("call kill {pid} 0"),
        // PTRACE_ATTACH, PTRACE_SEIZE
        format!("call ptrace 16 {pid} 0 0"),
        format!("call ptrace 0x4206 {pid} 0 0"),
        format!("call process_vm_readv {pid} v:8 1 v:8 1 0"),
        format!("call process_vm_writev {pid} v:8 1 v:8 1 0"),
        format!("call pidfd_open {pid} 0"),
        format!("ls /proc/{pid}/root"),
        format!("cat /proc/{pid}/environ"),
        format!("open-write /proc/{pid}/mem"),
        format!("link /proc/{pid}/cwd"),
        format!("link /proc/{pid}/exe"),
    ]
    .join(" ; ")
}

pub(crate) fn others_can_not_be_named(private: &PrivateMounts) {
    let pod = pod(private);
    let (other, _output) = start(&pod, inside("sleep"));
    // By the numbers that the machine and the pod give them. All but its own (1) mean nothing inside.
    let outside = [
        other.pid(),
        other.pid_in_pod().unwrap(),
        pod.init().pid(),
        std::process::id() as i32,
    ];
    for pid in outside.into_iter().filter(|pid| *pid != 1) {
        let mut attacker = inside(&format!("{} ; ls /proc", look(pid)));
        attacker.security.add_capabilities = vec!["SYS_PTRACE".into()];
        let (_, text) = run(&pod, attacker);
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[..6] {
            // ESRCH: there is no such process.
            assert!(line.ends_with(": 3"), "{line}\n{text}");
        }
        has(&text, &format!("/proc/{pid}/root: []"));
        has(&text, &format!("/proc/{pid}/environ: 2"));
        has(&text, &format!("open-write /proc/{pid}/mem: 2"));
        let listed = field(&text, "/proc: ");
        let listed: Vec<String> = serde_json::from_str(listed).unwrap();
        let processes: Vec<_> = listed
            .iter()
            .filter(|name| name.parse::<u32>().is_ok())
            .collect();
        assert_eq!(processes, ["1"]);
    }
    // Everybody that it may signal is itself.
    let (status, _) = run(&pod, inside("call kill -1 9 ; exit 7"));
    assert_eq!(status.code(), 7);
    assert!(!other.has_ended());
    pod.destroy(LONG).unwrap();
}

/// Where PIDs are shared a neighbour has a number; what may be done to it is a matter of users and capabilities.
pub(crate) fn a_neighbour_with_more_rights_is_closed(private: &PrivateMounts) {
    let pod = shared_pod(private);
    let mut more = inside("sleep");
    more.security.add_capabilities = vec!["NET_ADMIN".into()];
    let (more, _output) = start(&pod, more);
    let (same, _output) = start(&pod, inside("sleep"));
    let attack = |pid: i32, uid: Option<u32>| {
        let mut attacker = inside(&look(pid));
        attacker.security.uid = uid;
        run(&pod, attacker).1
    };
    let closed = |text: &str, pid: i32| {
        for call in [
            "ptrace 16",
            "ptrace 0x4206",
            "process_vm_readv",
            "process_vm_writev",
        ] {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("call {call}")))
                .unwrap();
            assert!(line.ends_with(": 1"), "{line}");
        }
        has(text, &format!("/proc/{pid}/root: []"));
        has(text, &format!("/proc/{pid}/environ: 13"));
        has(text, &format!("open-write /proc/{pid}/mem: 13"));
        has(text, &format!("/proc/{pid}/exe -> Err"));
    };
    let pid = more.pid_in_pod().unwrap();
    closed(&attack(pid, None), pid);
    // The init has fewer, and is not dumpable.
    closed(&attack(1, None), 1);
    // Another user sees a neighbour of root's and can't even signal it.
    let pid = same.pid_in_pod().unwrap();
    let text = attack(pid, Some(1000));
    closed(&text, pid);
    has(&text, &format!("call kill {pid} 0: 1"));
    // The control: with equal rights it is open, which is what sharing PIDs means.
    let text = attack(pid, None);
    has(
        &text,
        &format!("call process_vm_readv {pid} v:8 1 v:8 1 0: 14"),
    );
    has(&text, &format!("open-write /proc/{pid}/mem: ok"));
    pod.destroy(LONG).unwrap();
}

/// SIGKILL from inside does not reach the init of a PID namespace.
pub(crate) fn the_init_survives_its_pod(private: &PrivateMounts) {
    let pod = shared_pod(private);
    let mut attacker = inside("call kill 1 9 ; call kill 1 15 ; call kill 1 19 ; echo alive");
    attacker.security.add_capabilities = vec!["SYS_PTRACE".into(), "SYS_BOOT".into()];
    has(&run(&pod, attacker).1, "alive");
    assert!(!pod.init().has_ended());
    assert_eq!(run(&pod, inside("exit 3")).0.code(), 3);
    pod.destroy(LONG).unwrap();
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn keys_stay_with_their_owner(private: &PrivateMounts) {
    // A key in the supervisor's session keyring, as a login or Kerberos puts there.
    let name = format!("s:podkit-{}", std::process::id());
    let supervisor = |call: &str| attack::call_by_words(&words(call));
    if supervisor("keyctl 1 0").is_err() {
        println!("  (no keys on this kernel: not checked)");
        return;
    }
    supervisor(&format!("add_key s:user {name} s:secret 6 -3")).unwrap();
    let search = format!("keyctl 10 -3 s:user {name} 0");
    // The control: the supervisor finds it.
    supervisor(&search).unwrap();
    let pod = pod(private);
    let (_, text) = run(&pod, inside(&format!("call {search}")));
    // ENOKEY
    assert_eq!(field(&text, &format!("call {search}:")), "126");

    // Nor do containers of one pod share theirs; nor a container and a command in it.
    let add = format!("call add_key s:user {name}-own s:secret 6 -3");
    let search = format!("call keyctl 10 -3 s:user {name}-own 0");
    let (container, mut output) = start(&pod, inside(&format!("{add} ; {search} ; sleep")));
    let mut text = String::new();
    let mut buffer = [0; 256];
    while text.lines().count() < 2 || !text.ends_with('\n') {
        let count = output.read(&mut buffer).unwrap();
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    has(&text, &format!("{search}: ok"));
    assert_eq!(
        field(&run(&pod, inside(&search)).1, &format!("{search}:")),
        "126"
    );
    assert_eq!(
        field(&exec(&pod, &container, &search).1, &format!("{search}:")),
        "126"
    );
    pod.destroy(LONG).unwrap();
}

/// The machine's abstract sockets (D-Bus, containerd-shim: CVE-2020-15257) belong to its network namespace.
pub(crate) fn abstract_sockets_stay_outside(private: &PrivateMounts) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    let name = format!("podkit-sandbox-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    UnixStream::connect_addr(&address).unwrap();
    let pod = pod(private);
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    let connect = format!("call connect 3 x:010000{hex} {}", 3 + name.len());
    let (_, text) = run(&pod, inside(&format!("call socket 1 1 0 ; {connect}")));
    // ECONNREFUSED
    has(&text, &format!("{connect}: 111"));
    pod.destroy(LONG).unwrap();
}

/// A descriptor that the supervisor itself inherited without close-on-exec, such as a shell leaves, reaches no container
/// (CVE-2024-21626).
pub(crate) fn no_descriptor_leaks(private: &PrivateMounts) {
    let root = OwnedFd::from(std::fs::File::open("/").unwrap());
    rustix::io::fcntl_setfd(&root, rustix::io::FdFlags::empty()).unwrap();
    let pod = pod(private);
    let (container, mut output) = start(&pod, inside("fds ; sleep"));
    let mut buffer = [0; 4096];
    let count = output.read(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
    let command = exec(&pod, &container, "fds").1;
    for text in [text, command] {
        // 3 is the directory that is being read.
        let fds: Vec<String> = serde_json::from_str(field(&text, "fds ")).unwrap();
        assert_eq!(fds.len(), 4, "{text}");
        assert!(fds[0].ends_with("/dev/null"), "{text}");
        assert!(
            fds[1].starts_with("1=pipe:") && fds[2].starts_with("2=pipe:"),
            "{text}"
        );
        assert!(fds[3].starts_with("3=/proc/"), "{text}");
    }
    // And none leads out by way of the working directory.
    let number = root.as_raw_fd();
    for path in [
        format!("/proc/self/fd/{number}"),
        format!("/proc/self/fd/{number}/../../etc"),
        "/dev/fd/3/..".into(),
    ] {
        let mut start = inside("cwd");
        start.cwd = Some(path.into());
        let error = pod.start(&start).unwrap_err().to_string();
        assert!(
            error.starts_with("change to the working directory"),
            "{error}"
        );
    }
    pod.destroy(LONG).unwrap();

    // In a shared PID namespace a neighbour's root is such a way too, and nothing is made there.
    let pod = shared_pod(private);
    let (victim, _output) = start(&pod, inside("sleep"));
    let pid = victim.pid_in_pod().unwrap();
    for process in [pid, 1] {
        let mut start = inside("cwd");
        start.cwd = Some(format!("/proc/{process}/root/tmp/made").into());
        let error = pod.start(&start).unwrap_err().to_string();
        assert!(
            error.starts_with("change to the working directory"),
            "{error}"
        );
    }
    assert_eq!(exec(&pod, &victim, "ls /tmp").1, "/tmp: []\n");
    victim.signal(Signal::KILL).unwrap();
    pod.destroy(LONG).unwrap();
}

/// With CAP_SYS_PTRACE a container can trace the stage of a command from the moment at which it can see it. Then it has no more
/// to give than the container has, and nothing of the machine's is open.
pub(crate) fn the_stage_of_a_command_has_nothing_to_give(private: &PrivateMounts) {
    for (make, seccomp) in [
        (pod as fn(&PrivateMounts) -> PodSandbox, Seccomp::Unconfined),
        (shared_pod, Seccomp::Unconfined),
        (pod, Seccomp::RuntimeDefault),
        (shared_pod, Seccomp::RuntimeDefault),
    ] {
        let pod = make(private);
        stages_have_nothing_to_give(&pod, &seccomp, |attacker| {
            exec(&pod, attacker, "exit 0").0.code()
        });
        pod.destroy(LONG).unwrap();
    }
}

/// The same where PIDs are shared and a neighbour starts.
pub(crate) fn the_stage_of_a_neighbour_has_nothing_to_give(private: &PrivateMounts) {
    for seccomp in [Seccomp::Unconfined, Seccomp::RuntimeDefault] {
        let pod = shared_pod(private);
        stages_have_nothing_to_give(&pod, &seccomp, |_| {
            let mut neighbour = inside("exit 0");
            neighbour.security.seccomp = seccomp.clone();
            run(&pod, neighbour).0.code()
        });
        pod.destroy(LONG).unwrap();
    }
}

/// A container traces the stages that `make` lets it meet.
fn stages_have_nothing_to_give(
    pod: &PodSandbox,
    seccomp: &Seccomp,
    make: impl Fn(&Process) -> i32,
) {
    let mut attacker = inside("watch-stages 10 ; sleep");
    attacker.security.add_capabilities = vec!["SYS_PTRACE".into()];
    attacker.security.seccomp = seccomp.clone();
    let (attacker, mut output) = start(pod, attacker);
    read_until(&mut output, "watching");
    let text = std::thread::scope(|scope| {
        let text = scope.spawn(|| read_until(&mut output, "root:"));
        // It is there for some ten microseconds: it takes many until one is met.
        let deadline = std::time::Instant::now() + LONG * 3;
        let mut code = 0;
        while !text.is_finished() && code == 0 && std::time::Instant::now() < deadline {
            code = make(&attacker);
        }
        if !text.is_finished() {
            // So that the thread ends, which then says what is missing.
            attacker.signal(Signal::KILL).unwrap();
        }
        assert_eq!(code, 0);
        text.join().unwrap()
    });
    let (capabilities, descriptors) = field(&text, "stages:").split_once(' ').unwrap();
    // The fourteen of every container, and CAP_SYS_PTRACE (19).
    let own = 0xa804_25fb | 1 << 19;
    let capabilities = u64::from_str_radix(capabilities, 16).unwrap();
    assert_eq!(capabilities & !own, 0, "{seccomp:?} {text}");
    let descriptors: Vec<String> =
        serde_json::from_str(&descriptors.replace('{', "[").replace('}', "]")).unwrap();
    for kind in descriptors {
        assert!(
            ["pipe", "socket", "/proc/driver/dev/null"].contains(&kind.as_str()),
            "{seccomp:?} {text}"
        );
    }
    assert_eq!(field(&text, "root:"), "own", "{seccomp:?}");
}
