//! Quantities, against the API's own rules.

use proptest::prelude::*;

use crate::manifest::Quantity;

fn milli(text: &str) -> i64 {
    text.parse::<Quantity>()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .milli()
}

fn value(text: &str) -> i64 {
    text.parse::<Quantity>()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .value()
}

#[test]
fn every_suffix() {
    for (text, expected) in [
        ("0", 0),
        ("1", 1),
        ("+1", 1),
        ("-1", -1),
        ("1k", 1000),
        ("1M", 1_000_000),
        ("1G", 1_000_000_000),
        ("1T", 1_000_000_000_000),
        ("1P", 1_000_000_000_000_000),
        ("1E", 1_000_000_000_000_000_000),
        ("1Ki", 1 << 10),
        ("1Mi", 1 << 20),
        ("1Gi", 1 << 30),
        ("1Ti", 1 << 40),
        ("1Pi", 1 << 50),
        ("1Ei", 1 << 60),
        ("1.5Gi", 3 << 29),
        (".5Ki", 512),
        ("1.Ki", 1024),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e+3", 1000),
        ("1500e-2", 15),
        ("0.1", 1),
        ("100m", 1),
        ("1n", 1),
        ("-0.5", 0),
        ("0001", 1),
        ("9223372036854775807", i64::MAX),
        ("9223372036854775808", i64::MAX),
        ("100E", i64::MAX),
        ("100Ei", i64::MAX),
        ("1e1000000000000", i64::MAX),
        ("1e-1000000000000", 1),
        ("0e99999999999999999999", 0),
        ("-100E", -i64::MAX),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
    for (text, expected) in [
        ("100m", 100),
        ("0.5", 500),
        ("2", 2000),
        ("1u", 1),
        ("0.1m", 1),
        ("1500000u", 1500),
        ("1e-3", 1),
        ("1.0005", 1001),
    ] {
        assert_eq!(milli(text), expected, "{text}");
    }
    assert_eq!(
        "9223372036854775806.123456789"
            .parse::<Quantity>()
            .unwrap()
            .value(),
        i64::MAX
    );
}

#[test]
fn what_is_none() {
    for text in [
        "", " 1", "1 ", "1.2.3", ".", "Gi", "1GB", "1K", "1e", "1e1.5", "--1", "1ki", "1i", "1mm",
        "0x10", "1,5", "1_0",
    ] {
        assert!(text.parse::<Quantity>().is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in "[-+]?[0-9.]{0,40}[a-zA-Z]{0,3}[-+]?[0-9]{0,20}") {
        let _parsed = text.parse::<Quantity>();
    }

    #[test]
    fn whole_numbers_are_themselves(n in 0i64..1 << 52, k in 0u32..4) {
        let suffix = ["", "Ki", "k", "M"][k as usize];
        let factor = [1i64, 1024, 1000, 1_000_000][k as usize];
        let n = n / factor;
        prop_assert_eq!(value(&format!("{n}{suffix}")), n * factor);
        prop_assert_eq!(milli(&format!("{n}m")), n);
    }

    #[test]
    fn more_digits_are_never_less(a in 0u64..1_000_000, fraction in "[0-9]{1,45}") {
        let with: Quantity = format!("{a}.{fraction}").parse().unwrap();
        let without: Quantity = format!("{a}").parse().unwrap();
        prop_assert!(with >= without);
        prop_assert!(with.value() <= without.value() + 1);
    }
}
