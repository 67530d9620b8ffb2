//! Rules that change samples, in the words of Prometheus' `metric_relabel_configs`.
//!
//! ```yaml
//! - source_labels: [__name__, path]        # a sample's name is its label __name__
//!   separator: ";"
//!   regex: http_requests_total;/health.*   # stands for all of the text
//!   action: drop
//! - regex: pod_(.+)
//!   action: labelmap
//! ```

use std::borrow::Cow;

use podkit_foundation::yaml::Path;
use regex::bytes::{Captures, Regex};

use super::text::{Found, Labels};
use crate::metrics::batch::{Kind, Line};
use crate::metrics::source::words::{Words, is_label, is_metric};

/// Rules of a file at most.
const MOST: usize = 1000;

const KEYS: [&str; 6] = [
    "source_labels",
    "separator",
    "regex",
    "target_label",
    "replacement",
    "action",
];

const NAME: &str = "__name__";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    Lowercase,
    Uppercase,
    LabelMap,
    LabelDrop,
    LabelKeep,
}

const ACTIONS: [(&str, Action); 10] = [
    ("replace", Action::Replace),
    ("keep", Action::Keep),
    ("drop", Action::Drop),
    ("keepequal", Action::KeepEqual),
    ("dropequal", Action::DropEqual),
    ("lowercase", Action::Lowercase),
    ("uppercase", Action::Uppercase),
    ("labelmap", Action::LabelMap),
    ("labeldrop", Action::LabelDrop),
    ("labelkeep", Action::LabelKeep),
];

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    action: Action,
    from: Vec<String>,
    separator: String,
    regex: Regex,
    target: String,
    replacement: String,
}

/// Those of a file, which is a list.
pub(in crate::metrics::source) fn read(words: &mut Words<'_>) -> Vec<Rule> {
    let root = Path::root();
    let rules = words.list(&root, MOST);
    rules.iter().filter_map(|path| rule(words, path)).collect()
}

fn rule(words: &mut Words<'_>, path: &Path) -> Option<Rule> {
    words.object(path, &KEYS);
    let at = |key: &'static str| path.key(key);
    let action = match words.has(&at("action")) {
        true => words.word(&at("action"), &ACTIONS)?,
        false => Action::Replace,
    };
    let from = words.texts(&at("source_labels"), 100);
    for (place, _) in from.iter().enumerate().filter(|(_, name)| !is_label(name)) {
        words.wrong(&path.item("source_labels", place), "is no name for a label");
    }
    let only_regex = matches!(action, Action::LabelDrop | Action::LabelKeep);
    let equal = matches!(action, Action::KeepEqual | Action::DropEqual);
    let unused: &[&'static str] = match action {
        _ if only_regex => &["source_labels", "separator", "target_label", "replacement"],
        _ if equal => &["separator", "regex", "replacement"],
        Action::Lowercase | Action::Uppercase => &["regex", "replacement"],
        Action::Keep | Action::Drop => &["target_label", "replacement"],
        Action::LabelMap => &["source_labels", "separator", "target_label"],
        _ => &[],
    };
    let word = ACTIONS.iter().find(|(_, one)| *one == action);
    for key in unused {
        if !words.has(&path.key(*key)) {
            continue;
        }
        let why = format!("means nothing to {}", word.map_or("", |(word, _)| word));
        words.wrong(&path.key(*key), why);
    }
    let target = words.text(&at("target_label")).unwrap_or_default();
    let wants_target = equal
        || matches!(
            action,
            Action::Replace | Action::Lowercase | Action::Uppercase
        );
    if wants_target && target.is_empty() {
        words.wrong(path, "has no target_label");
    } else if wants_target && !target.contains('$') && !is_label(&target) {
        words.wrong(&at("target_label"), "is no name for a label");
    }
    if matches!(action, Action::Keep | Action::Drop) && from.is_empty() {
        words.wrong(path, "has no source_labels");
    }
    let text = words
        .text(&at("regex"))
        .unwrap_or_else(|| "(.*)".to_owned());
    Some(Rule {
        regex: words.regex(&at("regex"), &text, true)?,
        action,
        from,
        separator: words
            .text(&at("separator"))
            .unwrap_or_else(|| ";".to_owned()),
        target,
        replacement: words
            .text(&at("replacement"))
            .unwrap_or_else(|| "$1".to_owned()),
    })
}

/// Changes a sample as the rules have it; the name of the family that it then belongs to, or none when it is dropped.
pub(crate) fn apply<'a>(rules: &[Rule], found: &mut Found<'a>) -> Option<Cow<'a, str>> {
    if rules.is_empty() {
        return Some(found.family.clone());
    }
    let end = found.line.suffix();
    let before = format!("{}{end}", found.family);
    found
        .labels
        .insert(0, (NAME.into(), Cow::Owned(before.clone())));
    for rule in rules {
        if !rule.apply(&mut found.labels) {
            return None;
        }
    }
    let at = found.labels.iter().position(|(name, _)| name == NAME)?;
    let (_, name) = found.labels.remove(at);
    found
        .labels
        .retain(|(name, value)| !name.starts_with("__") && !value.is_empty());
    if name == before {
        return Some(found.family.clone());
    }
    if !is_metric(&name) {
        return None;
    }
    match name.strip_suffix(end).filter(|family| !family.is_empty()) {
        Some(family) => Some(Cow::Owned(family.to_owned())),
        None => {
            // It is no part of a histogram any more.
            (found.kind, found.line) = (Kind::Untyped, Line::Plain);
            Some(name)
        }
    }
}

impl Rule {
    /// Whether the sample stays.
    fn apply(&self, labels: &mut Labels<'_>) -> bool {
        match self.action {
            Action::Replace => self.replace(labels),
            Action::Keep => return self.regex.is_match(self.joined(labels).as_bytes()),
            Action::Drop => return !self.regex.is_match(self.joined(labels).as_bytes()),
            Action::KeepEqual => return self.joined(labels) == get(labels, &self.target),
            Action::DropEqual => return self.joined(labels) != get(labels, &self.target),
            Action::Lowercase => set(labels, &self.target, self.joined(labels).to_lowercase()),
            Action::Uppercase => set(labels, &self.target, self.joined(labels).to_uppercase()),
            Action::LabelMap => {
                let found: Vec<(String, String)> = labels
                    .iter()
                    .filter_map(|(name, value)| {
                        let captures = self.regex.captures(name.as_bytes())?;
                        Some((expand(&captures, &self.replacement), value.to_string()))
                    })
                    .filter(|(name, _)| is_label(name))
                    .collect();
                for (name, value) in found {
                    set(labels, &name, value);
                }
            }
            Action::LabelDrop => labels.retain(|(name, _)| !self.regex.is_match(name.as_bytes())),
            Action::LabelKeep => labels.retain(|(name, _)| self.regex.is_match(name.as_bytes())),
        }
        // A sample without a name is none.
        !get(labels, NAME).is_empty()
    }

    fn replace(&self, labels: &mut Labels<'_>) {
        let joined = self.joined(labels);
        let Some(captures) = self.regex.captures(joined.as_bytes()) else {
            return;
        };
        let target = expand(&captures, &self.target);
        if is_label(&target) {
            set(labels, &target, expand(&captures, &self.replacement));
        }
    }

    /// The values of the labels that it looks at, as one.
    fn joined(&self, labels: &Labels<'_>) -> String {
        let values: Vec<&str> = self.from.iter().map(|name| get(labels, name)).collect();
        values.join(&self.separator)
    }
}

fn expand(captures: &Captures<'_>, template: &str) -> String {
    let mut out = Vec::new();
    captures.expand(template.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Empty when there is none, which is the same.
fn get<'a>(labels: &'a Labels<'_>, name: &str) -> &'a str {
    let found = labels.iter().find(|(known, _)| known == name);
    found.map_or("", |(_, value)| value)
}

fn set(labels: &mut Labels<'_>, name: &str, value: String) {
    match labels.iter().position(|(known, _)| known == name) {
        Some(at) if value.is_empty() => drop(labels.remove(at)),
        Some(at) => labels[at].1 = value.into(),
        None if value.is_empty() => {}
        None => labels.push((name.to_owned().into(), value.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::batch::render;
    use crate::metrics::source::words;

    fn rules(text: &str) -> Vec<Rule> {
        words::parse("relabel", "f", text, read).unwrap()
    }

    /// What becomes of a sample.
    fn check(text: &str, before: &[(&str, &str)], after: &str) {
        let mut found = Found {
            family: "req".into(),
            kind: Kind::Histogram,
            help: "",
            line: Line::Count,
            labels: before
                .iter()
                .map(|(a, b)| ((*a).into(), (*b).into()))
                .collect(),
            value: 1.0,
        };
        let shown = apply(&rules(text), &mut found).map(|family| {
            let labels: Vec<(&str, &str)> =
                found.labels.iter().map(|(a, b)| (&**a, &**b)).collect();
            format!("{family}{}{{{}}}", found.line.suffix(), render(&labels))
        });
        assert_eq!(shown.unwrap_or_default(), after, "{text}");
    }

    #[test]
    fn every_action_does_what_prometheus_does() {
        let ab = [("a", "x1"), ("b", "y")];
        check("[]", &ab, r#"req_count{a="x1",b="y"}"#);
        check(
            r#"[{source_labels: [a, b], regex: "x(.);(.)", target_label: c, replacement: "$2-${1}0"}]"#,
            &ab,
            r#"req_count{a="x1",b="y",c="y-10"}"#,
        );
        check(
            "[{source_labels: [a], target_label: b}]",
            &ab,
            r#"req_count{a="x1",b="x1"}"#,
        );
        check(
            "[{source_labels: [a], regex: x, target_label: b}]",
            &ab,
            r#"req_count{a="x1",b="y"}"#,
        );
        check(
            r#"[{target_label: a, replacement: ""}]"#,
            &ab,
            r#"req_count{b="y"}"#,
        );
        check(
            r#"[{source_labels: [b], target_label: "l_$1", replacement: v}]"#,
            &ab,
            r#"req_count{a="x1",b="y",l_y="v"}"#,
        );
        check(
            "[{source_labels: [__name__], regex: req_.*, action: keep}]",
            &ab,
            r#"req_count{a="x1",b="y"}"#,
        );
        check(
            "[{source_labels: [__name__], regex: req, action: keep}]",
            &ab,
            "",
        );
        check("[{source_labels: [a], regex: x.*, action: drop}]", &ab, "");
        check(
            "[{source_labels: [b], target_label: a, action: keepequal}]",
            &ab,
            "",
        );
        check(
            "[{source_labels: [b], target_label: a, action: dropequal}]",
            &ab,
            r#"req_count{a="x1",b="y"}"#,
        );
        check(
            "[{source_labels: [a], target_label: a, action: uppercase}]",
            &ab,
            r#"req_count{a="X1",b="y"}"#,
        );
        check(
            r#"[{regex: "(a)", replacement: "p_$1", action: labelmap}]"#,
            &ab,
            r#"req_count{a="x1",b="y",p_a="x1"}"#,
        );
        check(
            "[{regex: a, action: labeldrop}]",
            &ab,
            r#"req_count{b="y"}"#,
        );
        check(
            "[{regex: a|__name__, action: labelkeep}]",
            &ab,
            r#"req_count{a="x1"}"#,
        );
        check("[{regex: a, action: labelkeep}]", &ab, "");
        check(
            "[{source_labels: [a], target_label: __tmp}]",
            &ab,
            r#"req_count{a="x1",b="y"}"#,
        );
        check(
            r#"[{source_labels: [__name__], regex: "req_(.*)", target_label: __name__, replacement: "web_$1"}]"#,
            &ab,
            r#"web_count{a="x1",b="y"}"#,
        );
        check(
            r#"[{source_labels: [__name__], regex: "req_count", target_label: __name__, replacement: n}]"#,
            &ab,
            r#"n{a="x1",b="y"}"#,
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let check = |text: &str, why: &str| {
            let error = words::parse("relabel", "f", text, read).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("a: b", "expected a list, found an object");
        check(
            "- {regexp: a, target_label: b}",
            "f:1:4: [0].regexp: unknown key; did you mean regex?",
        );
        check(
            "- {regex: \"(\", target_label: b}",
            "is not a regular expression: unclosed group",
        );
        check(
            "- {regex: \")(\", target_label: b}",
            "is not a regular expression: unopened group",
        );
        check("- {regex: a}", "has no target_label");
        check(
            "- {action: hashmod, target_label: b}",
            "\"hashmod\" is not one of replace, ",
        );
        check(
            "- {action: labeldrop, regex: a, target_label: b}",
            "means nothing to labeldrop",
        );
        check("- {action: drop, regex: a}", "has no source_labels");
        check(
            "- {source_labels: [a-b], target_label: b}",
            "is no name for a label",
        );
    }
}

/// No bytes upset it.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz {
    use podkit_foundation::fuzz::Target;

    use super::read;
    use crate::metrics::batch::Batch;
    use crate::metrics::source::prometheus::add;
    use crate::metrics::source::prometheus::text::Dialect;
    use crate::metrics::source::words;

    const PAGE: &str =
        "# TYPE h histogram\nh_bucket{a=\"x\",le=\"1\"} 1\nh_sum{a=\"x\"} 1\nh_count{a=\"x\"} 1\n";

    pub(crate) const TARGET: Target = Target {
        name: "metrics-relabel",
        seeds: &[
            b"- {source_labels: [__name__, a], regex: 'h_(.*);(.)', target_label: __name__, replacement: '$1_$2'}\n\
              - {action: labelmap, regex: (a), replacement: b_$1}\n- {action: labeldrop, regex: a}\n",
        ],
        run: |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(rules) = words::parse("relabel", "f", &text, read) {
                add(PAGE, Dialect::Plain, &rules, true, &mut Batch::default()).expect("it is right");
            }
        },
    };
}
