use podkit_foundation::params::{Addr, Param, ParamType as _};

use super::super::place::{Distribution, Ring, Shard};
use super::*;

/// The parameters of these flags.
fn params(flags: &[(&str, &str)], ejection: Option<Ejection>) -> Result<FailureParams, Failure> {
    let given = |param: &Param| {
        let of = flags.iter().filter(|(field, _)| *field == param.field);
        of.map(|(_, text)| (*text).to_owned()).collect()
    };
    let values = Values::gather(FailureParams::PARAMS.iter(), &given, &|_| None);
    FailureParams::checked(&values, ejection)
}

fn shard(text: &str) -> ShardSaid {
    ShardSaid::parse(text).unwrap()
}

fn three() -> Shards {
    let place = |name: &str| Shard {
        name: name.to_owned(),
        weight: 1,
    };
    let ring = Ring::new(
        Distribution::Rendezvous,
        None,
        None,
        &["a", "b", "c"].map(place),
    );
    Shards::whole(["a=:1", "b=:2", "c=:3"].map(shard).to_vec(), ring.unwrap())
}

fn fall(table: &mut Table, who: &ShardSaid, params: &FailureParams, now: Instant) {
    for _ in 0..params.probe_failures {
        let _heard: Heard = table.heard(&key(who), Err("gone".into()), now, params);
    }
    assert_eq!(table.out(&key(who)), Some("gone"));
}

#[test]
fn a_shard_is_out_after_failures_in_a_row_and_back_after_a_while() {
    let params = params(
        &[
            ("on_failure", "rehash"),
            ("probe_failures", "2"),
            ("min_out", "5s"),
        ],
        None,
    )
    .unwrap();
    let (mut table, a, begin) = (Table::default(), key(&shard("a=:1")), Instant::now());
    let mut heard = |ok: bool, second: u64| {
        let result = if ok { Ok(()) } else { Err("gone".to_owned()) };
        table.heard(&a, result, begin + Duration::from_secs(second), &params)
    };
    assert_eq!(heard(false, 0), Heard::Same);
    assert_eq!(heard(true, 1), Heard::Same);
    assert_eq!(heard(false, 2), Heard::Same);
    assert_eq!(heard(false, 3), Heard::Fell);
    assert_eq!(heard(true, 4), Heard::Same);
    assert_eq!(heard(true, 5), Heard::Same, "too early");
    assert_eq!(heard(true, 8), Heard::MayReturn);
    // It could not be emptied.
    assert_eq!(heard(false, 9), Heard::Same);
    assert_eq!(heard(true, 10), Heard::Same);
    assert_eq!(heard(true, 11), Heard::MayReturn);
    table.back(&a);
    assert_eq!(table.out(&a), None);
}

#[test]
fn the_keys_of_one_that_is_out_go_to_the_others_and_no_other_key_moves() {
    let params = params(&[("on_failure", "rehash")], None).unwrap();
    let (mut table, said, now) = (Table::default(), three(), Instant::now());
    fall(&mut table, &said.all[1], &params, now);
    let used = table.in_force(&said, OnFailure::Rehash).unwrap();
    assert_eq!(used.left_out, [false, true, false]);
    assert_eq!(used.away, [key(&said.all[1])]);
    let mut moved = [0; 3];
    for at in 0..1000 {
        let name = format!("key{at}");
        let (was, is) = (
            said.ring.place(name.as_bytes()),
            used.ring.place(name.as_bytes()),
        );
        assert!(is != 1 && (was == 1 || was == is));
        moved[is] += usize::from(was != is);
    }
    assert!(moved[0] > 100 && moved[2] > 100, "{moved:?}");
    for at in [0, 2] {
        fall(&mut table, &said.all[at], &params, now);
    }
    assert!(
        table
            .in_force(&said, OnFailure::Rehash)
            .unwrap()
            .none_is_left()
    );
}

#[test]
fn a_spare_stands_in_for_one_at_a_time() {
    let params = params(
        &[
            ("on_failure", "spare"),
            ("spare", "x=:8"),
            ("spare", "y=:9"),
        ],
        None,
    )
    .unwrap();
    let (mut table, said, now) = (Table::default(), three(), Instant::now());
    let (a, b, c) = (key(&said.all[0]), key(&said.all[1]), key(&said.all[2]));
    let all = said.all.clone();
    for one in &all {
        fall(&mut table, one, &params, now);
    }
    let x = table.spare_for(&a, &params.spare).unwrap();
    // Not even while it is made ready.
    let y = table.spare_for(&b, &params.spare).unwrap();
    assert_eq!((x.name.as_str(), y.name.as_str()), ("x", "y"));
    assert_eq!(table.spare_for(&c, &params.spare), None);
    table.stands_in(&a, Some(x.clone()));
    table.stands_in(&b, None);
    let used = table.in_force(&said, OnFailure::Spare).unwrap();
    assert_eq!(used.all[0].to_string(), "a=:8");
    assert_eq!(used.all[1].server.addr, Addr::Port(2), "nobody stands in");
    assert_eq!(used.away, std::slice::from_ref(&a));
    assert_eq!(used.left_out, [false; 3]);
    // The spare is lost: the other one.
    fall(&mut table, &x, &params, now);
    assert_eq!(table.spare_for(&a, &params.spare), Some(y));
    assert_eq!(table.stand_in(&a), None);
    table.back(&a);
    assert_eq!(
        table.in_force(&said, OnFailure::Spare).unwrap().all,
        said.all[..]
    );
}

#[test]
fn what_would_do_nothing_is_refused() {
    let fault = |flags: &[(&str, &str)]| params(flags, None).unwrap_err().to_string();
    let none = fault(&[("on_failure", "spare")]);
    assert!(
        none.contains("--spare") && none.contains("is required"),
        "{none}"
    );
    assert!(fault(&[("spare", "x=:8")]).contains("needs --on-failure spare"));
    assert!(fault(&[("probe_period", "2s")]).contains("needs --on-failure rehash"));
    let two = fault(&[
        ("on_failure", "spare"),
        ("spare", "x=:8"),
        ("spare", "y=:8"),
    ]);
    assert!(two.contains("too"), "{two}");
    let spare = params(&[("on_failure", "spare"), ("spare", "x=:2")], None).unwrap();
    let same = spare.check(&three().all).unwrap_err();
    assert!(same.contains("b=:2") && same.contains("emptied"), "{same}");
}

#[test]
fn a_pool_of_twemproxy_that_ejects_says_when_but_not_that_servers_are_emptied() {
    let ejection = || {
        Some(Ejection {
            failures: 4,
            retry: Duration::from_secs(30),
        })
    };
    let refused = params(&[], ejection()).unwrap_err().to_string();
    assert!(refused.contains("FLUSHALL"), "{refused}");
    let rehash = ("on_failure", "rehash");
    let taken = params(&[rehash], ejection()).unwrap();
    assert_eq!(
        (taken.probe_failures, taken.min_out),
        (4, Duration::from_secs(30))
    );
    let given = params(&[rehash, ("min_out", "1s")], ejection()).unwrap();
    assert_eq!(given.min_out, Duration::from_secs(1));
    let fast = params(&[("on_failure", "fail-fast")], ejection()).unwrap();
    assert_eq!(fast.on_failure, OnFailure::FailFast);
}
