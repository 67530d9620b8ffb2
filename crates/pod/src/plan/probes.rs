//! Probes and hooks, with the API's defaults and their ports as numbers.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Action, PortPlan, ProbePlan, Protocol};
use crate::manifest::{Notes, Path, nearest};

/// A probe. `None` when its port's name is unknown (noted).
pub(super) fn probe(
    probe: Option<&Probe>,
    ports: &[PortPlan],
    at: &Path,
    notes: &mut Notes<'_>,
) -> Option<ProbePlan> {
    let probe = probe?;
    let action = match &probe.grpc {
        Some(grpc) => Action::Grpc {
            tls: grpc.mode.as_deref() == Some("TLS"),
            // Checked; the kubelet takes no names here.
            port: u16::try_from(grpc.port).ok()?,
            service: grpc.service.clone().unwrap_or_default(),
        },
        None => action(
            probe.exec.as_ref(),
            probe.http_get.as_ref(),
            probe.tcp_socket.as_ref(),
            ports,
            at,
            notes,
        )?,
    };
    // 0 is "not set".
    let number = |given: Option<i32>, default: u32| match given.and_then(|n| u32::try_from(n).ok())
    {
        Some(0) | None => default,
        Some(number) => number,
    };
    let seconds = |given, default| Duration::from_secs(number(given, default).into());
    Some(ProbePlan {
        action,
        initial_delay: seconds(probe.initial_delay_seconds, 0),
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        success_threshold: number(probe.success_threshold, 1),
        failure_threshold: number(probe.failure_threshold, 3),
        grace: probe
            .termination_grace_period_seconds
            .and_then(|s| u64::try_from(s).ok())
            .map(Duration::from_secs),
    })
}

/// A hook of `lifecycle`.
pub(super) fn hook(
    handler: Option<&LifecycleHandler>,
    ports: &[PortPlan],
    at: &Path,
    notes: &mut Notes<'_>,
) -> Option<Action> {
    let handler = handler?;
    if let Some(sleep) = &handler.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        return Some(Action::Sleep(Duration::from_secs(seconds)));
    }
    let (exec, http) = (handler.exec.as_ref(), handler.http_get.as_ref());
    action(exec, http, None, ports, at, notes)
}

fn action(
    exec: Option<&ExecAction>,
    http: Option<&HTTPGetAction>,
    tcp: Option<&TCPSocketAction>,
    ports: &[PortPlan],
    at: &Path,
    notes: &mut Notes<'_>,
) -> Option<Action> {
    let host = |host: &Option<String>| host.clone().filter(|host| !host.is_empty());
    if let Some(exec) = exec {
        return Some(Action::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(http) = http {
        let path = http.path.as_deref().unwrap_or("");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let headers = http.http_headers.iter().flatten();
        return Some(Action::Http {
            tls: http.scheme.as_deref() == Some("HTTPS"),
            host: host(&http.host),
            port: port(&http.port, ports, &at.key("httpGet").key("port"), notes)?,
            path: format!("{slash}{path}"),
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        });
    }
    let tcp = tcp?;
    Some(Action::Tcp {
        host: host(&tcp.host),
        port: port(&tcp.port, ports, &at.key("tcpSocket").key("port"), notes)?,
    })
}

/// A port's number; a name is that of one of the container's own ports.
fn port(port: &IntOrString, ports: &[PortPlan], at: &Path, notes: &mut Notes<'_>) -> Option<u16> {
    let name = match port {
        IntOrString::Int(number) => return u16::try_from(*number).ok(),
        IntOrString::String(name) => name,
    };
    let named = ports.iter().find(|port| port.name.as_ref() == Some(name));
    match named {
        Some(port) if port.protocol == Protocol::Tcp => Some(port.port),
        Some(_) => {
            notes.error(at, format!("the port {name:?} is not a TCP port"));
            None
        }
        None => {
            let names = ports.iter().filter_map(|port| port.name.as_deref());
            let hint = nearest(name, names)
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default();
            notes.error(
                at,
                format!("the container has no port named {name:?}{hint}"),
            );
            None
        }
    }
}

/// `ports` of a container. What doesn't fit was refused before.
pub(super) fn ports(container: &Container) -> Vec<PortPlan> {
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    let ports = container.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(PortPlan {
                name: port.name.clone().filter(|name| !name.is_empty()),
                port: number(port.container_port)?,
                host_port: port.host_port.and_then(number),
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    _ => Protocol::Tcp,
                },
            })
        })
        .collect()
}
