//! What can be asked of the pages: the query string, read strictly. What isn't understood is one line, not a guess.

use super::snapshot::Sort;

/// The moment that is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum At {
    /// The latest look.
    Now,
    /// So many milliseconds ago: `at=-40s`.
    Ago(u64),
    /// Milliseconds since 1970: `at=1790000000.5` in seconds, as answers show it.
    Wall(u64),
}

/// A query that was understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    /// The moment.
    pub(crate) at: At,
    /// The order of the rows.
    pub(crate) sort: Sort,
    /// Only processes of this container.
    pub(crate) container: Option<String>,
    /// Only this process.
    pub(crate) pid: Option<u32>,
    /// The most rows.
    pub(crate) limit: Option<usize>,
}

/// Reads a query string of `name=value` pairs; `allowed` are the names that this endpoint knows.
///
/// # Errors
/// One line that names the part that is wrong and says what would be right.
pub(crate) fn parse(query: &str, allowed: &[&str]) -> Result<Asked, String> {
    let mut asked = Asked {
        at: At::Now,
        sort: Sort::Cpu,
        container: None,
        pid: None,
        limit: None,
    };
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if !allowed.contains(&name) {
            let name = printable(name);
            return Err(format!(
                "\"{name}\" is not a parameter here; there are: {}",
                allowed.join(", ")
            ));
        }
        let value = decode(value)
            .ok_or_else(|| format!("{name}: not a well-formed %-encoding of UTF-8"))?;
        let wrong = |expected: &str| {
            format!(
                "{name}=\"{}\" is not right; expected {expected}",
                printable(&value)
            )
        };
        match name {
            "at" => asked.at = parse_at(&value).ok_or_else(|| wrong(AT_EXPECTED))?,
            "sort" => asked.sort = Sort::parse(&value).ok_or_else(|| wrong(Sort::EXPECTED))?,
            "container" => asked.container = Some(value),
            "pid" => asked.pid = Some(value.parse().map_err(|_| wrong("a process id"))?),
            "limit" => asked.limit = Some(value.parse().map_err(|_| wrong("a number of rows"))?),
            _ => return Err(format!("\"{name}\" is not a parameter here")),
        }
    }
    Ok(asked)
}

const AT_EXPECTED: &str = "-40s, -5m or a Unix time in seconds such as 1790000000.5";

fn parse_at(text: &str) -> Option<At> {
    if let Some(ago) = text.strip_prefix('-') {
        let unit_at = ago
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(ago.len());
        let scale = match &ago[unit_at..] {
            "ms" => 1.0,
            "s" | "" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            _ => return None,
        };
        return millis(&ago[..unit_at], scale).map(At::Ago);
    }
    match text {
        "now" | "0" => Some(At::Now),
        _ => millis(text, 1e3).map(At::Wall),
    }
}

/// A decimal number of units, in whole milliseconds. No sign, no exponent.
fn millis(number: &str, scale: f64) -> Option<u64> {
    let plain = number.starts_with(|c: char| c.is_ascii_digit())
        && number.len() <= 20
        && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value: f64 = if plain {
        number.parse().ok()?
    } else {
        return None;
    };
    let value = (value * scale).round();
    (value <= 1e16).then_some(value as u64)
}

/// Undoes %-encoding and `+`.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits)
                    .ok()
                    .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// What somebody sent, safe to show in one line.
fn printable(text: &str) -> String {
    text.chars()
        .take(60)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
