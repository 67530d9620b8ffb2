//! Device nodes, and what is given up where not every owner may be given.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use tar::EntryType;

use super::support::{Place, Tar, root};
use crate::image::digest::Algorithm;
use crate::image::unpack::{Owners, layer};

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
