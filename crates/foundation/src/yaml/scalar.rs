//! What a plain scalar is: as Kubernetes reads it, or as YAML 1.2 does.
//!
//! kubectl turns YAML into JSON with Go's YAML 1.1 decoder (sigs.k8s.io/yaml, `goyaml.v2/resolve.go`), so `yes`, `on`
//! and `n` are booleans, `0644` and `0o644` are octal, `1_000` is a thousand, and dates are text. A YAML 1.2 reading
//! would accept files here that the cluster refuses, and give other modes to files. podkit's own files are no manifests: there `n` and `on` are names.

use super::node::Value;

/// By which rules unquoted scalars have types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Manifests: YAML 1.1 as kubectl reads it. A key that isn't text becomes what JSON has for it.
    Kubernetes,
    /// Rules and settings: the core schema of YAML 1.2. A key is the text that stands there.
    Core,
}

impl Schema {
    /// Types an unquoted scalar.
    pub fn resolve(self, text: &str) -> Value {
        match self {
            Self::Kubernetes => resolve(text),
            Self::Core => core(text),
        }
    }
}

/// YAML 1.2.2, section 10.3.2.
fn core(text: &str) -> Value {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_decimal = !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_digit());
    let digits = |prefix: &str, radix| i128::from_str_radix(text.strip_prefix(prefix)?, radix).ok();
    let is_prefixed = text
        .bytes()
        .skip(2)
        .all(|byte| byte.is_ascii_alphanumeric());
    let int = match text.get(..2) {
        Some("0x") if is_prefixed => digits("0x", 16),
        Some("0o") if is_prefixed => digits("0o", 8),
        _ if is_decimal => text.parse().ok(),
        _ => None,
    };
    let range = i128::from(i64::MIN)..=i128::from(u64::MAX);
    if let Some(int) = int.filter(|int| range.contains(int)) {
        return Value::Int(int, text.into());
    }
    match text {
        "true" | "True" | "TRUE" => Value::Bool(true, text.into()),
        "false" | "False" | "FALSE" => Value::Bool(false, text.into()),
        _ if text.starts_with("0x") || text.starts_with("0o") => Value::Str(text.into()),
        // What is neither an integer nor a boolean of YAML 1.2 is the same in both, but for what only YAML 1.1 takes for one.
        _ => match resolve(text) {
            Value::Float(_, text) if text.contains('_') => Value::Str(text),
            Value::Int(_, text) | Value::Bool(_, text) => Value::Str(text),
            same => same,
        },
    }
}

/// Types an unquoted scalar of a manifest.
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true, text.into());
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false, text.into());
        }
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN, text.into()),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY, text.into());
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY, text.into()),
        _ => {}
    }
    match text.as_bytes()[0] {
        b'+' | b'-' | b'0'..=b'9' => {
            let plain = text.replace('_', "");
            if let Some(value) = integer(&plain) {
                return Value::Int(value, text.into());
            }
            if let Some(value) = float(&plain) {
                return Value::Float(value, text.into());
            }
        }
        b'.' => {
            if let Some(value) = float(text) {
                return Value::Float(value, text.into());
            }
        }
        _ => {}
    }
    Value::Str(text.into())
}

/// Go's `strconv.ParseInt(text, 0, 64)`, then `ParseUint`.
fn integer(text: &str) -> Option<i128> {
    let (negative, signed, digits) = match text.as_bytes() {
        [b'-', ..] => (true, true, &text[1..]),
        [b'+', ..] => (false, true, &text[1..]),
        _ => (false, false, text),
    };
    let prefix = |p: &str, q: &str| digits.strip_prefix(p).or_else(|| digits.strip_prefix(q));
    let (radix, digits) = if let Some(rest) = prefix("0x", "0X") {
        (16, rest)
    } else if let Some(rest) = prefix("0b", "0B") {
        (2, rest)
    } else if let Some(rest) = prefix("0o", "0O") {
        (8, rest)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, &digits[1..])
    } else {
        (10, digits)
    };
    // from_str_radix takes a sign of its own; here one was taken already.
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -magnitude } else { magnitude };
    let most = if signed {
        i128::from(i64::MAX)
    } else {
        i128::from(u64::MAX)
    };
    (i128::from(i64::MIN)..=most)
        .contains(&value)
        .then_some(value)
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`, and finite, as Go's `ParseFloat` wants it.
fn float(text: &str) -> Option<f64> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e)));
    if !(mantissa_ok && exponent_ok) {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_schema_has_no_words_of_yaml_1_1() {
        let text = |text: &str| assert_eq!(core(text), Value::Str(text.into()), "{text}");
        for word in [
            "y", "Y", "n", "yes", "No", "on", "OFF", "1_000", "1_0.5", "0b1", "-0x1", "0x", "0o8",
            "0x+1", "1.2.3", "-", "+", "nul",
        ] {
            text(word);
        }
        let int = |text: &str, value| assert_eq!(core(text), Value::Int(value, text.into()));
        int("0", 0);
        int("-7", -7);
        int("+7", 7);
        int("0644", 644);
        int("0o17", 15);
        int("0xfF", 255);
        int("18446744073709551615", u64::MAX.into());
        let float = |text: &str, value| assert_eq!(core(text), Value::Float(value, text.into()));
        float("0.5", 0.5);
        float("-.5e3", -500.0);
        float("1.", 1.0);
        float("18446744073709551616", 18_446_744_073_709_551_616.0);
        float("-.inf", f64::NEG_INFINITY);
        assert_eq!(core("True"), Value::Bool(true, "True".into()));
        assert_eq!(core("false"), Value::Bool(false, "false".into()));
        for null in ["", "~", "null"] {
            assert_eq!(core(null), Value::Null);
        }
    }
}
