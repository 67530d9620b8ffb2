//! What a pod asks for that its user can't give it: ids that don't exist in the user namespace are an error before anything is
//! started, rights over the machine a warning. Root lacks nothing of it.

use podkit_foundation::error::Failure;

use crate::plan::{ImageSource, PodPlan};
use crate::sandbox::{Ids, in_user_namespace};

/// Capabilities that mean something over the whole machine only. (capabilities(7); `capable` in the kernel, not `ns_capable`)
const MACHINES: [&str; 19] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "BLOCK_SUSPEND",
    "BPF",
    "IPC_LOCK",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "PERFMON",
    "SYSLOG",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_RAWIO",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Those over a network namespace, which with hostNetwork is the machine's. (capabilities(7))
const NETWORKS: [&str; 4] = ["NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW"];

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
pub(super) fn warnings(plan: &PodPlan, ids: &Ids) -> Vec<String> {
    match in_user_namespace() {
        true => lost(plan, ids),
        false => Vec::new(),
    }
}

fn lost(plan: &PodPlan, ids: &Ids) -> Vec<String> {
    let mut lines = Vec::new();
    let images = plan.containers.iter().map(|container| &container.source);
    let unpacked = images
        .filter(|source| matches!(source, ImageSource::Image(_)))
        .count();
    if unpacked > 0 && ids.one_user() {
        lines.push(format!(
            "all files of images belong to user 0: {}",
            ids.why()
        ));
    }
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
            .filter(|name| MACHINES.contains(name) || plan.host.network && NETWORKS.contains(name))
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
    use crate::image::Location;
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
    fn one_user_has_the_files_of_all() {
        let mut app = container("app");
        app.source = ImageSource::Image(Location::Registry("app:1".parse().unwrap()));
        let pod = plan(vec![app, container("plain")]);
        let one = Ids::of("0 1000 1", "0 1000 1", false);
        assert_eq!(
            lost(&pod, &one),
            ["all files of images belong to user 0: for a reason"]
        );
        assert!(lost(&plan(vec![container("plain")]), &one).is_empty());
        let many = Ids::of("0 1000 1\n1 100000 65536", "0 1000 1\n1 100000 65536", true);
        assert!(lost(&pod, &many).is_empty());
    }

    #[test]
    fn what_is_lost_is_said_once_for_each_container() {
        let mut app = container("app");
        app.security.add_capabilities = ["SYS_TIME", "NET_ADMIN", "SYS_BOOT"]
            .map(str::to_owned)
            .into();
        let mut all = container("all");
        all.security.privileged = true;
        let many = Ids::of("0 1000 1\n1 100000 65536", "0 1000 1\n1 100000 65536", true);
        let mut pod = plan(vec![app, all, container("plain")]);
        assert_eq!(
            lost(&pod, &many),
            [
                "securityContext.capabilities.add of container app: without root SYS_TIME, SYS_BOOT has no effect",
                "securityContext.privileged of container all: without root it owns nothing of the machine",
            ]
        );
        // The machine's network is not the pod's own.
        pod.host.network = true;
        assert_eq!(
            lost(&pod, &many)[0],
            "securityContext.capabilities.add of container app: without root SYS_TIME, NET_ADMIN, SYS_BOOT has no effect"
        );
    }
}
