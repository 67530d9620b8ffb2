//! The mapping file of statsd_exporter: names as they are sent to names and labels as they are shown.
//!
//! Rules with globs come first, all at once in a tree; then those with regular expressions, one after the other.

mod file;
mod glob;
mod time;

use std::sync::Arc;

use regex::bytes::Regex;

use super::line::Kind;
use super::window::Age;
#[cfg(any(test, feature = "fuzz"))]
pub(super) use file::parse;
pub(super) use file::read;
use glob::Tree;

/// What sort of value it is, in the words of `match_metric_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Counter,
    Gauge,
    Observer,
}

impl Sort {
    /// None: a set, which the file has no word for.
    pub(super) fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Counter => Some(Self::Counter),
            Kind::Gauge => Some(Self::Gauge),
            Kind::Timer | Kind::Observed => Some(Self::Observer),
            Kind::Set => None,
        }
    }
}

/// How observations are shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Observer {
    Summary { quantiles: Arc<[f64]> },
    Histogram { bounds: Arc<[f64]> },
}

/// What is done with the samples that a rule matches; those that no rule does have one too.
#[derive(Debug, Clone)]
pub(super) struct Treatment {
    pub(super) observer: Observer,
    /// Of summaries and sets.
    pub(super) age: Age,
    /// Seconds after which a series that got nothing is forgotten; 0 for never.
    pub(super) ttl: u32,
    pub(super) scale: Option<f64>,
    pub(super) help: Option<Arc<str>>,
}

/// A rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pattern: Pattern,
    sort: Option<Sort>,
    name: String,
    labels: Vec<(String, String)>,
    pub(super) honor_labels: bool,
    pub(super) is_drop: bool,
    pub(super) treatment: Treatment,
}

#[derive(Debug, Clone)]
enum Pattern {
    Glob(String),
    Regex(Regex),
}

/// A file's rules.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) rules: Vec<Rule>,
    globs: Tree,
    /// Of what no rule matches.
    pub(super) rest: Treatment,
}

/// What a name becomes.
#[derive(Debug, PartialEq)]
pub(super) struct Mapped {
    /// Which rule says so.
    pub(super) rule: usize,
    /// Not escaped yet.
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
}

impl Mapping {
    fn new(rules: Vec<Rule>, rest: Treatment, is_ordered: bool) -> Self {
        let mut globs = Tree::new(is_ordered);
        for (at, rule) in rules.iter().enumerate() {
            if let Pattern::Glob(glob) = &rule.pattern {
                globs.add(glob, at, rule.sort);
            }
        }
        Self { rules, globs, rest }
    }

    /// Without rules; a series is forgotten after `ttl` seconds.
    pub(super) fn none(ttl: u32) -> Self {
        Self::new(Vec::new(), file::usual(ttl), true)
    }

    /// The rule for a name, and what it makes of it.
    pub(super) fn find(&self, name: &str, kind: Kind) -> Option<Mapped> {
        let sort = Sort::of(kind);
        if let Some((rule, captures)) = self.globs.find(name, sort) {
            let fill = |template: &str| glob::fill(template, &captures);
            return Some(self.mapped(rule, fill));
        }
        for (at, rule) in self.rules.iter().enumerate() {
            let Pattern::Regex(regex) = &rule.pattern else {
                continue;
            };
            if rule.sort.is_some() && rule.sort != sort {
                continue;
            }
            if let Some(captures) = regex.captures(name.as_bytes()) {
                let fill = |template: &str| {
                    let mut out = Vec::new();
                    captures.expand(template.as_bytes(), &mut out);
                    String::from_utf8_lossy(&out).into_owned()
                };
                return Some(self.mapped(at, fill));
            }
        }
        None
    }

    fn mapped(&self, at: usize, fill: impl Fn(&str) -> String) -> Mapped {
        let rule = &self.rules[at];
        let labels = rule.labels.iter();
        Mapped {
            rule: at,
            name: fill(&rule.name),
            labels: labels
                .map(|(name, value)| (name.clone(), fill(value)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
