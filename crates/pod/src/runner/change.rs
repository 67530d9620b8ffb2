//! What an edit changes of a pod that runs, for `--watch`: containers that are restarted, begun or ended, or what only the whole pod can take.

use std::collections::BTreeMap;

use super::machine::Id;
use crate::plan::{ContainerPlan, PodPlan, PortPlan, Role, VolumeKind};

/// See the module's text.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// Of these fields: the pod is ended, and begins as another.
    Whole(Vec<&'static str>),
    /// Only these containers.
    Containers {
        /// The plan with every container that there was at its place, those that are gone as they were, and new ones after them.
        plan: Box<PodPlan>,
        changed: Vec<Id>,
        removed: Vec<Id>,
    },
}

/// What makes `edited` of a pod that runs by `present`, of whose containers some are `gone` already.
pub(super) fn between(present: &PodPlan, gone: impl Fn(Id) -> bool, edited: PodPlan) -> Change {
    let there: Vec<&ContainerPlan> = present
        .containers
        .iter()
        .enumerate()
        .filter(|(id, _)| !gone(*id))
        .map(|(_, container)| container)
        .collect();
    let fields = whole(present, &there, &edited);
    if !fields.is_empty() {
        return Change::Whole(fields);
    }
    let mut plan = edited;
    let mut edited = std::mem::take(&mut plan.containers);
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    for (id, old) in present.containers.iter().enumerate() {
        let new = edited.iter().position(|one| one.name == old.name);
        match new.map(|at| edited.remove(at)) {
            None => {
                if !gone(id) {
                    removed.push(id);
                }
                plan.containers.push(old.clone());
            }
            Some(new) => {
                if gone(id) || new != *old {
                    changed.push(id);
                }
                plan.containers.push(new);
            }
        }
    }
    plan.containers.extend(edited);
    Change::Containers {
        plan: Box::new(plan),
        changed,
        removed,
    }
}

/// The fields that no running pod can take another value of.
fn whole(present: &PodPlan, there: &[&ContainerPlan], edited: &PodPlan) -> Vec<&'static str> {
    let of = |plan: &PodPlan| (plan.host, plan.security.clone(), plan.dns.clone());
    let (present_of, edited_of) = (of(present), of(edited));
    let all: Vec<&ContainerPlan> = edited.containers.iter().collect();
    // A name that comes back in another list is another container.
    let moved = present.containers.iter().any(|old| {
        let again = edited.containers.iter().find(|new| new.name == old.name);
        again.is_some_and(|new| new.role != old.role)
    });
    let fields = [
        ("hostname", present.hostname != edited.hostname),
        ("subdomain", present.subdomain != edited.subdomain),
        (
            "setHostnameAsFQDN",
            present.hostname_as_fqdn != edited.hostname_as_fqdn,
        ),
        (
            "shareProcessNamespace",
            present.share_process_namespace != edited.share_process_namespace,
        ),
        (
            "hostNetwork, hostPID or hostIPC",
            present_of.0 != edited_of.0,
        ),
        ("hostAliases", present.host_aliases != edited.host_aliases),
        ("dnsPolicy or dnsConfig", present_of.2 != edited_of.2),
        ("securityContext", present_of.1 != edited_of.1),
        ("resources", present.resources != edited.resources),
        ("volumes", volumes(present) != volumes(edited)),
        (
            "initContainers",
            moved || init(there) != init(&all) || sidecars_turned(there, &all),
        ),
        ("ports", ports(there) != ports(&all)),
    ];
    let changed = fields.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(field, _)| field).collect()
}

/// By name, without the files of those that are updated in place.
fn volumes(plan: &PodPlan) -> BTreeMap<&str, VolumeKind> {
    let kind = |kind: &VolumeKind| match kind {
        VolumeKind::Files { secret, .. } => VolumeKind::Files {
            files: BTreeMap::new(),
            secret: *secret,
        },
        other => other.clone(),
    };
    let all = plan.volumes.iter();
    all.map(|volume| (volume.name.as_str(), kind(&volume.kind)))
        .collect()
}

/// Those that have run to their end before the others began: what they have done can't be done again beside them.
fn init<'a>(containers: &[&'a ContainerPlan]) -> Vec<&'a ContainerPlan> {
    let all = containers.iter().copied();
    all.filter(|one| one.role == Role::Init).collect()
}

/// Whether sidecars that stay stand in another order: it is that of their ends.
fn sidecars_turned(there: &[&ContainerPlan], edited: &[&ContainerPlan]) -> bool {
    let order = |these: &[&ContainerPlan], those: &[&ContainerPlan]| -> Vec<String> {
        let stays = |one: &&&ContainerPlan| {
            one.role == Role::Sidecar && those.iter().any(|other| other.name == one.name)
        };
        let all = these.iter().filter(stays);
        all.map(|one| one.name.clone()).collect()
    };
    order(there, edited) != order(edited, there)
}

/// They are taken on the machine before the pod begins.
fn ports<'a>(containers: &[&'a ContainerPlan]) -> BTreeMap<&'a str, &'a [PortPlan]> {
    let all = containers.iter().filter(|one| !one.ports.is_empty());
    all.map(|one| (one.name.as_str(), one.ports.as_slice()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::testing::{container, plan};

    fn sidecar(name: &str) -> ContainerPlan {
        ContainerPlan {
            role: Role::Sidecar,
            ..container(name)
        }
    }

    fn init_container(name: &str) -> ContainerPlan {
        ContainerPlan {
            role: Role::Init,
            ..container(name)
        }
    }

    fn with_arg(mut container: ContainerPlan, arg: &str) -> ContainerPlan {
        container.args.push(arg.to_owned());
        container
    }

    fn words(change: Change) -> (Vec<String>, Vec<Id>, Vec<Id>) {
        match change {
            Change::Whole(fields) => panic!("whole: {fields:?}"),
            Change::Containers {
                plan,
                changed,
                removed,
            } => {
                let names = plan.containers.iter().map(|one| one.name.clone());
                (names.collect(), changed, removed)
            }
        }
    }

    fn fields(change: &Change) -> &[&'static str] {
        match change {
            Change::Whole(fields) => fields,
            Change::Containers { .. } => &[],
        }
    }

    #[test]
    fn containers_keep_their_places() {
        let present = plan(vec![sidecar("a"), container("b"), container("c")]);
        let edited = plan(vec![
            sidecar("a"),
            sidecar("new"),
            container("c"),
            with_arg(container("b"), "x"),
        ]);
        let (names, changed, removed) = words(between(&present, |_| false, edited));
        assert_eq!(names, ["a", "b", "c", "new"]);
        assert_eq!((changed, removed), (vec![1], vec![]));
        let edited = plan(vec![container("c")]);
        let (names, changed, removed) = words(between(&present, |_| false, edited));
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!((changed, removed), (vec![], vec![0, 1]));
        // One that comes back is changed, whatever it was.
        let edited = plan(vec![sidecar("a"), container("c")]);
        let (_, changed, removed) = words(between(&present, |id| id < 2, edited));
        assert_eq!((changed, removed), (vec![0], vec![]));
    }

    #[test]
    fn another_file_of_variables_is_a_change_and_what_is_in_it_is_none() {
        use crate::plan::{AtStart, FileKey, ValuePlan};
        let reads = |path: &str| {
            let file = ValuePlan::File(FileKey {
                volume: "v".to_owned(),
                path: path.to_owned(),
                key: "K".to_owned(),
                optional: false,
            });
            let at_start = AtStart {
                env: vec![("K".to_owned(), file)],
                ..AtStart::default()
            };
            let mut made = container("a");
            made.at_start = Some(Box::new(at_start));
            plan(vec![made, container("b")])
        };
        let (_, changed, _) = words(between(&reads("one"), |_| false, reads("one")));
        assert_eq!(changed, [] as [Id; 0]);
        let (_, changed, _) = words(between(&reads("one"), |_| false, reads("two")));
        assert_eq!(changed, [0]);
    }

    #[test]
    fn what_only_the_whole_pod_can_take() {
        let parts = || {
            vec![
                init_container("i"),
                sidecar("s"),
                sidecar("t"),
                container("c"),
            ]
        };
        let present = plan(parts());
        let check = |expected: &[&str], change: &dyn Fn(&mut PodPlan)| {
            let mut edited = plan(parts());
            change(&mut edited);
            assert_eq!(fields(&between(&present, |_| false, edited)), expected);
        };
        check(&[], &|_| {});
        check(&["hostname", "shareProcessNamespace"], &|plan| {
            plan.hostname = "other".to_owned();
            plan.share_process_namespace = true;
        });
        check(&["initContainers"], &|plan| {
            plan.containers[0].args.push("x".to_owned())
        });
        check(&["initContainers"], &|plan| plan.containers.swap(1, 2));
        check(&["initContainers"], &|plan| {
            plan.containers[1].role = Role::Main
        });
        check(&["ports"], &|plan| {
            plan.containers[3].ports.push(PortPlan {
                name: None,
                port: 80,
                host_port: None,
                host_ip: None,
                protocol: crate::plan::Protocol::Tcp,
            });
        });
        check(&["volumes"], &|plan| {
            plan.volumes.push(crate::plan::VolumePlan {
                name: "v".to_owned(),
                kind: VolumeKind::EmptyDir { limit_bytes: None },
            });
        });
        let image = |policy| {
            move |plan: &mut PodPlan| {
                let reference = "r.example/v:1".parse().unwrap();
                plan.volumes.push(crate::plan::VolumePlan {
                    name: "v".to_owned(),
                    kind: VolumeKind::Image {
                        image: "r.example/v:1".to_owned(),
                        location: crate::plan::Location::Registry(reference),
                        pull: policy,
                    },
                });
            }
        };
        check(&["volumes"], &image(crate::plan::PullPolicy::Never));
        check(&[], &|plan| {
            plan.labels.insert("a".to_owned(), "b".to_owned());
            plan.grace = std::time::Duration::from_secs(1);
        });
    }

    #[test]
    fn files_of_a_volume_are_no_change_of_it() {
        let with = |text: &str| {
            let mut made = plan(vec![container("c")]);
            let file = crate::plan::FilePlan {
                bytes: text.into(),
                mode: 0o644,
            };
            made.volumes.push(crate::plan::VolumePlan {
                name: "v".to_owned(),
                kind: VolumeKind::Files {
                    files: BTreeMap::from([("k".to_owned(), file)]),
                    secret: false,
                },
            });
            made
        };
        let (_, changed, removed) = words(between(&with("a"), |_| false, with("b")));
        assert_eq!((changed, removed), (vec![], vec![]));
    }
}
