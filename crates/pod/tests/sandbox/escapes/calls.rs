//! System calls that change the machine. Each is tried with arguments that can never succeed, so that only the answer tells
//! whether the caller would have been allowed: `EPERM` without the capability, something else with it (the control).

use podkit_pod::sandbox::{PrivateMounts, in_user_namespace};

use crate::support::*;

/// The call, the capability that it needs, and the answer when that is there: none where trying it could do harm.
const CALLS: &[(&str, &str, Option<&str>)] = &[
    ("mount s:none s:/tmp s:tmpfs 0 0", "SYS_ADMIN", Some("ok 0")),
    ("umount2 s:/ 0", "SYS_ADMIN", None),
    ("fsopen s:none 0", "SYS_ADMIN", Some("19")),
    ("open_tree -100 s:/none 1", "SYS_ADMIN", Some("2")),
    ("move_mount -1 s: -100 s:/none 4", "SYS_ADMIN", Some("2")),
    ("mount_setattr -100 s:/none 0 z:32 32", "SYS_ADMIN", None),
    ("pivot_root s:/none s:/none", "SYS_ADMIN", Some("2")),
    ("unshare 0x20000", "SYS_ADMIN", Some("ok 0")),
    ("unshare 0x4000000", "SYS_ADMIN", Some("ok 0")),
    ("sethostname z:1 65", "SYS_ADMIN", Some("22")),
    ("setdomainname z:1 65", "SYS_ADMIN", Some("22")),
    ("swapon s:/none 0", "SYS_ADMIN", Some("2")),
    ("swapoff s:/none", "SYS_ADMIN", Some("2")),
    ("acct s:/none", "SYS_PACCT", Some("2")),
    ("init_module 0 0 s:", "SYS_MODULE", None),
    ("finit_module -1 s: 0", "SYS_MODULE", None),
    ("delete_module s: 0", "SYS_MODULE", None),
    ("kexec_load 0 9999 0 0", "SYS_BOOT", None),
    ("reboot 0 0 0 0", "SYS_BOOT", Some("22")),
    ("settimeofday 0 0", "SYS_TIME", Some("ok 0")),
    ("syslog 10 0 0", "SYSLOG", None),
    (
        "open_by_handle_at -100 x:08000000010000000000000000000000 0",
        "DAC_READ_SEARCH",
        Some("116"),
    ),
    ("fanotify_init 8 0", "SYS_ADMIN", None),
    ("vhangup", "SYS_TTY_CONFIG", Some("ok 0")),
    #[cfg(target_arch = "x86_64")]
    ("iopl 3", "SYS_RAWIO", None),
];

pub(crate) fn calls_that_own_the_machine(private: &PrivateMounts) {
    let pod = pod(private);
    let all: Vec<String> = CALLS
        .iter()
        .map(|(call, ..)| format!("call {call}"))
        .collect();
    for uid in [None, Some(1000)] {
        let mut start = inside(&all.join(" ; "));
        start.security.uid = uid;
        let (_, text) = run(&pod, start);
        for (call, capability, _) in CALLS {
            let answer = field(&text, &format!("call {call}:"));
            // 38: this kernel lacks the call.
            assert!(
                ["1", "38"].contains(&answer),
                "{call} ({capability})\n{text}"
            );
        }
    }
    // The control, each on its own: what one does must not be in the way of another.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = u64::from_str_radix(field(&own, "CapEff:"), 16).unwrap();
    for (call, capability, answer) in CALLS {
        let Some(answer) = answer else { continue };
        let bit =
            podkit_pod::sandbox::effective_set(&[(*capability).to_owned()], &["ALL".to_owned()]);
        if own & bit.unwrap() == 0 {
            continue;
        }
        let mut start = inside(&format!("call {call}"));
        start.security.add_capabilities = vec![(*capability).to_owned()];
        let (_, text) = run(&pod, start);
        let got = field(&text, &format!("call {call}:"));
        // In a user namespace a capability owns nothing of the machine.
        let harmless = in_user_namespace() && got == "1";
        assert!(got == *answer || harmless, "{call}: {got}");
    }
    pod.destroy(LONG).unwrap();
}

pub(crate) fn raw_sockets_need_their_capability(private: &PrivateMounts) {
    let pod = pod(private);
    // AF_INET and AF_INET6 SOCK_RAW, AF_PACKET.
    let words = "call socket 2 3 1 ; call socket 10 3 58 ; call socket 17 3 768";
    let answers = |drop: &[&str], uid: Option<u32>| {
        let mut start = inside(words);
        start.security.drop_capabilities = drop.iter().map(ToString::to_string).collect();
        start.security.uid = uid;
        let (_, text) = run(&pod, start);
        words
            .split(" ; ")
            .map(|call| field(&text, &format!("{call}:")).starts_with("ok"))
            .collect::<Vec<_>>()
    };
    assert_eq!(answers(&[], None), [true; 3]);
    assert_eq!(answers(&["NET_RAW"], None), [false; 3]);
    assert_eq!(answers(&["ALL"], None), [false; 3]);
    assert_eq!(answers(&[], Some(1000)), [false; 3]);
    pod.destroy(LONG).unwrap();
}

pub(crate) fn interfaces_can_not_be_changed(private: &PrivateMounts) {
    let pod = pod(private);
    // SIOCSIFFLAGS on lo (struct ifreq): up.
    let request = format!("{:0<32}0100{}", "6c6f", "00".repeat(22));
    // RTM_NEWLINK and RTM_NEWADDR would need an answer to be read; the ioctl asks for the same capability.
    let words = format!("call socket 2 2 0 ; call ioctl 3 0x8914 x:{request}");
    let answer = |add: &[&str]| {
        let mut start = inside(&words);
        start.security.add_capabilities = add.iter().map(ToString::to_string).collect();
        let (_, text) = run(&pod, start);
        field(&text, &format!("call ioctl 3 0x8914 x:{request}:")).to_owned()
    };
    assert_eq!(answer(&[]), "1");
    assert_eq!(answer(&["NET_ADMIN"]), "ok 0");
    pod.destroy(LONG).unwrap();
}

/// CAP_SYS_CHROOT is a default one, and with it one leaves every chroot; a container's root is that of its namespace.
pub(crate) fn chroot_leads_nowhere(private: &PrivateMounts) {
    let pod = pod(private);
    let up = "s:../../../../../../../../..";
    let words = format!(
        "call openat -100 s:/ 0x10000 ; call chroot s:/tmp ; call fchdir 3 ; call chroot {up} ; ls / ; stat /podkit"
    );
    let (_, text) = run(&pod, inside(&words));
    has(&text, "call chroot s:/tmp: ok 0");
    has(&text, "call fchdir 3: ok 0");
    has(&text, &format!("call chroot {up}: ok 0"));
    has(
        &text,
        r#"/: ["dev", "etc", "podkit", "proc", "root", "run", "sys", "tmp", "var"]"#,
    );
    pod.destroy(LONG).unwrap();
}
