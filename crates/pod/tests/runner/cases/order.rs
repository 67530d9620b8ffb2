//! What starts, restarts and stops when.

use std::collections::BTreeSet;

use super::*;

pub(super) fn order_of_start_and_stop() {
    alone(|| {
        let spec = r#"
  terminationGracePeriodSeconds: 5
  initContainers:
  - {name: init, image: podkit, args: [app, exit, "0"]}
  - {name: side, image: podkit, args: [app, sleep], restartPolicy: Always}
  containers:
  - {name: one, image: podkit, args: [app, sleep]}
  - {name: two, image: podkit, args: [app, sleep]}
"#;
        let mut pod = Pod::start(&manifest("order", spec), &[]);
        pod.log("side", "sleeping");
        // Each must have its handler before it is asked to end.
        pod.wait_or_seen_log("one", "sleeping");
        pod.wait_or_seen_log("two", "sleeping");
        let (code, lines, said) = pod.stop();
        assert_eq!(code, Some(0), "{said}");
        let story = story(&lines);
        let asked = story.iter().position(|word| word == "pod Killing");
        let (start, stop) = story.split_at(asked.expect("a stop"));
        let expected = [
            "init Started",
            "init Completed",
            "side Started",
            "one Started",
            "two Started",
        ];
        assert_eq!(start, expected);
        assert_eq!(stop[..3], ["pod Killing", "one Killing", "two Killing"]);
        assert_eq!(stop[5..], ["side Killing", "side Completed"]);
        assert_eq!(lines.last().expect("lines")["type"], "end");
    });
}

pub(super) fn restarts_with_back_off() {
    alone(|| {
        let spec = r#"
  containers:
  - {name: app, image: podkit, args: [app, exit, "3"]}
"#;
        let mut pod = Pod::start(&manifest("crash", spec), &["--backoff-ms", "800"]);
        let first = pod.state("app", "terminated");
        let begin = Instant::now();
        assert_eq!(
            (&first["exitCode"], &first["reason"]),
            (&3.into(), &"Error".into())
        );
        // The first restart is at once.
        pod.event("app", "Started");
        // Who looks too late sees it run again; the next wait is twice as long.
        let waits = (0..5).map(|_| {
            pod.event("app", "BackOff");
            pod.state_json("crash")["status"]["containerStatuses"][0].clone()
        });
        let mut waits = waits.skip_while(|now| now["state"]["waiting"].is_null());
        let waits = waits.next().expect("a wait");
        assert_eq!(
            waits["state"]["waiting"]["reason"], "CrashLoopBackOff",
            "{waits}"
        );
        assert_eq!(waits["lastState"]["terminated"]["exitCode"], 3);
        pod.event("app", "Started");
        assert!(
            begin.elapsed() > Duration::from_millis(400),
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(pod.stop().0, Some(0));
    });
}

pub(super) fn liveness_kills_and_restarts() {
    alone(|| {
        let spec = r#"
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: podkit
    args: [app, sleep]
    livenessProbe: {tcpSocket: {port: 9}, periodSeconds: 1, failureThreshold: 1}
"#;
        let mut pod = Pod::start(&manifest("live", spec), &[]);
        let unhealthy = pod.event("app", "Unhealthy")["message"].clone();
        let text = unhealthy.as_str().expect("text");
        assert!(
            text.starts_with("Liveness probe failed: dial tcp 10.87."),
            "{text}"
        );
        assert!(text.ends_with(":9: connect: connection refused"), "{text}");
        let killing = pod.event("app", "Killing");
        let words = pod.seen.iter().filter(|line| line["line"] == "sleeping");
        let words = words.count();
        assert_eq!(
            killing["message"],
            "Container app failed liveness probe, will be restarted"
        );
        let started = pod.event("app", "Started");
        assert_eq!(started["container"], "app");
        assert_eq!(
            pod.state_json("live")["status"]["containerStatuses"][0]["restartCount"],
            1
        );
        pod.sleeping(words + 1);
        assert_eq!(pod.stop().0, Some(0));
    });
}

pub(super) fn exec_probe_and_hooks() {
    alone(|| {
        let spec = r#"
  terminationGracePeriodSeconds: 5
  volumes: [{name: tmp, emptyDir: {}}]
  containers:
  - name: app
    image: podkit
    args: [app, sleep]
    volumeMounts: [{name: tmp, mountPath: /tmp}]
    readinessProbe: {exec: {command: [/podkit, app, exists, /tmp/ready]}, periodSeconds: 1}
    lifecycle:
      postStart: {exec: {command: [/podkit, app, touch, /tmp/ready]}}
      preStop: {exec: {command: [/podkit, app, exit, "7"]}}
  - name: bad
    image: podkit
    args: [app, sleep]
    lifecycle:
      postStart: {exec: {command: [/podkit, app, exit, "1", "200"]}}
"#;
        let mut pod = Pod::start(&manifest("hooks", spec), &["--backoff-ms", "60000"]);
        pod.wait("ready app", |line| {
            line["type"] == "container" && line["container"] == "app" && line["ready"] == true
        });
        // After its second end it is not started for a minute: nothing of it is asked to end that can't hear yet.
        pod.until("the ends of bad", 2, |line| {
            line["container"] == "bad" && line["state"] == "terminated"
        });
        pod.wait_or_seen_log("app", "sleeping");
        let (code, lines, _) = pod.stop();
        assert_eq!(code, Some(0));
        let of_bad = |reason: &str| {
            let is =
                |line: &&serde_json::Value| line["container"] == "bad" && line["reason"] == reason;
            lines
                .iter()
                .find(is)
                .unwrap_or_else(|| panic!("no {reason}: {lines:#?}"))
        };
        assert_eq!(of_bad("FailedPostStartHook")["level"], "Warning");
        of_bad("Killing");
        assert!(
            story(&lines).contains(&"app FailedPreStopHook".to_owned()),
            "{lines:#?}"
        );
    });
}

/// A command that writes as it ends: the end may be seen first. Several of them are several occasions for it.
pub(super) fn what_a_probe_wrote_is_told() {
    alone(|| {
        let mut spec = "  terminationGracePeriodSeconds: 1\n  containers:\n".to_owned();
        let mut untold: BTreeSet<String> = (0..5).map(|n| format!("app-{n}")).collect();
        for name in &untold {
            spec += &format!(
                r#"
  - name: {name}
    image: podkit
    args: [app, sleep]
    readinessProbe: {{exec: {{command: [/podkit, app, exit, "1"]}}, timeoutSeconds: 20, periodSeconds: 1}}
"#
            );
        }
        let mut pod = Pod::start(&manifest("wrote", &spec), &[]);
        while !untold.is_empty() {
            let told = pod.wait("another one", |line| line["reason"] == "Unhealthy");
            assert_eq!(told["message"], "Readiness probe failed: exit 1");
            untold.remove(told["container"].as_str().expect("a name"));
        }
        assert_eq!(pod.stop().0, Some(0));
    });
}
