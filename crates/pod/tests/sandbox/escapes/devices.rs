//! The machine's devices. That nodes open nothing on a container's mounts is shown by `devices`; here the attacker may mount.

use podkit_pod::cgroup::{Cgroups, ContainerCgroup, PodCgroup};
use podkit_pod::plan::{PodPlan, Resources};
use podkit_pod::sandbox::PrivateMounts;

use crate::support::*;

/// A pod's group with one container's. `then` is told both, and they are removed.
fn in_group(name: &str, then: impl FnOnce(&PodCgroup, &mut ContainerCgroup)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let name = format!("sandbox-{name}-{}", std::process::id());
    let group = runtime.block_on(Cgroups::detect().pod(&PodPlan::new(&name, Vec::new())));
    let (mut container, _) = group.container("app", &Resources::default());
    then(&group, &mut container);
    runtime.block_on(group.remove()).unwrap();
}

/// Who has CAP_SYS_ADMIN mounts a file system where nodes mean something.
pub(crate) fn devices_are_shut_by_the_cgroup_too(private: &PrivateMounts) {
    let pod = pod(private);
    // kmsg, null, zero, and /dev/mem, which needs another capability anyway.
    let words = "call mount s:none s:/tmp s:tmpfs 0 0 ; call mknodat -100 s:/tmp/kmsg 0x21b6 267 ; \
                 call mknodat -100 s:/tmp/null 0x21b6 259 ; call mknodat -100 s:/tmp/zero 0x21b6 261 ; \
                 mknod /tmp/disk 254 0 ; open-write /tmp/kmsg ; write /tmp/null x ; read-some /tmp/zero ; \
                 read-some /tmp/disk ; read-some /dev/random ; open-write /dev/ptmx ; read-some /dev/tty";
    let attack = |cgroups| {
        let mut start = inside(words);
        start.security.add_capabilities = vec!["SYS_ADMIN".into()];
        start.cgroups = cgroups;
        let text = run(&pod, start).1;
        for made in [
            "tmpfs 0 0",
            "kmsg 0x21b6 267",
            "null 0x21b6 259",
            "zero 0x21b6 261",
        ] {
            has(&text, &format!("{made}: ok"));
        }
        has(&text, "mknod /tmp/disk: ok");
        text
    };
    in_group("devices", |group, container| {
        // The control: without the guard it opens.
        let text = attack(container.procs_files());
        has(&text, "open-write /tmp/kmsg: ok");
        let began = std::time::Instant::now();
        if let Err(why) = group.guard_devices(container, "app") {
            println!("  (no device guard here, {why}: not checked)");
            return;
        }
        let first = began.elapsed();
        group.guard_devices(container, "app").unwrap();
        println!(
            "  device guard: {first:?} the first, {:?} the next",
            began.elapsed() - first
        );
        for _again in 0..2 {
            let text = attack(container.procs_files());
            has(&text, "open-write /tmp/kmsg: 1");
            has(&text, "read-some /tmp/disk: 1");
            // Those of every container stay open; /dev/tty has no terminal (ENXIO).
            has(&text, "write /tmp/null: ok");
            has(&text, "read-some /tmp/zero: ok 16");
            has(&text, "read-some /dev/random: ok 16");
            has(&text, "open-write /dev/ptmx: ok");
            has(&text, "read-some /dev/tty: 6");
            // A restart sets it again.
            group.guard_devices(container, "app").unwrap();
        }
        // Nor is there a way round it: a group of its own below, in whichever hierarchy can be mounted.
        let mut start = inside(
            "call mount s:none s:/tmp s:cgroup 0 s:devices ; write /tmp/devices.allow a ; \
             call mount s:none s:/var s:tmpfs 0 0 ; call mknodat -100 s:/var/kmsg 0x21b6 267 ; open-write /var/kmsg",
        );
        start.security.add_capabilities = vec!["SYS_ADMIN".into()];
        start.cgroups = container.procs_files();
        has(&run(&pod, start).1, "open-write /var/kmsg: 1");
    });
    pod.destroy(LONG).unwrap();
}

pub(crate) fn forks_are_bounded(private: &PrivateMounts) {
    let pod = pod(private);
    in_group("forks", |_, container| {
        let files: Vec<_> = container
            .dirs()
            .filter_map(|dir| Some(dir.parent()?.join("pids.max")))
            .filter(|file| file.exists())
            .collect();
        let [file] = files.as_slice() else {
            println!("  (no pids controller here: not checked)");
            return;
        };
        let number = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap();
            text.trim().parse::<u64>().unwrap()
        };
        let machine =
            number("/proc/sys/kernel/pid_max").min(number("/proc/sys/kernel/threads-max"));
        assert_eq!(number(file.to_str().unwrap()), machine / 2);
        // The same with a number that the test can afford.
        std::fs::write(file, "20").unwrap();
        let mut start = inside("fork-bomb 100");
        start.cgroups = container.procs_files();
        let (_, text) = run(&pod, start);
        assert_eq!(field(&text, "fork-bomb:"), "19 Some(11)");
    });
    pod.destroy(LONG).unwrap();
}
