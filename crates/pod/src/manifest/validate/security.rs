//! `securityContext`, of the pod and of containers.

use k8s_openapi::api::core::v1::{PodSecurityContext, SecurityContext};

use super::{Notes, within};
use crate::manifest::names;
use crate::manifest::node::Path;

/// The API takes ids of 31 bits.
const MAX_ID: i64 = i32::MAX as i64;

pub(super) fn pod(context: &PodSecurityContext, at: &Path, notes: &mut Notes<'_>) {
    within(context.run_as_user, 0, MAX_ID, &at.key("runAsUser"), notes);
    within(
        context.run_as_group,
        0,
        MAX_ID,
        &at.key("runAsGroup"),
        notes,
    );
}

pub(super) fn container(context: &SecurityContext, at: &Path, notes: &mut Notes<'_>) {
    within(context.run_as_user, 0, MAX_ID, &at.key("runAsUser"), notes);
    within(
        context.run_as_group,
        0,
        MAX_ID,
        &at.key("runAsGroup"),
        notes,
    );
    let Some(capabilities) = &context.capabilities else {
        return;
    };
    let lists = [("add", &capabilities.add), ("drop", &capabilities.drop)];
    for (list, names) in lists {
        for (i, name) in names.iter().flatten().enumerate() {
            notes.name(
                &at.key("capabilities").item(list, i),
                names::capability(name),
            );
        }
    }
    let admin = capabilities
        .add
        .iter()
        .flatten()
        .any(|name| name == "SYS_ADMIN" || name == "ALL");
    if context.allow_privilege_escalation == Some(false) && admin {
        notes.error(
            &at.key("allowPrivilegeEscalation"),
            "can't be false together with the capability SYS_ADMIN",
        );
    }
}
