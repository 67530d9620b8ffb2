//! Volumes: the bytes of ConfigMaps and Secrets as files, sizes as numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{KeyToPath, Volume};

use super::build::Context;
use super::env::missing_key;
use super::{FilePlan, HostPathType, VolumeKind, VolumePlan};
use crate::manifest::{Notes, Path, Quantity};

/// What a file of a ConfigMap or Secret may do when nothing is said.
const DEFAULT_MODE: u32 = 0o644;

/// A volume; `None` when what it refers to is missing (noted).
pub(super) fn volume(
    volume: &Volume,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Option<VolumePlan> {
    let kind = if let Some(host) = &volume.host_path {
        VolumeKind::HostPath {
            path: host.path.as_str().into(),
            expect: host_path_type(host.type_.as_deref().unwrap_or("")),
        }
    } else if let Some(map) = &volume.config_map {
        let at = at.key("configMap");
        let optional = map.optional == Some(true);
        let found = context.config_map(&map.name, optional, &at.key("name"), notes);
        if found.is_none() && !optional {
            return None;
        }
        let data = found
            .and_then(|map| map.data.as_ref())
            .into_iter()
            .flatten();
        let binary = found
            .and_then(|map| map.binary_data.as_ref())
            .into_iter()
            .flatten();
        let data = data.map(|(key, text)| (key.as_str(), text.clone().into_bytes()));
        let binary = binary.map(|(key, bytes)| (key.as_str(), bytes.0.clone()));
        let published = Published {
            kind: "ConfigMap",
            name: &map.name,
            items: map.items.as_deref(),
            default_mode: map.default_mode,
            // Items of a map that isn't there are not missed either.
            optional,
            at: &at,
        };
        VolumeKind::Files {
            files: published.files(data.chain(binary).collect(), notes),
            secret: false,
        }
    } else if let Some(secret) = &volume.secret {
        let at = at.key("secret");
        let optional = secret.optional == Some(true);
        let name = secret.secret_name.as_deref().unwrap_or("");
        let found = context.secret(name, optional, &at.key("secretName"), notes);
        if found.is_none() && !optional {
            return None;
        }
        let published = Published {
            kind: "Secret",
            name,
            items: secret.items.as_deref(),
            default_mode: secret.default_mode,
            optional,
            at: &at,
        };
        VolumeKind::Files {
            files: published.files(found.unwrap_or_default(), notes),
            secret: true,
        }
    } else {
        // Without any source it is an emptyDir: the API server's default.
        let dir = volume.empty_dir.as_ref();
        let limit = dir.and_then(|dir| dir.size_limit.as_ref());
        let limit = limit.and_then(|limit| limit.0.parse::<Quantity>().ok());
        // A limit of 0 is none (kubelet, `getMemoryMountSize`, `emptyDirLimitEviction`).
        let limit_bytes = limit
            .and_then(|limit| u64::try_from(limit.value()).ok())
            .filter(|bytes| *bytes > 0);
        match dir.and_then(|dir| dir.medium.as_deref()) {
            Some("Memory") => VolumeKind::Memory { limit_bytes },
            _ => VolumeKind::EmptyDir { limit_bytes },
        }
    };
    Some(VolumePlan {
        name: volume.name.clone(),
        kind,
    })
}

fn host_path_type(text: &str) -> HostPathType {
    match text {
        "DirectoryOrCreate" => HostPathType::DirectoryOrCreate,
        "Directory" => HostPathType::Directory,
        "FileOrCreate" => HostPathType::FileOrCreate,
        "File" => HostPathType::File,
        "Socket" => HostPathType::Socket,
        "CharDevice" => HostPathType::CharDevice,
        "BlockDevice" => HostPathType::BlockDevice,
        _ => HostPathType::Unset,
    }
}

/// A ConfigMap or Secret as files.
struct Published<'a> {
    kind: &'static str,
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
    at: &'a Path,
}

impl Published<'_> {
    fn files(
        &self,
        data: BTreeMap<&str, Vec<u8>>,
        notes: &mut Notes<'_>,
    ) -> BTreeMap<String, FilePlan> {
        let mode = |mode: Option<i32>| mode.and_then(|mode| u32::try_from(mode).ok());
        let default = mode(self.default_mode).unwrap_or(DEFAULT_MODE);
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            let all = data.into_iter().map(|(key, bytes)| {
                let file = FilePlan {
                    bytes,
                    mode: default,
                };
                (key.to_owned(), file)
            });
            return all.collect();
        };
        let mut files: BTreeMap<String, FilePlan> = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            let at = self.at.item("items", i);
            let Some(bytes) = data.get(item.key.as_str()) else {
                if !self.optional {
                    let keys = data.keys().copied();
                    notes.error(
                        &at.key("key"),
                        missing_key(self.kind, self.name, &item.key, keys),
                    );
                }
                continue;
            };
            let path = clean(&item.path);
            let clash = files.keys().find(|other| {
                let below =
                    |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
                **other == path || below(other, &path) || below(&path, other)
            });
            if let Some(other) = clash {
                notes.error(
                    &at.key("path"),
                    format!("{path:?} and {other:?} are in each other's way"),
                );
                continue;
            }
            let file = FilePlan {
                bytes: bytes.clone(),
                mode: mode(item.mode).unwrap_or(default),
            };
            files.insert(path, file);
        }
        files
    }
}

/// Without doubled slashes and `.`; `..` was refused before.
fn clean(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    parts.join("/")
}
