//! What pods there are on the machine, by what their supervisors keep on disk. Nobody is asked and nothing is waited for.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use crate::manifest::nearest;
use crate::plan::{of_pod_key, pod_key};
use crate::runner::Layout;

/// The pods of one machine, or of one state directory.
#[derive(Debug)]
pub struct Machine {
    layout: Layout,
}

/// A pod that runs, or has ended and left its state.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it is called among all pods of the machine: its name in the namespace `default`, else `NAMESPACE_NAME`. One that an
    /// older podkit started has its name in any namespace.
    pub key: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// The v1 Pod.
    pub pod: Value,
    /// Its events, when it has ended; otherwise its supervisor knows them.
    pub events: Vec<Value>,
    /// How it is with its supervisor.
    pub life: Life,
    /// Where its control socket is.
    pub run: PathBuf,
    /// Where its logs are.
    pub logs: PathBuf,
}

/// How it is with a pod's supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is this process.
    Lives {
        /// Its id.
        pid: i32,
    },
    /// It has ended well.
    Ended,
    /// It was killed.
    Lost,
}

/// There is no such pod.
#[derive(Debug, thiserror::Error)]
pub struct NotFound {
    name: String,
    near: Option<String>,
    elsewhere: Option<String>,
}

impl std::fmt::Display for NotFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pods {:?} not found", self.name)?;
        if let Some(namespace) = &self.elsewhere {
            write!(f, "; it is in the namespace {namespace:?} (-n {namespace})")?;
        } else if let Some(near) = &self.near {
            write!(f, "; did you mean {near:?}?")?;
        }
        Ok(())
    }
}

impl Found {
    /// The directories of what is kept of it.
    pub fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        let lib = self.logs.parent().unwrap_or(&self.logs);
        [self.run.clone(), lib.to_owned()].into_iter()
    }
}

impl Machine {
    /// The pods whose state is below `state_dir`, or where it is by default.
    pub fn at(state_dir: Option<&Path>) -> Self {
        Self {
            layout: Layout::new(state_dir),
        }
    }

    /// The directories in which each pod has an entry.
    pub fn dirs(&self) -> [PathBuf; 2] {
        self.layout.pods()
    }

    /// All pods, by namespace and name.
    pub fn pods(&self) -> Vec<Found> {
        let keys = self.layout.names();
        let mut pods: Vec<Found> = keys.iter().filter_map(|key| self.look(key)).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        pods
    }

    /// The pod of a name, which may be written `pod/NAME`.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Found, NotFound> {
        let name = name
            .strip_prefix("pods/")
            .or_else(|| name.strip_prefix("pod/"))
            .or_else(|| name.strip_prefix("po/"))
            .unwrap_or(name);
        let ours = |found: &Found| found.namespace == namespace && found.name == name;
        let by_key = |key: &str| self.look(key).filter(ours);
        // An older podkit kept a pod by its name in any namespace.
        if let Some(found) = by_key(&pod_key(namespace, name)).or_else(|| by_key(name)) {
            return Ok(found);
        }
        let all = self.pods();
        let here = all.iter().filter(|pod| pod.namespace == namespace);
        let elsewhere = all.iter().find(|pod| pod.name == name);
        Err(NotFound {
            name: name.to_owned(),
            near: nearest(name, here.map(|pod| pod.name.as_str())).map(str::to_owned),
            elsewhere: elsewhere.map(|pod| pod.namespace.clone()),
        })
    }

    /// The lock of a pod, to wait for its end with [`Machine::wait_free`]; none when it is gone.
    pub fn lock(&self, key: &str) -> Option<File> {
        File::open(self.layout.lock_path(key)).ok()
    }

    /// Returns when the supervisor that held this lock has ended.
    pub fn wait_free(lock: &File) -> std::io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| {
            flock(lock, FlockOperation::LockShared)
        })?)
    }

    /// Kills a supervisor that does not answer, and its pod with it. Nobody else: it must still hold the pod's lock.
    pub fn kill(&self, key: &str, pid: i32) {
        let pidfd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(pidfd) = pidfd
            && self.holder(key) == Some(pid)
        {
            // It has ended otherwise, which is what was wanted.
            let _ended = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }

    /// What there is of one key. None: nothing.
    fn look(&self, key: &str) -> Option<Found> {
        // A key becomes a path.
        if key.is_empty() || key.contains('/') || key.starts_with('.') {
            return None;
        }
        let (namespace, name) = of_pod_key(key);
        let paths = self.layout.paths(key);
        let read = |path: PathBuf| -> Option<Value> {
            serde_json::from_slice(&std::fs::read(path).ok()?).ok()
        };
        let holder = self.holder(key);
        let (mut pod, mut events) = (None, Vec::new());
        let mut life = Life::Lost;
        // First: its supervisor may still be clearing up.
        if let Some(mut ended) = read(paths.ended()) {
            life = Life::Ended;
            pod = Some(ended["pod"].take());
            if let Value::Array(all) = ended["events"].take() {
                events = all;
            }
        } else if let Some(pid) = holder {
            life = Life::Lives { pid };
            pod = read(paths.state());
        } else if let Some(last) = read(paths.state()) {
            pod = Some(lost(last));
        }
        let pod = pod.filter(Value::is_object).or_else(|| {
            // Its supervisor has only begun, or was killed so early.
            let there = holder.is_some() || paths.exist();
            there.then(|| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "status": {"phase": "Pending"}}))
        })?;
        Some(Found {
            key: key.to_owned(),
            name: name.to_owned(),
            namespace: pod["metadata"]["namespace"]
                .as_str()
                .unwrap_or(namespace)
                .to_owned(),
            pod,
            events,
            life,
            run: paths.run().to_owned(),
            logs: paths.logs(),
        })
    }

    /// The process that holds the lock of a pod.
    fn holder(&self, key: &str) -> Option<i32> {
        let path = self.layout.lock_path(key);
        let file = OpenOptions::new().read(true).open(&path).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => None,
            Err(_) => Some(
                std::fs::read_to_string(&path)
                    .ok()
                    .and_then(|pid| pid.trim().parse().ok())
                    .unwrap_or(0),
            ),
        }
    }
}

/// What is known of a pod whose supervisor was killed: all its processes are gone with it.
pub(crate) fn lost(mut pod: Value) -> Value {
    let status = &mut pod["status"];
    status["phase"] = "Failed".into();
    status["reason"] = "SupervisorLost".into();
    status["message"] = "The pod's supervisor was killed, and all its containers with it.".into();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if matches!(
            condition["type"].as_str(),
            Some("Ready" | "ContainersReady")
        ) {
            condition["status"] = "False".into();
        }
    }
    for list in ["initContainerStatuses", "containerStatuses"] {
        for container in status[list].as_array_mut().into_iter().flatten() {
            container["ready"] = false.into();
            container["started"] = false.into();
            if let Some(running) = container["state"].get("running").cloned() {
                container["state"] = json!({"terminated": {
                    "exitCode": 137,
                    "reason": "ContainerStatusUnknown",
                    "message": "The container could not be located when the pod was terminated",
                    "startedAt": running["startedAt"],
                    "finishedAt": null,
                }});
            }
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes what a supervisor that was killed left under a key.
    fn leave(dir: &Path, key: &str, namespace: &str, name: &str) {
        let run = dir.join("run/pods").join(key);
        std::fs::create_dir_all(&run).unwrap();
        let pod = json!({"metadata": {"name": name, "namespace": namespace}, "status": {"phase": "Running"}});
        std::fs::write(run.join("state.json"), pod.to_string()).unwrap();
    }

    #[test]
    fn pods_of_one_name_are_told_apart_by_their_namespaces() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), "web", "default", "web");
        leave(dir.path(), "prod_web", "prod", "web");
        let machine = Machine::at(Some(dir.path()));
        let all: Vec<_> = machine.pods().into_iter().map(|pod| pod.key).collect();
        assert_eq!(all, ["web", "prod_web"]);
        for (namespace, key) in [("default", "web"), ("prod", "prod_web")] {
            let found = machine.pod(namespace, "pod/web").unwrap();
            assert_eq!((found.key.as_str(), found.name.as_str()), (key, "web"));
        }
        let missing = machine.pod("test", "web").unwrap_err().to_string();
        assert!(missing.contains("-n default"), "{missing}");
        assert!(machine.pod("default", "prod_web").is_err());
    }

    #[test]
    fn what_an_older_podkit_started_in_another_namespace_is_found() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), "web", "prod", "web");
        let machine = Machine::at(Some(dir.path()));
        let found = machine.pod("prod", "web").unwrap();
        assert_eq!(
            (found.key.as_str(), found.namespace.as_str()),
            ("web", "prod")
        );
        assert!(machine.pod("default", "web").is_err());
        // And a new one of the same name beside it.
        leave(dir.path(), "prod_api", "prod", "api");
        assert_eq!(machine.pods().len(), 2);
    }
}
