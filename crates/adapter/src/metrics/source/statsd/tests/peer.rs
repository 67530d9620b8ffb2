//! Beside statsd_exporter: the same lines and the same mapping, and what version 0.26 of it answered (peer/expected.txt).

use std::collections::BTreeMap;

use super::*;

const LINES: &str = include_str!("peer/lines.txt");
const MAPPING: &str = include_str!("peer/map.yml");
const EXPECTED: &str = include_str!("peer/expected.txt");

/// What is otherwise on purpose, and why: docs/metrics.md.
const OTHERWISE: [&str; 5] = [
    // Nothing is lost by conflicts, and nothing dropped between the socket and the table.
    "statsd_exporter_events_conflict_total",
    "statsd_exporter_events_total",
    "statsd_exporter_metrics_total",
    // Of the socket, which this test has none of.
    "statsd_exporter_udp_packet_drops_total",
    "statsd_exporter_tcp_connections_total",
];

/// Types by family.
fn types(text: &str) -> BTreeMap<&str, &str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split_once(' ')).collect()
}

/// With labels in one order.
fn ordered(series: &Shown) -> BTreeMap<String, f64> {
    let order = |name: &str| {
        let Some((name, labels)) = name.split_once('{') else {
            return name.to_owned();
        };
        let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
        labels.sort_unstable();
        format!("{name}{{{}}}", labels.join(","))
    };
    let pair = |(name, value): (&String, &String)| (order(name), value.parse().unwrap());
    series.iter().map(pair).collect()
}

#[test]
fn the_same_lines_have_the_same_series() {
    let mut table = with(MAPPING);
    table.packet(LINES.as_bytes());
    let text = text(&table);
    let (ours, theirs) = (types(&text), types(EXPECTED));
    let is_same = |name: &str| !OTHERWISE.iter().any(|one| name.starts_with(one));
    for (family, kind) in theirs.iter().filter(|(name, _)| is_same(name)) {
        assert_eq!(ours.get(family), Some(kind), "{family}");
    }
    let (ours, theirs) = (ordered(&series(&text)), ordered(&series(EXPECTED)));
    for (name, value) in theirs.iter().filter(|(name, _)| is_same(name)) {
        let own = ours
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert!(
            (own - value).abs() <= value.abs() * 1e-12,
            "{name}: {own}, not {value}"
        );
    }
    let added: Vec<String> = ours
        .keys()
        .filter(|name| !theirs.contains_key(*name) && !name.starts_with("podkit_"))
        .filter(|name| is_same(name) && ours[*name] != 0.0)
        .cloned()
        .collect();
    assert_eq!(added, ["conflict_gauge", "scaled_bytes_counter"]);
}
