//! The supervisor's limit on open files, which is not its containers'.
//!
//! Published ports take two descriptors a connection, and the soft limit is often 1,024: for programs that use select(2), which this one
//! does not. So it is raised to the hard one here, and given back to what is started.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::sandbox::{Rlimit, RlimitKind};

/// Raises the soft limit to the hard one. Gives the limits as they were, for the containers.
pub(super) fn raise_limit() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
    Rlimit {
        kind: RlimitKind::Nofile,
        soft: before.current,
        hard: before.maximum,
    }
}
