//! What applications send, and the mapping file.

use podkit_foundation::fuzz::{Target, pieces};

use super::lines::{Lines, Piece};
use super::mapping::{self, Mapping};
use super::name::Dialects;
use super::show::show;
use super::table::Table;
use crate::metrics::fuzz::check_page;

fn table(mapping: Mapping) -> Table {
    Table::new(mapping, Dialects::ALL, 100, [1, 2])
}

/// A stream of them.
pub(crate) const LINES: Target = Target {
    name: "statsd-lines",
    seeds: &[
        b"\x05a:1|c\nb.c:-3.5|g\nd:320|ms|@0.1\ne:x|s\na:1|c:2|g\n",
        b"\x01f:1:2:3|ms|#k:v,l\ng,k=v:1|c\nh#k=v:1|c\ni[k=v]:1|c\nj:1|c|#k:v|c:ID|T1656581400\n",
        b"\xff_e{5,4}:title|text\n_sc|name|0\nk:+1|g\nl:1e308|h\r\n\nm:1|d|@0\n",
    ],
    run: |bytes| {
        let mut whole = table(Mapping::none(0));
        whole.packet(bytes.get(1..).unwrap_or_default());
        let (mut cut, mut stream) = (table(Mapping::none(0)), Lines::default());
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Whole(lines) => cut.packet(lines),
            Piece::TooLong => cut.too_long(),
        };
        for piece in pieces(bytes) {
            stream.feed(piece, &mut take);
        }
        stream.end(&mut take);
        assert_eq!(cut.len(), whole.len(), "the pieces matter");
        check_page(&show(&whole));
    },
};

pub(crate) const MAPPING: Target = Target {
    name: "statsd-mapping",
    seeds: &[
        b"defaults: {observer_type: histogram, ttl: 5m, histogram_options: {buckets: [0.1, 1]}}\nmappings:\n\
          - {match: a.*.c, name: 'x_${1}', labels: {l: $1}}\n\
          - {match: 'd\\.(.*)', match_type: regex, name: y, action: map, match_metric_type: gauge}\n\
          - {match: e.*, name: z, action: drop}\n",
        b"mappings:\n- match: '*'\n  name: all\n  observer_type: summary\n  scale: 0.001\n  summary_options:\n\
          \x20   quantiles: [{quantile: 0.9, error: 0.01}]\n    max_age: 30s\n    age_buckets: 3\n",
    ],
    run: |bytes| {
        if let Ok(mapping) = mapping::parse("file", &String::from_utf8_lossy(bytes), 0) {
            let mut table = table(mapping);
            table.packet(b"a.b.c:1|c\na.d.c:2|g\nd.x:3|ms|#l:m\ne.f:4|h\ne.f:4|s\ng:5|d\na.b.c:1|c\na.b.c:1|ms");
            check_page(&show(&table));
        }
    },
};
