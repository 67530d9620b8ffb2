use podkit_dataplane::upstream::UpstreamMetrics;

use super::*;

const FILE: &str = "\
- match: redis://*.cache:6379
  password-file: /run/p
  user: me
  timeout: 2s
- match: redis://*.cache:6379
  module: keys
  check-keys: 'user:*'
- match: nginx+http://*/stub_status
";

fn limits() -> Limits {
    Limits {
        most: 2,
        idle: Duration::from_secs(60),
        answer: Duration::from_millis(750),
        whole: Duration::from_secs(30),
    }
}

/// Targets of that file, and the file.
fn targets(text: &str) -> (Rc<Targets>, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let registry = Registry::default();
    let ground = Rc::new(Ground {
        tls: None,
        metrics: UpstreamMetrics::new(&registry),
        starts: RefCell::default(),
        reloads: RefCell::default(),
    });
    let entries = Entries::read(file.path()).unwrap();
    let path = file.path().to_owned();
    let targets = Targets::new(path, entries, ground, limits(), &registry).unwrap();
    (Rc::new(targets), file)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn who_is_not_listed_is_not_asked() {
    run(async {
        let (targets, _file) = targets(FILE);
        let unlisted = |target: &str, module: &str| {
            let refusal = targets.find(target, module).map(drop).unwrap_err();
            assert!(matches!(refusal, Refusal::Unlisted(_)), "{refusal:?}");
        };
        unlisted("redis://a.other", "");
        unlisted("redis://a.cache:6380", "");
        unlisted("redis://a.cache", "other");
        unlisted("nginx+http://h/admin", "");
        unlisted("memcached://a.cache", "");
        let bad = |target: &str, why: &str| {
            let refusal = targets.find(target, "").map(drop).unwrap_err();
            assert!(
                matches!(&refusal, Refusal::Bad(said) if said.contains(why)),
                "{refusal:?}"
            );
        };
        bad("", "there is no ://");
        bad("redis://me:x@a.cache", "a user goes to");
        bad(
            "redis://a.cache;password-file=/etc/passwd",
            "--targets-file alone",
        );
        bad(
            "x=redis://a.cache",
            "there is no scheme \"x=redis\"; did you mean redis?",
        );
        bad("redis://:6379", "names no host");
        bad("redis://unix:/run/../a", "goes up by ..");
        assert_eq!(targets.kept.borrow().len(), 0);
        assert_eq!((targets.asked.get(), targets.refused.get()), (0, 11));
    });
}

#[test]
fn targets_are_kept_by_what_they_are_and_bounded() {
    run(async {
        let (targets, file) = targets(FILE);
        tokio::task::spawn_local(Rc::clone(&targets).tidy());
        let find = |target: &str, module: &str| targets.find(target, module).unwrap();
        let first = find("redis://a.cache", "");
        assert_eq!(first.len(), 1);
        assert!(Rc::ptr_eq(&first, &find("redis://a.cache:6379", "")));
        let keys = find("redis://a.cache", "keys");
        assert_eq!(keys.len(), 2, "its keys are a part");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(Rc::ptr_eq(&first, &find("redis://a.cache", "")));
        find("redis://b.cache", "");
        assert!(Rc::ptr_eq(&first, &find("redis://a.cache", "")));
        assert!(
            !Rc::ptr_eq(&keys, &find("redis://a.cache", "keys")),
            "it was forgotten"
        );
        assert_eq!(targets.count.get(), 2);
        // One look too early for it, and the one that comes after it.
        for (after, left) in [(59, 2), (16, 0)] {
            tokio::time::advance(Duration::from_secs(after)).await;
            tokio::task::yield_now().await;
            assert_eq!(targets.count.get(), left);
        }
        find("redis://b.cache", "");
        std::fs::write(file.path(), "- match: redis://c\n").unwrap();
        targets.reload().unwrap();
        assert!(targets.find("redis://b.cache", "").is_err());
        find("redis://c", "");
        std::fs::write(file.path(), "- match: rediss://c\n").unwrap();
        let why = targets.reload().unwrap_err();
        assert!(why.contains("speaks TLS"), "{why}");
        find("redis://c", "");
    });
}

#[test]
fn a_file_that_is_wrong_is_named() {
    let check = |text: &str, expected: &str| {
        let why = parse(text).expect_err(text);
        assert!(why.starts_with(expected), "{text}: {why}");
    };
    check("", "there is no entry");
    check("- user: me\n", "line 1: there is no match");
    check(
        "- match: redis://h\n  pasword-file: x\n",
        "line 2: there is no key",
    );
    check(
        "- match: '*://h'\n",
        "line 1: match *://h: there is no scheme \"*\"; there are ",
    );
    check(
        "- match: redis://a\n- match: memcached://h\n  user: me\n",
        "line 2: there is no key \"user\"",
    );
    check(
        "- match: redis://h\n  timeout: 5\n",
        "line 1: timeout=5 is not a time",
    );
}

#[test]
fn queries_are_decoded() {
    let check = |query: &str, expected: Option<&str>| {
        assert_eq!(field(query, "target").as_deref(), expected, "{query}");
    };
    check("target=redis://a", Some("redis://a"));
    check(
        "module=x&target=redis%3A%2F%2Fa&target=b",
        Some("redis://a"),
    );
    check("", None);
    check("target", None);
    check("target=%ff", None);
}
