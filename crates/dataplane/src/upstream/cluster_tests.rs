//! What a worker picks as states change; no socket is opened.

use std::time::Duration;

use podkit_foundation::params::{Addr, ParamSet as _, ParamType as _, Values};
use podkit_foundation::telemetry::metrics::Registry;
use tokio::time::Instant;

use super::*;

fn limits() -> UpstreamLimits {
    let values = Values::gather(UpstreamLimits::PARAMS.iter(), &|_| vec![], &|_| None);
    UpstreamLimits::from_values(&values).unwrap()
}

fn found(addrs: &[&str]) -> Vec<Found> {
    let one = |addr: &&str| Found {
        target: Target::of(Addr::parse(addr).unwrap()),
        weight: 1,
        priority: 0,
    };
    addrs.iter().map(one).collect()
}

const EJECTION: Ejection = Ejection {
    after: 3,
    time: Duration::from_secs(10),
    max_share: 0.5,
};

fn cluster(settings: Settings, addrs: &[&str]) -> std::rc::Rc<Cluster> {
    let membership = Membership::new(settings);
    membership.set(&found(addrs));
    let affinity = AffinityCookie::parse("cookie").unwrap();
    let affinity = Affinity::new(&affinity, None, false).unwrap();
    let metrics = UpstreamMetrics::new(&Registry::default());
    Cluster::new(
        membership,
        limits(),
        metrics,
        "h".to_owned(),
        Some(affinity),
    )
}

fn round_robin() -> Settings {
    Settings {
        rules: pick::Rules {
            policy: pick::Policy::RoundRobin,
            ..pick::Rules::default()
        },
        ejection: EJECTION,
        ..Settings::default()
    }
}

/// The names of those picked for so many requests that end at once.
fn names(cluster: &Cluster, count: usize, now: Instant) -> String {
    let pick = |_| cluster.pick(Wanted::default(), &Tried::default(), now);
    let picked = (0..count).filter_map(pick);
    picked.map(|one| one.endpoint().name().to_owned()).collect()
}

fn fail(cluster: &Cluster, name: &str, times: usize, now: Instant) {
    for _ in 0..times {
        let picked = loop {
            let picked = cluster
                .pick(Wanted::default(), &Tried::default(), now)
                .unwrap();
            if picked.endpoint().name() == name {
                break picked;
            }
        };
        cluster.failed(&picked, "x", now);
    }
}

#[test]
fn what_is_in_flight_is_counted_as_long_as_it_is() {
    let cluster = cluster(Settings::default(), &[":1"]);
    let now = Instant::now();
    let one = cluster
        .pick(Wanted::default(), &Tried::default(), now)
        .unwrap();
    let two = cluster
        .pick(Wanted::default(), &Tried::default(), now)
        .unwrap();
    assert_eq!(one.endpoint().in_flight(), 2);
    drop(two);
    assert_eq!(one.endpoint().in_flight(), 1);
    let mut tried = Tried::default();
    tried.add(&one);
    assert!(cluster.pick(Wanted::default(), &tried, now).is_none());
}

#[test]
fn one_that_fails_is_left_out_for_longer_each_time() {
    let cluster = cluster(round_robin(), &[":1", ":2", ":3"]);
    let start = Instant::now();
    let after = |seconds: u64| start + Duration::from_secs(seconds);
    fail(&cluster, ":2", 2, start);
    assert!(names(&cluster, 3, start).contains(":2"));
    // A success in between begins the count anew.
    loop {
        let picked = cluster
            .pick(Wanted::default(), &Tried::default(), start)
            .unwrap();
        if picked.endpoint().name() == ":2" {
            picked.succeeded();
            break;
        }
    }
    fail(&cluster, ":2", 2, start);
    assert!(names(&cluster, 3, start).contains(":2"));
    fail(&cluster, ":2", 1, start);
    assert!(!names(&cluster, 6, start).contains(":2"));
    assert!(!names(&cluster, 6, after(9)).contains(":2"));
    assert!(names(&cluster, 6, after(11)).contains(":2"));
    // Again soon after: twice as long. Long after: as at first.
    fail(&cluster, ":2", 3, after(12));
    assert!(!names(&cluster, 6, after(31)).contains(":2"));
    assert!(names(&cluster, 6, after(33)).contains(":2"));
    fail(&cluster, ":2", 3, after(1000));
    assert!(names(&cluster, 6, after(1011)).contains(":2"));
    let shown = cluster.membership().shown(after(1000));
    assert_eq!((shown[1].state, shown[1].ejected), ("ejected", 3));
    assert_eq!(shown[1].reason, "3 failures in a row, the last: x");
}

#[test]
fn never_all_are_left_out() {
    let cluster = cluster(round_robin(), &[":1", ":2", ":3", ":4"]);
    let now = Instant::now();
    for name in [":1", ":2", ":3"] {
        fail(&cluster, name, 3, now);
    }
    // Half of four; the third may not go.
    assert_eq!(names(&cluster, 4, now).matches(":3").count(), 2);
    let lonely = super::cluster_tests::cluster(round_robin(), &[":1"]);
    fail(&lonely, ":1", 9, now);
    assert_eq!(names(&lonely, 2, now), ":1:1");
    // One that is not ready is no other: the last that is stays.
    let settings = Settings {
        checked: true,
        ..round_robin()
    };
    let two = super::cluster_tests::cluster(settings, &[":1", ":2"]);
    let view = two.membership().view();
    two.membership()
        .set_readiness(&view.endpoints[0], true, "", now);
    two.membership()
        .set_readiness(&view.endpoints[1], false, "away", now);
    fail(&two, ":1", 9, now);
    assert_eq!(names(&two, 2, now), ":1:1");
}

#[test]
fn one_that_is_ready_again_warms_up() {
    let settings = Settings {
        slow_start: Duration::from_secs(10),
        checked: true,
        ..round_robin()
    };
    let cluster = cluster(settings, &[":1", ":2"]);
    let start = Instant::now();
    let after = |millis: u64| start + Duration::from_millis(millis);
    let view = cluster.membership().view();
    let [one, two] = &view.endpoints[..] else {
        panic!()
    };
    let share = |now: Instant| names(&cluster, 110, now).matches(":2").count();
    cluster.membership().set_readiness(one, true, "", start);
    cluster
        .membership()
        .set_readiness(two, false, "away", start);
    assert_eq!(share(start), 0);
    cluster
        .membership()
        .set_readiness(two, true, "", after(20_000));
    // Warm from the start: both were ready when it began.
    assert_eq!(share(after(20_000)), 10);
    assert_eq!(
        cluster.membership().state(two, after(25_000)),
        State::Warming
    );
    assert!(
        (35..=38).contains(&share(after(25_000))),
        "{}",
        share(after(25_000))
    );
    assert_eq!(share(after(30_001)), 55);
}

#[test]
fn a_session_stays_with_one_that_is_drained_and_leaves_one_that_is_ill() {
    let settings = Settings {
        checked: true,
        ..round_robin()
    };
    let cluster = cluster(settings, &[":1", ":2"]);
    let now = Instant::now();
    let view = cluster.membership().view();
    for one in &view.endpoints {
        cluster.membership().set_readiness(one, true, "", now);
    }
    let picked = cluster
        .pick(Wanted::default(), &Tried::default(), now)
        .unwrap();
    let cookie = picked.cookie();
    let value = cookie
        .strip_prefix("Set-Cookie: podkit=")
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let sticky = cluster.session(value.as_bytes(), now);
    assert_eq!(sticky, Some(picked.endpoint().id()));
    assert_eq!(cluster.session(b"AAAAAAAAAAAAAAAAAAAAAA", now), None);
    assert_eq!(cluster.session(b"", now), None);
    let wanted = Wanted { key: None, sticky };
    let goes = |wanted: Wanted, tried: &Tried| {
        let picked = cluster.pick(wanted, tried, now).unwrap();
        picked.endpoint().id()
    };
    let none = Tried::default();
    let own = picked.endpoint().id();
    assert!((0..4).all(|_| goes(wanted, &none) == own));
    cluster
        .membership()
        .set_drained(picked.endpoint(), true, now);
    assert!((0..4).all(|_| goes(wanted, &none) == own));
    assert!((0..4).all(|_| goes(Wanted::default(), &none) != own));
    let mut tried = none;
    tried.add(&picked);
    assert_ne!(goes(wanted, &tried), own);
    cluster
        .membership()
        .set_readiness(picked.endpoint(), false, "ill", now);
    assert_ne!(goes(wanted, &none), own);
}

#[test]
fn who_stays_keeps_its_state_and_who_goes_ends_what_it_has() {
    let cluster = cluster(Settings::default(), &[":1", ":2"]);
    let now = Instant::now();
    let view = cluster.membership().view();
    cluster
        .membership()
        .set_drained(&view.endpoints[0], true, now);
    let picked = cluster
        .pick(Wanted::default(), &Tried::default(), now)
        .unwrap();
    assert_eq!(picked.endpoint().name(), ":2");
    assert_eq!(
        cluster.membership().set(&found(&[":1", ":3", ":3"])),
        (1, 1)
    );
    assert_eq!(names(&cluster, 3, now), ":3:3:3");
    assert_eq!(picked.endpoint().in_flight(), 1);
    assert_eq!(cluster.membership().shown(now)[0].state, "draining");
    assert_eq!(cluster.membership().set(&[]), (0, 2));
    assert!(
        cluster
            .pick(Wanted::default(), &Tried::default(), now)
            .is_none()
    );
}
