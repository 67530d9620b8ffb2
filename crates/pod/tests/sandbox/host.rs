//! Namespaces of the machine: hostNetwork, hostPID, hostIPC.

use podkit_pod::plan::HostNamespaces;
use podkit_pod::sandbox::{ExitStatus, PodSandbox, PrivateMounts, SandboxSpec, Signal};

use crate::support::*;

fn host_pod(private: &PrivateMounts, host: HostNamespaces) -> PodSandbox {
    let spec = SandboxSpec {
        host,
        ..SandboxSpec::new("testpod")
    };
    PodSandbox::create(private, spec).unwrap()
}

const NAMES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Which namespaces a container shares with the machine.
fn shared(pod: &PodSandbox) -> Vec<&'static str> {
    let words: Vec<String> = NAMES
        .map(|name| format!("link /proc/self/ns/{name}"))
        .into();
    let (_, text) = run(pod, inside(&words.join(" ; ")));
    let same = |name: &&str| {
        let own = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        field(&text, &format!("/proc/self/ns/{name} -> ")) == format!("Ok({own:?})")
    };
    NAMES.into_iter().filter(same).collect()
}

pub(super) fn namespaces_of_the_machine(private: &PrivateMounts) {
    // Without a cgroup of its own a container needs no cgroup namespace.
    let check = |host: HostNamespaces, expected: &[&str]| {
        let pod = host_pod(private, host);
        assert_eq!(shared(&pod), expected, "{host:?}");
        pod.destroy(LONG).unwrap();
    };
    let none = HostNamespaces::default();
    check(none, &["cgroup", "user"]);
    let network = HostNamespaces {
        network: true,
        ..none
    };
    check(network, &["cgroup", "net", "user"]);
    check(
        HostNamespaces { pid: true, ..none },
        &["cgroup", "pid", "user"],
    );
    check(
        HostNamespaces { ipc: true, ..none },
        &["cgroup", "ipc", "user"],
    );

    // What goes with them: the machine's interfaces and its shared memory; no parameter of theirs is the pod's.
    let host = HostNamespaces {
        network: true,
        pid: false,
        ipc: true,
    };
    let pod = host_pod(private, host);
    let name = format!("podkit-sandbox-test-{}", std::process::id());
    let place = std::path::Path::new("/dev/shm").join(&name);
    std::fs::write(&place, "of the machine").unwrap();
    let (_, text) = run(
        &pod,
        inside(&format!("cat /dev/shm/{name} ; ls /sys/class/net")),
    );
    std::fs::remove_file(&place).unwrap();
    has(&text, "of the machine");
    for interface in std::fs::read_dir("/sys/class/net").unwrap() {
        let name = interface.unwrap().file_name().into_string().unwrap();
        // Those of other pods come and go.
        if !name.starts_with("podkit-") {
            has(&text, &format!("{name:?}"));
        }
    }
    pod.destroy(LONG).unwrap();
    for name in ["net.core.somaxconn", "kernel.msgmax"] {
        let spec = SandboxSpec {
            host,
            sysctls: vec![(name.into(), "1".into())],
            ..SandboxSpec::new("testpod")
        };
        let error = PodSandbox::create(private, spec).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("the sysctl {name} is not the pod's own: it is the machine's")
        );
    }
}

pub(super) fn a_pod_among_the_machine_s_processes(private: &PrivateMounts) {
    let host = HostNamespaces {
        pid: true,
        ..HostNamespaces::default()
    };
    let pod = host_pod(private, host);
    let (first, _output) = start(&pod, inside("spawn-sleep ; sleep"));
    assert_eq!(first.pid_in_pod(), Some(first.pid()));
    let me = std::process::id();
    let (_, text) = exec(&pod, &first, &format!("pid ; cat /proc/{me}/comm"));
    has(&text, &std::fs::read_to_string("/proc/self/comm").unwrap());
    // What a container leaves behind, found by its mounts.
    let (second, mut output) = start(&pod, inside("spawn-sleep ; exit 0"));
    assert_eq!(finish(&second), ExitStatus::Code(0));
    assert_eq!(pod.kill_rest(&second).unwrap(), 1);
    has(&std::io::read_to_string(&mut output).unwrap(), "spawned ");
    assert_eq!(first.try_wait().unwrap(), None);
    // The rest goes with the pod: what the first one made too.
    let uts = std::fs::File::open(format!("/proc/{}/ns/uts", first.pid())).unwrap();
    let left = || processes_in_uts(&uts);
    eventually("the application's own process", || left() == 3);
    pod.destroy(LONG).unwrap();
    assert_eq!(left(), 0);
    assert_eq!(finish(&first), ExitStatus::Signal(9));
    // The end of the guard is the end of the pod.
    let pod = host_pod(private, host);
    let (first, _output) = start(&pod, inside("sleep"));
    pod.init().signal(Signal::KILL).unwrap();
    finish(pod.init());
    first.signal(Signal::KILL).unwrap();
    pod.destroy(LONG).unwrap();
    assert_eq!(finish(&first), ExitStatus::Signal(9));
}

/// The namespace is held open: the kernel gives the number of one that is gone to the next.
fn processes_in_uts(namespace: &std::fs::File) -> usize {
    use std::os::unix::fs::MetadataExt;
    let namespace = namespace.metadata().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            std::fs::metadata(path.join("ns/uts")).is_ok_and(|other| other.ino() == namespace.ino())
        })
        .count()
}
