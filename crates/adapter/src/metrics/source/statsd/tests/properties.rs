//! Whatever comes, and however it is cut.

use proptest::prelude::*;

use super::*;
use crate::metrics::source::statsd::line::{Key, Other, Reason, Said, Sink, read};
use crate::metrics::source::statsd::lines::{Lines, Piece};
use crate::metrics::source::statsd::table::times;

/// Words that lines are made of, so that many are right, and many nearly so.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = vec![
        b"a",
        b"b.c",
        b":",
        b":",
        b"|",
        b"|",
        b"1",
        b"-2.5",
        b"c",
        b"g",
        b"ms",
        b"h",
        b"s",
        b"@0.5",
        b"#k:v",
        b"|#",
        b",",
        b"#",
        b"[",
        b"]",
        b"=",
        b"c:id",
        b"T1",
        b"\n",
        b"\r\n",
        b"\xff",
        b"_e{1,1}:",
        b"_sc|",
        b"e:",
        b"1e400",
    ];
    let word = prop_oneof![
        9 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

/// What was told of a line.
#[derive(Default)]
struct Told {
    samples: u64,
    events: u64,
    bad_samples: u64,
    bad_lines: u64,
    others: u64,
}

impl Sink for Told {
    fn sample(&mut self, key: Key<'_>, said: Said<'_>, rate: f64) {
        assert!(!key.name.is_empty() && rate > 0.0 && rate <= 1.0);
        if let Said::Number(number) = said {
            assert!(number.float.is_finite());
        }
        self.samples += 1;
        self.events += times(key.kind, rate);
    }

    fn bad_sample(&mut self, _: Reason) {
        self.bad_samples += 1;
    }

    fn bad_line(&mut self, _: Reason) {
        self.bad_lines += 1;
    }

    fn other(&mut self, _: Other) {
        self.others += 1;
    }
}

fn total(table: &Table, name: &str) -> f64 {
    let all = series(&text(table));
    let of = |series: &&String| series.split('{').next() == Some(name);
    let values = all.iter().filter(|(series, _)| of(series));
    values.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

proptest! {
    #[test]
    fn a_line_is_samples_or_bad_or_something_else(line in garbage()) {
        prop_assume!(!line.is_empty());
        let mut told = Told::default();
        read(&line, &mut told);
        let kinds = [told.samples + told.bad_samples > 0, told.bad_lines > 0, told.others > 0];
        prop_assert_eq!(kinds.iter().filter(|is| **is).count(), 1);
        prop_assert!(told.bad_lines < 2 && told.others < 2);
    }

    #[test]
    fn every_sample_is_counted_once(lines in garbage()) {
        let mut table = Table::new(Mapping::none(0), Dialects::ALL, 3, [1, 2]);
        table.packet(&lines);
        let mut told = Told::default();
        let mut count = 0.0;
        for line in lines.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                read(line, &mut told);
                count += 1.0;
            }
        }
        let of = |name: &str| total(&table, name);
        prop_assert_eq!(of("statsd_exporter_lines_total"), count);
        let bad_lines = told.bad_lines as f64;
        // Of these, a sample is one whatever it stands for.
        let refused = of("statsd_exporter_sample_errors_total") - bad_lines - told.bad_samples as f64;
        let lost = refused + of("statsd_exporter_events_error_total");
        let counted = of("statsd_exporter_events_total") + of("podkit_metrics_statsd_overflow_samples_total");
        prop_assert!(refused >= 0.0);
        let samples = of("statsd_exporter_samples_total") + refused;
        prop_assert_eq!(samples, (told.samples + told.bad_samples) as f64);
        prop_assert!(counted + lost <= told.events as f64);
        if told.events == told.samples {
            prop_assert_eq!(counted + lost, told.samples as f64);
        }
        prop_assert!(of("podkit_metrics_statsd_series") <= 3.0);
    }

    #[test]
    fn a_stream_says_the_same_however_it_is_cut(
        lines in garbage(),
        cuts in prop::collection::vec(1_usize..40, 1..50),
    ) {
        let mut whole = plain();
        whole.packet(&lines);
        let mut cut = plain();
        let mut stream = Lines::default();
        let mut rest = &lines[..];
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Whole(lines) => cut.packet(lines),
            Piece::TooLong => cut.too_long(),
        };
        for size in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, next) = rest.split_at((*size).min(rest.len()));
            stream.feed(chunk, &mut take);
            rest = next;
        }
        stream.end(&mut take);
        prop_assert_eq!(text(&whole), text(&cut));
    }
}

#[test]
fn a_line_that_is_too_long_is_one_bad_line() {
    for size in [1, 7, 4096, 16384] {
        let mut table = plain();
        let mut stream = Lines::default();
        let lines = [b"a:1|c\n", &[b'x'; 200_000][..], b"\nb:1|c\n"].concat();
        for chunk in lines.chunks(size) {
            stream.feed(chunk, |piece| match piece {
                Piece::Whole(lines) => table.packet(lines),
                Piece::TooLong => table.too_long(),
            });
        }
        assert_eq!(shown(&table), ["a 1", "b 1"]);
        assert_eq!(
            told(&table, "statsd_exporter_tcp_too_long_lines_total"),
            [" 1"]
        );
        assert_eq!(
            told(&table, "podkit_metrics_statsd_bad_lines_total"),
            [" 1"]
        );
    }
}
