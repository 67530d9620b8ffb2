//! Images in the making, for tests.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use super::Digest;
use super::manifest::{Descriptor, Index, Manifest, media};

/// Blobs and the descriptor of an image.
#[derive(Debug, Clone, Default)]
pub(super) struct Made {
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
    pub(super) manifest: Option<Descriptor>,
    pub(super) config: Option<Digest>,
}

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    None,
}

/// A layer of files.
pub(super) fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, path, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(super) fn pack(tar: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::None => tar.to_vec(),
        Packing::Zstd => zstd::encode_all(tar, 1).unwrap(),
        Packing::Gzip => {
            let fast = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
            encoder.write_all(tar).unwrap();
            encoder.finish().unwrap()
        }
    }
}

impl Made {
    /// An image of these tars; `config` is the section of that name.
    pub(super) fn image(tars: &[Vec<u8>], packing: Packing, config: &serde_json::Value) -> Self {
        let mut made = Self::default();
        let diff_ids: Vec<String> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
        let media_type = match packing {
            Packing::Gzip => media::OCI_LAYER_GZIP,
            Packing::Zstd => media::OCI_LAYER_ZSTD,
            Packing::None => media::OCI_LAYER,
        };
        let layers = tars
            .iter()
            .map(|tar| made.add(media_type, pack(tar, packing)))
            .collect();
        let config = serde_json::json!({
            "created": "2026-01-02T03:04:05Z",
            "architecture": super::Platform::host().architecture,
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = made.add(media::OCI_CONFIG, serde_json::to_vec(&config).unwrap());
        made.config = Some(config.digest.clone());
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::OCI_MANIFEST.to_owned()),
            config,
            layers,
            annotations: BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest).unwrap();
        made.manifest = Some(made.add(media::OCI_MANIFEST, bytes));
        made
    }

    pub(super) fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        self.blobs.insert(descriptor.digest.to_string(), bytes);
        descriptor
    }

    pub(super) fn descriptor(&self) -> &Descriptor {
        self.manifest.as_ref().unwrap()
    }

    /// Writes a layout with this image under a tag.
    pub(super) fn write_layout(&self, dir: &Path, tag: &str) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
        }
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let path = dir.join("index.json");
        let mut index: Index = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(_) => Index {
                schema_version: 2,
                media_type: None,
                manifests: Vec::new(),
            },
        };
        let name = (
            "org.opencontainers.image.ref.name".to_owned(),
            tag.to_owned(),
        );
        index.manifests.push(Descriptor {
            annotations: [name].into(),
            ..self.descriptor().clone()
        });
        fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
    }
}
