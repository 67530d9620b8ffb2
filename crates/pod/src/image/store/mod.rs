//! The images of this machine: an OCI image layout with the unpacked layers beside it, for any number of podkit processes at
//! once, without a daemon.

mod place;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::place::owns_machine;
use super::{EnsureError, Location, Platform, Progress, ResolvedImage};
use crate::plan::PullPolicy;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which image.
    pub location: Location,
    /// Whether a registry is asked. The other locations are always looked at.
    pub policy: PullPolicy,
    /// For what machine.
    pub platform: Platform,
    /// `imagePullSecrets`, each as JSON (`.dockerconfigjson` or `.dockercfg`); the user's own configuration is asked after them.
    pub pull_secrets: Vec<Vec<u8>>,
}

impl Wanted {
    /// For this machine, without secrets.
    pub fn new(location: Location, policy: PullPolicy) -> Self {
        Self {
            location,
            policy,
            platform: Platform::host(),
            pull_secrets: Vec::new(),
        }
    }
}

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing it.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
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
        Self {
            root: root.into().into(),
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Gives the image, unpacked: from the store when it is there and the policy permits, pulled otherwise. Runs on threads of
    /// its own, so the caller's runtime stays free and its stacks may be small; dropping the future abandons the pull.
    pub async fn ensure(
        &self,
        wanted: Wanted,
        progress: Arc<dyn Progress>,
    ) -> Result<ResolvedImage, EnsureError> {
        drop(progress);
        Err(EnsureError::Pull {
            image: wanted.location.to_string(),
            cause: "images are not pulled in this version yet".to_owned(),
        })
    }
}
