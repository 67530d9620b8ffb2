//! The surface as JSON: what `explain -o json` prints, and what [`super::diff`] compares.

use serde_json::{Map, Value, json};

use super::{ModuleSpec, common, labels};
use crate::params::Param;

/// One module.
pub fn module(spec: &ModuleSpec) -> Value {
    let port = |port: &super::Port| json!({"param": port.param, "port": port.port, "protocol": port.protocol, "doc": port.doc});
    let mut ports: Vec<Value> = spec.ports.iter().map(port).collect();
    ports.push(json!({"param": "admin", "port": spec.admin_port, "protocol": "HTTP", "doc": "The admin server."}));
    let endpoints = spec
        .endpoints
        .iter()
        .chain(common::ENDPOINTS.iter().filter(|common| {
            // A module's own page at a path of the contract's takes its place.
            spec.endpoints.iter().all(|own| own.path != common.path)
        }));
    let mut module = json!({
        "name": spec.name,
        "group": spec.group.title(),
        "summary": spec.summary,
        "about": spec.about,
        "parameters": spec.all_params().iter().map(param).collect::<Vec<_>>(),
        "ports": ports,
        "endpoints": endpoints
            .map(|e| json!({"path": e.path, "doc": e.doc, "open": e.open}))
            .collect::<Vec<_>>(),
        "signals": common::SIGNALS
            .iter()
            .map(|(signal, doc)| json!({"signal": signal, "doc": doc}))
            .collect::<Vec<_>>(),
        "exit_codes": common::EXIT_CODES
            .iter()
            .map(|(code, doc)| json!({"code": code, "doc": doc}))
            .collect::<Vec<_>>(),
        "files": spec.files.iter().map(|f| json!({"name": f.name, "doc": f.doc})).collect::<Vec<_>>(),
        "needs": spec
            .needs
            .iter()
            .map(|need| json!({"feature": need.feature, "needs": need.doc}))
            .collect::<Vec<_>>(),
        "metrics": spec.metrics.iter().chain(common::METRICS)
            .map(|m| json!({"name": m.name, "type": m.kind, "labels": m.labels, "doc": m.doc}))
            .collect::<Vec<_>>(),
        "labels": labels::of(spec).into_iter().map(|(k, v)| (k, v.into())).collect::<Map<_, Value>>(),
    });
    if let Some(config) = &spec.config {
        module["file"] = json!({"param": config.param, "schema": (config.schema)()});
    }
    module
}

/// The whole program: its version and every module.
pub fn program(modules: &[&ModuleSpec]) -> Value {
    json!({
        "version": crate::VERSION,
        "modules": modules.iter().map(|spec| module(spec)).collect::<Vec<_>>(),
    })
}

/// One parameter.
pub fn param(param: &Param) -> Value {
    let mut shown = json!({
        "name": param.flag(),
        "flag": format!("--{}", param.flag()),
        "variable": param.variable(),
        "type": param.type_name,
        "expected": param.expectation(),
        "unit": param.unit,
        "default": param.default,
        "bounds": param.bounds.map(|(low, high)| [low, high]),
        "choices": param.choices,
        "required": !param.optional && param.default.is_none(),
        "repeatable": param.many,
        "live": param.live,
        "secret": param.secret,
        "doc": param.full_doc(),
    });
    if !param.also.is_empty() {
        shown["also"] = json!(param.also);
    }
    shown
}
