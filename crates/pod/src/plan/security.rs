//! `securityContext` of a container over the pod's.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, SeccompProfile};

use super::build::Context;
use super::{ImageSource, Seccomp, Security};
use crate::manifest::{Notes, Path};

/// What holds for the container. `source`, when it is known, tells whether only the image knows the user.
pub(super) fn security(
    pod: Option<&PodSecurityContext>,
    container: &Container,
    source: Option<&ImageSource>,
    at: &Path,
    context: &Context<'_>,
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
    let non_root = own_rule.or(pod.and_then(|p| p.run_as_non_root)) == Some(true);
    if non_root {
        // The pod's rule is blamed on the container that breaks it.
        let path = match own_rule {
            Some(_) => at.key("securityContext").key("runAsNonRoot"),
            None => at.clone(),
        };
        match (uid, source) {
            (Some(0), _) => notes.error(&path, "runAsNonRoot is true, and runAsUser is 0: root"),
            // These have no user of their own; an image is asked when it is there.
            (None, Some(ImageSource::Itself | ImageSource::Host | ImageSource::Rootfs(_))) => notes
                .error(
                    &path,
                    "runAsNonRoot is true, but no runAsUser says which user: it would be root",
                ),
            _ => {}
        }
    }
    let at = at.key("securityContext");
    let privileged = own.and_then(|c| c.privileged) == Some(true);
    if privileged {
        let what = "has all capabilities and devices of this machine";
        context.privilege(&at.key("privileged"), what, notes);
    }
    let unmasked_proc = own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked");
    if unmasked_proc && !privileged {
        let what = "sees and writes those parts of /proc that are hidden from containers";
        context.privilege(&at.key("procMount"), what, notes);
    }
    let profile = own
        .and_then(|c| c.seccomp_profile.as_ref())
        .or(pod.and_then(|p| p.seccomp_profile.as_ref()));
    let capabilities = own.and_then(|c| c.capabilities.as_ref());
    let list = |names: Option<&Vec<String>>| -> Vec<String> {
        let names = names.into_iter().flatten();
        names.map(|name| name.to_uppercase()).collect()
    };
    Security {
        uid: uid.and_then(id),
        gid: gid.and_then(id),
        read_only_root: own.and_then(|c| c.read_only_root_filesystem) == Some(true),
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        add_capabilities: list(capabilities.and_then(|c| c.add.as_ref())),
        drop_capabilities: list(capabilities.and_then(|c| c.drop.as_ref())),
        non_root,
        privileged,
        unmasked_proc,
        // A privileged container has none, whatever it asks for. (containerd: `generateSeccompSpecOpts`)
        seccomp: profile
            .filter(|_| !privileged)
            .map_or(Seccomp::default(), seccomp),
    }
}

fn seccomp(profile: &SeccompProfile) -> Seccomp {
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", _) => Seccomp::RuntimeDefault,
        ("Localhost", Some(file)) => Seccomp::Localhost(file.into()),
        _ => Seccomp::Unconfined,
    }
}
