//! fsGroup.

use super::*;

#[test]
fn a_group_is_given_the_volumes_that_support_it() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("v");
    let claims = dir.path().join("claims");
    let group = rustix::process::getgid().as_raw() + 7;
    let claim = VolumeKind::Claim {
        namespace: "default".into(),
        name: "data".into(),
        read_only: false,
        request_bytes: None,
    };
    let mut plan = pod(vec![
        ("scratch", VolumeKind::EmptyDir { limit_bytes: None }),
        ("conf", config(&[("a", "x", 0o600), ("d/b", "y", 0o644)])),
        ("claim", claim.clone()),
    ]);
    plan.security.fs_group = Some(group);
    if !rustix::process::getuid().is_root() {
        return println!("skipped: only root gives files to a group that it is not in");
    }
    let data = claims.join("default/data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("sub/file"), "kept").unwrap();
    fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o4700)).unwrap();
    let outside = dir.path().join("outside");
    fs::write(&outside, "").unwrap();
    let untouched = group_and_mode(&outside);
    symlink(&outside, data.join("link")).unwrap();

    let mut volumes = Volumes::prepare(&plan, &base, &claims).unwrap();
    assert_eq!(group_and_mode(&base.join("scratch")), (group, 0o2777));
    let (found, mode) = group_and_mode(&data.join("sub"));
    assert_eq!((found, mode & 0o2770), (group, 0o2770));
    assert_eq!(group_and_mode(&data.join("sub/file")), (group, 0o4760));
    assert_eq!(group_and_mode(&data.join("link")).0, group);
    assert_eq!(group_and_mode(&outside), untouched);
    // Read-only volumes: the group reads. Their own directory is an emptyDir, as a kubelet (1.20.2) was seen to have it.
    assert_eq!(group_and_mode(&base.join("conf")), (group, 0o2777));
    let conf = base.join("conf/..data");
    assert_eq!(
        group_and_mode(&fs::canonicalize(conf.join("a")).unwrap()),
        (group, 0o640)
    );
    assert_eq!(
        group_and_mode(&fs::canonicalize(conf.join("d")).unwrap()),
        (group, 0o2755)
    );
    // The same again is no change.
    assert!(
        !volumes
            .update("conf", &files(&[("a", "x", 0o600), ("d/b", "y", 0o644)]))
            .unwrap()
    );
    assert!(
        volumes
            .update("conf", &files(&[("a", "z", 0o400)]))
            .unwrap()
    );
    assert_eq!(
        group_and_mode(&fs::canonicalize(conf.join("a")).unwrap()),
        (group, 0o440)
    );
    volumes.remove().unwrap();
    assert_eq!(fs::read_to_string(data.join("sub/file")).unwrap(), "kept");

    // OnRootMismatch looks at the top only; it is right already.
    plan.security.fs_group_on_root_mismatch = true;
    fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o600)).unwrap();
    Volumes::prepare(&plan, &base, &claims)
        .unwrap()
        .remove()
        .unwrap();
    assert_eq!(group_and_mode(&data.join("sub/file")).1, 0o600);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    Volumes::prepare(&plan, &base, &claims)
        .unwrap()
        .remove()
        .unwrap();
    assert_eq!(group_and_mode(&data.join("sub/file")).1, 0o660);
}

/// A claim is given to the fsGroup while another pod is at work in it: what it puts in the way of the walk is not given.
#[test]
fn a_group_is_given_nothing_beyond_the_volume() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (base, claims) = (dir.path().join("volumes"), dir.path().join("claims"));
    let victim = dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "x").unwrap();
    let claim = VolumeKind::Claim {
        namespace: "default".into(),
        name: "shared".into(),
        read_only: false,
        request_bytes: None,
    };
    let mut plan = pod(vec![("v", claim)]);
    drop(Volumes::prepare(&plan, &base, &claims).unwrap());
    plan.security.fs_group = Some(4321);
    let root = claims.join("default/shared");
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("dir/file"), "x").unwrap();
    fs::write(root.join("file"), "x").unwrap();
    symlink(&victim, root.join("link")).unwrap();
    symlink(victim.join("file"), root.join("link-to-file")).unwrap();
    let before = (
        group_and_mode(&victim),
        group_and_mode(&victim.join("file")),
    );
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let attacker = std::thread::spawn({
        let (root, done) = (root.clone(), done.clone());
        move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for (a, b) in [("dir", "link"), ("file", "link-to-file")] {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(CWD, root.join(a), CWD, root.join(b), flags).unwrap();
                }
            }
        }
    });
    for _ in 0..500 {
        // It may fail; it may not follow.
        let _given = Volumes::prepare(&plan, &base, &claims);
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    attacker.join().unwrap();
    let after = (
        group_and_mode(&victim),
        group_and_mode(&victim.join("file")),
    );
    assert_eq!(before, after);
    // The control: what is in the volume was given.
    drop(Volumes::prepare(&plan, &base, &claims).unwrap());
    assert_eq!(group_and_mode(&root).0, 4321);
}
