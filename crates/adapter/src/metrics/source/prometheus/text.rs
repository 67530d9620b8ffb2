//! Both text formats of Prometheus, read strictly: one line that is not right, and nothing of the page is taken.
//!
//! ```text
//!   page ─ lines ─▶ HELP, TYPE, UNIT ──▶ what is known of a name
//!             ╰───▶ sample ──▶ the family that its name belongs to ──▶ Found
//! ```
//!
//! Families get the names that the older format has: of OpenMetrics a counter's ends in `_total`, an info's in `_info`; what the older
//! format has no type for (states, infos, `_created`, histograms of gauges) is a gauge.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::metrics::batch::{Kind, Line};

/// Labels of a sample at most.
const MOST_LABELS: usize = 256;

/// Which of the formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Prometheus text 0.0.4.
    Plain,
    /// OpenMetrics 1.0.
    Open,
}

impl Dialect {
    /// By Content-Type; none at all is the older one, as old exporters leave it out.
    pub(crate) fn of(content_type: &str) -> Result<Self, String> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        match kind.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => Ok(Self::Open),
            "" | "text/plain" => Ok(Self::Plain),
            _ => Err(format!(
                "answered with {kind:?}, which is no format of Prometheus"
            )),
        }
    }
}

/// Names and values.
pub(crate) type Labels<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// A sample, and the family that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found<'a> {
    /// Of the family.
    pub(crate) family: Cow<'a, str>,
    pub(crate) kind: Kind,
    pub(crate) help: &'a str,
    pub(crate) line: Line,
    pub(crate) labels: Labels<'a>,
    pub(crate) value: f64,
}

/// A type as a page has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
    GaugeHistogram,
    Info,
    StateSet,
}

impl Sort {
    fn of(word: &str, dialect: Dialect) -> Option<Self> {
        Some(match (word, dialect) {
            ("counter", _) => Self::Counter,
            ("gauge", _) => Self::Gauge,
            ("histogram", _) => Self::Histogram,
            ("summary", _) => Self::Summary,
            ("untyped", Dialect::Plain) | ("unknown", Dialect::Open) => Self::Untyped,
            ("gaugehistogram", Dialect::Open) => Self::GaugeHistogram,
            ("info", Dialect::Open) => Self::Info,
            ("stateset", Dialect::Open) => Self::StateSet,
            _ => return None,
        })
    }

    /// What its samples' names end in, and what they are.
    fn ends(self, dialect: Dialect) -> &'static [(&'static str, Kind, Line)] {
        use Kind::{Counter, Gauge, Histogram, Summary, Untyped};
        match (self, dialect) {
            (Self::Counter, Dialect::Plain) => &[("", Counter, Line::Plain)],
            (Self::Counter, Dialect::Open) => &[
                ("_total", Counter, Line::Plain),
                ("_created", Gauge, Line::Plain),
            ],
            (Self::Gauge | Self::StateSet, _) => &[("", Gauge, Line::Plain)],
            (Self::Untyped, _) => &[("", Untyped, Line::Plain)],
            (Self::Info, _) => &[("_info", Gauge, Line::Plain)],
            (Self::Histogram, Dialect::Plain) => &[
                ("_bucket", Histogram, Line::Bucket),
                ("_sum", Histogram, Line::Sum),
                ("_count", Histogram, Line::Count),
            ],
            (Self::Histogram, Dialect::Open) => &[
                ("_bucket", Histogram, Line::Bucket),
                ("_sum", Histogram, Line::Sum),
                ("_count", Histogram, Line::Count),
                ("_created", Gauge, Line::Plain),
            ],
            (Self::Summary, Dialect::Plain) => &[
                ("", Summary, Line::Plain),
                ("_sum", Summary, Line::Sum),
                ("_count", Summary, Line::Count),
            ],
            (Self::Summary, Dialect::Open) => &[
                ("", Summary, Line::Plain),
                ("_sum", Summary, Line::Sum),
                ("_count", Summary, Line::Count),
                ("_created", Gauge, Line::Plain),
            ],
            (Self::GaugeHistogram, _) => &[
                ("_bucket", Gauge, Line::Plain),
                ("_gsum", Gauge, Line::Plain),
                ("_gcount", Gauge, Line::Plain),
            ],
        }
    }
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Known<'a> {
    sort: Option<Sort>,
    help: Option<Cow<'a, str>>,
    unit: bool,
    has_samples: bool,
}

/// Gives every sample of the page to `take`. The error is the first line that is not right, and why; what was taken before it is then
/// not to be used.
pub(crate) fn read<'a>(
    text: &'a str,
    dialect: Dialect,
    take: &mut dyn FnMut(Found<'_>),
) -> Result<(), String> {
    let mut page = Page {
        dialect,
        known: HashMap::new(),
        ended: false,
    };
    if dialect == Dialect::Open
        && !text.is_empty()
        && !text.ends_with('\n')
        && !text.ends_with("# EOF")
    {
        return Err("its last line does not end".to_owned());
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    for (at, line) in body.split('\n').enumerate() {
        if !text.is_empty() {
            page.line(line, take)
                .map_err(|why| format!("line {}: {why}", at + 1))?;
        }
    }
    page.end()
}

struct Page<'a> {
    dialect: Dialect,
    known: HashMap<&'a str, Known<'a>>,
    /// There was `# EOF`.
    ended: bool,
}

impl<'a> Page<'a> {
    fn end(&self) -> Result<(), String> {
        match self.dialect == Dialect::Plain || self.ended {
            true => Ok(()),
            false => Err("does not end with # EOF".to_owned()),
        }
    }

    fn line(&mut self, line: &'a str, take: &mut dyn FnMut(Found<'_>)) -> Result<(), String> {
        if self.ended {
            return Err("comes after # EOF".to_owned());
        }
        match self.dialect {
            Dialect::Open if line == "# EOF" => {
                self.ended = true;
                Ok(())
            }
            Dialect::Open if line.is_empty() => Err("is empty".to_owned()),
            Dialect::Plain if line.trim_matches(BLANKS).is_empty() => Ok(()),
            _ => match line.trim_start_matches(self.blanks()).strip_prefix('#') {
                Some(comment) => self.comment(comment),
                None => self.sample(line, take),
            },
        }
    }

    /// What may stand before a line's first word.
    fn blanks(&self) -> &'static [char] {
        match self.dialect {
            Dialect::Plain => BLANKS,
            Dialect::Open => &[],
        }
    }

    fn comment(&mut self, text: &'a str) -> Result<(), String> {
        let mut cursor = Cursor {
            rest: text,
            dialect: self.dialect,
        };
        let spaced = cursor.space();
        let word = cursor.word();
        if !spaced || !matches!(word, "HELP" | "TYPE" | "UNIT") {
            return match self.dialect {
                Dialect::Plain => Ok(()),
                Dialect::Open => Err("is neither # HELP, # TYPE, # UNIT nor # EOF".to_owned()),
            };
        }
        if word == "UNIT" && self.dialect == Dialect::Plain {
            return Ok(());
        }
        if !cursor.space() {
            return Err(format!("{word} has no name"));
        }
        let name = cursor.name()?;
        let spaced = cursor.space();
        let rest = cursor.rest;
        if !spaced && !rest.is_empty() {
            return Err(format!(
                "{word} has a name that is not right: {name}{rest:?}"
            ));
        }
        let known = self.known.entry(name).or_default();
        if known.has_samples {
            return Err(format!("{word} of {name} comes after its samples"));
        }
        let twice = match word {
            "HELP" => known
                .help
                .replace(unescape(rest, self.dialect == Dialect::Open)?)
                .is_some(),
            "TYPE" => {
                let word = match self.dialect {
                    Dialect::Plain => rest.trim_end_matches(BLANKS),
                    Dialect::Open => rest,
                };
                let sort =
                    Sort::of(word, self.dialect).ok_or_else(|| format!("{word:?} is no type"))?;
                known.sort.replace(sort).is_some()
            }
            _ => {
                if !rest.is_empty() && !name.ends_with(&format!("_{rest}")) {
                    return Err(format!("{name} does not end in its unit, {rest}"));
                }
                std::mem::replace(&mut known.unit, true)
            }
        };
        match twice {
            true => Err(format!("a second {word} of {name}")),
            false => Ok(()),
        }
    }

    fn sample(&mut self, line: &'a str, take: &mut dyn FnMut(Found<'_>)) -> Result<(), String> {
        let mut cursor = Cursor {
            rest: line.trim_start_matches(self.blanks()),
            dialect: self.dialect,
        };
        let name = cursor.name()?;
        let mut labels = Vec::new();
        let spaced = self.dialect == Dialect::Plain && cursor.space();
        let has_labels = cursor.rest.starts_with('{');
        if has_labels {
            labels = cursor.labels()?;
        }
        if !(cursor.space()
            || spaced && !has_labels
            || has_labels && self.dialect == Dialect::Plain)
        {
            return Err(format!("no value after {name}"));
        }
        let value = number(cursor.word())?;
        cursor.rest_of_sample()?;
        let (family, kind, line, key) = self.place(name)?;
        let known = self.known.entry(key).or_default();
        known.has_samples = true;
        let wanted = match (kind, line) {
            (Kind::Histogram, Line::Bucket) => "le",
            (Kind::Summary, Line::Plain) => "quantile",
            _ => "",
        };
        if !wanted.is_empty() {
            let found = labels.iter().find(|(name, _)| name == wanted);
            let (_, text) = found.ok_or_else(|| format!("{name} has no label {wanted}"))?;
            number(text).map_err(|_| format!("{wanted}={text:?} is not a number"))?;
        }
        take(Found {
            family: family.into(),
            kind,
            help: known.help.as_deref().unwrap_or_default(),
            line,
            labels,
            value,
        });
        Ok(())
    }

    /// The name of a sample's family, what it is there, and under which name that is known.
    fn place(&self, name: &'a str) -> Result<(&'a str, Kind, Line, &'a str), String> {
        let sort = |key: &str| self.known.get(key).and_then(|known| known.sort);
        let mut wrong = None;
        if let Some(own) = sort(name) {
            match own.ends(self.dialect).iter().find(|one| one.0.is_empty()) {
                Some((_, kind, line)) => return Ok((name, *kind, *line, name)),
                None => wrong = Some(own),
            }
        }
        for (at, _) in name.rmatch_indices('_') {
            let (key, end) = name.split_at(at);
            let Some(of) = sort(key) else { continue };
            if let Some((_, kind, line)) = of.ends(self.dialect).iter().find(|one| one.0 == end) {
                let family = match line {
                    Line::Plain => name,
                    _ => key,
                };
                return Ok((family, *kind, *line, key));
            }
        }
        match wrong {
            None => Ok((name, Kind::Untyped, Line::Plain, name)),
            Some(sort) => {
                let ends: Vec<&str> = sort.ends(self.dialect).iter().map(|one| one.0).collect();
                Err(format!(
                    "{name} is a {}: its samples end in {}",
                    format!("{sort:?}").to_lowercase(),
                    ends.join(", ")
                ))
            }
        }
    }
}

/// What separates words.
const BLANKS: &[char] = &[' ', '\t'];

struct Cursor<'a> {
    rest: &'a str,
    dialect: Dialect,
}

impl<'a> Cursor<'a> {
    /// Over what separates words: one space of OpenMetrics, however many blanks of the other. Whether there was any.
    fn space(&mut self) -> bool {
        let after = match self.dialect {
            Dialect::Plain => self.rest.trim_start_matches(BLANKS),
            Dialect::Open => self.rest.strip_prefix(' ').unwrap_or(self.rest),
        };
        let moved = after.len() < self.rest.len();
        self.rest = after;
        moved
    }

    fn upto(&mut self, end: usize) -> &'a str {
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find(BLANKS).unwrap_or(self.rest.len());
        self.upto(end)
    }

    /// A name of a metric.
    fn name(&mut self) -> Result<&'a str, String> {
        let name = self.letters(true);
        match name.is_empty() {
            true => Err(format!("no name at {}", start(self.rest))),
            false => Ok(name),
        }
    }

    fn letters(&mut self, colon: bool) -> &'a str {
        let right = |at: usize, byte: u8| {
            byte.is_ascii_alphabetic()
                || byte == b'_'
                || byte == b':' && colon
                || byte.is_ascii_digit() && at > 0
        };
        let mut bytes = self.rest.bytes().enumerate();
        let end = bytes.find(|(at, byte)| !right(*at, *byte));
        let end = end.map_or(self.rest.len(), |(at, _)| at);
        self.upto(end)
    }

    fn eat(&mut self, what: char) -> bool {
        let after = self.rest.strip_prefix(what);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Blanks where only the older format has some.
    fn loose(&mut self) {
        if self.dialect == Dialect::Plain {
            self.space();
        }
    }

    /// `{a="b",c="d"}`.
    fn labels(&mut self) -> Result<Labels<'a>, String> {
        self.eat('{');
        let mut labels: Labels<'a> = Vec::new();
        loop {
            self.loose();
            // Both formats let a comma stand before the end.
            if self.eat('}') {
                return Ok(labels);
            }
            let name = self.letters(false);
            if name.is_empty() {
                return Err(format!("no label's name at {}", start(self.rest)));
            }
            if name == "__name__" {
                return Err("__name__ is no label of its own".to_owned());
            }
            self.loose();
            if !self.eat('=') {
                return Err(format!("no = after the label {name}"));
            }
            self.loose();
            if !self.eat('"') {
                return Err(format!("the value of the label {name} has no quotes"));
            }
            let end = end_of_text(self.rest)
                .ok_or_else(|| format!("the value of the label {name} does not end"))?;
            let value = self.upto(end);
            self.eat('"');
            if labels.iter().any(|(known, _)| known == name) {
                return Err(format!("two labels {name}"));
            }
            if labels.len() == MOST_LABELS {
                return Err(format!("more than {MOST_LABELS} labels"));
            }
            labels.push((name.into(), unescape(value, true)?));
            self.loose();
            if !self.eat(',') && !self.rest.starts_with('}') {
                return Err(format!("neither , nor }} at {}", start(self.rest)));
            }
        }
    }

    /// A timestamp and an exemplar, which are looked at, and not kept.
    fn rest_of_sample(&mut self) -> Result<(), String> {
        let spaced = self.space();
        if self.rest.is_empty() && (self.dialect == Dialect::Plain || !spaced) {
            return Ok(());
        }
        if !self.rest.starts_with('#') {
            self.time()?;
            let spaced = self.space();
            if self.rest.is_empty() && (self.dialect == Dialect::Plain || !spaced) {
                return Ok(());
            }
        }
        if self.dialect == Dialect::Plain || !self.eat('#') || !self.space() {
            return Err(format!(
                "more than a value and a time: {}",
                start(self.rest)
            ));
        }
        if !self.rest.starts_with('{') {
            return Err("an exemplar has no labels".to_owned());
        }
        self.labels()?;
        if !self.space() {
            return Err("an exemplar has no value".to_owned());
        }
        number(self.word())?;
        if self.space() {
            self.time()?;
        }
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(format!("more than an exemplar: {}", start(self.rest))),
        }
    }

    /// Of the older format milliseconds, of OpenMetrics seconds.
    fn time(&mut self) -> Result<(), String> {
        let word = self.word();
        let right = match self.dialect {
            Dialect::Plain => word.parse::<i64>().is_ok(),
            Dialect::Open => number(word).is_ok_and(f64::is_finite),
        };
        match right {
            true => Ok(()),
            false => Err(format!("{word:?} is not a time")),
        }
    }
}

/// The place of the quote that ends a text.
fn end_of_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// `\\`, `\n`, and `\"` where quotes are escaped. What else is escaped stays as it is, as Prometheus has it.
fn unescape(text: &str, quotes: bool) -> Result<Cow<'_, str>, String> {
    let Some(first) = text.find('\\') else {
        return Ok(text.into());
    };
    let mut out = text[..first].to_owned();
    let mut rest = text[first..].chars();
    while let Some(one) = rest.next() {
        if one != '\\' {
            out.push(one);
            continue;
        }
        match rest.next() {
            Some('\\') => out.push('\\'),
            Some('n') => out.push('\n'),
            Some('"') if quotes => out.push('"'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None if quotes => return Err("ends in a \\".to_owned()),
            None => out.push('\\'),
        }
    }
    Ok(out.into())
}

/// As Go reads one, without hexadecimal.
fn number(text: &str) -> Result<f64, String> {
    let right = |text: &str| !text.is_empty() && text.len() <= 400;
    let value = text.parse().ok().filter(|_| right(text));
    value.ok_or_else(|| format!("{} is not a number", start(text)))
}

/// The start of what is not right, for people.
fn start(text: &str) -> String {
    match text.chars().nth(30) {
        _ if text.is_empty() => "the end".to_owned(),
        None => format!("{text:?}"),
        Some(_) => format!("{:?}…", text.chars().take(30).collect::<String>()),
    }
}

/// No bytes upset it.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) const FUZZ: podkit_foundation::fuzz::Target = podkit_foundation::fuzz::Target {
    name: "metrics-text",
    seeds: &[
        b"# HELP a b\n# TYPE a counter\na{x=\"y\\\"\"} 1 1000\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 2\nh_count 1\n",
        b"# TYPE a counter\na_total 1 1.5 # {t=\"z\"} 0.5\na_created 1\n# TYPE i info\ni_info{v=\"1\"} 1\n# EOF\n",
    ],
    run: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for dialect in [Dialect::Plain, Dialect::Open] {
            read(&text, dialect, &mut |_| {}).ok();
        }
    },
};

#[cfg(test)]
mod tests;
