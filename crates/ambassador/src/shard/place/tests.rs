use podkit_foundation::params::ParamType;
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::continuum::Continuum;
use super::md5::md5;
use super::*;

const FUNCTIONS: [HashFunction; 12] = [
    HashFunction::OneAtATime,
    HashFunction::Md5,
    HashFunction::Crc16,
    HashFunction::Crc32,
    HashFunction::Crc32a,
    HashFunction::Fnv1_64,
    HashFunction::Fnv1a64,
    HashFunction::Fnv1_32,
    HashFunction::Fnv1a32,
    HashFunction::Hsieh,
    HashFunction::Murmur,
    HashFunction::Jenkins,
];

fn shard(name: &str, weight: u32) -> Shard {
    Shard {
        name: name.to_owned(),
        weight,
    }
}

/// Named `s0`, `s1`, ….
fn shards(weights: &[u32]) -> Vec<Shard> {
    let named = |(at, weight): (usize, &u32)| shard(&format!("s{at}"), *weight);
    weights.iter().enumerate().map(named).collect()
}

fn ring(distribution: Distribution, shards: &[Shard]) -> Ring {
    Ring::new(distribution, None, None, shards).expect("these shards are right")
}

/// How many keys of the sample each shard has.
fn counts(ring: &Ring) -> Vec<usize> {
    let mut counts = vec![0; ring.names().len()];
    for key in sample() {
        counts[ring.place(key.as_bytes())] += 1;
    }
    counts
}

/// The values that nutcracker's own tests (`src/test_all.c`) and libmemcached's want.
#[test]
fn known_hashes() {
    let expected = [
        2_297_466_611,
        3_195_025_439,
        3_662_830_516,
        10_542,
        2_838_417_488,
        473_199_127,
        1_488_911_807,
        67_176_023,
        280_767_167,
        3_738_850_110,
        4_142_305_122,
        1_442_444_624,
    ];
    for (function, expected) in FUNCTIONS.into_iter().zip(expected) {
        assert_eq!(function.of(b"apple"), expected, "{}", function.word());
    }
    assert_eq!(
        HashFunction::CHOICES.len(),
        FUNCTIONS.len(),
        "all are tested"
    );
    let points = md5(b"server1-8");
    assert_eq!((points[0], points[3]), (3_853_726_576, 2_667_054_752));
}

/// The check values of the CRC catalogue, for "123456789".
#[test]
fn crcs_are_the_ones_of_their_names() {
    assert_eq!(hash::crc16(b"123456789") & 0xffff, 0x31c3);
    assert_eq!(HashFunction::Crc32a.of(b"123456789"), 0xcbf4_3926);
}

/// Of implementations of the paper in other languages, made with its C++ code.
#[test]
fn known_jumps() {
    let check = |key, expected: &[usize]| {
        let found: Vec<usize> = (1..=expected.len())
            .map(|count| jump::jump(key, count))
            .collect();
        assert_eq!(found, expected, "{key:#x}");
    };
    check(0, &[0; 20]);
    check(
        1,
        &[0, 0, 0, 0, 0, 0, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 17, 17],
    );
    check(
        0xdead_beef,
        &[0, 1, 2, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 16, 16, 16],
    );
    assert_eq!(jump::jump(42, 57), 43);
    assert_eq!(jump::jump(0xdead_10cc, 666), 361);
    assert_eq!(jump::jump(256, 1024), 520);
}

#[test]
fn slots_are_redis_clusters() {
    // As CLUSTER KEYSLOT says.
    for (key, slot) in [
        ("somekey", 11_058),
        ("foo{hash_tag}", 2_515),
        ("bar{hash_tag}", 2_515),
    ] {
        let part = HashTag::BRACES.part(key.as_bytes());
        assert_eq!(slots::slot(part), slot, "{key}");
    }
    // As redis-cli --cluster create deals them out.
    let check = |weights: &[u32], expected: &[usize]| {
        let shards = shards(weights);
        let members: Vec<(usize, &Shard)> = shards.iter().enumerate().collect();
        let owners = slots::shared(&members);
        assert_eq!(owners.len(), slots::SLOTS);
        let ends = (0..weights.len()).map(|at| owners.partition_point(|owner| *owner <= at as u16));
        assert_eq!(ends.collect::<Vec<_>>(), expected, "{weights:?}");
    };
    check(&[1, 1, 1], &[5461, 10_923, 16_384]);
    check(
        &[7, 7, 7, 7, 7, 7],
        &[2731, 5461, 8192, 10_923, 13_653, 16_384],
    );
    check(&[1, 3], &[4096, 16_384]);
    check(&[u32::MAX], &[16_384]);
}

#[test]
fn the_part_of_a_key_that_counts() {
    #[track_caller]
    fn check(tag: &str, key: &str, expected: &str) {
        let tag = HashTag::parse(tag).expect("two characters");
        let part = tag.part(key.as_bytes());
        assert_eq!(String::from_utf8_lossy(part), expected, "{key}");
    }
    check("{}", "user:{1000}:name", "1000");
    check("{}", "user:1000", "user:1000");
    // The examples of the Redis Cluster specification.
    check("{}", "foo{}{bar}", "foo{}{bar}");
    check("{}", "foo{{bar}}zap", "{bar");
    check("{}", "foo{bar}{zap}", "bar");
    check("{}", "}a{b", "}a{b");
    check("{}", "{a", "{a");
    check("{}", "", "");
    check("$$", "a$b$c", "b");
    check("()", "{a}(b)", "b");
    for wrong in ["", "{", "{}}"] {
        assert!(HashTag::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_no_ring_can_be_made_of() {
    #[track_caller]
    fn check(distribution: Distribution, shards: &[Shard], expected: &str) {
        let error = Ring::new(distribution, None, None, shards).expect_err("a wrong ring");
        assert_eq!(error, expected);
    }
    let many: Vec<Shard> = shards(&[1; SHARDS_MAX + 1]);
    check(
        Distribution::Ketama,
        &many,
        "4097 shards; there can be 4096",
    );
    check(Distribution::Ketama, &[], "no shard has a weight");
    check(Distribution::Maglev, &shards(&[0]), "no shard has a weight");
    let same = [shard("a", 1), shard("b", 1), shard("a", 2)];
    check(Distribution::Modula, &same, "two shards are named \"a\"");
    check(
        Distribution::Modula,
        &shards(&[u32::MAX, 1]),
        "the weights' sum is more than 4294967295",
    );
    check(
        Distribution::Jump,
        &shards(&[2, 0, 1]),
        "jump knows no weights; give all shards the same one",
    );
    let md5 = Some(HashFunction::Md5);
    assert!(Ring::new(Distribution::Crc16, md5, None, &shards(&[1])).is_err());
    let tag = HashTag::parse("()").ok();
    assert!(Ring::new(Distribution::Crc16, None, tag, &shards(&[1])).is_err());
    assert!(
        Ring::new(
            Distribution::Crc16,
            None,
            Some(HashTag::BRACES),
            &shards(&[1])
        )
        .is_ok()
    );
}

#[test]
fn the_largest_ring_has_all_its_shards() {
    let many = shards(&[1; SHARDS_MAX]);
    for distribution in [Distribution::Ketama, Distribution::Crc16] {
        let ring = ring(distribution, &many);
        let used = counts(&ring).iter().filter(|count| **count > 0).count();
        assert!(used > SHARDS_MAX * 9 / 10, "{used}");
    }
}

/// Shares of 160 random points each deviate by one in √160, 8 %; all others by no more than the sample does, 1 %.
#[test]
fn shares_are_even() {
    for (distribution, most) in [
        (Distribution::Ketama, 0.10),
        (Distribution::Modula, 0.02),
        (Distribution::Random, 0.02),
        (Distribution::Maglev, 0.02),
        (Distribution::Jump, 0.02),
        (Distribution::Rendezvous, 0.02),
        (Distribution::Crc16, 0.02),
    ] {
        let ring = ring(distribution, &shards(&[1; 10]));
        let mean = 10_000.0;
        let squares = counts(&ring)
            .into_iter()
            .map(|count| (count as f64 - mean).powi(2));
        let deviation = (squares.sum::<f64>() / 10.0).sqrt() / mean;
        assert!(deviation < most, "{}: {deviation}", distribution.word());
    }
}

#[test]
fn weights_are_shares() {
    for (distribution, tolerance) in [
        (Distribution::Ketama, 0.15),
        (Distribution::Modula, 0.02),
        (Distribution::Maglev, 0.02),
        (Distribution::Rendezvous, 0.02),
        (Distribution::Crc16, 0.02),
    ] {
        let counts = counts(&ring(distribution, &shards(&[1, 2, 3, 4])));
        for (at, count) in counts.into_iter().enumerate() {
            let share = count as f64 / (10_000.0 * (at + 1) as f64);
            let name = distribution.word();
            assert!((share - 1.0).abs() < tolerance, "{name} {at}: {share}");
        }
    }
}

#[test]
fn nutcrackers_schemes_sort_by_name() {
    let one = [shard("b", 3), shard("aa", 1), shard("a", 2)];
    let other = [shard("a", 2), shard("b", 3), shard("aa", 1)];
    for distribution in [Distribution::Ketama, Distribution::Modula] {
        let (one, other) = (ring(distribution, &one), ring(distribution, &other));
        for key in sample().take(1000) {
            let name = |ring: &Ring| ring.names()[ring.place(key.as_bytes())].clone();
            assert_eq!(name(&one), name(&other));
        }
    }
    // Remainders 0 and 1 are a's, 2 to 4 b's, and the longer name comes last.
    let ring = ring(Distribution::Modula, &one);
    for key in sample().take(1000) {
        let rest = HashFunction::Fnv1a64.of(key.as_bytes()) % 6;
        let expected = [2, 2, 0, 0, 0, 1][rest as usize];
        assert_eq!(ring.place(key.as_bytes()), expected);
    }
}

/// Whoever places keys so has data there: none of these may ever change.
#[test]
fn places_stay_from_version_to_version() {
    let check = |distribution, weights: &[u32], expected: u64| {
        let ring = ring(distribution, &shards(weights));
        let places = sample().map(|key| ring.place(key.as_bytes()) as u64);
        let sum = places.fold(0, |sum, place| mix(sum ^ place));
        assert_eq!(sum, expected, "{}: {sum:#x}", distribution.word());
    };
    check(Distribution::Ketama, &[1, 2, 3, 4], 0x419b_7eea_69d2_35c4);
    check(Distribution::Modula, &[1, 2, 3, 4], 0x677a_6605_d410_e190);
    check(Distribution::Maglev, &[1, 2, 3, 4], 0x2111_92af_2f8d_db22);
    check(Distribution::Jump, &[1; 4], 0x37f7_3404_ec2d_b0ff);
    check(
        Distribution::Rendezvous,
        &[1, 2, 3, 4],
        0xc5d8_f2c9_7678_a5aa,
    );
    check(Distribution::Rendezvous, &[1; 4], 0x99e7_19d5_d043_06f1);
    check(Distribution::Crc16, &[1, 2, 3, 4], 0xab0e_5add_7781_5622);
}

#[test]
fn an_empty_key_has_a_place() {
    for distribution in [
        Distribution::Ketama,
        Distribution::Modula,
        Distribution::Maglev,
        Distribution::Jump,
        Distribution::Rendezvous,
        Distribution::Crc16,
    ] {
        assert!(ring(distribution, &shards(&[1; 5])).place(b"") < 5);
    }
    // nutcracker's hash of nothing is 0 (and not the start of FNV), and so the first of its order.
    assert_eq!(ring(Distribution::Modula, &shards(&[1; 5])).place(b""), 0);
}

/// With so many equal shards single precision gives each of them 156 points, not 160. nutcracker has the same.
#[test]
fn points_that_rounding_takes() {
    let short = |count: &usize| {
        let shards = shards(&vec![1; *count]);
        let members: Vec<(usize, &Shard)> = shards.iter().enumerate().collect();
        match Continuum::new(&members).points_of(0) {
            160 => false,
            156 => true,
            other => panic!("{count} shards have {other} points each"),
        }
    };
    let counts: Vec<usize> = (1..=100).filter(short).collect();
    assert_eq!(counts, [25, 47, 50, 55, 61, 71, 94, 100]);
}

#[test]
fn a_plan_counts_what_moves() {
    let old = ring(Distribution::Modula, &[shard("a", 1), shard("b", 1)]);
    let new = ring(Distribution::Modula, &[shard("c", 1), shard("b", 1)]);
    // b is second by name in the old ring and first in the new one: it has the other half of the keys.
    let moves = plan(&old, &new, sample()).expect("a plan");
    assert_eq!((moves.keys, moves.moved), (100_000, 100_000));
    assert!((moves.share() - 1.0).abs() < f64::EPSILON);
    let names: Vec<&str> = moves
        .shards
        .iter()
        .map(|shard| shard.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    let [a, b, c] = &moves.shards[..] else {
        panic!("three shards");
    };
    assert_eq!((a.leaving, a.after, a.arriving), (a.before, 0, 0));
    assert_eq!((b.leaving, b.arriving), (b.before, a.before));
    assert_eq!((c.arriving, c.before), (c.after, 0));
    assert_eq!(a.before + b.before, 100_000);

    let same = plan(&old, &old, ["x", "y"]).expect("a plan");
    assert_eq!((same.keys, same.moved), (2, 0));
    let random = ring(Distribution::Random, &shards(&[1]));
    assert!(plan(&old, &random, ["x"]).is_err());
}

#[test]
fn a_plan_is_shown_as_a_table() {
    let keep = |name: &str| ring(Distribution::Jump, &[shard(name, 1)]);
    let moves = plan(&keep("first"), &keep("second"), ["1", "2"]).expect("a plan");
    let expected = "2 of 2 keys move (100.00 %)
shard     before     after   leaving  arriving
first   100.00 %    0.00 %  100.00 %    0.00 %
second    0.00 %  100.00 %    0.00 %  100.00 %
";
    assert_eq!(moves.to_string(), expected);
}

/// What a shard more moves at most, in percent of all keys: its own share, and what a scheme moves besides.
#[test]
fn what_a_shard_more_moves() {
    let check = |distribution, least: f64, most: f64| {
        let (old, new) = (shards(&[1; 4]), shards(&[1; 5]));
        let moves = plan(
            &ring(distribution, &old),
            &ring(distribution, &new),
            sample(),
        );
        let share = moves.expect("a plan").share();
        let name = Distribution::word(distribution);
        assert!((least..most).contains(&share), "{name}: {share}");
    };
    check(Distribution::Ketama, 0.15, 0.25);
    check(Distribution::Rendezvous, 0.19, 0.21);
    check(Distribution::Jump, 0.19, 0.21);
    check(Distribution::Maglev, 0.19, 0.40);
    check(Distribution::Crc16, 0.45, 0.55);
    check(Distribution::Modula, 0.75, 0.85);
}

/// A shard's weight and name.
fn a_shard() -> impl Strategy<Value = Shard> {
    ("[a-z0-9.:]{1,12}", 1_u32..6).prop_map(|(name, weight)| Shard { name, weight })
}

/// One to eight shards, with names of their own.
fn some_shards() -> impl Strategy<Value = Vec<Shard>> {
    prop::collection::vec(a_shard(), 1..9).prop_map(|mut shards| {
        shards.sort_by(|a, b| a.name.cmp(&b.name));
        shards.dedup_by(|a, b| a.name == b.name);
        shards
    })
}

fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 200)
}

proptest! {
    #![proptest_config(Config { cases: 64, ..Config::default() })]

    #[test]
    fn keys_move_only_to_a_shard_that_was_added(
        shards in some_shards(), more in a_shard(), at in any::<prop::sample::Index>(), keys in keys(),
    ) {
        prop_assume!(shards.iter().all(|shard| shard.name != more.name));
        let mut grown = shards.clone();
        grown.insert(at.index(shards.len() + 1), more.clone());
        let (old, new) = (ring(Distribution::Rendezvous, &shards), ring(Distribution::Rendezvous, &grown));
        for key in &keys {
            let (from, to) = (&old.names()[old.place(key)], &new.names()[new.place(key)]);
            prop_assert!(to == from || *to == more.name);
        }
    }

    #[test]
    fn the_same_at_the_end_for_jump(count in 1_usize..60, keys in keys()) {
        let (old, new) = (shards(&vec![1; count]), shards(&vec![1; count + 1]));
        let (old, new) = (ring(Distribution::Jump, &old), ring(Distribution::Jump, &new));
        for key in &keys {
            let (from, to) = (old.place(key), new.place(key));
            prop_assert!(to == from || to == count);
        }
    }

    #[test]
    fn the_same_for_ketama_while_the_points_stay(
        count in 1_usize..30, at in any::<prop::sample::Index>(), keys in keys(),
    ) {
        let old = shards(&vec![1; count]);
        let mut new = old.clone();
        new.insert(at.index(count + 1), shard("more", 1));
        let points = |shards: &[Shard]| {
            let members: Vec<(usize, &Shard)> = shards.iter().enumerate().collect();
            Continuum::new(&members).points_of(0)
        };
        prop_assume!(points(&old) == points(&new));
        let (old, new) = (ring(Distribution::Ketama, &old), ring(Distribution::Ketama, &new));
        for key in &keys {
            let (from, to) = (&old.names()[old.place(key)], &new.names()[new.place(key)]);
            prop_assert!(to == from || to == "more");
        }
    }

    #[test]
    fn a_shard_without_weight_is_as_good_as_gone(
        shards in some_shards(), gone in any::<prop::sample::Index>(), keys in keys(),
    ) {
        prop_assume!(shards.len() > 1);
        let gone = gone.index(shards.len());
        for distribution in [
            Distribution::Ketama, Distribution::Modula, Distribution::Maglev,
            Distribution::Rendezvous, Distribution::Crc16,
        ] {
            let (mut weightless, mut rest) = (shards.clone(), shards.clone());
            weightless[gone].weight = 0;
            rest.remove(gone);
            let (weightless, rest) = (ring(distribution, &weightless), ring(distribution, &rest));
            for key in &keys {
                let name = &weightless.names()[weightless.place(key)];
                prop_assert_eq!(name, &rest.names()[rest.place(key)]);
            }
        }
    }

    /// The stretches of the ring are a shortcut of this.
    #[test]
    fn a_continuum_finds_the_next_point(shards in some_shards(), hashes in prop::collection::vec(any::<u32>(), 50)) {
        let members: Vec<(usize, &Shard)> = shards.iter().enumerate().collect();
        let continuum = Continuum::new(&members);
        let edges = [0, 1, u32::MAX - 1, u32::MAX];
        for hash in hashes.into_iter().chain(edges).chain(continuum.near_points()) {
            prop_assert_eq!(continuum.find(hash), continuum.search(hash));
        }
    }

    #[test]
    fn keys_of_one_tag_stay_together(shards in some_shards(), tag in "[a-z0-9]{1,8}", a in "[a-z:]{0,8}", b in "[a-z:]{0,8}") {
        for distribution in [Distribution::Ketama, Distribution::Maglev, Distribution::Crc16] {
            let ring = Ring::new(distribution, None, Some(HashTag::BRACES), &shards);
            let ring = ring.expect("these shards are right");
            let [one, other] = [&a, &b].map(|text| format!("{text}{{{tag}}}{text}"));
            prop_assert_eq!(ring.place(one.as_bytes()), ring.place(other.as_bytes()));
        }
    }
}
