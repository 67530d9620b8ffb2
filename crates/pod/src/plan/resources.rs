//! `resources` and `securityContext` of a container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSecurityContext};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{Resources, Security};
use crate::manifest::{Notes, Path, Quantity};

/// Limits, and requests that default to them. The quantities were validated.
pub(super) fn resources(container: &Container) -> Resources {
    let amount = |of: Option<&BTreeMap<String, ApiQuantity>>, name: &str| {
        let text = of?.get(name)?;
        text.0.parse::<Quantity>().ok()
    };
    let milli = |q: Quantity| u64::try_from(q.milli()).ok();
    let bytes = |q: Quantity| u64::try_from(q.value()).ok();
    let given = container.resources.as_ref();
    let limits = given.and_then(|r| r.limits.as_ref());
    let requests = given.and_then(|r| r.requests.as_ref());
    // A limit of 0 is none.
    let cpu_limit_milli = amount(limits, "cpu").and_then(milli).filter(|n| *n > 0);
    let memory_limit_bytes = amount(limits, "memory").and_then(bytes).filter(|n| *n > 0);
    Resources {
        cpu_limit_milli,
        memory_limit_bytes,
        cpu_request_milli: amount(requests, "cpu").and_then(milli).or(cpu_limit_milli),
        memory_request_bytes: amount(requests, "memory")
            .and_then(bytes)
            .or(memory_limit_bytes),
        ..Resources::default()
    }
}

/// The container's context over the pod's.
pub(super) fn security(
    pod: Option<&PodSecurityContext>,
    container: &Container,
    at: &Path,
    notes: &mut Notes<'_>,
) -> Security {
    let own = container.security_context.as_ref();
    let id = |id: i64| u32::try_from(id).ok();
    let uid = own
        .and_then(|c| c.run_as_user)
        .or(pod.and_then(|p| p.run_as_user));
    let gid = own
        .and_then(|c| c.run_as_group)
        .or(pod.and_then(|p| p.run_as_group));
    let own_rule = own.and_then(|c| c.run_as_non_root);
    if own_rule.or(pod.and_then(|p| p.run_as_non_root)) == Some(true) {
        // The pod's rule is blamed on the container that breaks it.
        let path = match own_rule {
            Some(_) => at.key("securityContext").key("runAsNonRoot"),
            None => at.clone(),
        };
        match uid {
            Some(0) => notes.error(&path, "runAsNonRoot is true, and runAsUser is 0: root"),
            None => notes.error(
                &path,
                "runAsNonRoot is true, but no runAsUser says which user: it would be root",
            ),
            Some(_) => {}
        }
    }
    let capabilities = own.and_then(|c| c.capabilities.as_ref());
    let list = |names: Option<&Vec<String>>| names.cloned().unwrap_or_default();
    Security {
        uid: uid.and_then(id),
        gid: gid.and_then(id),
        read_only_root: own.and_then(|c| c.read_only_root_filesystem) == Some(true),
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        add_capabilities: list(capabilities.and_then(|c| c.add.as_ref())),
        drop_capabilities: list(capabilities.and_then(|c| c.drop.as_ref())),
        ..Security::default()
    }
}
