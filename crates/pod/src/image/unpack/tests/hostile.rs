//! Layers of someone who wants out.

use std::io;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tar::EntryType;

use super::support::{Place, Tar};

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

proptest! {
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
