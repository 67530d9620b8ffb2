//! The table of fields against k8s-openapi's types: a deserializer that gives every field of every type an empty value
//! and writes down what it was asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::manifest::fields::{TYPES, Verdict, verdict};

#[derive(Default)]
struct Schema {
    types: RefCell<BTreeMap<&'static str, &'static [&'static str]>>,
}

/// The schema, and the text to give where one is wanted: objects compare `apiVersion` and `kind`.
#[derive(Clone, Copy)]
struct Probe<'a>(&'a Schema, &'static str);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i64(0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(false)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.1)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.1)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if matches!(name, "Time" | "MicroTime") {
            let epoch: StrDeserializer<'_, Error> = "1970-01-01T00:00:00Z".into_deserializer();
            return visitor.visit_newtype_struct(epoch);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(One {
            schema: self.0,
            kind: "",
            keys: &["x"],
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(One {
            schema: self.0,
            kind: "",
            keys: &["x"],
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // A type that was seen already has no more to tell, and may hold itself.
        let known = self.0.types.borrow_mut().insert(name, fields).is_some();
        let keys = if known { &[] } else { fields };
        visitor.visit_map(One {
            schema: self.0,
            kind: name,
            keys,
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

struct One<'a> {
    schema: &'a Schema,
    /// The type that has the keys.
    kind: &'static str,
    keys: &'static [&'static str],
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((_, rest)) = self.keys.split_first() else {
            return Ok(None);
        };
        self.keys = rest;
        seed.deserialize(Probe(self.schema, "")).map(Some)
    }
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(key) = self.keys.first() else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Error> = (*key).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, rest) = self.keys.split_first().expect("a key was asked for");
        self.keys = rest;
        let text = match *key {
            "apiVersion" if self.kind == "Job" => "batch/v1",
            "apiVersion" => "v1",
            "kind" => self.kind,
            _ => "",
        };
        seed.deserialize(Probe(self.schema, text))
    }
}

/// Type name → fields, of every type that can occur in the three objects.
fn schema() -> BTreeMap<&'static str, &'static [&'static str]> {
    let schema = Schema::default();
    let probe = Probe(&schema, "");
    Job::deserialize(probe).unwrap();
    PersistentVolumeClaim::deserialize(probe).unwrap();
    Pod::deserialize(probe).unwrap();
    ConfigMap::deserialize(probe).unwrap();
    Secret::deserialize(probe).unwrap();
    schema.types.into_inner()
}

#[test]
fn every_field_is_decided() {
    let schema = schema();
    assert!(schema.len() > 100, "{}", schema.len());
    for (kind, rows) in TYPES {
        let fields = schema
            .get(kind)
            .unwrap_or_else(|| panic!("no such type: {kind}"));
        let known: BTreeSet<_> = fields.iter().copied().collect();
        let decided: BTreeSet<_> = rows.iter().map(|(field, _)| *field).collect();
        assert_eq!(decided, known, "{kind}");
        assert_eq!(rows.len(), decided.len(), "{kind} decides a field twice");
    }
}

#[test]
fn reasons_are_one_clause() {
    for (kind, rows) in TYPES {
        for (field, verdict) in *rows {
            if let Verdict::Ignored(reason)
            | Verdict::Refused(reason)
            | Verdict::RefusedUnless(_, reason) = verdict
            {
                assert!(
                    !reason.ends_with('.') && reason.len() > 10,
                    "{kind}.{field}: {reason}"
                );
            }
        }
    }
    assert!(verdict("Container", "image").is_some() && verdict("Container", "x").is_none());
}
