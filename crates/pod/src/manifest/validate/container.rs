//! Containers.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, PodSpec, ResourceRequirements, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{Notes, all_containers, env, one_of, probe, security, unique, within};
use crate::manifest::names;
use crate::manifest::node::Path;
use crate::manifest::quantity::Quantity;

/// The API's bounds for `restartPolicyRules`.
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

pub(super) fn container(
    container: &Container,
    spec: &PodSpec,
    init: bool,
    at: &Path,
    notes: &mut Notes<'_>,
) {
    if container.name.is_empty() {
        notes.error(&at.key("name"), "a container needs a name");
    } else {
        notes.name(&at.key("name"), names::dns_label(&container.name));
    }
    let missing = "a container needs an image";
    image(container.image.as_deref(), missing, &at.key("image"), notes);
    let policy = container.image_pull_policy.as_deref();
    pull_policy(policy, &at.key("imagePullPolicy"), notes);
    role(container, init, at, notes);
    if let Some(dir) = container
        .working_dir
        .as_deref()
        .filter(|dir| !dir.is_empty())
        && !dir.starts_with('/')
    {
        notes.error(&at.key("workingDir"), format!("{dir:?} has to be absolute"));
    }
    texts(container, at, notes);
    ports(container.ports.as_deref().unwrap_or_default(), at, notes);
    env::variables(container, spec, at, notes);
    if let Some(resources) = &container.resources {
        requirements(resources, &at.key("resources"), notes);
    }
    message(container, at, notes);
    mounts(container, spec, at, notes);
    probe::probes(container, at, notes);
    if let Some(lifecycle) = &container.lifecycle {
        probe::lifecycle(lifecycle, spec, &at.key("lifecycle"), notes);
    }
    if let Some(context) = &container.security_context {
        security::container(context, &at.key("securityContext"), notes);
    }
}

/// The name of an image, which has to be there.
pub(super) fn image(given: Option<&str>, missing: &str, at: &Path, notes: &mut Notes<'_>) {
    match given {
        None | Some("") => notes.error(at, missing),
        Some(image) if image.trim() != image => notes.error(at, "space around the image"),
        Some(_) => {}
    }
}

pub(super) fn pull_policy(given: Option<&str>, at: &Path, notes: &mut Notes<'_>) {
    one_of(given, &["Always", "IfNotPresent", "Never"], at, notes);
}

/// What goes with being an init container, a sidecar or a main container.
fn role(container: &Container, init: bool, at: &Path, notes: &mut Notes<'_>) {
    let policy = container.restart_policy.as_deref();
    one_of(
        policy,
        &["Always", "OnFailure", "Never"],
        &at.key("restartPolicy"),
        notes,
    );
    restart_rules(container, at, notes);
    if init && policy == Some("Always") {
        return;
    }
    if !init {
        return;
    }
    let not_for_init = [
        ("lifecycle", container.lifecycle.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
    ];
    for (field, given) in not_for_init {
        if given {
            notes.error(
                &at.key(field),
                "an init container has none; with restartPolicy: Always it is a sidecar and may",
            );
        }
    }
}

/// When the container is restarted whatever its policy says. (Kubernetes: `validateContainerRestartPolicy`)
fn restart_rules(container: &Container, at: &Path, notes: &mut Notes<'_>) {
    let Some(rules) = container.restart_policy_rules.as_deref() else {
        return;
    };
    let list = at.key("restartPolicyRules");
    if rules.len() > RULES_MAX {
        notes.error(&list, format!("must have at most {RULES_MAX} items"));
    }
    if !rules.is_empty() && container.restart_policy.is_none() {
        notes.error(
            &at.key("restartPolicy"),
            "must specify restartPolicy when restart rules are used",
        );
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.item("restartPolicyRules", i);
        if rule.action.is_empty() {
            notes.error(
                &at.key("action"),
                "an action is missing: Restart or RestartAllContainers",
            );
        }
        let actions = ["Restart", "RestartAllContainers"];
        one_of(Some(&rule.action), &actions, &at.key("action"), notes);
        let Some(codes) = &rule.exit_codes else {
            notes.error(&at.key("exitCodes"), "must be specified");
            continue;
        };
        let at = at.key("exitCodes");
        if codes.operator.is_empty() {
            notes.error(&at.key("operator"), "must be specified: In or NotIn");
        }
        one_of(
            Some(&codes.operator),
            &["In", "NotIn"],
            &at.key("operator"),
            notes,
        );
        let values = codes.values.as_deref().unwrap_or_default();
        if values.is_empty() {
            notes.error(&at.key("values"), "at least one value must be specified");
        }
        if values.len() > EXIT_CODES_MAX {
            let message = format!("must have at most {EXIT_CODES_MAX} items");
            notes.error(&at.key("values"), message);
        }
        for (j, code) in values.iter().enumerate() {
            within(Some((*code).into()), 0, 255, &at.item("values", j), notes);
        }
    }
}

/// `terminationMessagePath` and `terminationMessagePolicy`.
fn message(container: &Container, at: &Path, notes: &mut Notes<'_>) {
    one_of(
        container.termination_message_policy.as_deref(),
        &["File", "FallbackToLogsOnError"],
        &at.key("terminationMessagePolicy"),
        notes,
    );
    let path = container.termination_message_path.as_deref();
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return;
    };
    let at = at.key("terminationMessagePath");
    if !path.starts_with('/') {
        notes.error(&at, format!("{path:?} has to be absolute"));
    } else if path.split('/').any(|part| part == "..") || path.contains('\0') {
        notes.error(&at, "may not have .. or a NUL byte");
    }
}

/// The kernel ends texts at a NUL.
fn texts(container: &Container, at: &Path, notes: &mut Notes<'_>) {
    let lists = [("command", &container.command), ("args", &container.args)];
    for (list, texts) in lists {
        for (i, text) in texts.iter().flatten().enumerate() {
            if text.contains('\0') {
                notes.error(&at.item(list, i), "a NUL byte can't be passed to a program");
            }
        }
    }
}

fn ports(ports: &[ContainerPort], at: &Path, notes: &mut Notes<'_>) {
    for (i, port) in ports.iter().enumerate() {
        let at = at.item("ports", i);
        within(
            Some(port.container_port.into()),
            1,
            65535,
            &at.key("containerPort"),
            notes,
        );
        within(
            port.host_port.filter(|p| *p != 0).map(i64::from),
            1,
            65535,
            &at.key("hostPort"),
            notes,
        );
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            notes.name(&at.key("name"), names::port_name(name));
        }
        match port.protocol.as_deref() {
            Some("SCTP") => notes.error(&at.key("protocol"), "SCTP is not supported yet"),
            protocol => one_of(protocol, &["TCP", "UDP"], &at.key("protocol"), notes),
        }
        if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty())
            && ip.parse::<IpAddr>().is_err()
        {
            notes.error(&at.key("hostIP"), format!("{ip:?} is not an IP address"));
        }
    }
    unique(
        ports.iter().enumerate().map(|(i, p)| {
            (
                p.name.clone().unwrap_or_default(),
                at.item("ports", i).key("name"),
            )
        }),
        "port",
        notes,
    );
}

/// A port of the machine can be taken once.
pub(super) fn host_ports(spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    let mut seen: HashMap<(i32, &str, &str), String> = HashMap::new();
    for (list, i, container) in all_containers(spec) {
        // Init containers run one after another; sidecars stay.
        if list == "initContainers" && container.restart_policy.is_none() {
            continue;
        }
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(number) = port.host_port.filter(|number| *number != 0) else {
                continue;
            };
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let ip = port.host_ip.as_deref().unwrap_or("");
            if let Some(first) = seen.insert((number, protocol, ip), container.name.clone()) {
                let path = at.item(list, i).item("ports", j).key("hostPort");
                notes.error(
                    &path,
                    format!("port {number} of the machine is taken by container {first:?}"),
                );
            }
        }
    }
}

/// `limits` or `requests`.
pub(super) type Amounts = BTreeMap<String, ApiQuantity>;

/// Those that are right, without a word about the others.
pub(super) fn amounts(given: Option<&Amounts>) -> BTreeMap<&str, Quantity> {
    let given = given.into_iter().flatten();
    given
        .filter_map(|(name, text)| Some((name.as_str(), text.0.parse().ok()?)))
        .filter(|(_, amount): &(&str, Quantity)| !amount.is_negative())
        .collect()
}

/// Limits and requests, looked at.
pub(super) fn requirements<'a>(
    given: &'a ResourceRequirements,
    at: &Path,
    notes: &mut Notes<'_>,
) -> (BTreeMap<&'a str, Quantity>, BTreeMap<&'a str, Quantity>) {
    check_amounts(given.limits.as_ref(), "limits", at, notes);
    check_amounts(given.requests.as_ref(), "requests", at, notes);
    let (limits, requests) = (
        amounts(given.limits.as_ref()),
        amounts(given.requests.as_ref()),
    );
    for (name, request) in &requests {
        if let Some(limit) = limits.get(name).filter(|limit| *limit < request) {
            notes.error(
                &at.key("requests").key((*name).to_owned()),
                format!("asks for {request}, more than the limit of {limit}"),
            );
        }
    }
    (limits, requests)
}

fn check_amounts(given: Option<&Amounts>, list: &'static str, at: &Path, notes: &mut Notes<'_>) {
    for (name, text) in given.into_iter().flatten() {
        let path = at.key(list).key(name.clone());
        let amount = match text.0.parse::<Quantity>() {
            Ok(amount) if amount.is_negative() => {
                notes.error(&path, "can't be negative");
                continue;
            }
            Ok(amount) => amount,
            Err(error) => {
                notes.error(&path, error.to_string());
                continue;
            }
        };
        if name == "ephemeral-storage" && list == "requests" {
            notes.ignored(
                &path,
                "nothing is scheduled on one machine; the limit holds",
            );
        }
        const KNOWN: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
        match name.as_str() {
            "cpu" => {}
            "memory" | "ephemeral-storage" => {
                if amount.is_fractional() {
                    notes.warning(
                        &path,
                        format!("{:?} is {amount} bytes; did you mean M or Mi?", text.0),
                    );
                }
            }
            other => {
                let hint = super::super::nearest(other, KNOWN)
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_default();
                notes.error(
                    &path,
                    format!("the resource {other:?} is not supported{hint}"),
                );
            }
        }
    }
}

/// `mountPropagation` and `recursiveReadOnly`.
fn propagation(mount: &VolumeMount, container: &Container, at: &Path, notes: &mut Notes<'_>) {
    let propagation = mount.mount_propagation.as_deref().filter(|p| !p.is_empty());
    one_of(
        propagation,
        &["Bidirectional", "HostToContainer", "None"],
        &at.key("mountPropagation"),
        notes,
    );
    let context = container.security_context.as_ref();
    let privileged = context.and_then(|context| context.privileged) == Some(true);
    if propagation == Some("Bidirectional") && !privileged {
        notes.error(
            &at.key("mountPropagation"),
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
    let at = at.key("recursiveReadOnly");
    let recursive = mount.recursive_read_only.as_deref();
    let all = ["Disabled", "IfPossible", "Enabled"];
    one_of(recursive, &all, &at, notes);
    if recursive.is_none_or(|mode| mode == "Disabled" || !all.contains(&mode)) {
        return;
    }
    if mount.read_only != Some(true) {
        notes.error(&at, "may only be specified when readOnly is true");
    }
    if propagation.is_some_and(|p| p != "None") {
        notes.error(
            &at,
            "may only be specified when mountPropagation is None or not specified",
        );
    }
}

fn mounts(container: &Container, spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    for (i, mount) in mounts.iter().enumerate() {
        let at = at.item("volumeMounts", i);
        if mount.name.is_empty() {
            notes.error(&at.key("name"), "the volume's name is missing");
        } else if !volumes.iter().any(|volume| volume.name == mount.name) {
            let near = super::super::nearest(&mount.name, volumes.iter().map(|v| v.name.as_str()));
            let hint = near
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default();
            notes.error(
                &at.key("name"),
                format!("there is no volume {:?}{hint}", mount.name),
            );
        }
        let path = &mount.mount_path;
        if path.is_empty() {
            notes.error(&at.key("mountPath"), "a mountPath is missing");
        } else if !path.starts_with('/') {
            notes.error(&at.key("mountPath"), format!("{path:?} has to be absolute"));
        } else if path.contains(':') || path.contains('\0') {
            notes.error(&at.key("mountPath"), "may not have a colon or a NUL byte");
        } else if path.split('/').any(|part| part == "..") {
            notes.error(&at.key("mountPath"), "may not have ..");
        } else if path.trim_matches('/').is_empty() {
            notes.error(
                &at.key("mountPath"),
                "the root itself can't be mounted over",
            );
        }
        if let Some(sub_path) = mount.sub_path.as_deref() {
            notes.name(&at.key("subPath"), names::descending(sub_path));
        }
        if let Some(expr) = mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
            let at = at.key("subPathExpr");
            notes.name(&at, names::descending(expr));
            if mount.sub_path.as_deref().is_some_and(|p| !p.is_empty()) {
                notes.error(&at, "subPathExpr and subPath are mutually exclusive");
            }
        }
        propagation(mount, container, &at, notes);
    }
    unique(
        mounts.iter().enumerate().map(|(i, m)| {
            let path = m.mount_path.trim_end_matches('/').to_owned();
            (path, at.item("volumeMounts", i).key("mountPath"))
        }),
        "mount at",
        notes,
    );
}
