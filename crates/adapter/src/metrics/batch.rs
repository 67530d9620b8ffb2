//! What a source said, once: families of samples.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

/// What a family's samples mean, in the words of the Prometheus text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Nobody knows.
    Untyped,
    /// Counts by upper bound.
    Histogram,
    /// Quantiles.
    Summary,
}

/// Which of the lines of a histogram or a summary a sample is; of the others they are all `Plain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// The value; of a summary a quantile.
    Plain,
    Bucket,
    Sum,
    Count,
}

impl Line {
    /// What follows the family's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bucket => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
        }
    }
}

/// A value and its labels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) line: Line,
    /// As they are written: `a="b",c="d"`.
    pub(crate) labels: Box<str>,
    pub(crate) value: f64,
}

/// The samples of one name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    pub(crate) name: Box<str>,
    pub(crate) kind: Kind,
    pub(crate) help: Cow<'static, str>,
    pub(crate) samples: Vec<Sample>,
}

impl Family {
    /// Adds a sample.
    pub(crate) fn put(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.put_line(Line::Plain, labels, value)
    }

    /// Adds a line of a histogram or a summary.
    pub(crate) fn put_line(
        &mut self,
        line: Line,
        labels: &[(&str, &str)],
        value: f64,
    ) -> &mut Self {
        self.put_rendered(line, render(labels).into(), value)
    }

    /// The same, of labels that are written already.
    pub(crate) fn put_rendered(&mut self, line: Line, labels: Box<str>, value: f64) -> &mut Self {
        self.samples.push(Sample {
            line,
            labels,
            value,
        });
        self
    }
}

/// Families by name, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    families: Vec<Family>,
    /// Their places; the names are the families'.
    by_name: HashTable<usize>,
    hash: RandomState,
}

impl Batch {
    /// The family of that name; a new one when there is none. Its kind and help stay what they were first.
    pub(crate) fn family(
        &mut self,
        name: &str,
        kind: Kind,
        help: impl Into<Cow<'static, str>>,
    ) -> &mut Family {
        let hash = self.hash.hash_one(name);
        let is = |at: &usize| &*self.families[*at].name == name;
        let at = match self.by_name.find(hash, is) {
            Some(at) => *at,
            None => {
                let at = self.families.len();
                self.families.push(Family {
                    name: name.into(),
                    kind,
                    help: help.into(),
                    // Most have one, and there are many.
                    samples: Vec::with_capacity(1),
                });
                let hashed = |at: &usize| self.hash.hash_one(&*self.families[*at].name);
                self.by_name.insert_unique(hash, at, hashed);
                at
            }
        };
        &mut self.families[at]
    }

    /// A gauge without labels.
    pub(crate) fn gauge(&mut self, name: &str, help: impl Into<Cow<'static, str>>, value: f64) {
        self.family(name, Kind::Gauge, help).put(&[], value);
    }

    /// A counter without labels.
    pub(crate) fn counter(&mut self, name: &str, help: impl Into<Cow<'static, str>>, value: f64) {
        self.family(name, Kind::Counter, help).put(&[], value);
    }

    /// All of them.
    pub(crate) fn families(&self) -> &[Family] {
        &self.families
    }
}

/// Labels as they are written, their values escaped.
pub(crate) fn render(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for part in value.chars() {
            match part {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

/// A number as both text formats write it.
pub(crate) fn put_value(out: &mut String, value: f64) {
    let done = if value.is_nan() {
        out.write_str("NaN")
    } else if value.is_infinite() {
        out.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
        write!(out, "{value:e}")
    } else {
        write!(out, "{value}")
    };
    done.expect("writing to a String can't fail");
}

/// A name that both text formats take: what is neither letter, digit, `_` nor `:` becomes `_`, and a digit does not begin it.
pub(crate) fn metric_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len() + 1);
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        name.push('_');
    }
    let right = |part: char| part.is_ascii_alphanumeric() || part == '_' || part == ':';
    name.extend(
        text.chars()
            .map(|part| if right(part) { part } else { '_' }),
    );
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_numbers_written_for_both_formats() {
        assert_eq!(
            render(&[("a", "b"), ("c", "\"\\\n")]),
            r#"a="b",c="\"\\\n""#
        );
        let shown = |value| {
            let mut text = String::new();
            put_value(&mut text, value);
            text
        };
        assert_eq!(shown(1.0), "1");
        assert_eq!(shown(0.1), "0.1");
        assert_eq!(shown(-1.5e30), "-1.5e30");
        assert_eq!(shown(1e-9), "1e-9");
        assert_eq!(shown(f64::NAN), "NaN");
        assert_eq!(shown(f64::NEG_INFINITY), "-Inf");
        assert_eq!(shown(18_446_744_073_709_552_000.0), "18446744073709552000");
        assert_eq!(metric_name("4a.b-c:d"), "_4a_b_c:d");
    }
}
