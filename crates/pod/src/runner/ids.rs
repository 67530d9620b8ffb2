//! What a pod asks for that its user can't give it: ids that don't exist in the user namespace are an error before anything is
//! started, rights over the machine a warning. Root lacks nothing of it.

use podkit_foundation::error::Failure;

use crate::plan::PodPlan;
use crate::sandbox::{Ids, in_user_namespace};

/// Capabilities that mean something over the whole machine only. (capabilities(7); `capable` in the kernel, not `ns_capable`)
const MACHINES: [&str; 14] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "BLOCK_SUSPEND",
    "IPC_LOCK",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "SYSLOG",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_PACCT",
    "SYS_RAWIO",
    "SYS_TIME",
    "WAKE_ALARM",
];

/// An error with a line for each field whose id does not exist.
pub(super) fn check(plan: &PodPlan, ids: &Ids) -> Result<(), Failure> {
    let mut lines = Vec::new();
    let mut want = |there: bool, field: &str, of: &str, id: u32| {
        if !there {
            lines.push(format!("{field} of {of}: {id}: {}", ids.why()));
        }
    };
    let pod = format!("pod {}", plan.name);
    let groups = plan.security.supplemental_groups.iter();
    for (field, gid) in groups
        .map(|gid| ("securityContext.supplementalGroups", *gid))
        .chain(
            plan.security
                .fs_group
                .map(|gid| ("securityContext.fsGroup", gid)),
        )
    {
        want(ids.has_group(gid), field, &pod, gid);
    }
    for container in &plan.containers {
        let of = format!("container {}", container.name);
        let security = &container.security;
        if let Some(uid) = security.uid {
            want(ids.has_user(uid), "securityContext.runAsUser", &of, uid);
        }
        if let Some(gid) = security.gid {
            want(ids.has_group(gid), "securityContext.runAsGroup", &of, gid);
        }
    }
    match lines.is_empty() {
        true => Ok(()),
        false => Err(Failure::Runtime(lines.join("\n"))),
    }
}

/// What is asked for and means less without root, a line each.
pub(super) fn warnings(plan: &PodPlan) -> Vec<String> {
    match in_user_namespace() {
        true => lost(plan),
        false => Vec::new(),
    }
}

fn lost(plan: &PodPlan) -> Vec<String> {
    let mut lines = Vec::new();
    for container in &plan.containers {
        let (name, security) = (&container.name, &container.security);
        if security.privileged {
            lines.push(format!(
                "securityContext.privileged of container {name}: without root it owns nothing of the machine"
            ));
            continue;
        }
        let names = security.add_capabilities.iter();
        let names: Vec<&str> = names
            .map(String::as_str)
            .filter(|name| MACHINES.contains(name))
            .collect();
        if !names.is_empty() {
            lines.push(format!(
                "securityContext.capabilities.add of container {name}: without root {} has no effect",
                names.join(", ")
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::testing::{container, plan};

    #[test]
    fn ids_that_do_not_exist_are_named() {
        let mut app = container("app");
        app.security.uid = Some(1000);
        app.security.gid = Some(0);
        let mut pod = plan(vec![app, container("other")]);
        pod.security.fs_group = Some(7);
        pod.security.supplemental_groups = vec![0];
        let one = Ids::of("0 1000 1", "0 1000 1", false);
        let refused = check(&pod, &one).unwrap_err().to_string();
        assert_eq!(
            refused,
            "securityContext.fsGroup of pod web: 7: for a reason\n\
             securityContext.runAsUser of container app: 1000: for a reason"
        );
        let many = Ids::of("0 1000 1\n1 100000 65536", "0 1000 1\n1 100000 65536", true);
        assert!(check(&pod, &many).is_ok());
    }

    #[test]
    fn what_is_lost_is_said_once_for_each_container() {
        let mut app = container("app");
        app.security.add_capabilities = ["SYS_TIME", "NET_ADMIN", "SYS_BOOT"]
            .map(str::to_owned)
            .into();
        let mut all = container("all");
        all.security.privileged = true;
        assert_eq!(
            lost(&plan(vec![app, all, container("plain")])),
            [
                "securityContext.capabilities.add of container app: without root SYS_TIME, SYS_BOOT has no effect",
                "securityContext.privileged of container all: without root it owns nothing of the machine",
            ]
        );
    }
}
