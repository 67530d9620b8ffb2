//! What a layer makes: files, links, directories, and the marks that hide what is below.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use tar::EntryType;

use super::support::{Place, Tar, opaque, root};

#[test]
fn a_layer_as_it_is() {
    let place = Place::new();
    let caps = b"\x01\0\0\x02\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = Tar::default()
        .dir("./", 0o751)
        .dir("bin/", 0o755)
        .entry(EntryType::Regular, b"bin/su", b"", 0o4755, b"program")
        .hardlink("bin/su2", "bin/su")
        .symlink("bin/sh", "/bin/su")
        .pax(&[
            ("path", "dir with a \u{fc}/name".as_bytes()),
            ("mtime", b"1700000000.25"),
            ("SCHILY.xattr.user.note", b"a\nb\0c"),
            ("SCHILY.xattr.security.capability", caps),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.metacopy", b""),
            ("SCHILY.xattr.security.selinux", b"label"),
        ])
        .file("short", "data")
        .entry(EntryType::Fifo, b"pipe", b"", 0o640, b"");
    let root_dir = place.unpack("l", tar, &[]).unwrap();
    let meta = |path: &str| root_dir.join(path).symlink_metadata().unwrap();
    assert_eq!(meta("").mode() & 0o7777, 0o751);
    assert_eq!(meta("").mtime(), 1_000_000);
    assert_eq!(meta("bin").mtime(), 1_000_000);
    assert_eq!(
        (meta("bin/su").ino(), meta("bin/su").nlink()),
        (meta("bin/su2").ino(), 2)
    );
    assert_eq!(
        fs::read_link(root_dir.join("bin/sh")).unwrap(),
        PathBuf::from("/bin/su")
    );
    assert_eq!(meta("bin/sh").mtime(), 1_000_000);
    assert!(meta("pipe").file_type().is_fifo());
    let named = "dir with a \u{fc}/name";
    assert_eq!(
        (meta(named).mtime(), meta(named).mtime_nsec()),
        (1_700_000_000, 250_000_000)
    );
    let xattr = |name: &str| {
        let mut value = [0; 64];
        let length = rustix::fs::getxattr(root_dir.join(named), name, &mut value);
        length.map(|length| value[..length].to_vec())
    };
    assert_eq!(xattr("user.note").unwrap(), b"a\nb\0c");
    for name in [
        "trusted.overlay.redirect",
        "user.overlay.metacopy",
        "security.selinux",
    ] {
        assert!(xattr(name).is_err(), "{name}");
    }
    if root() {
        assert_eq!(meta("bin/su").mode() & 0o7777, 0o4755);
        assert_eq!((meta("bin/su").uid(), meta("bin/sh").gid()), (7, 8));
        assert_eq!(xattr("security.capability").unwrap(), caps);
    }
}

#[test]
fn whiteouts() {
    let place = Place::new();
    let tar = Tar::default()
        .file("gone/.wh.file", "")
        .file("fresh/.wh..wh..opq", "")
        .file("fresh/new", "x")
        .file(".wh..wh.plnk", "")
        // The same name is hidden below and made anew: as a directory, alone.
        .file(".wh.again", "")
        .dir("again", 0o755)
        .dir("before", 0o755)
        .file(".wh.before", "")
        .file(".wh.implied", "")
        .file("implied/x", "x")
        .file(".wh.file", "")
        .file("file", "x");
    let root_dir = place.unpack("l", tar, &[]).unwrap();
    let whiteout = |path: &str| {
        let meta = root_dir.join(path).symlink_metadata().unwrap();
        meta.file_type().is_char_device() && meta.rdev() == 0
    };
    assert!(whiteout("gone/file"));
    assert!(!root_dir.join("gone/.wh.file").exists());
    for path in ["fresh", "again", "before", "implied"] {
        assert!(opaque(&root_dir.join(path)), "{path}");
    }
    assert!(!opaque(&root_dir.join("gone")));
    assert!(!root_dir.join(".wh..wh.plnk").exists());
    assert_eq!(fs::read(root_dir.join("file")).unwrap(), b"x");
    for (number, name) in ["d/.wh.", "d/.wh..", "d/.wh..."].iter().enumerate() {
        let error = place.unpack(&format!("w{number}"), Tar::default().file(name, ""), &[]);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("a whiteout of nothing"),
            "{name}"
        );
    }
}

#[test]
fn what_later_entries_replace() {
    let place = Place::new();
    let tar = Tar::default()
        .file("a", "file")
        .dir("a", 0o700)
        .file("a/b", "in it")
        .dir("a", 0o755)
        .dir("d", 0o700)
        .file("d/x", "x")
        .file("d", "file now")
        .symlink("s", "d")
        .file("s", "not through the link")
        .hardlink("h", "d")
        .file("h", "not the other")
        // A directory in front of a link to one.
        .dir("real", 0o755)
        .symlink("link", "real")
        .file("link/inside", "x");
    let root_dir = place.unpack("l", tar, &[]).unwrap();
    let read = |path: &str| fs::read_to_string(root_dir.join(path)).unwrap();
    assert_eq!(read("a/b"), "in it");
    assert_eq!(root_dir.join("a").metadata().unwrap().mode() & 0o777, 0o755);
    assert_eq!(read("d"), "file now");
    assert_eq!(read("s"), "not through the link");
    assert_eq!(read("h"), "not the other");
    assert_eq!(read("real/inside"), "x");
}

#[test]
fn directories_that_a_layer_does_not_name() {
    let place = Place::new();
    let lower = Tar::default()
        .dir("./", 0o711)
        .dir("usr", 0o750)
        .dir("usr/deep", 0o701)
        .file("usr/deep/f", "below");
    let lower = place.unpack("lower", lower, &[]).unwrap();
    let tar = Tar::default()
        .file("usr/deep/new/x", "x")
        .hardlink("linked", "usr/deep/f");
    let upper = place.unpack("upper", tar, &["lower"]).unwrap();
    for path in ["", "usr", "usr/deep"] {
        let meta = |root: &PathBuf| {
            let meta = root.join(path).metadata().unwrap();
            (meta.mode(), meta.uid(), meta.gid(), meta.mtime())
        };
        assert_eq!(meta(&upper), meta(&lower), "{path:?}");
    }
    assert_eq!(
        upper.join("usr/deep/new").metadata().unwrap().mode() & 0o777,
        0o755
    );
    // The file of the layer below was copied, and is one file here.
    let (copy, link) = (upper.join("usr/deep/f"), upper.join("linked"));
    assert_eq!(fs::read(&copy).unwrap(), b"below");
    assert_eq!(
        copy.metadata().unwrap().ino(),
        link.metadata().unwrap().ino()
    );
    assert_eq!(copy.metadata().unwrap().mtime(), 1_000_000);
    let nowhere = place.unpack("n", Tar::default().hardlink("l", "no/such"), &["lower"]);
    assert!(
        nowhere
            .unwrap_err()
            .to_string()
            .contains("no/such, which is nowhere")
    );
}
