//! `docker-daemon:REF`: what a Docker Engine on this machine has.

use super::PullError;

pub(super) fn unsupported() -> PullError {
    PullError::fatal(
        "docker-daemon: is not in this version yet; `docker save IMAGE | podkit image load -` does it",
    )
}
