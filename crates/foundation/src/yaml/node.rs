//! A document as a tree that remembers where everything stood.
//!
//! Why a tree of our own and not the parser's: errors want the line of the key or the value that is wrong, long after
//! parsing; scalars are typed as Kubernetes types them; aliases and merge keys are already resolved.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::finding::Place;

/// A position in a file. Both from 1; columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mark {
    pub line: u32,
    pub column: u32,
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub mark: Mark,
    pub value: Value,
}

/// What a node holds. The scalars other than text keep how they were written, for error messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool, String),
    /// Within `i64` or `u64`.
    Int(i128, String),
    Float(f64, String),
    Str(String),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub mark: Mark,
    pub node: Node,
}

impl Node {
    /// The entry of a mapping.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The value of a mapping's entry.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Null, `[]` or `{}`: the API server takes these as not set wherever a list or an object is optional.
    pub fn is_unset(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Seq(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            _ => false,
        }
    }

    /// What was found, for "expected …, found …".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(value, text) if text.parse() == Ok(*value) => format!("the boolean {text}"),
            Value::Bool(value, text) => format!("the boolean {value} (YAML reads {text} so)"),
            Value::Int(value, text) if value.to_string() == *text => format!("the number {text}"),
            Value::Int(value, text) => format!("the number {value} (YAML reads {text} so)"),
            Value::Float(_, text) => format!("the number {text}"),
            Value::Str(text) if text.chars().count() <= 40 => format!("the text {text:?}"),
            Value::Str(_) => "a text".into(),
            Value::Seq(_) => "a list".into(),
            Value::Map(_) => "an object".into(),
        }
    }
}

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(Cow<'static, str>),
    Index(usize),
}

/// A way through a document, displayed as Kubernetes does: `spec.containers[0].image`, `data['nginx.conf']`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(Vec<Step>);

impl Path {
    /// The document itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Down into an object.
    #[must_use]
    pub fn key(&self, key: impl Into<Cow<'static, str>>) -> Self {
        let mut path = self.clone();
        path.push_key(key);
        path
    }

    /// Down into a list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }

    /// Down into a list in an object.
    #[must_use]
    pub fn item(&self, key: &'static str, index: usize) -> Self {
        self.key(key).index(index)
    }

    pub fn push_key(&mut self, key: impl Into<Cow<'static, str>>) {
        self.0.push(Step::Key(key.into()));
    }

    pub fn push_index(&mut self, index: usize) {
        self.0.push(Step::Index(index));
    }

    pub fn pop(&mut self) {
        self.0.pop();
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |key: &str| {
            !key.is_empty()
                && key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if plain(key) && i == 0 => f.write_str(key)?,
                Step::Key(key) if plain(key) => write!(f, ".{key}")?,
                Step::Key(key) => write!(f, "['{}']", key.escape_debug())?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The document that an object came from: maps paths back to places.
#[derive(Debug, Clone)]
pub struct Source {
    file: Arc<str>,
    root: Arc<Node>,
    base: Path,
}

impl Source {
    pub fn new(file: Arc<str>, root: Arc<Node>, base: Path) -> Self {
        Self { file, root, base }
    }

    /// The file as it was named.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// An object inside this one.
    pub fn below(&self, path: &Path) -> Self {
        Self::new(
            Arc::clone(&self.file),
            Arc::clone(&self.root),
            self.full(path),
        )
    }

    /// The path from the top of the document: an item of a `List` stands below `items[i]`.
    pub fn full(&self, path: &Path) -> Path {
        let mut full = self.base.clone();
        full.0.extend(path.0.iter().cloned());
        full
    }

    /// Where `path` of the object stands; what is absent stands where its nearest ancestor does. Lists and objects
    /// stand at their key, everything else at its value.
    pub fn place(&self, path: &Path) -> Place {
        let mut node = &*self.root;
        let mut mark = node.mark;
        for step in &self.full(path).0 {
            match (step, &node.value) {
                (Step::Key(key), Value::Map(entries)) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == *key) else {
                        break;
                    };
                    node = &entry.node;
                    mark = match node.value {
                        Value::Seq(_) | Value::Map(_) | Value::Null => entry.mark,
                        _ => node.mark,
                    };
                }
                (Step::Index(index), Value::Seq(items)) => {
                    let Some(item) = items.get(*index) else { break };
                    node = item;
                    mark = node.mark;
                }
                _ => break,
            }
        }
        self.at(mark)
    }

    /// Where the key of `path` stands, for what is said about the field and not about its value.
    pub fn key_place(&self, path: &Path) -> Place {
        let mut parent = path.clone();
        let last = parent.0.pop();
        if let (Some(Step::Key(key)), Some(node)) = (last, self.find(&parent))
            && let Some(entry) = node.entry(&key)
        {
            return self.at(entry.mark);
        }
        self.place(path)
    }

    /// The value at `path` of the object.
    pub fn find(&self, path: &Path) -> Option<&Node> {
        self.full(path)
            .0
            .iter()
            .try_fold(&*self.root, |node, step| match (step, &node.value) {
                (Step::Key(key), Value::Map(_)) => node.get(key),
                (Step::Index(index), Value::Seq(items)) => items.get(*index),
                _ => None,
            })
    }

    pub fn at(&self, mark: Mark) -> Place {
        Place {
            file: Arc::clone(&self.file),
            line: mark.line,
            column: mark.column,
        }
    }
}
