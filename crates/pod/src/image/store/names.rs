//! Names to images, and back.

use std::collections::BTreeSet;

use super::index::REF_NAME;
use super::{Store, StoreError};
use crate::image::digest::Digest;
use crate::image::manifest::{ConfigFile, Descriptor, Document, INDEX_DEPTH_MAX, Manifest};
use crate::image::platform::Platform;
use crate::image::reference::Reference;

/// Where an image without a registry's name came from, such as `oci:/srv/app`.
pub(in crate::image) const SOURCE: &str = "dev.podkit.image.source";

/// An image of the store, for one platform.
#[derive(Debug, Clone)]
pub(in crate::image) struct Found {
    /// What the name stands for: a manifest or an index.
    pub(in crate::image) named: Descriptor,
    /// Of the manifest.
    pub(in crate::image) digest: Digest,
    pub(in crate::image) manifest: Manifest,
    /// The manifest's bytes.
    pub(in crate::image) manifest_bytes: u64,
    pub(in crate::image) config: ConfigFile,
}

impl Found {
    /// Bytes of all its blobs.
    pub(in crate::image) fn size_bytes(&self) -> u64 {
        let layers: u64 = self.manifest.layers.iter().map(|layer| layer.size).sum();
        self.manifest_bytes + self.manifest.config.size + layers
    }
}

impl Store {
    /// What a name stands for here. A digest is found under any tag of its repository.
    pub(in crate::image) fn named(
        &self,
        reference: &Reference,
    ) -> Result<Option<Descriptor>, StoreError> {
        let names = self.names()?;
        let wanted = reference.to_string();
        let by_name = names
            .manifests
            .iter()
            .find(|descriptor| descriptor.annotations.get(REF_NAME) == Some(&wanted));
        let by_digest = || {
            let digest = reference.digest()?;
            let mut same = names.manifests.iter().filter(|d| d.digest == *digest);
            same.find(|descriptor| is_of_repository(descriptor, reference))
        };
        Ok(by_name.or_else(by_digest).cloned())
    }

    /// What was made of a place that is no registry.
    pub(in crate::image) fn sourced(&self, source: &str) -> Result<Option<Descriptor>, StoreError> {
        let names = self.names()?;
        let of = |descriptor: &Descriptor| {
            descriptor.annotations.get(SOURCE).map(String::as_str) == Some(source)
        };
        Ok(names.manifests.into_iter().find(of))
    }

    /// The image of a descriptor for a platform; none when its documents are not (all) here or it is for other platforms.
    pub(in crate::image) fn found(
        &self,
        named: &Descriptor,
        platform: &Platform,
    ) -> Result<Option<Found>, StoreError> {
        let mut descriptor = named.clone();
        for _ in 0..INDEX_DEPTH_MAX {
            if !self.has_blob(&descriptor.digest) {
                return Ok(None);
            }
            let bytes = self.document(&descriptor.digest)?;
            let broken = |error: &dyn std::fmt::Display| StoreError::Broken {
                path: self.blob_path(&descriptor.digest),
                reason: error.to_string(),
            };
            let media_type = Some(descriptor.media_type.as_str());
            match Document::parse(&bytes, media_type).map_err(|error| broken(&error))? {
                Document::Index(index) => match index.choose(platform) {
                    Ok(chosen) => descriptor = chosen.clone(),
                    Err(_) => return Ok(None),
                },
                Document::Manifest(manifest) => {
                    if !self.has_blob(&manifest.config.digest) {
                        return Ok(None);
                    }
                    let config = self.document(&manifest.config.digest)?;
                    let config = ConfigFile::parse(&config).map_err(|error| broken(&error))?;
                    return Ok(Some(Found {
                        named: named.clone(),
                        digest: descriptor.digest,
                        manifest,
                        manifest_bytes: bytes.len() as u64,
                        config,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Gives an image a name. Another one that had it keeps its place without, until it is pruned.
    pub(in crate::image) fn name(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<(), StoreError> {
        self.annotate(REF_NAME, &reference.to_string(), descriptor)
    }

    /// Notes where an image came from.
    pub(in crate::image) fn note_source(
        &self,
        source: &str,
        descriptor: &Descriptor,
    ) -> Result<(), StoreError> {
        self.annotate(SOURCE, source, descriptor)
    }

    /// An image that has no name yet.
    pub(in crate::image) fn keep_unnamed(&self, image: &Descriptor) -> Result<(), StoreError> {
        self.change_names(|names| {
            if !names
                .manifests
                .iter()
                .any(|entry| entry.digest == image.digest)
            {
                names.manifests.push(Descriptor {
                    platform: None,
                    annotations: std::collections::BTreeMap::new(),
                    ..image.clone()
                });
            }
        })
    }

    fn annotate(&self, key: &str, value: &str, image: &Descriptor) -> Result<(), StoreError> {
        self.change_names(|names| {
            let mut entry = Descriptor {
                platform: None,
                annotations: [(key.to_owned(), value.to_owned())].into(),
                ..image.clone()
            };
            let old = names
                .manifests
                .iter()
                .position(|d| d.annotations.get(key).map(String::as_str) == Some(value));
            match old {
                Some(old) if names.manifests[old].digest == image.digest => {}
                Some(old) => {
                    std::mem::swap(&mut names.manifests[old], &mut entry);
                    entry.annotations.clear();
                    names.manifests.push(entry);
                }
                None => names.manifests.push(entry),
            }
            // A name makes up for one that was lost.
            let named: Vec<Digest> = names
                .manifests
                .iter()
                .filter(|d| !d.annotations.is_empty())
                .map(|d| d.digest.clone())
                .collect();
            let mut seen = Vec::new();
            names.manifests.retain(|d| {
                if !d.annotations.is_empty() {
                    return true;
                }
                let keep = !named.contains(&d.digest) && !seen.contains(&d.digest);
                seen.push(d.digest.clone());
                keep
            });
        })
    }

    /// The entries that a person means by a name, a digest or (the beginning of) an id.
    pub(super) fn entries_of(
        &self,
        image: &str,
        entries: &[Descriptor],
    ) -> Result<Vec<usize>, StoreError> {
        let matching = |test: &dyn Fn(&Descriptor) -> bool| -> Vec<usize> {
            let indexes = entries.iter().enumerate();
            indexes
                .filter(|(_, entry)| test(entry))
                .map(|(index, _)| index)
                .collect()
        };
        if let Ok(reference) = image.parse::<Reference>() {
            let full = reference.clone().with_default_tag().to_string();
            let named = matching(&|entry| entry.annotations.get(REF_NAME) == Some(&full));
            if !named.is_empty() {
                return Ok(named);
            }
            if let Some(digest) = reference.digest() {
                let by_digest = matching(&|entry| {
                    entry.digest == *digest && is_of_repository(entry, &reference)
                });
                if !by_digest.is_empty() {
                    return Ok(by_digest);
                }
            }
        }
        let hex = image.strip_prefix("sha256:").unwrap_or(image);
        let short = hex.len() >= 4 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !short {
            return Err(StoreError::NoSuchImage(image.to_owned()));
        }
        let is_it = |entry: &Descriptor| {
            entry.digest.hex().starts_with(hex)
                || self
                    .found(entry, &Platform::host())
                    .ok()
                    .flatten()
                    .is_some_and(|found| {
                        found.manifest.config.digest.hex().starts_with(hex)
                            || found.digest.hex().starts_with(hex)
                    })
        };
        let found = matching(&is_it);
        let digests: BTreeSet<&Digest> =
            found.iter().map(|index| &entries[*index].digest).collect();
        match digests.len() {
            0 => Err(StoreError::NoSuchImage(image.to_owned())),
            1 => Ok(found),
            _ => Err(StoreError::Ambiguous(image.to_owned())),
        }
    }
}

fn is_of_repository(entry: &Descriptor, reference: &Reference) -> bool {
    let name = entry.annotations.get(REF_NAME);
    let name = name.and_then(|name| name.parse::<Reference>().ok());
    name.is_some_and(|name| name.name() == reference.name())
}
