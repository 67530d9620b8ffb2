//! What people and programs are shown of the store.

use super::index::REF_NAME;
use super::{SOURCE, Store, StoreError};
use crate::image::Platform;
use crate::image::digest::Digest;
use crate::image::manifest::{ConfigFile, Manifest};
use crate::image::reference::Reference;

/// One line of `image ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, when it has one.
    pub name: Option<Reference>,
    /// Where it came from, when that was no registry.
    pub source: Option<String>,
    /// Of what the name stands for: an index or a manifest.
    pub digest: Digest,
    /// Of its configuration.
    pub id: Option<Digest>,
    /// RFC 3339, as the image has it.
    pub created: Option<String>,
    /// For what it is.
    pub platform: Option<Platform>,
    /// Bytes of its blobs; none when not all is here.
    pub size_bytes: Option<u64>,
    /// A pod that runs was started from it.
    pub used: bool,
}

/// Everything about one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// All its names.
    pub names: Vec<String>,
    /// Of what the name stands for.
    pub digest: Digest,
    /// Of the manifest.
    pub manifest_digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration, as far as it is read.
    pub config: ConfigFile,
    /// The configuration, all of it.
    pub config_json: serde_json::Value,
    /// Bytes of its blobs.
    pub size_bytes: u64,
}

impl Store {
    /// The images, by name.
    pub fn list(&self, platform: &Platform) -> Result<Vec<Listed>, StoreError> {
        let mut images = Vec::new();
        for entry in self.names()?.manifests {
            let found = self.found(&entry, platform)?;
            let name = entry.annotations.get(REF_NAME);
            let found = found.as_ref();
            images.push(Listed {
                name: name.and_then(|name| name.parse().ok()),
                source: entry.annotations.get(SOURCE).cloned(),
                id: found.map(|found| found.manifest.config.digest.clone()),
                created: found.and_then(|found| found.config.created.clone()),
                platform: found.map(|found| found.config.platform()),
                size_bytes: found.map(super::Found::size_bytes),
                used: self.is_used(&entry.digest)?,
                digest: entry.digest,
            });
        }
        let key = |image: &Listed| {
            let name = image.name.as_ref().map(Reference::familiar);
            (
                name.is_none(),
                name,
                image.source.clone(),
                image.digest.clone(),
            )
        };
        images.sort_by_key(key);
        Ok(images)
    }

    /// One image, by name, digest or id.
    pub fn inspect(&self, image: &str, platform: &Platform) -> Result<Inspected, StoreError> {
        let entries = self.names()?.manifests;
        let indexes = self.entries_of(image, &entries)?;
        let entry = &entries[indexes[0]];
        let missing = || {
            StoreError::NoSuchImage(format!(
                "{image} for {platform} (it is here for another platform)"
            ))
        };
        let found = self.found(entry, platform)?.ok_or_else(missing)?;
        let names = entries.iter().filter(|other| other.digest == entry.digest);
        let names = names.filter_map(|other| other.annotations.get(REF_NAME).cloned());
        let config = self.document(&found.manifest.config.digest)?;
        Ok(Inspected {
            names: names.collect(),
            digest: entry.digest.clone(),
            manifest_digest: found.digest.clone(),
            size_bytes: found.size_bytes(),
            config_json: serde_json::from_slice(&config).unwrap_or_default(),
            manifest: found.manifest,
            config: found.config,
        })
    }
}
