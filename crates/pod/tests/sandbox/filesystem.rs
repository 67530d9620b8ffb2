//! Roots, devices, masks, volumes.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use podkit_pod::image::Root;
use podkit_pod::sandbox::{
    ContainerStart, ExitStatus, Mount, PodSandbox, PrivateMounts, SandboxSpec, in_user_namespace,
};

use crate::support::*;

pub(super) fn root_of_podkit_itself(private: &PrivateMounts) {
    let pod = pod(private);
    let (_, text) = run(
        &pod,
        inside(
            "ls / ; stat /tmp ; stat /podkit ; write /tmp/x 1 ; write /x 1 ; cat /proc/self/mountinfo",
        ),
    );
    has(
        &text,
        r#"/: ["dev", "etc", "podkit", "proc", "root", "run", "sys", "tmp", "var"]"#,
    );
    has(&text, r#"stat /tmp: ok "dir 1777 0""#);
    has(&text, "write /tmp/x: ok");
    has(&text, "write /x: ok");
    // No mount of the host is left but those that are shown.
    let host = std::env::current_exe().unwrap();
    let mounts: Vec<&str> = text.lines().filter(|line| line.contains(" - ")).collect();
    assert!(
        mounts
            .iter()
            .filter(|line| line.contains("/podkit "))
            .count()
            == 1,
        "{text}"
    );
    assert!(
        mounts
            .iter()
            .all(|line| !line.contains("shared:") && !line.contains("master:")),
        "{text}"
    );
    assert!(
        mounts.len() < 35,
        "{}\n{text} {}",
        mounts.len(),
        host.display()
    );
    pod.destroy(LONG).unwrap();
}

pub(super) fn binary_can_not_be_written(private: &PrivateMounts) {
    let pod = shared_pod(private);
    let exe = std::env::current_exe().unwrap();
    let before = exe.metadata().unwrap();
    // Another container's link to its program, one's own, and the file itself; by root with every capability that does not
    // own the machine anyway.
    let (sleeper, _) = start(&pod, inside("sleep"));
    let other = sleeper.pid_in_pod().unwrap();
    let mut start = inside(&format!(
        "open-write /podkit ; write /podkit x ; open-write /proc/self/exe ; write /proc/self/exe x ; open-write /proc/{other}/exe ; write /proc/{other}/exe x ; write /proc/{other}/root/podkit x"
    ));
    start.security.add_capabilities = vec!["SYS_PTRACE".into(), "DAC_READ_SEARCH".into()];
    let (_, text) = run(&pod, start);
    // EROFS, or before that ETXTBSY since it runs, or EACCES since it is root's; cutting it off as well meets the mount first.
    for place in [
        "/podkit".to_owned(),
        "/proc/self/exe".into(),
        format!("/proc/{other}/exe"),
    ] {
        let answer = field(&text, &format!("open-write {place}:"));
        assert!(["13", "26", "30"].contains(&answer), "{text}");
        has(&text, &format!("\nwrite {place}: 30"));
    }
    has(&text, &format!("write /proc/{other}/root/podkit: 30"));
    let after = exe.metadata().unwrap();
    assert_eq!(
        (before.size(), before.mtime_nsec()),
        (after.size(), after.mtime_nsec())
    );
    pod.destroy(LONG).unwrap();
}

pub(super) fn read_only_root(private: &PrivateMounts) {
    let volume = tempfile::tempdir().unwrap();
    let pod = pod(private);
    let mut start = inside(
        "write /x 1 ; write /tmp/x 1 ; write /data/x 1 ; write /dev/shm/x 1 ; write /dev/null x",
    );
    start.security.read_only_root = true;
    start.mounts = vec![Mount::path(volume.path(), "/data")];
    let (_, text) = run(&pod, start);
    for line in [
        "write /x: 30",
        "write /tmp/x: 30",
        "write /data/x: ok",
        "write /dev/shm/x: ok",
        "write /dev/null: ok",
    ] {
        has(&text, line);
    }
    pod.destroy(LONG).unwrap();
}

pub(super) fn devices(private: &PrivateMounts) {
    let pod = pod(private);
    let mut start = inside(
        "read-some /dev/null ; read-some /dev/zero ; read-some /dev/urandom ; write /dev/full x ; stat /dev/tty ; ls /dev ; link /dev/ptmx ; link /dev/stdout ; stat /dev/pts/ptmx ; open-write /dev/ptmx",
    );
    start.argv.extend(argv("; mknod /tmp/disk 254 0 ; read-some /tmp/disk ; mknod /dev/disk 254 0 ; read-some /dev/disk ; mknod /dev/shm/disk 254 0 ; read-some /dev/shm/disk").into_iter().skip(2));
    let (status, text) = run(&pod, start);
    assert_eq!(status, ExitStatus::Code(0), "{text}");
    has(&text, "read-some /dev/null: ok 0");
    has(&text, "read-some /dev/zero: ok 16");
    has(&text, "read-some /dev/urandom: ok 16");
    has(&text, "write /dev/full: 28");
    has(&text, r#"stat /dev/tty: ok "char 666 500""#);
    has(
        &text,
        r#"/dev: ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"]"#,
    );
    has(&text, r#"/dev/ptmx -> Ok("pts/ptmx")"#);
    has(&text, r#"/dev/stdout -> Ok("/proc/self/fd/1")"#);
    has(&text, r#"stat /dev/pts/ptmx: ok "char 666 502""#);
    has(&text, "open-write /dev/ptmx: ok");
    // Root may make a node of the machine's disk, and it opens nothing; root of a user namespace may not.
    let (made, opened) = match in_user_namespace() {
        false => ("ok", 13),
        true => ("1", 2),
    };
    for place in ["/tmp", "/dev", "/dev/shm"] {
        has(&text, &format!("mknod {place}/disk: {made}"));
        has(&text, &format!("read-some {place}/disk: {opened}"));
    }
    pod.destroy(LONG).unwrap();
}

pub(super) fn proc_is_masked_and_read_only(private: &PrivateMounts) {
    let pod = pod(private);
    let (_, text) = run(
        &pod,
        inside(
            "cat /proc/kcore ; cat /proc/keys ; cat /proc/timer_list ; ls /proc/acpi ; ls /proc/scsi ; ls /sys/firmware ; write /proc/sys/kernel/panic 0 ; write /proc/sysrq-trigger h ; write /sys/kernel/profiling 0 ; echo end",
        ),
    );
    // Masked files are empty (they print nothing) or not there at all on this kernel.
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.ends_with(": 2") && *line != "write /proc/sysrq-trigger: 30")
        .collect();
    assert_eq!(
        lines,
        [
            "/proc/acpi: []",
            "/proc/scsi: []",
            "/sys/firmware: []",
            "write /proc/sys/kernel/panic: 30",
            "write /sys/kernel/profiling: 30",
            "end"
        ]
    );
    pod.destroy(LONG).unwrap();
}

pub(super) fn shared_memory_and_queues_are_shared(private: &PrivateMounts) {
    let spec = SandboxSpec {
        shm_bytes: 1 << 20,
        ..SandboxSpec::new("testpod")
    };
    let (pod, other) = (PodSandbox::create(private, spec).unwrap(), pod(private));
    let (_, text) = run(
        &pod,
        inside("write /dev/shm/note hello ; write /dev/mqueue/q 1"),
    );
    has(&text, "write /dev/shm/note: ok");
    let (_, text) = run(
        &pod,
        inside("cat /dev/shm/note ; echo ; ls /dev/mqueue ; cat /proc/self/mountinfo"),
    );
    has(&text, "hello\n");
    has(&text, r#"/dev/mqueue: ["q"]"#);
    assert!(
        text.lines()
            .any(|line| line.contains(" /dev/shm ") && line.contains("size=1024k")),
        "{text}"
    );
    let (_, text) = run(&other, inside("ls /dev/shm ; ls /dev/mqueue"));
    assert_eq!(text, "/dev/shm: []\n/dev/mqueue: []\n");
    pod.destroy(LONG).unwrap();
    other.destroy(LONG).unwrap();
}

pub(super) fn network_and_hostname(private: &PrivateMounts) {
    let (pod, other) = (pod(private), pod(private));
    let namespaces = |pod: &PodSandbox| {
        let (_, text) = run(
            pod,
            inside(
                "link /proc/self/ns/net ; link /proc/self/ns/ipc ; link /proc/self/ns/uts ; cat /proc/net/dev",
            ),
        );
        let names = ["net", "ipc", "uts"]
            .map(|name| field(&text, &format!("/proc/self/ns/{name} -> ")).to_owned());
        assert!(text.contains("lo:") && !text.contains("eth0"), "{text}");
        names
    };
    let (first, second) = (namespaces(&pod), namespaces(&pod));
    assert_eq!(first, second);
    for (ours, others) in first.iter().zip(namespaces(&other)) {
        assert_ne!(*ours, others);
    }
    let file = std::fs::File::from(pod.netns_fd().unwrap());
    assert_eq!(
        first[0],
        format!("Ok(\"net:[{}]\")", file.metadata().unwrap().ino())
    );
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!first[0].contains(host.to_str().unwrap()));

    let named = PodSandbox::create(private, SandboxSpec::new("web-0")).unwrap();
    assert_eq!(run(&named, inside("hostname")).1, "hostname web-0\n");
    assert!(PodSandbox::create(private, SandboxSpec::new("x".repeat(65))).is_err());
    for pod in [pod, other, named] {
        pod.destroy(LONG).unwrap();
    }
}

pub(super) fn volumes(private: &PrivateMounts) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["data", "ro", "ro/below", "nested"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    std::fs::write(path("hosts"), "127.0.0.1 pod\n").unwrap();
    std::fs::write(path("sub"), "by descriptor").unwrap();
    // A mount below the read-only volume must be read-only too.
    rustix::mount::mount_bind(path("data"), path("ro/below")).unwrap();
    let sub = std::fs::File::open(path("sub")).unwrap();
    let pod = pod(private);
    let mut container = inside(
        "write /data/deep/x 1 ; write /data/deep/nested/y 1 ; write /ro/x 1 ; write /ro/below/x 1 ; cat /etc/hosts ; write /etc/hosts x ; cat /srv/a/file",
    );
    container.mounts = vec![
        // The child before its parent: order does not matter.
        Mount::path(path("nested"), "/data/deep/nested"),
        Mount::path(path("data"), "/data/deep"),
        Mount::path(path("ro"), "/ro")
            .read_only(true)
            .recursive_read_only(true),
        Mount::path(path("hosts"), "/etc/hosts").read_only(true),
        Mount::fd(sub.into(), "/srv/a/file"),
    ];
    let (_, text) = run(&pod, container);
    for line in [
        "write /data/deep/x: ok",
        "write /data/deep/nested/y: ok",
        "write /ro/x: 30",
        "write /ro/below/x: 30",
        "127.0.0.1 pod",
        "write /etc/hosts: 30",
        "by descriptor",
    ] {
        has(&text, line);
    }
    assert_eq!(std::fs::read_to_string(path("data/x")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(path("nested/y")).unwrap(), "1");
    rustix::mount::unmount(path("ro/below"), rustix::mount::UnmountFlags::empty()).unwrap();
    pod.destroy(LONG).unwrap();
}

pub(super) fn volume_that_can_not_be_mounted(private: &PrivateMounts) {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(private);
    let error = |mount: Mount| {
        let mut start = inside("echo");
        start.mounts = vec![mount];
        pod.start(&start).unwrap_err().to_string()
    };
    let gone = dir.path().join("gone");
    assert_eq!(
        error(Mount::path(&gone, "/data")),
        format!(
            "mount /data: open {}: No such file or directory",
            gone.display()
        )
    );
    assert_eq!(
        error(Mount::path(dir.path(), "/podkit")),
        "mount /podkit: Not a directory"
    );
    assert_eq!(
        error(Mount::path(dir.path(), "data")),
        "the mount path data must be absolute"
    );
    assert_eq!(
        error(Mount::path(dir.path(), "/proc/sys/kernel")),
        "mount /proc/sys/kernel: nothing may be mounted in /proc: Operation not permitted"
    );
    let mut start = inside("echo started");
    start.mounts = vec![Mount::path(dir.path(), "/proc/new").optional()];
    let (output, stdio) = captured();
    start.stdio = stdio;
    let process = pod.start(&start).unwrap();
    drop((start, output));
    assert_eq!(
        process.warnings(),
        ["/proc/new is not mounted: No such file or directory"]
    );
    pod.destroy(LONG).unwrap();
}

/// A root file system of a directory, with the test program as /podkit.
fn rootfs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let lower = dir.path().join("a:b,c");
    std::fs::create_dir(&lower).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), lower.join("podkit")).unwrap();
    std::fs::write(lower.join("file"), "of the image").unwrap();
    dir
}

fn overlay(dir: &tempfile::TempDir) -> Root {
    let source = podkit_pod::plan::ImageSource::Rootfs(dir.path().join("a:b,c"));
    let mut plan = podkit_pod::plan::ContainerPlan::new("app", source);
    plan.command = vec!["/podkit".into()];
    podkit_pod::image::resolve(&plan, &dir.path().join("scratch"), None)
        .unwrap()
        .root
}

pub(super) fn links_do_not_lead_out(private: &PrivateMounts) {
    let dir = rootfs();
    let lower = dir.path().join("a:b,c");
    let outside = dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    symlink(&outside, lower.join("absolute")).unwrap();
    symlink("../../../../../../..", lower.join("up")).unwrap();
    symlink("../run/resolve/stub.conf", lower.join("dangling")).unwrap();
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("x"), "of the volume").unwrap();
    let pod = pod(private);
    let mut start = ContainerStart::new(
        overlay(&dir),
        argv(&format!(
            "cat {0}/in/x ; echo ; cat /up2/x ; echo ; cat /run/resolve/stub.conf",
            outside.display()
        )),
    );
    start.mounts = vec![
        Mount::path(volume.path(), "/absolute/in"),
        Mount::path(volume.path(), "/up/up2"),
        Mount::path(volume.path().join("x"), "/dangling"),
    ];
    let (status, text) = run(&pod, start);
    assert_eq!(
        (status, text.as_str()),
        (
            ExitStatus::Code(0),
            "of the volume\nof the volume\nof the volume"
        )
    );
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    pod.destroy(LONG).unwrap();
}

pub(super) fn host_image(private: &PrivateMounts) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("conf"), "of the volume").unwrap();
    let secret = format!("/var/tmp/podkit-sandbox-host-{}", std::process::id());
    std::fs::write(&secret, "secret").unwrap();
    let pod = pod(private);
    let script = "ls -d /usr /bin /etc/passwd /home /root/.* \"$0\" 2>&1; touch /usr/x /etc/x 2>&1; touch /tmp/x /run/x /var/tmp/x /var/log/x && echo private; cat /etc/podkit-new/dir/conf; touch /etc/y 2>&1; cat /etc/hostname";
    let argv = ["sh", "-c", script, &secret].map(str::to_owned).into();
    let mut start = ContainerStart::new(Root::Host, argv);
    std::fs::write(dir.path().join("hostname"), "named").unwrap();
    start.mounts = vec![
        Mount::path(dir.path(), "/etc/podkit-new/dir"),
        Mount::path(dir.path().join("hostname"), "/etc/hostname"),
    ];
    let (_, text) = run(&pod, start);
    has(&text, "/etc/passwd");
    has(&text, "'/home': No such file");
    has(&text, &format!("'{secret}': No such file"));
    has(&text, "'/usr/x': Read-only file system");
    has(&text, "'/etc/x': Read-only file system");
    has(&text, "private\nof the volume");
    has(&text, "named");
    assert!(!std::path::Path::new("/etc/podkit-new").exists());
    std::fs::remove_file(&secret).unwrap();

    // A plain one, without a layer: a target that is not there is said, and optional ones are passed over.
    let argv = || {
        ["sh", "-c", "touch /etc/x 2>&1; id -u"]
            .map(str::to_owned)
            .into()
    };
    let (_, text) = run(&pod, ContainerStart::new(Root::Host, argv()));
    has(&text, "'/etc/x': Read-only file system");
    has(&text, "\n0\n");
    pod.destroy(LONG).unwrap();
}

pub(super) fn rootfs_image(private: &PrivateMounts) {
    let dir = rootfs();
    let pod = pod(private);
    let words = "cat /file ; echo ; write /file changed ; cat /file ; echo ; write /new/ x ; ls / ; mknod /disk 254 0 ; read-some /disk";
    let (status, text) = run(&pod, ContainerStart::new(overlay(&dir), argv(words)));
    assert_eq!(status, ExitStatus::Code(0), "{text}");
    has(&text, "of the image\nwrite /file: ok ()\nchanged");
    has(&text, r#"/: ["dev", "file", "podkit", "proc", "sys"]"#);
    let opened = if in_user_namespace() { 2 } else { 13 };
    has(&text, &format!("read-some /disk: {opened}"));
    assert_eq!(
        std::fs::read_to_string(dir.path().join("a:b,c/file")).unwrap(),
        "of the image"
    );
    // A new start begins with the image again.
    let (_, text) = run(&pod, ContainerStart::new(overlay(&dir), argv("cat /file")));
    assert_eq!(text, "of the image");
    let mut start = ContainerStart::new(overlay(&dir), argv("write /file changed ; write /new x"));
    start.security.read_only_root = true;
    assert_eq!(run(&pod, start).1, "write /file: 30\nwrite /new: 30\n");
    pod.destroy(LONG).unwrap();
}

/// More layers than a text of 255 bytes could name; and the image's user.
pub(super) fn layered_image(private: &PrivateMounts) {
    let dir = rootfs();
    let mut lowers = Vec::new();
    for number in 0..100 {
        let layer = dir.path().join(format!("layer {number}"));
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(layer.join("which"), number.to_string()).unwrap();
        lowers.push(layer);
    }
    let Root::Overlay {
        lowers: base,
        upper,
        work,
        user_xattrs,
    } = overlay(&dir)
    else {
        panic!("not an overlay")
    };
    lowers.extend(base);
    std::fs::create_dir(dir.path().join("layer 7/etc")).unwrap();
    let passwd = "root:x:0:0::/:/\nweb:x:33:34:web:/srv:/bin/sh\n";
    std::fs::write(dir.path().join("layer 7/etc/passwd"), passwd).unwrap();
    let root = Root::Overlay {
        lowers,
        upper,
        work,
        user_xattrs,
    };
    let pod = pod(private);
    let mut start = ContainerStart::new(
        root.clone(),
        argv("cat /which ; cat /file ; cat /proc/self/status"),
    );
    start.image_user = Some("web:games".into());
    let (_, text) = run(&pod, start);
    has(&text, "0of the image");
    has(&text, "Uid:\t33\t33\t33\t33");
    has(&text, "Gid:\t34\t34\t34\t34");
    let mut start = ContainerStart::new(root, argv("pid"));
    start.image_user = Some("nobody-there".into());
    let error = pod.start(&start).unwrap_err().to_string();
    has(&error, "the image's user \"nobody-there\"");
    pod.destroy(LONG).unwrap();
}

pub(super) fn working_directory_stays_inside(private: &PrivateMounts) {
    let pod = pod(private);
    for number in 3..20 {
        let mut start = inside("cwd");
        start.cwd = Some(format!("/proc/self/fd/{number}").into());
        let error = pod.start(&start).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!(
                "change to the working directory /proc/self/fd/{number}: "
            )),
            "{error}"
        );
    }
    pod.destroy(LONG).unwrap();
}
