//! Taking away: names, then what no name and no running pod stands for.

use std::collections::BTreeSet;
use std::path::Path;

use super::index::REF_NAME;
use super::{Lock, Store, StoreError};
use crate::image::digest::Digest;
use crate::image::manifest::{ConfigFile, Document, INDEX_DEPTH_MAX};
use crate::volume::remove_tree;

/// What was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Names that stand for nothing any more.
    pub untagged: Vec<String>,
    /// Images: the digests of their manifests or indexes.
    pub deleted: Vec<Digest>,
    /// Bytes of blobs; the unpacked layers come on top.
    pub bytes: u64,
}

/// What must stay.
#[derive(Default)]
struct Kept {
    blobs: BTreeSet<Digest>,
    chain_ids: BTreeSet<String>,
}

impl Store {
    /// Removes images by name (`nginx:1.27`), digest (`name@sha256:…`) or id. One that a running pod uses stays, and that is
    /// an error; so nothing is removed when one of several can't be.
    pub fn remove(&self, images: &[String]) -> Result<Removed, StoreError> {
        self.prepare()?;
        let _lock = self.lock_for_removal()?;
        let mut removed = Removed::default();
        let mut going: BTreeSet<usize> = BTreeSet::new();
        let names = self.names()?;
        for image in images {
            let found = self.entries_of(image, &names.manifests)?;
            going.extend(found);
        }
        let stays = |index: usize| !going.contains(&index);
        for index in &going {
            let entry = &names.manifests[*index];
            let others = names.manifests.iter().enumerate();
            let mut others = others
                .filter(|(index, _)| stays(*index))
                .map(|(_, d)| &d.digest);
            if !others.any(|digest| *digest == entry.digest) && self.is_used(&entry.digest)? {
                let name = entry.annotations.get(REF_NAME);
                let name = name.cloned().unwrap_or_else(|| entry.digest.to_string());
                return Err(StoreError::InUse(name));
            }
        }
        self.change_names(|names| {
            let mut index = 0;
            names.manifests.retain(|entry| {
                let keep = stays(index);
                index += 1;
                if !keep {
                    removed
                        .untagged
                        .extend(entry.annotations.get(REF_NAME).cloned());
                    removed.deleted.push(entry.digest.clone());
                }
                keep
            });
            removed
                .deleted
                .retain(|gone| !names.manifests.iter().any(|d| d.digest == *gone));
        })?;
        removed.deleted.sort_unstable();
        removed.deleted.dedup();
        removed.bytes = self.sweep()?;
        Ok(removed)
    }

    /// Removes images that have no name any more, or with `all` those that no running pod uses; and what killed pulls left.
    pub fn prune(&self, all: bool) -> Result<Removed, StoreError> {
        self.prepare()?;
        let _lock = self.lock_for_removal()?;
        let mut removed = Removed::default();
        let mut used = BTreeSet::new();
        for entry in self.names()?.manifests {
            if self.is_used(&entry.digest)? {
                used.insert(entry.digest);
            }
        }
        self.change_names(|names| {
            names.manifests.retain(|entry| {
                let named = entry.annotations.contains_key(REF_NAME);
                let keep = used.contains(&entry.digest) || named && !all;
                if !keep {
                    removed
                        .untagged
                        .extend(entry.annotations.get(REF_NAME).cloned());
                    removed.deleted.push(entry.digest.clone());
                }
                keep
            });
        })?;
        removed.deleted.sort_unstable();
        removed.deleted.dedup();
        removed.bytes = self.sweep()?;
        Ok(removed)
    }

    fn lock_for_removal(&self) -> Result<Lock, StoreError> {
        let path = self.root.join("lock");
        Lock::exclusive(&path).map_err(StoreError::io(&path))
    }

    /// Whether somebody holds the lease of an image, or of an image of an index.
    pub(super) fn is_used(&self, named: &Digest) -> Result<bool, StoreError> {
        let mut manifests = BTreeSet::new();
        self.manifests_of(named, 0, &mut manifests)?;
        for manifest in manifests {
            if self.is_leased(&manifest)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_leased(&self, manifest: &Digest) -> Result<bool, StoreError> {
        let path = self.lease_path(manifest);
        if !path.exists() {
            return Ok(false);
        }
        let free = Lock::try_exclusive(&path).map_err(StoreError::io(&path))?;
        Ok(free.is_none())
    }

    /// The manifests that are here of an image or an index.
    fn manifests_of(
        &self,
        digest: &Digest,
        depth: usize,
        into: &mut BTreeSet<Digest>,
    ) -> Result<(), StoreError> {
        if depth > INDEX_DEPTH_MAX || !self.has_blob(digest) {
            return Ok(());
        }
        match Document::parse(&self.document(digest)?, None) {
            Ok(Document::Index(index)) => {
                for below in &index.manifests {
                    self.manifests_of(&below.digest, depth + 1, into)?;
                }
            }
            Ok(Document::Manifest(_)) => {
                into.insert(digest.clone());
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Marks what an image or an index needs.
    fn keep(&self, digest: &Digest, depth: usize, kept: &mut Kept) -> Result<(), StoreError> {
        if depth > INDEX_DEPTH_MAX || !self.has_blob(digest) {
            return Ok(());
        }
        kept.blobs.insert(digest.clone());
        match Document::parse(&self.document(digest)?, None) {
            Ok(Document::Index(index)) => {
                for below in &index.manifests {
                    self.keep(&below.digest, depth + 1, kept)?;
                }
            }
            Ok(Document::Manifest(manifest)) => {
                let layers = manifest.layers.iter().map(|layer| layer.digest.clone());
                kept.blobs.extend(layers);
                if self.has_blob(&manifest.config.digest) {
                    let config = self.document(&manifest.config.digest)?;
                    kept.blobs.insert(manifest.config.digest);
                    if let Ok(config) = ConfigFile::parse(&config) {
                        let chain_ids = config.chain_ids();
                        kept.chain_ids
                            .extend(chain_ids.iter().map(|id| id.hex().to_owned()));
                    }
                }
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Removes every blob and layer that nothing needs, and what killed processes left. Nobody adds anything meanwhile.
    fn sweep(&self) -> Result<u64, StoreError> {
        let mut kept = Kept::default();
        for entry in self.names()?.manifests {
            self.keep(&entry.digest, 0, &mut kept)?;
        }
        // Of images that lost their names while pods use them.
        let leases = self.root.join("leases");
        for name in list(&leases)? {
            let path = leases.join(&name);
            let manifest = [format!("sha256:{name}"), format!("sha512:{name}")];
            let manifest = manifest.iter().find_map(|text| text.parse::<Digest>().ok());
            let used = Lock::try_exclusive(&path)
                .map_err(StoreError::io(&path))?
                .is_none();
            match manifest.filter(|_| used) {
                Some(manifest) => self.keep(&manifest, 0, &mut kept)?,
                None => std::fs::remove_file(&path).map_err(StoreError::io(&path))?,
            }
        }
        // Layers first: one without its blobs can still be run, but blobs are what it is made of again.
        let layers = self.root.join("layers");
        for name in list(&layers)? {
            if !kept.chain_ids.contains(&name) && name != "empty" {
                let path = layers.join(&name);
                remove_tree(&path).map_err(StoreError::io(&path))?;
            }
        }
        let mut bytes = 0;
        for algorithm in ["sha256", "sha512"] {
            let blobs = self.root.join("blobs").join(algorithm);
            for name in list(&blobs)? {
                let digest = format!("{algorithm}:{name}").parse::<Digest>();
                if digest.is_ok_and(|digest| kept.blobs.contains(&digest)) {
                    continue;
                }
                bytes += remove_file(&blobs.join(name))?;
            }
        }
        let partial = self.root.join("partial");
        for name in list(&partial)? {
            bytes += remove_file(&partial.join(name))?;
        }
        Ok(bytes)
    }
}

fn remove_file(path: &Path) -> Result<u64, StoreError> {
    let bytes = path.symlink_metadata().map_or(0, |metadata| metadata.len());
    std::fs::remove_file(path).map_err(StoreError::io(path))?;
    Ok(bytes)
}

fn list(directory: &Path) -> Result<Vec<String>, StoreError> {
    let entries = std::fs::read_dir(directory).map_err(StoreError::io(directory))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: std::io::Result<Vec<String>> = names.collect();
    names.map_err(StoreError::io(directory))
}
