//! Metadata, ConfigMaps and Secrets.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Notes;
use crate::manifest::names;
use crate::manifest::node::Path;

/// The API server's limit for what an object holds (etcd's, in fact).
const MAX_DATA_BYTES: usize = 1 << 20;
/// Its limit for all annotations together.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

/// Metadata of what other objects refer to by its name.
pub(super) fn metadata(metadata: &ObjectMeta, notes: &mut Notes<'_>) {
    if name_of(metadata).is_none() && prefix_of(metadata).is_some() {
        let at = Path::root().key("metadata").key("generateName");
        let message =
            "nothing in the files can refer to a name that is made up: this object is not used";
        notes.ignored(&at, message);
    }
    started(metadata, notes);
}

/// Metadata of a Pod or a Job, to which nothing refers: `generateName` does in the place of a name.
pub(super) fn started(metadata: &ObjectMeta, notes: &mut Notes<'_>) {
    let at = Path::root().key("metadata");
    match (name_of(metadata), prefix_of(metadata)) {
        (None, None) => notes.error(&at.key("name"), "metadata.name is missing"),
        (Some(name), _) => notes.name(&at.key("name"), names::dns_subdomain(name)),
        (None, Some(_)) => {}
    }
    if let Some(prefix) = prefix_of(metadata) {
        // What comes after it ends the name well. (Kubernetes: `maskTrailingDash`)
        let start = Some(prefix.trim_end_matches('-')).filter(|start| !start.is_empty());
        let wrong = names::dns_subdomain(start.unwrap_or(prefix));
        notes.name(&at.key("generateName"), wrong);
    }
    if let Some(namespace) = metadata.namespace.as_deref().filter(|n| !n.is_empty()) {
        notes.name(&at.key("namespace"), names::dns_label(namespace));
    }
    labels(metadata, &at, notes);
}

fn name_of(metadata: &ObjectMeta) -> Option<&str> {
    metadata.name.as_deref().filter(|name| !name.is_empty())
}

fn prefix_of(metadata: &ObjectMeta) -> Option<&str> {
    let prefix = metadata.generate_name.as_deref();
    prefix.filter(|prefix| !prefix.is_empty())
}

/// Labels and annotations, of an object or of a template.
pub(super) fn labels(metadata: &ObjectMeta, at: &Path, notes: &mut Notes<'_>) {
    for (key, value) in metadata.labels.iter().flatten() {
        let path = at.key("labels").key(key.clone());
        notes.name(&path, names::qualified(key));
        notes.name(&path, names::label_value(value));
    }
    let mut bytes = 0;
    for (key, value) in metadata.annotations.iter().flatten() {
        bytes += key.len() + value.len();
        // Annotations' keys may have capitals in their prefix.
        let path = at.key("annotations").key(key.clone());
        notes.name(&path, names::qualified(&key.to_lowercase()));
    }
    if bytes > MAX_ANNOTATION_BYTES {
        notes.error(&at.key("annotations"), "more than 256 KiB of annotations");
    }
}

/// A ConfigMap.
pub(in crate::manifest) fn config_map(map: &ConfigMap, notes: &mut Notes<'_>) {
    metadata(&map.metadata, notes);
    let mut bytes = 0;
    for (key, value) in map.data.iter().flatten() {
        bytes += value.len();
        let path = Path::root().key("data").key(key.clone());
        notes.name(&path, names::config_key(key));
    }
    for (key, value) in map.binary_data.iter().flatten() {
        bytes += value.0.len();
        let path = Path::root().key("binaryData").key(key.clone());
        notes.name(&path, names::config_key(key));
        if map.data.as_ref().is_some_and(|data| data.contains_key(key)) {
            notes.error(&path, "this key is in data too");
        }
    }
    size(bytes, notes);
}

/// A Secret.
pub(in crate::manifest) fn secret(secret: &Secret, notes: &mut Notes<'_>) {
    metadata(&secret.metadata, notes);
    let mut bytes = 0;
    for (key, value) in secret.data.iter().flatten() {
        bytes += value.0.len();
        notes.name(
            &Path::root().key("data").key(key.clone()),
            names::config_key(key),
        );
    }
    for (key, value) in secret.string_data.iter().flatten() {
        bytes += value.len();
        notes.name(
            &Path::root().key("stringData").key(key.clone()),
            names::config_key(key),
        );
    }
    size(bytes, notes);
    let needed: &[&str] = match secret.type_.as_deref() {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        Some("kubernetes.io/dockercfg") => &[".dockercfg"],
        _ => &[],
    };
    for key in needed {
        let has = secret
            .data
            .as_ref()
            .is_some_and(|data| data.contains_key(*key))
            || secret
                .string_data
                .as_ref()
                .is_some_and(|data| data.contains_key(*key));
        if !has {
            let kind = secret.type_.as_deref().unwrap_or_default();
            notes.error(
                &Path::root().key("type"),
                format!("a Secret of type {kind} needs the key {key}"),
            );
        }
    }
}

fn size(bytes: usize, notes: &mut Notes<'_>) {
    if bytes > MAX_DATA_BYTES {
        notes.error(
            &Path::root().key("data"),
            format!("{bytes} bytes of data; an API server takes {MAX_DATA_BYTES}"),
        );
    }
}
