//! A document to a typed object, with every fault in it and not only the first.
//!
//! k8s-openapi's types are the schema: they say through serde which fields a type has and what each wants. This
//! deserializer listens to that. A field that the type doesn't have, or that the table of [`super::fields`] doesn't
//! honour, is noted and left out; a value of the wrong type is noted and a neutral one handed on in its place. So decoding
//! always reaches the end, and the object is only used when nothing was noted. `serde_json` with `serde_ignored`, the
//! usual way, stops at the first wrong type and knows no lines.

use std::cell::RefCell;

use k8s_openapi::{ByteString, jiff};
use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use super::fields::{self, Verdict};
use super::finding::{Findings, Severity};
use super::nearest;
use super::node::{Entry, Mark, Node, Path, Source, Value};

/// Decodes the object at `source`. `None` when a type refused its value outright (then that is among the findings).
pub(super) fn decode<'a, T: Deserialize<'a>>(
    source: &'a Source,
    findings: &mut Findings,
) -> Option<T> {
    let node = source.find(&Path::root())?;
    let listener = Listener {
        source,
        state: RefCell::new(State {
            path: source.full(&Path::root()),
            findings: Findings::new(),
            quiet: 0,
            base64: false,
        }),
    };
    let at = At {
        node,
        listener: &listener,
        quantity: false,
        bare: None,
    };
    let object = match T::deserialize(at) {
        Ok(object) => Some(object),
        Err(abort) => {
            if let Some(message) = abort.0 {
                listener.error(node.mark, message);
            }
            None
        }
    };
    findings.extend(listener.state.into_inner().findings);
    object
}

struct Listener<'a> {
    source: &'a Source,
    state: RefCell<State>,
}

struct State {
    path: Path,
    findings: Findings,
    /// Inside that many ignored fields: their own fields need no verdict.
    quiet: u32,
    /// Texts are base64.
    base64: bool,
}

impl Listener<'_> {
    fn error(&self, mark: Mark, message: impl Into<String>) {
        self.note(Severity::Error, mark, message);
    }

    fn note(&self, severity: Severity, mark: Mark, message: impl Into<String>) {
        let state = &mut *self.state.borrow_mut();
        let place = self.source.at(mark);
        state.findings.add(severity, place, &state.path, message);
    }

    /// Something about a key, with the key in the path.
    fn note_key(&self, severity: Severity, entry: &Entry, message: impl Into<String>) {
        self.state.borrow_mut().path.push_key(entry.key.clone());
        self.note(severity, entry.mark, message);
        self.state.borrow_mut().path.pop();
    }
}

/// The only error: what a visitor said, or nothing when it was noted already.
#[derive(Debug)]
struct Abort(Option<String>);

impl std::fmt::Display for Abort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("noted"))
    }
}

impl std::error::Error for Abort {}

impl serde::de::Error for Abort {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(Some(message.to_string()))
    }
}

/// A node with those who listen.
#[derive(Clone, Copy)]
struct At<'a, 'l> {
    node: &'a Node,
    listener: &'l Listener<'a>,
    /// A `resource.Quantity`: numbers are fine, with a fraction too.
    quantity: bool,
    /// A type of this name that has no fields (yet): k8s-openapi takes anything for it, the API an empty object.
    bare: Option<&'static str>,
}

impl At<'_, '_> {
    fn wrong(&self, expected: &str) {
        let found = self.node.describe();
        let quote = match (&self.node.value, expected) {
            (Value::Bool(_, text) | Value::Int(_, text) | Value::Float(_, text), "a text") => {
                format!("; quote it: \"{text}\"")
            }
            (Value::Str(text), "a whole number") if text.parse::<i64>().is_ok() => {
                "; without quotes it is one".to_owned()
            }
            (Value::Str(_) | Value::Map(_), "a list") => {
                "; a list is [a, b], or lines that begin with -".to_owned()
            }
            _ => String::new(),
        };
        self.listener.error(
            self.node.mark,
            format!("expected {expected}, found {found}{quote}"),
        );
    }

    fn integer(&self, bits: u32) -> i64 {
        let (least, most) = if bits == 32 {
            (i128::from(i32::MIN), i128::from(i32::MAX))
        } else {
            (i128::from(i64::MIN), i128::from(i64::MAX))
        };
        let value = match &self.node.value {
            Value::Null => 0,
            Value::Int(value, _) => *value,
            // JSON has one kind of number: 8e1 is 80 there.
            #[allow(clippy::cast_possible_truncation)]
            Value::Float(value, _) if value.fract() == 0.0 && value.abs() < 1e15 => *value as i128,
            _ => {
                self.wrong("a whole number");
                return 0;
            }
        };
        match i64::try_from(value) {
            Ok(small) if (least..=most).contains(&value) => small,
            _ => {
                self.listener.error(
                    self.node.mark,
                    format!("{value} doesn't fit into {bits} bits"),
                );
                0
            }
        }
    }
}

impl<'de> Deserializer<'de> for At<'de, '_> {
    type Error = Abort;

    /// `IntOrString`, `Quantity` and types without fields come here.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Abort> {
        match &self.node.value {
            _ if self.bare.is_some() => {
                visitor.visit_map(self.fields(self.bare.map(|name| (name, &[][..]))))
            }
            Value::Str(text) => visitor.visit_str(text),
            Value::Float(value, _) if self.quantity => visitor.visit_f64(*value),
            Value::Int(value, _) if self.quantity => match i64::try_from(*value) {
                Ok(value) => visitor.visit_i64(value),
                Err(_) => visitor.visit_str(&value.to_string()),
            },
            Value::Int(..) | Value::Float(..) | Value::Null => visitor.visit_i64(self.integer(32)),
            _ => {
                self.wrong("a number or a text");
                visitor.visit_i64(0)
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Abort> {
        visitor.visit_bool(match self.node.value {
            Value::Bool(value, _) => value,
            Value::Null => false,
            _ => {
                self.wrong("true or false");
                false
            }
        })
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Abort> {
        visitor.visit_i64(self.integer(32))
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Abort> {
        visitor.visit_i64(self.integer(64))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Abort> {
        let text = match &self.node.value {
            Value::Str(text) => text.as_str(),
            Value::Null => "",
            _ => {
                self.wrong("a text");
                ""
            }
        };
        if self.listener.state.borrow().base64
            && let Err(error) = ByteString::deserialize(StrDeserializer::<Abort>::new(text))
        {
            self.listener.error(
                self.node.mark,
                format!(
                    "not base64 ({error}); plain text goes into stringData of a Secret, or data of a ConfigMap"
                ),
            );
            return visitor.visit_str("");
        }
        visitor.visit_str(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Abort> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Abort> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Abort> {
        match name {
            "Quantity" => self.quantity = true,
            "Time" | "MicroTime" => {
                let text = self.node.as_str().unwrap_or("");
                if text.parse::<jiff::Timestamp>().is_err() {
                    self.wrong("a time like 2006-01-02T15:04:05Z");
                    let epoch: StrDeserializer<'_, Abort> =
                        "1970-01-01T00:00:00Z".into_deserializer();
                    return visitor.visit_newtype_struct(epoch);
                }
            }
            _ => self.bare = Some(name),
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Abort> {
        let items: &[Node] = match &self.node.value {
            Value::Seq(items) => items,
            Value::Null => &[],
            _ => {
                self.wrong("a list");
                &[]
            }
        };
        visitor.visit_seq(Items {
            items,
            next: 0,
            listener: self.listener,
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Abort> {
        visitor.visit_map(self.fields(None))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Abort> {
        visitor.visit_map(self.fields(Some((name, fields))))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Abort> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

impl<'a, 'l> At<'a, 'l> {
    fn fields(self, kind: Option<(&'static str, &'static [&'static str])>) -> Fields<'a, 'l> {
        let entries: &[Entry] = match &self.node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.wrong("an object");
                &[]
            }
        };
        Fields {
            entries: entries.iter(),
            current: None,
            kind,
            listener: self.listener,
        }
    }
}

struct Items<'a, 'l> {
    items: &'a [Node],
    next: usize,
    listener: &'l Listener<'a>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Abort;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Abort> {
        let Some(node) = self.items.get(self.next) else {
            return Ok(None);
        };
        self.listener.state.borrow_mut().path.push_index(self.next);
        self.next += 1;
        let value = value(node, self.listener, seed);
        self.listener.state.borrow_mut().path.pop();
        value.map(Some)
    }
}

/// A value, with what its visitor says about it noted at its place.
fn value<'de, T: DeserializeSeed<'de>>(
    node: &'de Node,
    listener: &Listener<'de>,
    seed: T,
) -> Result<T::Value, Abort> {
    let at = At {
        node,
        listener,
        quantity: false,
        bare: None,
    };
    seed.deserialize(at).map_err(|abort| {
        if let Some(message) = abort.0 {
            listener.error(node.mark, message);
        }
        Abort(None)
    })
}

/// The entries of an object; `kind` is the type and its fields, none for maps with keys of the user's own.
struct Fields<'a, 'l> {
    entries: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
    kind: Option<(&'static str, &'static [&'static str])>,
    listener: &'l Listener<'a>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Abort;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Abort> {
        while let Some(entry) = self.entries.next() {
            if self
                .kind
                .is_some_and(|(kind, fields)| !self.admits(kind, fields, entry))
            {
                continue;
            }
            self.current = Some(entry);
            let key: StrDeserializer<'_, Abort> = entry.key.as_str().into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Abort> {
        let Some(entry) = self.current.take() else {
            return Err(Abort::custom("a value without a key"));
        };
        let verdict = self
            .kind
            .and_then(|(kind, _)| fields::verdict(kind, &entry.key));
        let ignored = matches!(verdict, Some(Verdict::Ignored(_)));
        let base64 = matches!(
            (self.kind, entry.key.as_str()),
            (Some(("Secret", _)), "data") | (Some(("ConfigMap", _)), "binaryData")
        );
        {
            let state = &mut *self.listener.state.borrow_mut();
            state.path.push_key(entry.key.clone());
            state.quiet += u32::from(ignored);
            state.base64 |= base64;
        }
        let value = value(&entry.node, self.listener, seed);
        {
            let state = &mut *self.listener.state.borrow_mut();
            state.path.pop();
            state.quiet -= u32::from(ignored);
            state.base64 &= !base64;
        }
        value
    }
}

impl Fields<'_, '_> {
    /// Whether the type gets to see the entry. What it doesn't see is noted.
    fn admits(&self, kind: &str, fields: &[&str], entry: &Entry) -> bool {
        if !fields.contains(&entry.key.as_str()) {
            // A file of nothing but such fields is known by its first thousand.
            let hint = match self.listener.state.borrow().findings.is_full() {
                true => String::new(),
                false => hint(kind, fields, &entry.key),
            };
            self.listener
                .note_key(Severity::Error, entry, format!("unknown field{hint}"));
            return false;
        }
        // `null`, and an empty list or object, are what the API server makes of a field that isn't there.
        if entry.node.value == Value::Null {
            return false;
        }
        if self.listener.state.borrow().quiet > 0 {
            return true;
        }
        let Some(verdict) = fields::verdict(kind, &entry.key) else {
            self.listener
                .note_key(Severity::Error, entry, "not supported yet");
            return false;
        };
        let refuse = |message: String| {
            if !entry.node.is_unset() {
                self.listener.note_key(Severity::Error, entry, message);
            }
            false
        };
        match verdict {
            Verdict::Honoured => true,
            Verdict::Ignored(reason) => {
                self.listener.note_key(Severity::Ignored, entry, reason);
                true
            }
            Verdict::ServerSet => {
                self.listener
                    .note_key(Severity::Ignored, entry, "set by an API server");
                false
            }
            Verdict::RefusedUnless(harmless, _) if harmless(&entry.node) => false,
            Verdict::Refused(reason) | Verdict::RefusedUnless(_, reason) => {
                refuse(format!("refused: {reason}"))
            }
        }
    }
}

/// What the field might have meant.
fn hint(kind: &str, fields: &[&str], key: &str) -> String {
    if let Some(near) = nearest(key, fields.iter().copied()) {
        return format!("; did you mean {near}?");
    }
    match fields::owner(key) {
        Some(owner) if owner != kind => {
            format!(" of a {kind}; it is a field of {owner}: check the indentation")
        }
        _ => String::new(),
    }
}
