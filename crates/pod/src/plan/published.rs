//! ConfigMaps and Secrets as files of a volume, alone or several in one (`projected`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{KeyToPath, VolumeProjection};

use super::build::Context;
use super::env::missing_key;
use super::{FilePlan, VolumeKind, downward};
use crate::manifest::{Notes, Path};

/// A cluster puts this ConfigMap into every namespace; pods that `kubectl get -o yaml` prints refer to it.
const CLUSTER_ROOTS: &str = "kube-root-ca.crt";

/// The files of one volume, as they come together.
pub(super) struct Published {
    files: BTreeMap<String, FilePlan>,
    default_mode: u32,
}

/// A ConfigMap or Secret, and what of it.
pub(super) struct Reference<'a> {
    pub(super) name: &'a str,
    /// The field that has the name.
    pub(super) field: &'static str,
    /// Nothing of it is missed, not even its keys.
    pub(super) optional: bool,
    pub(super) items: Option<&'a [KeyToPath]>,
}

impl Published {
    pub(super) fn new(default_mode: u32) -> Self {
        Self {
            files: BTreeMap::new(),
            default_mode,
        }
    }

    pub(super) fn into_kind(self, secret: bool) -> VolumeKind {
        VolumeKind::Files {
            files: self.files,
            secret,
        }
    }

    /// Adds a file at `path`, noted at `at` when another is in its way.
    pub(super) fn add(
        &mut self,
        path: &str,
        bytes: Vec<u8>,
        mode: Option<i32>,
        at: &Path,
        notes: &mut Notes<'_>,
    ) {
        let path = clean(path);
        // Its own place, one above it, or the first below it: a ConfigMap may have ten thousand keys.
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        let taken = above
            .chain([path.as_str()])
            .find(|place| self.files.contains_key(*place));
        let below = format!("{path}/");
        let below = self
            .files
            .range(below.clone()..)
            .next()
            .map(|(other, _)| other.as_str())
            .filter(|other| other.starts_with(&below));
        let clash = taken.or(below);
        if let Some(other) = clash {
            return notes.error(
                at,
                format!("{path:?} and {other:?} are in each other's way"),
            );
        }
        let mode = mode.and_then(|mode| u32::try_from(mode).ok());
        let mode = mode.unwrap_or(self.default_mode);
        self.files.insert(path, FilePlan { bytes, mode });
    }

    fn add_keys(
        &mut self,
        kind: &str,
        from: &Reference<'_>,
        data: BTreeMap<&str, Vec<u8>>,
        at: &Path,
        notes: &mut Notes<'_>,
    ) {
        let Some(items) = from.items.filter(|items| !items.is_empty()) else {
            for (key, bytes) in data {
                self.add(key, bytes, None, &at.key(from.field), notes);
            }
            return;
        };
        for (i, item) in items.iter().enumerate() {
            let at = at.item("items", i);
            if let Some(bytes) = data.get(item.key.as_str()) {
                self.add(&item.path, bytes.clone(), item.mode, &at.key("path"), notes);
            } else if !from.optional {
                let keys = data.keys().copied();
                notes.error(
                    &at.key("key"),
                    missing_key(kind, from.name, &item.key, keys),
                );
            }
        }
    }
}

/// Adds a ConfigMap's files; `None` when it is missing (noted).
pub(super) fn config_map(
    from: &Reference<'_>,
    at: &Path,
    context: &Context<'_>,
    out: &mut Published,
    notes: &mut Notes<'_>,
) -> Option<()> {
    let found = context.config_map(from.name, from.optional, &at.key(from.field), notes);
    if found.is_none() && !from.optional {
        return None;
    }
    let data = found.and_then(|map| map.data.as_ref());
    let binary = found.and_then(|map| map.binary_data.as_ref());
    let data = data.into_iter().flatten();
    let data = data.map(|(key, text)| (key.as_str(), text.clone().into_bytes()));
    let binary = binary.into_iter().flatten();
    let binary = binary.map(|(key, bytes)| (key.as_str(), bytes.0.clone()));
    out.add_keys("ConfigMap", from, data.chain(binary).collect(), at, notes);
    Some(())
}

/// Adds a Secret's files; `None` when it is missing (noted).
pub(super) fn secret(
    from: &Reference<'_>,
    at: &Path,
    context: &Context<'_>,
    out: &mut Published,
    notes: &mut Notes<'_>,
) -> Option<()> {
    let found = context.secret(from.name, from.optional, &at.key(from.field), notes);
    if found.is_none() && !from.optional {
        return None;
    }
    out.add_keys("Secret", from, found.unwrap_or_default(), at, notes);
    Some(())
}

/// Adds one source of a projected volume; `None` when it is missing (noted). A service account's token was noted as ignored when
/// the file was read: it adds nothing.
pub(super) fn source(
    source: &VolumeProjection,
    at: &Path,
    context: &Context<'_>,
    out: &mut Published,
    notes: &mut Notes<'_>,
) -> Option<()> {
    if let Some(map) = &source.config_map {
        let at = at.key("configMap");
        let there = context.documents.config_map(context.namespace(), &map.name);
        if map.name == CLUSTER_ROOTS && there.is_none() {
            notes.ignored(
                &at,
                "published by a cluster; there is no API server whose certificate it would check",
            );
            return Some(());
        }
        let from = Reference {
            name: &map.name,
            field: "name",
            optional: map.optional == Some(true),
            items: map.items.as_deref(),
        };
        config_map(&from, &at, context, out, notes)?;
    }
    if let Some(one) = &source.secret {
        let from = Reference {
            name: &one.name,
            field: "name",
            optional: one.optional == Some(true),
            items: one.items.as_deref(),
        };
        secret(&from, &at.key("secret"), context, out, notes)?;
    }
    if let Some(downward) = &source.downward_api {
        let items = downward.items.as_deref().unwrap_or_default();
        downward::files(items, &at.key("downwardAPI"), context, out, notes);
    }
    Some(())
}

/// Without doubled slashes and `.`; `..` was refused before.
fn clean(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    parts.join("/")
}
