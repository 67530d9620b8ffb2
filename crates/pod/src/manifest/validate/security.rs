//! `securityContext`, of the pod and of containers. (Kubernetes: `ValidatePodSecurityContext`, `ValidateSecurityContext`)

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};

use super::{Notes, one_of, within};
use crate::manifest::names;
use crate::manifest::node::Path;

/// The API takes ids of 31 bits.
const MAX_ID: i64 = i32::MAX as i64;
const SYSCTL_CHARS_MAX: usize = 253;

pub(super) fn pod(context: &PodSecurityContext, spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    for (field, id) in [
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
        ("fsGroup", context.fs_group),
    ] {
        within(id, 0, MAX_ID, &at.key(field), notes);
    }
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        within(
            Some(*group),
            0,
            MAX_ID,
            &at.item("supplementalGroups", i),
            notes,
        );
    }
    one_of(
        context.fs_group_change_policy.as_deref(),
        &["Always", "OnRootMismatch"],
        &at.key("fsGroupChangePolicy"),
        notes,
    );
    one_of(
        context.supplemental_groups_policy.as_deref(),
        &["Merge", "Strict"],
        &at.key("supplementalGroupsPolicy"),
        notes,
    );
    seccomp(
        context.seccomp_profile.as_ref(),
        &at.key("seccompProfile"),
        notes,
    );
    sysctls(context, spec, at, notes);
}

pub(super) fn container(context: &SecurityContext, at: &Path, notes: &mut Notes<'_>) {
    for (field, id) in [
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ] {
        within(id, 0, MAX_ID, &at.key(field), notes);
    }
    one_of(
        context.proc_mount.as_deref(),
        &["Default", "Unmasked"],
        &at.key("procMount"),
        notes,
    );
    seccomp(
        context.seccomp_profile.as_ref(),
        &at.key("seccompProfile"),
        notes,
    );
    let unescalated = context.allow_privilege_escalation == Some(false);
    if unescalated && context.privileged == Some(true) {
        notes.error(
            &at.key("allowPrivilegeEscalation"),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        );
    }
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
        .any(|name| name.eq_ignore_ascii_case("SYS_ADMIN") || name.eq_ignore_ascii_case("ALL"));
    if unescalated && admin {
        notes.error(
            &at.key("allowPrivilegeEscalation"),
            "can't be false together with the capability SYS_ADMIN",
        );
    }
}

fn seccomp(profile: Option<&SeccompProfile>, at: &Path, notes: &mut Notes<'_>) {
    let Some(profile) = profile else { return };
    let kind = Some(profile.type_.as_str());
    let path = at.key("localhostProfile");
    if profile.type_.is_empty() {
        notes.error(
            &at.key("type"),
            "type is required when seccompProfile is set",
        );
    }
    one_of(
        kind,
        &["Localhost", "RuntimeDefault", "Unconfined"],
        &at.key("type"),
        notes,
    );
    match (kind, profile.localhost_profile.as_deref()) {
        (Some("Localhost"), None | Some("")) => {
            notes.error(&path, "must be set when seccomp type is Localhost");
        }
        (Some("Localhost"), Some(file)) => notes.name(&path, names::descending(file)),
        (_, Some(_)) => notes.error(&path, "can only be set when seccomp type is Localhost"),
        (_, None) => {}
    }
}

/// Names and repetitions; and none of a namespace that is the machine's. Which ones are namespaced at all, and which are
/// safe, is for the planner to say.
fn sysctls(context: &PodSecurityContext, spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    let mut seen = HashSet::new();
    for (i, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let at = at.item("sysctls", i).key("name");
        let name = names::sysctl(&sysctl.name);
        if sysctl.name.is_empty() {
            notes.error(&at, "a sysctl needs a name");
        } else if !valid_sysctl(&sysctl.name) {
            notes.error(
                &at,
                format!(
                    "{:?} is not the name of a sysctl: must have at most {SYSCTL_CHARS_MAX} characters, lower-case letters, digits, - and _, \
                     in parts joined by . or /",
                    sysctl.name
                ),
            );
        } else if !seen.insert(name.clone()) {
            notes.error(&at, format!("{name:?} is given twice"));
        }
        let forbidden = [
            (spec.host_network, name.starts_with("net."), "hostNetwork"),
            (spec.host_ipc, names::ipc_sysctl(&name), "hostIPC"),
        ];
        for (host, of_it, field) in forbidden {
            if host == Some(true) && of_it {
                notes.error(
                    &at,
                    format!("{name:?} may not be set when {field} is true: it is the machine's"),
                );
            }
        }
    }
}

/// `^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`
fn valid_sysctl(name: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: &u8| edge(b) || matches!(b, b'-' | b'_');
    name.len() <= SYSCTL_CHARS_MAX
        && name.split(['.', '/']).map(str::as_bytes).all(|part| {
            part.first().is_some_and(edge)
                && part.last().is_some_and(edge)
                && part.iter().all(inner)
        })
}
