//! Volumes.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, Volume};

use super::{Notes, container, one_of};
use crate::manifest::names;
use crate::manifest::node::Path;
use crate::manifest::quantity::Quantity;

/// How many sources it has besides an `emptyDir`.
fn other_sources(volume: &Volume) -> usize {
    let given = [
        volume.host_path.is_some(),
        volume.config_map.is_some(),
        volume.secret.is_some(),
        volume.downward_api.is_some(),
        volume.projected.is_some(),
        volume.persistent_volume_claim.is_some(),
        volume.ephemeral.is_some(),
        volume.image.is_some(),
    ];
    given.into_iter().filter(|given| *given).count()
}

/// Whether it is an emptyDir; without any source it is one: the API server's default.
pub(super) fn is_empty_dir(volume: &Volume) -> bool {
    other_sources(volume) == 0
}

pub(super) fn volume(volume: &Volume, at: &Path, notes: &mut Notes<'_>) {
    if volume.name.is_empty() {
        notes.error(&at.key("name"), "a volume needs a name");
    } else {
        notes.name(&at.key("name"), names::dns_label(&volume.name));
    }
    if other_sources(volume) + usize::from(volume.empty_dir.is_some()) > 1 {
        notes.error(at, "may not specify more than 1 volume type");
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
    if let Some(downward) = &volume.downward_api {
        let at = at.key("downwardAPI");
        mode(downward.default_mode, &at.key("defaultMode"), notes);
        downward_files(downward.items.as_deref().unwrap_or_default(), &at, notes);
    }
    if let Some(projected) = &volume.projected {
        self::projected(projected, &at.key("projected"), notes);
    }
    if let Some(image) = &volume.image {
        let at = at.key("image");
        let missing = "the reference of an image is missing";
        let given = image.reference.as_deref();
        container::image(given, missing, &at.key("reference"), notes);
        let policy = image.pull_policy.as_deref();
        container::pull_policy(policy, &at.key("pullPolicy"), notes);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        let at = at.key("persistentVolumeClaim").key("claimName");
        if claim.claim_name.is_empty() {
            notes.error(&at, "the claim's name is missing");
        } else {
            notes.name(&at, names::dns_subdomain(&claim.claim_name));
        }
    }
    if let Some(ephemeral) = &volume.ephemeral {
        let at = at.key("ephemeral").key("volumeClaimTemplate");
        match &ephemeral.volume_claim_template {
            Some(template) => super::claim::spec(&template.spec, &at.key("spec"), notes),
            None => notes.error(&at, "a volumeClaimTemplate is missing"),
        }
    }
}

fn projected(projected: &ProjectedVolumeSource, at: &Path, notes: &mut Notes<'_>) {
    mode(projected.default_mode, &at.key("defaultMode"), notes);
    for (i, source) in projected.sources.iter().flatten().enumerate() {
        let at = at.item("sources", i);
        let given = [
            source.config_map.is_some(),
            source.secret.is_some(),
            source.downward_api.is_some(),
            source.service_account_token.is_some(),
        ];
        match given.iter().filter(|given| **given).count() {
            0 => notes.error(
                &at,
                "nothing to project: give configMap, secret or downwardAPI",
            ),
            1 => {}
            _ => notes.error(&at, "may not specify more than 1 volume type per source"),
        }
        if let Some(map) = &source.config_map {
            let at = at.key("configMap");
            if map.name.is_empty() {
                notes.error(&at.key("name"), "the ConfigMap's name is missing");
            }
            files(map.items.as_deref(), None, &at, notes);
        }
        if let Some(secret) = &source.secret {
            let at = at.key("secret");
            if secret.name.is_empty() {
                notes.error(&at.key("name"), "the Secret's name is missing");
            }
            files(secret.items.as_deref(), None, &at, notes);
        }
        if let Some(downward) = &source.downward_api {
            let items = downward.items.as_deref().unwrap_or_default();
            downward_files(items, &at.key("downwardAPI"), notes);
        }
    }
}

fn downward_files(items: &[DownwardAPIVolumeFile], at: &Path, notes: &mut Notes<'_>) {
    for (i, item) in items.iter().enumerate() {
        let at = at.item("items", i);
        file_path(&item.path, &at.key("path"), notes);
        mode(item.mode, &at.key("mode"), notes);
        match (&item.field_ref, &item.resource_field_ref) {
            (Some(_), Some(_)) => notes.error(
                &at,
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ),
            (None, None) => notes.error(&at, "one of fieldRef and resourceFieldRef is required"),
            (Some(field), None) if field.api_version.as_deref().is_some_and(|v| v != "v1") => {
                notes.error(&at.key("fieldRef").key("apiVersion"), "has to be v1");
            }
            (None, Some(resource)) => {
                let container = resource.container_name.as_deref().unwrap_or_default();
                if container.is_empty() {
                    notes.error(
                        &at.key("resourceFieldRef").key("containerName"),
                        "a container's name is missing: a volume is of no container",
                    );
                }
            }
            _ => {}
        }
    }
}

pub(super) fn file_path(path: &str, at: &Path, notes: &mut Notes<'_>) {
    if path.is_empty() {
        notes.error(at, "a path in the volume is missing");
    } else if path.starts_with("..") {
        notes.error(at, format!("{path:?} may not begin with .."));
    } else {
        notes.name(at, names::descending(path));
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
        file_path(&item.path, &at.key("path"), notes);
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
