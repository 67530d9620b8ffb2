//! The images of this machine: an OCI image layout with the unpacked layers beside it, for any number of podkit processes at
//! once, without a daemon.
//!
//! ```text
//!   oci-layout, index.json   what any OCI tool reads (`skopeo copy oci:DIR:NAME …`); names are in full
//!   blobs/sha256/HEX         manifests, configurations, layers as they came, each checked
//!   layers/CHAINID/          a layer unpacked over those below it: a lower directory of overlayfs
//!   layers/.CHAINID.lock     held by who unpacks it, into layers/.CHAINID.new
//!   leases/HEX               of a manifest: shared by who runs it, so that nobody removes it
//!   partial/sha256-HEX       a blob that is being received, held by who receives it; the next one goes on where it ends
//!   lock                     shared by who reads or adds, exclusive for who removes
//! ```
//!
//! Nothing has a name before it is whole, checked, and on the disk: a process that is killed leaves a partial blob, which is
//! gone on with, and a `.new` directory, which is begun again. Locks are flock(2)'s and go with their process.
//!
//! containerd's way (a database, leases with times) was rejected: it needs somebody who is always there.

mod blobs;
mod index;
mod layers;
mod lock;
mod names;
mod place;
mod remove;
mod view;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use self::blobs::{Blob, Receiving};
pub(super) use self::layers::{Layer, LayerLock, Unpacked};
pub(super) use self::lock::Lock;
pub(super) use self::names::{Found, SOURCE};
pub(crate) use self::place::owns_machine;
pub use self::remove::Removed;
pub use self::view::{Inspected, Listed};

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing it.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is not what it should be.
    #[error("{}: {reason}", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no such image.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// A short id that several images have.
    #[error("{0} is the beginning of several image ids")]
    Ambiguous(String),
    /// It is in use.
    #[error("{0} is used by a pod that runs: stop it first")]
    InUse(String),
}

impl StoreError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// The images of this machine. Cheap to clone; nothing is made before something is stored.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<Path>,
}

impl Store {
    /// Below `--state-dir` when given; `/var/lib/podkit/images` as root, `$XDG_DATA_HOME/podkit/images` otherwise.
    pub fn new(state_dir: Option<&Path>) -> Self {
        Self::at(place::place(state_dir))
    }

    /// At a directory of one's own.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root: PathBuf = root.into();
        // Layers are mounted from other directories than this one.
        let root = std::path::absolute(&root).unwrap_or(root);
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn blob_path(&self, digest: &super::Digest) -> PathBuf {
        let algorithm = digest.algorithm().name();
        self.root.join("blobs").join(algorithm).join(digest.hex())
    }

    fn layer_path(&self, chain_id: &super::Digest) -> PathBuf {
        self.root.join("layers").join(chain_id.hex())
    }

    pub(super) fn lease_path(&self, manifest: &super::Digest) -> PathBuf {
        self.root.join("leases").join(manifest.hex())
    }

    /// Makes the directories, for their owner only: layers have device nodes and set-user-id programs in them.
    pub(super) fn prepare(&self) -> Result<(), StoreError> {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        for directory in [
            "layers",
            "leases",
            "partial",
            "blobs/sha256",
            "blobs/sha512",
        ] {
            let path = self.root.join(directory);
            private.create(&path).map_err(StoreError::io(&path))?;
        }
        let layout = self.root.join("oci-layout");
        if !layout.exists() {
            let text = b"{\"imageLayoutVersion\":\"1.0.0\"}";
            blobs::write_new(&self.root.join("partial"), &layout, text)
                .map_err(StoreError::io(&layout))?;
        }
        Ok(())
    }

    /// While this is held nothing is removed. The directories are made.
    pub(super) fn hold(&self) -> Result<Lock, StoreError> {
        self.prepare()?;
        let path = self.root.join("lock");
        Lock::shared(&path).map_err(StoreError::io(&path))
    }
}

#[cfg(test)]
mod tests;
