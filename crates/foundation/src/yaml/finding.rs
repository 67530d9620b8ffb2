//! What was found in the files: errors, risks, warnings, and fields that have no meaning here, each with its place.
//!
//! One line each, in the form compilers use (`FILE:LINE:COLUMN: …`), so that editors jump to it. Everything is
//! collected: a user who mends a manifest wants the whole list, not the first entry of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The pod doesn't start.
    Error,
    /// It starts, and has hold of the machine: host paths, the host's programs.
    Risk,
    /// It starts, but probably not as meant.
    Warning,
    /// A field that has no meaning on one machine.
    Ignored,
}

impl Severity {
    /// `error`, `risk`, `warning`, `ignored`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Risk => "risk",
            Self::Warning => "warning",
            Self::Ignored => "ignored",
        }
    }
}

/// Where something stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as it was named; `-` is standard input. An option's name where no file is to blame.
    pub file: Arc<str>,
    /// From 1; 0 where the whole file is meant.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl Place {
    /// A whole file, or an option of the command line.
    pub fn whole(file: &str) -> Self {
        Self {
            file: Arc::from(file),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.file);
        }
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Where it stands.
    pub place: Place,
    /// The field, as Kubernetes writes paths: `spec.containers[0].image`. Empty where the file as a whole is meant.
    pub path: String,
    /// What is the matter, and what would be right. One line.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if self.severity != Severity::Error {
            write!(f, "{}: ", self.severity.name())?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// More than anybody reads; a file that isn't a manifest at all can have one for each of its lines.
const MOST: usize = 1000;

/// All that was found, in the order of the files; at most a thousand, and then how many more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    list: Vec<Finding>,
    /// Left out, of each severity.
    more: BTreeMap<Severity, usize>,
}

impl Findings {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        if self.is_full() {
            *self.more.entry(finding.severity).or_default() += 1;
        } else {
            self.list.push(finding);
        }
    }

    /// Adds one; `path` is what [`super::Path`] displays.
    pub fn add(
        &mut self,
        severity: Severity,
        place: Place,
        path: impl fmt::Display,
        message: impl Into<String>,
    ) {
        if self.is_full() {
            *self.more.entry(severity).or_default() += 1;
            return;
        }
        self.push(Finding {
            severity,
            place,
            path: path.to_string(),
            message: message.into(),
        });
    }

    /// Whether another is only counted: what it would say needs no thought.
    pub fn is_full(&self) -> bool {
        self.list.len() >= MOST
    }

    /// Adds those of another step.
    pub fn extend(&mut self, more: Self) {
        for finding in more.list {
            self.push(finding);
        }
        for (severity, count) in more.more {
            *self.more.entry(severity).or_default() += count;
        }
    }

    /// Something stands in the way of a start.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        let listed = self.list.iter().filter(|f| f.severity == severity).count();
        listed + self.more.get(&severity).copied().unwrap_or(0)
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.list.iter()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// By file and line, without repetitions. Steps find things in different orders; people read a file downwards.
    pub fn sort(&mut self) {
        let mut files: Vec<Arc<str>> = Vec::new();
        for finding in &self.list {
            if !files.contains(&finding.place.file) {
                files.push(Arc::clone(&finding.place.file));
            }
        }
        let rank = |f: &Finding| files.iter().position(|file| *file == f.place.file);
        self.list
            .sort_by_key(|f| (rank(f), f.place.line, f.place.column, f.severity));
        self.list.dedup();
    }
}

/// One a line, with a line end after each.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.list {
            writeln!(f, "{finding}")?;
        }
        match self.more.values().sum::<usize>() {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}
