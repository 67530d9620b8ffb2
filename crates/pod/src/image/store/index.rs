//! `index.json`: the images that have a name here. (OCI image-spec, image-layout.md)

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::blobs::write_new;
use super::{Lock, Store, StoreError};
use crate::image::manifest::{Descriptor, media};

/// Thousands of images.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// An image's name, in full.
pub(in crate::image) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The file as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Names {
    schema_version: u32,
    media_type: String,
    /// Each with its name as an annotation; one without lost it to another image.
    pub(super) manifests: Vec<Descriptor>,
    /// What other tools keep here stays.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: media::OCI_INDEX.to_owned(),
            manifests: Vec::new(),
            others: BTreeMap::new(),
        }
    }
}

impl Store {
    /// What has a name.
    pub(super) fn names(&self) -> Result<Names, StoreError> {
        let path = self.root.join("index.json");
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(INDEX_BYTES_MAX).read_to_end(&mut bytes))
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Names::default()),
            read => read.map_err(StoreError::io(&path))?,
        };
        serde_json::from_slice(&bytes).map_err(|error| StoreError::Broken {
            path,
            reason: error.to_string(),
        })
    }

    /// Changes what has a name. Readers see the old or the new, whole.
    pub(super) fn change_names<T>(
        &self,
        change: impl FnOnce(&mut Names) -> T,
    ) -> Result<T, StoreError> {
        let path = self.root.join("index.json");
        let lock = self.root.join("index.lock");
        let _lock = Lock::exclusive(&lock).map_err(StoreError::io(&lock))?;
        let before = self.names()?;
        let mut names = before.clone();
        let result = change(&mut names);
        if names.manifests != before.manifests || !path.exists() {
            let bytes = serde_json::to_vec(&names).map_err(|error| StoreError::Broken {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            write_new(&self.root.join("partial"), &path, &bytes).map_err(StoreError::io(&path))?;
        }
        Ok(result)
    }
}
