//! The variables of a container: `env` and `envFrom`.

use k8s_openapi::api::core::v1::{Container, EnvVar, FileKeySelector, PodSpec};

use super::{Notes, volume};
use crate::manifest::node::Path;
use crate::manifest::{names, nearest};

/// The kubelet's bound for the key of a `fileKeyRef`, in bytes.
const FILE_KEY_BYTES_MAX: usize = 128;

pub(super) fn variables(container: &Container, spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    for (i, variable) in container.env.iter().flatten().enumerate() {
        env(variable, spec, &at.item("env", i), notes);
    }
    env_from(container, at, notes);
}

fn env(variable: &EnvVar, spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    notes.name(&at.key("name"), names::env_name(&variable.name));
    if variable.value.as_deref().unwrap_or_default().contains('\0') {
        notes.error(&at.key("value"), "a NUL byte can't be in a variable");
    }
    let Some(from) = &variable.value_from else {
        return;
    };
    let at = at.key("valueFrom");
    if variable
        .value
        .as_deref()
        .is_some_and(|value| !value.is_empty())
    {
        notes.error(&at, "both value and valueFrom");
    }
    let given = [
        from.config_map_key_ref.is_some(),
        from.secret_key_ref.is_some(),
        from.field_ref.is_some(),
        from.resource_field_ref.is_some(),
        from.file_key_ref.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        notes.error(
            &at,
            "give one of configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef, fileKeyRef",
        );
    }
    let references = [
        (
            "configMapKeyRef",
            from.config_map_key_ref.as_ref().map(|r| (&r.name, &r.key)),
        ),
        (
            "secretKeyRef",
            from.secret_key_ref.as_ref().map(|r| (&r.name, &r.key)),
        ),
    ];
    for (field, reference) in references {
        let Some((name, key)) = reference else {
            continue;
        };
        let at = at.key(field);
        if name.is_empty() {
            notes.error(&at.key("name"), "a name is missing");
        }
        if key.is_empty() {
            notes.error(&at.key("key"), "a key is missing");
        }
    }
    if let Some(field) = &from.field_ref
        && field
            .api_version
            .as_deref()
            .is_some_and(|version| version != "v1")
    {
        notes.error(&at.key("fieldRef").key("apiVersion"), "has to be v1");
    }
    if let Some(file) = &from.file_key_ref {
        file_key(file, spec, &at.key("fileKeyRef"), notes);
    }
}

/// A key of a file in an emptyDir of the pod. (Kubernetes: `validateFileKeySelector`, `validateFileKeyRefVolumes`)
fn file_key(file: &FileKeySelector, spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let name = &file.volume_name;
    let in_volume = at.key("volumeName");
    match volumes.iter().find(|volume| volume.name == *name) {
        _ if name.is_empty() => notes.error(&in_volume, "the volume's name is missing"),
        None => {
            let near = nearest(name, volumes.iter().map(|volume| volume.name.as_str()));
            let hint = near.map(|near| format!("; did you mean {near}?"));
            let hint = hint.unwrap_or_default();
            notes.error(&in_volume, format!("there is no volume {name:?}{hint}"));
        }
        Some(found) if !volume::is_empty_dir(found) => notes.error(
            &in_volume,
            format!(
                "the volume {name:?} is not an emptyDir, and variables are read out of no other"
            ),
        ),
        Some(_) => {}
    }
    volume::file_path(&file.path, &at.key("path"), notes);
    let in_key = at.key("key");
    if file.key.is_empty() {
        notes.error(&in_key, "a key is missing");
    } else if file.key.len() > FILE_KEY_BYTES_MAX {
        notes.error(
            &in_key,
            format!("may have at most {FILE_KEY_BYTES_MAX} bytes"),
        );
    } else {
        notes.name(&in_key, names::env_name(&file.key));
    }
}

fn env_from(container: &Container, at: &Path, notes: &mut Notes<'_>) {
    for (i, source) in container.env_from.iter().flatten().enumerate() {
        let at = at.item("envFrom", i);
        if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            notes.name(&at.key("prefix"), names::env_name(prefix));
        }
        if source.config_map_ref.is_some() == source.secret_ref.is_some() {
            notes.error(&at, "give one of configMapRef and secretRef");
        }
        let references = [
            (
                "configMapRef",
                source.config_map_ref.as_ref().map(|r| &r.name),
            ),
            ("secretRef", source.secret_ref.as_ref().map(|r| &r.name)),
        ];
        for (field, name) in references {
            if name.is_some_and(String::is_empty) {
                notes.error(&at.key(field).key("name"), "a name is missing");
            }
        }
    }
}
