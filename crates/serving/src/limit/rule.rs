//! A rule: which requests it is for, by what they are told apart, and what each key may do (no I/O).

use podkit_dataplane::http::stage::View;
use podkit_dataplane::net::Flight;
use podkit_dataplane::upstream::pick::fnv;
use podkit_foundation::params::{ParamType, Rate, pairs};

use super::gcra::Gcra;

/// Rules at most: each is looked at for each request, and is a label of the metrics.
pub(super) const MAX_RULES: usize = 32;

/// What requests are told apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Ip,
    Header(String),
    Cookie(String),
    Query(String),
    Path,
    Global,
}

/// What becomes of a request when the owner of its key can't be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fail {
    Open,
    Closed,
    /// This replica counts for itself.
    Local,
}

/// One rule, as `--rule` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Of name, key, rate and burst: while they stay, its counts do.
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) key: Key,
    pub(super) rate: Option<Gcra>,
    pub(super) concurrency: Option<u64>,
    pub(super) cost: u64,
    /// Counted and not refused.
    pub(super) shadow: bool,
    pub(super) fail: Fail,
    path: Option<PathRule>,
    methods: Vec<String>,
    /// As it was given, in one line.
    pub(super) text: String,
}

/// One rule or several, as one text has them: separated by semicolons, so that a variable can hold all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleList(pub(super) Vec<Rule>);

impl ParamType for RuleList {
    const TYPE_NAME: &'static str = Rule::TYPE_NAME;
    const EXPECTED: &'static str = Rule::EXPECTED;

    fn parse(text: &str) -> Result<Self, String> {
        let texts = text.split(';').filter(|text| !text.trim().is_empty());
        texts.map(Rule::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PathRule {
    Exact(String),
    /// `/api/*`: everything that begins so.
    Prefix(String),
}

/// The keys of a rule.
pub(super) const KEYS: &[&str] = &[
    "name",
    "key",
    "rate",
    "burst",
    "path",
    "method",
    "cost",
    "concurrency",
    "shadow",
    "fail",
];

impl ParamType for Rule {
    const TYPE_NAME: &'static str = "rule";
    const EXPECTED: &'static str =
        "such as \"name=api key=ip rate=100/s burst=200 path=/api/* method=GET,POST\"";

    fn parse(text: &str) -> Result<Self, String> {
        Self::of(&pairs(text, KEYS)?)
    }
}

impl Rule {
    /// Of pairs whose keys are some of [`KEYS`], each at most once.
    pub(super) fn of(given: &[(&str, &str)]) -> Result<Self, String> {
        let get = |wanted: &str| given.iter().find(|(key, _)| *key == wanted).map(|it| it.1);
        let number = |key: &str, most: u64| match get(key) {
            None => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
                _ => Err(format!("{key}={text} is not a number from 1 to {most}")),
            },
        };
        let name = get("name").ok_or("name is missing")?;
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.len() > 64 || !name.bytes().all(valid) {
            return Err(format!(
                "name={name} is not made of at most 64 letters, digits, - _ and ."
            ));
        }
        let burst = number("burst", 1_000_000_000)?;
        let rate = get("rate")
            .map(|text| parse_rate(text, burst))
            .transpose()?;
        let concurrency = number("concurrency", Flight::MOST)?;
        if rate.is_none() && concurrency.is_none() {
            return Err("neither rate nor concurrency is given".to_owned());
        }
        let cost = number("cost", 1_000_000)?;
        match rate {
            None if burst.is_some() => return Err("burst needs rate".to_owned()),
            None if get("fail").is_some() => return Err("fail needs rate".to_owned()),
            None if cost.is_some() => return Err("cost needs rate".to_owned()),
            Some(rate) if cost.unwrap_or(1) > rate.burst() => {
                return Err("cost is more than burst: nothing would ever pass".to_owned());
            }
            _ => {}
        }
        let key = get("key").ok_or("key is missing")?;
        Ok(Self {
            id: id(name, key, rate.as_ref()),
            name: name.to_owned(),
            key: parse_key(key)?,
            rate,
            concurrency,
            cost: cost.unwrap_or(1),
            shadow: match get("shadow") {
                None => false,
                Some(text) => bool::parse(text).map_err(|_| "shadow is not true or false")?,
            },
            fail: match get("fail") {
                None | Some("local") => Fail::Local,
                Some("open") => Fail::Open,
                Some("closed") => Fail::Closed,
                Some(text) => return Err(format!("fail={text} is not open, closed or local")),
            },
            path: get("path").map(parse_path).transpose()?,
            methods: get("method").map_or(Ok(Vec::new()), parse_methods)?,
            text: given
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(" "),
        })
    }
}

/// The same in all processes, whatever place the rule has.
fn id(name: &str, key: &str, rate: Option<&Gcra>) -> u64 {
    let (interval, burst) = rate.map_or((0, 0), |rate| (rate.interval(), rate.burst()));
    fnv(format!("{name} {key} {interval} {burst}").as_bytes())
}

fn parse_rate(text: &str, burst: Option<u64>) -> Result<Gcra, String> {
    let rate = Rate::parse(text).map_err(|_| {
        format!(
            "rate={text} is not {}",
            Rate::EXPECTED.trim_start_matches("a ")
        )
    })?;
    // Unless told otherwise what a second's worth is may come at once.
    let second = rate.count.div_ceil(rate.per.as_secs().max(1));
    Gcra::new(rate.count, rate.per, burst.unwrap_or(second)).ok_or_else(|| {
        format!(
            "rate={text} is not from 1 of a time to {} a second, with a burst that it can pay for",
            Gcra::MOST_PER_SECOND
        )
    })
}

fn parse_key(text: &str) -> Result<Key, String> {
    let (kind, name) = text.split_once(':').unwrap_or((text, ""));
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let named = !name.is_empty() && name.bytes().all(token);
    match kind {
        "header" if named => Ok(Key::Header(name.to_owned())),
        "cookie" if named => Ok(Key::Cookie(name.to_owned())),
        "query" if named => Ok(Key::Query(name.to_owned())),
        "ip" if text == kind => Ok(Key::Ip),
        "path" if text == kind => Ok(Key::Path),
        "global" if text == kind => Ok(Key::Global),
        _ => Err(format!(
            "key={text} is not ip, header:NAME, cookie:NAME, query:NAME, path or global"
        )),
    }
}

fn parse_path(text: &str) -> Result<PathRule, String> {
    let (path, prefix) = match text.strip_suffix('*') {
        Some(path) => (path, true),
        None => (text, false),
    };
    if !path.starts_with('/') || path.contains(['*', '%', '?']) || path.contains("//") {
        return Err(format!(
            "path={text} is not a path such as /login or /api/* (decoded, one slash at a time, * at the end only)"
        ));
    }
    Ok(match prefix {
        true => PathRule::Prefix(path.to_owned()),
        false => PathRule::Exact(path.to_owned()),
    })
}

fn parse_methods(text: &str) -> Result<Vec<String>, String> {
    let upper = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase());
    match text.split(',').all(upper) {
        true => Ok(text.split(',').map(str::to_owned).collect()),
        false => Err(format!("method={text} is not a list such as GET,POST")),
    }
}

impl Rule {
    /// The rule is for this request.
    pub(super) fn is_for(&self, request: &View<'_>) -> bool {
        let method = request.method();
        let methods = &self.methods;
        (methods.is_empty() || methods.iter().any(|known| known.as_bytes() == method))
            && self
                .path
                .as_ref()
                .is_none_or(|path| path.matches(request.path()))
    }
}

impl PathRule {
    /// `path` is compared as an application may read it: percent-decoded, runs of slashes as one. A path with dot segments can
    /// become any other, so every rule is for it: who writes one is limited rather than let past.
    fn matches(&self, path: &[u8]) -> bool {
        let (wanted, prefix) = match self {
            Self::Exact(wanted) => (wanted.as_bytes(), false),
            Self::Prefix(wanted) => (wanted.as_bytes(), true),
        };
        let mut decoded = Decoded::of(path);
        let same = wanted.iter().all(|byte| decoded.next() == Some(*byte));
        (same && (prefix || decoded.next().is_none())) || has_dot_segment(path)
    }
}

fn has_dot_segment(path: &[u8]) -> bool {
    // Bytes since the last slash, as long as all are dots.
    let mut dots = None;
    for byte in Decoded::of(path).chain([b'/']) {
        dots = match (byte, dots) {
            (b'/' | b'\\', Some(1 | 2)) => return true,
            (b'/' | b'\\', _) => Some(0),
            (b'.', Some(count)) => Some(count + 1),
            _ => None,
        };
    }
    false
}

/// A path's bytes, percent-decoded, runs of slashes as one.
struct Decoded<'p> {
    rest: &'p [u8],
    slash: bool,
}

impl<'p> Decoded<'p> {
    fn of(rest: &'p [u8]) -> Self {
        Self { rest, slash: false }
    }
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let hex = |byte: &u8| char::from(*byte).to_digit(16);
        loop {
            let (byte, used) = match self.rest {
                [] => return None,
                [b'%', high, low, ..] => match (hex(high), hex(low)) {
                    (Some(high), Some(low)) => (u8::try_from(high * 16 + low).unwrap_or(b'%'), 3),
                    _ => (b'%', 1),
                },
                [byte, ..] => (*byte, 1),
            };
            self.rest = &self.rest[used..];
            let again = byte == b'/' && self.slash;
            self.slash = byte == b'/';
            if !again {
                return Some(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_rules_are_named() {
        let check = |text: &str, expected: &str| {
            let why = Rule::parse(text).expect_err(text);
            assert!(why.contains(expected), "{text}: {why}");
        };
        check("key=ip rate=1/s", "name is missing");
        check("name=a rate=1/s", "key is missing");
        check("name=a key=ip", "neither rate nor concurrency");
        check("name=a key=ip concurrency=1 burst=2", "burst needs rate");
        check("name=a key=ip concurrency=1 cost=2", "cost needs rate");
        check(
            "name=a key=ip rate=9/s burst=2 cost=3",
            "cost is more than burst",
        );
        check("name=a key=ip rate=9", "rate=9 is not rate such as");
        check("name=a key=ip rate=0/s", "rate=0/s");
        check("name=a key=ip rate=1/s burst=0", "burst=0");
        check(
            "name=a key=header rate=1/s",
            "key=header is not ip, header:NAME",
        );
        check("name=a key=ip:x rate=1/s", "key=ip:x");
        check("name=a\" key=ip rate=1/s", "letters, digits");
        check("name=a key=ip rate=1/s path=api", "path=api");
        check("name=a key=ip rate=1/s path=/a*/b", "path=/a*/b");
        check("name=a key=ip rate=1/s method=get", "method=get");
        check("name=a key=ip rate=1/s shadow=maybe", "shadow");
        check("name=a key=ip rate=1/s fail=shut", "fail=shut is not open");
        check("name=a key=ip concurrency=1 fail=open", "fail needs rate");
        check("name=a key=ip rate=1/s brust=2", "did you mean burst?");
    }

    #[test]
    fn a_rate_without_a_burst_has_a_seconds_worth() {
        let burst = |rate: &str| {
            let rule = Rule::parse(&format!("name=a key=ip rate={rate}")).unwrap();
            rule.rate.unwrap().burst()
        };
        assert_eq!((burst("50/s"), burst("90/m"), burst("5/h")), (50, 2, 1));
    }

    #[test]
    fn paths_are_compared_as_an_application_reads_them() {
        let check = |rule: &str, path: &str, expected| {
            let rule = parse_path(rule).unwrap();
            assert_eq!(rule.matches(path.as_bytes()), expected, "{rule:?} {path}");
        };
        check("/api/*", "/api/x", true);
        check("/api/*", "/api", false);
        check("/api/*", "/%61pi/x", true);
        check("/api/*", "//api//x", true);
        check("/api/*", "/apix", false);
        check("/api/*", "/x/../api/y", true);
        check("/api/*", "/x/%2e%2E/api/y", true);
        check("/api/*", "/x/..", true);
        check("/api/*", "/x/...", false);
        check("/api/*", "/x/.hidden/y", false);
        check("/login", "/login", true);
        check("/login", "/login/", false);
        check("/login", "/log%69n", true);
        check("/login", "/log%zzn", false);
        check("/*", "/", true);
        check("/login", "*", false);
    }
}
