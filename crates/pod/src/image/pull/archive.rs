//! Images in one file: what `docker save`, `podman save` and `skopeo copy … docker-archive:` write (a `manifest.json`, a
//! configuration, layers that are not packed), and an OCI layout as a tar. (Docker image specification 1.2; OCI image-layout)
//!
//! The file is scanned once for where its members are; then they are blobs like any others. A `docker save` archive has no
//! manifest that a registry would know, so one is made: the configuration is the same, and with it the image's id.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;

use super::PullError;
use super::origin::{Origin, choose, parse_index};
use crate::image::digest::{Algorithm, Digest, Hasher};
use crate::image::manifest::{ConfigFile, DOCUMENT_BYTES_MAX, Descriptor, Index, Manifest, media};
use crate::image::reference::Reference;
use crate::image::store::Store;
use crate::image::unpack::archive::{Entry, Kind, Reader};
use crate::image::unpack::compression::{self, Compression};

/// Members of an archive: a few for each layer.
const MEMBERS_MAX: usize = 100_000;
/// Links from member to member that are followed.
const LINKS_MAX: usize = 8;

/// An archive whose members are known.
pub(in crate::image) struct Archive {
    file: File,
    members: BTreeMap<String, Member>,
    contents: Contents,
}

#[derive(Debug, Clone)]
enum Member {
    /// Offset and length.
    Data(u64, u64),
    /// Another member's path.
    Link(String),
}

enum Contents {
    Oci(Index),
    Docker(Vec<Saved>),
}

/// An image of `manifest.json`.
struct Saved {
    names: Vec<Reference>,
    /// Of the manifest that was made for it.
    descriptor: Descriptor,
    /// Blobs and where they are: the manifest and the configuration have their bytes here.
    documents: Vec<(Digest, Vec<u8>)>,
    layers: Vec<(Digest, u64, u64)>,
}

/// `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Archive {
    /// Opens a file; one that is packed is unpacked to a file without a name first.
    pub(in crate::image) fn open(path: &Path, store: &Store) -> Result<Self, PullError> {
        let doing = |error: PullError| error.doing(path.display());
        let open = || -> Result<Self, PullError> {
            let file = File::open(path)?;
            let mut start = [0; 4];
            let read = file.read_at(&mut start, 0)?;
            match Compression::of(&start[..read])? {
                Compression::None => Self::scan(file),
                Compression::Gzip | Compression::Zstd => Self::copy(file, store),
            }
        };
        open().map_err(doing)
    }

    /// Reads it from a stream, packed or not.
    pub(in crate::image) fn copy(stream: impl Read, store: &Store) -> Result<Self, PullError> {
        let partial = store.root().join("partial");
        let mut file = tempfile_in(&partial)?;
        let mut unpacked = compression::unpacked(stream)?;
        io::copy(&mut unpacked, &mut file)?;
        file.seek(SeekFrom::Start(0))?;
        Self::scan(file)
    }

    fn scan(file: File) -> Result<Self, PullError> {
        let mut members = BTreeMap::new();
        let mut reader = Reader::seeking(file.try_clone()?);
        while let Some(Entry { path, kind, .. }) = reader.next()? {
            let name = member_name(&path);
            let member = match kind {
                Kind::File { size, pieces: None } => Member::Data(reader.data_offset(), size),
                Kind::Symlink(to) => {
                    let parent = Path::new(&name).parent().unwrap_or(Path::new(""));
                    let to = parent.join(String::from_utf8_lossy(&to).as_ref());
                    Member::Link(member_name(to.as_os_str().as_encoded_bytes()))
                }
                Kind::Hardlink(to) => Member::Link(member_name(&to)),
                _ => continue,
            };
            members.insert(name, member);
            if members.len() > MEMBERS_MAX {
                return Err(PullError::fatal("it has too many members for an image"));
            }
        }
        let mut archive = Self {
            file,
            members,
            contents: Contents::Docker(Vec::new()),
        };
        archive.contents = archive.read_contents()?;
        Ok(archive)
    }

    fn read_contents(&self) -> Result<Contents, PullError> {
        // Newer Dockers write both; `manifest.json` has the names.
        if self.find("manifest.json").is_some() {
            let bytes = self.small("manifest.json")?;
            let items: Vec<Item> = serde_json::from_slice(&bytes)
                .map_err(|error| PullError::fatal(format!("manifest.json: {error}")))?;
            let saved: Result<Vec<Saved>, PullError> =
                items.iter().map(|item| self.saved(item)).collect();
            return saved.map(Contents::Docker);
        }
        if self.find("oci-layout").is_some() {
            let bytes = self.small("index.json")?;
            return Ok(Contents::Oci(parse_index(&bytes)?));
        }
        Err(PullError::fatal(
            "it is no image: there is neither a manifest.json nor an oci-layout in it",
        ))
    }

    /// Makes a manifest for an image of `docker save`.
    fn saved(&self, item: &Item) -> Result<Saved, PullError> {
        let config_bytes = self.small(&item.config)?;
        let config = ConfigFile::parse(&config_bytes)
            .map_err(|error| PullError::fatal(format!("{}: {error}", item.config)))?;
        let paths = item.layers.as_deref().unwrap_or_default();
        let diff_ids = &config.rootfs.diff_ids;
        if paths.len() != diff_ids.len() {
            let message = format!(
                "it has {} layers and its configuration names {}",
                paths.len(),
                diff_ids.len()
            );
            return Err(PullError::fatal(message));
        }
        let mut layers = Vec::new();
        let mut descriptors = Vec::new();
        for (path, diff_id) in paths.iter().zip(diff_ids) {
            let missing = || PullError::fatal(format!("the layer {path} is not in it"));
            let (offset, size) = self.find(path).ok_or_else(missing)?;
            let mut start = [0; 4];
            let read = self
                .file
                .read_at(&mut start[..4.min(size as usize)], offset)?;
            let (digest, media_type) = match Compression::of(&start[..read])? {
                // The digest of a tar that is not packed is the layer's own, checked when it is received.
                Compression::None => (diff_id.clone(), media::OCI_LAYER),
                Compression::Gzip => (self.digest(offset, size)?, media::OCI_LAYER_GZIP),
                Compression::Zstd => (self.digest(offset, size)?, media::OCI_LAYER_ZSTD),
            };
            layers.push((digest.clone(), offset, size));
            descriptors.push(Descriptor::new(media_type, digest, size));
        }
        let config_digest = Digest::of(&config_bytes);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::OCI_MANIFEST.to_owned()),
            config: Descriptor::new(
                media::OCI_CONFIG,
                config_digest.clone(),
                config_bytes.len() as u64,
            ),
            layers: descriptors,
            annotations: BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest).map_err(PullError::fatal)?;
        let digest = Digest::of(&bytes);
        let names = item.repo_tags.as_deref().unwrap_or_default().iter();
        Ok(Saved {
            names: names.filter_map(|name| name.parse().ok()).collect(),
            descriptor: Descriptor::new(media::OCI_MANIFEST, digest.clone(), bytes.len() as u64),
            documents: vec![(digest, bytes), (config_digest, config_bytes)],
            layers,
        })
    }

    /// All its images with their names.
    pub(in crate::image) fn images(&self) -> Vec<(Vec<Reference>, Descriptor)> {
        match &self.contents {
            Contents::Docker(saved) => saved
                .iter()
                .map(|image| (image.names.clone(), image.descriptor.clone()))
                .collect(),
            Contents::Oci(index) => index
                .manifests
                .iter()
                .map(|descriptor| {
                    let names = descriptor.annotations.values();
                    // A tag alone is no name.
                    let full = names.filter(|name| name.contains(['/', ':']));
                    let names = full.filter_map(|name| name.parse().ok()).take(1);
                    (names.collect(), descriptor.clone())
                })
                .collect(),
        }
    }

    /// The image that has the name, or the only one.
    pub(in crate::image) fn choose(&self, name: Option<&str>) -> Result<Descriptor, PullError> {
        let saved = match &self.contents {
            Contents::Oci(index) => return choose(index, name),
            Contents::Docker(saved) => saved,
        };
        let all = || {
            let names = saved.iter().flat_map(|image| &image.names);
            let names: Vec<String> = names.map(Reference::familiar).collect();
            names.join(", ")
        };
        let Some(name) = name else {
            return match saved.as_slice() {
                [only] => Ok(only.descriptor.clone()),
                [] => Err(PullError::fatal("there is no image in it")),
                _ => {
                    let message = format!("it has several images; say which: {}", all());
                    Err(PullError::fatal(message))
                }
            };
        };
        let wanted = name.parse::<Reference>().map(Reference::with_default_tag);
        let wanted = wanted.map_err(|error| PullError::fatal(format!("{name}: {error}")))?;
        let found = saved.iter().find(|image| image.names.contains(&wanted));
        let missing = || PullError::fatal(format!("there is no image {name:?} in it ({})", all()));
        found
            .map(|image| image.descriptor.clone())
            .ok_or_else(missing)
    }

    fn find(&self, path: &str) -> Option<(u64, u64)> {
        let mut name = member_name(path.as_bytes());
        for _ in 0..LINKS_MAX {
            match self.members.get(&name)? {
                Member::Data(offset, length) => return Some((*offset, *length)),
                Member::Link(to) => name = to.clone(),
            }
        }
        None
    }

    fn part(&self, offset: u64, length: u64) -> Result<impl Read + use<>, PullError> {
        Ok(Part {
            file: self.file.try_clone()?,
            at: offset,
            end: offset + length,
        })
    }

    fn small(&self, path: &str) -> Result<Vec<u8>, PullError> {
        let missing = || PullError::fatal(format!("there is no {path} in it"));
        let (offset, length) = self.find(path).ok_or_else(missing)?;
        if length > DOCUMENT_BYTES_MAX {
            return Err(PullError::fatal(format!("{path} has {length} bytes")));
        }
        let mut bytes = Vec::new();
        self.part(offset, length)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn digest(&self, offset: u64, length: u64) -> Result<Digest, PullError> {
        let mut part = self.part(offset, length)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match part.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                read => hasher.update(&buffer[..read]),
            }
        }
    }
}

impl Origin for Archive {
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read>, PullError> {
        let digest = &blob.digest;
        let missing = || PullError::fatal(format!("there is no {digest} in it"));
        let (offset, length) = match &self.contents {
            Contents::Oci(_) => {
                let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
                self.find(&path).ok_or_else(missing)?
            }
            Contents::Docker(saved) => {
                let documents = saved.iter().flat_map(|image| &image.documents);
                if let Some((_, bytes)) = documents.into_iter().find(|(of, _)| of == digest) {
                    let rest = bytes.get(from as usize..).unwrap_or_default().to_vec();
                    return Ok(Box::new(io::Cursor::new(rest)));
                }
                let mut layers = saved.iter().flat_map(|image| &image.layers);
                let layer = layers.find(|(of, ..)| of == digest).ok_or_else(missing)?;
                (layer.1, layer.2)
            }
        };
        let from = from.min(length);
        Ok(Box::new(self.part(offset + from, length - from)?))
    }
}

/// A part of a file, whatever others read of it.
struct Part {
    file: File,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = into.len().min(left);
        let read = self.file.read_at(&mut into[..most], self.at)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

/// `./a//b` and `a/b` are one; `..` goes up where it can.
fn member_name(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A file without a name, which goes with its last descriptor.
fn tempfile_in(directory: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600))?.into())
}
