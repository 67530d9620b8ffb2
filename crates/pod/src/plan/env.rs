//! Environment variables: `envFrom`, then `env` in order, as the kubelet does it (`makeEnvironmentVariables`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector,
};

use super::at_start::{FileKey, ValuePlan};
use super::build::Context;
use super::expand::expand;
use super::resources;
use crate::manifest::{Notes, Path, Quantity, namespace_of, nearest};

/// Variables in the order in which they were first named; a later value replaces an earlier one in place.
#[derive(Default)]
pub(super) struct Variables {
    list: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Variables {
    pub(super) fn set(&mut self, name: &str, value: String) {
        match self.places.get(name) {
            Some(place) => self.list[*place].1 = value,
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.places
            .get(name)
            .map(|place| self.list[*place].1.as_str())
    }

    /// `text` with what `$(VAR)` stands for.
    pub(super) fn expanded(&self, text: &str) -> String {
        expand(text, |name| self.get(name))
    }

    pub(super) fn into_list(self) -> Vec<(String, String)> {
        self.list
    }
}

/// The variables of a container: those that are known, and where each value comes from.
#[derive(Default)]
pub(super) struct Environment {
    pub(super) known: Variables,
    pub(super) sources: Vec<(String, ValuePlan)>,
}

impl Environment {
    fn add(&mut self, name: &str, source: ValuePlan) {
        match &source {
            ValuePlan::Known(value) => self.known.set(name, value.clone()),
            ValuePlan::Text(text) => self.known.set(name, self.known.expanded(text)),
            ValuePlan::File(_) => {}
        }
        self.sources.push((name.to_owned(), source));
    }

    /// Whether some values are in files.
    pub(super) fn reads_files(&self) -> bool {
        let mut sources = self.sources.iter();
        sources.any(|(_, source)| matches!(source, ValuePlan::File(_)))
    }

    /// Whether there is such a variable, or may be one at the start.
    pub(super) fn has(&self, name: &str) -> bool {
        self.sources.iter().any(|(known, _)| known == name)
    }
}

/// The variables of a container.
pub(super) fn variables(
    container: &Container,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Environment {
    let mut variables = Environment::default();
    env_from(container, at, context, &mut variables, notes);
    for (i, variable) in container.env.iter().flatten().enumerate() {
        let at = at.item("env", i);
        let source = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(ValuePlan::Text(value.clone())),
            (_, Some(from)) => value_from(from, container, &at.key("valueFrom"), context, notes),
            _ => Some(ValuePlan::Known(String::new())),
        };
        // An optional reference to nothing sets nothing.
        let Some(source) = source else {
            continue;
        };
        if matches!(&source, ValuePlan::Known(value) if value.contains('\0')) {
            notes.error(
                &at,
                "the value has a NUL byte, which can't be in a variable",
            );
            continue;
        }
        variables.add(&variable.name, source);
    }
    variables
}

fn env_from(
    container: &Container,
    at: &Path,
    context: &Context<'_>,
    variables: &mut Environment,
    notes: &mut Notes<'_>,
) {
    for (i, source) in container.env_from.iter().flatten().enumerate() {
        let at = at.item("envFrom", i);
        let prefix = source.prefix.as_deref().unwrap_or("");
        let mut pairs: Vec<(&str, String)> = Vec::new();
        let mut binary = Vec::new();
        if let Some(reference) = &source.config_map_ref {
            let at = at.key("configMapRef");
            let optional = reference.optional == Some(true);
            let Some(map) = context.config_map(&reference.name, optional, &at.key("name"), notes)
            else {
                continue;
            };
            // binaryData is not for variables.
            pairs.extend(
                map.data
                    .iter()
                    .flatten()
                    .map(|(k, v)| (k.as_str(), v.clone())),
            );
        } else if let Some(reference) = &source.secret_ref {
            let at = at.key("secretRef");
            let optional = reference.optional == Some(true);
            let Some(data) = context.secret(&reference.name, optional, &at.key("name"), notes)
            else {
                continue;
            };
            for (key, bytes) in data {
                match String::from_utf8(bytes) {
                    Ok(text) => pairs.push((key, text)),
                    Err(_) => binary.push(key),
                }
            }
        }
        for key in binary {
            notes.error(
                &at,
                format!(
                    "the value of the key {key:?} is not UTF-8 text, which a variable has to be"
                ),
            );
        }
        for (key, value) in pairs {
            if value.contains('\0') {
                notes.error(
                    &at,
                    format!(
                        "the value of the key {key:?} has a NUL byte, which can't be in a variable"
                    ),
                );
                continue;
            }
            variables.add(&format!("{prefix}{key}"), ValuePlan::Known(value));
        }
    }
}

/// `None` when nothing is to be set: an optional reference to nothing, or an error that is noted.
fn value_from(
    from: &EnvVarSource,
    container: &Container,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Option<ValuePlan> {
    if let Some(file) = &from.file_key_ref {
        return Some(ValuePlan::File(FileKey {
            volume: file.volume_name.clone(),
            path: file.path.clone(),
            key: file.key.clone(),
            optional: file.optional == Some(true),
        }));
    }
    known_value(from, container, at, context, notes).map(ValuePlan::Known)
}

/// What needs no file of a volume; likewise.
fn known_value(
    from: &EnvVarSource,
    container: &Container,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Option<String> {
    if let Some(reference) = &from.config_map_key_ref {
        let at = at.key("configMapKeyRef");
        let optional = reference.optional == Some(true);
        let map = context.config_map(&reference.name, optional, &at.key("name"), notes)?;
        let data = map.data.as_ref();
        if let Some(value) = data.and_then(|data| data.get(&reference.key)) {
            return Some(value.clone());
        }
        if !optional {
            let keys = data.into_iter().flatten().map(|(key, _)| key.as_str());
            let binary = map
                .binary_data
                .as_ref()
                .is_some_and(|data| data.contains_key(&reference.key));
            let message = if binary {
                format!(
                    "the key {:?} is in binaryData, which can't be a variable",
                    reference.key
                )
            } else {
                missing_key("ConfigMap", &reference.name, &reference.key, keys)
            };
            notes.error(&at.key("key"), message);
        }
        return None;
    }
    if let Some(reference) = &from.secret_key_ref {
        let at = at.key("secretKeyRef");
        let optional = reference.optional == Some(true);
        let mut data = context.secret(&reference.name, optional, &at.key("name"), notes)?;
        return match data.remove(reference.key.as_str()).map(String::from_utf8) {
            Some(Ok(value)) => Some(value),
            Some(Err(_)) => {
                notes.error(
                    &at.key("key"),
                    "the value is not UTF-8 text, which a variable has to be",
                );
                None
            }
            None if optional => None,
            None => {
                let keys = data.keys().copied();
                let message = missing_key("Secret", &reference.name, &reference.key, keys);
                notes.error(&at.key("key"), message);
                None
            }
        };
    }
    if let Some(field) = &from.field_ref {
        return field_ref(field, &at.key("fieldRef"), context, notes);
    }
    let resource = from.resource_field_ref.as_ref()?;
    resource_field(
        resource,
        container,
        &at.key("resourceFieldRef"),
        context,
        notes,
    )
}

/// What to say when a ConfigMap or Secret has no such key.
pub(super) fn missing_key<'a>(
    kind: &str,
    name: &str,
    key: &str,
    keys: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let hint = match nearest(key, keys.clone()) {
        Some(near) => format!("; did you mean {near}?"),
        None => {
            let all: Vec<_> = keys.take(8).collect();
            match all.len() {
                0 => "; it has none".into(),
                _ => format!("; it has {}", all.join(", ")),
            }
        }
    };
    format!("the {kind} {name:?} has no key {key:?}{hint}")
}

/// Those that a variable can hold.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels['KEY']",
    "metadata.annotations['KEY']",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) fn field_ref(
    field: &ObjectFieldSelector,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Option<String> {
    let path = at.key("fieldPath");
    let (pod, facts) = (context.pod, &context.facts);
    let wanted = field.field_path.as_str();
    if let Some((map, key)) = subscript(wanted) {
        let map = match map {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => {
                notes.error(
                    &path,
                    format!("{map:?} has no keys; metadata.labels and metadata.annotations have"),
                );
                return None;
            }
        };
        // A label that isn't there is empty, as in Kubernetes.
        return Some(
            map.and_then(|map| map.get(key))
                .cloned()
                .unwrap_or_default(),
        );
    }
    let joined = |ips: &[IpAddr]| {
        let ips: Vec<_> = ips.iter().map(ToString::to_string).collect();
        ips.join(",")
    };
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    Some(match wanted {
        "metadata.name" => pod.metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => namespace_of(&pod.metadata).to_owned(),
        "metadata.uid" => facts.uid.clone(),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => service_account(pod),
        "status.hostIP" => first(&facts.host_ips),
        "status.hostIPs" => joined(&facts.host_ips),
        "status.podIP" => first(&facts.pod_ips),
        "status.podIPs" => joined(&facts.pod_ips),
        other => {
            let message = match other {
                "" => "a fieldPath is missing".into(),
                "metadata.labels" | "metadata.annotations" => {
                    format!("a variable can hold one of them only: {other}['KEY']")
                }
                _ => match nearest(other, FIELDS.iter().copied()) {
                    Some(near) => format!("{other:?} can't be a variable; did you mean {near}?"),
                    None => format!(
                        "{other:?} can't be a variable; there are {}",
                        FIELDS.join(", ")
                    ),
                },
            };
            notes.error(&path, message);
            return None;
        }
    })
}

/// `metadata.labels['k']` as its map and key.
pub(super) fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

fn service_account(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|spec| {
        let old = spec.service_account.as_ref();
        spec.service_account_name.as_ref().or(old)
    });
    name.filter(|name| !name.is_empty())
        .cloned()
        .unwrap_or_else(|| "default".into())
}

/// `limits.cpu` and the like, divided and rounded up.
pub(super) fn resource_field(
    reference: &ResourceFieldSelector,
    container: &Container,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Option<String> {
    let other = reference
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let container = match other {
        Some(name) => context.container(name, &at.key("containerName"), notes)?,
        None => container,
    };
    let resources = resources::resources(container.resources.as_ref());
    let facts = &context.facts;
    let (amount, cpu) = match reference.resource.as_str() {
        "limits.cpu" => (resources.cpu_limit_milli.unwrap_or(facts.cpu_milli), true),
        "requests.cpu" => (resources.cpu_request_milli.unwrap_or(0), true),
        "limits.memory" => (
            resources.memory_limit_bytes.unwrap_or(facts.memory_bytes),
            false,
        ),
        "requests.memory" => (resources.memory_request_bytes.unwrap_or(0), false),
        other => {
            const ALL: [&str; 4] = [
                "limits.cpu",
                "limits.memory",
                "requests.cpu",
                "requests.memory",
            ];
            let hint = nearest(other, ALL).map(|near| format!("; did you mean {near}?"));
            let hint = hint.unwrap_or_else(|| format!("; there are {}", ALL.join(", ")));
            notes.error(
                &at.key("resource"),
                format!("{other:?} is not supported{hint}"),
            );
            return None;
        }
    };
    let divisor = reference
        .divisor
        .as_ref()
        .map_or("1", |divisor| divisor.0.as_str());
    let path = at.key("divisor");
    let divisor = match divisor.parse::<Quantity>() {
        // 0 is what the API server writes for "not given".
        Ok(divisor) if divisor.is_zero() => Quantity::from(1),
        Ok(divisor) if !divisor.is_negative() => divisor,
        Ok(_) => {
            notes.error(&path, "can't be negative");
            return None;
        }
        Err(error) => {
            notes.error(&path, error.to_string());
            return None;
        }
    };
    let divisor = if cpu {
        divisor.milli()
    } else {
        divisor.value()
    };
    let divisor = u64::try_from(divisor).unwrap_or(1).max(1);
    Some(amount.div_ceil(divisor).to_string())
}
