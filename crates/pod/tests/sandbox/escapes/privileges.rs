//! Programs that would give their caller more than it has: set-user-id, file capabilities.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use podkit_pod::sandbox::{ContainerStart, PrivateMounts};

use super::images::Images;
use crate::support::*;

/// `struct vfs_cap_data`, version 2: these capabilities permitted, and effective at once. (capabilities(7))
fn file_capabilities(bits: u32) -> Vec<u8> {
    let words = [0x0200_0001, bits, 0, 0, 0];
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

pub(crate) fn programs_give_no_privilege_where_that_is_forbidden(private: &PrivateMounts) {
    let (_dir, root) = Images::new().make(|lower| {
        for name in ["suid", "net-raw", "sys-admin"] {
            std::fs::copy(lower.join("podkit"), lower.join(name)).unwrap();
        }
        let mode = std::fs::Permissions::from_mode(0o4755);
        std::fs::set_permissions(lower.join("suid"), mode).unwrap();
        for (name, bits) in [("net-raw", 1 << 13), ("sys-admin", 1 << 21)] {
            let value = file_capabilities(bits);
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(lower.join(name), "security.capability", &value, flags).unwrap();
        }
    });
    let pod = pod(private);
    let attack = |program: &str, no_new_privileges: bool| {
        let mut start = ContainerStart::new(root.clone(), argv(&format!("execute /{program}")));
        start.security.uid = Some(1000);
        start.security.no_new_privileges = no_new_privileges;
        run(&pod, start).1
    };
    let none = "0000000000000000";
    for program in ["suid", "net-raw"] {
        let text = attack(program, true);
        assert_eq!(field(&text, "Uid:"), "1000\t1000\t1000\t1000");
        assert_eq!(field(&text, "CapEff:"), none);
        assert_eq!(field(&text, "CapPrm:"), none);
        assert_eq!(field(&text, "NoNewPrivs:"), "1");
    }
    // The control: allowed, they do what they are made for, within the container's bounding set.
    let text = attack("suid", false);
    assert_eq!(field(&text, "Uid:"), "1000\t0\t0\t0");
    assert_eq!(field(&text, "CapEff:"), "00000000a80425fb");
    assert_eq!(
        field(&attack("net-raw", false), "CapEff:"),
        "0000000000002000"
    );
    // A capability that the container can't have: it is not executed.
    has(&attack("sys-admin", false), "execute /sys-admin: 1");
    pod.destroy(LONG).unwrap();
}

/// With CAP_SYS_ADMIN a container may make every mount that it has writable: that of podkit's binary must not be the machine's file.
pub(crate) fn who_may_mount_has_a_binary_of_its_own(private: &PrivateMounts) {
    let pod = pod(private);
    let exe = std::env::current_exe().unwrap();
    let look = || {
        let metadata = exe.metadata().unwrap();
        let times = (
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        (metadata.mode(), metadata.uid(), metadata.size(), times)
    };
    let before = look();
    // MS_REMOUNT | MS_BIND without MS_RDONLY; then a mode with set-user-id (04777), and another owner.
    let words = "call mount s:none s:/podkit s: 4128 0 ; call fchmodat -100 s:/podkit 0x9ff ; call fchownat -100 s:/podkit 0 0 0";
    let attack = |capability: &str| {
        let mut start = inside(words);
        start.security.add_capabilities = vec![capability.into()];
        run(&pod, start).1
    };
    let text = attack("SYS_ADMIN");
    // It may do so, to what is its own.
    has(&text, "call fchmodat -100 s:/podkit 0x9ff: ok");
    assert_eq!(look(), before);
    // The control: without it the file is the machine's, and shut.
    let text = attack("SYS_PTRACE");
    has(&text, "call mount s:none s:/podkit s: 4128 0: 1");
    has(&text, "call fchmodat -100 s:/podkit 0x9ff: 30");
    has(&text, "call fchownat -100 s:/podkit 0 0 0: 30");
    assert_eq!(look(), before);
    pod.destroy(LONG).unwrap();
}
