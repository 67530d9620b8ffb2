//! PersistentVolumeClaims, and their templates in volumes. (Kubernetes: `ValidatePersistentVolumeClaimSpec`)

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};

use super::{Notes, meta};
use crate::manifest::node::Path;
use crate::manifest::quantity::Quantity;

const ACCESS_MODES: [&str; 4] = [
    "ReadWriteOnce",
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOncePod",
];

/// A PersistentVolumeClaim.
pub(in crate::manifest) fn claim(claim: &PersistentVolumeClaim, notes: &mut Notes<'_>) {
    meta::metadata(&claim.metadata, notes);
    let at = Path::root().key("spec");
    match &claim.spec {
        Some(given) => spec(given, &at, notes),
        None => notes.error(&at, "spec is missing"),
    }
}

pub(super) fn spec(spec: &PersistentVolumeClaimSpec, at: &Path, notes: &mut Notes<'_>) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        notes.error(&at.key("accessModes"), "at least 1 access mode is required");
    }
    for (i, mode) in modes.iter().enumerate() {
        let path = at.item("accessModes", i);
        if mode.is_empty() {
            notes.error(&path, "an access mode is missing");
        }
        super::one_of(Some(mode), &ACCESS_MODES, &path, notes);
    }
    let at = at.key("resources").key("requests").key("storage");
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let Some(storage) = requests.and_then(|requests| requests.get("storage")) else {
        return notes.error(&at, "how much storage is asked for is missing");
    };
    match storage.0.parse::<Quantity>() {
        Ok(amount) if amount.is_negative() || amount.is_zero() => {
            notes.error(&at, "must be greater than zero");
        }
        Ok(_) => {}
        Err(error) => notes.error(&at, error.to_string()),
    }
}
