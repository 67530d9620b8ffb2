//! Lines of all dialects, and what is wrong with others.

use super::*;

#[test]
fn lines_are_read() {
    let check = |lines: &str, expected: &[&str]| {
        let mut table = plain();
        table.packet(lines.as_bytes());
        assert_eq!(shown(&table), expected, "{lines}");
        assert_eq!(
            told(&table, "podkit_metrics_statsd_bad_lines_total"),
            [""; 0],
            "{lines}"
        );
    };
    check("a.b-c:1|c\r\n\na.b-c:2|c\n", &["a_b_c 3"]);
    check("a:1|c|@0.1", &["a 10"]);
    check("a:1|c:2|c|@0.5:3|c", &["a 8"]);
    check("a:5|g\na:+2|g\na:-3|g", &["a 4"]);
    check("a:-3|g\na:2|g", &["a 2"]);
    check("a:1|c|#k:v,l:w\na:1|c|#l:w,k:v", &["a{k=\"v\",l=\"w\"} 2"]);
    check("a,k=v:1|c\na#k=v:1|c\na[k=v]:1|c", &["a{k=\"v\"} 3"]);
    check("a:1|c|#url:http://x", &["a{url=\"http://x\"} 1"]);
    check(
        "a:1|c|c:ci-1|T1656581400|e:it-f|card:low",
        &["a{container_id=\"ci-1\"} 1"],
    );
    check(
        "a:1|c|c:x:2|c|c:y",
        &["a{container_id=\"x\"} 1", "a{container_id=\"y\"} 2"],
    );
    check(
        "a:1|c|@0.5|#k:v|c:id",
        &["a{container_id=\"id\",k=\"v\"} 2"],
    );
    check(
        "a:1:2:3|d|@0.5|#k:v",
        &[
            "a_count{k=\"v\"} 6",
            "a_sum{k=\"v\"} 12",
            "a{k=\"v\",quantile=\"0.5\"} 2",
            "a{k=\"v\",quantile=\"0.9\"} 3",
            "a{k=\"v\",quantile=\"0.99\"} 3",
        ],
    );
    check(
        "a:250|ms",
        &[
            "a_count 1",
            "a_sum 0.25",
            "a{quantile=\"0.5\"} 0.25",
            "a{quantile=\"0.9\"} 0.25",
            "a{quantile=\"0.99\"} 0.25",
        ],
    );
    check("users:ann|s\nusers:bob|s\nusers:ann|s", &["users 2"]);
    check(
        "a:1|c|#__name__:x,__:y,k k:z",
        &["a{_=\"y\",_name__=\"x\",k_k=\"z\"} 1"],
    );
    check(
        "a:1|h|#quantile:x",
        &[
            "a_count{exported_quantile=\"x\"} 1",
            "a_sum{exported_quantile=\"x\"} 1",
            "a{exported_quantile=\"x\",quantile=\"0.5\"} 1",
            "a{exported_quantile=\"x\",quantile=\"0.9\"} 1",
            "a{exported_quantile=\"x\",quantile=\"0.99\"} 1",
        ],
    );
    check("_e{5,4}:title|text|#a:b\n_sc|up|0\n_sc|up|1", &[]);
}

#[test]
fn what_is_wrong_is_counted_by_its_reason() {
    let check = |line: &[u8], reason: &str| {
        let mut table = plain();
        // The second time it is known already.
        for _ in 0..2 {
            table.packet(line);
        }
        let line = String::from_utf8_lossy(line);
        let errors = told(&table, "statsd_exporter_sample_errors_total");
        assert_eq!(errors, [format!("{{reason=\"{reason}\"}} 2")], "{line}");
        assert_eq!(
            told(&table, "podkit_metrics_statsd_bad_lines_total"),
            [" 2"]
        );
        assert_eq!(shown(&table), [""; 0], "{line}");
    };
    check(b"a", "malformed_line");
    check(b":1|c", "malformed_line");
    check(b"\xff:1|c", "malformed_line");
    check(b"a:1|c|#k:\xff", "malformed_line");
    check(b"a:1", "not_enough_parts_after_colon");
    check(b"a,b=c:1|c|#d:e", "mixed_tagging_styles");
    check(b"a:1:2|c", "invalid_extended_aggregate_type");
    check(b"a:1|c||@0.1", "malformed_component");
    check(b"a:1|c|T1|T1|T1|T1|T1|T1|T1", "malformed_component");
    for value in ["", "x", "+", "1x", "inf", "NaN", "1e999", "--1", "0x1p4"] {
        check(format!("a:{value}|c").as_bytes(), "malformed_value");
    }
    check(b"a:|s", "malformed_value");
    for rate in ["", "x", "2", "-0.1", "inf"] {
        check(format!("a:1|c|@{rate}").as_bytes(), "invalid_sample_factor");
    }
    check(b"a:1|c|x", "invalid_sample_factor");
    check(b"a:1|c|c:", "malformed_container_id");
    check(b"a:1|q", "illegal_event");
    check(b"a:1|", "illegal_event");
    check(&[&[b'a'; 5000][..], b":1|c"].concat(), "name_too_long");
}

#[test]
fn what_is_no_error_of_the_line_is_counted_too() {
    let mut table = plain();
    table.packet(b"a:-1|c\n#k=v:1|c\na:1|c|#k,l:\n_e{1,1}:a|b\n_sc|a|0\n");
    assert_eq!(shown(&table), ["a 1"]);
    assert_eq!(told(&table, "statsd_exporter_lines_total"), [" 5"]);
    assert_eq!(told(&table, "statsd_exporter_tag_errors_total"), [" 2"]);
    let errors = told(&table, "statsd_exporter_events_error_total");
    assert_eq!(
        errors,
        [
            "{reason=\"empty_metric_name\"} 1",
            "{reason=\"illegal_negative_counter\"} 1",
        ]
    );
    let skipped = told(&table, "podkit_metrics_statsd_skipped_lines_total");
    assert_eq!(
        skipped,
        ["{kind=\"event\"} 1", "{kind=\"service_check\"} 1"]
    );
}

#[test]
fn dialects_can_be_left_out() {
    let mapping = Mapping::none(0);
    let mut table = Table::new(mapping, Dialects::parse("none").unwrap(), 10, [1, 2]);
    table.packet(b"a,k=v:1|c\na#k=v:1|c\na[k=v]:1|c\nb:1|c|#k:v");
    assert_eq!(shown(&table), ["a_k_v 2", "a_k_v_ 1", "b 1"]);
}
