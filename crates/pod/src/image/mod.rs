//! Images: what a container's root file system is made of, and what the image itself says to run.
//!
//! ```text
//!   Reference, Location ──▶ Store::ensure ──▶ ResolvedImage ──▶ resolve ──▶ Image ──▶ the sandbox
//!   (what the file says)    (pulled, checked,  (layers and       (a root to write to, what to run)
//!                            unpacked, once)    configuration)    for each start
//! ```
//!
//! The running binary, the machine and a directory are images too, without a store.

mod build;
mod digest;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod location;
mod manifest;
mod platform;
mod pull;
mod pulls;
mod reference;
mod registry;
mod resolved;
mod store;
#[cfg(test)]
mod testing;
mod unpack;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::build::{BuildError, Built, Recipe};
pub use self::digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use self::location::{InvalidLocation, Location, TRANSPORTS};
pub use self::manifest::{ConfigFile, ConfigSection, Descriptor, Index, InvalidDocument, Manifest};
pub use self::platform::Platform;
pub use self::pull::{LoadError, Loaded, Wanted};
pub(crate) use self::pulls::Pulls;
pub use self::pulls::Underway;
pub use self::reference::{DEFAULT_REGISTRY, DEFAULT_TAG, InvalidReference, Reference};
pub use self::registry::{Keyring, KeyringError};
pub use self::resolved::{EnsureError, Event, LayerState, Progress, Quiet, ResolvedImage};
pub(crate) use self::store::owns_machine;
pub use self::store::{Inspected, Listed, Removed, Store, StoreError};
use crate::plan::{ContainerPlan, ImageSource};

/// How a root file system is put together. Done by the sandbox, in the container's own mount namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// Memory, with the running binary as `/podkit`, read-only.
    Itself,
    /// Memory, with the machine's programs, read-only; its homes, state and temporary files are not there.
    Host,
    /// Writes go to `upper`; `lower` is never changed. (overlayfs)
    Overlay {
        /// The image's layers, the topmost first; one at least.
        lowers: Vec<PathBuf>,
        /// Empty at the first start.
        upper: PathBuf,
        /// On the same file system as `upper`, for overlayfs itself.
        work: PathBuf,
        /// overlayfs keeps its marks in `user.overlay.…`, as it must inside a user namespace. (overlayfs.rst, `userxattr`)
        user_xattrs: bool,
    },
}

/// What an image says about the process. (OCI image configuration, `config`)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Env`.
    pub env: Vec<(String, String)>,
    /// `WorkingDir`.
    pub working_dir: Option<PathBuf>,
    /// `User`: `name`, `uid`, `name:group` or `uid:gid`. Names are those of the image's own `/etc/passwd` and `/etc/group`, so
    /// it is made numbers inside the container's root.
    pub user: Option<String>,
    /// `StopSignal`: `SIGQUIT`, `QUIT` or `3`.
    pub stop_signal: Option<String>,
    /// `ExposedPorts`: `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// `Labels`.
    pub labels: std::collections::BTreeMap<String, String>,
}

impl From<ConfigSection> for ImageConfig {
    fn from(section: ConfigSection) -> Self {
        let pair = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text, String::new()),
        };
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let env = section.env.unwrap_or_default().into_iter().map(pair);
        Self {
            entrypoint: section.entrypoint.unwrap_or_default(),
            cmd: section.cmd.unwrap_or_default(),
            env: env.filter(|(name, _)| !name.is_empty()).collect(),
            working_dir: some(section.working_dir).map(PathBuf::from),
            user: some(section.user),
            stop_signal: some(section.stop_signal),
            exposed_ports: section
                .exposed_ports
                .unwrap_or_default()
                .into_keys()
                .collect(),
            labels: section.labels.unwrap_or_default(),
        }
    }
}

/// An image that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its file system.
    pub root: Root,
    /// What it says to run, and how.
    pub config: ImageConfig,
}

/// Why an image can't be started.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Neither the container nor the image names a program.
    #[error(
        "container {container}: no command, and the image {image} has no entrypoint: set `command`"
    )]
    NoCommand {
        /// The container's name.
        container: String,
        /// The image as the file has it.
        image: String,
    },
    /// It has to be in the store first, see [`Store::ensure`].
    #[error("container {container}: the image {image} is not in the store")]
    NotEnsured {
        /// The container's name.
        container: String,
        /// The image as the file has it.
        image: String,
    },
    /// The directory of `rootfs:DIR` can't be a root file system.
    #[error("container {container}: the root file system {}: {reason}", path.display())]
    Rootfs {
        /// The container's name.
        container: String,
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The place for what the container writes could not be prepared.
    #[error("container {container}: prepare {}: {source}", path.display())]
    Scratch {
        /// The container's name.
        container: String,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Finds the image of a container and prepares its storage: `scratch` is a directory on disk for this container alone, made
/// when absent and needed only by images with layers and by `rootfs:DIR`. What an earlier run of the container wrote there is
/// removed, as a restart on Kubernetes starts from the image again; so this is called before every start. `ensured` is what
/// [`Store::ensure`] gave for an [`ImageSource::Image`].
pub fn resolve(
    plan: &ContainerPlan,
    scratch: &Path,
    ensured: Option<&ResolvedImage>,
) -> Result<Image, ImageError> {
    let podkit = ImageConfig {
        entrypoint: vec!["/podkit".to_owned()],
        ..ImageConfig::default()
    };
    let (root, config) = match &plan.source {
        ImageSource::Itself => (Root::Itself, podkit),
        ImageSource::Host => (Root::Host, ImageConfig::default()),
        ImageSource::Rootfs(directory) => (
            directory_root(&plan.name, directory, scratch)?,
            ImageConfig::default(),
        ),
        ImageSource::Image(_) => {
            let ensured = ensured.ok_or_else(|| ImageError::NotEnsured {
                container: plan.name.clone(),
                image: plan.image.clone(),
            })?;
            let scratch = make_scratch(&plan.name, scratch)?;
            let (upper, work) = fresh_layers(&plan.name, &scratch, ensured.layers.first())?;
            let root = Root::Overlay {
                lowers: ensured.layers.clone(),
                upper,
                work,
                user_xattrs: ensured.user_xattrs,
            };
            (root, ensured.config.clone())
        }
    };
    Ok(Image { root, config })
}

/// `rootfs:DIR` under a layer that is written to.
fn directory_root(container: &str, directory: &Path, scratch: &Path) -> Result<Root, ImageError> {
    let wrong = |reason: String| ImageError::Rootfs {
        container: container.to_owned(),
        path: directory.to_owned(),
        reason,
    };
    let lower = directory
        .canonicalize()
        .map_err(|error| wrong(error.to_string()))?;
    if !lower.is_dir() {
        return Err(wrong("not a directory".into()));
    }
    let scratch = make_scratch(container, scratch)?;
    if scratch.starts_with(&lower) {
        return Err(wrong(format!(
            "it contains {}, where the container's writes go",
            scratch.display()
        )));
    }
    let (upper, work) = fresh_layers(container, &scratch, Some(&lower))?;
    Ok(Root::Overlay {
        lowers: vec![lower],
        upper,
        work,
        user_xattrs: !owns_machine(),
    })
}

fn make_scratch(container: &str, scratch: &Path) -> Result<PathBuf, ImageError> {
    std::fs::create_dir_all(scratch)
        .and_then(|()| scratch.canonicalize())
        .map_err(unprepared(container, scratch))
}

fn unprepared(container: &str, path: &Path) -> impl FnOnce(std::io::Error) -> ImageError + use<> {
    let (container, path) = (container.to_owned(), path.to_owned());
    move |source| ImageError::Scratch {
        container,
        path,
        source,
    }
}

/// What a container has written to its root file system, in its `scratch`.
pub(crate) fn upper(scratch: &Path) -> PathBuf {
    scratch.join("upper")
}

/// Empty directories for what is written over `top`, and for overlayfs itself.
fn fresh_layers(
    container: &str,
    scratch: &Path,
    top: Option<&PathBuf>,
) -> Result<(PathBuf, PathBuf), ImageError> {
    let failed = |path: &Path| unprepared(container, path);
    let layers = [upper(scratch), scratch.join("work")];
    for layer in &layers {
        crate::volume::remove_tree(layer).map_err(failed(layer))?;
        std::fs::create_dir(layer).map_err(failed(layer))?;
    }
    // The root directory's mode and owner are the upper layer's.
    if let Some(Ok(metadata)) = top.map(|top| top.metadata()) {
        let owner = (Some(metadata.uid()), Some(metadata.gid()));
        // Where it is not permitted, it is the runner's.
        let _kept = std::os::unix::fs::chown(&layers[0], owner.0, owner.1);
        std::fs::set_permissions(&layers[0], metadata.permissions()).map_err(failed(&layers[0]))?;
    }
    let [upper, work] = layers;
    Ok((upper, work))
}

impl Image {
    /// What is executed: `command` or else the entrypoint, then `args` or else (without a `command`) the image's own.
    /// (Kubernetes documentation, "Define a Command and Arguments for a Container")
    pub fn argv(&self, plan: &ContainerPlan) -> Result<Vec<String>, ImageError> {
        let (program, own_args) = if plan.command.is_empty() {
            (&self.config.entrypoint, self.config.cmd.as_slice())
        } else {
            (&plan.command, [].as_slice())
        };
        let args = if plan.args.is_empty() {
            own_args
        } else {
            plan.args.as_slice()
        };
        let argv: Vec<String> = program.iter().chain(args).cloned().collect();
        if argv.is_empty() {
            return Err(ImageError::NoCommand {
                container: plan.name.clone(),
                image: plan.image.clone(),
            });
        }
        Ok(argv)
    }

    /// The environment: the image's, then the container's, which wins.
    pub fn env(&self, plan: &ContainerPlan) -> Vec<(String, String)> {
        let mut env: Vec<_> = self
            .config
            .env
            .iter()
            .filter(|(name, _)| !plan.env.iter().any(|(known, _)| known == name))
            .cloned()
            .collect();
        env.extend(plan.env.iter().cloned());
        env
    }

    /// The working directory: the container's, or else the image's.
    pub fn working_dir(&self, plan: &ContainerPlan) -> Option<PathBuf> {
        plan.working_dir
            .clone()
            .or_else(|| self.config.working_dir.clone())
    }
}

#[cfg(test)]
mod tests;
