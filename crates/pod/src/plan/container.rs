//! One container: its program, variables, mounts, probes and limits.

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::at_start::{self, AtStart, SubPathError};
use super::build::{Context, policy};
use super::env::Environment;
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
    let environment = env::variables(container, at, context, notes);
    let expanded = |texts: Option<&Vec<String>>| -> Vec<String> {
        let texts = texts.into_iter().flatten();
        texts.map(|text| environment.known.expanded(text)).collect()
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
    let mounts = mounts(container, &environment, at, notes);
    let at_start = environment
        .reads_files()
        .then(|| Box::new(as_written(container, &environment)));
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
        env: environment.known.into_list(),
        at_start,
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
    let rules = rules.filter_map(|rule| Some((&rule.action, rule.exit_codes.as_ref()?)));
    rules
        .map(|(action, codes)| RestartRule {
            all: action == "RestartAllContainers",
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

/// The parts that are made whole at the start.
fn as_written(container: &Container, environment: &Environment) -> AtStart {
    let mounts = container.volume_mounts.iter().flatten().enumerate();
    let exprs = mounts.filter_map(|(i, mount)| Some((i, expr(mount)?.to_owned())));
    AtStart {
        env: environment.sources.clone(),
        command: container.command.clone().unwrap_or_default(),
        args: container.args.clone().unwrap_or_default(),
        sub_paths: exprs.collect(),
    }
}

fn mounts(
    container: &Container,
    environment: &Environment,
    at: &Path,
    notes: &mut Notes<'_>,
) -> Vec<MountPlan> {
    let mounts = container.volume_mounts.iter().flatten().enumerate();
    let mut mount = |(i, mount): (usize, &VolumeMount)| {
        let at = at.item("volumeMounts", i).key("subPathExpr");
        MountPlan {
            sub_path: sub_path(mount, environment, &at, notes),
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

/// `subPathExpr`, when there is one.
fn expr(mount: &VolumeMount) -> Option<&str> {
    mount.sub_path_expr.as_deref().filter(|e| !e.is_empty())
}

/// `subPath`, or `subPathExpr` as far as it is known: that of a container whose variables come out of files is made at the start,
/// and only its names are looked at before.
fn sub_path(
    mount: &VolumeMount,
    environment: &Environment,
    at: &Path,
    notes: &mut Notes<'_>,
) -> Option<String> {
    let plain = mount.sub_path.clone().filter(|path| !path.is_empty());
    let Some(expr) = expr(mount) else {
        return plain;
    };
    match at_start::sub_path(expr, &environment.known) {
        Ok(path) => Some(path).filter(|path| !path.is_empty()),
        Err(SubPathError::Missing(name)) if environment.has(&name) => None,
        Err(SubPathError::Leaves(_)) if environment.reads_files() => None,
        Err(error) => {
            notes.error(at, error.to_string());
            None
        }
    }
}
