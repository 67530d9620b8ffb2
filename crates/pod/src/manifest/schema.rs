//! The API's types and their fields, as k8s-openapi has them: a deserializer that gives every field of every type an empty
//! value and writes down what it was asked for. (Rejected: a copy of the API's OpenAPI document, which would be another version
//! some day, and has a megabyte.)

use std::cell::RefCell;
use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

/// The objects that a file may hold.
pub(super) const OBJECTS: [&str; 5] =
    ["Pod", "Job", "ConfigMap", "Secret", "PersistentVolumeClaim"];

/// Type name → field and its type (`string`, `integer`, `[]Container`, `map[string]string`), in the API's order.
pub(crate) type Types = BTreeMap<&'static str, Vec<(&'static str, String)>>;

/// Every type that can occur in [`OBJECTS`].
pub(crate) fn types() -> Types {
    let schema = Schema::default();
    let ask = Ask(&schema, "");
    let done = [
        Pod::deserialize(ask).map(drop),
        Job::deserialize(ask).map(drop),
        ConfigMap::deserialize(ask).map(drop),
        Secret::deserialize(ask).map(drop),
        PersistentVolumeClaim::deserialize(ask).map(drop),
    ];
    debug_assert!(done.iter().all(Result::is_ok), "{done:?}");
    schema.types.into_inner()
}

#[derive(Default)]
struct Schema {
    types: RefCell<Types>,
    /// The type of the value that was asked for last.
    last: RefCell<String>,
}

impl Schema {
    fn is(&self, kind: impl Into<String>) {
        *self.last.borrow_mut() = kind.into();
    }
}

/// The schema, and the text to give where one is wanted: objects compare `apiVersion` and `kind`.
#[derive(Clone, Copy)]
struct Ask<'a>(&'a Schema, &'static str);

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.is("integer or string");
        visitor.visit_i64(0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.is("boolean");
        visitor.visit_bool(false)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.is("integer");
        visitor.visit_i32(0)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.is("integer");
        visitor.visit_i64(0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.is("string");
        visitor.visit_str(self.1)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = if matches!(name, "Time" | "MicroTime") {
            let epoch: StrDeserializer<'_, Error> = "1970-01-01T00:00:00Z".into_deserializer();
            visitor.visit_newtype_struct(epoch)
        } else {
            visitor.visit_newtype_struct(self)
        };
        self.0.is(name);
        value
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = visitor.visit_seq(One {
            schema: self.0,
            kind: "",
            keys: &["x"],
        })?;
        let of = self.0.last.take();
        self.0.is(format!("[]{of}"));
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = visitor.visit_map(One {
            schema: self.0,
            kind: "",
            keys: &["x"],
        })?;
        let of = self.0.last.take();
        self.0.is(format!("map[string]{of}"));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // A type that was seen already has no more to tell, and may hold itself.
        let known = self.0.types.borrow().contains_key(name);
        if !known {
            self.0.types.borrow_mut().insert(name, Vec::new());
        }
        let value = visitor.visit_map(One {
            schema: self.0,
            kind: name,
            keys: if known { &[] } else { fields },
        });
        self.0.is(name);
        value
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
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
        seed.deserialize(Ask(self.schema, "")).map(Some)
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
        let Some((key, rest)) = self.keys.split_first() else {
            return Err(serde::de::Error::custom("a value without a key"));
        };
        self.keys = rest;
        let text = match *key {
            "apiVersion" if self.kind == "Job" => "batch/v1",
            "apiVersion" => "v1",
            "kind" => self.kind,
            _ => "",
        };
        let value = seed.deserialize(Ask(self.schema, text))?;
        let of = self.schema.last.borrow().clone();
        let mut types = self.schema.types.borrow_mut();
        if let Some(fields) = types.get_mut(self.kind) {
            fields.push((key, of));
        }
        drop(types);
        Ok(value)
    }
}
