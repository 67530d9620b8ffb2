//! The kernel's formats.

use crate::topz::stat::*;

const LINE: &str = "7 (a) S 3 7 7 0 -1 4194560 100 0 0 0 30 12 5 6 20 0 4 0 1000 409600 25 18446744073709551615 1 2 \
                    140725 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 5 6 7 8 9 10 11 0\n";

#[test]
fn every_field_that_is_used() {
    let reading = parse_stat(LINE.as_bytes()).unwrap();
    assert_eq!(
        (reading.pid, reading.ppid, reading.state, reading.threads),
        (7, 3, b'S', 4)
    );
    assert_eq!(
        (reading.ticks, reading.children, reading.start, reading.rss),
        (42, 11, 1000, 25)
    );
    assert_eq!(
        (reading.exec, reading.kernel, reading.comm.as_bytes()),
        (140_725, false, &b"a"[..])
    );
    let kernel = LINE.replace("4194560", "2129984");
    assert!(parse_stat(kernel.as_bytes()).unwrap().kernel);
}

#[test]
fn a_name_may_hold_anything() {
    for name in [
        "a b",
        "a) S 1 (b",
        ")))",
        "(",
        "",
        "x\ny",
        "1 (2) 3",
        "\u{1F980}",
    ] {
        let line = LINE.replacen("(a)", &format!("({name})"), 1);
        let reading = parse_stat(line.as_bytes()).unwrap_or_else(|| panic!("{name:?}"));
        assert_eq!(
            reading.comm.as_bytes(),
            &name.as_bytes()[..name.len().min(15)]
        );
        assert_eq!(
            (reading.pid, reading.ppid, reading.start),
            (7, 3, 1000),
            "{name:?}"
        );
    }
}

#[test]
fn what_is_no_stat_line_is_none() {
    for text in [
        "",
        "7",
        "7 (a",
        "7 a) S",
        "x (a) S 1",
        "7 (a) S 1 2 3",
        "7 (a)",
    ] {
        assert_eq!(parse_stat(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn our_own_line_is_understood() {
    let line = std::fs::read("/proc/self/stat").unwrap();
    let reading = parse_stat(&line).unwrap();
    assert_eq!(reading.pid, std::process::id());
    assert!(reading.rss > 0 && reading.threads > 0 && reading.exec > 0 && !reading.kernel);
}

#[test]
fn small_files() {
    assert_eq!(parse_uid(b"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\n"), Some(2));
    assert_eq!(parse_last_pid(b"0.02 0.38 0.31 1/87 12243\n"), Some(12243));
    assert_eq!(parse_last_pid(b"12246\n"), Some(12246));
    let pressure = b"some avg10=1.33 avg60=0.61 avg300=0.93 total=15611081\nfull avg10=9.00 avg60=0 avg300=0 total=0\n";
    assert_eq!(parse_pressure(pressure), Some(1.33));
    assert_eq!(
        spaced(
            b"usage_usec 5\nnr_throttled 3\nnr_throttled_x 4\n",
            "nr_throttled"
        ),
        Some(3)
    );
    assert_eq!(
        keyed(b"rchar: 1\nread_bytes: 42\n", "read_bytes"),
        Some(&b"42"[..])
    );
    assert_eq!(
        (number(b"18446744073709551616"), number(b"+1"), number(b"")),
        (None, None, None)
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_can_upset_it(bytes: Vec<u8>) {
        let _ = (parse_stat(&bytes), parse_uid(&bytes), parse_last_pid(&bytes), parse_pressure(&bytes));
    }

    #[test]
    fn a_cut_line_gives_the_same_or_nothing(length in 0usize..250) {
        let whole = parse_stat(LINE.as_bytes()).unwrap();
        if let Some(part) = parse_stat(&LINE.as_bytes()[..length.min(LINE.len())]) {
            proptest::prop_assert_eq!((part.pid, part.ppid, part.ticks, part.start), (whole.pid, whole.ppid, whole.ticks, whole.start));
        }
    }
}
