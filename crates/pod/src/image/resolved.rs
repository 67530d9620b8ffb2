//! What comes of asking for an image: its layers and configuration, what happened on the way, or why there is none.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Digest, ImageConfig, Platform};

/// An image that is in the store, unpacked. Nothing of it is removed while this value (or a clone) lives, whatever process
/// asks for it.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Of its manifest.
    pub digest: Digest,
    /// Of its configuration: what Docker calls the image's id.
    pub id: Digest,
    /// What it was built for.
    pub platform: Platform,
    /// The unpacked layers, the topmost first, as overlayfs wants them.
    pub layers: Vec<PathBuf>,
    /// The layers were unpacked with `user.overlay.…` marks.
    pub user_xattrs: bool,
    /// What it says to run.
    pub config: ImageConfig,
    /// Bytes of its manifest, configuration and layers as they are in a registry.
    pub size_bytes: u64,
    /// None: it was there already. Otherwise how long the pull took.
    pub pulled: Option<Duration>,
    /// The lock that says that it is in use.
    #[allow(dead_code, reason = "held, not read")]
    pub(super) lease: Arc<OwnedFd>,
}

/// Why there is no image. [`EnsureError::reason`] is the kubelet's word for it.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// `imagePullPolicy: Never`, and it is not in the store.
    #[error("Container image {0:?} is not present with pull policy of Never")]
    NeverPull(String),
    /// The registry, or what stands for it, did not give it.
    #[error("Failed to pull image {image:?}: {cause}")]
    Pull {
        /// As asked for.
        image: String,
        /// Why, in one line.
        cause: String,
    },
    /// The store on this machine can't be used.
    #[error("Failed to inspect image {image:?}: {cause}")]
    Store {
        /// As asked for.
        image: String,
        /// Why, in one line.
        cause: String,
    },
}

impl EnsureError {
    /// The `reason` of a waiting container, as the kubelet has it. (pkg/kubelet/images/types.go)
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NeverPull(_) => "ErrImageNeverPull",
            Self::Pull { .. } => "ErrImagePull",
            Self::Store { .. } => "ImageInspectError",
        }
    }
}

/// What happens while an image is pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A registry (or what stands for one) is asked: the kubelet's "Pulling".
    Pulling,
    /// The image is known: this many layers are wanted.
    Found {
        /// As they lie over each other, lowest first: digest, bytes.
        layers: Vec<(Digest, u64)>,
    },
    /// Something about a layer.
    Layer {
        /// Of the blob.
        digest: Digest,
        /// What.
        state: LayerState,
    },
    /// A failure that is tried again: one line.
    Retry(String),
}

/// Where a layer is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// It was unpacked already.
    Present,
    /// Bytes that are here, checked at the end.
    Received(u64),
    /// All bytes are here and what they should be; it is unpacked.
    Done,
}

/// Who is told. Called from several threads; a call must not block for long.
pub trait Progress: Send + Sync {
    /// Something has happened.
    fn event(&self, event: Event);

    /// Nobody waits for the pull any more: it is over, or was abandoned. What is still told of it is not wanted.
    fn end(&self) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn event(&self, _: Event) {}
}
