//! Jobs.

use super::*;

/// A Job of one container given as YAML, and fields of its spec.
fn job(name: &str, fields: &str, policy: &str, container: &str) -> String {
    let name = full(name);
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {fields}\n  template:\n    spec:\n      restartPolicy: {policy}\n      containers:\n      - {container}\n"
    )
}

pub(super) fn jobs_complete_and_fail() {
    alone(|| {
        // Each index once, two at a time, each under its own name.
        let indexed = job(
            "index",
            "completions: 3\n  parallelism: 2\n  completionMode: Indexed",
            "Never",
            r#"{name: app, image: podkit, args: [app, exit, "0", "50"]}"#,
        );
        let (code, lines, said) = Pod::start(&indexed, &[]).end();
        assert_eq!(code, Some(0), "{said}\n{lines:#?}");
        let mut pods: Vec<String> = lines
            .iter()
            .filter(|line| line["type"] == "end")
            .filter_map(|line| line["pod"].as_str().map(str::to_owned))
            .collect();
        pods.sort();
        for (index, pod) in pods.iter().enumerate() {
            let start = format!("{}-{index}-", full("index"));
            let suffix = pod.strip_prefix(&start).unwrap_or_default();
            assert_eq!(suffix.len(), 5, "{pods:?}");
        }
        assert_eq!(pods.len(), 3);
        let told = lines.last().expect("lines");
        assert_eq!(told["reason"], "Completed", "{lines:#?}");

        // Three pods fail: one more than may.
        let failing = job(
            "fails",
            "backoffLimit: 2",
            "Never",
            r#"{name: app, image: podkit, args: [app, exit, "3"]}"#,
        );
        let (code, lines, _) = Pod::start(&failing, &["--backoff-ms", "20"]).end();
        assert_eq!(code, Some(1));
        let ends = lines.iter().filter(|line| line["type"] == "end").count();
        assert_eq!(ends, 3, "{lines:#?}");
        assert_eq!(
            lines.last().expect("lines")["message"],
            "Job has reached the specified backoff limit"
        );

        // Restarts count, too; the pod is stopped then.
        let failing = job(
            "again",
            "backoffLimit: 2",
            "OnFailure",
            r#"{name: app, image: podkit, args: [app, exit, "3"]}"#,
        );
        let (code, lines, _) = Pod::start(&failing, &["--backoff-ms", "20"]).end();
        assert_eq!(code, Some(1));
        let ends = lines.iter().filter(|line| line["type"] == "end").count();
        assert_eq!(ends, 1, "{lines:#?}");
        assert_eq!(
            lines.last().expect("lines")["reason"],
            "BackoffLimitExceeded"
        );

        // A stop is no success.
        let long = job(
            "long",
            "backoffLimit: 2",
            "Never",
            "{name: app, image: podkit, args: [app, sleep]}",
        );
        let mut pod = Pod::start(&long, &[]);
        pod.log("app", "sleeping");
        assert_eq!(pod.stop().0, Some(1));
    });
}

pub(super) fn a_pod_that_is_stopped_by_hand_has_not_succeeded() {
    alone(|| {
        let sleeps = job(
            "byhand",
            "backoffLimit: 3",
            "Never",
            "{name: app, image: podkit, args: [app, sleep]}",
        );
        let mut pod = Pod::start(&sleeps, &["--backoff-ms", "20"]);
        pod.ready();
        pod.sleeping(1);
        let name = |pod: &Pod| {
            let line = pod.seen.last().expect("a line")["pod"].clone();
            line.as_str().expect("a name").to_owned()
        };
        let first = name(&pod);
        let state = pod.dir.path().join("state/run/pods").join(&first);
        let state = std::fs::read(state.join("state.json")).expect("state.json");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        let supervisor = &state["metadata"]["annotations"]["podkit.dev/supervisor"];
        let pid = supervisor.as_str().and_then(|pid| pid.parse().ok());
        let pid = rustix::process::Pid::from_raw(pid.expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, Signal::TERM).expect("it lives");
        // It took that well, and another one does its work all the same.
        pod.ready();
        pod.sleeping(2);
        assert_ne!(name(&pod), first);
        let (code, lines, _) = pod.stop();
        assert_eq!(code, Some(1), "{lines:#?}");
        let of_job = |line: &&serde_json::Value| line["type"] == "event" && line["job"] == "byhand";
        let completed = lines
            .iter()
            .filter(of_job)
            .any(|line| line["reason"] == "Completed");
        assert!(!completed, "{lines:#?}");
    });
}
