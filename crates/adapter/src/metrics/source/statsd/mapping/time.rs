//! Times as Go has them.

use podkit_foundation::yaml::{Path, Value};

use crate::metrics::source::words::Words;

/// Seconds: of a text such as `1h30m`, or of a number of nanoseconds, Go's unit of time.
pub(super) fn seconds(words: &mut Words<'_>, path: &Path) -> Option<f64> {
    let seconds = match &words.find(path)?.value {
        #[expect(clippy::cast_precision_loss, reason = "a time need not be exact")]
        Value::Int(nanoseconds, _) => Some(*nanoseconds as f64 / 1e9),
        Value::Str(text) => go_time(text),
        _ => None,
    };
    let seconds = seconds.filter(|seconds| (0.0..=1e9).contains(seconds));
    if seconds.is_none() {
        words.expected(path, "a time such as 90s, 10m or 1h30m");
    }
    seconds
}

/// Seconds of Go's `time.ParseDuration`: `1h15m30.918s`.
fn go_time(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    if text == "0" {
        return Some(0.0);
    }
    let is_number = |one: char| one.is_ascii_digit() || one == '.';
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|one| !is_number(one))?);
        let (unit, next) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum += number.parse::<f64>().ok()? * seconds;
        rest = next;
    }
    (!text.is_empty()).then_some(sum)
}
