//! Reading an object of the file: strictly, and with the place of everything that is wrong.

use std::sync::Arc;

use podkit_foundation::yaml::{Findings, Node, Path, Severity, Source, Value, nearest};

/// Looks into a document, and notes what is wrong with it.
pub(super) struct Words<'a> {
    pub(super) source: &'a Source,
    pub(super) findings: Findings,
}

impl Words<'_> {
    pub(super) fn wrong(&mut self, path: &Path, why: impl Into<String>) {
        let place = self.source.place(path);
        self.findings.add(Severity::Error, place, path, why);
    }

    /// What is there, and is not null.
    pub(super) fn find(&self, path: &Path) -> Option<Node> {
        let found = self.source.find(path).cloned();
        found.filter(|node| node.value != Value::Null)
    }

    pub(super) fn expected(&mut self, path: &Path, node: &Node, what: &str) {
        self.wrong(path, format!("expected {what}, found {}", node.describe()));
    }

    /// At `path` there is an object with no keys but these, or nothing. Whether there is one.
    pub(super) fn object(&mut self, path: &Path, known: &[&str]) -> bool {
        let Some(node) = self.find(path) else {
            return false;
        };
        let Value::Map(entries) = &node.value else {
            self.expected(path, &node, "an object");
            return false;
        };
        for entry in entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            let hint = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", known.join(", ")),
            };
            let (place, path) = (self.source.at(entry.mark), path.key(entry.key.clone()));
            let why = format!("unknown key; {hint}");
            self.findings.add(Severity::Error, place, path, why);
        }
        true
    }

    /// The paths of a list's items.
    pub(super) fn list(&mut self, path: &Path) -> Vec<Path> {
        match self.find(path) {
            None => Vec::new(),
            Some(Node {
                value: Value::Seq(items),
                ..
            }) => (0..items.len()).map(|at| path.index(at)).collect(),
            Some(node) => {
                self.expected(path, &node, "a list");
                Vec::new()
            }
        }
    }

    /// A text; numbers and booleans are taken as they are written.
    pub(super) fn text(&mut self, path: &Path) -> Option<String> {
        let node = self.find(path)?;
        match &node.value {
            Value::Str(text)
            | Value::Bool(_, text)
            | Value::Int(_, text)
            | Value::Float(_, text) => Some(text.clone()),
            _ => {
                self.expected(path, &node, "a text");
                None
            }
        }
    }

    pub(super) fn truth(&mut self, path: &Path) -> Option<bool> {
        let node = self.find(path)?;
        match node.value {
            Value::Bool(value, _) => Some(value),
            _ => {
                self.expected(path, &node, "true or false");
                None
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "as near as floats come")]
    pub(super) fn number(&mut self, path: &Path) -> Option<f64> {
        let node = self.find(path)?;
        match node.value {
            Value::Int(value, _) => Some(value as f64),
            Value::Float(value, _) if value.is_finite() => Some(value),
            _ => {
                self.expected(path, &node, "a number");
                None
            }
        }
    }

    /// A number of things, within `least` and `most`.
    pub(super) fn count(&mut self, path: &Path, least: u32, most: u32) -> Option<u32> {
        let node = self.find(path)?;
        let count = match node.value {
            Value::Int(value, _) => u32::try_from(value).ok(),
            _ => None,
        };
        let count = count.filter(|count| (least..=most).contains(count));
        if count.is_none() {
            self.expected(path, &node, &format!("a whole number of {least} to {most}"));
        }
        count
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, path: &Path, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(path)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let mut known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            known.retain(|word| !word.is_empty());
            self.wrong(
                path,
                format!("\"{text}\" is not one of {}", known.join(", ")),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// Seconds, of a time as Go has it.
    pub(super) fn time(&mut self, path: &Path) -> Option<f64> {
        let node = self.find(path)?;
        let seconds = match &node.value {
            // Go's unit of time.
            #[expect(clippy::cast_precision_loss, reason = "a time need not be exact")]
            Value::Int(nanoseconds, _) => Some(*nanoseconds as f64 / 1e9),
            Value::Str(text) => go_time(text),
            _ => None,
        };
        let seconds = seconds.filter(|seconds| (0.0..=1e9).contains(seconds));
        if seconds.is_none() {
            self.expected(path, &node, "a time such as 90s, 10m or 1h30m");
        }
        seconds
    }

    /// Numbers in ascending order.
    pub(super) fn numbers(&mut self, path: &Path) -> Option<Arc<[f64]>> {
        let paths = self.list(path);
        let numbers: Vec<f64> = paths.iter().filter_map(|path| self.number(path)).collect();
        if let Some(at) = numbers.windows(2).position(|two| two[0] >= two[1]) {
            self.wrong(&path.index(at + 1), "is not above the one before it");
        }
        (!numbers.is_empty()).then(|| numbers.into())
    }
}

/// Seconds of Go's `time.ParseDuration`: `1h15m30.918s`.
fn go_time(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    if text == "0" {
        return Some(0.0);
    }
    let is_number = |one: char| one.is_ascii_digit() || one == '.';
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|one| !is_number(one))?);
        let (unit, next) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum += number.parse::<f64>().ok()? * seconds;
        rest = next;
    }
    (!text.is_empty()).then_some(sum)
}
