//! Files that are published whole: configMap, secret, projected, downwardAPI.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;

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
    let (done, pairs) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // As a careful program reads: resolve ..data once, then read both.
                let data = conf.join(fs::read_link(conf.join("..data")).unwrap());
                let pair = (fs::read(data.join("cert")), fs::read(data.join("key")));
                if let (Ok(cert), Ok(key)) = pair {
                    assert_eq!(cert, key);
                    pairs.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // Until the reader has had its turn, too.
        let end = Instant::now() + Duration::from_secs(30);
        let mut n = 1;
        while n < 200 || (pairs.load(Ordering::Relaxed) == 0 && Instant::now() < end) {
            assert!(volumes.update("tls", &version(n)).unwrap());
            n += 1;
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert!(pairs.into_inner() > 0);
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
