//! Paths: of the machine, below a volume, and away again.

use super::*;

#[test]
fn host_paths_are_what_they_say() {
    use HostPathType::*;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let link = dir.path().join("link");
    symlink(&file, &link).unwrap();
    let here = dir.path().to_path_buf();
    let null = PathBuf::from("/dev/null");
    let missing = |name: &str| dir.path().join(name);
    let check = |path: &Path, expect| {
        host_path::check("v", path, expect).map_err(|error| error.to_string())
    };
    for (path, expect, problem) in [
        (&here, Directory, None),
        (&here, DirectoryOrCreate, None),
        (&here, Unset, None),
        (&here, File, Some("a file")),
        (&here, FileOrCreate, Some("a file")),
        (&file, File, None),
        (&file, FileOrCreate, None),
        (&file, Directory, Some("a directory")),
        (&file, DirectoryOrCreate, Some("a directory")),
        (&link, File, None),
        (&socket, Socket, None),
        (&file, Socket, Some("a socket")),
        (&null, CharDevice, None),
        (&null, BlockDevice, Some("a block device")),
        (&missing("no1"), Directory, Some("a directory")),
        (&missing("no2"), File, Some("a file")),
        (&missing("no3"), CharDevice, Some("a character device")),
    ] {
        let expected = match problem {
            None => Ok(()),
            Some(what) => Err(format!(
                "volume v: hostPath type check failed: {} is not {what}",
                path.display()
            )),
        };
        assert_eq!(
            check(path, expect),
            expected,
            "{} {expect:?}",
            path.display()
        );
    }
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    check(&missing("made/deep"), DirectoryOrCreate).unwrap();
    assert!(missing("made/deep").is_dir());
    check(&missing("made/file"), FileOrCreate).unwrap();
    assert!(missing("made/file").is_file());
    check(&missing("untyped"), Unset).unwrap();
    assert!(missing("untyped").is_dir());
    // The directory of a file is not made.
    assert!(check(&missing("not/file"), FileOrCreate).is_err());
}

#[test]
fn a_host_path_outlives_the_pod() {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join("host");
    let kind = VolumeKind::HostPath {
        path: host.clone(),
        expect: HostPathType::DirectoryOrCreate,
    };
    let base = dir.path().join("volumes");
    let mut volumes = Volumes::prepare(
        &pod(vec![("h", kind)]),
        &base,
        &base.with_extension("claims"),
    )
    .unwrap();
    let source = volumes.source(&at("h", None)).unwrap();
    assert_eq!(path_of(&source), host);
    fs::write(host.join("kept"), "").unwrap();
    volumes.remove().unwrap();
    assert!(host.join("kept").exists());
    // What can't be had leaves nothing of the volumes before it.
    let plan = pod(vec![
        ("a", VolumeKind::EmptyDir { limit_bytes: None }),
        (
            "b",
            VolumeKind::HostPath {
                path: "/dev/null".into(),
                expect: HostPathType::Directory,
            },
        ),
    ]);
    assert!(matches!(
        Volumes::prepare(&plan, &base, &base.with_extension("claims")),
        Err(VolumeError::HostPathType { .. })
    ));
    assert!(!base.exists());
}

#[test]
fn sub_paths_stay_inside_their_volume() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("volumes");
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/secret"), "x").unwrap();
    let plan = pod(vec![("v", VolumeKind::EmptyDir { limit_bytes: None })]);
    let volumes = Volumes::prepare(&plan, &base, &base.with_extension("claims")).unwrap();
    let root = base.join("v");
    fs::create_dir_all(root.join("real/deep")).unwrap();
    fs::write(root.join("real/file"), "").unwrap();
    symlink("real", root.join("inner")).unwrap();
    symlink(dir.path().join("outside"), root.join("absolute")).unwrap();
    symlink("../../outside", root.join("relative")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("missing", root.join("dangling")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("real/deep/../../inner", root.join("winding")).unwrap();
    let open = |sub: &str| volumes.source(&at("v", Some(sub)));
    for (sub, expected) in [
        ("real/deep", "real/deep"),
        ("real/file", "real/file"),
        ("inner/deep", "real/deep"),
        ("winding/file", "real/file"),
        ("new/dir", "new/dir"),
        ("inner/new", "real/new"),
        ("./real/./deep", "real/deep"),
        ("", ""),
    ] {
        assert_eq!(
            path_of(&open(sub).unwrap()),
            root.join(expected).components().collect::<PathBuf>(),
            "{sub}"
        );
    }
    // What was missing has the volume's own mode, whatever the umask.
    assert_eq!(mode(&root.join("new/dir")), 0o777);
    for sub in [
        "absolute",
        "absolute/secret",
        "relative",
        "relative/new",
        "magic/etc",
        "dangling",
        "dangling/below",
        "loop",
        "../v",
        "real/../../v",
        "new2/../../x",
    ] {
        let error = open(sub).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("subPath {sub:?} of volume v leads out of the volume")
        );
    }
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 1);
    assert!(matches!(
        open("real/file/below"),
        Err(VolumeError::Io { .. })
    ));
}

/// As a kubelet (1.20.2) was seen to make them in an emptyDir.
#[test]
fn what_is_missing_of_a_sub_path_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("v");
    let plan = pod(vec![("v", VolumeKind::EmptyDir { limit_bytes: None })]);
    let mut volumes = Volumes::prepare(&plan, &base, &dir.path().join("claims")).unwrap();
    for sub_path in ["deep/er", "./one", "a/./b"] {
        drop(volumes.source(&at("v", Some(sub_path))).unwrap());
    }
    let mode = |path: &str| group_and_mode(&base.join("v").join(path)).1;
    assert_eq!((mode("deep"), mode("deep/er")), (0o755, 0o777));
    assert_eq!(mode("one"), 0o777);
    assert_eq!((mode("a"), mode("a/b")), (0o755, 0o777));
    volumes.remove().unwrap();
}

#[test]
fn a_sub_path_that_is_swapped_for_a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("volumes");
    let plan = pod(vec![("v", VolumeKind::EmptyDir { limit_bytes: None })]);
    let volumes = Volumes::prepare(&plan, &base, &base.with_extension("claims")).unwrap();
    let root = base.join("v");
    fs::create_dir(root.join("dir")).unwrap();
    symlink("/etc", root.join("link")).unwrap();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // CVE-2021-25741: the container exchanges a directory for a link to the host's, as fast as it can.
    let attacker = std::thread::spawn({
        let (root, done) = (root.clone(), done.clone());
        move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let (a, b) = (root.join("dir"), root.join("link"));
                rustix::fs::renameat_with(CWD, a, CWD, b, flags).unwrap();
            }
        }
    });
    let (mut inside, mut refused) = (0, 0);
    for _ in 0..3000 {
        match volumes.source(&at("v", Some("dir"))) {
            Ok(source) => {
                let path = path_of(&source);
                assert!(path.starts_with(&root), "{}", path.display());
                inside += 1;
            }
            Err(_) => refused += 1,
        }
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    attacker.join().unwrap();
    assert!(inside + refused == 3000);
}

#[test]
fn removal_follows_no_link_and_enters_no_mount() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "").unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::write(tree.join("a/b/file"), "").unwrap();
    fs::set_permissions(tree.join("a/b/file"), fs::Permissions::from_mode(0o000)).unwrap();
    symlink(&outside, tree.join("a/link")).unwrap();
    symlink("nowhere", tree.join("a/b/c/dangling")).unwrap();
    let _socket = UnixListener::bind(tree.join("a/socket")).unwrap();
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
    remove_tree(&tree).unwrap();
    // A link in the place of the tree is removed, not what it leads to.
    symlink(&outside, &tree).unwrap();
    remove_tree(&tree).unwrap();
    assert!(fs::symlink_metadata(&tree).is_err());
    assert!(outside.join("kept").exists());

    with_mounts(move || {
        let (outside, tree) = (outside, tree);
        fs::create_dir_all(tree.join("a/mounted")).unwrap();
        fs::write(tree.join("z"), "").unwrap();
        mount_bind(&outside, tree.join("a/mounted")).unwrap();
        assert!(remove_tree(&tree).is_err());
        assert!(outside.join("kept").exists());
        // It went on beside it.
        assert!(!tree.join("z").exists());
        unmount(tree.join("a/mounted"), UnmountFlags::empty()).unwrap();
        remove_tree(&tree).unwrap();
        drop(dir);
    });
}

#[test]
fn a_tree_of_any_depth_is_removed() {
    // In memory: on a disk the file system takes seconds for so many directories, whoever removes them.
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        mount_tmpfs(dir.path(), 64 << 20).unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        // Deeper than there are descriptors, and than a path can be long.
        let mut at: OwnedFd = fs::File::open(&tree).unwrap().into();
        for depth in 0..5000 {
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::mkdirat(&at, "d", mode).unwrap();
            if depth % 100 == 0 {
                rustix::fs::mkdirat(&at, "side", mode).unwrap();
            }
            at = openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    });
}
