//! The history gives back what went in, and stays within its bounds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::topz::ring::*;

fn life(pid: u32) -> Life {
    let command = format!("/usr/bin/process --number {pid}");
    Life {
        pid,
        ppid: 1,
        start: u64::from(pid),
        container: 0,
        user: "root".into(),
        name: "process".into(),
        command: command.into(),
    }
}

fn look(number: u64, boot_ms: u64) -> Look {
    Look {
        number,
        boot_ms,
        wall_ms: 1_700_000_000_000 + boot_ms,
        elapsed_ms: 1000,
        ..Look::default()
    }
}

fn now(ticks: u32, rss: u32) -> Now {
    Now {
        total: u64::from(ticks),
        ticks,
        short: 0,
        rss,
        threads: 1,
        state: b'S',
    }
}

fn living(state: &State) -> BTreeMap<u32, Now> {
    state.living().map(|(slot, now)| (slot, *now)).collect()
}

#[test]
fn the_past_is_what_it_was() {
    let mut ring = Ring::new(600_000, 1 << 20);
    let (a, b) = (ring.add(life(1)), ring.add(life(2)));
    ring.push(
        look(1, 1000),
        &mut [(a, now(0, 100)), (b, now(0, 200))],
        |_| {},
    );
    ring.push(
        look(2, 2000),
        &mut [(a, now(5, 90)), (b, now(0, 200))],
        |_| {},
    );
    ring.push(
        look(3, 3000),
        &mut [(
            b,
            Now {
                short: 7,
                state: b'Z',
                threads: 9,
                ..now(0, 0)
            },
        )],
        |_| {},
    );
    let at = |ms| {
        ring.at(ms)
            .map(|(look, state)| (look.number, living(&state)))
    };
    assert_eq!(at(999), None);
    assert_eq!(at(1000).unwrap().0, 1);
    let (number, second) = at(2999).unwrap();
    assert_eq!(
        (number, second[&a], second[&b]),
        (
            2,
            Now {
                total: 5,
                ..now(5, 90)
            },
            now(0, 200)
        )
    );
    let (_, third) = at(10_000).unwrap();
    assert_eq!(
        (
            third.len(),
            third[&b].short,
            third[&b].state,
            third[&b].threads
        ),
        (1, 7, b'Z', 9)
    );
    assert_eq!(living(ring.latest().unwrap().1), third);
}

#[test]
fn a_life_is_forgotten_only_with_its_last_look() {
    let mut ring = Ring::new(2000, 1 << 20);
    let a = ring.add(life(1));
    let mut forgotten = Vec::new();
    ring.push(look(1, 1000), &mut [(a, now(0, 1))], |life| {
        forgotten.push(life.pid)
    });
    for second in 2..=4 {
        ring.push(look(second, second * 1000), &mut [], |life| {
            forgotten.push(life.pid)
        });
        assert_eq!(
            (forgotten.len(), ring.life(a).is_some()),
            (0, true),
            "at {second}"
        );
    }
    // The look at 2 s, in which it was gone, is itself dropped now.
    ring.push(look(5, 5000), &mut [], |life| forgotten.push(life.pid));
    assert_eq!((forgotten, ring.life(a)), (vec![1], None));
    assert_eq!(ring.add(life(2)), a, "its number is used again");
}

#[test]
fn short_memory_makes_a_short_history_and_says_so() {
    let mut ring = Ring::new(600_000, 128 * 1024);
    let slots: Vec<u32> = (0..300).map(|pid| ring.add(life(pid))).collect();
    for second in 1..=600u32 {
        let busy = |slot: &u32| {
            (
                *slot,
                now(second % 90 + 1, 1000 + (slot * 31 + second * 17) % 500),
            )
        };
        let mut next: Vec<(u32, Now)> = slots.iter().map(busy).collect();
        ring.push(
            look(second.into(), u64::from(second) * 1000),
            &mut next,
            |_| {},
        );
        assert!(ring.bytes() <= ring.limit(), "{} at {second}", ring.bytes());
    }
    let (oldest, newest, looks) = ring.ends().unwrap();
    assert!(ring.is_cut() && looks < 600 && looks > 2, "{looks}");
    assert_eq!((newest.number, oldest.number), (600, 601 - looks as u64));
}

#[test]
fn the_present_is_kept_whatever_it_takes() {
    let mut ring = Ring::new(600_000, 1);
    let a = ring.add(life(1));
    ring.push(look(1, 1000), &mut [(a, now(0, 1))], |_| {});
    ring.push(look(2, 2000), &mut [(a, now(1, 2))], |_| {});
    assert_eq!(ring.ends().unwrap().2, 1);
    assert_eq!(
        living(ring.latest().unwrap().1)[&a],
        Now {
            total: 1,
            ..now(1, 2)
        }
    );
}

#[test]
fn a_burst_gives_its_memory_back() {
    let mut ring = Ring::new(5_000, 1 << 26);
    let first = ring.add(life(1));
    ring.push(look(1, 1000), &mut [(first, now(0, 1))], |_| {});
    let quiet = ring.bytes();
    let mut next: Vec<(u32, Now)> = (0..20_000)
        .map(|pid| (ring.add(life(pid + 2)), now(0, 1)))
        .collect();
    next.push((first, now(0, 1)));
    ring.push(look(2, 2000), &mut next, |_| {});
    assert!(ring.bytes() > 1_000_000);
    for second in 3..20 {
        ring.push(
            look(second, second * 1000),
            &mut [(first, now(0, 1))],
            |_| {},
        );
    }
    assert!(
        ring.bytes() < quiet + 4096,
        "{} after, {quiet} before",
        ring.bytes()
    );
}

/// What may happen to a process between two looks.
#[derive(Debug, Clone)]
enum Step {
    Come,
    Go(usize),
    Work(usize, u32, u32, u32, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Come),
        (0usize..20).prop_map(Step::Go),
        (
            0usize..20,
            any::<u32>(),
            any::<u32>(),
            any::<u32>(),
            any::<u8>()
        )
            .prop_map(|(who, ticks, rss, threads, state)| Step::Work(
                who, ticks, rss, threads, state
            )),
    ]
}

proptest! {
    /// Against a model that keeps every look whole: whatever happens, each look that is still in the ring
    /// reads as it was written, and the bounds hold.
    #[test]
    fn reads_as_written(looks in prop::collection::vec(prop::collection::vec(step(), 0..8), 1..60), span in 1u64..40, limit in 2_000usize..20_000) {
        let mut ring = Ring::new(span * 1000, limit);
        let mut alive: Vec<(u32, Now)> = Vec::new();
        let mut model: Vec<BTreeMap<u32, Now>> = Vec::new();
        for (index, steps) in looks.iter().enumerate() {
            for (_, now) in &mut alive {
                now.ticks = 0;
                now.short = 0;
            }
            for step in steps {
                match step.clone() {
                    Step::Come => alive.push((ring.add(life(index as u32)), Now::default())),
                    Step::Go(at) if at < alive.len() => drop(alive.remove(at)),
                    Step::Work(at, ticks, rss, threads, state) if at < alive.len() => {
                        let before = alive[at].1;
                        let total = before.total - u64::from(before.ticks) + u64::from(ticks);
                        alive[at].1 = Now { total, ticks, short: ticks / 2, rss, threads, state };
                    }
                    _ => {}
                }
            }
            // A process that comes and goes between two looks never enters: its number leaks only in this model.
            let boot_ms = (index as u64 + 1) * 1000;
            ring.push(look(index as u64 + 1, boot_ms), &mut alive.clone(), |_| {});
            model.push(alive.iter().copied().collect());
            let (oldest, newest, _) = ring.ends().unwrap();
            prop_assert!(newest.boot_ms - oldest.boot_ms <= span * 1000);
            prop_assert!(ring.bytes() <= limit || oldest.number == newest.number);
            for number in oldest.number..=newest.number {
                let (found, state) = ring.at(number * 1000).unwrap();
                prop_assert_eq!(found.number, number);
                prop_assert_eq!(&living(&state), &model[number as usize - 1]);
            }
            prop_assert_eq!(&living(ring.latest().unwrap().1), model.last().unwrap());
        }
    }
}
