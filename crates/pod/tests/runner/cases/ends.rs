//! How a container and its pod come to their end, and what is said of it.

use super::*;

pub(super) fn grace_and_kill() {
    alone(|| {
        let spec = r#"
  terminationGracePeriodSeconds: 1
  containers:
  - {name: app, image: podkit, args: [app, stubborn]}
"#;
        let mut pod = Pod::start(&manifest("grace", spec), &[]);
        pod.ready();
        let begin = Instant::now();
        let (code, lines, _) = pod.stop();
        assert_eq!(code, Some(0));
        // One second, raised to the kubelet's minimum of two.
        let took = begin.elapsed();
        assert!((1900..15_000).contains(&took.as_millis()), "{took:?}");
        let end = lines
            .iter()
            .find(|line| line["state"] == "terminated")
            .expect("an end");
        assert_eq!((&end["exitCode"], &end["signal"]), (&137.into(), &9.into()));
        assert!(story(&lines).contains(&"app ExceededGracePeriod".to_owned()));
    });
}

pub(super) fn asked_twice_it_is_killed() {
    alone(|| {
        let spec = r#"
  terminationGracePeriodSeconds: 60
  containers:
  - {name: app, image: podkit, args: [app, stubborn]}
"#;
        let mut pod = Pod::start(&manifest("twice", spec), &[]);
        pod.ready();
        pod.signal(Signal::INT);
        pod.event("app", "Killing");
        pod.signal(Signal::INT);
        assert_eq!(pod.end().0, Some(1));
    });
}

pub(super) fn exit_codes() {
    let spec = |policy: &str, code: u8| {
        format!(
            "  restartPolicy: {policy}\n  terminationGracePeriodSeconds: 1\n  initContainers:\n  - {{name: side, image: podkit, args: [app, sleep], restartPolicy: Always}}\n  containers:\n  - {{name: app, image: podkit, args: [app, exit, \"{code}\", \"50\"]}}\n"
        )
    };
    let run = |policy, code, args: &[&str]| {
        let (exit, lines, said) = Pod::start(&manifest("code", &spec(policy, code)), args).end();
        let end = lines.last().expect("an end")["phase"].clone();
        (exit, end.as_str().unwrap_or(&said).to_owned())
    };
    alone(|| {
        assert_eq!(run("Never", 0, &[]), (Some(0), "Succeeded".to_owned()));
        assert_eq!(run("Never", 9, &[]), (Some(1), "Failed".to_owned()));
        assert_eq!(run("OnFailure", 0, &[]), (Some(0), "Succeeded".to_owned()));
        let from = &["--exit-code-from", "app"];
        assert_eq!(run("Always", 42, from), (Some(42), "Failed".to_owned()));
        let (exit, lines, said) = Pod::start(
            &manifest("code", &spec("Never", 0)),
            &["--exit-code-from", "ap"],
        )
        .end();
        assert_eq!((exit, lines.len()), (Some(2), 0));
        assert_eq!(
            said,
            "--exit-code-from: there is no container \"ap\"; did you mean app?\n"
        );
    });
}

pub(super) fn a_start_that_fails() {
    alone(|| {
        let spec = r#"
  restartPolicy: Never
  containers:
  - {name: app, image: podkit, command: [/nope]}
"#;
        let (code, lines, _) = Pod::start(&manifest("nope", spec), &[]).end();
        assert_eq!(code, Some(1));
        let failed = lines
            .iter()
            .find(|line| line["reason"] == "Failed")
            .expect("an event");
        let text = failed["message"].as_str().expect("text");
        assert!(
            text.starts_with("Error: ") && text.contains("/nope"),
            "{text}"
        );
        let end = lines
            .iter()
            .find(|line| line["state"] == "terminated")
            .expect("an end");
        assert_eq!(
            (&end["exitCode"], &end["reason"]),
            (&128.into(), &"StartError".into())
        );
    });
}

pub(super) fn termination_messages() {
    alone(|| {
        let spec = r#"
  restartPolicy: Never
  containers:
  - {name: said, image: podkit, args: [app, message, out of luck, "0"]}
  - {name: silent, image: podkit, args: [app, exit, "3"]}
  - {name: log, image: podkit, args: [app, exit, "4"], terminationMessagePolicy: FallbackToLogsOnError}
  - {name: well, image: podkit, args: [app, exit, "0"], terminationMessagePolicy: FallbackToLogsOnError}
"#;
        let (code, lines, said) = Pod::start(&manifest("message", spec), &[]).end();
        assert_eq!(code, Some(1), "{said}");
        let message = |container: &str| {
            let end = |line: &&serde_json::Value| {
                line["container"] == container && line["state"] == "terminated"
            };
            lines.iter().find(end).expect("its end")["message"].clone()
        };
        assert_eq!(message("said"), "out of luck");
        assert_eq!(message("silent"), serde_json::Value::Null);
        assert_eq!(message("log"), "exit 4\n");
        assert_eq!(message("well"), serde_json::Value::Null);
    });
}

pub(super) fn the_stop_signal_is_the_containers() {
    alone(|| {
        // SIGUSR1 is 10 on the machines that podkit runs on.
        let spec = r#"
  containers:
  - {name: app, image: podkit, args: [app, "on", "10"], lifecycle: {stopSignal: SIGUSR1}}
"#;
        let spec = format!("  os: {{name: linux}}\n{}", spec.trim_start_matches('\n'));
        let mut pod = Pod::start(&manifest("signal", &spec), &[]);
        pod.log("app", "waiting");
        let (code, lines, said) = pod.stop();
        assert_eq!(code, Some(0), "{said}");
        assert!(
            lines.iter().any(|line| line["line"] == "had 10"),
            "{lines:#?}"
        );
    });
}

pub(super) fn active_for_too_long() {
    alone(|| {
        let spec = r#"
  activeDeadlineSeconds: 1
  terminationGracePeriodSeconds: 1
  containers:
  - {name: app, image: podkit, args: [app, sleep]}
"#;
        let mut pod = Pod::start(&manifest("deadline", spec), &[]);
        let event = pod.wait("the deadline", |line| line["reason"] == "DeadlineExceeded");
        assert_eq!(
            event["message"],
            "Pod was active on the node longer than the specified deadline"
        );
        let (code, lines, said) = pod.end();
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(lines.last().expect("lines")["phase"], "Failed");
    });
}

pub(super) fn an_image_that_cannot_be_had() {
    alone(|| {
        // Nobody listens there.
        let spec = r#"
  containers:
  - {name: app, image: "127.0.0.1:1/nothing:1"}
"#;
        let mut pod = Pod::start(&manifest("pull", spec), &["--backoff-ms", "300"]);
        let failed = pod.event("app", "Failed")["message"].clone();
        let failed = failed.as_str().expect("text");
        assert!(
            failed.starts_with("Failed to pull image \"127.0.0.1:1/nothing:1\": "),
            "{failed}"
        );
        let error = pod.event("app", "Failed");
        assert_eq!(error["message"], "Error: ErrImagePull");
        let back_off = pod.event("app", "BackOff");
        assert_eq!(
            back_off["message"],
            "Back-off pulling image \"127.0.0.1:1/nothing:1\""
        );
        // And asked for again.
        pod.event("app", "Failed");
        let again = pod.event("app", "Failed")["message"].clone();
        assert_eq!(again, failed);
        assert_eq!(pod.stop().0, Some(0));
    });
}

pub(super) fn a_container_that_cannot_be_made() {
    alone(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_str().expect("UTF-8");
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).expect("a link");
        let spec = format!(
            r#"
  restartPolicy: Never
  containers:
  - name: out
    image: podkit
    args: [app, sleep]
    volumeMounts: [{{name: here, mountPath: /here, subPath: out, readOnly: true}}]
  - name: late
    image: podkit
    args: [app, sleep]
    securityContext: {{seccompProfile: {{type: Localhost, localhostProfile: late.json}}}}
  volumes:
  - {{name: here, hostPath: {{path: {path}}}}}
"#
        );
        let mut pod = Pod::start(&manifest("unmade", &spec), &["--seccomp-dir", path]);
        let waits = pod.wait("a state with a message", |line| {
            let waits = line["state"] == "waiting" && line["message"].is_string();
            line["container"] == "out" && waits
        });
        assert_eq!(waits["reason"], "CreateContainerConfigError");
        let failed = pod.event("out", "Failed");
        assert_eq!(
            failed["message"],
            "Error: subPath \"out\" of volume here leads out of the volume"
        );
        let failed = pod.event("late", "Failed")["message"].clone();
        let failed = failed.as_str().expect("text");
        assert!(failed.contains("late.json"), "{failed}");
        let state = pod.state_json("unmade");
        assert_eq!(state["status"]["phase"], "Pending");
        let late = &state["status"]["containerStatuses"][1];
        assert_eq!(late["state"]["waiting"]["reason"], "CreateContainerError");
        assert_eq!(late["restartCount"], 0);
        // What was missing is there: the next try is good.
        let all = "{\"defaultAction\": \"SCMP_ACT_ALLOW\"}";
        std::fs::write(dir.path().join("late.json"), all).expect("the profile");
        pod.event("late", "Started");
        pod.sleeping(1);
        assert_eq!(pod.state_json("unmade")["status"]["phase"], "Running");
        let (code, lines, said) = pod.stop();
        assert_eq!(code, Some(0), "{said}");
        let told = lines.iter().filter(|line| line["reason"] == "Failed");
        assert_eq!(told.count(), 2, "each once: {lines:#?}");
    });
}
