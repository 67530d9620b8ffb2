//! What starts, restarts and stops when.

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
        let mut pod = Pod::start(&manifest("crash", spec), &["--backoff-ms", "2000"]);
        let first = pod.state("app", "terminated");
        assert_eq!(
            (&first["exitCode"], &first["reason"]),
            (&3.into(), &"Error".into())
        );
        // The first restart is at once.
        pod.event("app", "Started");
        pod.event("app", "BackOff");
        let waits = pod.state_json("crash")["status"]["containerStatuses"][0].clone();
        assert_eq!(
            waits["state"]["waiting"]["reason"], "CrashLoopBackOff",
            "{waits}"
        );
        assert_eq!(waits["lastState"]["terminated"]["exitCode"], 3);
        let begin = Instant::now();
        pod.event("app", "Started");
        assert!(
            begin.elapsed() > Duration::from_millis(1000),
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(pod.stop().0, Some(0));
    });
}

pub(super) fn liveness_kills_and_restarts() {
    alone(|| {
        let spec = r#"
  containers:
  - name: app
    image: podkit
    args: [app, sleep]
    livenessProbe: {tcpSocket: {port: 9}, periodSeconds: 1, failureThreshold: 2}
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
        pod.log("app", "sleeping");
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
      postStart: {exec: {command: [/podkit, app, exit, "1"]}}
"#;
        let mut pod = Pod::start(&manifest("hooks", spec), &[]);
        pod.wait("ready app", |line| {
            line["type"] == "container" && line["container"] == "app" && line["ready"] == true
        });
        let failed = pod.event("bad", "FailedPostStartHook");
        assert_eq!(failed["level"], "Warning");
        pod.event("bad", "Killing");
        pod.state("bad", "terminated");
        pod.wait_or_seen_log("app", "sleeping");
        let (code, lines, _) = pod.stop();
        assert_eq!(code, Some(0));
        assert!(
            story(&lines).contains(&"app FailedPreStopHook".to_owned()),
            "{lines:#?}"
        );
    });
}

/// A command that writes as it ends: the end may be seen first.
pub(super) fn what_a_probe_wrote_is_told() {
    alone(|| {
        let spec = r#"
  terminationGracePeriodSeconds: 5
  containers:
  - name: app
    image: podkit
    args: [app, sleep]
    readinessProbe: {exec: {command: [/podkit, app, exit, "1"]}, periodSeconds: 1}
"#;
        let mut pod = Pod::start(&manifest("wrote", spec), &[]);
        for _ in 0..5 {
            let told = pod.event("app", "Unhealthy");
            assert_eq!(told["message"], "Readiness probe failed: exit 1");
        }
        assert_eq!(pod.stop().0, Some(0));
    });
}
