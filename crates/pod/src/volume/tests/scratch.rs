//! Volumes that begin empty, and claims.

use super::*;

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
    assert_eq!(over.what, Limited::Volume("cache".into()));
    assert!(over.used_bytes > over.limit_bytes);
    assert_eq!(
        over.to_string(),
        "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\"."
    );
    volumes.remove().unwrap();
    assert_eq!(volumes.over_limit(1000), None);
}

#[test]
fn containers_and_pods_have_limits_too() {
    let dir = tempfile::tempdir().unwrap();
    let (base, roots) = (dir.path().join("volumes"), dir.path().join("roots"));
    let container = |name: &str, limit: Option<u64>| {
        let mut container = crate::plan::ContainerPlan::new(name, crate::plan::ImageSource::Host);
        container.resources.ephemeral_limit_bytes = limit;
        container
    };
    let mut plan = pod(vec![("data", VolumeKind::EmptyDir { limit_bytes: None })]);
    plan.containers = vec![container("app", Some(1 << 20)), container("free", None)];
    let written = |name: &str| vec![roots.join(name).join("log"), roots.join(name).join("upper")];
    let all = written("app").into_iter().chain(written("free"));
    all.for_each(|dir| fs::create_dir_all(dir).unwrap());
    let prepare = || {
        let mut volumes = Volumes::prepare(&plan, &base, &base.with_extension("claims")).unwrap();
        assert!(!volumes.has_limits());
        volumes.watch_containers(&plan, written);
        assert!(volumes.has_limits());
        volumes
    };
    // Its log and its layer count together; found whatever the size of a step.
    for entries in [1, 3, 1000] {
        let mut volumes = prepare();
        let mut look = || (0..200).find_map(|_| volumes.over_limit(entries));
        fs::write(roots.join("app/log/0.log"), vec![1; 600 << 10]).unwrap();
        assert_eq!(look(), None, "{entries}");
        fs::write(roots.join("app/upper/file"), vec![1; 600 << 10]).unwrap();
        // The pod's is the first to be looked at, and no larger with one container's limit.
        let over = look().expect("it is over its limit");
        assert_eq!(over.what, Limited::Pod);
        assert_eq!(
            over.to_string(),
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi."
        );
        volumes.remove().unwrap();
        // An emptyDir counts as well, and what is gone doesn't.
        fs::remove_file(roots.join("app/upper/file")).unwrap();
        let mut volumes = prepare();
        let mut look = || (0..200).find_map(|_| volumes.over_limit(entries));
        assert_eq!(look(), None, "{entries}");
        fs::write(base.join("data/big"), vec![1; 600 << 10]).unwrap();
        assert_eq!(look().map(|over| over.what), Some(Limited::Pod));
        fs::remove_file(roots.join("app/log/0.log")).unwrap();
        volumes.remove().unwrap();
    }
    plan.containers[1].resources.ephemeral_limit_bytes = Some(1 << 20);
    let mut volumes = Volumes::prepare(&plan, &base, &base.with_extension("claims")).unwrap();
    volumes.watch_containers(&plan, written);
    fs::write(roots.join("free/upper/file"), vec![1; 1100 << 10]).unwrap();
    let over = (0..10).find_map(|_| volumes.over_limit(1000));
    assert_eq!(
        over.expect("over its limit").to_string(),
        "Container free exceeded its local ephemeral storage limit \"1Mi\"."
    );
    volumes.remove().unwrap();
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
