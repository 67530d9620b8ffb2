//! podkit's own image: the static binary alone, `FROM scratch`, the same bytes whoever makes it and whenever.
//!
//! One layer, not packed: so the same on every machine without a promise of a compressor, and a registry's clients pack on the
//! way if they want to. The binary takes 12 MB.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::manifest::{Descriptor, Manifest, media};
use super::registry::{Keyring, Registry};
use super::{Digest, Platform, Reference};

/// The user that the image's processes are: nobody's, as distroless' `nonroot`.
const USER: &str = "65532:65532";

/// What the image is made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// A static executable.
    pub binary: PathBuf,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
    /// `ExposedPorts`: `8443/tcp`.
    pub exposed_ports: BTreeSet<String>,
}

/// Why there is no image: one line.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It needs a loader and libraries that the image would not have.
    #[error(
        "this binary is not static, so it can't be alone in an image: build it with -C target-feature=+crt-static"
    )]
    NotStatic,
    /// Reading or writing.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
    /// The registry does not take it.
    #[error("{0}")]
    Push(String),
}

/// An image in memory.
pub struct Built {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Built {
    /// Makes the image of the machine's platform.
    pub fn new(recipe: &Recipe) -> Result<Self, BuildError> {
        let io = |error| BuildError::Io(recipe.binary.clone(), error);
        let mut program = Vec::new();
        File::open(&recipe.binary)
            .and_then(|mut file| file.read_to_end(&mut program))
            .map_err(io)?;
        if needs_a_loader(&program) {
            return Err(BuildError::NotStatic);
        }
        let layer = layer(&program).map_err(io)?;
        let diff_id = Digest::of(&layer);
        let platform = Platform::host();
        let ports: BTreeMap<&String, serde_json::Value> = recipe
            .exposed_ports
            .iter()
            .map(|port| (port, json!({})))
            .collect();
        let mut config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {
                "User": USER,
                "ExposedPorts": ports,
                "Entrypoint": ["/podkit"],
                "WorkingDir": "/",
                "Labels": recipe.labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            "history": [{ "created_by": "podkit image build" }],
        });
        if let Some(variant) = platform.variant {
            config["variant"] = variant.into();
        }
        let config = config.to_string().into_bytes();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::OCI_MANIFEST.to_owned()),
            config: descriptor(media::OCI_CONFIG, &config),
            layers: vec![descriptor(media::OCI_LAYER, &layer)],
            annotations: BTreeMap::new(),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|error| io(error.into()))?;
        Ok(Self {
            layer,
            config,
            manifest,
        })
    }

    /// Of the manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// Writes an OCI image layout with this image alone.
    pub fn write_layout(&self, dir: &Path, name: &Reference) -> Result<(), BuildError> {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(|error| BuildError::Io(blobs.clone(), error))?;
        let write = |path: PathBuf, bytes: &[u8]| {
            std::fs::write(&path, bytes).map_err(|error| BuildError::Io(path, error))
        };
        for blob in [&self.layer, &self.config, &self.manifest] {
            write(blobs.join(Digest::of(blob).hex()), blob)?;
        }
        let tag = name.tag().unwrap_or(super::DEFAULT_TAG);
        let mut entry = descriptor(media::OCI_MANIFEST, &self.manifest);
        entry.platform = Some(Platform::host());
        let key = "org.opencontainers.image.ref.name".to_owned();
        entry.annotations.insert(key, tag.to_owned());
        let index =
            json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [entry] });
        write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        write(dir.join("index.json"), index.to_string().as_bytes())
    }

    /// Writes what `docker load` reads.
    pub fn write_archive(&self, file: &Path, name: &Reference) -> Result<(), BuildError> {
        let io = |error| BuildError::Io(file.to_owned(), error);
        let config = format!("{}.json", Digest::of(&self.config).hex());
        let layer = format!("{}/layer.tar", Digest::of(&self.layer).hex());
        let items = json!([{ "Config": config, "RepoTags": [name.familiar()], "Layers": [layer] }]);
        let mut tar = tar::Builder::new(File::create(file).map_err(io)?);
        let items = items.to_string();
        for (path, bytes) in [
            (config.as_str(), self.config.as_slice()),
            (&layer, &self.layer),
            ("manifest.json", items.as_bytes()),
        ] {
            let mut header = header(0o644, bytes.len() as u64);
            tar.append_data(&mut header, path, bytes).map_err(io)?;
        }
        tar.into_inner()
            .and_then(|file| file.sync_all())
            .map_err(io)
    }

    /// Pushes it.
    pub fn push(&self, reference: &Reference, keyring: &Keyring) -> Result<(), BuildError> {
        let said = |error: &dyn std::fmt::Display| BuildError::Push(error.to_string());
        let registry = Registry::new(reference, keyring).map_err(|error| said(&error))?;
        for blob in [&self.layer, &self.config] {
            registry
                .push_blob(&Digest::of(blob), blob)
                .map_err(|error| said(&error))?;
        }
        let media_type = media::OCI_MANIFEST;
        registry
            .push_manifest(media_type, &self.manifest)
            .map_err(|error| said(&error))
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The binary, and a directory for temporary files.
fn layer(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::with_capacity(program.len() + 4096));
    tar.append_data(&mut header(0o755, program.len() as u64), "podkit", program)?;
    let mut tmp = header(0o1777, 0);
    tmp.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut tmp, "tmp/", io::empty())?;
    tar.into_inner()
}

/// Whether an ELF file names an interpreter. (elf(5), PT_INTERP)
fn needs_a_loader(program: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let field = program.get(at..at + bytes)?;
        Some(
            field
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | usize::from(*byte)),
        )
    };
    // 64 bits, little endian: what podkit is built for.
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return true;
    }
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return true;
    };
    const PT_INTERP: usize = 3;
    (0..count).any(|n| number(table + n * size, 4) == Some(PT_INTERP))
}
