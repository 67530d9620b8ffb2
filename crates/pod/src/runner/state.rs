//! What others read of a running pod.
//!
//! - `state.json`, for podkit's other commands: the pod as a v1 Pod: what was asked for, and `status` as it is now.
//! - `shared/pod.json`, for topz, mounted read-only as `/run/podkit/pod.json` into podkit's own containers of a pod with
//!   `shareProcessNamespace`: `{"pod":…,"namespace":…,"containers":[{"name","pid","restarts","started"}]}` with those that
//!   run, `pid` as the pod's PID namespace has it, `started` in RFC 3339.
//!
//! Both are replaced whole, so that a reader sees the old or the new.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::machine::{ContainerStatus, Id, Machine, Phase, State, Terminated};
use crate::plan::{ContainerPlan, PodPlan, Role};

/// Where `pod.json` is, as containers see it.
pub(super) const SHARED: &str = "/run/podkit";
/// Its name.
pub(super) const POD_JSON: &str = "pod.json";

/// Annotations that say what has no field: the supervisor's process and version, and that nobody watches it.
const SUPERVISOR: &str = "podkit.dev/supervisor";
const VERSION: &str = "podkit.dev/version";
pub(super) const DETACHED: &str = "podkit.dev/detached";

/// The pod as an object of the Kubernetes API. (v1 Pod)
#[derive(Debug)]
pub(super) struct PodObject {
    metadata: Map<String, Value>,
    spec: Value,
    detached: bool,
    address: Ipv4Addr,
    host_address: Option<String>,
    since: SystemTime,
    /// Status of each condition, and since when.
    conditions: Vec<(&'static str, bool, SystemTime)>,
}

impl PodObject {
    pub(super) fn new(
        plan: &PodPlan,
        address: Ipv4Addr,
        since: SystemTime,
        detached: bool,
    ) -> Self {
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), plan.name.clone().into());
        metadata.insert("namespace".to_owned(), plan.namespace.clone().into());
        metadata.insert("uid".to_owned(), plan.facts.uid.clone().into());
        metadata.insert("creationTimestamp".to_owned(), rfc3339(since).into());
        let mut object = Self {
            metadata,
            spec: Value::Null,
            detached,
            address,
            host_address: plan.facts.host_ips.first().map(ToString::to_string),
            since,
            conditions: Vec::new(),
        };
        object.redefine(plan);
        object
    }

    /// Takes over what a plan says of it: labels, annotations and spec.
    pub(super) fn redefine(&mut self, plan: &PodPlan) {
        let mut annotations = plan.annotations.clone();
        annotations.insert(SUPERVISOR.to_owned(), std::process::id().to_string());
        annotations.insert(VERSION.to_owned(), podkit_foundation::VERSION.to_owned());
        if self.detached {
            annotations.insert(DETACHED.to_owned(), "true".to_owned());
        }
        self.metadata.remove("labels");
        if !plan.labels.is_empty() {
            self.metadata
                .insert("labels".to_owned(), json!(plan.labels));
        }
        self.metadata
            .insert("annotations".to_owned(), json!(annotations));
        self.spec = plan.spec.clone();
        if self.spec.is_object() {
            self.spec["nodeName"] = plan.facts.node_name.clone().into();
        }
    }

    /// A pod that has not begun and will not, with the reason. No container of it ever was. (Kubernetes: `rejectPod`)
    pub(super) fn rejected(plan: &PodPlan, now: SystemTime, reason: &str, message: &str) -> Value {
        let object = Self::new(plan, Ipv4Addr::UNSPECIFIED, now, true);
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": object.metadata,
            "spec": object.spec,
            "status": {
                "phase": Phase::Failed.word(),
                "reason": reason,
                "message": format!("Pod was rejected: {message}"),
                "startTime": rfc3339(now),
                "qosClass": qos_class(plan),
            },
        })
    }

    /// Somebody wants it gone within `grace`, as `kubectl delete` marks it. The first one counts.
    pub(super) fn delete(&mut self, now: SystemTime, grace: Duration) {
        let fields = &mut self.metadata;
        if !fields.contains_key("deletionTimestamp") {
            fields.insert("deletionTimestamp".to_owned(), rfc3339(now + grace).into());
            let seconds = grace.as_secs().into();
            fields.insert("deletionGracePeriodSeconds".to_owned(), seconds);
        }
    }

    /// Whether somebody wants it gone.
    pub(super) fn deleted(&self) -> bool {
        self.metadata.contains_key("deletionTimestamp")
    }

    /// The object, now. `pid` gives the first process of a container that runs.
    pub(super) fn json(
        &mut self,
        plan: &PodPlan,
        machine: &Machine,
        pid: &dyn Fn(Id) -> Option<i32>,
        now: SystemTime,
    ) -> Value {
        let statuses = |init: bool| -> Vec<Value> {
            let all = plan.containers.iter().enumerate();
            all.filter(|(id, container)| {
                (container.role != Role::Main) == init && !machine.is_removed(*id)
            })
            .map(|(id, container)| named_status(container, machine.status(id), pid(id)))
            .collect()
        };
        let unready = |main_only: bool| -> Vec<&str> {
            let all = plan.containers.iter().enumerate();
            let all = all.filter(|(id, _)| !machine.is_removed(*id));
            all.filter(|(id, container)| match container.role {
                Role::Init => !main_only && !ended_well(machine.status(*id)),
                Role::Sidecar => !machine.status(*id).ready,
                Role::Main => main_only && !machine.status(*id).ready,
            })
            .map(|(_, container)| container.name.as_str())
            .collect()
        };
        let completed = machine.phase() == Phase::Succeeded;
        let mut conditions = Vec::new();
        let restarts_all = machine.restarts_all();
        let restarts_all = restarts_all.map(|holds| ("AllContainersRestarting", holds));
        for (kind, holds) in [
            // There is a sandbox as long as there is a pod.
            ("PodReadyToStartContainers", !machine.phase().is_over()),
            ("Initialized", machine.initialized()),
            ("Ready", machine.ready()),
            ("ContainersReady", machine.ready()),
            ("PodScheduled", true),
        ]
        .into_iter()
        .chain(restarts_all)
        {
            let since = self.since_when(kind, holds, now);
            let status = if holds { "True" } else { "False" };
            let mut condition = json!({
                "type": kind,
                "status": status,
                "lastProbeTime": null,
                "lastTransitionTime": rfc3339(since),
            });
            let of_containers = ["Initialized", "Ready", "ContainersReady"].contains(&kind);
            if completed && of_containers {
                condition["reason"] = "PodCompleted".into();
            } else if !of_containers {
                // Nothing to add.
            } else if !holds && kind == "Initialized" {
                condition["reason"] = "ContainersNotInitialized".into();
                let names = unready(false).join(" ");
                condition["message"] =
                    format!("containers with incomplete status: [{names}]").into();
            } else if !holds {
                condition["reason"] = "ContainersNotReady".into();
                let names = unready(true).join(" ");
                condition["message"] = format!("containers with unready status: [{names}]").into();
            }
            conditions.push(condition);
        }
        let mut status = json!({
            "phase": machine.phase().word(),
            "conditions": conditions,
            "podIP": self.address.to_string(),
            "podIPs": [{"ip": self.address.to_string()}],
            "startTime": rfc3339(self.since),
            "containerStatuses": statuses(false),
            "qosClass": qos_class(plan),
        });
        if let Some(address) = &self.host_address {
            status["hostIP"] = address.clone().into();
            status["hostIPs"] = json!([{"ip": address}]);
        }
        let init = statuses(true);
        if !init.is_empty() {
            status["initContainerStatuses"] = init.into();
        }
        if let Some(reason) = machine.reason() {
            status["reason"] = reason.into();
        }
        if let Some(message) = machine.message() {
            status["message"] = message.into();
        }
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": self.metadata,
            "spec": self.spec,
            "status": status,
        })
    }

    fn since_when(&mut self, kind: &'static str, holds: bool, now: SystemTime) -> SystemTime {
        let known = self.conditions.iter_mut().find(|known| known.0 == kind);
        let Some(known) = known else {
            self.conditions.push((kind, holds, now));
            return now;
        };
        if known.1 != holds {
            *known = (kind, holds, now);
        }
        known.2
    }
}

fn ended_well(status: &ContainerStatus) -> bool {
    matches!(&status.state, State::Terminated(end) if end.code == 0)
}

/// `status.qosClass`. (Kubernetes: `pkg/apis/core/v1/helper/qos`)
pub(super) fn qos_class(plan: &PodPlan) -> &'static str {
    let parts = |container: &ContainerPlan| {
        let of = &container.resources;
        [
            (of.cpu_request_milli, of.cpu_limit_milli),
            (of.memory_request_bytes, of.memory_limit_bytes),
        ]
    };
    let all: Vec<_> = plan.containers.iter().flat_map(parts).collect();
    if all.iter().all(|pair| *pair == (None, None)) {
        "BestEffort"
    } else if all
        .iter()
        .all(|(request, limit)| limit.is_some() && (request.is_none() || request == limit))
    {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn named_status(container: &ContainerPlan, status: &ContainerStatus, pid: Option<i32>) -> Value {
    let mut json = container_json(status);
    // An init container that has done its work is ready, as the kubelet says it (prober_manager.go, `UpdatePodStatus`).
    if container.role == Role::Init {
        json["ready"] = ended_well(status).into();
    }
    json["name"] = container.name.clone().into();
    json["image"] = container.image.clone().into();
    json["imageID"] = status.image_id.clone().into();
    if let Some(pid) = pid {
        // What can be done with the id of a container: its process is looked at.
        json["containerID"] = format!("podkit://{pid}").into();
    }
    json
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
        let mut object = PodObject::new(&plan, [10, 87, 0, 2].into(), SystemTime::UNIX_EPOCH, true);
        let pid = |id: Id| (id == 0).then_some(77);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        object.json(&plan, &machine, &pid, at(1));
        let json = object.json(&plan, &machine, &pid, at(2));
        let parsed: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(parsed.metadata.name.as_deref(), Some("web"));
        assert_eq!(json["metadata"]["annotations"][DETACHED], "true");
        assert!(!object.deleted());
        object.delete(at(10), Duration::from_secs(30));
        object.delete(at(11), Duration::ZERO);
        let deleted = object.json(&plan, &machine, &pid, at(12));
        assert_eq!(
            deleted["metadata"]["deletionTimestamp"],
            "1970-01-01T00:00:40.000Z"
        );
        let json = &json["status"];
        assert_eq!(json["phase"], "Running");
        assert_eq!(json["podIP"], "10.87.0.2");
        assert_eq!(json["conditions"][1]["type"], "Initialized");
        assert_eq!(json["conditions"][1]["status"], "True");
        let ready = &json["conditions"][2];
        assert_eq!(ready["status"], "False");
        assert_eq!(ready["lastTransitionTime"], "1970-01-01T00:00:01.000Z");
        assert_eq!(ready["message"], "containers with unready status: [app]");
        assert_eq!(
            json["initContainerStatuses"][0]["containerID"],
            "podkit://77"
        );
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

    /// The conditions that a kubelet (1.20.2) was seen to give a pod that is done; `PodReadyToStartContainers` as its newer
    /// sources have it (pkg/kubelet/status/generate.go).
    #[test]
    fn a_pod_that_is_done() {
        let mut init = container("init");
        init.role = Role::Init;
        let mut plan = plan(vec![init, container("app")]);
        plan.restart_policy = crate::plan::RestartPolicy::Never;
        let mut machine = Machine::new(&Arc::new(plan.clone()), Duration::from_secs(10), None);
        let now = Now {
            at: Instant::now(),
            wall: SystemTime::UNIX_EPOCH,
        };
        let well = |id| Input::Exited {
            id,
            run: 0,
            exit: Exit {
                code: 0,
                signal: None,
                oom: false,
                message: String::new(),
            },
        };
        let mut object =
            PodObject::new(&plan, [10, 87, 0, 2].into(), SystemTime::UNIX_EPOCH, false);
        let mut status = |machine: &Machine| {
            let mut json = object.json(&plan, machine, &|_| None, now.wall);
            json["status"].take()
        };
        machine.on(now, Input::Begin);
        machine.on(now, Input::Started { id: 0, run: 0 });
        assert_eq!(status(&machine)["initContainerStatuses"][0]["ready"], false);
        machine.on(now, well(0));
        assert_eq!(status(&machine)["initContainerStatuses"][0]["ready"], true);
        machine.on(now, Input::Started { id: 1, run: 0 });
        machine.on(now, well(1));
        let done = status(&machine);
        assert_eq!(done["phase"], "Succeeded");
        let conditions = done["conditions"].as_array().unwrap().iter();
        let conditions: Vec<String> = conditions
            .map(|of| format!("{}={} {}", of["type"], of["status"], of["reason"]).replace('"', ""))
            .collect();
        assert_eq!(
            conditions,
            [
                "PodReadyToStartContainers=False null",
                "Initialized=True PodCompleted",
                "Ready=False PodCompleted",
                "ContainersReady=False PodCompleted",
                "PodScheduled=True null",
            ]
        );
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
