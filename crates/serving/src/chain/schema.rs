//! The form of a chain file as JSON Schema (draft 2020-12), from the same tables that files are read by.

use podkit_foundation::params::Param;
use serde_json::{Map, Value, json};

use super::kinds::{KINDS, listener_keys, tls_keys};

/// The schema of a chain file.
pub(super) fn schema() -> Value {
    let mut listener = properties(&listener_keys());
    listener.insert(
        "tls".to_owned(),
        json!({
            "description": "HTTPS: where certificates are, and who is let in. HTTP without it.",
            "type": "object",
            "properties": properties(&tls_keys()),
            "additionalProperties": false,
        }),
    );
    let mut top = listener.clone();
    listener.insert(
        "routes".to_owned(),
        json!({
            "description": "Routes of this listener; those of the file unless given.",
            "$ref": "#/$defs/routes",
        }),
    );
    top.insert(
        "listeners".to_owned(),
        json!({
            "description": "Where clients come in. One listener may also have its keys at the top of the file.",
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": listener,
                "required": ["listen"],
                "additionalProperties": false,
            },
        }),
    );
    top.insert(
        "stages".to_owned(),
        json!({
            "description": "Stages by name: what requests pass, and where they end. One that is used once may stand in its route.",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"$ref": "#/$defs/stage"},
        }),
    );
    top.insert("routes".to_owned(), json!({"$ref": "#/$defs/routes"}));
    let stages = KINDS.iter().map(|kind| {
        let keys = kind.keys();
        let stage = json!({
            "description": format!("As podkit {}.", kind.name),
            "type": "object",
            "properties": properties(&keys),
            "additionalProperties": false,
        });
        (kind.name.to_owned(), stage)
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A file of podkit chain",
        "type": "object",
        "properties": top,
        "additionalProperties": false,
        "$defs": {
            "passed": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/stage"}]},
            "stage": {
                "type": "object",
                "properties": stages.collect::<Map<_, _>>(),
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": false,
            },
            "routes": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "host": {
                            "description": "A host, or *. and a domain (one label more); one or a list. Any host without it.",
                            "anyOf": [
                                {"type": "string"},
                                {"type": "array", "items": {"type": "string"}},
                            ],
                        },
                        "path": {
                            "description": "A path, or /api/* for it and all below it. The longest that fits is taken, an exact one first. All without it.",
                            "type": "string",
                            "pattern": "^/",
                        },
                        "stages": {
                            "description": "Stages or names of stages, in the order in which requests pass them; the last one is balance.",
                            "anyOf": [
                                {"$ref": "#/$defs/passed"},
                                {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/passed"}},
                            ],
                        },
                    },
                    "required": ["stages"],
                    "additionalProperties": false,
                },
            },
        },
    })
}

fn properties(params: &[Param]) -> Map<String, Value> {
    let one = |param: &Param| (param.flag(), property(param));
    params.iter().map(one).collect()
}

fn property(param: &Param) -> Value {
    let mut value = match param.type_name {
        "number" => json!({"type": ["integer", "string"]}),
        "switch" => json!({"type": ["boolean", "string"]}),
        "rule" => json!({"type": ["string", "object"]}),
        _ => json!({"type": ["string", "number", "boolean"]}),
    };
    if !param.choices.is_empty() {
        value = json!({"enum": param.choices});
    }
    let mut property = match param.many {
        true => json!({"anyOf": [value, {"type": "array", "items": value}]}),
        false => value,
    };
    property["description"] = param.full_doc().into();
    if let Some(default) = param.default {
        property["default"] = default.into();
    }
    property
}
