//! `spec` as it would be read back from an API server: what was written, and the defaults that people and tools look for.
//! (Kubernetes: `pkg/apis/core/v1/defaults.go`)

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Map, Value};

use super::Options;

/// The spec as an object, without the containers that `--without` leaves out.
pub(super) fn spec(spec: &PodSpec, options: &Options) -> Value {
    let mut spec = serde_json::to_value(spec).unwrap_or_default();
    let Some(fields) = spec.as_object_mut() else {
        return spec;
    };
    for (name, value) in [
        ("restartPolicy", Value::from("Always")),
        ("terminationGracePeriodSeconds", 30.into()),
        ("dnsPolicy", "ClusterFirst".into()),
        ("schedulerName", "default-scheduler".into()),
        ("securityContext", Map::new().into()),
        ("enableServiceLinks", true.into()),
    ] {
        fields.entry(name).or_insert(value);
    }
    for list in ["initContainers", "containers"] {
        let Some(list) = fields.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        list.retain(|one| {
            let name = one["name"].as_str().unwrap_or_default();
            !options.without.iter().any(|left_out| left_out == name)
        });
        for one in list.iter_mut().filter_map(Value::as_object_mut) {
            container(one);
        }
    }
    spec
}

fn container(fields: &mut Map<String, Value>) {
    let image = fields.get("image").and_then(Value::as_str).unwrap_or("");
    let last = image.rsplit('/').next().unwrap_or_default();
    let floating = !last.contains(':') || last.ends_with(":latest");
    let pull = if floating && !image.contains('@') {
        "Always"
    } else {
        "IfNotPresent"
    };
    for (name, value) in [
        ("imagePullPolicy", Value::from(pull)),
        ("terminationMessagePath", "/dev/termination-log".into()),
        ("terminationMessagePolicy", "File".into()),
        ("resources", Map::new().into()),
    ] {
        fields.entry(name).or_insert(value);
    }
    for port in fields
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        port.entry("protocol").or_insert_with(|| "TCP".into());
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        if let Some(probe) = fields.get_mut(probe).and_then(Value::as_object_mut) {
            for (name, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                probe.entry(name).or_insert_with(|| value.into());
            }
        }
    }
}
