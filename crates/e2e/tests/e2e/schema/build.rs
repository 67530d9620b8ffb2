//! The package's JSON schema, and values out of it.

use std::path::Path;

use serde_json::{Map, Value, json};

/// The definitions of one version of Kubernetes.
pub(super) struct Schema {
    definitions: Value,
}

/// A step from a value to one inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A field of an object.
    Field(String),
    /// The first item of a list.
    Item,
    /// A value of an object with keys of the user's own.
    Entry,
}

/// Values that mean something to a node, by the field's name: with `x` in each, hardly a manifest would be taken.
fn known(field: &str) -> Option<Value> {
    Some(match field {
        "image" => json!("podkit"),
        "mountPath" | "path" => json!("/p"),
        "restartPolicy" => json!("Never"),
        "protocol" => json!("TCP"),
        "imagePullPolicy" | "fsGroupChangePolicy" => json!("Always"),
        "terminationMessagePolicy" => json!("File"),
        "dnsPolicy" | "procMount" => json!("Default"),
        "ip" | "hostIP" => json!("127.0.0.1"),
        "scheme" => json!("HTTP"),
        "completionMode" => json!("NonIndexed"),
        "supplementalGroupsPolicy" => json!("Merge"),
        "mountPropagation" => json!("None"),
        "accessModes" => json!(["ReadWriteOnce"]),
        "nameservers" => json!(["127.0.0.1"]),
        "add" | "drop" => json!(["CHOWN"]),
        "hostnames" => json!(["a.example"]),
        "secretName" | "claimName" => json!("x"),
        "optional" => json!(true),
        "type" => json!(""),
        "port" | "containerPort" | "hostPort" => json!(80),
        "fieldPath" => json!("metadata.name"),
        "resource" => json!("limits.cpu"),
        _ => return None,
    })
}

impl Schema {
    pub(super) fn load(package: &Path, version: &str) -> Self {
        let dir = format!("kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict");
        let text = std::fs::read(package.join(dir).join("_definitions.json")).unwrap();
        let mut file: Value = serde_json::from_slice(&text).unwrap();
        Self {
            definitions: file["$defs"].take(),
        }
    }

    pub(super) fn definition(&self, name: &str) -> &Value {
        let found = &self.definitions[name];
        assert!(found.is_object(), "no definition {name}");
        found
    }

    /// The name of the definition that a schema refers to.
    pub(super) fn reference(schema: &Value) -> Option<&str> {
        schema["$ref"].as_str()?.rsplit('/').next()
    }

    /// What a schema refers to, or itself.
    pub(super) fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match Self::reference(schema) {
            Some(name) => self.definition(name),
            None => schema,
        }
    }

    /// `object`, `array`, `string`, `integer`, `number`, `boolean`, or `any` of several.
    pub(super) fn kind(schema: &Value) -> &str {
        match &schema["type"] {
            Value::String(kind) => kind,
            Value::Array(kinds) => kinds[0].as_str().unwrap(),
            _ => "any",
        }
    }

    /// A valid value with as little in it as there can be.
    pub(super) fn sample(&self, field: &str, schema: &Value) -> Value {
        let schema = self.resolve(schema);
        let simple = !matches!(Self::kind(schema), "object" | "any");
        if let Some(value) = known(field).filter(|value| simple && Self::fits(value, schema)) {
            return value;
        }
        match Self::kind(schema) {
            "object" if schema["properties"].is_object() => {
                let required = schema["required"].as_array().into_iter().flatten();
                let fields = required.map(|name| {
                    let name = name.as_str().unwrap();
                    let value = self.sample(name, &schema["properties"][name]);
                    (name.to_owned(), value)
                });
                Value::Object(fields.collect::<Map<_, _>>())
            }
            "object" if !schema["additionalProperties"].is_object() => json!({}),
            "object" => json!({ "k": self.sample("", &schema["additionalProperties"]) }),
            "array" => json!([self.sample(field, &schema["items"])]),
            "string" if schema["format"] == "date-time" => json!("2006-01-02T15:04:05Z"),
            "string" => json!("x"),
            "integer" | "number" | "any" => json!(1),
            "boolean" => json!(true),
            other => panic!("{field}: {other}"),
        }
    }

    /// A value that the schema doesn't allow.
    pub(super) fn other_type(&self, schema: &Value) -> Value {
        match Self::kind(self.resolve(schema)) {
            "string" => json!(5),
            "any" => json!(true),
            "array" => json!({"x": "y"}),
            _ => json!("x"),
        }
    }

    fn fits(value: &Value, schema: &Value) -> bool {
        match Self::kind(schema) {
            "string" => value.is_string(),
            "integer" => value.is_i64(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            _ => false,
        }
    }

    /// Puts `value` at `path` below `node`, with what is required on the way.
    pub(super) fn put(&self, schema: &Value, node: &mut Value, path: &[Step], value: Value) {
        let schema = self.resolve(schema);
        let Some((step, rest)) = path.split_first() else {
            *node = value;
            return;
        };
        if node.is_null() {
            *node = self.sample("", schema);
        }
        match step {
            Step::Field(name) => {
                let below = &schema["properties"][name];
                self.put(below, &mut node[name], rest, value);
            }
            Step::Item => {
                let item = &mut node.as_array_mut().unwrap()[0];
                self.put(&schema["items"], item, rest, value);
            }
            Step::Entry => {
                let entry = &mut node["k"];
                self.put(&schema["additionalProperties"], entry, rest, value);
            }
        }
    }
}
