//! A pod and a container of which only the name is known: what holds when a manifest says nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    ContainerPlan, DnsPlan, Facts, HostNamespaces, ImageSource, MountPlan, PodPlan, PodSecurity,
    Propagation, PullPolicy, Resources, RestartPolicy, Role, Security, StdinPlan,
};

/// `terminationGracePeriodSeconds` when absent.
const GRACE: Duration = Duration::from_secs(30);

/// `terminationMessagePath` when absent.
pub const MESSAGE_PATH: &str = "/dev/termination-log";

/// What a pod is called among all of the machine's pods, where one word is needed: its name in the namespace `default`, as it always
/// was, and `NAMESPACE_NAME` in others. Neither of the two has an underscore.
pub fn pod_key(namespace: &str, name: &str) -> String {
    match namespace {
        "" | "default" => name.to_owned(),
        _ => format!("{namespace}_{name}"),
    }
}

/// The namespace and the name that a key is made of.
pub fn of_pod_key(key: &str) -> (&str, &str) {
    key.split_once('_').unwrap_or(("default", key))
}

impl PodPlan {
    /// What the pod is called among all of the machine's pods: see [`pod_key`].
    pub fn key(&self) -> String {
        pod_key(&self.namespace, &self.name)
    }

    /// A pod with the API's defaults, in the namespace `default`.
    pub fn new(name: &str, containers: Vec<ContainerPlan>) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            spec: serde_json::Value::Null,
            facts: Facts::placeholder(),
            hostname: name.to_owned(),
            subdomain: None,
            hostname_as_fqdn: false,
            share_process_namespace: false,
            host: HostNamespaces::default(),
            host_aliases: Vec::new(),
            dns: DnsPlan {
                from_machine: true,
                ..DnsPlan::default()
            },
            security: PodSecurity::default(),
            pull_secrets: Vec::new(),
            active_deadline: None,
            resources: Resources::default(),
            restart_policy: RestartPolicy::Always,
            grace: GRACE,
            volumes: Vec::new(),
            containers,
        }
    }
}

impl ContainerPlan {
    /// A main container with the API's defaults.
    pub fn new(name: &str, source: ImageSource) -> Self {
        Self {
            name: name.to_owned(),
            role: Role::Main,
            image: String::new(),
            source,
            pull: PullPolicy::IfNotPresent,
            command: Vec::new(),
            args: Vec::new(),
            working_dir: None,
            env: Vec::new(),
            at_start: None,
            mounts: Vec::new(),
            ports: Vec::new(),
            resources: Resources::default(),
            startup: None,
            readiness: None,
            liveness: None,
            post_start: None,
            pre_stop: None,
            stop_signal: None,
            message_path: PathBuf::from(MESSAGE_PATH),
            message_from_logs: false,
            stdin: StdinPlan::default(),
            security: Security::default(),
            restart: None,
            restart_rules: Vec::new(),
        }
    }

    /// Whether a run that ended with `code` is followed by another, in a pod of policy `pod`. (Kubernetes:
    /// `ShouldContainerBeRestarted`, `initContainerShouldRestart`)
    pub fn restarts(&self, pod: RestartPolicy, code: i32) -> bool {
        if self.role == Role::Sidecar || self.rule_for(code).is_some() {
            return true;
        }
        match (self.role, self.restart.unwrap_or(pod)) {
            (Role::Main, RestartPolicy::Always) => true,
            (_, RestartPolicy::Never) => false,
            // An init container that has done its work is done.
            _ => code != 0,
        }
    }
}

impl ContainerPlan {
    /// Whether a run that ended with `code` is the end of all containers, which then begin anew.
    pub fn restarts_all(&self, code: i32) -> bool {
        self.rule_for(code).is_some_and(|rule| rule.all)
    }

    fn rule_for(&self, code: i32) -> Option<&super::RestartRule> {
        self.restart_rules.iter().find(|rule| {
            let listed = rule.codes.iter().any(|one| i32::from(*one) == code);
            listed != rule.not_in
        })
    }
}

impl MountPlan {
    /// A volume at `path`, writable, private.
    pub fn new(volume: &str, path: impl Into<PathBuf>) -> Self {
        Self {
            volume: volume.to_owned(),
            path: path.into(),
            sub_path: None,
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::None,
        }
    }
}
