//! Unpacked layers.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Lock, Store};
use crate::image::digest::Digest;
use crate::image::unpack::Tree;
use crate::volume::remove_tree;

/// What there is of a layer.
pub(in crate::image) enum Layer {
    /// It is unpacked.
    Present,
    /// It can be unpacked; nobody else does meanwhile.
    Missing(LayerLock),
}

/// The right to unpack a layer.
pub(in crate::image) struct LayerLock {
    _lock: Lock,
    new: PathBuf,
    path: PathBuf,
}

/// A layer that is unpacked but for what it takes from those below it.
pub(in crate::image) struct Unpacked {
    pub(in crate::image) lock: LayerLock,
    pub(in crate::image) tree: Tree,
}

impl Store {
    /// The directory of a layer that is unpacked.
    pub(in crate::image) fn layer(&self, chain_id: &Digest) -> Option<PathBuf> {
        Some(self.layer_path(chain_id)).filter(|path| path.is_dir())
    }

    /// An unpacked layer, or the right to unpack it. Waits while another process does. What such a one left is removed.
    pub(in crate::image) fn lock_layer(&self, chain_id: &Digest) -> io::Result<Layer> {
        if self.layer(chain_id).is_some() {
            return Ok(Layer::Present);
        }
        let beside = |end: &str| {
            let name = format!(".{}.{end}", chain_id.hex());
            self.root.join("layers").join(name)
        };
        let lock = Lock::exclusive(&beside("lock"))?;
        if self.layer(chain_id).is_some() {
            return Ok(Layer::Present);
        }
        let new = beside("new");
        remove_tree(&new)?;
        let path = self.layer_path(chain_id);
        Ok(Layer::Missing(LayerLock {
            _lock: lock,
            new,
            path,
        }))
    }

    /// The lower directory of an image without layers.
    pub(in crate::image) fn empty_layer(&self) -> io::Result<PathBuf> {
        let path = self.root.join("layers/empty");
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Everything written so far is on the disk when this returns.
    pub(in crate::image) fn sync(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&*self.root, flags, Mode::empty())?;
        Ok(rustix::fs::syncfs(&directory)?)
    }
}

impl LayerLock {
    /// Where it is to be unpacked: a directory that is not there.
    pub(in crate::image) fn new_path(&self) -> &Path {
        &self.new
    }

    /// Gives the finished layer its name.
    pub(in crate::image) fn name(&self) -> io::Result<()> {
        std::fs::rename(&self.new, &self.path)
    }
}

impl Drop for LayerLock {
    /// What could not be finished is no use; the next one who unpacks it removes it, too.
    fn drop(&mut self) {
        let _gone = remove_tree(&self.new);
    }
}
