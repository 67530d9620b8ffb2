//! What text of a database means as a number.

use crate::client::Class;

/// A value of a column as a number; NULL is no number (NaN). None: it is not one at all.
pub(super) fn number(value: Option<&str>, class: Class) -> Option<f64> {
    let Some(text) = value else {
        return Some(f64::NAN);
    };
    match class {
        Class::Bool => Some(f64::from(text == "t")),
        Class::Time => time(text),
        Class::Text => text.trim().parse().ok(),
    }
}

/// A value of a column as a label, as postgres_exporter writes it.
pub(super) fn label(value: Option<&str>, class: Class) -> String {
    let text = value.unwrap_or_default();
    match class {
        Class::Bool if text == "t" => "true".to_owned(),
        Class::Bool if text == "f" => "false".to_owned(),
        Class::Time => time(text).map_or_else(|| text.to_owned(), |time| time.to_string()),
        _ => text.to_owned(),
    }
}

/// Whole seconds since 1970 of `2026-01-31`, `2026-01-31 10:00:00.5`, `2026-01-31 10:00:00+01:30`. Without an offset it is UTC.
pub(super) fn time(text: &str) -> Option<f64> {
    let (date, rest) = text.trim().split_at_checked(10)?;
    let mut parts = date.split('-');
    let mut next = || parts.next()?.parse::<i64>().ok();
    let (year, month, day) = (next()?, next()?, next()?);
    let days = days(year, month, day)?;
    if rest.is_empty() {
        return seconds(days, 0, 0);
    }
    let rest = rest.strip_prefix([' ', 'T'])?;
    let end = rest.find(['+', '-', 'Z']).unwrap_or(rest.len());
    let (clock, offset) = rest.split_at(end);
    let clock = clock.split('.').next()?;
    seconds(days, of_day(clock)?, of_offset(offset)?)
}

/// The same of `Jan 31 10:00:00 2026 GMT`, as OpenSSL writes it.
pub(super) fn openssl_time(text: &str) -> Option<f64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.split_ascii_whitespace();
    let month = words.next().filter(|month| month.len() == 3)?;
    let month = MONTHS.find(month).filter(|at| at % 3 == 0)?;
    let month = i64::try_from(month / 3 + 1).ok()?;
    let day: i64 = words.next()?.parse().ok()?;
    let clock = of_day(words.next()?)?;
    let year: i64 = words.next()?.parse().ok()?;
    // The zone, of which there is only one.
    words
        .next()
        .filter(|zone| *zone == "GMT" || *zone == "UTC")?;
    seconds(days(year, month, day)?, clock, 0)
}

#[expect(clippy::cast_precision_loss, reason = "seconds are far below 2^53")]
#[expect(
    clippy::unnecessary_wraps,
    reason = "ends functions that may have none"
)]
fn seconds(days: i64, clock: i64, offset: i64) -> Option<f64> {
    Some((days * 86_400 + clock - offset) as f64)
}

/// Days since 1970 by the calendar of today (Howard Hinnant's days_from_civil).
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// `10:00:00`.
fn of_day(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let mut next = |most: i64| {
        let part: i64 = parts.next()?.parse().ok()?;
        (0..=most).contains(&part).then_some(part)
    };
    let seconds = next(24)? * 3600 + next(59)? * 60 + next(60)?;
    parts.next().is_none().then_some(seconds)
}

/// `+01`, `-01:30`, `+01:30:15`, `Z`, or nothing.
fn of_offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1) {
        None | Some(("Z", "")) => return Some(0),
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        Some(_) => return None,
    };
    let mut seconds = 0;
    for (part, unit) in rest.split(':').zip([3600, 60, 1]) {
        seconds += part.parse::<i64>().ok()? * unit;
    }
    Some(sign * seconds)
}

/// Milliseconds of a duration as Go writes it: `1h2m3.5s`, `250ms`, `-1.5h`.
pub(super) fn milliseconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|part: char| !part.is_ascii_digit() && part != '.')?;
        let count: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|part: char| part.is_ascii_digit() || part == '.');
        let (unit, more) = rest.split_at(end.unwrap_or(rest.len()));
        sum += count
            * match unit {
                "ns" => 1e-6,
                "us" | "µs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3600e3,
                _ => return None,
            };
        rest = more;
    }
    (!text.is_empty()).then(|| sign * sum.trunc())
}

/// The numbers of an array: `{1,2.5}`.
pub(super) fn array(text: &str) -> Option<Vec<f64>> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    if inside.is_empty() {
        return Some(Vec::new());
    }
    let numbers = inside.split(',').map(|one| one.trim().parse().ok());
    numbers.collect()
}

/// A bound of a histogram as a label, as Go's client library writes it: `0.0001`, `1e-05`, `100000`, `1e+06`.
pub(super) fn bound(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let shown = format!("{value:e}");
    let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..=5 => value.to_string(),
        small @ ..0 => format!("{digits}e-{:02}", -small),
        large => format!("{digits}e+{large:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let check = |text: &str, expected: Option<f64>| assert_eq!(time(text), expected, "{text}");
        check("1970-01-01", Some(0.0));
        check("2000-02-29 12:00:01.9", Some(951_825_601.0));
        check("2026-11-29 02:47:25+00", Some(1_795_920_445.0));
        check("2026-11-29 04:17:25.123+01:30", Some(1_795_920_445.0));
        check("2026-11-29T02:47:25Z", Some(1_795_920_445.0));
        for none in [
            "",
            "0000-00-00 00:00:00",
            "infinity",
            "2026-13-01",
            "2026-01-01 1:2",
            "12",
        ] {
            check(none, None);
        }
        assert_eq!(
            openssl_time("Nov 29 02:47:25 2026 GMT"),
            Some(1_795_920_445.0)
        );
        assert_eq!(
            openssl_time("Nov  9 02:47:25 2026 GMT"),
            Some(1_794_192_445.0)
        );
        assert_eq!(openssl_time("ovD  9 02:47:25 2026 GMT"), None);
    }

    #[test]
    fn bounds_are_written_as_go_does() {
        for (value, shown) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (1e-4, "0.0001"),
            (1.5e-5, "1.5e-05"),
            (100_000.0, "100000"),
            (1_234_567.0, "1.234567e+06"),
            (-1e100, "-1e+100"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(bound(value), shown);
        }
    }

    #[test]
    fn numbers_durations_and_arrays_are_read() {
        assert_eq!(number(Some("t"), Class::Bool), Some(1.0));
        assert_eq!(number(Some("1e3"), Class::Text), Some(1000.0));
        assert!(number(None, Class::Text).unwrap().is_nan());
        assert_eq!(number(Some("00:01:02"), Class::Text), None);
        assert_eq!(label(Some("f"), Class::Bool), "false");
        assert_eq!(label(None, Class::Text), "");
        assert_eq!(milliseconds("1h2m3.5s"), Some(3_723_500.0));
        assert_eq!(milliseconds("-250ms"), Some(-250.0));
        assert_eq!(milliseconds("5"), None);
        assert_eq!(milliseconds(""), None);
        assert_eq!(array("{1,2.5}"), Some(vec![1.0, 2.5]));
        assert_eq!(array("{}"), Some(Vec::new()));
        assert_eq!(array("1"), None);
    }
}
