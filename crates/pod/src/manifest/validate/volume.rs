//! Volumes.

use k8s_openapi::api::core::v1::{KeyToPath, Volume};

use super::{Notes, one_of};
use crate::manifest::names;
use crate::manifest::node::Path;
use crate::manifest::quantity::Quantity;

pub(super) fn volume(volume: &Volume, at: &Path, notes: &mut Notes<'_>) {
    if volume.name.is_empty() {
        notes.error(&at.key("name"), "a volume needs a name");
    } else {
        notes.name(&at.key("name"), names::dns_label(&volume.name));
    }
    let given = [
        volume.empty_dir.is_some(),
        volume.host_path.is_some(),
        volume.config_map.is_some(),
        volume.secret.is_some(),
    ];
    // None at all is an emptyDir: the API server's default.
    if given.iter().filter(|given| **given).count() > 1 {
        notes.error(at, "more than one of emptyDir, hostPath, configMap, secret");
    }
    if let Some(dir) = &volume.empty_dir {
        let at = at.key("emptyDir");
        one_of(dir.medium.as_deref(), &["Memory"], &at.key("medium"), notes);
        if let Some(limit) = &dir.size_limit {
            let path = at.key("sizeLimit");
            match limit.0.parse::<Quantity>() {
                Ok(limit) if limit.is_negative() => notes.error(&path, "can't be negative"),
                Ok(_) => {}
                Err(error) => notes.error(&path, error.to_string()),
            }
        }
    }
    if let Some(host) = &volume.host_path {
        let at = at.key("hostPath");
        one_of(
            host.type_.as_deref(),
            &[
                "DirectoryOrCreate",
                "Directory",
                "FileOrCreate",
                "File",
                "Socket",
                "CharDevice",
                "BlockDevice",
            ],
            &at.key("type"),
            notes,
        );
        if host.path.is_empty() {
            notes.error(&at.key("path"), "a path on this machine is missing");
        } else if !host.path.starts_with('/') {
            notes.error(
                &at.key("path"),
                format!("{:?} has to be absolute", host.path),
            );
        } else if host.path.split('/').any(|part| part == "..") {
            notes.error(&at.key("path"), "may not have ..");
        }
    }
    if let Some(map) = &volume.config_map {
        let at = at.key("configMap");
        if map.name.is_empty() {
            notes.error(&at.key("name"), "the ConfigMap's name is missing");
        }
        files(map.items.as_deref(), map.default_mode, &at, notes);
    }
    if let Some(secret) = &volume.secret {
        let at = at.key("secret");
        if secret.secret_name.as_deref().unwrap_or_default().is_empty() {
            notes.error(&at.key("secretName"), "the Secret's name is missing");
        }
        files(secret.items.as_deref(), secret.default_mode, &at, notes);
    }
}

/// `items` and modes of a volume of files.
fn files(items: Option<&[KeyToPath]>, default_mode: Option<i32>, at: &Path, notes: &mut Notes<'_>) {
    mode(default_mode, &at.key("defaultMode"), notes);
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let at = at.item("items", i);
        if item.key.is_empty() {
            notes.error(&at.key("key"), "a key is missing");
        }
        let path = at.key("path");
        if item.path.is_empty() {
            notes.error(&path, "a path in the volume is missing");
        } else if item.path.starts_with("..") {
            notes.error(&path, format!("{:?} may not begin with ..", item.path));
        } else {
            notes.name(&path, names::descending(&item.path));
        }
        mode(item.mode, &at.key("mode"), notes);
    }
}

fn mode(mode: Option<i32>, at: &Path, notes: &mut Notes<'_>) {
    let Some(value) = mode.filter(|mode| !(0..=0o777).contains(mode)) else {
        return;
    };
    // JSON has no octal numbers, and 644 without a leading 0 is decimal in YAML too.
    let text = value.to_string();
    let hint = match i32::from_str_radix(&text, 8) {
        Ok(meant) if (0..=0o777).contains(&meant) => format!("; octal needs a leading 0: 0{text}"),
        _ => String::new(),
    };
    notes.error(
        at,
        format!("{value} is not a mode from 0 to 0777 (511){hint}"),
    );
}
