//! The pod as a whole: names, DNS, host namespaces, groups and sysctls, the secrets of registries.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodSpec;

use super::build::Context;
use super::{DnsPlan, HostNamespaces, PodSecurity};
use crate::manifest::{Notes, Path, ipc_sysctl, sysctl_name};

/// sethostname(2); the kubelet refuses a longer full name, too.
const FQDN_BYTES_MAX: usize = 64;
/// The domain of a cluster when nobody has chosen another.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// Those that a pod may set anywhere: nothing leaves its namespaces, and none can harm others. (Kubernetes: `pkg/kubelet/sysctl/safe_sysctls.go`)
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The host name: at most 63 bytes, not ending in `-` or `.` (kubelet, `truncatePodHostnameIfNeeded`).
pub(super) fn hostname(spec: &PodSpec, name: &str) -> String {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(name) = given(&spec.hostname_override) {
        return name;
    }
    let name = given(&spec.hostname).unwrap_or_else(|| name.to_owned());
    // Names are ASCII (validated), so that any byte is a border.
    let cut = name.get(..63).unwrap_or(&name);
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// `subdomain`, which `hostnameOverride` puts out of force; and whether the full name fits where it is asked for.
pub(super) fn subdomain(
    spec: &PodSpec,
    hostname: &str,
    namespace: &str,
    at: &Path,
    notes: &mut Notes<'_>,
) -> Option<String> {
    let overridden = spec
        .hostname_override
        .as_deref()
        .is_some_and(|n| !n.is_empty());
    let given = spec.subdomain.clone().filter(|name| !name.is_empty());
    let subdomain = given.filter(|_| !overridden)?;
    let full = format!("{hostname}.{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}");
    if spec.set_hostname_as_fqdn == Some(true) && full.len() > FQDN_BYTES_MAX {
        notes.error(
            &at.key("setHostnameAsFQDN"),
            format!(
                "the FQDN {full} is too long ({FQDN_BYTES_MAX} characters is the max, {} characters requested)",
                full.len()
            ),
        );
    }
    Some(subdomain)
}

/// Namespaces of the machine: each is listed, and wants `--allow-privileged`.
pub(super) fn host(
    spec: &PodSpec,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> HostNamespaces {
    let host = HostNamespaces {
        network: spec.host_network == Some(true),
        pid: spec.host_pid == Some(true),
        ipc: spec.host_ipc == Some(true),
    };
    for (given, field, what) in [
        (
            host.network,
            "hostNetwork",
            "uses this machine's network: every service on its loopback is within reach",
        ),
        (
            host.pid,
            "hostPID",
            "sees this machine's processes, and may signal those of its user",
        ),
        (
            host.ipc,
            "hostIPC",
            "shares this machine's System V IPC and message queues",
        ),
    ] {
        if given {
            context.privilege(&at.key(field), what, notes);
        }
    }
    host
}

pub(super) fn host_aliases(spec: &PodSpec) -> Vec<(IpAddr, Vec<String>)> {
    let all = spec.host_aliases.iter().flatten();
    all.filter_map(|alias| {
        let names = alias.hostnames.clone().unwrap_or_default();
        Some((alias.ip.parse().ok()?, names))
    })
    .collect()
}

pub(super) fn dns(spec: &PodSpec) -> DnsPlan {
    let config = spec.dns_config.clone().unwrap_or_default();
    let options = config.options.into_iter().flatten();
    DnsPlan {
        from_machine: spec.dns_policy.as_deref() != Some("None"),
        nameservers: config
            .nameservers
            .iter()
            .flatten()
            .filter_map(|server| server.parse().ok())
            .collect(),
        searches: config.searches.unwrap_or_default(),
        options: options
            .filter_map(|option| Some((option.name?, option.value)))
            .collect(),
    }
}

pub(super) fn active_deadline(spec: &PodSpec) -> Option<Duration> {
    let seconds = spec.active_deadline_seconds?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// The pod's `securityContext`, as far as no container overrides it.
pub(super) fn security(
    spec: &PodSpec,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> PodSecurity {
    let Some(given) = &spec.security_context else {
        return PodSecurity::default();
    };
    let id = |id: i64| u32::try_from(id).ok();
    let at = at.key("securityContext");
    let mut sysctls = Vec::new();
    for (i, sysctl) in given.sysctls.iter().flatten().enumerate() {
        let at = at.item("sysctls", i);
        let name = sysctl_name(&sysctl.name);
        if !(name.starts_with("net.") || ipc_sysctl(&name) || SAFE_SYSCTLS.contains(&&*name)) {
            notes.error(
                &at.key("name"),
                format!("refused: {name:?} is not namespaced: it would change the whole machine"),
            );
            continue;
        }
        if sysctl.value.contains(['\n', '\0']) {
            notes.error(
                &at.key("value"),
                "a line feed or a NUL byte can't be in a sysctl",
            );
            continue;
        }
        if !SAFE_SYSCTLS.contains(&&*name) {
            let what = format!("sets {name}, which is not one of the kubelet's safe sysctls");
            context.privilege(&at, &what, notes);
        }
        sysctls.push((name, sysctl.value.clone()));
    }
    PodSecurity {
        fs_group: given.fs_group.and_then(id),
        fs_group_on_root_mismatch: given.fs_group_change_policy.as_deref()
            == Some("OnRootMismatch"),
        supplemental_groups: given
            .supplemental_groups
            .iter()
            .flatten()
            .filter_map(|group| id(*group))
            .collect(),
        groups_strict: given.supplemental_groups_policy.as_deref() == Some("Strict"),
        sysctls,
    }
}

/// The credentials of `imagePullSecrets`. One that is missing is no error: the image may be had without. (Kubernetes:
/// the event `FailedToRetrieveImagePullSecret`)
pub(super) fn pull_secrets(
    spec: &PodSpec,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Vec<Vec<u8>> {
    const KEYS: [&str; 2] = [".dockerconfigjson", ".dockercfg"];
    let mut all = Vec::new();
    for (i, reference) in spec.image_pull_secrets.iter().flatten().enumerate() {
        let at = at.item("imagePullSecrets", i);
        let name = &reference.name;
        let mut data = context.secret(name, true, &at, notes);
        let found = data
            .as_mut()
            .and_then(|data| KEYS.iter().find_map(|key| data.remove(*key)));
        match (found, data) {
            (Some(bytes), _) => match serde_json::from_slice::<serde_json::Value>(&bytes) {
                Ok(serde_json::Value::Object(_)) => all.push(bytes),
                _ => notes.warning(
                    &at,
                    format!("the Secret {name:?} is not a Docker configuration in JSON; pulling the image may not succeed"),
                ),
            },
            (None, Some(_)) => notes.warning(
                &at,
                format!(
                    "the Secret {name:?} has neither .dockerconfigjson nor .dockercfg; pulling the image may not succeed"
                ),
            ),
            (None, None) => notes.warning(
                &at,
                format!("there is no Secret {name:?} in the files; pulling the image may not succeed"),
            ),
        }
    }
    all
}
