use super::*;
use crate::metrics::batch::Batch;
use crate::metrics::source::shown;
use proptest::prelude::{Just, Strategy as _, any, prop_oneof, proptest};

/// What is taken of a page.
fn taken(text: &str, dialect: Dialect) -> Result<Batch, String> {
    let mut batch = Batch::default();
    crate::metrics::source::prometheus::add(text, dialect, &[], false, &mut batch)?;
    Ok(batch)
}

#[test]
fn the_older_format_is_read() {
    let text = "# HELP http_requests_total The \\\\ \\n total\n# TYPE http_requests_total counter\n\
        http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
        http_requests_total { method = \"a\\\"b\\\\c\\nd\" , code=\"400\", }  3\n\
        \n# a comment\n#nothing\n# UNIT x y\n\
        \tmetric_without_timestamp_and_labels 12.47\nsomething_weird{problem=\"division by zero\"}+Inf -3982045\n\
        # TYPE h histogram\nh_bucket{le=\"0.05\"} 24054\nh_bucket{le=\"+Inf\"} 144320\nh_sum 53423\nh_count 144320\n\
        # TYPE s summary\ns{quantile=\"0.01\"} 3102\ns_sum 1.7560473e+07\ns_count 2693\ns_max 5\n\
        # TYPE h_max gauge\nh_max NaN";
    let batch = taken(text, Dialect::Plain).unwrap();
    assert_eq!(
        shown(&batch),
        r#"http_requests_total{method="post",code="200"} counter 1027
http_requests_total{method="a\"b\\c\nd",code="400"} counter 3
metric_without_timestamp_and_labels untyped 12.47
something_weird{problem="division by zero"} untyped inf
h_bucket{le="0.05"} histogram 24054
h_bucket{le="+Inf"} histogram 144320
h_sum histogram 53423
h_count histogram 144320
s{quantile="0.01"} summary 3102
s_sum summary 17560473
s_count summary 2693
s_max untyped 5
h_max gauge NaN
"#
    );
    assert_eq!(batch.families()[0].help, "The \\ \n total");
    assert_eq!(shown(&taken("", Dialect::Plain).unwrap()), "");
}

#[test]
fn openmetrics_is_read_and_gets_the_names_of_the_other() {
    let text = "# TYPE a counter\n# HELP a An \\\"a\\\".\na_total{x=\"y\"} 1.0 1.5 # {trace_id=\"z\"} 0.67 1.2\na_created{x=\"y\"} 1e9\n\
        # TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 2\n# TYPE c info\nc_info{v=\"1\"} 1\n\
        # TYPE d stateset\nd{d=\"on\"} 1\n# TYPE e gaugehistogram\ne_bucket{le=\"+Inf\"} 3\ne_gcount 3\ne_gsum 4\n\
        # TYPE f histogram\nf_bucket{le=\"+Inf\"} 3 # {} 1\nf_count 3\nf_sum 4\nf_created 5\n\
        # TYPE g unknown\ng 6\nno_type 7\n# EOF\n";
    let batch = taken(text, Dialect::Open).unwrap();
    assert_eq!(
        shown(&batch),
        r#"a_total{x="y"} counter 1
a_created{x="y"} gauge 1000000000
b_seconds gauge 2
c_info{v="1"} gauge 1
d{d="on"} gauge 1
e_bucket{le="+Inf"} gauge 3
e_gcount gauge 3
e_gsum gauge 4
f_bucket{le="+Inf"} histogram 3
f_count histogram 3
f_sum histogram 4
f_created gauge 5
g untyped 6
no_type untyped 7
"#
    );
    assert_eq!(batch.families()[0].help, "An \"a\".");
    taken("# EOF", Dialect::Open).unwrap();
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let plain = |text: &str, why: &str| {
        assert_eq!(taken(text, Dialect::Plain).unwrap_err(), why, "{text}");
    };
    plain("a 1\n<html>\n", "line 2: no name at \"<html>\"");
    plain("a", "line 1: no value after a");
    plain("a x", "line 1: \"x\" is not a number");
    plain("a 0x1p3", "line 1: \"0x1p3\" is not a number");
    plain("a 1 2 3", "line 1: more than a value and a time: \"3\"");
    plain("a 1 1.5", "line 1: \"1.5\" is not a time");
    plain(
        "a 1 # {} 1",
        "line 1: more than a value and a time: \"# {} 1\"",
    );
    plain("a{b} 1", "line 1: no = after the label b");
    plain("a{b=c} 1", "line 1: the value of the label b has no quotes");
    plain(
        "a{b=\"c} 1",
        "line 1: the value of the label b does not end",
    );
    plain(
        "a{b=\"c\\\"} 1",
        "line 1: the value of the label b does not end",
    );
    plain(
        "a{b=\"c\"d=\"e\"} 1",
        "line 1: neither , nor } at \"d=\\\"e\\\"} 1\"",
    );
    plain("a{b=\"1\",b=\"2\"} 1", "line 1: two labels b");
    plain("a{,} 1", "line 1: no label's name at \",} 1\"");
    plain("{\"a\"} 1", "line 1: no name at \"{\\\"a\\\"} 1\"");
    plain("a{b:c=\"1\"} 1", "line 1: no = after the label b");
    plain("a{b=\"1\"}", "line 1: the end is not a number");
    plain("# TYPE a what\n", "line 1: \"what\" is no type");
    plain("# TYPE a info\n", "line 1: \"info\" is no type");
    plain(
        "# TYPE a gauge\n# TYPE a gauge\n",
        "line 2: a second TYPE of a",
    );
    plain("# HELP a b\n# HELP a b\n", "line 2: a second HELP of a");
    plain(
        "a 1\n# TYPE a gauge\n",
        "line 2: TYPE of a comes after its samples",
    );
    plain(
        "# TYPE a histogram\na 1\n",
        "line 2: a is a histogram: its samples end in _bucket, _sum, _count",
    );
    plain(
        "# TYPE a histogram\na_bucket 1\n",
        "line 2: a_bucket has no label le",
    );
    plain(
        "# TYPE a summary\na{quantile=\"x\"} 1\n",
        "line 2: quantile=\"x\" is not a number",
    );
    let open = |text: &str, why: &str| {
        assert_eq!(taken(text, Dialect::Open).unwrap_err(), why, "{text}");
    };
    open("a 1\n", "does not end with # EOF");
    open("", "does not end with # EOF");
    open("a 1", "its last line does not end");
    open("# EOF\na 1\n", "line 2: comes after # EOF");
    open("\n# EOF\n", "line 1: is empty");
    open("a  1\n# EOF\n", "line 1: the end is not a number");
    open("a 1 \n# EOF\n", "line 1: \"\" is not a time");
    open(
        "# hello\n# EOF\n",
        "line 1: is neither # HELP, # TYPE, # UNIT nor # EOF",
    );
    open(
        "# UNIT a_b seconds\n# EOF\n",
        "line 1: a_b does not end in its unit, seconds",
    );
    open(
        "# TYPE a counter\na 1\n# EOF\n",
        "line 2: a is a counter: its samples end in _total, _created",
    );
    open(
        "a 1 # {b=\"c\"}\n# EOF\n",
        "line 1: an exemplar has no value",
    );
    assert!(Dialect::of("text/html; charset=utf-8").is_err());
}

proptest! {
    /// What podkit writes in either format is read as what it was, wherever the page is cut it is an error or a part.
    #[test]
    fn what_is_written_is_read(
        values in proptest::collection::vec((any::<f64>(), "\\PC{0,5}[\\\\\"\n]?\\PC{0,5}", 0_usize..3), 1..6),
        help in "\\PC{0,10}[\\\\\"\n]?\\PC{0,3}",
        open in any::<bool>(),
        cut: usize,
    ) {
        use crate::metrics::expose::{Style, expose};
        use podkit_foundation::telemetry::metrics::Format;
        let mut batch = Batch::default();
        for (at, (value, label, kind)) in values.iter().enumerate() {
            let at = at.to_string();
            let labels = [("n", at.as_str()), ("l", label.as_str())];
            let (name, kind) = [("a_total", Kind::Counter), ("b", Kind::Gauge), ("h", Kind::Histogram)][*kind];
            let family = batch.family(name, kind, help.clone());
            match kind {
                Kind::Histogram => {
                    family.put_line(Line::Bucket, &[labels[0], labels[1], ("le", "+Inf")], *value);
                    family.put_line(Line::Sum, &labels, *value).put_line(Line::Count, &labels, *value)
                }
                _ => family.put(&labels, *value),
            };
        }
        let (format, dialect) = match open {
            true => (Format::OpenMetrics, Dialect::Open),
            false => (Format::Prometheus, Dialect::Plain),
        };
        let text = expose(&[("", &batch)], Style { format, strict: false });
        let again = taken(&text, dialect).unwrap();
        assert_eq!(shown(&again), shown(&batch), "{text}");
        // Of the older format, blanks before a help are none of it.
        let before = &batch.families()[0].help;
        let before = if open { before } else { before.trim_start_matches(BLANKS) };
        assert_eq!(again.families()[0].help, before);
        let cut = (0..=cut % (text.len() + 1)).rev().find(|cut| text.is_char_boundary(*cut)).unwrap();
        let part = taken(&text[..cut], dialect);
        // The last # EOF may be without its end of line.
        assert!(!open || part.is_err() || cut + 1 >= text.len());
    }

    #[test]
    fn no_text_upsets_it(
        text in proptest::collection::vec(prop_oneof![
            Just("# TYPE "), Just("# HELP "), Just("# EOF"), Just("\n"), Just(" "), Just("{"), Just("}"), Just("a"),
            Just("_bucket"), Just("histogram"), Just("=\""), Just("\""), Just("\\"), Just(","), Just("1"), Just("é"),
        ], 0..40).prop_map(|parts| parts.concat()),
        open in any::<bool>(),
    ) {
        let dialect = if open { Dialect::Open } else { Dialect::Plain };
        taken(&text, dialect).ok();
    }
}
