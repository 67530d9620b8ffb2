//! Images: what a container's root file system is made of, and what the image itself says to run.
//!
//! For now an image is the running binary, the machine, or a directory. Images of registries will come as layers with a
//! configuration; [`ImageConfig`] has its fields, and here they are empty but for podkit's own.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
        /// The image.
        lower: PathBuf,
        /// Empty at the first start.
        upper: PathBuf,
        /// On the same file system as `upper`, for overlayfs itself.
        work: PathBuf,
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
    /// `User`, numeric.
    pub uid: Option<u32>,
    /// The group of `User`, numeric.
    pub gid: Option<u32>,
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
/// when absent and needed only by `rootfs:DIR`. What an earlier run of the container wrote there is removed, as a restart on
/// Kubernetes starts from the image again; so this is called before every start.
pub fn resolve(plan: &ContainerPlan, scratch: &Path) -> Result<Image, ImageError> {
    let (root, entrypoint) = match &plan.source {
        ImageSource::Itself => (Root::Itself, vec!["/podkit".to_owned()]),
        ImageSource::Host => (Root::Host, Vec::new()),
        ImageSource::Rootfs(directory) => (overlay(&plan.name, directory, scratch)?, Vec::new()),
    };
    Ok(Image {
        root,
        config: ImageConfig {
            entrypoint,
            ..ImageConfig::default()
        },
    })
}

fn overlay(container: &str, directory: &Path, scratch: &Path) -> Result<Root, ImageError> {
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
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::Scratch {
            container: container.to_owned(),
            path,
            source,
        }
    };
    std::fs::create_dir_all(scratch).map_err(failed(scratch))?;
    let scratch = scratch.canonicalize().map_err(failed(scratch))?;
    if scratch.starts_with(&lower) {
        return Err(wrong(format!(
            "it contains {}, where the container's writes go",
            scratch.display()
        )));
    }
    let layers = [scratch.join("upper"), scratch.join("work")];
    for layer in &layers {
        match std::fs::remove_dir_all(layer) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(layer)(error));
            }
            _ => {}
        }
        std::fs::create_dir(layer).map_err(failed(layer))?;
    }
    // The root directory's mode is the upper layer's.
    if let Ok(metadata) = lower.metadata() {
        std::fs::set_permissions(&layers[0], metadata.permissions()).map_err(failed(&layers[0]))?;
    }
    let [upper, work] = layers;
    Ok(Root::Overlay { lower, upper, work })
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
