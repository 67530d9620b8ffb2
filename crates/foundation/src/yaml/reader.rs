//! Text to [`Node`]s: YAML documents (and so JSON) with everything that can go wrong in them said with its place.
//!
//! `granit-parser` gives events with positions; this file makes the tree, resolves aliases and merge keys, finds
//! duplicate keys, and bounds it all. After a syntax error reading goes on at the next `---`, so that one slip doesn't
//! hide what is wrong in the other documents.
//!
//! Why this parser: it keeps positions, is strict YAML 1.2 with JSON inside (surrogate pairs too), limits its own
//! recursion, and blames the line of the mistake where its ancestor `saphyr-parser` blames the next one. `serde_yaml`
//! and its heirs give no positions after parsing and stop at the first error.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::finding::{Findings, Place, Severity};
use super::lenient::without_quote_escapes;
use super::node::{Entry, Mark, Node, Path, Value};
use super::scalar::Schema;
use super::syntax::explain;

/// A file of objects that each fit into the API server (1.5 MiB) is far below.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// Values in a file, aliases counted each time they are used: a "billion laughs" ends here.
const MAX_NODES: usize = 300_000;
/// Bytes of text in a file, likewise.
const MAX_TEXT_BYTES: usize = 2 * MAX_FILE_BYTES;
/// Lists and objects inside each other. A Pod has 12.
pub(super) const MAX_DEPTH: usize = 60;

/// Syntax errors after which reading goes on: each costs a look at the rest of the file.
const MAX_SLIPS: usize = 100;
/// An object with fewer keys is looked through for one of the same name.
const FEW: usize = 24;
/// What `!!` stands for.
const YAML_TAGS: &str = "tag:yaml.org,2002:";

/// All documents of a manifest, empty ones left out. What can't be read is among the findings.
pub fn documents(text: &str, file: &Arc<str>, findings: &mut Findings) -> Vec<Node> {
    documents_in(Schema::Kubernetes, text, file, findings)
}

/// All documents of a text whose scalars have types by that schema.
pub fn documents_in(
    schema: Schema,
    text: &str,
    file: &Arc<str>,
    findings: &mut Findings,
) -> Vec<Node> {
    let mut documents = Vec::new();
    let mut reader = Reader {
        schema,
        file,
        findings,
        nodes: 0,
        text_bytes: 0,
        first_line: 0,
        least_indents: Vec::new(),
        anchors: HashMap::new(),
        stack: Vec::new(),
    };
    let text = without_quote_escapes(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut rest = &*text;
    for _ in 0..MAX_SLIPS {
        let Err(stop) = reader.read(rest, &mut documents) else {
            return documents;
        };
        let (path, place) = (reader.path(), reader.place(stop.mark));
        reader
            .findings
            .add(Severity::Error, place, path, stop.message);
        // Go on behind the next document separator, unless a bound was met.
        let Some((line, after)) = stop
            .resume
            .then(|| next_document(rest, stop.mark.line - reader.first_line))
            .flatten()
        else {
            return documents;
        };
        reader.first_line += line;
        rest = after;
    }
    documents
}

/// The text from the first `---` at or below the 1-based `line`, and how many lines stand before it.
fn next_document(text: &str, line: u32) -> Option<(u32, &str)> {
    let mut offset = 0;
    for (number, content) in (0u32..).zip(text.split_inclusive('\n')) {
        let separator = content
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        // At the line of the error itself there may be one too: a block left open is blamed on it. The very first
        // line is where this reading began; starting there again would not end.
        if separator && number + 1 >= line && number > 0 {
            return Some((number, &text[offset..]));
        }
        offset += content.len();
    }
    None
}

/// Why reading stopped.
struct Stop {
    mark: Mark,
    message: String,
    /// Another document may still be read.
    resume: bool,
}

/// A list or an object that is still open.
struct Frame {
    mark: Mark,
    anchor: usize,
    holds: Holds,
}

enum Holds {
    Seq(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// The marks of the keys, once there are [`FEW`] of them: objects with thousands of keys stay linear.
        seen: HashMap<String, Mark>,
        /// A key that waits for its value.
        key: Option<(Mark, Key)>,
        /// Values of `<<`, in order.
        merges: Vec<(Mark, Node)>,
    },
}

enum Key {
    Named(String),
    Merge,
}

struct Reader<'a> {
    schema: Schema,
    file: &'a Arc<str>,
    findings: &'a mut Findings,
    nodes: usize,
    text_bytes: usize,
    /// Lines before the text at hand.
    first_line: u32,
    least_indents: Vec<usize>,
    anchors: HashMap<usize, Node>,
    stack: Vec<Frame>,
}

impl Reader<'_> {
    fn read(&mut self, text: &str, documents: &mut Vec<Node>) -> Result<(), Stop> {
        self.stack.clear();
        self.least_indents = least_indents(text);
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let at = (error.marker().line(), error.marker().col());
                let ((line, column), message) = explain(&error.info(), text, at);
                stop(self.mark(line, column), message)
            })?;
            let mark = self.mark(span.start.line(), span.start.col());
            if let Some(node) = self.event(event, span, mark)?
                && let Some(document) = self.add(node)?
                && document.value != Value::Null
            {
                documents.push(document);
            }
        }
        Ok(())
    }

    fn mark(&self, line: usize, column: usize) -> Mark {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        Mark {
            line: line.saturating_add(self.first_line),
            column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
        }
    }

    /// A complete value, when the event ends one.
    fn event(&mut self, event: Event<'_>, span: Span, mark: Mark) -> Result<Option<Node>, Stop> {
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(stop(
                        mark,
                        "the anchor is still open: a value can't hold itself",
                    ));
                };
                self.count(&node, mark)?;
                return Ok(Some(node));
            }
            Event::Scalar(mut text, style, anchor, tag) => {
                self.text_bytes += text.len();
                // The parser ends a block with a line feed even where the file ends without one.
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                if block && text.ends_with('\n') && self.ends_the_text(span) {
                    text.to_mut().pop();
                }
                let value = self.scalar(&text, style, tag.as_deref(), mark)?;
                let node = Node { mark, value };
                self.count(&node, mark)?;
                return self.anchored(anchor, node).map(Some);
            }
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "seq", mark)?;
                self.open(mark, anchor, Holds::Seq(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "map", mark)?;
                self.open(
                    mark,
                    anchor,
                    Holds::Map {
                        entries: Vec::new(),
                        seen: HashMap::new(),
                        key: None,
                        merges: Vec::new(),
                    },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.stack.pop() else {
                    return Err(stop(
                        self.mark(span.start.line(), span.start.col()),
                        "unbalanced end",
                    ));
                };
                let value = match frame.holds {
                    Holds::Seq(items) => Value::Seq(items),
                    Holds::Map {
                        mut entries,
                        merges,
                        ..
                    } => {
                        merge(&mut entries, merges)?;
                        Value::Map(entries)
                    }
                };
                let node = Node {
                    mark: frame.mark,
                    value,
                };
                return self.anchored(frame.anchor, node).map(Some);
            }
            _ => {}
        }
        Ok(None)
    }

    /// Whether a block scalar is the last thing in a text that doesn't end with a line feed.
    fn ends_the_text(&self, block: Span) -> bool {
        let least = self.least_indents.get(block.start.line().saturating_sub(1));
        least.is_some_and(|least| *least >= block.start.col())
    }

    fn open(&mut self, mark: Mark, anchor: usize, holds: Holds) -> Result<(), Stop> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(Stop {
                mark,
                message: format!("nested deeper than {MAX_DEPTH} levels"),
                resume: true,
            });
        }
        self.nodes += 1;
        self.stack.push(Frame {
            mark,
            anchor,
            holds,
        });
        Ok(())
    }

    fn anchored(&mut self, anchor: usize, node: Node) -> Result<Node, Stop> {
        if anchor > 0 {
            self.count(&node, node.mark)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// Bounds what a file may hold, an alias with all that it stands for.
    fn count(&mut self, node: &Node, mark: Mark) -> Result<(), Stop> {
        let (mut next, mut pending) = (Some(node), Vec::new());
        while let Some(node) = next.take().or_else(|| pending.pop()) {
            self.nodes += 1;
            if self.nodes > MAX_NODES || self.text_bytes > MAX_TEXT_BYTES {
                return Err(Stop {
                    mark,
                    message: format!(
                        "too much: more than {MAX_NODES} values or {} MiB of text, aliases counted each time",
                        MAX_TEXT_BYTES >> 20
                    ),
                    resume: false,
                });
            }
            match &node.value {
                Value::Seq(items) => pending.extend(items),
                Value::Map(entries) => {
                    pending.extend(entries.iter().map(|entry| &entry.node));
                    self.text_bytes += entries.iter().map(|entry| entry.key.len()).sum::<usize>();
                }
                Value::Str(text) => self.text_bytes += text.len(),
                _ => {}
            }
        }
        Ok(())
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        mark: Mark,
    ) -> Result<Value, Stop> {
        // The parser gives a flow mapping's key without a value as `~`; both are null.
        let resolved = match style {
            ScalarStyle::Plain => self.schema.resolve(text),
            _ => Value::Str(text.to_owned()),
        };
        let Some(tag) = tag else {
            return Ok(resolved);
        };
        if tag.handle().is_empty() && tag.suffix() == "!" {
            return Ok(Value::Str(text.to_owned()));
        }
        let Some(name) = tag.suffix_in_namespace(YAML_TAGS) else {
            return Err(stop(
                mark,
                format!("the tag {tag} means nothing in a manifest"),
            ));
        };
        match (&*name, self.schema.resolve(text)) {
            ("str", _) => Ok(Value::Str(text.to_owned())),
            ("int", value @ Value::Int(..))
            | ("float", value @ Value::Float(..))
            | ("bool", value @ Value::Bool(..))
            | ("null", value @ Value::Null) => Ok(value),
            #[allow(clippy::cast_precision_loss)] // That is what the tag asks for.
            ("float", Value::Int(value, text)) => Ok(Value::Float(value as f64, text)),
            (kind @ ("int" | "float" | "bool" | "null"), value) => {
                let found = Node { mark, value }.describe();
                Err(stop(mark, format!("tagged !!{kind}, but it is {found}")))
            }
            ("binary", _) => Err(stop(
                mark,
                "the tag !!binary has no meaning in JSON; write the base64 text without the tag",
            )),
            (kind, _) => Err(stop(
                mark,
                format!("the tag !!{kind} means nothing in a manifest"),
            )),
        }
    }

    /// Puts a value where it belongs; a document when it was the outermost.
    fn add(&mut self, node: Node) -> Result<Option<Node>, Stop> {
        let Some(mut frame) = self.stack.pop() else {
            return Ok(Some(node));
        };
        self.put(&mut frame, node)?;
        self.stack.push(frame);
        Ok(None)
    }

    fn put(&mut self, frame: &mut Frame, node: Node) -> Result<(), Stop> {
        let (entries, seen, key, merges) = match &mut frame.holds {
            Holds::Seq(items) => {
                items.push(node);
                return Ok(());
            }
            Holds::Map {
                entries,
                seen,
                key,
                merges,
            } => (entries, seen, key, merges),
        };
        match key.take() {
            None => *key = Some((node.mark, self.key(node)?)),
            Some((mark, Key::Merge)) => merges.push((mark, node)),
            Some((mark, Key::Named(name))) => {
                if let Some(first) = first(entries, seen, &name) {
                    let message = format!("the same key as in line {}", first.line);
                    let (path, place) = (self.path().key(name), self.place(mark));
                    self.findings.add(Severity::Error, place, path, message);
                    return Ok(());
                }
                if !seen.is_empty() {
                    seen.insert(name.clone(), mark);
                }
                entries.push(Entry {
                    key: name,
                    mark,
                    node,
                });
            }
        }
        Ok(())
    }

    /// A key as text. JSON has no other keys; what isn't text in a manifest is turned into it as kubectl does.
    fn key(&mut self, node: Node) -> Result<Key, Stop> {
        Ok(Key::Named(match node.value {
            Value::Str(text) if text == "<<" => return Ok(Key::Merge),
            Value::Str(text) => text,
            Value::Int(_, text) | Value::Float(_, text) | Value::Bool(_, text)
                if self.schema == Schema::Core =>
            {
                text
            }
            Value::Int(value, _) => value.to_string(),
            Value::Bool(value, ref text) => {
                if text.parse() != Ok(value) {
                    let message =
                        format!("the key {text} is the boolean {value} in YAML 1.1; quote it");
                    let (path, place) = (self.path(), self.place(node.mark));
                    self.findings.add(Severity::Warning, place, path, message);
                }
                value.to_string()
            }
            #[allow(clippy::cast_possible_truncation)] // Kubernetes prints these with 32 bits.
            Value::Float(value, _) => (value as f32).to_string(),
            Value::Null => return Err(stop(node.mark, "a key is missing before the colon")),
            Value::Seq(_) | Value::Map(_) => {
                return Err(stop(
                    node.mark,
                    "a key must be a text; a template placeholder like {{ x }} has to be filled in first",
                ));
            }
        }))
    }

    /// The way to the value that is being read.
    fn path(&self) -> Path {
        let mut path = Path::root();
        for frame in &self.stack {
            match &frame.holds {
                Holds::Seq(items) => path.push_index(items.len()),
                Holds::Map {
                    key: Some((_, Key::Named(key))),
                    ..
                } => path.push_key(key.clone()),
                Holds::Map { .. } => {}
            }
        }
        path
    }

    fn place(&self, mark: Mark) -> Place {
        Place {
            file: Arc::clone(self.file),
            line: mark.line,
            column: mark.column,
        }
    }
}

/// Where a key stands already.
fn first(entries: &[Entry], seen: &mut HashMap<String, Mark>, name: &str) -> Option<Mark> {
    if entries.len() < FEW {
        let mut same = entries.iter().filter(|entry| entry.key == name);
        return same.next().map(|entry| entry.mark);
    }
    if seen.is_empty() {
        seen.extend(entries.iter().map(|entry| (entry.key.clone(), entry.mark)));
    }
    seen.get(name).copied()
}

/// For each line the least indentation of it and all below it, empty lines aside; nothing for a text that ends with a
/// line feed.
fn least_indents(text: &str) -> Vec<usize> {
    if text.ends_with('\n') {
        return Vec::new();
    }
    let indent = |line: &str| match line.trim().is_empty() {
        true => usize::MAX,
        false => line.len() - line.trim_start_matches(' ').len(),
    };
    let mut least: Vec<usize> = text.lines().map(indent).collect();
    for i in (1..least.len()).rev() {
        least[i - 1] = least[i - 1].min(least[i]);
    }
    least
}

fn stop(mark: Mark, message: impl Into<String>) -> Stop {
    Stop {
        mark,
        message: message.into(),
        resume: true,
    }
}

fn check_tag(tag: Option<&Tag>, expected: &str, mark: Mark) -> Result<(), Stop> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(expected) => Err(stop(
            mark,
            format!("the tag {tag} means nothing in a manifest"),
        )),
        _ => Ok(()),
    }
}

/// `<<: *base` and `<<: [*a, *b]`: a key of the object itself wins, then the earlier source.
fn merge(entries: &mut Vec<Entry>, merges: Vec<(Mark, Node)>) -> Result<(), Stop> {
    let mut names: HashSet<String> = HashSet::new();
    if !merges.is_empty() {
        names.extend(entries.iter().map(|entry| entry.key.clone()));
    }
    for (mark, node) in merges {
        let sources = match node.value {
            Value::Map(source) => vec![source],
            Value::Seq(items) => items
                .into_iter()
                .map(|item| match item.value {
                    Value::Map(source) => Ok(source),
                    _ => Err(stop(mark, "<< takes an object, or a list of objects")),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err(stop(mark, "<< takes an object, or a list of objects")),
        };
        for entry in sources.into_iter().flatten() {
            if names.insert(entry.key.clone()) {
                entries.push(entry);
            }
        }
    }
    Ok(())
}
