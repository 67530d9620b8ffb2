//! Blobs: received piece by piece, checked, and only then given their name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{Lock, Store, StoreError};
use crate::image::digest::{Digest, Hasher};
use crate::image::manifest::{DOCUMENT_BYTES_MAX, Descriptor};

/// Read and hashed at a time.
const PIECE: usize = 64 * 1024;

/// What there is of a blob.
pub(in crate::image) enum Blob {
    /// All, checked when it came.
    Present(File),
    /// Some, or nothing: it can be received.
    Missing(Partial),
}

/// A blob of which some bytes may be here from an earlier try; nobody else receives it meanwhile.
pub(in crate::image) struct Partial {
    lock: Lock,
    store: Store,
    digest: Digest,
    size: u64,
}

/// A blob that is being received.
pub(in crate::image) struct Receiving {
    partial: Partial,
    hasher: Hasher,
    length: u64,
}

/// Why a blob is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub(in crate::image) enum BlobError {
    #[error("{0} is not what it should be: its bytes have the digest {1}")]
    Digest(Digest, Digest),
    #[error("{0} should have {1} bytes and has {2}")]
    Size(Digest, u64, u64),
    #[error("{0} should have {1} bytes and has more")]
    TooLong(Digest, u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Store {
    /// Whether a blob is here.
    pub(in crate::image) fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// A small blob, checked again.
    pub(in crate::image) fn document(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        let read = |file: File| file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        File::open(&path)
            .and_then(read)
            .map_err(StoreError::io(&path))?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() == *digest {
            Ok(bytes)
        } else {
            let reason = "its bytes have changed since it was stored".to_owned();
            Err(StoreError::Broken { path, reason })
        }
    }

    /// Stores a small blob, whose digest has been checked.
    pub(in crate::image) fn put_document(
        &self,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        if path.exists() {
            return Ok(());
        }
        write_new(&self.root.join("partial"), &path, bytes).map_err(StoreError::io(&path))
    }

    /// Opens a blob, or the place to receive it. Waits while another process receives it.
    pub(in crate::image) fn blob(&self, descriptor: &Descriptor) -> io::Result<Blob> {
        let path = self.blob_path(&descriptor.digest);
        let partial = self.root.join("partial").join(format!(
            "{}-{}",
            descriptor.digest.algorithm().name(),
            descriptor.digest.hex()
        ));
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found.map(Blob::Present),
        }
        let lock = Lock::exclusive(&partial)?;
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => {
                // Somebody else was quicker.
                std::fs::remove_file(&partial)?;
                return found.map(Blob::Present);
            }
        }
        Ok(Blob::Missing(Partial {
            lock,
            store: self.clone(),
            digest: descriptor.digest.clone(),
            size: descriptor.size,
        }))
    }
}

impl Partial {
    /// Begins to receive: first what is here already, which `sink` gets too.
    pub(in crate::image) fn receive(
        mut self,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Receiving> {
        let size = self.size;
        let mut hasher = Hasher::new(self.digest.algorithm());
        let mut length = 0;
        let file = self.lock.file();
        if file.metadata()?.len() > size {
            file.set_len(0)?;
        }
        file.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; PIECE];
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            hasher.update(&buffer[..read]);
            length += read as u64;
            sink(&buffer[..read])?;
        }
        Ok(Receiving {
            partial: self,
            hasher,
            length,
        })
    }

    /// Forgets what is here.
    pub(in crate::image) fn clear(&mut self) -> io::Result<()> {
        self.lock.file().set_len(0)
    }
}

impl Receiving {
    /// Bytes so far.
    pub(in crate::image) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes in all.
    pub(in crate::image) fn size(&self) -> u64 {
        self.partial.size
    }

    /// Takes the next bytes.
    pub(in crate::image) fn append(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.length += bytes.len() as u64;
        if self.length > self.partial.size {
            let (digest, size) = (self.partial.digest.clone(), self.partial.size);
            self.partial.clear()?;
            return Err(BlobError::TooLong(digest, size));
        }
        self.hasher.update(bytes);
        Ok(self.partial.lock.file().write_all(bytes)?)
    }

    /// All is here: checks it and gives the blob its name. What is wrong is forgotten.
    pub(in crate::image) fn finish(self) -> Result<(), BlobError> {
        let Self {
            mut partial,
            hasher,
            length,
        } = self;
        let Partial { digest, size, .. } = &partial;
        if length != *size {
            // Short of bytes, and those that are here may be right.
            return Err(BlobError::Size(digest.clone(), *size, length));
        }
        let found = hasher.finish();
        if found != *digest {
            let error = BlobError::Digest(digest.clone(), found);
            partial.clear()?;
            return Err(error);
        }
        let file = partial.lock.file();
        file.sync_data()?;
        let name = format!(
            "{}-{}",
            partial.digest.algorithm().name(),
            partial.digest.hex()
        );
        let path = partial.store.blob_path(&partial.digest);
        std::fs::rename(partial.store.root.join("partial").join(name), &path)?;
        sync_directory(&path).map_err(Into::into)
    }
}

/// Makes a file that is either not there or whole, also after a crash of the machine. `aside` is a directory of the same file
/// system.
pub(super) fn write_new(aside: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = aside.join(format!(".{name}.{}.{}", std::process::id(), unique()));
    let written = (|| {
        let mut file = File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)?;
        sync_directory(path)
    })();
    if written.is_err() {
        // What can't be removed either is found by the next prune.
        let _gone = std::fs::remove_file(&temporary);
    }
    written
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Writes down the names of the directory that `path` is in.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory: OwnedFd = rustix::fs::open(directory, flags, Mode::empty())?;
    Ok(rustix::fs::fsync(&directory)?)
}
