//! Reading a file of rules: strictly, and with the place of everything that is wrong.
//!
//! YAML 1.2, so that a label or a module may be called `n` or `on`. For true and false the words of YAML 1.1 are taken too: the files of
//! the usual exporters have them.

use std::path::Path as FilePath;
use std::sync::Arc;

use podkit_foundation::yaml::{
    Findings, Mark, Node, Path, Schema, Severity, Source, Value, documents_in, nearest, read,
};
use regex::bytes::{Regex, RegexBuilder};

/// What a compiled expression may take, in bytes.
const MOST_REGEX_BYTES: usize = 2 << 20;

/// Items of a list that nobody would write by hand.
pub(super) const MANY: usize = 10_000;

/// Looks into a document, and notes what is wrong with it.
pub(super) struct Words<'a> {
    source: &'a Source,
    findings: Findings,
}

/// What `take` makes of the file that a source's `key` names. The error has a line for each thing that is wrong.
pub(super) fn file<T>(
    key: &str,
    path: &FilePath,
    take: impl FnOnce(&mut Words<'_>) -> T,
) -> Result<T, String> {
    let shown = path.display().to_string();
    let bytes = read::file(path).map_err(|why| format!("{key}={shown}: {why}"))?;
    let text = read::text(&bytes)
        .map_err(|(line, column, why)| format!("{key}={shown}:{line}:{column}: {why}"))?;
    parse(key, &shown, text, take)
}

/// The same, of its text. One that says nothing is null.
pub(super) fn parse<T>(
    key: &str,
    name: &str,
    text: &str,
    take: impl FnOnce(&mut Words<'_>) -> T,
) -> Result<T, String> {
    let mut findings = Findings::new();
    let file: Arc<str> = Arc::from(name);
    let mut roots = documents_in(Schema::Core, text, &file, &mut findings).into_iter();
    let taken = (!findings.has_errors()).then(|| {
        let nothing = Node {
            mark: Mark { line: 1, column: 1 },
            value: Value::Null,
        };
        let root = roots.next().unwrap_or(nothing);
        let source = Source::new(file, Arc::new(root), Path::root());
        let mut words = Words {
            source: &source,
            findings: std::mem::take(&mut findings),
        };
        if let Some(more) = roots.next() {
            let why = "a second document; expected one";
            let place = source.at(more.mark);
            words.findings.add(Severity::Error, place, "", why);
        }
        let taken = take(&mut words);
        findings = words.findings;
        taken
    });
    findings.sort();
    match taken {
        Some(taken) if findings.is_empty() => Ok(taken),
        _ => Err(format!("{key}={}", findings.to_string().trim_end())),
    }
}

impl Words<'_> {
    pub(super) fn wrong(&mut self, path: &Path, why: impl Into<String>) {
        let place = self.source.place(path);
        self.findings.add(Severity::Error, place, path, why);
    }

    /// What is there, and is not null.
    pub(super) fn find(&self, path: &Path) -> Option<&Node> {
        let found = self.source.find(path);
        found.filter(|node| node.value != Value::Null)
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        self.find(path).is_some()
    }

    pub(super) fn expected(&mut self, path: &Path, what: &str) {
        let found = self.find(path).map_or("nothing".into(), Node::describe);
        self.wrong(path, format!("expected {what}, found {found}"));
    }

    /// At `path` there is an object with no keys but these, or nothing. Whether there is one.
    pub(super) fn object(&mut self, path: &Path, known: &[&str]) -> bool {
        let keys = self.keys(path);
        for key in keys.iter().filter(|key| !known.contains(&key.as_str())) {
            let hint = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", known.join(", ")),
            };
            let path = path.key(key.clone());
            let place = self.source.key_place(&path);
            let why = format!("unknown key; {hint}");
            self.findings.add(Severity::Error, place, &path, why);
        }
        !keys.is_empty()
    }

    /// The keys of the object at `path`; none when there is nothing.
    pub(super) fn keys(&mut self, path: &Path) -> Vec<String> {
        match self.find(path).map(|node| &node.value) {
            None => Vec::new(),
            Some(Value::Map(entries)) => entries.iter().map(|one| one.key.clone()).collect(),
            Some(_) => {
                self.expected(path, "an object");
                Vec::new()
            }
        }
    }

    /// The paths of a list's items, `most` of them.
    pub(super) fn list(&mut self, path: &Path, most: usize) -> Vec<Path> {
        match self.find(path).map(|node| &node.value) {
            None => Vec::new(),
            Some(Value::Seq(items)) if items.len() <= most => {
                (0..items.len()).map(|at| path.index(at)).collect()
            }
            Some(Value::Seq(_)) => {
                self.wrong(path, format!("has more than {most} items"));
                Vec::new()
            }
            Some(_) => {
                self.expected(path, "a list");
                Vec::new()
            }
        }
    }

    /// Texts in a list.
    pub(super) fn texts(&mut self, path: &Path, most: usize) -> Vec<String> {
        let items = self.list(path, most);
        items.iter().filter_map(|item| self.text(item)).collect()
    }

    /// A text; numbers and booleans are taken as they are written.
    pub(super) fn text(&mut self, path: &Path) -> Option<String> {
        match &self.find(path)?.value {
            Value::Str(text)
            | Value::Bool(_, text)
            | Value::Int(_, text)
            | Value::Float(_, text) => Some(text.clone()),
            _ => {
                self.expected(path, "a text");
                None
            }
        }
    }

    pub(super) fn truth(&mut self, path: &Path) -> Option<bool> {
        let truth = match &self.find(path)?.value {
            Value::Bool(value, _) => Some(*value),
            Value::Str(text) => match text.to_ascii_lowercase().as_str() {
                "y" | "yes" | "on" => Some(true),
                "n" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if truth.is_none() {
            self.expected(path, "true or false");
        }
        truth
    }

    #[expect(clippy::cast_precision_loss, reason = "as near as floats come")]
    pub(super) fn number(&mut self, path: &Path) -> Option<f64> {
        let number = match self.find(path)?.value {
            Value::Int(value, _) => Some(value as f64),
            Value::Float(value, _) if value.is_finite() => Some(value),
            _ => None,
        };
        if number.is_none() {
            self.expected(path, "a number");
        }
        number
    }

    /// A number of things, within `least` and `most`.
    pub(super) fn count(&mut self, path: &Path, least: u32, most: u32) -> Option<u32> {
        let count = match self.find(path)?.value {
            Value::Int(value, _) => u32::try_from(value).ok(),
            _ => None,
        };
        let count = count.filter(|count| (least..=most).contains(count));
        if count.is_none() {
            self.expected(path, &format!("a whole number of {least} to {most}"));
        }
        count
    }

    /// A text that `read` makes something of: `what` it is expected to be.
    pub(super) fn parsed<T>(
        &mut self,
        path: &Path,
        what: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(path)?;
        let value = read(&text);
        if value.is_none() {
            self.wrong(path, format!("{text:?} is not {what}"));
        }
        value
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, path: &Path, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(path)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let mut known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            known.retain(|word| !word.is_empty());
            let why = format!("\"{text}\" is not one of {}", known.join(", "));
            self.wrong(path, why);
        }
        found.map(|(_, value)| *value)
    }

    /// Names and texts.
    pub(super) fn pairs(&mut self, path: &Path) -> Vec<(String, String)> {
        let keys = self.keys(path);
        let pair = |key: String| {
            let text = self.text(&path.key(key.clone()))?;
            Some((key, text))
        };
        keys.into_iter().filter_map(pair).collect()
    }

    /// An expression; bytes, and letters of ASCII, as in Go. `anchored`: it stands for all of what it is held against.
    pub(super) fn regex(&mut self, path: &Path, text: &str, anchored: bool) -> Option<Regex> {
        let whole = match anchored {
            true => format!("^(?s:{text})$"),
            false => text.to_owned(),
        };
        // Not before it is right by itself: ")(" would be between the anchors.
        let built = regex(text).and_then(|_| regex(&whole));
        match built {
            Ok(regex) => Some(regex),
            Err(error) => {
                let why = error.to_string();
                let last = why.lines().last().unwrap_or_default().trim();
                let last = last.strip_prefix("error: ").unwrap_or(last);
                self.wrong(path, format!("is not a regular expression: {last}"));
                None
            }
        }
    }
}

fn regex(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MOST_REGEX_BYTES)
        .build()
}

/// A name for a metric: letters, digits, `_` and `:`, no digit first.
pub(super) fn is_metric(name: &str) -> bool {
    !name.is_empty() && crate::metrics::batch::metric_name(name) == name
}

/// A name for a label: letters, digits and `_`, no digit first.
pub(super) fn is_label(name: &str) -> bool {
    is_metric(name) && !name.contains(':')
}
