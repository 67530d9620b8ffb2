//! Rules over lines.
//!
//! ```yaml
//! - name: app_requests                               # the metric's name
//!   regex: '^requests (?P<path>\S+) (?P<value>\d+)'   # named groups are labels, `value` is the value
//!   type: counter                                    # gauge, or untyped unless said
//!   aggregate: sum                                   # of the lines of one set of labels: last unless said, or count
//!   help: Requests by path
//!   labels: {app: shop}
//! ```

use std::collections::HashMap;

use podkit_foundation::yaml::Path;
use regex::bytes::Regex;

use crate::metrics::batch::{Batch, Kind, Line, render};
use crate::metrics::source::words::{Words, is_label, is_metric};

/// Rules of a file at most.
const MOST: usize = 1000;

/// Sets of labels of a rule at most.
const MOST_SERIES: usize = 10_000;

/// What of several lines with the same labels is the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Last,
    Sum,
    Count,
}

#[derive(Debug)]
pub(super) struct Rule {
    name: String,
    help: String,
    kind: Kind,
    regex: Regex,
    aggregate: Aggregate,
    labels: Vec<(String, String)>,
    /// Labels of groups.
    groups: Vec<String>,
}

/// Those of a file, which is a list. `is_named`: samples get a label `source`.
pub(super) fn read(words: &mut Words<'_>, is_named: bool) -> Vec<Rule> {
    let root = Path::root();
    let rules = words.list(&root, MOST);
    if rules.is_empty() {
        words.wrong(&root, "has no rules");
    }
    rules
        .iter()
        .filter_map(|path| rule(words, path, is_named))
        .collect()
}

fn rule(words: &mut Words<'_>, path: &Path, is_named: bool) -> Option<Rule> {
    const KEYS: [&str; 6] = ["name", "regex", "type", "aggregate", "help", "labels"];
    const KINDS: [(&str, Kind); 3] = [
        ("gauge", Kind::Gauge),
        ("counter", Kind::Counter),
        ("untyped", Kind::Untyped),
    ];
    const AGGREGATES: [(&str, Aggregate); 3] = [
        ("last", Aggregate::Last),
        ("sum", Aggregate::Sum),
        ("count", Aggregate::Count),
    ];
    words.object(path, &KEYS);
    let at = |key: &'static str| path.key(key);
    let name = words.text(&at("name")).unwrap_or_default();
    if !is_metric(&name) {
        let why = "wants a name of letters, digits, _ and :, no digit first";
        words.wrong(&at("name"), why);
    }
    let aggregate = words.word(&at("aggregate"), &AGGREGATES);
    let aggregate = aggregate.unwrap_or(Aggregate::Last);
    let labels = words.pairs(&at("labels"));
    if !words.has(&at("regex")) {
        words.wrong(path, "has no regex");
    }
    let text = words.text(&at("regex"))?;
    let regex = words.regex(&at("regex"), &text, false)?;
    let named = |one: Option<&str>| one.map(str::to_owned);
    let groups: Vec<String> = regex.capture_names().filter_map(named).collect();
    let has_value = groups.iter().any(|group| group == "value");
    if !has_value && aggregate != Aggregate::Count {
        words.wrong(&at("regex"), "has no group for the value: (?P<value>…)");
    }
    let groups: Vec<String> = groups.into_iter().filter(|one| one != "value").collect();
    let fixed = labels
        .iter()
        .map(|(label, _)| (label, at("labels").key(label.clone())));
    for (label, path) in fixed.chain(groups.iter().map(|group| (group, at("regex")))) {
        if !is_label(label) || label.starts_with("__") {
            words.wrong(&path, format!("{label} is no name for a label"));
        } else if is_named && label == "source" {
            words.wrong(&path, "source is the label that the source's name has");
        }
    }
    for group in groups
        .iter()
        .filter(|group| labels.iter().any(|(label, _)| label == *group))
    {
        words.wrong(&at("labels").key(group.clone()), "is a group too");
    }
    Some(Rule {
        help: words.text(&at("help")).unwrap_or_default(),
        kind: words.word(&at("type"), &KINDS).unwrap_or(Kind::Untyped),
        name,
        regex,
        aggregate,
        labels,
        groups,
    })
}

/// What the lines that were read come to, by rule and labels.
#[derive(Debug, Default)]
pub(super) struct Sums {
    order: Vec<(usize, String, f64)>,
    places: HashMap<(usize, String), usize>,
    series: HashMap<usize, usize>,
}

impl Sums {
    /// Adds those of a file. A line counts for each rule that it fits.
    pub(super) fn add(&mut self, text: &[u8], rules: &[Rule]) -> Result<(), String> {
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            for (at, rule) in rules.iter().enumerate() {
                let Some((labels, value)) = rule.find(line) else {
                    continue;
                };
                match self.places.get(&(at, labels.clone())) {
                    Some(place) => {
                        let sum = &mut self.order[*place].2;
                        *sum = match rule.aggregate {
                            Aggregate::Last => value,
                            Aggregate::Sum | Aggregate::Count => *sum + value,
                        };
                    }
                    None => {
                        let count = self.series.entry(at).or_default();
                        *count += 1;
                        if *count > MOST_SERIES {
                            let name = &rule.name;
                            return Err(format!("{name} has more than {MOST_SERIES} series"));
                        }
                        self.places.insert((at, labels.clone()), self.order.len());
                        self.order.push((at, labels, value));
                    }
                }
            }
        }
        Ok(())
    }

    /// As samples.
    pub(super) fn put(self, rules: &[Rule], batch: &mut Batch) {
        for (at, labels, value) in self.order {
            let rule = &rules[at];
            batch
                .family(&rule.name, rule.kind, rule.help.clone())
                .put_rendered(Line::Plain, labels.into(), value);
        }
    }
}

impl Rule {
    /// Labels and value of a line that fits. One whose value is no number does not.
    fn find(&self, line: &[u8]) -> Option<(String, f64)> {
        let captures = self.regex.captures(line)?;
        let text = |group: &str| {
            let found = captures.name(group).map(|found| found.as_bytes());
            String::from_utf8_lossy(found.unwrap_or_default())
        };
        let value = match self.aggregate {
            Aggregate::Count => 1.0,
            Aggregate::Last | Aggregate::Sum => text("value").trim().parse().ok()?,
        };
        let groups: Vec<_> = self.groups.iter().map(|group| text(group)).collect();
        let fixed = self
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let found = self
            .groups
            .iter()
            .zip(&groups)
            .map(|(name, value)| (name.as_str(), &**value));
        let labels: Vec<(&str, &str)> = fixed.chain(found).collect();
        Some((render(&labels), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::source::{shown, words};

    #[test]
    fn lines_are_samples() {
        let rules = r#"
- {name: req, regex: '^req (?P<path>\S+) (?P<value>\S+)$', type: counter, aggregate: sum, labels: {app: shop}}
- {name: temp, regex: 'temp=(?P<value>[-\d.]+)', type: gauge, help: How hot}
- {name: errors, regex: '^(?P<level>ERROR|WARN)', aggregate: count}
"#;
        let rules = words::parse("rules", "f", rules, |words| read(words, true)).unwrap();
        let text =
            b"req /a 1\r\nreq /b 2\nERROR temp=3\nreq /a 2.5\nreq /a x\nWARN \xff\nERROR\ntemp=-4";
        let mut sums = Sums::default();
        sums.add(text, &rules).unwrap();
        sums.add(b"req /b 1", &rules).unwrap();
        let mut batch = Batch::default();
        sums.put(&rules, &mut batch);
        assert_eq!(
            shown(&batch),
            r#"req{app="shop",path="/a"} counter 3.5
req{app="shop",path="/b"} counter 3
temp gauge -4
errors{level="ERROR"} untyped 2
errors{level="WARN"} untyped 1
"#
        );
    }

    #[test]
    fn what_is_wrong_with_rules_is_told() {
        let check = |text: &str, why: &str| {
            let error = words::parse("rules", "f", text, |words| read(words, true)).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("[]", "has no rules");
        check("- {name: a}", "has no regex");
        check("- {name: a, regex: b}", "has no group for the value");
        check(
            "- {name: a b, regex: '(?P<value>.)'}",
            "wants a name of letters",
        );
        check(
            "- {name: a, regex: '(?P<source>.)', aggregate: count}",
            "the source's name has",
        );
        check(
            "- {name: a, regex: '(?P<b>.)', aggregate: count, labels: {b: c}}",
            "is a group too",
        );
        check(
            "- {name: a, regex: '(', aggregate: count}",
            "is not a regular expression",
        );
        check(
            "- {name: a, regex: b, aggregate: mean}",
            "is not one of last, sum, count",
        );
    }
}
