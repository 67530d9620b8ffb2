use std::cell::RefCell;

use proptest::prelude::*;

use super::*;

fn ready(weight: u32) -> Candidate {
    Candidate {
        weight,
        priority: 0,
        usable: true,
        drained: false,
    }
}

fn rules(policy: Policy) -> Rules {
    Rules {
        policy,
        ..Rules::default()
    }
}

/// A generator that is the same every time.
fn numbers(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(state)
    }
}

fn name(at: u32) -> u64 {
    fnv(format!("10.0.0.{at}:80").as_bytes())
}

fn table(hashing: Hashing, weights: &[u32]) -> Table {
    let entries = weights.iter().enumerate();
    Table::new(
        hashing,
        entries.map(|(at, weight)| (at as u32, name(at as u32), *weight)),
    )
}

/// How often each candidate is picked when all requests end at once.
fn counts(rules: Rules, candidates: &[Candidate], picks: usize) -> Vec<usize> {
    let mut balance = Balance::new(rules, candidates);
    let mut random = numbers(7);
    let mut counts = vec![0; candidates.len()];
    for _ in 0..picks {
        let ask = Ask {
            key: None,
            load: &|_| 0,
            tried: &|_| false,
            fresh: true,
        };
        if let Some(at) = balance.pick(&ask, &[], &mut random) {
            counts[at as usize] += 1;
        }
    }
    counts
}

fn near(count: usize, expected: f64, part: f64) -> bool {
    (count as f64 - expected).abs() <= expected * part
}

#[test]
fn shares_are_as_the_weights() {
    let candidates = [ready(5), ready(1), ready(1), ready(3)];
    assert_eq!(
        counts(rules(Policy::RoundRobin), &candidates, 1000),
        [500, 100, 100, 300]
    );
    let random = counts(rules(Policy::Random), &candidates, 100_000);
    for (count, weight) in random.iter().zip([5.0, 1.0, 1.0, 3.0]) {
        assert!(near(*count, weight * 10_000.0, 0.05), "{random:?}");
    }
    // Where nothing is in flight, as between few requests, shares are by weight too.
    let least = counts(rules(Policy::Least), &candidates, 1000);
    assert_eq!(least, [500, 100, 100, 300]);
    let p2c = counts(rules(Policy::P2c), &candidates, 100_000);
    for (count, weight) in p2c.iter().zip([5.0, 1.0, 1.0, 3.0]) {
        assert!(near(*count, weight * 10_000.0, 0.05), "{p2c:?}");
    }
}

#[test]
fn round_robin_is_smooth() {
    let mut balance = Balance::new(rules(Policy::RoundRobin), &[ready(5), ready(1), ready(1)]);
    let order: Vec<u32> = (0..7)
        .map(|_| {
            let ask = Ask {
                key: None,
                load: &|_| 0,
                tried: &|_| false,
                fresh: true,
            };
            balance.pick(&ask, &[], &mut || 0).unwrap()
        })
        .collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
}

/// Requests that last: each pick adds one, each fourth step the oldest ends. Returns the highest load per weight seen.
fn worst(policy: Policy, weights: &[u32]) -> f64 {
    let candidates: Vec<Candidate> = weights.iter().map(|weight| ready(*weight)).collect();
    let mut balance = Balance::new(rules(policy), &candidates);
    let load = RefCell::new(vec![0_u32; weights.len()]);
    let mut random = numbers(3);
    for _ in 0..10_000 {
        let ask = Ask {
            key: None,
            load: &|at| load.borrow()[at as usize],
            tried: &|_| false,
            fresh: true,
        };
        let at = balance.pick(&ask, &[], &mut random).unwrap();
        load.borrow_mut()[at as usize] += 1;
    }
    let loads = load.into_inner().into_iter().zip(weights);
    let whole: u32 = weights.iter().sum();
    loads
        .map(|(load, weight)| f64::from(load) * f64::from(whole) / f64::from(*weight) / 10_000.0)
        .fold(0.0, f64::max)
}

#[test]
fn load_evens_out() {
    assert!(worst(Policy::Least, &[1, 1, 1, 1, 4]) < 1.001);
    assert!(worst(Policy::P2c, &[1; 16]) < 1.02);
    assert!(worst(Policy::P2c, &[1, 1, 1, 1, 4]) < 1.2);
    // What two choices are worth: one choice is further off.
    assert!(worst(Policy::Random, &[1; 16]) > worst(Policy::P2c, &[1; 16]));
}

#[test]
fn the_next_priority_takes_what_the_first_can_not() {
    let at = |priority, usable| Candidate {
        priority,
        usable,
        ..ready(1)
    };
    let check = |usable: usize, expected: f64| {
        let mut candidates: Vec<_> = (0..10).map(|one| at(0, one < usable)).collect();
        candidates.extend((0..10).map(|_| at(1, true)));
        let shares = counts(rules(Policy::Random), &candidates, 100_000);
        let first: usize = shares[..10].iter().sum();
        assert!(
            (first as f64 / 100_000.0 - expected).abs() < 0.01,
            "{usable}: {shares:?}"
        );
    };
    check(10, 1.0);
    check(8, 1.0);
    check(5, 0.7);
    check(1, 0.14);
    check(0, 0.0);
    // Both levels are short: what is there is shared as it is there.
    let half: Vec<_> = (0..20).map(|one| at(one / 10, one % 10 < 2)).collect();
    let shares = counts(rules(Policy::Random), &half, 100_000);
    assert!(
        near(shares[..10].iter().sum(), 50_000.0, 0.02),
        "{shares:?}"
    );
}

#[test]
fn too_few_that_are_usable_are_not_run_over() {
    let mut candidates = [ready(1); 10];
    candidates[2..]
        .iter_mut()
        .for_each(|one| one.usable = false);
    let rules = Rules {
        panic_share: 0.3,
        ..rules(Policy::Random)
    };
    assert!(
        counts(rules, &candidates, 10_000)
            .iter()
            .all(|count| *count > 800)
    );
    candidates[2].usable = true;
    let shares = counts(rules, &candidates, 10_000);
    assert_eq!(shares[3..].iter().sum::<usize>(), 0);
    // None at all is always too few, but what is drained or has no weight stays out.
    candidates.iter_mut().for_each(|one| one.usable = false);
    candidates[0].drained = true;
    candidates[1].weight = 0;
    let shares = counts(super::tests::rules(Policy::P2c), &candidates, 10_000);
    assert_eq!((shares[0], shares[1]), (0, 0));
    assert!(shares[2..].iter().all(|count| *count > 0));
}

#[test]
fn nobody_is_tried_twice_for_one_request() {
    for policy in [
        Policy::P2c,
        Policy::Least,
        Policy::RoundRobin,
        Policy::Random,
        Policy::Hash,
    ] {
        let candidates = [ready(1), ready(2), ready(3)];
        let tables = [(0, table(Hashing::Maglev, &[1, 2, 3]))];
        let mut balance = Balance::new(rules(policy), &candidates);
        let mut random = numbers(1);
        for key in [Some(12_345), None] {
            let mut tried: Vec<u32> = Vec::new();
            for _ in 0..3 {
                let ask = Ask {
                    key,
                    load: &|_| 1,
                    tried: &|at| tried.contains(&at),
                    fresh: tried.is_empty(),
                };
                let at = balance.pick(&ask, &tables, &mut random).unwrap();
                assert!(!tried.contains(&at), "{policy:?}");
                tried.push(at);
            }
            let ask = Ask {
                key,
                load: &|_| 1,
                tried: &|at| tried.contains(&at),
                fresh: false,
            };
            assert_eq!(balance.pick(&ask, &tables, &mut random), None, "{policy:?}");
        }
    }
}

const ALL: [Hashing; 3] = [Hashing::Maglev, Hashing::Ketama, Hashing::Rendezvous];

fn keys() -> impl Iterator<Item = u64> {
    (0..20_000_u64).map(|key| fnv(&key.to_le_bytes()))
}

#[test]
fn hashed_shares_are_as_the_weights() {
    for (hashing, off) in ALL.into_iter().zip([0.06, 0.25, 0.06]) {
        let weights = [1, 2, 3, 4];
        let table = table(hashing, &weights);
        let mut shares = [0_usize; 4];
        keys().for_each(|key| shares[table.find(key, |_| true).unwrap() as usize] += 1);
        for (count, weight) in shares.iter().zip(weights) {
            let expected = 2000.0 * f64::from(weight);
            assert!(near(*count, expected, off), "{hashing:?} {shares:?}");
        }
    }
}

#[test]
fn who_can_not_be_used_moves_its_own_keys_only() {
    for hashing in ALL {
        let table = table(hashing, &[1; 10]);
        let mut moved_to = [0_usize; 10];
        for key in keys() {
            let (before, after) = (
                table.find(key, |_| true).unwrap(),
                table.find(key, |at| at != 3).unwrap(),
            );
            match before {
                3 => moved_to[after as usize] += 1,
                _ => assert_eq!(before, after, "{hashing:?}"),
            }
        }
        // And not all to one.
        assert_eq!(moved_to[3], 0);
        assert!(
            moved_to.iter().filter(|count| **count > 40).count() >= 8,
            "{hashing:?} {moved_to:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A member goes: ring and scores move its keys and no others; maglev's table about twice as many.
    #[test]
    fn a_member_that_goes_moves_little(count in 3_usize..20, seed in any::<u32>()) {
        let gone = seed as usize % count;
        for hashing in ALL {
            let entry = |at: usize| (at as u32, mix(u64::from(seed) + at as u64), 1);
            let before = Table::new(hashing, (0..count).map(entry));
            let after = Table::new(hashing, (0..count).filter(|at| *at != gone).map(entry));
            let (mut must, mut moved) = (0_u32, 0_u32);
            for key in keys() {
                let (a, b) = (before.find(key, |_| true).unwrap(), after.find(key, |_| true).unwrap());
                must += u32::from(a as usize == gone);
                moved += u32::from(a != b);
            }
            match hashing {
                Hashing::Maglev => prop_assert!(f64::from(moved) < f64::from(must) * 2.0 + 400.0, "{moved} of {must}"),
                _ => prop_assert_eq!(moved, must),
            }
        }
    }

    /// No endpoint is above its bound, whatever the keys are, and the bound costs no request.
    #[test]
    fn bounded_loads_hold(
        weights in prop::collection::vec(1_u32..5, 2..8),
        hot in 0_u32..100,
        bound in 105_u32..200,
    ) {
        let bound = f64::from(bound) / 100.0;
        for hashing in ALL {
            let candidates: Vec<Candidate> = weights.iter().map(|weight| ready(*weight)).collect();
            let rules = Rules { policy: Policy::Hash, hashing, load_bound: Some(bound), panic_share: 0.0 };
            let tables = [(0, table(hashing, &weights))];
            let mut balance = Balance::new(rules, &candidates);
            let load = RefCell::new(vec![0_u32; weights.len()]);
            let whole = f64::from(weights.iter().sum::<u32>());
            for step in 0..300_u32 {
                // Part of all requests have the same key.
                let key = if step % 100 < hot { 1 } else { u64::from(step) };
                let ask = Ask {
                    key: Some(mix(key)),
                    load: &|at| load.borrow()[at as usize],
                    tried: &|_| false,
                    fresh: true,
                };
                let at = balance.pick(&ask, &tables, &mut || 0).unwrap() as usize;
                load.borrow_mut()[at] += 1;
                let fair = f64::from(step + 1) * f64::from(weights[at]) / whole;
                prop_assert!(f64::from(load.borrow()[at]) <= (bound * fair).ceil());
            }
        }
    }

    /// Whatever the candidates are: what is picked may be picked.
    #[test]
    fn only_who_is_open_is_picked(
        all in prop::collection::vec((0_u32..3, 0_u16..3, any::<bool>(), any::<bool>()), 0..12),
        policy in 0_usize..5,
        key in any::<Option<u64>>(),
        seed in any::<u64>(),
    ) {
        let policy = [Policy::P2c, Policy::Least, Policy::RoundRobin, Policy::Random, Policy::Hash][policy];
        let candidates: Vec<Candidate> = all
            .iter()
            .map(|(weight, priority, usable, drained)| Candidate {
                weight: *weight, priority: *priority, usable: *usable, drained: *drained,
            })
            .collect();
        let tables: Vec<(u16, Table)> = (0..3)
            .map(|priority| {
                let members = candidates.iter().enumerate().filter(|(_, one)| one.priority == priority);
                (priority, Table::new(Hashing::Ketama, members.map(|(at, one)| (at as u32, name(at as u32), one.weight))))
            })
            .collect();
        let mut balance = Balance::new(rules(policy), &candidates);
        let mut random = numbers(seed);
        let ask = Ask { key, load: &|at| at, tried: &|_| false, fresh: true };
        let open = candidates.iter().filter(|one| one.weight > 0 && !one.drained);
        let usable = open.clone().any(|one| one.usable);
        match balance.pick(&ask, &tables, &mut random) {
            None => prop_assert_eq!(open.count(), 0),
            Some(at) => {
                let one = candidates[at as usize];
                prop_assert!(one.weight > 0 && !one.drained && (one.usable || !usable));
            }
        }
    }
}
