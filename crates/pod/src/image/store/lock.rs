//! Locks that go with their process. (flock(2))

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// A lock on a file, until this is dropped.
#[derive(Debug)]
pub(in crate::image) struct Lock {
    file: File,
}

impl Lock {
    /// Waits until nobody has it exclusively.
    pub(in crate::image) fn shared(path: &Path) -> io::Result<Self> {
        Self::take(path, FlockOperation::LockShared)
    }

    /// Waits until nobody else has it.
    pub(in crate::image) fn exclusive(path: &Path) -> io::Result<Self> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// None when somebody has it.
    pub(in crate::image) fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        match Self::take(path, FlockOperation::NonBlockingLockExclusive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Locks the file that is at `path` in the end: the last holder may have moved or removed it.
    fn take(path: &Path, operation: FlockOperation) -> io::Result<Self> {
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o600);
            let file = options.open(path)?;
            rustix::io::retry_on_intr(|| flock(&file, operation))?;
            let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
            let locked = file.metadata().map(id)?;
            if std::fs::metadata(path)
                .map(id)
                .is_ok_and(|there| there == locked)
            {
                return Ok(Self { file });
            }
        }
    }

    /// The file, which holds something itself.
    pub(in crate::image) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The descriptor that holds the lock.
    pub(in crate::image) fn into_fd(self) -> OwnedFd {
        self.file.into()
    }
}
