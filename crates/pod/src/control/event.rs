//! The pod's events as the API server would keep them: those that are alike are one, with a count. (Kubernetes API: v1 Event;
//! client-go, `tools/events` and `EventCorrelator`)

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::plan::{ContainerPlan, PodPlan, Role};

/// The most that are kept; the one that was last seen longest ago goes first. An API server keeps them for an hour.
const MAX: usize = 256;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct EventLog {
    pod: Value,
    /// `spec.containers{app}` of each container.
    field_paths: Vec<String>,
    /// By when they were last seen.
    entries: Vec<Entry>,
    /// Counts every event.
    number: u64,
}

#[derive(Debug)]
struct Entry {
    /// The number of the first event, for the name, and of the last, for those who watch.
    first: u64,
    last: u64,
    warning: bool,
    reason: String,
    container: Option<usize>,
    message: String,
    count: u32,
    first_seen: SystemTime,
    last_seen: SystemTime,
}

impl EventLog {
    pub(crate) fn new(plan: &PodPlan) -> Self {
        Self {
            pod: json!({
                "kind": "Pod",
                "apiVersion": "v1",
                "name": plan.name,
                "namespace": plan.namespace,
                "uid": plan.facts.uid,
            }),
            field_paths: plan.containers.iter().map(field_path).collect(),
            entries: Vec::new(),
            number: 0,
        }
    }

    /// One more container, after the others.
    pub(crate) fn add(&mut self, container: &ContainerPlan) {
        self.field_paths.push(field_path(container));
    }

    /// Takes one that happened now; `container` is one of the plan's.
    pub(crate) fn record(
        &mut self,
        at: SystemTime,
        warning: bool,
        reason: &str,
        container: Option<usize>,
        message: &str,
    ) {
        self.number += 1;
        let same = |entry: &Entry| {
            (entry.warning, entry.container) == (warning, container)
                && entry.reason == reason
                && entry.message == message
        };
        let mut entry = match self.entries.iter().position(same) {
            Some(index) => self.entries.remove(index),
            None => Entry {
                first: self.number,
                last: 0,
                warning,
                reason: reason.to_owned(),
                container,
                message: message.to_owned(),
                count: 0,
                first_seen: at,
                last_seen: at,
            },
        };
        entry.last = self.number;
        entry.count += 1;
        entry.last_seen = at;
        if self.entries.len() == MAX {
            self.entries.remove(0);
        }
        self.entries.push(entry);
    }

    /// The number of the latest; 0: there was none.
    pub(crate) fn latest(&self) -> u64 {
        self.number
    }

    /// Those that happened, or happened again, after the one of that number; oldest first.
    pub(crate) fn after(&self, number: u64) -> Vec<Value> {
        let later = self.entries.iter().filter(|entry| entry.last > number);
        later.map(|entry| self.object(entry)).collect()
    }

    fn object(&self, entry: &Entry) -> Value {
        let mut about = self.pod.clone();
        if let Some(path) = entry.container.and_then(|id| self.field_paths.get(id)) {
            about["fieldPath"] = path.clone().into();
        }
        let time = |at| humantime::format_rfc3339_millis(at).to_string();
        let name = self.pod["name"].as_str().unwrap_or_default();
        json!({
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {
                "name": format!("{name}.{:016x}", entry.first),
                "namespace": self.pod["namespace"],
            },
            "involvedObject": about,
            "type": if entry.warning { "Warning" } else { "Normal" },
            "reason": entry.reason,
            "message": entry.message,
            "count": entry.count,
            "firstTimestamp": time(entry.first_seen),
            "lastTimestamp": time(entry.last_seen),
            "source": {"component": "podkit", "host": ""},
            "reportingComponent": "podkit",
            "reportingInstance": "",
        })
    }
}

fn field_path(container: &ContainerPlan) -> String {
    let list = match container.role {
        Role::Main => "containers",
        Role::Init | Role::Sidecar => "initContainers",
    };
    format!("spec.{list}{{{}}}", container.name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::{ContainerPlan, ImageSource};

    fn log() -> EventLog {
        let mut init = ContainerPlan::new("first", ImageSource::Host);
        init.role = Role::Init;
        let app = ContainerPlan::new("app", ImageSource::Host);
        EventLog::new(&PodPlan::new("web", vec![init, app]))
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn identical_ones_are_counted_and_come_last() {
        let mut log = log();
        log.record(at(1), true, "Unhealthy", Some(1), "no");
        log.record(at(2), false, "Started", Some(0), "Started container first");
        let seen = log.latest();
        log.record(at(9), true, "Unhealthy", Some(1), "no");
        let all = log.after(0);
        assert_eq!(all.len(), 2);
        assert_eq!(
            all[0]["involvedObject"]["fieldPath"],
            "spec.initContainers{first}"
        );
        let again = &all[1];
        assert_eq!(again["count"], 2);
        assert_eq!(again["involvedObject"]["fieldPath"], "spec.containers{app}");
        assert_eq!(again["firstTimestamp"], "1970-01-01T00:00:01.000Z");
        assert_eq!(again["lastTimestamp"], "1970-01-01T00:00:09.000Z");
        assert_eq!(log.after(seen), std::slice::from_ref(again));
        assert!(log.after(log.latest()).is_empty());
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut log = log();
        for n in 0..1000 {
            log.record(at(n), false, "Tick", None, &n.to_string());
        }
        let all = log.after(0);
        assert_eq!(all.len(), MAX);
        assert_eq!(all[MAX - 1]["message"], "999");
        assert_eq!(all[0]["message"], "744");
    }
}
