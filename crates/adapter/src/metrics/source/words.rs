//! Reading a file of rules: strictly, and with the place of everything that is wrong.

use std::path::Path as FilePath;
use std::sync::Arc;

use podkit_foundation::yaml::{
    Findings, Node, Path, Severity, Source, Value, documents, nearest, read,
};
use regex::bytes::{Regex, RegexBuilder};

/// What a compiled expression may take, in bytes.
const MOST_REGEX_BYTES: usize = 2 << 20;

/// Looks into a document, and notes what is wrong with it.
pub(super) struct Words<'a> {
    source: &'a Source,
    findings: Findings,
}

/// What `take` makes of the file that a source's `key` names. The error names everything that is wrong with it.
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

/// The same, of its text.
pub(super) fn parse<T>(
    key: &str,
    name: &str,
    text: &str,
    take: impl FnOnce(&mut Words<'_>) -> T,
) -> Result<T, String> {
    let mut findings = Findings::new();
    let file: Arc<str> = Arc::from(name);
    let mut roots = documents(text, &file, &mut findings);
    let mut taken = None;
    if roots.len() == 1 {
        let source = Source::new(file, Arc::new(roots.remove(0)), Path::root());
        let mut words = Words {
            source: &source,
            findings,
        };
        taken = Some(take(&mut words));
        findings = words.findings;
    } else if !findings.has_errors() {
        return Err(format!(
            "{key}={name}: expected one document, found {}",
            roots.len()
        ));
    }
    findings.sort();
    match taken {
        Some(taken) if findings.is_empty() => Ok(taken),
        _ => Err(format!("{key} can't be used:\n{findings}")),
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

    fn expected(&mut self, path: &Path, what: &str) {
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
        match self.find(path)?.value {
            Value::Bool(value, _) => Some(value),
            _ => {
                self.expected(path, "true or false");
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, path: &Path, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(path)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
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
