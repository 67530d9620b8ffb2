//! An image's files as its containers see them, against what podman makes of the same archive: every path below `/t`, with all that
//! a file system keeps of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use podkit_testkit::images::archive_of_packed;
use podkit_testkit::podkit::Pod;
use podkit_testkit::process::run;
use podkit_testkit::{machine, program, until};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use serde_json::json;

use crate::ground::{Ground, manifest};

/// VFS_CAP_REVISION_2 with CAP_NET_BIND_SERVICE, permitted and effective. (linux/capability.h, `vfs_cap_data`)
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Below a layer's `/t`.
struct Layer(PathBuf);

impl Layer {
    fn new(dir: &Path) -> Self {
        let top = dir.join("t");
        fs::create_dir_all(&top).unwrap();
        Self(top)
    }

    fn at(&self, path: &str) -> PathBuf {
        let at = self.0.join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        at
    }

    fn file(&self, path: &str, text: &str, mode: u32, owner: (u32, u32)) -> PathBuf {
        let at = self.at(path);
        fs::write(&at, text).unwrap();
        chown(&at, Some(owner.0), Some(owner.1)).unwrap();
        fs::set_permissions(&at, Permissions::from_mode(mode)).unwrap();
        at
    }

    fn directory(&self, path: &str, mode: u32, owner: (u32, u32)) {
        let at = self.at(path);
        fs::create_dir_all(&at).unwrap();
        chown(&at, Some(owner.0), Some(owner.1)).unwrap();
        fs::set_permissions(&at, Permissions::from_mode(mode)).unwrap();
    }

    fn link(&self, path: &str, target: &str, owner: (u32, u32)) {
        let at = self.at(path);
        symlink(target, &at).unwrap();
        lchown(&at, Some(owner.0), Some(owner.1)).unwrap();
    }

    /// Gives every path a time of its own, and packs it all.
    fn pack(&self, dir: &Path, layer: &str, options: &[&str]) {
        let mut number = 0;
        let mut paths = paths(&self.0);
        paths.reverse();
        for path in paths {
            number += 1;
            let time = Timespec {
                tv_sec: 1_000_000_000 + 86_400 * number,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            let at = self.0.join(path);
            rustix::fs::utimensat(CWD, &at, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        let mut tar = Command::new("tar");
        // Sorted: podman takes away what is hidden as it goes, so that the marks must come first.
        tar.args(options)
            .args(["--sort=name", "--numeric-owner", "-C"]);
        tar.arg(dir.join(layer)).arg("-cf");
        let packed = dir.join(format!("{layer}.tar"));
        run("tar", tar.arg(packed).arg(".")).ok();
    }
}

/// Everything below a directory, and itself (an empty path), each behind what it is in.
fn paths(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while next < found.len() {
        let at = top.join(&found[next]);
        if at.symlink_metadata().unwrap().is_dir() {
            for entry in fs::read_dir(&at).unwrap() {
                let path = found[next].join(entry.unwrap().file_name());
                found.push(path);
            }
        }
        next += 1;
    }
    found
}

/// All that is known of each path, in words. Names of one file name its first one.
fn described(top: &Path) -> BTreeMap<String, String> {
    let mut files = paths(top);
    files.sort();
    let mut first = BTreeMap::new();
    let mut all = BTreeMap::new();
    for path in files {
        let at = top.join(&path);
        let meta = at.symlink_metadata().unwrap();
        let name = path.as_os_str().as_bytes().escape_ascii().to_string();
        let mut words = format!(
            "{:o} {}:{} mtime {}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime()
        );
        if meta.is_symlink() {
            let target = fs::read_link(&at).unwrap();
            words += &format!(" to {}", target.as_os_str().as_bytes().escape_ascii());
        }
        if meta.is_file() {
            let mut hash = DefaultHasher::new();
            hash.write(&fs::read(&at).unwrap());
            words += &format!(" {} bytes {:x}", meta.len(), hash.finish());
        }
        if !meta.is_dir() {
            let one = first.entry(meta.ino()).or_insert_with(|| name.clone());
            words += &format!(" is {one} of {}", meta.nlink());
        }
        words += &attributes(&at);
        all.insert(name, words);
    }
    all
}

/// The words but for which file it is, and its time, which podman takes from the link.
fn without_identity(words: &str) -> String {
    let (mode, rest) = words.split_once(" mtime ").unwrap();
    let bytes = rest.split_once(' ').unwrap().1;
    format!("{mode} {}", bytes.split(" is ").next().unwrap())
}

/// Those of users and the file's capabilities; others are the machine's.
fn attributes(at: &Path) -> String {
    let mut names = vec![0; 4096];
    let count = rustix::fs::llistxattr(at, &mut names[..]).unwrap_or(0);
    let mut words: Vec<String> = Vec::new();
    for name in names[..count].split(|byte| *byte == 0) {
        if !name.starts_with(b"user.") && name != b"security.capability" {
            continue;
        }
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(at, OsStr::from_bytes(name), &mut value[..]).unwrap();
        let value = value[..length].escape_ascii();
        words.push(format!(" {}={value}", name.escape_ascii()));
    }
    words.sort();
    words.concat()
}

/// What the first layer has.
fn below(layer: &Layer) {
    layer.file("plain", "plain\n", 0o640, (1234, 4321));
    layer.file("set-id", "x", 0o6755, (7, 8));
    layer.file("set-gid", "x", 0o2711, (0, 65_534));
    layer.directory("sticky", 0o1777, (0, 0));
    layer.directory("set-gid-dir", 0o2750, (3, 2_000_000));
    layer.file("closed", "nobody reads this\n", 0o000, (99, 99));
    layer.directory("closed-dir", 0o000, (99, 99));
    layer.file("far", "owner beyond octal\n", 0o600, (3_000_000, 3_000_000));
    let attributed = layer.file("attributed", "x", 0o644, (0, 0));
    let value = b"a line\nand = another\0";
    rustix::fs::lsetxattr(&attributed, "user.word", value, XattrFlags::empty()).unwrap();
    rustix::fs::lsetxattr(
        &attributed,
        "security.capability",
        &CAPABILITY,
        XattrFlags::empty(),
    )
    .unwrap();
    let directory = layer.at("attributed-dir");
    fs::create_dir(&directory).unwrap();
    rustix::fs::lsetxattr(&directory, "user.dir", b"yes", XattrFlags::empty()).unwrap();
    layer.link("links/absolute", "/t/plain", (5, 6));
    layer.link("links/relative", "../plain", (0, 0));
    layer.link("links/dangling", "no/where", (0, 0));
    layer.link("links/out", "../../../../etc/passwd", (0, 0));
    rustix::fs::mknodat(
        CWD,
        layer.at("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o620),
        0,
    )
    .unwrap();
    let long = format!("long/{}/{}", "d".repeat(120), "n".repeat(250));
    layer.file(&long, "long\n", 0o644, (0, 0));
    layer.link("links/long", &"t/".repeat(150), (0, 0));
    let odd = layer.0.join(OsStr::from_bytes(b"odd-\xff\xfe\x80-name"));
    fs::write(odd, "odd\n").unwrap();
    let sparse = fs::File::create(layer.at("sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    sparse.write_all_at(b"one", 1 << 20).unwrap();
    sparse.write_all_at(b"two", 3 << 20).unwrap();
    layer.file("names/first", "one file\n", 0o604, (9, 9));
    fs::hard_link(layer.at("names/first"), layer.at("names/second")).unwrap();
    fs::hard_link(layer.at("names/first"), layer.at("third")).unwrap();
    layer.file("crossed/first", "in both layers\n", 0o604, (9, 9));
    layer.file("empty", "", 0o444, (0, 0));
    for path in [
        "gone/file",
        "gone/dir/inside",
        "opaque/old",
        "opaque/sub/old",
    ] {
        layer.file(path, "of the first layer\n", 0o644, (0, 0));
    }
    for path in ["becomes/file/x", "becomes/link/x", "again/dir/x"] {
        layer.file(path, "x", 0o644, (0, 0));
    }
    layer.file("becomes/dir", "was a file\n", 0o600, (0, 0));
    layer.link("becomes/real", "../opaque", (0, 0));
    layer.file("changed", "before\n", 0o600, (1, 1));
}

/// What the second one changes.
fn above(layer: &Layer) {
    for whiteout in ["gone/.wh.file", "gone/.wh.dir", "opaque/.wh..wh..opq"] {
        layer.file(whiteout, "", 0o600, (0, 0));
    }
    layer.file("opaque/new", "of the second layer\n", 0o644, (0, 0));
    layer.file("becomes/file", "was a directory\n", 0o644, (0, 0));
    layer.link("becomes/link", "file", (0, 0));
    layer.file("becomes/dir/inside", "now a directory\n", 0o644, (0, 0));
    layer.file("becomes/real/inside", "no link any more\n", 0o644, (0, 0));
    layer.file("changed", "after\n", 0o4711, (2, 2));
    // Gone, and there again, with nothing of what it held.
    layer.file("again/.wh.dir", "", 0o600, (0, 0));
    layer.file("again/dir/y", "y", 0o644, (0, 0));
    layer.file("more/first", "two names\n", 0o644, (0, 0));
    fs::hard_link(layer.at("more/first"), layer.at("more/second")).unwrap();
    layer.file("crossed/first", "not packed\n", 0o604, (9, 9));
    fs::hard_link(layer.at("crossed/first"), layer.at("crossed/second")).unwrap();
}

/// What podman unpacks, into a storage of its own.
fn of_podman(dir: &Path, archive: &Path) -> BTreeMap<String, String> {
    let podman = |args: &[&str]| {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(dir.join("storage"));
        podman.arg("--runroot").arg(dir.join("runroot"));
        podman.args(["--storage-driver", "vfs", "--events-backend", "none"]);
        run("podman", podman.args(args)).ok()
    };
    podman(&["load", "--quiet", "-i", archive.to_str().unwrap()]);
    let mounted = podman(&["image", "mount", "localhost/unpacked:1"]);
    let found = described(&Path::new(mounted.trim()).join("t"));
    podman(&["image", "umount", "--all"]);
    found
}

#[test]
fn an_images_files_are_those_that_podman_unpacks() {
    let Some(ground) = Ground::with(&["podman", "tar", "sha256sum", "busybox"]) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let layers = ["below", "above"].map(|name| Layer::new(&dir.path().join(name)));
    below(&layers[0]);
    above(&layers[1]);
    let bin = dir.path().join("below/bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(program("busybox").unwrap(), bin.join("busybox")).unwrap();
    let pax = [
        "--format=pax",
        "--sparse",
        "--xattrs",
        "--xattrs-include=*",
        "--pax-option=delete=atime,delete=ctime",
    ];
    layers[0].pack(dir.path(), "below", &pax);
    layers[1].pack(dir.path(), "above", &["--format=gnu"]);
    // What is left of the two names is a link to a file of the layer below.
    let packed = dir.path().join("above.tar");
    let mut delete = Command::new("tar");
    delete.arg("--delete").arg("-f").arg(packed);
    run("tar", delete.arg("./t/crossed/first")).ok();
    let archive = archive_of_packed(
        dir.path(),
        "localhost/unpacked:1",
        &["below", "above"],
        &json!({}),
    );
    let spec = "terminationGracePeriodSeconds: 0
containers:
- name: app
  image: app:1
  command: [/bin/busybox, sleep, '7511']";
    let source = format!("app=docker-archive:{}", archive.display());
    let state = dir.path().join("state");
    let args = ["--image", &source, "--state-dir", state.to_str().unwrap()];
    let mut pod = Pod::run_text(&manifest(spec), &args);
    pod.wait_ready();
    let pid = until("the container", || {
        let tree = machine::tree(pod.process.pid()).into_iter();
        tree.into_iter()
            .find(|pid| machine::command(*pid) == "/bin/busybox sleep 7511")
    });
    let ours = described(Path::new(&format!("/proc/{pid}/root/t")));
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    let theirs = of_podman(dir.path(), &archive);
    let mut differ = Vec::new();
    for name in ours.keys().chain(theirs.keys()) {
        // Where layers are laid one over another, two of them can't hold one file: the second has a copy.
        let apart = name.starts_with("crossed/");
        let words = |all: &BTreeMap<String, String>| match all.get(name) {
            Some(words) if apart => Some(without_identity(words)),
            words => words.cloned(),
        };
        let (our, their) = (words(&ours), words(&theirs));
        if our != their {
            differ.push(format!("{name}\n  podkit {our:?}\n  podman {their:?}"));
        }
    }
    differ.dedup();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(ours.len() > 40, "{ours:#?}");
    for (path, part) in [
        ("attributed", "security.capability="),
        ("sparse", "4194304 bytes"),
        ("third", "is names/first of"),
        ("set-id", "106755 7:8"),
    ] {
        assert!(ours[path].contains(part), "{path}: {}", ours[path]);
    }
    for gone in ["opaque/old", "gone/file", "again/dir/x"] {
        assert!(!ours.contains_key(gone), "{gone}");
    }
    ground.assert_clean();
}
