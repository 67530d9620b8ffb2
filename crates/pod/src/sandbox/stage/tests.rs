use std::os::unix::fs::symlink;
use std::path::Path;

use super::accounts::{Account, account, uid_by_name, uid_of};
use super::cgroups;
use super::paths::{Kind, find, is_proc, place};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\nbroken\nweb:x:33:34:web:/srv:/bin/sh\nnohome:x:50:51:::\nbadgid:x:60:x::/:\n";
const GROUP: &str = "root:x:0:\nlogs:x:4:root,web\nweb:x:34:web\nbroken:x\nnumber:x:nine:web\nothers:x:9:webber,web2\n";

#[track_caller]
fn check(uid: u32, gid: u32, home: &str, groups: &[u32]) {
    let expected = Account {
        uid,
        gid,
        home: home.into(),
        groups: groups.into(),
    };
    assert_eq!(account(uid, PASSWD, GROUP), expected);
}

#[test]
fn accounts_are_read_as_the_c_library_does() {
    check(0, 0, "/root", &[4]);
    check(33, 34, "/srv", &[4, 34]);
    check(50, 51, "/", &[]);
    check(60, 0, "/", &[]);
    check(1000, 0, "/", &[]);
    assert_eq!(
        account(0, "", ""),
        Account {
            uid: 0,
            gid: 0,
            home: "/".into(),
            groups: Vec::new()
        }
    );
}

#[test]
fn the_users_of_images() {
    assert_eq!(uid_by_name("web", PASSWD), Some(33));
    assert_eq!(uid_by_name("badgid", PASSWD), Some(60));
    for name in ["", "webb", "broken", "33"] {
        assert_eq!(uid_by_name(name, PASSWD), None, "{name:?}");
    }
    assert_eq!(uid_of("1000:2000", PASSWD).unwrap(), 1000);
    assert_eq!(uid_of("web:games", PASSWD).unwrap(), 33);
    assert!(uid_of("no-such-user", PASSWD).is_err());
}

/// What an older kernel gets. In a thread with mounts of its own; needs root.
#[test]
fn an_overlay_as_one_text() {
    use rustix::fs::{CWD, Mode, OFlags, open};
    use rustix::mount::{MountPropagationFlags, mount_change};
    use rustix::thread::UnshareFlags;
    if !crate::image::owns_machine() {
        return;
    }
    let body = || {
        crate::sys::unshare(UnshareFlags::NEWNS | UnshareFlags::FS).unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(name), name).unwrap();
            std::fs::write(path.join("which"), name).unwrap();
            open(&path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
        };
        let lowers: Vec<_> = (0..40).map(|n| layer(&format!("a:b,{n}"))).collect();
        let layers = crate::sandbox::overlay::Layers {
            lowers,
            writes: Some(crate::sandbox::overlay::Writes {
                upper: layer("upper"),
                work: layer("work"),
            }),
            user_xattrs: true,
        };
        std::fs::remove_file(dir.path().join("upper/which")).unwrap();
        let place = dir.path().join("place");
        std::fs::create_dir(&place).unwrap();
        let mount = layers.in_one_text(&place).unwrap();
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
        crate::sandbox::private::tree::attach(&mount, CWD, &place).unwrap();
        // The first is the topmost.
        let text = |name: &str| std::fs::read_to_string(place.join(name)).unwrap();
        assert_eq!(text("which"), "a:b,0");
        assert_eq!(text("a:b,39"), "a:b,39");
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).unwrap();
        // Where nothing is written.
        let layers = crate::sandbox::overlay::Layers {
            writes: None,
            ..layers
        };
        let mount = layers.in_one_text(&place).unwrap();
        crate::sandbox::private::tree::attach(&mount, CWD, &place).unwrap();
        assert_eq!(text("which"), "a:b,0");
        let refused = std::fs::write(place.join("new"), "").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).unwrap();
    };
    std::thread::spawn(body).join().unwrap();
}

#[test]
fn places_are_made_inside_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("root"), dir.path().join("outside"));
    std::fs::create_dir_all(inside.join("etc")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    symlink(&outside, inside.join("absolute")).unwrap();
    symlink("../../../../outside", inside.join("up")).unwrap();
    symlink("../run/new/file", inside.join("etc/dangling")).unwrap();
    symlink("loop", inside.join("loop")).unwrap();
    let root = std::fs::File::open(&inside).unwrap();
    let made = |path: &str, kind| place(&root, Path::new(path), kind).map(drop);

    made("/a/b/c", Kind::Directory).unwrap();
    assert!(inside.join("a/b/c").is_dir());
    made("/a/b/c", Kind::Directory).unwrap();
    made("/a/file", Kind::File).unwrap();
    assert!(inside.join("a/file").is_file());
    made("/", Kind::Directory).unwrap();
    // A link that leads nowhere: its target is made, inside.
    made("/etc/dangling", Kind::File).unwrap();
    assert!(inside.join("run/new/file").is_file());
    made("/absolute/x", Kind::Directory).unwrap();
    made("/up/y", Kind::File).unwrap();
    made("/../../z", Kind::Directory).unwrap();
    assert!(inside.join("z").is_dir());
    assert!(inside.join("outside/y").is_file());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    // What can't be made says why.
    assert_eq!(
        made("/loop/x", Kind::File).unwrap_err().raw_os_error(),
        Some(libc::ELOOP)
    );
    assert_eq!(
        made("/a/file/x", Kind::File).unwrap_err().raw_os_error(),
        Some(libc::ENOTDIR)
    );
    assert_eq!(
        find(&root, Path::new("/none")).unwrap_err().raw_os_error(),
        Some(libc::ENOENT)
    );
}

#[test]
fn proc_is_known_when_seen() {
    let root = std::fs::File::open("/").unwrap();
    assert!(is_proc(find(&root, Path::new("/proc/sys")).unwrap()).unwrap());
    assert!(!is_proc(find(&root, Path::new("/etc")).unwrap()).unwrap());
}

#[test]
fn only_cgroups_are_shown_as_such() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(cgroups::views(&[dir.path().join("cgroup.procs")]), []);
    // The root of whichever hierarchy there is.
    for top in [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/unified",
    ] {
        let procs = Path::new(top).join("cgroup.procs");
        if procs.exists() {
            assert_eq!(cgroups::views(&[procs]), [(top.into(), top.into())]);
        }
    }
}

#[test]
fn shared_mounts_are_known() {
    let text = b"22 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n\
        23 22 0:5 / /a\\040b rw,nosuid - tmpfs shared:9 rw\n\
        24 22 0:6 /shared:1 /c rw master:1 - tmpfs tmpfs rw\n\
        25 22 0:6 / /\xff rw master:1 shared:7 - tmpfs tmpfs rw\n";
    let shared = |id| super::propagation::shared(text, id);
    assert_eq!(
        [22, 23, 24, 25, 2].map(shared),
        [true, false, false, true, false]
    );
}
