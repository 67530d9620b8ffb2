//! A line of statsd, in any dialect, to its samples: bytes in, nothing allocated.
//!
//! ```text
//!   name:1|c                        name:1|c:2|g                  several samples
//!   name:3|c|@0.1                   name:1:2:3|ms|#k:v            extended aggregation of DogStatsD
//!   name:1|c|#k:v,l:w               name,k=v:1|c   name#k=v:1|c   name[k=v]:1|c
//!   name:1|c|#k:v|c:ID|T1656581400  _e{5,4}:title|text            _sc|name|0
//! ```
//!
//! What stands before the first `:` is kept as it is, tags and all: whoever counts knows it by its bytes, and looks into it once.

use memchr::{memchr, memchr_iter};

/// What a sample's value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// `c`
    Counter,
    /// `g`
    Gauge,
    /// `ms`
    Timer,
    /// `h` and `d`
    Observed,
    /// `s`
    Set,
}

/// Why a line, or a sample of it, is not counted: the words of statsd_exporter where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Reason {
    MalformedLine,
    MixedTaggingStyles,
    NotEnoughParts,
    InvalidAggregate,
    MalformedComponent,
    MalformedValue,
    InvalidSampleFactor,
    MalformedContainerId,
    IllegalEvent,
    NameTooLong,
}

impl Reason {
    pub(super) const ALL: [Self; 10] = [
        Self::MalformedLine,
        Self::MixedTaggingStyles,
        Self::NotEnoughParts,
        Self::InvalidAggregate,
        Self::MalformedComponent,
        Self::MalformedValue,
        Self::InvalidSampleFactor,
        Self::MalformedContainerId,
        Self::IllegalEvent,
        Self::NameTooLong,
    ];

    /// The value of the label `reason`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::MalformedLine => "malformed_line",
            Self::MixedTaggingStyles => "mixed_tagging_styles",
            Self::NotEnoughParts => "not_enough_parts_after_colon",
            Self::InvalidAggregate => "invalid_extended_aggregate_type",
            Self::MalformedComponent => "malformed_component",
            Self::MalformedValue => "malformed_value",
            Self::InvalidSampleFactor => "invalid_sample_factor",
            Self::MalformedContainerId => "malformed_container_id",
            Self::IllegalEvent => "illegal_event",
            Self::NameTooLong => "name_too_long",
        }
    }
}

/// What DogStatsD sends beside metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    Event,
    ServiceCheck,
}

/// What a sample is of: as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key<'a> {
    /// With the tags of dialects that have them there.
    pub(super) name: &'a [u8],
    /// What follows `|#`.
    pub(super) tags: &'a [u8],
    /// What follows `|c:`.
    pub(super) container: &'a [u8],
    pub(super) kind: Kind,
}

/// A value as it was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Number {
    pub(super) float: f64,
    /// Where it is one, and has no sign.
    pub(super) whole: Option<u64>,
    /// It begins with a sign.
    pub(super) signed: bool,
}

/// What a sample says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Said<'a> {
    Number(Number),
    /// A set's member.
    Member(&'a [u8]),
}

/// Takes what is in a line. Each sample is told of, or why it is none; a line without samples, once.
pub(super) trait Sink {
    /// Of `rate` samples, this one was sent: 0.1 of ten.
    fn sample(&mut self, key: Key<'_>, said: Said<'_>, rate: f64);
    /// A sample that can't be read.
    fn bad_sample(&mut self, reason: Reason);
    /// A line that can't be.
    fn bad_line(&mut self, reason: Reason);
    fn other(&mut self, other: Other);
}

/// Reads a line, which is not empty.
pub(super) fn read(line: &[u8], sink: &mut impl Sink) {
    if line[0] == b'_' {
        if line.starts_with(b"_e{") {
            return sink.other(Other::Event);
        }
        if line.starts_with(b"_sc|") {
            return sink.other(Other::ServiceCheck);
        }
    }
    let Some(colon) = memchr(b':', line).filter(|at| *at > 0) else {
        return sink.bad_line(Reason::MalformedLine);
    };
    let (name, rest) = (&line[..colon], &line[colon + 1..]);
    let Some(bar) = memchr(b'|', rest) else {
        return sink.bad_line(Reason::NotEnoughParts);
    };
    let (values, after) = (&rest[..bar], &rest[bar + 1..]);
    if memchr(b':', values).is_some() {
        let end = memchr(b'|', after).unwrap_or(after.len());
        if !matches!(&after[..end], b"ms" | b"h" | b"d") {
            return sink.bad_line(Reason::InvalidAggregate);
        }
        let tail = tail(after);
        let mut from = 0;
        for to in memchr_iter(b':', values).chain([values.len()]) {
            sample(name, &values[from..to], tail, sink);
            from = to + 1;
        }
        return;
    }
    // Tags of DogStatsD have colons in them: such a line has one sample.
    if has_tags(after) {
        return sample(name, values, tail(after), sink);
    }
    let mut rest = rest;
    loop {
        let end = end(rest);
        let one = &rest[..end];
        match memchr(b'|', one) {
            None => sink.bad_sample(Reason::MalformedComponent),
            Some(bar) => sample(name, &one[..bar], tail(&one[bar + 1..]), sink),
        }
        if end == rest.len() {
            return;
        }
        rest = &rest[end + 1..];
    }
}

fn has_tags(after: &[u8]) -> bool {
    memchr_iter(b'#', after).any(|at| at > 0 && after[at - 1] == b'|')
}

/// Where a sample ends: at a colon, but not at that of a field such as `|c:ID`.
fn end(rest: &[u8]) -> usize {
    for at in memchr_iter(b':', rest) {
        let mut parts = rest[..at].rsplitn(3, |byte| *byte == b'|');
        let field = parts.next().unwrap_or_default();
        // The value and the type come before fields.
        let is_third = parts.next().is_some() && parts.next().is_some();
        if !(is_third && matches!(field, b"c" | b"e" | b"card")) {
            return at;
        }
    }
    rest.len()
}

/// What follows a sample's value.
#[derive(Debug, Clone, Copy)]
struct Tail<'a> {
    kind: Option<Kind>,
    rate: f64,
    tags: &'a [u8],
    container: &'a [u8],
}

/// More parts than DogStatsD knows of, value and type among them.
const MOST_PARTS: usize = 8;

fn tail(after: &[u8]) -> Result<Tail<'_>, Reason> {
    let end = memchr(b'|', after).unwrap_or(after.len());
    let kind = match &after[..end] {
        b"c" => Some(Kind::Counter),
        b"g" => Some(Kind::Gauge),
        b"ms" => Some(Kind::Timer),
        b"h" | b"d" => Some(Kind::Observed),
        b"s" => Some(Kind::Set),
        _ => None,
    };
    let mut tail = Tail {
        kind,
        rate: 1.0,
        tags: b"",
        container: b"",
    };
    if end == after.len() {
        return Ok(tail);
    }
    for (at, part) in after[end + 1..].split(|byte| *byte == b'|').enumerate() {
        if at + 2 >= MOST_PARTS {
            return Err(Reason::MalformedComponent);
        }
        match part {
            [] => return Err(Reason::MalformedComponent),
            [b'@', rate @ ..] => {
                let rate = number(rate).ok_or(Reason::InvalidSampleFactor)?.float;
                tail.rate = match rate {
                    0.0 => 1.0,
                    rate if rate > 0.0 && rate <= 1.0 => rate,
                    _ => return Err(Reason::InvalidSampleFactor),
                };
            }
            [b'#', tags @ ..] => tail.tags = tags,
            [b'c', b':', id @ ..] if !id.is_empty() => tail.container = id,
            [b'c', ..] if !part.starts_with(b"card:") => return Err(Reason::MalformedContainerId),
            // A time, which is the scraper's to say, what the agent is to look up, and how much of it.
            [b'T', ..] | [b'e', b':', ..] | [b'c', ..] => {}
            _ => return Err(Reason::InvalidSampleFactor),
        }
    }
    Ok(tail)
}

fn sample<'a>(
    name: &'a [u8],
    value: &'a [u8],
    tail: Result<Tail<'a>, Reason>,
    sink: &mut impl Sink,
) {
    let tail = match tail {
        Ok(tail) => tail,
        Err(reason) => return sink.bad_sample(reason),
    };
    let said = match tail.kind {
        Some(Kind::Set) if value.is_empty() => None,
        Some(Kind::Set) => Some(Said::Member(value)),
        _ => number(value).map(Said::Number),
    };
    let Some(said) = said else {
        return sink.bad_sample(Reason::MalformedValue);
    };
    let Some(kind) = tail.kind else {
        return sink.bad_sample(Reason::IllegalEvent);
    };
    let key = Key {
        name,
        tags: tail.tags,
        container: tail.container,
        kind,
    };
    sink.sample(key, said, tail.rate);
}

/// A finite number. What is infinite or none would stay in a sum for ever.
fn number(text: &[u8]) -> Option<Number> {
    let signed = matches!(text.first(), Some(b'+' | b'-'));
    // 19 digits are below 2^64.
    if !text.is_empty() && text.len() < 20 && text.iter().all(u8::is_ascii_digit) {
        let whole = text
            .iter()
            .fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        #[expect(clippy::cast_precision_loss, reason = "as near as floats come")]
        let float = whole as f64;
        let whole = Some(whole);
        return Some(Number {
            float,
            whole,
            signed,
        });
    }
    let float: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    float.is_finite().then_some(Number {
        float,
        whole: None,
        signed,
    })
}
