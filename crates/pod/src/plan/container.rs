//! One container: its program, variables, mounts, probes and limits.

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::build::{Context, policy};
use super::env::Variables;
use super::expand::expand;
use super::{
    ContainerPlan, MESSAGE_PATH, MountPlan, Propagation, PullPolicy, RestartRule, Role, StdinPlan,
    env, images, probes, resources, security, stop_signal,
};
use crate::image::{DEFAULT_TAG, Reference};
use crate::manifest::{Notes, Path};

/// A container; `None` when its image can't be made out (noted).
pub(super) fn container(
    container: &Container,
    role: Role,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Option<ContainerPlan> {
    let source = images::source(container, at, context, notes);
    let variables = env::variables(container, at, context, notes);
    let expanded = |texts: Option<&Vec<String>>| -> Vec<String> {
        let texts = texts.into_iter().flatten();
        texts
            .map(|text| expand(text, |name| variables.get(name)))
            .collect()
    };
    let (command, args) = (
        expanded(container.command.as_ref()),
        expanded(container.args.as_ref()),
    );
    let ports = probes::ports(container);
    let mut probe =
        |field: &'static str, probe| probes::probe(probe, &ports, &at.key(field), notes);
    let startup = probe("startupProbe", container.startup_probe.as_ref());
    let readiness = probe("readinessProbe", container.readiness_probe.as_ref());
    let liveness = probe("livenessProbe", container.liveness_probe.as_ref());
    let lifecycle = container.lifecycle.as_ref();
    let hooks = at.key("lifecycle");
    let mut hook = |field: &'static str, hook| probes::hook(hook, &ports, &hooks.key(field), notes);
    let post_start = hook("postStart", lifecycle.and_then(|l| l.post_start.as_ref()));
    let pre_stop = hook("preStop", lifecycle.and_then(|l| l.pre_stop.as_ref()));
    let of_pod = context.spec.security_context.as_ref();
    let security = security::security(of_pod, container, source.as_ref(), at, context, notes);
    let mounts = mounts(container, &variables, at, notes);
    let source = source?;
    images::check_entrypoint(&source, container, at, notes);
    let image = container.image.clone().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Some(ContainerPlan {
        role,
        pull: pull(container.image_pull_policy.as_deref(), &image),
        image,
        command,
        args,
        working_dir: text(&container.working_dir).map(Into::into),
        env: variables.into_list(),
        mounts,
        ports,
        resources: resources::resources(container.resources.as_ref()),
        startup,
        readiness,
        liveness,
        post_start,
        pre_stop,
        stop_signal: lifecycle
            .and_then(|l| l.stop_signal.as_deref())
            .and_then(stop_signal),
        message_path: text(&container.termination_message_path)
            .map_or_else(|| MESSAGE_PATH.into(), Into::into),
        message_from_logs: container.termination_message_policy.as_deref()
            == Some("FallbackToLogsOnError"),
        stdin: StdinPlan {
            open: container.stdin == Some(true),
            once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
        },
        security,
        restart: match role {
            Role::Sidecar => None,
            _ => policy(container.restart_policy.as_deref()),
        },
        restart_rules: restart_rules(container),
        ..ContainerPlan::new(&container.name, source)
    })
}

/// `imagePullPolicy`, or what the API server makes of the image's tag.
pub(super) fn pull(given: Option<&str>, image: &str) -> PullPolicy {
    let floating = |image: Reference| {
        image.digest().is_none() && matches!(image.tag(), None | Some(DEFAULT_TAG))
    };
    match given {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ if image.parse().is_ok_and(floating) => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
    }
}

fn restart_rules(container: &Container) -> Vec<RestartRule> {
    let rules = container.restart_policy_rules.iter().flatten();
    let rules = rules.filter_map(|rule| rule.exit_codes.as_ref());
    rules
        .map(|codes| RestartRule {
            not_in: codes.operator == "NotIn",
            codes: codes
                .values
                .iter()
                .flatten()
                .filter_map(|code| u8::try_from(*code).ok())
                .collect(),
        })
        .collect()
}

fn mounts(
    container: &Container,
    variables: &Variables,
    at: &Path,
    notes: &mut Notes<'_>,
) -> Vec<MountPlan> {
    let mounts = container.volume_mounts.iter().flatten().enumerate();
    let mut mount = |(i, mount): (usize, &VolumeMount)| {
        let at = at.item("volumeMounts", i).key("subPathExpr");
        MountPlan {
            sub_path: sub_path(mount, variables, &at, notes),
            read_only: mount.read_only == Some(true),
            recursive_read_only: matches!(
                mount.recursive_read_only.as_deref(),
                Some("IfPossible" | "Enabled")
            ),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::None,
            },
            ..MountPlan::new(&mount.name, &mount.mount_path)
        }
    };
    mounts.map(&mut mount).collect()
}

/// `subPath`, or `subPathExpr` with the container's variables, each of which has to be there. (Kubernetes:
/// `ExpandContainerVolumeMounts`)
fn sub_path(
    mount: &VolumeMount,
    variables: &Variables,
    at: &Path,
    notes: &mut Notes<'_>,
) -> Option<String> {
    let plain = mount.sub_path.clone().filter(|path| !path.is_empty());
    let Some(expr) = mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) else {
        return plain;
    };
    let missing = std::cell::RefCell::new(None);
    let path = expand(expr, |name| {
        let value = variables.get(name);
        if value.is_none() {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
        }
        value
    });
    if let Some(name) = missing.into_inner() {
        notes.error(
            at,
            format!("missing value for {name:?}: no variable of the container has this name"),
        );
    } else if let Some(wrong) = crate::manifest::descending(&path) {
        notes.error(at, wrong);
    }
    Some(path).filter(|path| !path.is_empty())
}
