//! hostPath: what a mount gives away. Read access is a risk that is listed; write access to what would own the machine
//! wants `--allow-privileged`.

use std::path::{Component, Path as FilePath, PathBuf};

use k8s_openapi::api::core::v1::Container;

use super::build::Context;
use crate::manifest::{Notes, Path};

/// Whoever writes here, or anywhere below, is root on the machine sooner or later.
const OWNED_BELOW: &[&str] = &[
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/boot",
    "/root",
    "/dev",
    "/proc",
    "/sys",
    // State and sockets of engines and of the system.
    "/run/containerd",
    "/run/crio",
    "/run/dbus",
    "/run/docker",
    "/run/docker.sock",
    "/run/podkit",
    "/run/podman",
    "/run/systemd",
    "/run/udev",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/dpkg",
    "/var/lib/kubelet",
    "/var/lib/podkit",
    "/var/lib/systemd",
    "/var/spool/cron",
];
/// Whoever writes to these themselves (what is below belongs to applications).
const OWNED: &[&str] = &["/run", "/var/lib", "/var/spool", "/home"];
/// Sockets that own the machine whether they are mounted read-only or not: connecting is no write.
const ENGINES: &[&str] = &[
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
];

/// Looks at the host paths that a container mounts.
pub(super) fn check_mounts(
    container: &Container,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) {
    let volumes = context.spec.volumes.as_deref().unwrap_or_default();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        let Some(host) = volume.and_then(|volume| volume.host_path.as_ref()) else {
            continue;
        };
        let path = FilePath::new(&host.path);
        let path = match mount.sub_path.as_deref() {
            Some(sub_path) if !sub_path.is_empty() => path.join(sub_path),
            _ => path.to_owned(),
        };
        let at = at.item("volumeMounts", i);
        let read_only = mount.read_only == Some(true);
        let owns = match owning(&path) {
            Some(Owning::Engine) => Some("whoever reaches this socket owns the machine"),
            Some(Owning::Write) if !read_only => Some("whoever writes there owns the machine"),
            _ => None,
        };
        match owns {
            Some(why) if !context.options.allow_privileged => notes.error(
                &at,
                format!(
                    "{} of this machine{}: {why}; --allow-privileged permits it",
                    path.display(),
                    if read_only { "" } else { ", writable" }
                ),
            ),
            Some(why) => notes.risk(&at, format!("{} of this machine: {why}", path.display())),
            None => {
                let access = if read_only {
                    "reads"
                } else {
                    "reads and writes"
                };
                notes.risk(&at, format!("{access} {} of this machine", path.display()));
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owning {
    /// By writing.
    Write,
    /// By connecting.
    Engine,
}

/// Whether a path of the machine, or what it leads to, would own it.
pub(super) fn owning(path: &FilePath) -> Option<Owning> {
    let plain = normal(path);
    // Links lead elsewhere: /var/run to /run, and /srv/x to /etc.
    let real = path.canonicalize().map(|real| normal(&real)).ok();
    [Some(plain), real]
        .into_iter()
        .flatten()
        .filter_map(|path| judge(&path))
        .max_by_key(|owning| *owning == Owning::Engine)
}

fn judge(path: &FilePath) -> Option<Owning> {
    if ENGINES.iter().any(|socket| path == FilePath::new(socket)) {
        return Some(Owning::Engine);
    }
    let mut all = OWNED_BELOW.iter().chain(OWNED).map(FilePath::new);
    // Anything that contains one of them has it too; / has all.
    let contains = all.any(|owned| owned.starts_with(path));
    let below = OWNED_BELOW.iter().any(|owned| path.starts_with(owned));
    let top = path.components().nth(1);
    // /lib, /lib64, /lib32, /libexec
    let lib = top.is_some_and(|top| top.as_os_str().as_encoded_bytes().starts_with(b"lib"));
    (contains || below || lib).then_some(Owning::Write)
}

/// Without `.`, doubled slashes, and with `/var/run` as `/run`, which it is on every Linux of this decade.
fn normal(path: &FilePath) -> PathBuf {
    let path: PathBuf = path
        .components()
        .filter(|component| !matches!(component, Component::CurDir))
        .collect();
    match path.strip_prefix("/var/run") {
        Ok(rest) if rest.as_os_str().is_empty() => PathBuf::from("/run"),
        Ok(rest) => FilePath::new("/run").join(rest),
        Err(_) => path,
    }
}
