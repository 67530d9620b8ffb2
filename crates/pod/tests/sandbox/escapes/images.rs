//! Images made to mislead whoever starts them: links and files in the places that are mounted or read before the program runs.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use podkit_pod::image::Root;
use podkit_pod::sandbox::{ContainerStart, ExitStatus, Mount, PrivateMounts};

use crate::support::*;

/// Makes root file systems with the test program as /podkit. They share one copy of it: the program itself is nobody's to write to.
pub(crate) struct Images(tempfile::TempDir);

impl Images {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(std::env::current_exe().unwrap(), dir.path().join("podkit")).unwrap();
        Self(dir)
    }

    /// One that has what `fill` puts there, too.
    pub(crate) fn make(&self, fill: impl FnOnce(&Path)) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let lower = dir.path().join("lower");
        std::fs::create_dir(&lower).unwrap();
        std::fs::hard_link(self.0.path().join("podkit"), lower.join("podkit")).unwrap();
        fill(&lower);
        let source = podkit_pod::plan::ImageSource::Rootfs(lower);
        let mut plan = podkit_pod::plan::ContainerPlan::new("app", source);
        plan.command = vec!["/podkit".into()];
        let root = podkit_pod::image::resolve(&plan, &dir.path().join("scratch"), None)
            .unwrap()
            .root;
        (dir, root)
    }
}

/// `/proc` of the image as a link into a volume: whatever is there would be read as if the kernel said it (CVE-2019-16884).
pub(crate) fn system_directories_are_no_links(private: &PrivateMounts) {
    let pod = pod(private);
    let images = Images::new();
    for name in ["proc", "sys", "dev"] {
        for to in ["/data/fake", "../../../../../../../tmp", "/nowhere"] {
            let (_dir, root) = images.make(|lower| symlink(to, lower.join(name)).unwrap());
            let error = pod
                .start(&ContainerStart::new(root, argv("echo")))
                .unwrap_err()
                .to_string();
            assert_eq!(
                error,
                format!("mount /{name}: in the image it must be a directory: Not a directory")
            );
        }
        let (_dir, root) = images.make(|lower| std::fs::write(lower.join(name), "").unwrap());
        assert!(pod.start(&ContainerStart::new(root, argv("echo"))).is_err());
        // The control.
        let (_dir, root) = images.make(|lower| std::fs::create_dir(lower.join(name)).unwrap());
        assert_eq!(
            run(&pod, ContainerStart::new(root, argv("exit 3"))).0,
            ExitStatus::Code(3)
        );
    }
    pod.destroy(LONG).unwrap();
}

/// A volume's place that leads into /proc, by whatever link (CVE-2019-19921).
pub(crate) fn volumes_do_not_cover_proc(private: &PrivateMounts) {
    let volume = tempfile::tempdir().unwrap();
    let pod = pod(private);
    let images = Images::new();
    for (link, target) in [
        ("/proc", "/link"),
        ("/proc/self", "/link/attr"),
        ("../../proc/sys", "/link/kernel"),
        ("/proc/1/root/proc", "/link"),
        ("/dev/fd/../..", "/link/proc/sys"),
    ] {
        let (_dir, root) = images.make(|lower| symlink(link, lower.join("link")).unwrap());
        let mut start = ContainerStart::new(root, argv("cat /proc/self/mountinfo"));
        start.mounts = vec![Mount::path(volume.path(), target)];
        match pod.start(&start) {
            Err(error) => has(&error.to_string(), &format!("mount {target}: ")),
            Ok(_) => panic!("{link} {target}"),
        }
    }
    assert_eq!(std::fs::read_dir(volume.path()).unwrap().count(), 0);
    pod.destroy(LONG).unwrap();
}

/// Makes a file that is none.
type Place<'a> = &'a dyn Fn(&Path);

/// The stage reads them as root, before the program's user is known.
pub(crate) fn accounts_that_are_no_files(private: &PrivateMounts) {
    let pod = pod(private);
    let images = Images::new();
    let fifo = |at: &Path| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
    };
    let huge = |at: &Path| {
        let file = std::fs::File::create(at).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    // As many groups as fit.
    let many = |at: &Path| {
        let lines: String = (0..200_000)
            .map(|gid| format!("g:x:{gid}:root\n"))
            .collect();
        std::fs::write(at, lines).unwrap();
    };
    let places: &[(&str, Place<'_>)] = &[
        ("a FIFO", &fifo),
        ("huge", &huge),
        ("many groups", &many),
        ("/dev/zero", &|at| symlink("/dev/zero", at).unwrap()),
        ("/dev/tty", &|at| symlink("/dev/tty", at).unwrap()),
        ("/proc/kmsg", &|at| symlink("/proc/kmsg", at).unwrap()),
        ("a loop", &|at| symlink("group", at).unwrap()),
        ("a directory", &|at| std::fs::create_dir(at).unwrap()),
        ("the machine's", &|at| {
            symlink("../../../../../../../../etc/group", at).unwrap()
        }),
    ];
    for (what, place) in places {
        let (_dir, root) = images.make(|lower| {
            std::fs::create_dir(lower.join("etc")).unwrap();
            place(&lower.join("etc/group"));
            let same = "root:x:0:0::/root:/bin/sh\n";
            if *what == "many groups" {
                std::fs::write(lower.join("etc/passwd"), same).unwrap();
            } else {
                place(&lower.join("etc/passwd"));
            }
        });
        let began = Instant::now();
        match pod.start(&ContainerStart::new(root, argv("exit 4"))) {
            Ok(process) => assert_eq!(finish(&process), ExitStatus::Code(4), "{what}"),
            Err(error) => {
                assert_eq!(*what, "many groups");
                assert_eq!(error.to_string(), "set the groups: Invalid argument");
            }
        }
        assert!(
            began.elapsed() < LONG / 4,
            "{what} took {:?}",
            began.elapsed()
        );
    }

    // In a shared PID namespace: a neighbour's file by its root, which root could open.
    let pod = shared_pod(private);
    let secret = tempfile::tempdir().unwrap();
    std::fs::write(secret.path().join("passwd"), "s:x:0:0::/the-secret:\n").unwrap();
    let mut victim = inside("sleep");
    victim.mounts = vec![Mount::path(secret.path().join("passwd"), "/etc/passwd")];
    victim.security.add_capabilities = vec!["NET_ADMIN".into()];
    let (victim, _output) = start(&pod, victim);
    let link = format!("/proc/{}/root/etc/passwd", victim.pid_in_pod().unwrap());
    let (_dir, root) = images.make(|lower| {
        std::fs::create_dir(lower.join("etc")).unwrap();
        symlink(link, lower.join("etc/passwd")).unwrap();
    });
    let (_, text) = run(&pod, ContainerStart::new(root, argv("env")));
    assert!(
        text.contains("HOME") && !text.contains("the-secret"),
        "{text}"
    );
    pod.destroy(LONG).unwrap();
}

/// More than execve takes: said, and nothing hangs.
pub(crate) fn endless_environment(private: &PrivateMounts) {
    let pod = pod(private);
    let mut start = inside("echo");
    start.env = (0..64)
        .map(|n| (format!("V{n}"), "x".repeat(100_000)))
        .collect();
    let error = pod.start(&start).unwrap_err().to_string();
    assert_eq!(error, "exec /podkit: Argument list too long");
    start.env = (0..200)
        .map(|n| (format!("V{n}"), "x".repeat(100_000)))
        .collect();
    assert!(pod.start(&start).is_err());
    assert_eq!(run(&pod, inside("exit 3")).0, ExitStatus::Code(3));
    pod.destroy(LONG).unwrap();
}
