//! What others read of a running pod.
//!
//! - `state.json`, for podkit's other commands: the pod's status in the shape of Kubernetes' PodStatus, with `pid`, the
//!   supervisor's.
//! - `shared/pod.json`, for topz, mounted read-only as `/run/podkit/pod.json` into podkit's own containers of a pod with
//!   `shareProcessNamespace`: `{"pod":…,"namespace":…,"containers":[{"name","pid","restarts","started"}]}` with those that
//!   run, `pid` as the pod's PID namespace has it, `started` in RFC 3339.
//!
//! Both are replaced whole, so that a reader sees the old or the new.

use std::net::Ipv4Addr;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::machine::{ContainerStatus, Machine, Phase, State, Terminated};
use crate::plan::{PodPlan, Role};

/// Where `pod.json` is, as containers see it.
pub(super) const SHARED: &str = "/run/podkit";
/// Its name.
pub(super) const POD_JSON: &str = "pod.json";

/// `state.json`.
pub(super) fn state_json(
    plan: &PodPlan,
    machine: &Machine,
    address: Ipv4Addr,
    since: SystemTime,
) -> Value {
    let statuses = |init: bool| -> Vec<Value> {
        plan.containers
            .iter()
            .enumerate()
            .filter(|(_, container)| (container.role != Role::Main) == init)
            .map(|(id, container)| {
                let mut status = container_json(machine.status(id));
                status["name"] = container.name.clone().into();
                status["image"] = container.image.clone().into();
                status["imageID"] = machine.status(id).image_id.clone().into();
                status
            })
            .collect()
    };
    let condition = |kind: &str, holds: bool| {
        let status = if holds { "True" } else { "False" };
        json!({"type": kind, "status": status})
    };
    let mut state = json!({
        "pod": plan.name,
        "namespace": plan.namespace,
        "pid": std::process::id(),
        "phase": machine.phase().word(),
        "podIP": address.to_string(),
        "startTime": rfc3339(since),
        "conditions": [
            condition("Initialized", machine.initialized()),
            condition("ContainersReady", machine.ready()),
            condition("Ready", machine.ready()),
        ],
        "initContainerStatuses": statuses(true),
        "containerStatuses": statuses(false),
    });
    if let Some(reason) = machine.reason() {
        state["reason"] = reason.into();
    }
    if let Some(message) = machine.message() {
        state["message"] = message.into();
    }
    if machine.stopping() && !matches!(machine.phase(), Phase::Succeeded | Phase::Failed) {
        // As kubectl shows a pod that is being deleted.
        state["terminating"] = true.into();
    }
    state
}

fn container_json(status: &ContainerStatus) -> Value {
    let state = match &status.state {
        State::Waiting {
            reason,
            message,
            until,
        } => {
            let mut waiting = json!({"reason": reason});
            if !message.is_empty() {
                waiting["message"] = message.clone().into();
            }
            if let Some(until) = until {
                let left = until.saturating_duration_since(std::time::Instant::now());
                waiting["until"] = rfc3339(SystemTime::now() + left).into();
            }
            json!({"waiting": waiting})
        }
        State::Running { since } => json!({"running": {"startedAt": rfc3339(*since)}}),
        State::Terminated(end) => json!({"terminated": terminated_json(end)}),
    };
    let mut json = json!({
        "state": state,
        "ready": status.ready,
        "started": status.started,
        "restartCount": status.restarts,
    });
    if let Some(last) = &status.last {
        json["lastState"] = json!({"terminated": terminated_json(last)});
    }
    json
}

fn terminated_json(end: &Terminated) -> Value {
    let mut json = json!({
        "exitCode": end.code,
        "reason": end.reason,
        "finishedAt": rfc3339(end.finished),
    });
    if let Some(signal) = end.signal {
        json["signal"] = signal.into();
    }
    if !end.message.is_empty() {
        json["message"] = end.message.clone().into();
    }
    if let Some(started) = end.started {
        json["startedAt"] = rfc3339(started).into();
    }
    json
}

/// A container that runs, for `pod.json`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running<'a> {
    pub(super) name: &'a str,
    /// In the pod's PID namespace.
    pub(super) pid: i32,
    pub(super) restarts: u32,
    pub(super) started: SystemTime,
}

/// `pod.json`.
pub(super) fn pod_json<'a>(plan: &PodPlan, running: impl Iterator<Item = Running<'a>>) -> Value {
    let containers: Vec<Value> = running
        .map(|container| {
            json!({
                "name": container.name,
                "pid": container.pid,
                "restarts": container.restarts,
                "started": rfc3339(container.started),
            })
        })
        .collect();
    json!({"pod": plan.name, "namespace": plan.namespace, "containers": containers})
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::runner::machine::{Exit, Input, Now};
    use crate::runner::testing::{container, plan};

    #[test]
    fn the_state_has_the_shape_of_a_pod_status() {
        let mut side = container("side");
        side.role = Role::Sidecar;
        let plan = plan(vec![side, container("app")]);
        let mut machine = Machine::new(&Arc::new(plan.clone()), Duration::from_secs(10), None);
        let now = Now {
            at: Instant::now(),
            wall: SystemTime::UNIX_EPOCH,
        };
        let exit = Exit {
            code: 139,
            signal: Some(11),
            oom: false,
            message: String::new(),
        };
        let inputs = [
            Input::Begin,
            Input::Started { id: 0, run: 0 },
            Input::Started { id: 1, run: 0 },
            Input::Exited {
                id: 1,
                run: 0,
                exit: exit.clone(),
            },
            Input::Started { id: 1, run: 1 },
            Input::Exited {
                id: 1,
                run: 1,
                exit,
            },
        ];
        for input in inputs {
            machine.on(now, input);
        }
        let json = state_json(
            &plan,
            &machine,
            [10, 87, 0, 2].into(),
            SystemTime::UNIX_EPOCH,
        );
        assert_eq!(json["phase"], "Running");
        assert_eq!(json["podIP"], "10.87.0.2");
        assert_eq!(
            json["conditions"][0],
            serde_json::json!({"type": "Initialized", "status": "True"})
        );
        assert_eq!(json["conditions"][2]["status"], "False");
        let side = &json["initContainerStatuses"][0];
        assert_eq!(
            side["state"]["running"]["startedAt"],
            "1970-01-01T00:00:00.000Z"
        );
        let app = &json["containerStatuses"][0];
        assert_eq!(app["name"], "app");
        assert_eq!(app["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(app["lastState"]["terminated"]["signal"], 11);
        assert_eq!(app["restartCount"], 1);
    }

    #[test]
    fn pod_json_is_what_topz_reads() {
        let plan = plan(vec![container("app")]);
        let running = Running {
            name: "app",
            pid: 7,
            restarts: 2,
            started: SystemTime::UNIX_EPOCH,
        };
        assert_eq!(
            pod_json(&plan, [running].into_iter()),
            serde_json::json!({"pod": "web", "namespace": "default", "containers": [
                {"name": "app", "pid": 7, "restarts": 2, "started": "1970-01-01T00:00:00.000Z"}
            ]})
        );
    }
}
