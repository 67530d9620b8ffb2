//! The words of `kubectl get pods`: READY, STATUS, RESTARTS, AGE.
//!
//! Computed from the object as kubectl's server does it, since a pod has no such field. (Kubernetes:
//! `pkg/printers/internalversion/printers.go`, `printPod`; apimachinery, `duration.HumanDuration`)

use std::time::{Duration, SystemTime};

use serde_json::Value;

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// `1/2`.
    pub(super) ready: String,
    /// `Running`, `CrashLoopBackOff`, `Init:0/1`, …
    pub(super) status: String,
    /// `3 (12s ago)`.
    pub(super) restarts: String,
}

/// What `kubectl get` would say of a pod at `now`.
pub(super) fn words(pod: &Value, now: SystemTime) -> Words {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let phase = text(&status["phase"]).unwrap_or("Unknown");
    let mut reason = text(&status["reason"]).unwrap_or(phase).to_owned();
    let init_specs = list(&spec["initContainers"]);
    let sidecar = |name: &Value| {
        init_specs
            .iter()
            .any(|one| one["name"] == *name && one["restartPolicy"] == "Always")
    };
    let sidecars = init_specs
        .iter()
        .filter(|one| one["restartPolicy"] == "Always")
        .count();
    let total = list(&spec["containers"]).len() + sidecars;
    let mut ready = 0;
    let (mut restarts, mut sidecars_restarts) = (Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (index, one) in list(&status["initContainerStatuses"]).iter().enumerate() {
        restarts.count(one);
        let is_sidecar = sidecar(&one["name"]);
        if is_sidecar {
            sidecars_restarts.count(one);
        }
        let (terminated, waiting) = (&one["state"]["terminated"], &one["state"]["waiting"]);
        if terminated["exitCode"] == 0 {
            continue;
        }
        if is_sidecar && one["started"] == true {
            ready += usize::from(one["ready"] == true);
            continue;
        }
        reason = match text(&waiting["reason"]) {
            _ if terminated.is_object() => format!("Init:{}", ended(terminated)),
            Some(why) if why != "PodInitializing" => format!("Init:{why}"),
            _ => format!("Init:{index}/{}", init_specs.len()),
        };
        initializing = true;
        break;
    }
    if !initializing || condition(status, "Initialized") {
        restarts = sidecars_restarts;
        let mut running = false;
        for one in list(&status["containerStatuses"]).iter().rev() {
            restarts.count(one);
            let (terminated, waiting) = (&one["state"]["terminated"], &one["state"]["waiting"]);
            if let Some(why) = text(&waiting["reason"]) {
                reason = why.to_owned();
            } else if terminated.is_object() {
                reason = ended(terminated);
            } else if one["ready"] == true && one["state"]["running"].is_object() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let word = if condition(status, "Ready") {
                "Running"
            } else {
                "NotReady"
            };
            reason = word.to_owned();
        }
    }
    let ended = matches!(phase, "Succeeded" | "Failed");
    if pod["metadata"]["deletionTimestamp"].is_string() && !ended {
        reason = "Terminating".to_owned();
    }
    Words {
        ready: format!("{ready}/{total}"),
        status: reason,
        restarts: restarts.shown(now),
    }
}

/// How often, and when last.
#[derive(Debug, Default)]
struct Restarts {
    count: u64,
    last: Option<SystemTime>,
}

impl Restarts {
    fn count(&mut self, container: &Value) {
        self.count += container["restartCount"].as_u64().unwrap_or(0);
        let ended = time(&container["lastState"]["terminated"]["finishedAt"]);
        self.last = self.last.max(ended);
    }

    fn shown(&self, now: SystemTime) -> String {
        match self.last {
            Some(last) if self.count > 0 => format!("{} ({} ago)", self.count, since(last, now)),
            _ => self.count.to_string(),
        }
    }
}

fn ended(terminated: &Value) -> String {
    match (text(&terminated["reason"]), terminated["signal"].as_i64()) {
        (Some(reason), _) => reason.to_owned(),
        (None, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", terminated["exitCode"]),
    }
}

/// Whether a condition holds.
pub(super) fn condition(status: &Value, kind: &str) -> bool {
    list(&status["conditions"])
        .iter()
        .any(|one| one["type"] == kind && one["status"] == "True")
}

/// The items of a list; none when it is not there.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text that is not empty.
pub(super) fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// A time of the API.
pub(super) fn time(value: &Value) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(value.as_str()?).ok()
}

/// AGE of what began at `then`.
pub(super) fn since(then: SystemTime, now: SystemTime) -> String {
    age(now.duration_since(then).unwrap_or_default())
}

/// `5s`, `3m20s`, `2h`, `4d12h`: two units where the first is small.
pub(super) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |first: u64, unit: &str, rest: u64, small: &str| match rest {
        0 => format!("{first}{unit}"),
        rest => format!("{first}{unit}{rest}{small}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{days}d"),
        () if hours < 24 * 365 * 8 => two(years, "y", days % 365, "d"),
        () => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn check(pod: &Value, ready: &str, status: &str, restarts: &str) {
        let now = SystemTime::UNIX_EPOCH + NOW;
        let words = words(pod, now);
        let found = (&*words.ready, &*words.status, &*words.restarts);
        assert_eq!(found, (ready, status, restarts), "{pod}");
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "what json! makes is taken as it comes"
    )]
    fn pod(init: Value, main: Value, phase: &str) -> Value {
        let names = |statuses: &Value| -> Value {
            let all = list(statuses).iter();
            all.map(|one| json!({"name": one["name"], "restartPolicy": one["policy"]}))
                .collect()
        };
        json!({
            "metadata": {"name": "web"},
            "spec": {"initContainers": names(&init), "containers": names(&main)},
            "status": {"phase": phase, "initContainerStatuses": init, "containerStatuses": main},
        })
    }

    fn running(name: &str, ready: bool) -> Value {
        json!({"name": name, "ready": ready, "started": true, "restartCount": 0, "state": {"running": {}}})
    }

    fn waiting(name: &str, reason: &str) -> Value {
        json!({"name": name, "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}})
    }

    fn terminated(name: &str, code: i32, reason: &str) -> Value {
        json!({"name": name, "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason}}})
    }

    #[test]
    fn the_words_of_running_and_ended_pods() {
        let two = pod(
            json!([]),
            json!([running("a", true), running("b", false)]),
            "Running",
        );
        check(&two, "1/2", "Running", "0");
        let done = pod(
            json!([]),
            json!([terminated("a", 0, "Completed")]),
            "Succeeded",
        );
        check(&done, "0/1", "Completed", "0");
        let half = pod(
            json!([]),
            json!([terminated("a", 0, "Completed"), running("b", true)]),
            "Running",
        );
        check(&half, "1/2", "NotReady", "0");
        let bad = pod(json!([]), json!([terminated("a", 1, "Error")]), "Failed");
        check(&bad, "0/1", "Error", "0");
        let mut evicted = pod(json!([]), json!([]), "Failed");
        evicted["status"]["reason"] = "Evicted".into();
        check(&evicted, "0/0", "Evicted", "0");
        let mut leaving = pod(json!([]), json!([running("a", true)]), "Running");
        leaving["metadata"]["deletionTimestamp"] = "1970-01-12T13:46:40Z".into();
        check(&leaving, "1/1", "Terminating", "0");
    }

    #[test]
    fn the_words_of_pods_that_begin() {
        let creating = pod(
            json!([]),
            json!([waiting("a", "ContainerCreating")]),
            "Pending",
        );
        check(&creating, "0/1", "ContainerCreating", "0");
        let pulling = pod(json!([]), json!([waiting("a", "ErrImagePull")]), "Pending");
        check(&pulling, "0/1", "ErrImagePull", "0");
        let main = json!([waiting("a", "PodInitializing")]);
        let first =
            json!({"name": "i", "started": true, "restartCount": 0, "state": {"running": {}}});
        let init = pod(
            json!([terminated("h", 0, "Completed"), first]),
            main.clone(),
            "Pending",
        );
        check(&init, "0/1", "Init:1/2", "0");
        let failed = pod(
            json!([terminated("i", 7, "Error")]),
            main.clone(),
            "Pending",
        );
        check(&failed, "0/1", "Init:Error", "0");
        let looping = pod(
            json!([waiting("i", "CrashLoopBackOff")]),
            main.clone(),
            "Pending",
        );
        check(&looping, "0/1", "Init:CrashLoopBackOff", "0");
        let mut side = running("s", true);
        side["policy"] = "Always".into();
        let sidecar = pod(json!([side]), main, "Pending");
        check(&sidecar, "1/2", "PodInitializing", "0");
    }

    #[test]
    fn restarts_and_when() {
        let crashing = json!({"name": "a", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "1970-01-12T13:45:00.500Z"}}});
        check(
            &pod(json!([]), json!([crashing]), "Running"),
            "0/1",
            "CrashLoopBackOff",
            "3 (99s ago)",
        );
    }

    #[test]
    fn what_an_older_podkit_does_not_say_is_not_missed() {
        check(&json!({}), "0/0", "Unknown", "0");
        check(
            &json!({"status": {"phase": "Running"}}),
            "0/0",
            "Running",
            "0",
        );
    }

    #[test]
    fn ages_as_kubectl_writes_them() {
        let check = |seconds: u64, expected: &str| {
            assert_eq!(age(Duration::from_secs(seconds)), expected, "{seconds}");
        };
        check(0, "0s");
        check(119, "119s");
        check(120, "2m");
        check(200, "3m20s");
        check(600, "10m");
        check(3 * 3600, "3h");
        check(4 * 3600 + 300, "4h5m");
        check(9 * 3600, "9h");
        check(50 * 3600, "2d2h");
        check(10 * 86400, "10d");
        check(3 * 365 * 86400 + 86400, "3y1d");
        check(20 * 365 * 86400, "20y");
    }
}
