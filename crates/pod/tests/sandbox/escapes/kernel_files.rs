//! /proc and /sys: what tells of the machine is empty, what changes it is read-only, and neither can be undone.

use podkit_pod::sandbox::{PrivateMounts, in_user_namespace};

use crate::support::*;

/// What the kubelet has masked (Kubernetes 1.34, pkg/securitycontext: `defaultMaskedPaths`), a superset of containerd's.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// And read-only (`defaultReadonlyPaths`).
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

pub(crate) fn masked_files_are_empty(private: &PrivateMounts) {
    let pod = pod(private);
    let throttle = "/sys/devices/system/cpu/cpu0/thermal_throttle";
    // A file that the machine has, so that the test sees something (the others depend on its kernel).
    assert!(std::fs::read("/proc/interrupts").is_ok_and(|bytes| !bytes.is_empty()));
    for path in MASKED.into_iter().chain([throttle]) {
        let words = format!("read-some {path} ; ls {path} ; stat {path}");
        let (_, text) = run(&pod, inside(&words));
        let there = std::path::Path::new(path);
        if !there.exists() {
            has(&text, &format!("stat {path}: 2"));
        } else if there.is_dir() {
            has(&text, &format!("{path}: []"));
        } else {
            // It is a null device.
            has(&text, &format!("read-some {path}: ok 0"));
            has(&text, &format!("stat {path}: ok \"char 666 103\""));
        }
    }
    pod.destroy(LONG).unwrap();
}

/// Whatever this kernel has there: every file is opened for writing, by root.
pub(crate) fn nothing_of_proc_or_sys_can_be_written(private: &PrivateMounts) {
    let pod = pod(private);
    let (_, text) = run(&pod, inside("walk-write /proc ; walk-write /sys"));
    // What opens and yet does nothing without a capability that containers lack: said for each.
    let harmless = [
        // CAP_SYS_ADMIN, or nothing at all.
        "/proc/mtrr",
        // A trigger of one's own, which ends with the descriptor.
        "/proc/pressure/cpu",
        "/proc/pressure/io",
        "/proc/pressure/irq",
        "/proc/pressure/memory",
        // CAP_SYS_ADMIN (mm/slab_common.c: it has no write any more).
        "/proc/slabinfo",
        "/proc/swaps",
        // The null devices of the masks.
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
    ];
    let opened = field(&text, "walk-write /proc:");
    let opened: Vec<String> = serde_json::from_str(opened).unwrap();
    let bad: Vec<_> = opened
        .iter()
        .filter(|path| !harmless.contains(&path.as_str()))
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(field(&text, "walk-write /sys:"), "[]");
    // The control: the machine's own root opens them.
    let words = READ_ONLY
        .map(|path| format!("walk-write {path}"))
        .join(" ; ");
    let (_, text) = run(&pod, inside(&words));
    for path in READ_ONLY {
        if path != "/proc/sysrq-trigger" {
            assert_eq!(field(&text, &format!("walk-write {path}:")), "[]");
        }
    }
    for path in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"] {
        if std::path::Path::new(path).exists() {
            let open = std::fs::OpenOptions::new().write(true).open(path);
            assert!(open.is_ok() || in_user_namespace(), "{path}: {open:?}");
        }
    }
    pod.destroy(LONG).unwrap();
}

const REMOUNT_BIND: &str = "0x1020";

/// Taking the masks off, or making /proc/sys writable, by all ways that there are.
fn undo() -> String {
    let mut words: Vec<String> = Vec::new();
    for path in ["/proc/keys", "/proc/sys", "/sys/firmware", "/proc", "/sys"] {
        words.push(format!("call umount2 s:{path} 2"));
        words.push(format!("call mount s:none s:{path} s: {REMOUNT_BIND} 0"));
        // MOUNT_ATTR_RDONLY to be cleared.
        words.push(format!(
            "call mount_setattr -100 s:{path} 0 x:{}0100000000000000{} 32",
            "00".repeat(8),
            "00".repeat(16)
        ));
        // Moved away.
        words.push(format!("call mount s:{path} s:/tmp s: 8192 0"));
    }
    words.join(" ; ")
}

pub(crate) fn masks_stay_on(private: &PrivateMounts) {
    let pod = pod(private);
    let (_, text) = run(&pod, inside(&undo()));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 20, "{text}");
    for line in lines {
        assert!(line.ends_with(": 1"), "{text}");
    }
    pod.destroy(LONG).unwrap();
}

/// In a user namespace of its own everybody may mount; what came from outside is locked.
pub(crate) fn masks_stay_on_in_a_user_namespace(private: &PrivateMounts) {
    let pod = pod(private);
    // CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET.
    let words = format!(
        "call unshare 0x4a020000 ; {} ; call mount s:proc s:/tmp s:proc 0 0 ; call mount s:sysfs s:/tmp s:sysfs 0 0 ; \
         write /proc/sys/kernel/core_pattern x ; open-write /proc/sysrq-trigger ; \
         call mount s:none s:/tmp s:tmpfs 0 0 ; mknod /tmp/disk 254 0 ; read-some /dev/null ; \
         call mount s:/proc s:/var s: 4096 0",
        undo()
    );
    for uid in [None, Some(1000)] {
        let enter = format!("call unshare 0x10000000 ; map-root {} 0", uid.unwrap_or(0));
        let mut start = inside(&format!("{enter} ; {words}"));
        start.security.uid = uid;
        let (_, text) = run(&pod, start);
        if text.contains("call unshare 0x10000000: ")
            && !text.contains("call unshare 0x10000000: ok")
        {
            println!("  (no user namespaces here: not checked)");
            return;
        }
        // The attacker is root there: a tmpfs can be mounted. So the refusals below are not for want of a right.
        has(&text, "call mount s:none s:/tmp s:tmpfs 0 0: ok");
        has(&text, "map uid_map: ok");
        // All but clearing "read-only" where it is not set.
        for line in text.lines().filter(|line| {
            line.contains("umount2")
                || line.contains("mount_setattr") && !line.contains("s:/proc 0")
                || line.contains("8192")
        }) {
            assert!(
                line.ends_with(": 1") || line.ends_with(": 22"),
                "{line}\n{text}"
            );
        }
        for path in ["/proc/keys", "/proc/sys", "/sys/firmware"] {
            has(
                &text,
                &format!("call mount s:none s:{path} s: {REMOUNT_BIND} 0: 1"),
            );
        }
        // New ones would be without masks: "too revealing". A copy of /proc alone would show what the masks hide.
        has(&text, "call mount s:proc s:/tmp s:proc 0 0: 1");
        has(&text, "call mount s:sysfs s:/tmp s:sysfs 0 0: 1");
        has(&text, "call mount s:/proc s:/var s: 4096 0: 22");
        let sysctl = field(&text, "write /proc/sys/kernel/core_pattern:");
        assert!(["13", "30"].contains(&sysctl), "{text}");
        if std::path::Path::new("/proc/sysrq-trigger").exists() {
            has(&text, "open-write /proc/sysrq-trigger: 30");
        }
        has(&text, "mknod /tmp/disk: 1");
    }
    pod.destroy(LONG).unwrap();
}
