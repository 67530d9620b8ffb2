//! What is counted, forgotten, split and bounded.

use super::*;

#[test]
fn whole_numbers_are_counted_exactly() {
    let mut table = plain();
    table.packet(b"big:9007199254740993|c\nbig:1|c\nbig:1|c\nbig:1|c\n");
    // Of floats, none of the ones would have been seen.
    assert_eq!(shown(&table), ["big 9007199254740996"]);
    let mut table = plain();
    for _ in 0..100_000 {
        table.packet(b"tenth:0.1|c");
    }
    let [one] = &shown(&table)[..] else {
        panic!("one series");
    };
    let sum: f64 = one.strip_prefix("tenth ").unwrap().parse().unwrap();
    // A plain sum is 2e-8 off.
    assert!((sum - 10_000.0).abs() < 1e-10, "{sum}");
    let mut table = plain();
    table.packet(b"huge:18446744073709551615|c\nhuge:18446744073709551615|c\nhuge:1e300|c\n");
    assert_eq!(shown(&table), ["huge 1e300"]);
}

#[test]
fn a_second_type_gets_an_end_to_its_name() {
    let mut table = plain();
    table.packet(b"a:1|c\na:2|g\na:3|h\na:m|s\na:1|c\na:2|g\n");
    let all = shown(&table);
    for one in ["a 2", "a_gauge 2", "a_summary_sum 3", "a_set 1"] {
        assert!(all.contains(&one.to_owned()), "{one}: {all:?}");
    }
    // The samples of a summary have names too.
    table.packet(b"b:1|h\nb_count:2|c\nc_sum:1|g\nc:1|h\na_gauge:1|c\n");
    let all = shown(&table);
    for one in [
        "b_count 1",
        "b_count_counter 2",
        "c_sum 1",
        "c_summary_sum 1",
        "a_gauge_counter 1",
    ] {
        assert!(all.contains(&one.to_owned()), "{one}: {all:?}");
    }
    assert_eq!(told(&table, "podkit_metrics_statsd_split_families"), [" 6"]);
}

#[test]
fn beyond_max_series_sums_are_kept_together() {
    let mut table = Table::new(Mapping::none(2), Dialects::ALL, 2, [1, 2]);
    table.packet(b"a:1|c\nb:1|c\nc:1|c|@0.5\nd:4|c\nd:1|g\ne:1|ms\nf:x|s\na:1|c\n");
    assert_eq!(shown(&table), ["a 2", "b 1"]);
    assert_eq!(
        told(&table, "podkit_metrics_statsd_overflow_value_total"),
        [" 6"]
    );
    let samples = told(&table, "podkit_metrics_statsd_overflow_samples_total");
    assert_eq!(
        samples,
        [
            "{type=\"counter\"} 2",
            "{type=\"gauge\"} 1",
            "{type=\"observer\"} 1",
            "{type=\"set\"} 1",
        ]
    );
    // When there is room again, they have it.
    table.at(2.0);
    table.packet(b"a:1|c\n");
    table.at(3.0);
    table.expire();
    assert_eq!(shown(&table), ["a 3"]);
    table.packet(b"d:1|g\n");
    assert_eq!(shown(&table), ["a 3", "d 1"]);
    assert_eq!(
        told(&table, "podkit_metrics_statsd_expired_series_total"),
        [" 1"]
    );
}

#[test]
fn what_was_forgotten_begins_anew_and_its_name_is_free() {
    let mut table = with("mappings:\n- {match: short.*, name: short, labels: {l: $1}, ttl: 5s}\n");
    table.packet(b"short.a:1|c\nshort.b:1|c\nlong:1|c\n");
    table.at(5.9);
    table.expire();
    assert_eq!(
        shown(&table),
        ["long 1", "short{l=\"a\"} 1", "short{l=\"b\"} 1"]
    );
    table.packet(b"short.b:1|c\n");
    table.at(6.0);
    table.expire();
    assert_eq!(shown(&table), ["long 1", "short{l=\"b\"} 2"]);
    table.packet(b"short.a:7|c\n");
    assert_eq!(
        shown(&table),
        ["long 1", "short{l=\"a\"} 7", "short{l=\"b\"} 2"]
    );
    table.at(100.0);
    table.expire();
    table.packet(b"short.a:1|g\n");
    assert_eq!(shown(&table), ["long 1", "short{l=\"a\"} 1"]);
}

#[test]
fn another_mapping_keeps_what_was_counted() {
    let rules = |name: &str| format!("mappings:\n- {{match: a.*, name: {name}, scale: 2}}\n");
    let mut table = with(&rules("one"));
    table.packet(b"a.x:1|c\nb:1|c\n");
    let two = mapping::parse("map.yml", &rules("two"), 0).unwrap();
    table.remap(two);
    table.packet(b"a.x:1|c\nb:1|c\n");
    assert_eq!(shown(&table), ["b 2", "one 2", "two 2"]);
}

#[test]
fn summaries_and_sets_forget_what_is_old() {
    let map = "defaults: {summary_options: {max_age: 30s, age_buckets: 3, quantiles: [{quantile: 0.5}]}}\n";
    let mut table = with(map);
    table.packet(b"a:1|h\nusers:ann|s\n");
    table.at(10.0);
    table.packet(b"a:3|h\na:3|h\nusers:bob|s\n");
    let now = |table: &Table| shown(table)[2..].join(" ");
    assert_eq!(now(&table), "a{quantile=\"0.5\"} 3 users 2");
    // The first part of the thirty seconds is over.
    table.at(30.0);
    assert_eq!(now(&table), "a{quantile=\"0.5\"} 3 users 1");
    table.at(40.0);
    assert_eq!(now(&table), "a{quantile=\"0.5\"} NaN users 0");
    assert_eq!(&shown(&table)[..2], ["a_count 3", "a_sum 7"]);
    table.packet(b"a:5|h\n");
    assert_eq!(now(&table), "a{quantile=\"0.5\"} 5 users 0");
}

#[test]
fn quantiles_and_sets_are_near_whatever_the_values() {
    let mut table = plain();
    let mut state = 1_u64;
    let mut values: Vec<f64> = Vec::new();
    let mut lines = String::new();
    for at in 0..100_000_u32 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Thirty magnitudes, both signs.
        let exponent = i32::try_from(state >> 59).unwrap() - 16;
        let sign = if state & 1 << 20 == 0 { 1.0 } else { -1.0 };
        let value = sign * f64::from(at + 1) * 10_f64.powi(exponent);
        values.push(value);
        lines += &format!("v:{value:e}|h\nu:{at}|s\n");
    }
    table.packet(lines.as_bytes());
    values.sort_by(f64::total_cmp);
    let all = series(&text(&table));
    for (label, rank) in [("0.5", 50_000), ("0.9", 90_000), ("0.99", 99_000)] {
        let got: f64 = all[&format!("v{{quantile=\"{label}\"}}")].parse().unwrap();
        // Some of its neighbours by rank, and as near by value as bins over all magnitudes are.
        let low = values[rank - 2000].min(values[rank - 2000] * 0.7);
        let high = values[rank + 900].max(values[rank + 900] * 1.4);
        assert!(
            (low..=high).contains(&got),
            "{label}: {got} of {}",
            values[rank]
        );
    }
    let users: f64 = all["u"].parse().unwrap();
    assert!((users / 100_000.0 - 1.0).abs() < 0.05, "{users}");
}

#[test]
fn quantiles_of_ordinary_times_are_within_half_a_percent() {
    let mut table = plain();
    for at in 0..10_000 {
        table.packet(format!("t:{}|ms", 20 + at % 100).as_bytes());
    }
    let all = series(&text(&table));
    for (label, right) in [("0.5", 0.069), ("0.9", 0.109), ("0.99", 0.118)] {
        let got: f64 = all[&format!("t{{quantile=\"{label}\"}}")].parse().unwrap();
        assert!((got / right - 1.0).abs() < 0.005, "{label}: {got}");
    }
}
