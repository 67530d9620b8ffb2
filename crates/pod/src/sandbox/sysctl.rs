//! `sysctls`: kernel parameters of the pod's own namespaces, as opposed to the machine's.

use super::error::SandboxError;
use super::spec::SandboxSpec;
use super::user_namespace::Ids;

/// What containerd gives a network of its own, so that another user than root may listen on port 80 and ping, as on a node
/// (`enable_unprivileged_ports`, `enable_unprivileged_icmp`). The kernel takes no group that the user namespace lacks.
fn of_containerd(ids: &Ids) -> [(String, String); 2] {
    let last = ids.last_group().min(2_147_483_647);
    [
        (
            "net.ipv4.ip_unprivileged_port_start".to_owned(),
            "0".to_owned(),
        ),
        ("net.ipv4.ping_group_range".to_owned(), format!("0 {last}")),
    ]
}

/// What is to be set, in order: by name, or an error for what is not the pod's own.
pub(super) fn of_pod(spec: &SandboxSpec, ids: &Ids) -> Result<Vec<(String, String)>, SandboxError> {
    let mut all = Vec::new();
    if !spec.host.network {
        all.extend(of_containerd(ids));
    }
    for (name, value) in &spec.sysctls {
        let own = match namespace(name) {
            Some(Namespace::Network) => !spec.host.network,
            Some(Namespace::Ipc) => !spec.host.ipc,
            None => false,
        };
        if !own {
            return Err(SandboxError::Sysctl(name.clone()));
        }
        all.push((name.clone(), value.clone()));
    }
    Ok(all)
}

enum Namespace {
    Network,
    Ipc,
}

/// Whose parameter it is; none: the machine's, or no name at all.
fn namespace(name: &str) -> Option<Namespace> {
    let path = path(name);
    if path.split('/').any(|part| ["", ".", ".."].contains(&part)) {
        return None;
    }
    let (top, rest) = path.split_once('/')?;
    let ipc = match top {
        "net" => return Some(Namespace::Network),
        "fs" => rest.starts_with("mqueue/"),
        "kernel" => rest.starts_with("shm") || rest.starts_with("msg") || rest == "sem",
        _ => false,
    };
    ipc.then_some(Namespace::Ipc)
}

/// Its path below `/proc/sys`: `net.ipv4.conf.eth0/100.rp_filter` or `net/ipv4/conf/eth0.100/rp_filter`; whichever of the two
/// signs comes first separates. (sysctl.d(5))
pub(super) fn path(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'.') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}
