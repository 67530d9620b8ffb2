//! What only shows when containers share one network: ports taken twice, and probes of ports that nobody declares.

use std::collections::{HashMap, HashSet};

use podkit_foundation::params::{Addr, ParamType};

use super::{Commands, Subject, module, modules};
use crate::manifest::{Notes, Path};
use crate::plan::{Action, ContainerPlan, Protocol, Role};

/// A port that a container takes on the pod's network.
struct Taken<'a> {
    container: &'a str,
    protocol: Protocol,
    port: u16,
    /// Where it is said, or the container where it is a default.
    at: Path,
    by: By,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// `containerPort`: a declaration, which may be wrong.
    Declaration,
    /// A module's `--admin`, which will be bound.
    Admin,
    /// A module's other addresses.
    Listen,
}

pub(super) fn check(subject: &Subject<'_>, commands: Commands<'_>, notes: &mut Notes<'_>) {
    let mut taken: Vec<Taken<'_>> = Vec::new();
    // Init containers are gone when the others run.
    for (container, at) in subject.containers().filter(|(c, _)| c.role != Role::Init) {
        declared(container, at, &mut taken);
        bound(container, at, commands, &mut taken);
    }
    twice(&taken, notes);
    let tcp = taken.iter().filter(|one| one.protocol == Protocol::Tcp);
    let served: HashSet<u16> = tcp.map(|one| one.port).collect();
    for (container, at) in subject.containers() {
        let probes = [
            ("startupProbe", &container.startup),
            ("readinessProbe", &container.readiness),
            ("livenessProbe", &container.liveness),
        ];
        for (field, probe) in probes {
            let (kind, host, port) = match probe.as_ref().map(|probe| &probe.action) {
                Some(Action::Http { host, port, .. }) => ("httpGet", host.as_ref(), *port),
                Some(Action::Tcp { host, port }) => ("tcpSocket", host.as_ref(), *port),
                Some(Action::Grpc { port, .. }) => ("grpc", None, *port),
                _ => continue,
            };
            if host.is_none() && !served.contains(&port) {
                notes.warning(
                    &at.key(field).key(kind).key("port"),
                    format!("no container declares port {port}"),
                );
            }
        }
    }
}

fn declared<'a>(container: &'a ContainerPlan, at: &Path, taken: &mut Vec<Taken<'a>>) {
    for (i, port) in container.ports.iter().enumerate() {
        taken.push(Taken {
            container: &container.name,
            protocol: port.protocol,
            port: port.port,
            at: at.item("ports", i).key("containerPort"),
            by: By::Declaration,
        });
    }
}

fn bound<'a>(
    container: &'a ContainerPlan,
    at: &Path,
    commands: Commands<'_>,
    taken: &mut Vec<Taken<'a>>,
) {
    let Some(module) = module(container, commands) else {
        return;
    };
    let listens = module.ports.iter().map(|port| (port.param, By::Listen));
    for (param, by) in [("admin", By::Admin)].into_iter().chain(listens) {
        for text in modules::values(module, param, container) {
            if let Some(port) = Addr::parse(&text).ok().and_then(|addr| addr.port()) {
                taken.push(Taken {
                    container: &container.name,
                    protocol: Protocol::Tcp,
                    port,
                    at: at.clone(),
                    by,
                });
            }
        }
    }
}

fn twice(taken: &[Taken<'_>], notes: &mut Notes<'_>) {
    let mut by_port: HashMap<(u16, Protocol), Vec<&Taken<'_>>> = HashMap::new();
    for later in taken {
        let before = by_port.entry((later.port, later.protocol)).or_default();
        judge(before, later, notes);
        before.push(later);
    }
}

/// One more of a port; `before` are those that took it already.
fn judge(before: &[&Taken<'_>], later: &Taken<'_>, notes: &mut Notes<'_>) {
    // A module that serves two things on one port clashes once.
    let again = |one: &Taken<'_>| one.container == later.container && one.by != By::Declaration;
    if later.by != By::Declaration && before.iter().any(|one| again(one)) {
        return;
    }
    // What one container does with its own addresses is its own business; a port that it declares twice is not.
    let earlier = before.iter().find(|one| {
        one.container != later.container || one.by == By::Declaration && later.by == By::Declaration
    });
    let Some(earlier) = earlier else { return };
    let (port, first) = (later.port, earlier.container);
    match (earlier.by, later.by) {
            (By::Admin, By::Admin) => notes.error(
                &later.at,
                format!(
                    "the admin port {port} is that of container {first:?} too, and a pod has one network: set PODKIT_ADMIN to another"
                ),
            ),
            (By::Declaration, _) | (_, By::Declaration) => notes.warning(
                &later.at,
                format!("port {port} is taken by container {first:?} already, and a pod has one network"),
            ),
            _ => notes.error(
                &later.at,
                format!("port {port} is taken by container {first:?} already, and a pod has one network"),
            ),
        }
}
