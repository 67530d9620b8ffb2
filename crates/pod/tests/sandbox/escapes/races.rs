//! A neighbour that changes a shared volume while a container is being started on it (CVE-2021-30465).

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use podkit_pod::sandbox::{Mount, PrivateMounts};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::*;

/// The place of the second mount lies in the first, where it is now a directory and now a link: to the machine's directory by
/// its absolute path, by `..`, and to /proc.
pub(crate) fn places_in_a_shared_volume(private: &PrivateMounts) {
    let pod = pod(private);
    for to in [
        "OUTSIDE",
        "../../../../../../../../OUTSIDE",
        "/proc/self/attr",
        "/proc/1/root",
        "/",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let [shared, data, outside] = ["shared", "data", "outside"].map(|name| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        });
        std::fs::write(data.join("mark"), "x").unwrap();
        std::fs::create_dir(shared.join("place")).unwrap();
        let to = to.replace("OUTSIDE", outside.to_str().unwrap());
        symlink(&to, shared.join("link")).unwrap();
        let done = AtomicBool::new(false);
        let (mut started, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (place, link) = (shared.join("place"), shared.join("link"));
                    renameat_with(CWD, place, CWD, link, RenameFlags::EXCHANGE).unwrap();
                }
            });
            for _ in 0..40 {
                let mut start = inside("cat /proc/self/mountinfo ; ls /proc/self/attr ; exit 3");
                start.mounts = vec![
                    Mount::path(&shared, "/shared"),
                    // Something below that has to be made, too.
                    Mount::path(&data, "/shared/place/below"),
                ];
                let (output, stdio) = captured();
                start.stdio = stdio;
                match pod.start(&start) {
                    Ok(process) => {
                        drop(start);
                        let text = std::io::read_to_string(output).unwrap();
                        assert_eq!(finish(&process).code(), 3);
                        // Nothing came to lie in /proc, and nothing of the machine's came in.
                        assert!(
                            !text.contains(" /proc/self") && !text.contains("mark"),
                            "{text}"
                        );
                        started += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(started + refused, 40);
        // Nothing was made outside, by whatever way.
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{to}");
    }
    pod.destroy(LONG).unwrap();
}
