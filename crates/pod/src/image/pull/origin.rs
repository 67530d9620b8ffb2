//! Where blobs come from.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::PullError;
use crate::image::digest::{Digest, Hasher};
use crate::image::manifest::{DOCUMENT_BYTES_MAX, Descriptor, Document, Index};

/// Something that has blobs by their digests.
pub(in crate::image) trait Origin: Send + Sync {
    /// The bytes of a blob from an offset on. What they are is checked by who reads them.
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read>, PullError>;

    /// A small blob, checked.
    fn document(&self, blob: &Descriptor) -> Result<Vec<u8>, PullError> {
        let mut bytes = Vec::new();
        let limit = DOCUMENT_BYTES_MAX.min(blob.size) + 1;
        self.open(blob, 0)?.take(limit).read_to_end(&mut bytes)?;
        check_document(blob, &bytes)?;
        Ok(bytes)
    }
}

/// A document is what its descriptor says.
pub(in crate::image) fn check_document(blob: &Descriptor, bytes: &[u8]) -> Result<(), PullError> {
    let (digest, size) = (&blob.digest, blob.size);
    if size > DOCUMENT_BYTES_MAX {
        let message =
            format!("{digest} has {size} bytes; a document may have {DOCUMENT_BYTES_MAX}");
        return Err(PullError::fatal(message));
    }
    if bytes.len() as u64 != size {
        let message = format!("{digest} should have {size} bytes and has {}", bytes.len());
        return Err(PullError::fatal(message));
    }
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(bytes);
    let found = hasher.finish();
    if found != *digest {
        let message =
            format!("{digest} is not what it should be: its bytes have the digest {found}");
        return Err(PullError::fatal(message));
    }
    Ok(())
}

/// An OCI image layout in a directory.
pub(super) struct Layout {
    dir: PathBuf,
    index: Index,
}

/// A layout's name of an image.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's, in full, beside a tag alone in the other.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

impl Layout {
    pub(super) fn open(dir: &Path) -> Result<Self, PullError> {
        let path = dir.join("index.json");
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|error| PullError::from(error).doing(path.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
            index: parse_index(&bytes).map_err(|error| error.doing(path.display()))?,
        })
    }

    /// The image that has the tag, or the only one.
    pub(super) fn choose(&self, tag: Option<&str>) -> Result<Descriptor, PullError> {
        choose(&self.index, tag)
    }
}

pub(super) fn parse_index(bytes: &[u8]) -> Result<Index, PullError> {
    match Document::parse(bytes, None) {
        Ok(Document::Index(index)) => Ok(index),
        Ok(Document::Manifest(_)) => Err(PullError::fatal("it is no index")),
        Err(error) => Err(PullError::fatal(error)),
    }
}

/// One of a layout's images, by its name.
pub(super) fn choose(index: &Index, name: Option<&str>) -> Result<Descriptor, PullError> {
    let names = |descriptor: &Descriptor| -> Vec<String> {
        let keys = [REF_NAME, CONTAINERD_NAME];
        let names = keys
            .iter()
            .filter_map(|key| descriptor.annotations.get(*key));
        names.cloned().collect()
    };
    let found: Vec<&Descriptor> = match name {
        None => index.manifests.iter().collect(),
        Some(name) => {
            let is_it = |descriptor: &&Descriptor| names(descriptor).iter().any(|n| n == name);
            index.manifests.iter().filter(is_it).collect()
        }
    };
    let (first, others) = match found.split_first() {
        Some((first, others)) => (*first, others),
        None => {
            let all: Vec<String> = index.manifests.iter().flat_map(names).collect();
            let there = if all.is_empty() {
                "none has a name".to_owned()
            } else {
                all.join(", ")
            };
            let message = match name {
                Some(name) => format!("there is no image {name:?} in it ({there})"),
                None => "there is no image in it".to_owned(),
            };
            return Err(PullError::fatal(message));
        }
    };
    if others.iter().any(|other| other.digest != first.digest) {
        let all: Vec<String> = index.manifests.iter().flat_map(names).collect();
        let message = format!("it has several images; say which: {}", all.join(", "));
        return Err(PullError::fatal(message));
    }
    Ok(first.clone())
}

impl Origin for Layout {
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read>, PullError> {
        let Digest { .. } = &blob.digest;
        let path = self
            .dir
            .join("blobs")
            .join(blob.digest.algorithm().name())
            .join(blob.digest.hex());
        let open = || -> io::Result<File> {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(from))?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(PullError::from(error).doing(path.display())),
        }
    }
}
