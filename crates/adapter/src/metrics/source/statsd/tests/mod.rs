use std::collections::BTreeMap;

use podkit_foundation::params::ParamType as _;
use podkit_foundation::telemetry::metrics::Format;

use super::mapping::{self, Mapping};
use super::name::Dialects;
use super::table::Table;
use super::{Options, Spec, options, show};
use crate::metrics::expose::{Style, expose};

mod dialects;
mod network;
mod peer;
mod properties;
mod values;

/// Series by name and labels, as they are written.
type Shown = BTreeMap<String, String>;

/// A table with a mapping.
fn with(mapping: &str) -> Table {
    let mapping = mapping::parse("map.yml", mapping, 0).unwrap();
    Table::new(mapping, Dialects::ALL, 1000, [1, 2])
}

fn plain() -> Table {
    Table::new(Mapping::none(0), Dialects::ALL, 1000, [1, 2])
}

/// As a scrape has it.
fn text(table: &Table) -> String {
    let style = Style {
        format: Format::Prometheus,
        strict: false,
    };
    expose(&[("", &show::show(table))], style)
}

fn series(text: &str) -> Shown {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.to_owned())
    };
    lines.map(pair).collect()
}

/// What lines became, without what is told of them.
fn shown(table: &Table) -> Vec<String> {
    let own = |name: &str| name.starts_with("statsd_exporter_") || name.starts_with("podkit_");
    let all = series(&text(table));
    all.iter()
        .filter(|(name, _)| !own(name))
        .map(|(name, value)| format!("{name} {value}"))
        .collect()
}

/// Those of a family whose value is not 0.
fn told(table: &Table, name: &str) -> Vec<String> {
    let all = series(&text(table));
    all.iter()
        .filter(|(series, value)| series.starts_with(name) && *value != "0")
        .map(|(series, value)| format!("{} {value}", series.strip_prefix(name).unwrap()))
        .collect()
}

#[test]
fn a_source_says_where_it_listens() {
    let read = |text: &str| options(&Spec::parse(text).unwrap());
    let places = |text: &str| {
        let Options { places, .. } = read(text).unwrap();
        let show = |addr: Option<podkit_foundation::params::Addr>| {
            addr.map(|addr| addr.to_string()).unwrap_or_default()
        };
        let unix = places
            .unixgram
            .map(|(path, mode)| format!("{} {mode:o}", path.display()));
        format!(
            "{}|{}|{}",
            show(places.udp),
            show(places.tcp),
            unix.unwrap_or_default()
        )
    };
    assert_eq!(places("statsd://"), ":9125|:9125|");
    assert_eq!(places("statsd://127.0.0.1;proto=udp"), "127.0.0.1:9125||");
    assert_eq!(
        places("statsd://:1;proto=tcp;unixgram=/run/s"),
        "|:1|/run/s 755"
    );
    assert_eq!(places("statsd://unix:/run/s;mode=0777"), "||/run/s 777");
    let said =
        read("statsd://:1;ttl=1500ms;max-series=7;relay=h:2;tags=influxdb;mapping=/m").unwrap();
    assert_eq!((said.ttl, said.max_series), (2, 7));
    assert_eq!(said.relay.unwrap().to_string(), "h:2");
    assert!(said.dialects.influxdb && !said.dialects.librato);
    for (text, why) in [
        ("statsd://:1/x", "\"/x\" follows the port; nothing can"),
        (
            "statsd://:1;proto=sctp",
            "proto: \"sctp\" is neither udp nor tcp",
        ),
        (
            "statsd://:1;mode=0777",
            "mode: there is no unix socket that could have it",
        ),
        (
            "statsd://unix:/s;mode=9",
            "mode: \"9\" is not octal digits such as 0777",
        ),
        (
            "statsd://unix:/s;proto=udp",
            "a unix socket takes neither proto nor unixgram",
        ),
        (
            "statsd://:1;max-series=0",
            "max-series: \"0\" is not 1 to 100000000",
        ),
        ("statsd://:1;ttl=1", "ttl: \"1\" is not a time such as 10m"),
        ("statsd://:1;relay=h", "relay: "),
        (
            "statsd://:1;tags=x",
            "tags: \"x\" is not one of dogstatsd, influxdb, librato, signalfx",
        ),
        (
            "statsd://:1;read-buffer=1",
            "read-buffer: \"1\" is not 4Ki to 1Gi",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(why), "{text}: {error}");
    }
}
