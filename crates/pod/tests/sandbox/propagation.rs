//! `mountPropagation` and `recursiveReadOnly`, on a machine whose mounts are this test's own: a mount namespace that is made for
//! the purpose, in which the test starts itself anew.

use std::path::Path;
use std::process::{Command, ExitCode};

use podkit_pod::plan::Propagation;
use podkit_pod::sandbox::{Mount, PrivateMounts, Process};

use crate::support::*;

/// `shared` and `private` below a directory are such mounts; a pod is started on them.
const MACHINE: &str = "mount --make-rprivate / && cd \"$1\" && mkdir shared private && mount -t tmpfs tmpfs shared && mount --make-shared shared && \
    mount -t tmpfs tmpfs private && mkdir shared/old && mount -t tmpfs tmpfs shared/old && exec \"$2\" propagation \"$1\"";

pub(super) fn mounts_made_later(_private: &PrivateMounts) {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-ec", MACHINE, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    // What was mounted there went with its namespace.
    assert_eq!(
        std::fs::read_dir(dir.path().join("shared"))
            .unwrap()
            .count(),
        0
    );
}

pub(crate) fn on_own_machine(dir: &str) -> ExitCode {
    let private = podkit_pod::sandbox::enter_private_mounts().unwrap();
    let pod = pod(&private);
    let volume = |name: &str, propagation| {
        Mount::path(Path::new(dir).join(name), "/v").propagation(propagation)
    };
    let container = |propagation| {
        let mut start = inside("sleep");
        start.mounts = vec![volume("shared", propagation)];
        start.security.privileged = true;
        crate::support::start(&pod, start).0
    };
    let none = container(Propagation::None);
    let receives = container(Propagation::HostToContainer);
    let both = container(Propagation::Bidirectional);
    let mounts = |process: &Process, place: &str| {
        let (_, text) = exec(&pod, process, "cat /proc/self/mountinfo");
        text.contains(&format!(" /v/{place} "))
    };
    let all = |place: &str| [&none, &receives, &both].map(|process| mounts(process, place));
    // What was there at the start is seen by all.
    assert_eq!(all("old"), [true; 3]);
    let words = "mkdir /v/new ; call mount s:tmpfs s:/v/new s:tmpfs 0 0";
    has(&exec(&pod, &both, words).1, "s:tmpfs 0 0: ok");
    assert_eq!(all("new"), [false, true, true]);
    let machine = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    has(&machine, &format!(" {dir}/shared/new "));
    // Who only receives gives nothing away.
    let words = "mkdir /v/own ; call mount s:tmpfs s:/v/own s:tmpfs 0 0";
    has(&exec(&pod, &receives, words).1, "s:tmpfs 0 0: ok");
    assert_eq!(all("own"), [false, true, false]);
    // Both directions need a mount that has two.
    let mut refused = inside("sleep");
    refused.mounts = vec![volume("private", Propagation::Bidirectional)];
    let error = pod.start(&refused).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "mount /v in both directions: {dir}/private is not in a shared mount of this machine: Invalid argument"
        )
    );
    // Read-only is this mount alone, unless it is all of them.
    for (recursive, below) in [(false, "ok ()"), (true, "30")] {
        let mut start = inside("write /v/x 1 ; write /v/old/x 1");
        start.mounts = vec![
            volume("shared", Propagation::None)
                .read_only(true)
                .recursive_read_only(recursive),
        ];
        let (_, text) = run(&pod, start);
        assert_eq!(field(&text, "write /v/x:"), "30");
        assert_eq!(field(&text, "write /v/old/x:"), below);
    }
    pod.destroy(LONG).unwrap();
    ExitCode::SUCCESS
}
