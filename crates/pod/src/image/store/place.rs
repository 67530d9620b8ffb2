//! Where the store is.

use std::path::{Path, PathBuf};

use crate::sandbox::in_user_namespace;

/// Where Kubernetes' node has `/var/lib/containerd`, root has `/var/lib/podkit/images`; somebody else a directory of theirs.
pub(super) fn place(state_dir: Option<&Path>) -> PathBuf {
    crate::place::lib(state_dir).join("images")
}

/// Root, and not only inside a user namespace: file systems' owners are the machine's.
pub(crate) fn owns_machine() -> bool {
    rustix::process::geteuid().is_root() && !in_user_namespace()
}
