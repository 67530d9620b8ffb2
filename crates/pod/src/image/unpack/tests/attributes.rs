//! Extended attributes: a layer brings `user.` ones and file capabilities, and nothing that overlayfs or a security module reads.

use super::support::{Place, Tar};

/// overlayfs reads its marks in `trusted.overlay.`, and in `user.overlay.` when it was mounted with `userxattr`: with them a layer would show
/// files of its choosing (`redirect`), or another file's data as its own (`metacopy`). Labels (`security.selinux`) and signatures
/// (`security.ima`) are the machine's. Of files and of directories alike, whoever unpacks.
#[test]
fn marks_of_the_kernel_are_left_out() {
    let left_out = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.origin",
        "trusted.overlay.whiteout",
        "trusted.other",
        "user.overlay.opaque",
        "user.overlay.redirect",
        "user.overlay.metacopy",
        "user.overlay.whiteout",
        "security.selinux",
        "security.ima",
        "security.evm",
        "security.capability.other",
        "system.posix_acl_access",
    ];
    let records: Vec<(String, &[u8])> = left_out
        .iter()
        .chain(&["user.note", "user.overlays"])
        .map(|name| (format!("SCHILY.xattr.{name}"), b"y".as_slice()))
        .collect();
    let records: Vec<(&str, &[u8])> = records
        .iter()
        .map(|(key, value)| (key.as_str(), *value))
        .collect();
    let place = Place::new();
    let tar = Tar::default()
        .pax(&records)
        .dir("d", 0o755)
        .pax(&records)
        .file("d/f", "x")
        // The attributes are one entry's.
        .file("after", "x");
    let made = place.unpack("l", tar, &[]).unwrap();
    let names = |path: &str| {
        let mut names = [0; 4096];
        let length = rustix::fs::listxattr(made.join(path), &mut names).unwrap();
        let names = names[..length].split(|byte| *byte == 0);
        let mut names: Vec<String> = names
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8(name.to_vec()).unwrap())
            // The machine's own security module labels every file.
            .filter(|name| name != "security.selinux")
            .collect();
        names.sort_unstable();
        names
    };
    for path in ["d", "d/f"] {
        assert_eq!(names(path), ["user.note", "user.overlays"], "{path}");
        let mut value = [0; 1];
        let label = rustix::fs::getxattr(made.join(path), "security.selinux", &mut value);
        assert!(label.is_err() || value != *b"y", "{path}");
    }
    assert_eq!(names("after"), Vec::<String>::new());
}
