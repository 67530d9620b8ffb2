//! `securityContext`: who a container is, what it may call, what it sees of the machine.

use std::os::unix::fs::PermissionsExt;

use podkit_pod::plan::Seccomp;
use podkit_pod::sandbox::{
    ContainerStart, ExecSpec, ExitStatus, Mount, PodSandbox, PrivateMounts, SandboxSpec,
    StartError, in_user_namespace,
};

use crate::support::*;

/// The container with files of its own in place of `/etc/passwd` and `/etc/group`.
fn with_accounts(mut start: ContainerStart, dir: &std::path::Path) -> ContainerStart {
    for (name, text) in [
        (
            "passwd",
            "root:x:0:0::/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n",
        ),
        ("group", "root:x:0:\nweb:x:34:\nlogs:x:4:web\n"),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        start
            .mounts
            .push(Mount::path(path, format!("/etc/{name}")).read_only(true));
    }
    start
}

pub(super) fn groups_of_a_container(private: &PrivateMounts) {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(private);
    let groups = |uid: Option<u32>, user: Option<&str>, strict: bool| {
        let mut start = with_accounts(inside("cat /proc/self/status"), dir.path());
        start.security.uid = uid;
        start.image_user = user.map(str::to_owned);
        start.groups = vec![3000, 2000];
        start.groups_strict = strict;
        let (_, text) = run(&pod, start);
        let id = |name| field(&text, name).split('\t').next().unwrap().to_owned();
        format!("{}:{} {}", id("Uid:"), id("Gid:"), field(&text, "Groups:"))
    };
    assert_eq!(groups(Some(33), None, false), "33:34 4 34 2000 3000");
    assert_eq!(groups(Some(33), None, true), "33:34 34 2000 3000");
    assert_eq!(groups(None, Some("web"), false), "33:34 4 34 2000 3000");
    // The group of the image's user does not count, as on Kubernetes.
    assert_eq!(groups(None, Some("33:0"), true), "33:34 34 2000 3000");
    assert_eq!(groups(Some(7), Some("web"), false), "7:0 0 2000 3000");
    assert_eq!(groups(None, Some(""), false), "0:0 0 2000 3000");
    let mut start = with_accounts(inside("echo"), dir.path());
    start.image_user = Some("nobody".into());
    assert_eq!(
        pod.start(&start).unwrap_err().to_string(),
        "find the image's user \"nobody\" in its /etc/passwd: No such file or directory"
    );
    pod.destroy(LONG).unwrap();
}

pub(super) fn root_is_refused_where_it_must_not_be(private: &PrivateMounts) {
    let pod = pod(private);
    let start = |uid: Option<u32>, user: Option<&str>| {
        let mut start = inside("exit 0");
        start.security.non_root = true;
        start.security.uid = uid;
        start.image_user = user.map(str::to_owned);
        pod.start(&start).map(|process| finish(&process))
    };
    let refused = |uid, user, words: &str| {
        let error = start(uid, user).unwrap_err();
        assert_eq!(error.to_string(), words);
        assert_eq!(error.waiting_reason(), Some("CreateContainerConfigError"));
    };
    let root = "container has runAsNonRoot and image will run as root";
    refused(None, None, root);
    refused(None, Some("0:1000"), root);
    refused(
        Some(0),
        Some("1000"),
        "container's runAsUser breaks non-root policy",
    );
    refused(
        None,
        Some("root"),
        "container has runAsNonRoot and image has non-numeric user (root), cannot verify user is non-root",
    );
    for (uid, user) in [(Some(1000), Some("root")), (None, Some("1000:0"))] {
        assert_eq!(start(uid, user).unwrap(), ExitStatus::Code(0));
    }
    pod.destroy(LONG).unwrap();
}

/// The exec is made with the container's capabilities, as container runtimes have it; the program has none of them.
pub(super) fn a_program_where_only_root_may_go(private: &PrivateMounts) {
    let pod = pod(private);
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), dir.path().join("podkit")).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let start = |drop: &[&str]| {
        let mut start = inside("cat /proc/self/status ; ls /hidden");
        start.mounts = vec![Mount::path(dir.path(), "/hidden")];
        start.argv[0] = "/hidden/podkit".into();
        start.security.uid = Some(1000);
        start.security.drop_capabilities = drop.iter().map(ToString::to_string).collect();
        start
    };
    let (_, text) = run(&pod, start(&[]));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(&text, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&text, "CapBnd:"), "00000000a80425fb");
    has(&text, "/hidden: []");
    assert_eq!(
        pod.start(&start(&["ALL"])).unwrap_err().to_string(),
        "exec /hidden/podkit: Permission denied"
    );
    pod.destroy(LONG).unwrap();
}

pub(super) fn privileged_containers(private: &PrivateMounts) {
    let pod = pod(private);
    let words = "cat /proc/self/status ; ls /dev ; read-some /proc/kcore ; open-write /proc/sys/kernel/hostname ; \
         stat /dev/null ; open-write /dev/kmsg ; cat /proc/self/mountinfo ; mknod /tmp/loop 7 0 ; read-some /tmp/loop";
    let mut start = inside(words);
    start.security.privileged = true;
    // All of these are for others.
    start.security.no_new_privileges = true;
    start.security.drop_capabilities = vec!["ALL".into()];
    start.security.seccomp = Seccomp::RuntimeDefault;
    let (status, text) = run(&pod, start);
    assert_eq!(status, ExitStatus::Code(0), "{text}");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(&text, set), field(&own, set), "{set}");
    }
    assert_eq!(field(&text, "NoNewPrivs:"), "0");
    assert_eq!(field(&text, "Seccomp:"), "0");
    // Every device of the machine but what is the container's own.
    let devices = std::fs::read_dir("/dev").unwrap().filter_map(|entry| {
        use std::os::unix::fs::FileTypeExt;
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let name = entry.file_name().into_string().unwrap();
        ((kind.is_char_device() || kind.is_block_device()) && name != "console").then_some(name)
    });
    let list = field(&text, "/dev: ");
    let mut count = 0;
    for device in devices {
        has(list, &format!("{device:?}"));
        count += 1;
    }
    assert!(count > 6, "this machine has no devices of its own");
    // In a user namespace the machine's parameters and devices are still root's.
    let answer = if in_user_namespace() { "13" } else { "ok" };
    has(
        &text,
        &format!("open-write /proc/sys/kernel/hostname: {answer}"),
    );
    has(&text, "stat /dev/null: ok \"char 666 103\"");
    if std::path::Path::new("/dev/kmsg").exists() {
        has(&text, &format!("open-write /dev/kmsg: {answer}"));
    }
    // /proc and /sys are whole, and writable.
    for line in text.lines().filter(|line| line.contains(" - ")) {
        let fields: Vec<&str> = line.split(' ').collect();
        assert!(
            !(fields[4].starts_with("/proc/") || fields[4] == "/sys/firmware"),
            "{line}"
        );
        if ["/proc", "/sys"].contains(&fields[4]) {
            assert!(fields[5].starts_with("rw,"), "{line}");
        }
    }
    // ENXIO or bytes: not shut by the mount, which would be EACCES.
    assert_ne!(field(&text, "read-some /tmp/loop:"), "13", "{text}");
    pod.destroy(LONG).unwrap();
}

pub(super) fn unmasked_proc(private: &PrivateMounts) {
    let pod = pod(private);
    let mut start = inside("cat /proc/self/mountinfo ; open-write /proc/sys/kernel/hostname");
    start.security.unmasked_proc = true;
    let (_, text) = run(&pod, start);
    let mut mounts = text.lines().filter(|line| line.contains(" - "));
    assert!(!mounts.any(|line| line.contains(" /proc/")), "{text}");
    has(&text, " /sys/");
    let answer = if in_user_namespace() { "13" } else { "ok" };
    has(
        &text,
        &format!("open-write /proc/sys/kernel/hostname: {answer}"),
    );
    pod.destroy(LONG).unwrap();
}

pub(super) fn seccomp_runtime_default(private: &PrivateMounts) {
    let pod = pod(private);
    for (no_new_privileges, uid) in [
        (false, None),
        (true, None),
        (false, Some(1000)),
        (true, Some(1000)),
    ] {
        let mut start =
            inside("cat /proc/self/status ; call unshare 0x10000000 ; hostname ; sleep");
        start.security.seccomp = Seccomp::RuntimeDefault;
        start.security.no_new_privileges = no_new_privileges;
        start.security.uid = uid;
        let (process, mut output) = crate::support::start(&pod, start);
        let text = read_until(&mut output, "hostname testpod");
        assert_eq!(field(&text, "Seccomp:"), "2");
        assert_eq!(field(&text, "Seccomp_filters:"), "1");
        assert_eq!(
            field(&text, "NoNewPrivs:"),
            if no_new_privileges { "1" } else { "0" }
        );
        let expected = if uid.is_some() { 0 } else { 0xa804_25fb };
        let effective = u64::from_str_radix(field(&text, "CapEff:"), 16).unwrap();
        assert_eq!(effective, expected);
        has(&text, "call unshare 0x10000000: 1\n");
        // A command in it too.
        let (_, text) = exec(
            &pod,
            &process,
            "cat /proc/self/status ; call unshare 0x10000000",
        );
        assert_eq!(field(&text, "Seccomp:"), "2");
        has(&text, "call unshare 0x10000000: 1\n");
    }
    // With CAP_SYS_ADMIN the profile lets through what it is for.
    let mut start = inside("call unshare 0x10000000 ; cat /proc/self/status");
    start.security.seccomp = Seccomp::RuntimeDefault;
    start.security.add_capabilities = vec!["SYS_ADMIN".into()];
    let (_, text) = run(&pod, start);
    has(&text, "call unshare 0x10000000: ok");
    assert_eq!(field(&text, "Seccomp:"), "2");
    pod.destroy(LONG).unwrap();
}

pub(super) fn seccomp_localhost(private: &PrivateMounts) {
    let dir = tempfile::tempdir().unwrap();
    let spec = SandboxSpec {
        seccomp_dir: dir.path().to_owned(),
        ..SandboxSpec::new("testpod")
    };
    let pod = PodSandbox::create(private, spec).unwrap();
    let profile = |text: &str| std::fs::write(dir.path().join("profile.json"), text).unwrap();
    let start = |words: &str| {
        let mut start = inside(words);
        start.security.seccomp = Seccomp::Localhost("profile.json".into());
        start
    };
    profile(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}]}"#,
    );
    has(&run(&pod, start("mkdir /tmp/x")).1, "mkdir /tmp/x: 122");
    // What kills kills the program and not the pod.
    profile(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#,
    );
    assert_eq!(
        run(&pod, start("mkdir /tmp/x")).0,
        ExitStatus::Signal(libc::SIGSYS)
    );
    // With no_new_privs nothing but execve is needed of the profile to get as far as the program.
    profile(
        r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ALLOW"}]}"#,
    );
    let mut bare = start("echo");
    bare.security.no_new_privileges = true;
    assert_eq!(run(&pod, bare).0, ExitStatus::Signal(libc::SIGSYS));
    // So it is for who is born among others that might trace it, but for the calls until then.
    let spec = SandboxSpec {
        share_process_namespace: true,
        seccomp_dir: dir.path().to_owned(),
        ..SandboxSpec::new("testpod")
    };
    let shared = PodSandbox::create(private, spec).unwrap();
    profile(
        r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"names":
            ["prctl", "capget", "capset", "sendmsg", "clone", "exit_group", "setsid", "execve"], "action": "SCMP_ACT_ALLOW"}]}"#,
    );
    assert_eq!(
        run(&shared, start("echo")).0,
        ExitStatus::Signal(libc::SIGSYS)
    );
    // A profile that lets nobody fork says so there, and only there.
    for (action, words) in [
        (
            "ERRNO",
            "fork (the seccomp profile must allow it): Operation not permitted",
        ),
        (
            "KILL_PROCESS",
            "the container could not be started: its seccomp profile killed the stage: it must allow prctl, capget, capset, sendmsg, \
             clone and exit_group",
        ),
    ] {
        profile(&format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["clone", "clone3", "fork", "vfork"], "action": "SCMP_ACT_{action}"}}]}}"#,
        ));
        assert_eq!(shared.start(&start("echo")).unwrap_err().to_string(), words);
        let mut bare = start("exit 5");
        bare.security.no_new_privileges = true;
        assert_eq!(run(&shared, bare).0.code(), 5);
        for (add, traceable) in [("NET_ADMIN", false), ("SYS_PTRACE", true)] {
            let mut start = start("sleep");
            start.security.add_capabilities = vec![add.into()];
            let (container, _output) = crate::support::start(&pod, start);
            let command = ExecSpec {
                argv: argv("exit 6"),
                stdio: Default::default(),
            };
            match pod.exec(&container, &command) {
                Ok(command) if !traceable => assert_eq!(finish(&command).code(), 6),
                Err(error) if traceable => assert_eq!(error.to_string(), words),
                other => panic!("{add}: {other:?}"),
            }
        }
    }
    shared.destroy(LONG).unwrap();
    let error = |text: &str| {
        profile(text);
        let error = pod.start(&start("echo")).unwrap_err();
        assert_eq!(error.waiting_reason(), Some("CreateContainerError"));
        assert!(matches!(error, StartError::Seccomp(_)));
        error.to_string()
    };
    has(&error("{}"), "missing field `defaultAction`");
    std::fs::remove_file(dir.path().join("profile.json")).unwrap();
    assert_eq!(
        pod.start(&start("echo")).unwrap_err().to_string(),
        format!(
            "failed to load seccomp profile {}/profile.json: No such file or directory (os error 2)",
            dir.path().display()
        )
    );
    pod.destroy(LONG).unwrap();
}

pub(super) fn sysctls_of_the_pod(private: &PrivateMounts) {
    let make = |sysctls: &[(&str, &str)]| {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let spec = SandboxSpec {
            sysctls: sysctls.iter().map(own).collect(),
            ..SandboxSpec::new("testpod")
        };
        PodSandbox::create(private, spec)
    };
    let machine = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap();
    let names = [
        "kernel/shm_rmid_forced",
        "kernel/msgmax",
        "kernel/sem",
        "fs/mqueue/msg_max",
        "net/ipv4/tcp_syncookies",
        "net/core/somaxconn",
    ];
    let before = names.map(machine);
    let pod = make(&[
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.msgmax", "4242"),
        ("kernel.sem", "1000 2000 30 40"),
        ("fs.mqueue.msg_max", "77"),
        ("net.ipv4.tcp_syncookies", "0"),
        ("net/core/somaxconn", "1234"),
    ])
    .unwrap();
    let words: Vec<String> = names.map(|name| format!("cat /proc/sys/{name}")).into();
    let (_, text) = run(&pod, inside(&words.join(" ; ")));
    assert_eq!(text, "1\n4242\n1000\t2000\t30\t40\n77\n0\n1234\n");
    assert_eq!(names.map(machine), before);
    // Containers may read them; the usual ones of a node are there.
    let (_, text) = run(
        &pod,
        inside(
            "write /proc/sys/net/core/somaxconn 1 ; cat /proc/sys/net/ipv4/ip_unprivileged_port_start ; cat /proc/sys/net/ipv4/ping_group_range",
        ),
    );
    has(&text, "write /proc/sys/net/core/somaxconn: 30");
    // Every group that there is.
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    let counts = map
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    let last: u64 = counts.map(|count| count.parse::<u64>().unwrap()).sum();
    let last = (last - 1).min(2_147_483_647);
    has(&text, &format!("\n0\n0\t{last}\n"));
    pod.destroy(LONG).unwrap();
    let error = |name: &str, value: &str| make(&[(name, value)]).unwrap_err().to_string();
    for name in [
        "kernel.hostname",
        "vm.overcommit_memory",
        "fs.file-max",
        "kernel.semaphore",
        "net",
    ] {
        assert_eq!(
            error(name, "1"),
            format!("the sysctl {name} is not the pod's own: it is the machine's")
        );
    }
    assert_eq!(
        error("net.core.none", "1"),
        "set the sysctl net.core.none to \"1\": No such file or directory"
    );
    assert_eq!(
        error("net.ipv4.tcp_syncookies", "many"),
        "set the sysctl net.ipv4.tcp_syncookies to \"many\": Invalid argument"
    );
    // A name can't lead out of /proc/sys, nor into what is the machine's.
    for name in [
        "net.//.kernel.hostname",
        "net/../kernel/hostname",
        "net//core/somaxconn",
    ] {
        assert!(make(&[(name, "owned")]).is_err(), "{name}");
    }
    assert_ne!(machine("kernel/hostname"), "owned\n");
}
