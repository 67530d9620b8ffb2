//! The JSON of images: descriptors, manifests, indexes, configurations, in OCI's form and in Docker's, which differ in
//! their media types only. (OCI image-spec 1.1: descriptor.md, manifest.md, image-index.md, config.md; Docker image manifest
//! version 2, schema 2)
//!
//! Only the fields that podkit acts on are read: what is stored and checked is always the bytes as they came. The crate
//! `oci-spec` was rejected: four derive crates for twenty fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::platform::Platform;

/// Documents that are read into memory: a manifest, an index, a configuration. (containerd and the distribution registry
/// allow 4 MiB of a manifest; configurations with a long history are larger than manifests)
pub(super) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// Layers of one image: overlayfs takes 500.
pub(super) const LAYERS_MAX: usize = 500;
/// An index may point to an index.
pub(super) const INDEX_DEPTH_MAX: usize = 4;

pub(super) mod media {
    //! Media types.
    pub(in crate::image) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub(in crate::image) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub(in crate::image) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub(in crate::image) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub(in crate::image) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub(in crate::image) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub(in crate::image) const DOCKER_LIST: &str =
        "application/vnd.docker.distribution.manifest.list.v2+json";
    pub(in crate::image) const DOCKER_MANIFEST: &str =
        "application/vnd.docker.distribution.manifest.v2+json";
    pub(in crate::image) const DOCKER_SCHEMA_1: [&str; 2] = [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ];
}

/// Something that is named by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its name and check.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// In an index: for what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// In an index: names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Without a platform and annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// What this document is; OCI's may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Notes for people and programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Images for several platforms, or the images of a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// What this document is; OCI's may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The images.
    pub manifests: Vec<Descriptor>,
}

/// What a registry or a layout gives for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Why a document is not an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocument {
    /// The oldest form, which carries no checkable layers.
    #[error(
        "it is a Docker image manifest of version 2, schema 1, which is no longer in use: push the image again with a tool of this decade"
    )]
    SchemaOne,
    /// Another kind of document.
    #[error("it is a {0:?}, neither an image nor an index of images")]
    MediaType(String),
    /// Not what its media type says.
    #[error("it can't be read: {0}")]
    Json(String),
    /// Too much of something.
    #[error("it has {0} layers; {LAYERS_MAX} are possible")]
    Layers(usize),
    /// Not for this machine.
    #[error("there is no image for {wanted} in it (there are {there})")]
    Platform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        there: String,
    },
}

impl Document {
    /// Reads one. `media_type` is what the descriptor or the registry says it is; the document's own word counts when there is
    /// none. A document that says two things is refused. (CVE-2021-41190)
    pub(super) fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self, InvalidDocument> {
        let json = |error: serde_json::Error| InvalidDocument::Json(error.to_string());
        let looks: Looks = serde_json::from_slice(bytes).map_err(json)?;
        let said = media_type.filter(|said| !said.is_empty() && *said != "application/json");
        let said = said.map(|said| said.split(';').next().unwrap_or(said).trim());
        if let (Some(said), Some(own)) = (said, &looks.media_type)
            && said != own
        {
            let why = format!("it is called a {said} and calls itself a {own}");
            return Err(InvalidDocument::Json(why));
        }
        if looks.schema_version == Some(1) {
            return Err(InvalidDocument::SchemaOne);
        }
        let kind = said.or(looks.media_type.as_deref());
        let index = match kind {
            Some(media::OCI_INDEX | media::DOCKER_LIST) => true,
            Some(media::OCI_MANIFEST | media::DOCKER_MANIFEST) => false,
            Some(kind) if media::DOCKER_SCHEMA_1.contains(&kind) => {
                return Err(InvalidDocument::SchemaOne);
            }
            Some(other) => return Err(InvalidDocument::MediaType(other.to_owned())),
            None => looks.manifests.is_some(),
        };
        if looks.manifests.is_some() && looks.layers.is_some() {
            let why = "it has both manifests and layers".to_owned();
            return Err(InvalidDocument::Json(why));
        }
        if index {
            return serde_json::from_slice(bytes).map(Self::Index).map_err(json);
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
        match manifest.layers.len() {
            0..=LAYERS_MAX => Ok(Self::Manifest(manifest)),
            many => Err(InvalidDocument::Layers(many)),
        }
    }
}

impl Document {
    /// What it calls itself, or else what OCI calls it.
    pub(super) fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => manifest
                .media_type
                .as_deref()
                .unwrap_or(media::OCI_MANIFEST),
            Self::Index(index) => index.media_type.as_deref().unwrap_or(media::OCI_INDEX),
        }
    }
}

impl Index {
    /// The image that runs best on `platform`, the first of equals. One without a platform is taken when it is alone.
    pub(super) fn choose(&self, platform: &Platform) -> Result<&Descriptor, InvalidDocument> {
        if let [only] = self.manifests.as_slice()
            && only.platform.is_none()
        {
            return Ok(only);
        }
        let rank = |descriptor: &Descriptor| platform.rank(descriptor.platform.as_ref()?);
        let best = self
            .manifests
            .iter()
            .filter_map(|descriptor| Some((rank(descriptor)?, descriptor)))
            .min_by_key(|(rank, _)| *rank);
        best.map(|(_, descriptor)| descriptor).ok_or_else(|| {
            let platforms = self.manifests.iter().filter_map(|d| d.platform.as_ref());
            let there: Vec<String> = platforms
                .filter(|platform| platform.os != "unknown")
                .map(ToString::to_string)
                .collect();
            InvalidDocument::Platform {
                wanted: platform.clone(),
                there: if there.is_empty() {
                    "none with a platform".to_owned()
                } else {
                    there.join(", ")
                },
            }
        })
    }
}

/// What tells the kinds of documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Looks {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// The configuration of an image, as far as it is acted on or shown. (config.md)
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfigFile {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// `GOARCH`.
    #[serde(default)]
    pub architecture: String,
    /// `GOOS`.
    #[serde(default)]
    pub os: String,
    /// Of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How its program is run. `null` in images that nobody runs.
    #[serde(default)]
    pub config: Option<ConfigSection>,
    /// Its layers.
    #[serde(default)]
    pub rootfs: RootFs,
}

/// `config` of the configuration. Go writes `null` for empty lists and maps.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigSection {
    /// `name`, `uid`, either with `:group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `80/tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// The program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// `SIGQUIT`, `3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// `rootfs` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The digests of the layers as tars, not compressed, lowest first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

impl ConfigFile {
    /// Reads one. `null` and absent are the same.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidDocument> {
        serde_json::from_slice(bytes).map_err(|error| InvalidDocument::Json(error.to_string()))
    }

    /// What it is for.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
        }
    }

    /// The digest of each layer together with all below it, lowest first. (config.md, "Layer ChainID")
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.rootfs.diff_ids.len());
        for diff_id in &self.rootfs.diff_ids {
            let next = match chain.last() {
                None => diff_id.clone(),
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            };
            chain.push(next);
        }
        chain
    }
}
