//! What of a container is known only when it starts: variables that are read out of a file of a volume (`fileKeyRef`), and what
//! refers to them with `$(VAR)`: `command`, `args`, later variables and `subPathExpr`.
//!
//! The plan of such a container has its parts both ways: as they are without the files, for those who look at a container that does
//! not run yet, and as written, to be made whole at each start. (Rejected: all containers as written. Nothing could be looked at
//! before a start then, and every start would do again what the plan knows.)

use std::collections::BTreeMap;

use super::ContainerPlan;
use super::env::Variables;
use super::expand::expand;
use crate::manifest::descending;

/// The parts as written. (Kubernetes: `makeEnvironmentVariables`, which the kubelet calls at each start)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AtStart {
    /// `envFrom` and `env`, in order, by name.
    pub env: Vec<(String, ValuePlan)>,
    /// `command`.
    pub command: Vec<String>,
    /// `args`.
    pub args: Vec<String>,
    /// `subPathExpr`, by the place of its mount in [`ContainerPlan::mounts`].
    pub sub_paths: BTreeMap<usize, String>,
}

/// Where the value of a variable comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePlan {
    /// It is this, whatever it looks like.
    Known(String),
    /// `value`: `$(VAR)` in it stands for what is above it.
    Text(String),
    /// `fileKeyRef`.
    File(FileKey),
}

/// A key of a file in a volume. (Kubernetes API: v1 FileKeySelector)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileKey {
    /// `volumeName`: an emptyDir of the pod (checked).
    pub volume: String,
    /// `path`: relative, without `..` (checked).
    pub path: String,
    /// `key`.
    pub key: String,
    /// `optional`: without the file or the key the variable is not set.
    pub optional: bool,
}

/// Why a container can't be made whole.
#[derive(Debug, thiserror::Error)]
pub enum AtStartError {
    /// The value of a variable can't be had.
    #[error("variable {name}: {why}")]
    Variable {
        /// Its name.
        name: String,
        /// In one line.
        why: String,
    },
    /// A `subPathExpr` that comes to nothing usable.
    #[error("subPathExpr {expr:?} of volume {volume}: {why}")]
    SubPath {
        /// The volume.
        volume: String,
        /// As written.
        expr: String,
        /// In one line.
        why: String,
    },
}

impl AtStart {
    /// `plan` with what the files say now. `read` gives the value of a key, or none when that is optional and not there; its
    /// error is one line.
    pub fn complete<E: std::fmt::Display>(
        &self,
        plan: &ContainerPlan,
        mut read: impl FnMut(&FileKey) -> Result<Option<String>, E>,
    ) -> Result<ContainerPlan, AtStartError> {
        let mut variables = Variables::default();
        for (name, value) in &self.env {
            let value = match value {
                ValuePlan::Known(value) => Some(value.clone()),
                ValuePlan::Text(text) => Some(variables.expanded(text)),
                ValuePlan::File(key) => read(key).map_err(|why| AtStartError::Variable {
                    name: name.clone(),
                    why: why.to_string(),
                })?,
            };
            if let Some(value) = value {
                variables.set(name, value);
            }
        }
        let all = |texts: &[String]| texts.iter().map(|text| variables.expanded(text)).collect();
        let mut whole = ContainerPlan {
            command: all(&self.command),
            args: all(&self.args),
            ..plan.clone()
        };
        for (at, expr) in &self.sub_paths {
            let Some(mount) = whole.mounts.get_mut(*at) else {
                continue;
            };
            let path = sub_path(expr, &variables).map_err(|why| AtStartError::SubPath {
                volume: mount.volume.clone(),
                expr: expr.clone(),
                why: why.to_string(),
            })?;
            mount.sub_path = Some(path).filter(|path| !path.is_empty());
        }
        whole.env = variables.into_list();
        Ok(whole)
    }
}

/// Why a `subPathExpr` can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SubPathError {
    #[error("missing value for {0:?}: no variable of the container has this name")]
    Missing(String),
    #[error("{0}")]
    Leaves(String),
}

/// `subPathExpr` with the container's variables, each of which has to be there. (Kubernetes: `ExpandContainerVolumeMounts`)
pub(super) fn sub_path(expr: &str, variables: &Variables) -> Result<String, SubPathError> {
    let missing = std::cell::RefCell::new(None);
    let path = expand(expr, |name| {
        let value = variables.get(name);
        if value.is_none() {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
        }
        value
    });
    if let Some(name) = missing.into_inner() {
        return Err(SubPathError::Missing(name));
    }
    match descending(&path) {
        Some(wrong) => Err(SubPathError::Leaves(wrong)),
        None => Ok(path),
    }
}
