//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a pod, as the kubelet and container runtimes write them.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::plan::ContainerPlan;
use crate::sandbox::Mount;

/// File name below the directory, and where containers see it.
const FILES: [(&str, &str); 3] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
];

/// A pod reaches nothing but itself, so that any name server would only be waited for. Without one the C libraries ask
/// 127.0.0.1, where nothing answers, and fail at once.
const RESOLV_CONF: &str = "\
# Managed by podkit. A pod has no way out of the machine, so there is no name server.
options ndots:5
";

/// Writes the files into `dir`, which exists.
pub(super) fn write(dir: &Path, hostname: &str, address: Ipv4Addr) -> io::Result<()> {
    std::fs::write(dir.join("hosts"), hosts(hostname, address))?;
    std::fs::write(dir.join("hostname"), format!("{hostname}\n"))?;
    std::fs::write(dir.join("resolv.conf"), RESOLV_CONF)
}

/// (Kubernetes: `kubelet_pods.managedHostsFileContent`)
fn hosts(hostname: &str, address: Ipv4Addr) -> String {
    format!(
        "# Managed by podkit.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         fe00::\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n\
         {address}\t{hostname}\n"
    )
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

    #[test]
    fn the_pod_knows_itself_by_its_address() {
        let hosts = hosts("web", Ipv4Addr::new(10, 87, 1, 2));
        assert!(hosts.starts_with("# Managed by podkit.\n127.0.0.1\tlocalhost\n"));
        assert!(hosts.ends_with("\n10.87.1.2\tweb\n"));
    }
}
