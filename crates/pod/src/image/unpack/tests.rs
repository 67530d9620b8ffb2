//! Layers as they should be, as they may be, and as someone would make them who wants out.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::archive::{Kind, Reader};
use super::*;

/// A tar in the making, by hand: the crate's own builder refuses what has to be tried.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        let bytes = header.as_old_mut();
        bytes.name[..path.len()].copy_from_slice(path);
        bytes.linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000);
        header.set_size(data.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.entry(
            EntryType::Regular,
            path.as_bytes(),
            b"",
            0o644,
            data.as_bytes(),
        )
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path.as_bytes(), b"", mode, b"")
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.entry(
            EntryType::Symlink,
            path.as_bytes(),
            to.as_bytes(),
            0o777,
            b"",
        )
    }

    fn hardlink(self, path: &str, to: &str) -> Self {
        self.entry(EntryType::Link, path.as_bytes(), to.as_bytes(), 0o644, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            data.extend(format!("{length} {key}=").bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, b"pax", b"", 0o644, &data)
    }

    fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        Self { dir }
    }

    fn unpack(&self, name: &str, tar: Tar, below: &[&str]) -> io::Result<PathBuf> {
        let into = self.dir.path().join(name);
        let below: Vec<_> = below
            .iter()
            .map(|name| self.dir.path().join(name))
            .collect();
        let owners = Owners::of_this_process();
        let bytes = tar.done();
        let (tree, digest) = layer(bytes.as_slice(), &into, owners, Algorithm::Sha256)?;
        assert_eq!(digest, Digest::of(&bytes));
        tree.finish(&below)?;
        Ok(into)
    }

    /// What a hostile layer must have left alone.
    fn untouched(&self) {
        let outside = self.dir.path().join("outside");
        let names: Vec<_> = fs::read_dir(&outside)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
        assert_eq!(outside.join("secret").metadata().unwrap().nlink(), 1);
    }
}

/// Owners, device nodes and `trusted.` attributes need it.
fn root() -> bool {
    crate::image::owns_machine()
}

fn opaque(path: &std::path::Path) -> bool {
    let name = if root() {
        "trusted.overlay.opaque"
    } else {
        "user.overlay.opaque"
    };
    let mut value = [0; 1];
    rustix::fs::getxattr(path, name, &mut value).is_ok() && value == *b"y"
}

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

#[test]
fn nothing_gets_out() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    let out = outside.to_str().unwrap();
    let long = |name: &str| name.as_bytes().to_vec();
    let dotted = |kind, path: &str, link: &str| {
        Tar::default()
            .file("file", "x")
            .entry(kind, &long(path), &long(link), 0o644, b"")
    };
    for (number, tar) in [
        dotted(EntryType::Regular, "../outside/new", ""),
        dotted(EntryType::Regular, "a/../../outside/new", ""),
        dotted(EntryType::Directory, "..", ""),
        dotted(EntryType::Link, "link", "../outside/secret"),
        dotted(EntryType::Regular, "../outside/.wh.secret", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let error = place.unpack(&format!("d{number}"), tar, &[]).unwrap_err();
        assert!(
            error.to_string().contains("a path with .. in it"),
            "{error}"
        );
    }
    // Absolute names, and links that lead out, mean the layer's own.
    let absolute = format!("{out}/new");
    let tar = Tar::default()
        .file(&absolute, "x")
        .symlink("abs", out)
        .file("abs/new2", "x")
        .symlink("up", "../../../../../../../../../../..")
        .file(&format!("up{out}/new3"), "x")
        .symlink("rel", "../outside")
        .file("rel/new4", "x")
        .file("rel/.wh.secret", "")
        .file("abs/.wh..wh..opq", "")
        .symlink("fd", "/proc/self/root")
        .file("fd/new5", "x");
    let root_dir = place.unpack("abs", tar, &[]).unwrap();
    for name in ["new", "new2", "new3"] {
        assert!(root_dir.join(&out[1..]).join(name).exists(), "{name}");
    }
    assert!(root_dir.join("outside/new4").exists());
    assert!(root_dir.join("proc/self/root/new5").exists());
    place.untouched();
    // A hard link to a file of the machine, by name and through links.
    for (number, tar) in [
        Tar::default().hardlink("l", &format!("{out}/secret")),
        Tar::default().symlink("s", out).hardlink("l", "s/secret"),
        Tar::default()
            .symlink("s", "../outside")
            .hardlink("l", "s/secret"),
    ]
    .into_iter()
    .enumerate()
    {
        let error = place.unpack(&format!("h{number}"), tar, &[]).unwrap_err();
        assert!(error.to_string().contains("which is nowhere"), "{error}");
    }
    // A hard link to a link, which is then written through.
    let tar = Tar::default()
        .symlink("s", &format!("{out}/secret"))
        .hardlink("h", "s")
        .file("h", "overwritten");
    place.unpack("through", tar, &[]).unwrap();
    // A directory that becomes a link under what is added to it next.
    let tar = Tar::default()
        .file("d/x", "x")
        .symlink("d", out)
        .file("d/y", "y")
        .dir("d/z", 0o777);
    let swapped = place.unpack("swap", tar, &[]).unwrap();
    assert!(swapped.join(&out[1..]).join("y").exists());
    place.untouched();
    // Links in circles, and names that are none.
    let circle = Tar::default()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", "");
    assert!(place.unpack("circle", circle, &[]).is_err());
    assert!(
        place
            .unpack("root", Tar::default().symlink("./", out), &[])
            .is_err()
    );
    assert!(
        place
            .unpack("root2", Tar::default().hardlink("/", "x"), &[])
            .is_err()
    );
    let zero = Tar::default().pax(&[("path", b"a\0b")]).file("x", "");
    assert!(
        place
            .unpack("zero", zero, &[])
            .unwrap_err()
            .to_string()
            .contains("zero byte")
    );
    place.untouched();
}

/// A directory of the store that a link was planted in can't be written through either: a layer is unpacked into a directory
/// that is made.
#[test]
fn the_directory_is_new() {
    let place = Place::new();
    symlink(place.dir.path().join("outside"), place.dir.path().join("l")).unwrap();
    let error = place
        .unpack("l", Tar::default().file("x", ""), &[])
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn devices_are_nodes_and_no_more() {
    let place = Place::new();
    let tar = Tar::default()
        .entry(EntryType::Char, b"dev/null", b"", 0o666, b"")
        .entry(EntryType::Block, b"dev/disk", b"", 0o660, b"");
    let root_dir = place.unpack("l", tar, &[]).unwrap();
    let meta = |path: &str| root_dir.join(path).metadata().unwrap();
    if root() {
        assert_eq!(meta("dev/null").rdev(), rustix::fs::makedev(1, 3));
        assert_eq!(meta("dev/null").mode() & 0o777, 0o666);
        assert!(meta("dev/disk").file_type().is_block_device());
    } else {
        assert!(meta("dev/null").is_file());
    }
}

#[test]
fn owners_that_are_not_permitted() {
    // As in a user namespace with one id.
    let owners = Owners {
        exact: false,
        user_xattrs: true,
        keep_readable: true,
    };
    let dir = tempfile::tempdir().unwrap();
    let tar = Tar::default()
        .entry(EntryType::Directory, b"d", b"", 0o000, b"")
        .entry(EntryType::Regular, b"d/f", b"", 0o000, b"x")
        .file(".wh.hidden", "")
        .file("d/.wh..wh..opq", "")
        .done();
    let into = dir.path().join("l");
    let (tree, _) = layer(tar.as_slice(), &into, owners, Algorithm::Sha256).unwrap();
    tree.finish(&[]).unwrap();
    assert_eq!(into.join("d").metadata().unwrap().mode() & 0o777, 0o700);
    assert_eq!(into.join("d/f").metadata().unwrap().mode() & 0o777, 0o600);
    let mut value = [0; 1];
    rustix::fs::getxattr(into.join("d"), "user.overlay.opaque", &mut value).unwrap();
    assert!(
        into.join("hidden")
            .symlink_metadata()
            .unwrap()
            .file_type()
            .is_char_device()
    );
    let meta = fs::Permissions::from_mode(0o700);
    fs::set_permissions(into.join("d"), meta).unwrap();
}

#[test]
fn sparse_files() {
    let place = Place::new();
    let data = b"front--back";
    let map = "2\n0\n7\n1000000\n4\n";
    let mut in_data = map.as_bytes().to_vec();
    in_data.resize(512, 0);
    in_data.extend(data);
    let tar = Tar::default()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"one"),
            ("GNU.sparse.realsize", b"1000010"),
        ])
        .entry(
            EntryType::Regular,
            b"GNUSparseFile.0/one",
            b"",
            0o644,
            &in_data,
        )
        .pax(&[
            ("GNU.sparse.size", b"1000010"),
            ("GNU.sparse.map", b"0,7,1000000,4"),
            ("GNU.sparse.name", b"two"),
        ])
        .entry(EntryType::Regular, b"GNUSparseFile.0/two", b"", 0o644, data)
        .file("after", "whole");
    let root_dir = place.unpack("l", tar, &[]).unwrap();
    let mut expected = b"front--".to_vec();
    expected.resize(1_000_000, 0);
    expected.extend(b"back");
    expected.resize(1_000_010, 0);
    for name in ["one", "two"] {
        assert!(fs::read(root_dir.join(name)).unwrap() == expected, "{name}");
        assert!(root_dir.join(name).metadata().unwrap().blocks() < 100);
    }
    assert_eq!(fs::read(root_dir.join("after")).unwrap(), b"whole");
    let wrong = Tar::default()
        .pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"8,7")])
        .entry(EntryType::Regular, b"x", b"", 0o644, b"1234567");
    assert!(
        place
            .unpack("w", wrong, &[])
            .unwrap_err()
            .to_string()
            .contains("the map of a sparse file")
    );
}

/// GNU tar itself writes what is read: old sparse files, long names and links, in three formats.
#[test]
fn what_gnu_tar_writes() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let long = "long ".repeat(40);
    fs::create_dir_all(source.join(&long)).unwrap();
    fs::write(source.join(&long).join(&long), "x").unwrap();
    symlink(&long, source.join("link")).unwrap();
    fs::hard_link(source.join(&long).join(&long), source.join("hard")).unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    for piece in 0..40u64 {
        use std::os::unix::fs::FileExt;
        sparse.write_all_at(b"piece", piece * 1_000_000).unwrap();
    }
    sparse.set_len(50_000_000).unwrap();
    for format in ["gnu", "posix", "oldgnu"] {
        let tar = dir.path().join(format);
        let status = std::process::Command::new("tar")
            .args(["-S", "-C"])
            .arg(&source)
            .arg(format!("--format={format}"))
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status();
        let Ok(status) = status else { return };
        assert!(status.success());
        let into = dir.path().join(format!("{format}.out"));
        let owners = Owners::of_this_process();
        let file = fs::File::open(&tar).unwrap();
        let (tree, _) = layer(file, &into, owners, Algorithm::Sha256).unwrap();
        tree.finish(&[]).unwrap();
        let same = std::process::Command::new("diff")
            .arg("-r")
            .args([&source, &into])
            .output()
            .unwrap();
        assert!(
            same.status.success(),
            "{format}: {}",
            String::from_utf8_lossy(&same.stdout)
        );
        assert_eq!(into.join("hard").metadata().unwrap().nlink(), 2);
        assert!(into.join("sparse").metadata().unwrap().blocks() < 2000);
    }
}

#[test]
fn packed_layers() {
    let bytes = Tar::default().file("x", "data").done();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (first, second) = bytes.split_at(600);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2];
    let zstd = zstd::encode_all(bytes.as_slice(), 3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (number, packed) in [
        bytes.clone(),
        gzip(&bytes),
        [gzip(first), gzip(second)].concat(),
        zstd.clone(),
        [&skippable, zstd.as_slice(), &skippable].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let into = dir.path().join(number.to_string());
        let owners = Owners::of_this_process();
        let (tree, digest) = layer(packed.as_slice(), &into, owners, Algorithm::Sha256).unwrap();
        tree.finish(&[]).unwrap();
        assert_eq!(digest, Digest::of(&bytes));
        assert_eq!(fs::read(into.join("x")).unwrap(), b"data");
        // One that is cut off is not a shorter layer.
        let cut = dir.path().join(format!("cut{number}"));
        if number > 0 {
            let cut = layer(
                &packed[..packed.len() - 11],
                &cut,
                owners,
                Algorithm::Sha256,
            );
            assert!(cut.is_err(), "{number}");
        }
    }
    let into = dir.path().join("bz");
    let error = layer(
        b"BZh9....".as_slice(),
        &into,
        Owners::of_this_process(),
        Algorithm::Sha256,
    );
    assert!(error.err().unwrap().to_string().contains("bzip2"));
}

#[test]
fn memory_is_bounded() {
    // A long name of 10 GB, a map of a million pieces.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(10_000_000_000);
    header.set_cksum();
    let error = Reader::new(header.as_bytes().as_slice())
        .next()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("an extension of 10000000000 bytes"),
        "{error}"
    );
    let mut data = b"1000000\n".to_vec();
    data.resize(512, 0);
    let tar = Tar::default()
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"1")])
        .entry(EntryType::Regular, b"x", b"", 0, &data)
        .done();
    let error = Reader::new(tar.as_slice()).next().unwrap_err();
    assert!(error.to_string().contains("too many pieces"), "{error}");
}

/// Gives bytes in pieces of chosen sizes.
struct Chunks<'a>(&'a [u8], Vec<usize>, usize);

impl Read for Chunks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let size = self.1[self.2 % self.1.len()];
        self.2 += 1;
        let (now, later) = self.0.split_at(size.min(into.len()).min(self.0.len()));
        into[..now.len()].copy_from_slice(now);
        self.0 = later;
        Ok(now.len())
    }
}

fn all(reader: &mut Reader<impl Read>) -> io::Result<Vec<(archive::Entry, Vec<u8>)>> {
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        let mut data = Vec::new();
        if let Kind::File { .. } = entry.kind {
            while data.len() < 100_000 {
                let mut piece = [0; 100];
                match reader.read(&mut piece)? {
                    0 => break,
                    read => data.extend(&piece[..read]),
                }
            }
        }
        entries.push((entry, data));
    }
    Ok(entries)
}

proptest! {
    /// However the bytes come, and whatever they are.
    #[test]
    fn any_chunking_gives_the_same(
        files in proptest::collection::vec(("[a-z]{1,90}", proptest::collection::vec(any::<u8>(), 0..1500)), 0..6),
        flip in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        chunks in proptest::collection::vec(1usize..700, 1..8),
    ) {
        let mut tar = Tar::default();
        for (name, data) in &files {
            tar = tar.pax(&[("path", name.repeat(2).as_bytes()), ("mtime", b"-1.5")])
                .entry(EntryType::Regular, b"x", b"", 0o644, data);
        }
        let mut bytes = tar.done();
        let whole = flip.is_none();
        if let Some((at, byte)) = flip {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let at_once = all(&mut Reader::new(bytes.as_slice()));
        let in_pieces = all(&mut Reader::new(Chunks(&bytes, chunks, 0)));
        prop_assert_eq!(format!("{at_once:?}"), format!("{in_pieces:?}"));
        if whole {
            let entries = at_once.unwrap();
            prop_assert_eq!(entries.len(), files.len());
            for ((entry, data), (name, expected)) in entries.iter().zip(&files) {
                prop_assert_eq!(&entry.path, &name.repeat(2).into_bytes());
                prop_assert_eq!(entry.mtime, (-2, 500_000_000));
                prop_assert_eq!(data, expected);
            }
        }
    }

    /// A random tree of names, links and marks never leaves its directory, and never panics.
    #[test]
    fn any_entries_stay_inside(
        entries in proptest::collection::vec((0u8..8, "(\\.wh\\.)?[ab](/(\\.wh\\.)?[abc]){0,2}", "(/|\\.\\./){0,3}([ab]|outside)(/[abc]){0,1}"), 0..14),
    ) {
        let place = Place::new();
        let mut tar = Tar::default();
        for (kind, path, target) in &entries {
            tar = match kind {
                0 | 1 => tar.file(path, "x"),
                2 | 3 => tar.dir(path, 0o755),
                4 | 5 => tar.symlink(path, target),
                6 => tar.hardlink(path, target.trim_start_matches("../")),
                _ => tar.entry(EntryType::Fifo, path.as_bytes(), b"", 0o644, b""),
            };
        }
        let _unpacked = place.unpack("l", tar, &[]);
        place.untouched();
    }
}
