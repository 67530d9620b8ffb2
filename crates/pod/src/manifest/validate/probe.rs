//! Probes and hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe,
    TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Notes, one_of};
use crate::manifest::names;
use crate::manifest::node::Path;

/// The three probes of a container.
pub(super) fn probes(container: &Container, at: &Path, notes: &mut Notes<'_>) {
    let all = [
        ("startupProbe", &container.startup_probe),
        ("readinessProbe", &container.readiness_probe),
        ("livenessProbe", &container.liveness_probe),
    ];
    for (field, probe) in all {
        if let Some(probe) = probe {
            check(probe, field, &at.key(field), notes);
        }
    }
}

fn check(probe: &Probe, field: &str, at: &Path, notes: &mut Notes<'_>) {
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("periodSeconds", probe.period_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, value) in numbers {
        // 0 is "not set" for the API server, which puts the default in its place.
        if value.is_some_and(|value| value < 0) {
            notes.error(&at.key(name), "can't be negative");
        }
    }
    if field != "readinessProbe" && probe.success_threshold.is_some_and(|n| n > 1) {
        notes.error(
            &at.key("successThreshold"),
            format!("has to be 1 for a {field}"),
        );
    }
    match probe.termination_grace_period_seconds {
        Some(_) if field == "readinessProbe" => notes.error(
            &at.key("terminationGracePeriodSeconds"),
            "has no meaning for a readinessProbe: it restarts nothing",
        ),
        Some(seconds) if seconds < 1 => {
            notes.error(
                &at.key("terminationGracePeriodSeconds"),
                "has to be at least 1",
            );
        }
        _ => {}
    }
    let given = [
        probe.exec.is_some(),
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.grpc.is_some(),
    ];
    exactly_one(&given, "exec, httpGet, tcpSocket or grpc", at, notes);
    exec(probe.exec.as_ref(), at, notes);
    http(probe.http_get.as_ref(), at, notes);
    tcp(probe.tcp_socket.as_ref(), at, notes);
    if let Some(grpc) = &probe.grpc {
        let at = at.key("grpc");
        super::within(Some(grpc.port.into()), 1, 65535, &at.key("port"), notes);
        let modes = ["Plaintext", "TLS"];
        one_of(grpc.mode.as_deref(), &modes, &at.key("mode"), notes);
    }
}

/// `lifecycle`, in a pod of this spec.
pub(super) fn lifecycle(lifecycle: &Lifecycle, spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    if let Some(handler) = &lifecycle.post_start {
        hook(handler, grace, &at.key("postStart"), notes);
    }
    if let Some(handler) = &lifecycle.pre_stop {
        hook(handler, grace, &at.key("preStop"), notes);
    }
    let Some(signal) = lifecycle.stop_signal.as_deref() else {
        return;
    };
    let at = at.key("stopSignal");
    if spec.os.is_none() {
        notes.error(
            &at,
            "may not be set for containers with empty `spec.os.name`: add os: {name: linux} to the spec",
        );
    }
    if crate::plan::stop_signal(signal).is_none() {
        let bare = signal.to_uppercase();
        let bare = bare.strip_prefix("SIG").unwrap_or(&bare);
        let known = crate::plan::stop_signal(&format!("SIG{bare}"));
        let hint = known.map_or("SIGTERM, SIGRTMIN+3, and the like are".into(), |_| {
            format!("did you mean SIG{bare}?")
        });
        notes.error(&at, format!("{signal:?} is not a signal; {hint}"));
    }
}

fn hook(handler: &LifecycleHandler, grace: i64, at: &Path, notes: &mut Notes<'_>) {
    let given = [
        handler.exec.is_some(),
        handler.http_get.is_some(),
        handler.sleep.is_some(),
    ];
    exactly_one(&given, "exec, httpGet or sleep", at, notes);
    exec(handler.exec.as_ref(), at, notes);
    http(handler.http_get.as_ref(), at, notes);
    if let Some(sleep) = &handler.sleep
        && !(0..=grace).contains(&sleep.seconds)
    {
        notes.error(
            &at.key("sleep").key("seconds"),
            format!(
                "{} is not within 0 and terminationGracePeriodSeconds ({grace})",
                sleep.seconds
            ),
        );
    }
}

fn exactly_one(given: &[bool], choices: &str, at: &Path, notes: &mut Notes<'_>) {
    match given.iter().filter(|given| **given).count() {
        0 => notes.error(at, format!("nothing to do: give {choices}")),
        1 => {}
        _ => notes.error(at, format!("more than one of {choices}")),
    }
}

fn exec(action: Option<&ExecAction>, at: &Path, notes: &mut Notes<'_>) {
    if action.is_some_and(|action| action.command.as_deref().unwrap_or_default().is_empty()) {
        notes.error(&at.key("exec").key("command"), "a command is missing");
    }
}

fn tcp(action: Option<&TCPSocketAction>, at: &Path, notes: &mut Notes<'_>) {
    if let Some(action) = action {
        let at = at.key("tcpSocket");
        port(&action.port, &at.key("port"), notes);
        host(action.host.as_deref(), &at.key("host"), notes);
    }
}

fn http(action: Option<&HTTPGetAction>, at: &Path, notes: &mut Notes<'_>) {
    let Some(action) = action else { return };
    let at = at.key("httpGet");
    port(&action.port, &at.key("port"), notes);
    host(action.host.as_deref(), &at.key("host"), notes);
    one_of(
        action.scheme.as_deref(),
        &["HTTP", "HTTPS"],
        &at.key("scheme"),
        notes,
    );
    if let Some(path) = &action.path
        && path.chars().any(|c| c.is_control() || c == ' ')
    {
        notes.error(
            &at.key("path"),
            "spaces and control characters have to be percent-encoded",
        );
    }
    for (i, header) in action.http_headers.iter().flatten().enumerate() {
        let at = at.item("httpHeaders", i);
        notes.name(&at.key("name"), names::header_name(&header.name));
        if header.value.chars().any(|c| c.is_control() && c != '\t') {
            notes.error(&at.key("value"), "control characters can't be in a header");
        }
    }
}

fn host(host: Option<&str>, at: &Path, notes: &mut Notes<'_>) {
    if host.is_some_and(|host| {
        host.chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '/')
    }) {
        notes.error(at, "not a host: a name or an address, without port");
    }
}

/// A number from 1 to 65535, or the name of one of the container's ports (resolved later).
fn port(port: &IntOrString, at: &Path, notes: &mut Notes<'_>) {
    match port {
        IntOrString::Int(0) => notes.error(at, "a port is missing: 1 to 65535, or a port's name"),
        IntOrString::Int(number) => super::within(Some((*number).into()), 1, 65535, at, notes),
        IntOrString::String(name) => notes.name(at, names::port_name(name)),
    }
}
