//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a pod, as the kubelet and containerd write them.

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::plan::{ContainerPlan, PodPlan};
use crate::sandbox::Mount;

/// File name below the directory, and where containers see it.
const FILES: [(&str, &str); 3] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
];
/// What pods with a subdomain are called below.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// The longest host name that Linux takes.
const HOSTNAME_BYTES_MAX: usize = 64;

/// Writes the files into `dir`, which exists. `hostname` is the one of [`hostname`].
pub(super) fn write(
    dir: &Path,
    plan: &PodPlan,
    hostname: &str,
    address: Ipv4Addr,
    resolv_conf: &str,
) -> io::Result<()> {
    let hosts = if plan.host.network {
        machine_hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default())
    } else {
        pod_hosts(plan, address)
    };
    let aliases = aliases(&plan.host_aliases);
    std::fs::write(dir.join("hosts"), hosts + &aliases)?;
    std::fs::write(dir.join("hostname"), format!("{hostname}\n"))?;
    std::fs::write(dir.join("resolv.conf"), resolv_conf)
}

/// What the kernel is told that the pod is called. With `hostNetwork` that is the machine; with `setHostnameAsFQDN` it is the
/// whole name, of at most 64 bytes.
pub(super) fn hostname(plan: &PodPlan) -> Result<String, String> {
    if plan.host.network {
        let node = rustix::system::uname();
        return Ok(node.nodename().to_string_lossy().into_owned());
    }
    let Some(domain) = domain(plan).filter(|_| plan.hostname_as_fqdn) else {
        return Ok(plan.hostname.clone());
    };
    let whole = format!("{}.{domain}", plan.hostname);
    if whole.len() > HOSTNAME_BYTES_MAX {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {whole} is too long \
             ({HOSTNAME_BYTES_MAX} characters is the max, {} characters requested)",
            whole.len()
        ));
    }
    Ok(whole)
}

/// `SUBDOMAIN.NAMESPACE.svc.cluster.local`
fn domain(plan: &PodPlan) -> Option<String> {
    let subdomain = plan.subdomain.as_deref().filter(|name| !name.is_empty())?;
    Some(format!(
        "{subdomain}.{}.svc.{CLUSTER_DOMAIN}",
        plan.namespace
    ))
}

/// (Kubernetes: `kubelet_pods.managedHostsFileContent`)
fn pod_hosts(plan: &PodPlan, address: Ipv4Addr) -> String {
    let hostname = &plan.hostname;
    let names = match domain(plan) {
        Some(domain) => format!("{hostname}.{domain}\t{hostname}"),
        None => hostname.clone(),
    };
    format!(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n\
         {address}\t{names}\n"
    )
}

/// (Kubernetes: `kubelet_pods.nodeHostsFileContent`)
fn machine_hosts(own: &str) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{own}")
}

/// (Kubernetes: `kubelet_pods.hostsEntriesFromHostAliases`)
fn aliases(aliases: &[(IpAddr, Vec<String>)]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = "\n# Entries added by HostAliases.\n".to_owned();
    for (address, names) in aliases {
        // A String takes everything.
        let _written = writeln!(text, "{address}\t{}", names.join("\t"));
    }
    text
}

/// The mounts of the files into a container, but where it mounts a volume of its own.
pub(super) fn mounts(dir: &Path, container: &ContainerPlan) -> Vec<Mount> {
    let own = |target: &str| {
        container
            .mounts
            .iter()
            .any(|mount| mount.path == Path::new(target))
    };
    FILES
        .iter()
        .filter(|(_, target)| !own(target))
        .map(|(name, target)| {
            Mount::path(dir.join(name), *target)
                .read_only(container.security.read_only_root)
                .optional()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::testing::plan;

    #[test]
    fn hosts_are_the_kubelets() {
        let address = Ipv4Addr::new(10, 87, 1, 2);
        let mut pod = plan(vec![]);
        let text = pod_hosts(&pod, address) + &aliases(&[]);
        assert_eq!(
            text,
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
             10.87.1.2\tweb\n"
        );
        pod.subdomain = Some("sub".into());
        pod.host_aliases = vec![
            (
                "192.0.2.1".parse().unwrap(),
                vec!["a".into(), "b.example".into()],
            ),
            ("fd00::1".parse().unwrap(), vec!["c".into()]),
        ];
        let text = pod_hosts(&pod, address) + &aliases(&pod.host_aliases);
        assert!(
            text.ends_with(
                "\n10.87.1.2\tweb.sub.default.svc.cluster.local\tweb\n\n\
                 # Entries added by HostAliases.\n192.0.2.1\ta\tb.example\nfd00::1\tc\n"
            ),
            "{text}"
        );
        assert_eq!(
            machine_hosts("127.0.0.1 me\n"),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n"
        );
    }

    #[test]
    fn the_host_name_is_short_or_whole() {
        let mut pod = plan(vec![]);
        assert_eq!(hostname(&pod).unwrap(), "web");
        pod.hostname_as_fqdn = true;
        assert_eq!(hostname(&pod).unwrap(), "web");
        pod.subdomain = Some("sub".into());
        assert_eq!(hostname(&pod).unwrap(), "web.sub.default.svc.cluster.local");
        pod.subdomain = Some("s".repeat(34));
        assert_eq!(hostname(&pod).unwrap().len(), 64);
        pod.subdomain = Some("s".repeat(35));
        let error = hostname(&pod).unwrap_err();
        assert!(
            error.ends_with("is too long (64 characters is the max, 65 characters requested)"),
            "{error}"
        );
        pod.host.network = true;
        let node = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        assert_eq!(hostname(&pod).unwrap(), node);
    }
}
