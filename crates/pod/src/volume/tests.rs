use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use super::*;
use crate::plan::{ContainerPlan, HostPathType, ImageSource, Resources};

fn pod(volumes: Vec<(&str, VolumeKind)>) -> PodPlan {
    let volumes = volumes.into_iter().map(|(name, kind)| VolumePlan {
        name: name.into(),
        kind,
    });
    PodPlan {
        hostname: "p".into(),
        volumes: volumes.collect(),
        ..PodPlan::new("p", Vec::new())
    }
}

fn container(role: Role, memory_limit_bytes: Option<u64>) -> ContainerPlan {
    ContainerPlan {
        role,
        resources: Resources {
            memory_limit_bytes,
            ..Resources::default()
        },
        ..ContainerPlan::new("c", ImageSource::Host)
    }
}

fn files(list: &[(&str, &str, u32)]) -> BTreeMap<String, FilePlan> {
    let file = |(path, text, mode): &(&str, &str, u32)| {
        let plan = FilePlan {
            bytes: text.as_bytes().to_vec(),
            mode: *mode,
        };
        (path.to_string(), plan)
    };
    list.iter().map(file).collect()
}

fn config(list: &[(&str, &str, u32)]) -> VolumeKind {
    VolumeKind::Files {
        files: files(list),
        secret: false,
    }
}

fn at(volume: &str, sub_path: Option<&str>) -> MountPlan {
    MountPlan {
        sub_path: sub_path.map(str::to_string),
        ..MountPlan::new(volume, "/mnt")
    }
}

/// The path that a descriptor is of.
fn path_of(source: &Source) -> PathBuf {
    use std::os::fd::AsRawFd;
    fs::read_link(format!("/proc/self/fd/{}", source.fd.as_raw_fd())).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Runs where mounts are private, on a thread of its own; not at all without root.
fn with_mounts(run: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to mount");
        return;
    }
    let thread = std::thread::spawn(|| {
        #[expect(
            deprecated,
            reason = "the replacement is unsafe for FILES, which is not asked for"
        )]
        rustix::thread::unshare(UnshareFlags::NEWNS).unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        run();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn an_empty_dir_is_open_to_all_and_gone_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("volumes");
    let plan = pod(vec![("data", VolumeKind::EmptyDir { limit_bytes: None })]);
    // Left by a supervisor that died: never shown to the next pod.
    fs::create_dir_all(base.join("data")).unwrap();
    fs::write(base.join("data/old"), "secret of yesterday").unwrap();
    fs::write(base.join("other"), "").unwrap();
    let mut volumes = Volumes::prepare(&plan, &base, &base.with_extension("claims")).unwrap();
    let source = volumes.source(&at("data", None)).unwrap();
    assert_eq!(path_of(&source), base.join("data"));
    assert!(!source.read_only);
    assert_eq!(mode(&base.join("data")), 0o777);
    assert_eq!(mode(&base), 0o700);
    assert_eq!(fs::read_dir(base.join("data")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&base).unwrap().count(), 1);
    let read_only = MountPlan {
        read_only: true,
        ..at("data", None)
    };
    assert!(volumes.source(&read_only).unwrap().read_only);
    let unknown = volumes.source(&at("nope", None)).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no such volume: nope");
    volumes.remove().unwrap();
    assert!(!base.exists());
    volumes.remove().unwrap();
}

#[test]
fn memory_volumes_are_as_large_as_the_kubelet_has_them() {
    const RAM: u64 = 8 << 30;
    let sized = |limit, containers: &[(Role, Option<u64>)]| {
        let mut plan = pod(Vec::new());
        plan.containers = containers.iter().map(|(r, m)| container(*r, *m)).collect();
        memory_bytes(&plan, limit, RAM)
    };
    use Role::{Init, Main, Sidecar};
    for (limit, containers, expected) in [
        (None, vec![(Main, None)], RAM / 2),
        (Some(1000), vec![(Main, None)], 1000),
        (None, vec![(Main, Some(300)), (Sidecar, Some(200))], 500),
        // One container without a limit: the pod has none.
        (None, vec![(Main, Some(300)), (Main, None)], RAM / 2),
        (None, vec![(Main, Some(300)), (Init, Some(900))], 900),
        (Some(1000), vec![(Main, Some(300))], 300),
        (Some(100), vec![(Main, Some(300))], 100),
        (Some(RAM), vec![(Main, None)], RAM / 2),
    ] {
        assert_eq!(
            sized(limit, &containers),
            expected,
            "{limit:?} {containers:?}"
        );
    }
}

#[test]
fn a_full_memory_volume_harms_only_who_fills_it() {
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("volumes");
        let plan = pod(vec![
            (
                "cache",
                VolumeKind::Memory {
                    limit_bytes: Some(1 << 20),
                },
            ),
            ("data", VolumeKind::EmptyDir { limit_bytes: None }),
        ]);
        let mut volumes = Volumes::prepare(&plan, &base, &base.with_extension("claims")).unwrap();
        assert_eq!(mode(&base.join("cache")), 0o1777);
        let mut file = fs::File::create(base.join("cache/big")).unwrap();
        let error = file.write_all(&vec![0; 2 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        fs::write(base.join("data/other"), "fine").unwrap();
        assert_eq!(
            path_of(&volumes.source(&at("cache", None)).unwrap()),
            base.join("cache")
        );
        volumes.remove().unwrap();
        assert!(!base.exists());
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        assert!(!mounts.contains(base.to_str().unwrap()), "{mounts}");
    });
}

#[test]
fn secrets_live_in_memory() {
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("volumes");
        let secret = VolumeKind::Files {
            files: files(&[("password", "s3cret", 0o400)]),
            secret: true,
        };
        let mut volumes = Volumes::prepare(
            &pod(vec![("token", secret)]),
            &base,
            &base.with_extension("claims"),
        )
        .unwrap();
        assert_eq!(
            fs::read_to_string(base.join("token/password")).unwrap(),
            "s3cret"
        );
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let line = mounts.lines().find(|l| l.contains("/token ")).unwrap();
        assert!(line.starts_with("tmpfs "), "{line}");
        assert!(volumes.source(&at("token", None)).unwrap().read_only);
        volumes.remove().unwrap();
        assert!(!base.exists());
    });
}

#[test]
fn config_files_have_the_kubelet_s_layout() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("volumes");
    let first = [
        ("app.conf", "one", 0o644),
        ("ssl/key", "k", 0o400),
        ("ssl/cert", "c", 0o644),
    ];
    let plan = pod(vec![("conf", config(&first))]);
    let mut volumes = Volumes::prepare(&plan, &base, &base.with_extension("claims")).unwrap();
    let conf = base.join("conf");
    let listing = || {
        let mut names: Vec<String> = fs::read_dir(&conf)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let names = listing();
    assert_eq!(names[1], "..data");
    assert_eq!(names[2..], ["app.conf", "ssl"]);
    // ..YYYY_MM_DD_hh_mm_ss.NANOSECONDS
    let dated: Vec<&str> = names[0]
        .trim_start_matches("..")
        .split(['_', '.'])
        .collect();
    assert_eq!(dated.len(), 7, "{}", names[0]);
    assert!(
        dated
            .iter()
            .all(|part| part.bytes().all(|b| b.is_ascii_digit())),
        "{}",
        names[0]
    );
    assert_eq!(
        fs::read_link(conf.join("..data")).unwrap(),
        Path::new(&names[0])
    );
    assert_eq!(
        fs::read_link(conf.join("ssl")).unwrap(),
        Path::new("..data/ssl")
    );
    assert_eq!(mode(&conf.join("..data/ssl/key")), 0o400);
    assert_eq!(mode(&conf.join("..data/app.conf")), 0o644);
    assert_eq!(mode(&conf.join(&names[0])), 0o755);
    assert_eq!(mode(&conf), 0o777);

    // Nothing new: nothing happens, not even a new directory.
    assert!(!volumes.update("conf", &files(&first)).unwrap());
    assert_eq!(listing(), names);
    // A mode alone is a change.
    let mut other = first;
    other[0].2 = 0o600;
    assert!(volumes.update("conf", &files(&other)).unwrap());
    assert_ne!(listing()[0], names[0]);
    assert_eq!(listing().len(), 4);
    // Files come and go; the directory that someone has mounted stays the same one.
    let before = fs::metadata(&conf).unwrap().ino();
    assert!(
        volumes
            .update(
                "conf",
                &files(&[("new", "n", 0o644), ("ssl/key", "k2", 0o400)])
            )
            .unwrap()
    );
    assert_eq!(listing()[2..], ["new", "ssl"]);
    assert_eq!(fs::read_to_string(conf.join("ssl/key")).unwrap(), "k2");
    assert_eq!(fs::metadata(&conf).unwrap().ino(), before);
    assert!(volumes.update("conf", &BTreeMap::new()).unwrap());
    assert_eq!(listing().len(), 2);
    assert!(volumes.update("nope", &BTreeMap::new()).is_err());
    // By subPath it is the file of now, whatever comes later.
    volumes
        .update("conf", &files(&[("a", "1", 0o644)]))
        .unwrap();
    let source = volumes.source(&at("conf", Some("a"))).unwrap();
    assert!(source.read_only);
    assert!(path_of(&source).ends_with("a"));
    volumes.remove().unwrap();
    assert!(!base.exists());
}

#[test]
fn a_reader_never_sees_half_an_update() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("volumes");
    let version = |n: u32| {
        let text = n.to_string();
        files(&[("cert", &text, 0o644), ("key", &text, 0o644)])
    };
    let kind = VolumeKind::Files {
        files: version(0),
        secret: false,
    };
    let mut volumes = Volumes::prepare(
        &pod(vec![("tls", kind)]),
        &base,
        &base.with_extension("claims"),
    )
    .unwrap();
    let conf = base.join("tls");
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (conf, done) = (conf.clone(), done.clone());
        move || {
            let mut pairs = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // As a careful program reads: resolve ..data once, then read both.
                let data = conf.join(fs::read_link(conf.join("..data")).unwrap());
                let pair = (fs::read(data.join("cert")), fs::read(data.join("key")));
                if let (Ok(cert), Ok(key)) = pair {
                    assert_eq!(cert, key);
                    pairs += 1;
                }
            }
            pairs
        }
    });
    for n in 1..200 {
        assert!(volumes.update("tls", &version(n)).unwrap());
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
    volumes.remove().unwrap();
}

#[test]
fn a_failed_update_leaves_the_old_files() {
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        mount_tmpfs(dir.path(), 256 * 1024).unwrap();
        let conf = dir.path().join("conf");
        fs::create_dir(&conf).unwrap();
        atomic::publish(&conf, &files(&[("a", "good", 0o644)]), None).unwrap();
        let big = "x".repeat(512 * 1024);
        let error = atomic::publish(&conf, &files(&[("a", &big, 0o644)]), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(conf.join("a")).unwrap(), "good");
        assert_eq!(fs::read_dir(&conf).unwrap().count(), 3);
        unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn paths_that_are_not_inside_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["../a", "/a", "a/../b", "", "..data", "..x/y"] {
        let error = atomic::publish(dir.path(), &files(&[(path, "x", 0o644)]), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    atomic::publish(dir.path(), &files(&[(".hidden", "x", 0o644)]), None).unwrap();
}

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
    assert_eq!(mode(&root.join("new")), 0o777);
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

#[test]
fn size_limits_are_noticed_in_bounded_steps() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("volumes");
    let limit = Some(1 << 20);
    let plan = pod(vec![
        ("small", VolumeKind::EmptyDir { limit_bytes: limit }),
        ("cache", VolumeKind::EmptyDir { limit_bytes: limit }),
        ("free", VolumeKind::EmptyDir { limit_bytes: None }),
    ]);
    let mut volumes = Volumes::prepare(&plan, &base, &base.with_extension("claims")).unwrap();
    assert!(volumes.has_limits());
    assert_eq!(volumes.over_limit(1000), None);
    // What does not count: another's bytes, a second name, a hole, what a link leads to.
    fs::write(base.join("free/big"), vec![1; 3 << 20]).unwrap();
    fs::write(base.join("small/file"), vec![1; 700 << 10]).unwrap();
    fs::hard_link(base.join("small/file"), base.join("small/again")).unwrap();
    fs::File::create(base.join("small/hole"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    symlink(base.join("free/big"), base.join("small/link")).unwrap();
    for _ in 0..10 {
        assert_eq!(volumes.over_limit(1000), None);
    }
    // Spread over directories, and found two entries at a time.
    for n in 0..40 {
        let deep = base.join(format!("cache/{}/{n}", n % 7));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("part"), vec![1; 40 << 10]).unwrap();
    }
    let over = (0..1000)
        .find_map(|_| volumes.over_limit(2))
        .expect("it is over its limit");
    assert_eq!(over.volume, "cache");
    assert!(over.used_bytes > over.limit_bytes);
    assert_eq!(
        over.to_string(),
        "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\"."
    );
    volumes.remove().unwrap();
    assert_eq!(volumes.over_limit(1000), None);
}

/// Owner's group and mode of what is at `path`, links not followed.
fn group_and_mode(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.gid(), meta.mode() & 0o7777)
}

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
    // Read-only volumes: the group reads.
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

#[test]
fn a_claim_outlives_the_pod_and_may_be_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let (base, claims) = (dir.path().join("v"), dir.path().join("claims"));
    let claim = |read_only| VolumeKind::Claim {
        namespace: "shop".into(),
        name: "data".into(),
        read_only,
        request_bytes: Some(1 << 30),
    };
    let mut volumes = Volumes::prepare(&pod(vec![("v", claim(false))]), &base, &claims).unwrap();
    let source = volumes.source(&at("v", None)).unwrap();
    assert!(!source.read_only);
    let data = claims.join("shop/data");
    assert_eq!(group_and_mode(&data).1, 0o777);
    assert_eq!(group_and_mode(&claims).1, 0o700);
    fs::write(data.join("kept"), "").unwrap();
    volumes.remove().unwrap();
    assert!(data.join("kept").exists() && !base.exists());
    let volumes = Volumes::prepare(&pod(vec![("v", claim(true))]), &base, &claims).unwrap();
    assert!(volumes.source(&at("v", Some("kept"))).unwrap().read_only);
}

/// Who can write to a configMap all the same (CAP_SYS_ADMIN remounts it) must not choose what the next update removes.
#[test]
fn a_forged_data_link_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("volumes");
    let kind = config(&[("a", "1", 0o644)]);
    let volumes = Volumes::prepare(
        &pod(vec![("conf", kind)]),
        &base,
        &base.with_extension("claims"),
    )
    .unwrap();
    let victim = dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("precious"), "x").unwrap();
    let data = base.join("conf/..data");
    for link in [
        victim.to_str().unwrap(),
        "../../victim",
        "..1/../../../victim",
        "..",
        "../",
    ] {
        fs::remove_file(&data).unwrap();
        symlink(link, &data).unwrap();
        let next = files(&[("a", link, 0o644)]);
        assert!(volumes.update("conf", &next).unwrap(), "{link}");
        assert_eq!(fs::read_to_string(base.join("conf/a")).unwrap(), link);
        assert!(victim.join("precious").exists(), "{link}");
    }
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
