//! The cases. Each leaves the machine as it was; `alone` checks that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Machine, PATIENCE, Pod, free_port, full, manifest, story};

type Case = fn();

pub(crate) const ALL: &[(&str, Case)] = &[
    ("order_of_start_and_stop", order_of_start_and_stop),
    ("restarts_with_back_off", restarts_with_back_off),
    ("liveness_kills_and_restarts", liveness_kills_and_restarts),
    (
        "readiness_and_published_ports",
        readiness_and_published_ports,
    ),
    ("exec_probe_and_hooks", exec_probe_and_hooks),
    ("what_a_probe_wrote_is_told", what_a_probe_wrote_is_told),
    ("grace_and_kill", grace_and_kill),
    ("asked_twice_it_is_killed", asked_twice_it_is_killed),
    ("exit_codes", exit_codes),
    ("a_start_that_fails", a_start_that_fails),
    ("termination_messages", termination_messages),
    (
        "the_stop_signal_is_the_containers",
        the_stop_signal_is_the_containers,
    ),
    ("active_for_too_long", active_for_too_long),
    ("an_image_that_cannot_be_had", an_image_that_cannot_be_had),
    ("logs_apart_and_whole", logs_apart_and_whole),
    ("a_flood_holds_nobody_up", a_flood_holds_nobody_up),
    ("out_of_memory", out_of_memory),
    ("eviction", eviction),
    (
        "shared_processes_and_pod_json",
        shared_processes_and_pod_json,
    ),
    ("the_network_files", the_network_files),
    (
        "what_containers_write_is_closed_to_others",
        what_containers_write_is_closed_to_others,
    ),
    (
        "killed_it_leaves_nothing_running",
        killed_it_leaves_nothing_running,
    ),
    ("one_supervisor_per_pod", one_supervisor_per_pod),
    ("a_port_that_is_taken", a_port_that_is_taken),
    ("standard_output_goes_away", standard_output_goes_away),
    ("several_pods", several_pods),
    ("jobs_complete_and_fail", jobs_complete_and_fail),
    ("many_rounds_leak_nothing", many_rounds_leak_nothing),
];

/// Runs a case and looks whether anything is left.
fn alone(case: impl FnOnce()) {
    let before = Machine::look();
    case();
    // A process that was killed may still be on its way out.
    let end = Instant::now() + Duration::from_secs(5);
    while Machine::look() != before {
        assert!(
            Instant::now() < end,
            "before {before:?}\nafter {:?}",
            Machine::look()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn order_of_start_and_stop() {
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

fn restarts_with_back_off() {
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

fn liveness_kills_and_restarts() {
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

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn readiness_and_published_ports() {
    alone(|| {
        let port = free_port();
        let spec = r#"
  containers:
  - name: app
    image: podkit
    args: [app, serve, "PORT", "300"]
    ports: [{containerPort: PORT, name: http}]
    readinessProbe: {httpGet: {port: http, path: /}}
"#
        .replace("PORT", &port.to_string());
        let begin = Instant::now();
        let mut pod = Pod::start(&manifest("ready", &spec), &[]);
        pod.log("app", "serving");
        let serving = begin.elapsed();
        pod.ready();
        // Long before the period of ten seconds is over, and without a warning.
        assert!(begin.elapsed() - serving < Duration::from_millis(900));
        assert!(
            pod.seen.iter().all(|line| line["reason"] != "Unhealthy"),
            "{:#?}",
            pod.seen
        );
        let address = pod.wait("address", |line| line["type"] == "address");
        assert_eq!(address["url"], format!("http://127.0.0.1:{port}"));
        assert!(get(port).expect("an answer").ends_with("\r\n\r\nok"));
        assert_eq!(pod.stop().0, Some(0));
        assert!(get(port).is_err(), "the port is free again");
    });
}

fn exec_probe_and_hooks() {
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
fn what_a_probe_wrote_is_told() {
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

fn grace_and_kill() {
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
        assert!((1900..4000).contains(&took.as_millis()), "{took:?}");
        let end = lines
            .iter()
            .find(|line| line["state"] == "terminated")
            .expect("an end");
        assert_eq!((&end["exitCode"], &end["signal"]), (&137.into(), &9.into()));
        assert!(story(&lines).contains(&"app ExceededGracePeriod".to_owned()));
    });
}

fn asked_twice_it_is_killed() {
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

fn exit_codes() {
    let spec = |policy: &str, code: u8| {
        format!(
            "  restartPolicy: {policy}\n  initContainers:\n  - {{name: side, image: podkit, args: [app, sleep], restartPolicy: Always}}\n  containers:\n  - {{name: app, image: podkit, args: [app, exit, \"{code}\", \"50\"]}}\n"
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

fn a_start_that_fails() {
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

fn termination_messages() {
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

fn the_stop_signal_is_the_containers() {
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

fn active_for_too_long() {
    alone(|| {
        let spec = r#"
  activeDeadlineSeconds: 1
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

fn an_image_that_cannot_be_had() {
    alone(|| {
        // Nobody listens there.
        let spec = r#"
  containers:
  - {name: app, image: "127.0.0.1:1/nothing:1"}
"#;
        let mut pod = Pod::start(&manifest("pull", spec), &["--backoff-ms", "1000"]);
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

fn logs_apart_and_whole() {
    alone(|| {
        let spec = "  containers:\n  - {name: app, image: podkit, args: [app, both]}\n";
        let mut pod = Pod::start(&manifest("logs", spec), &[]);
        let partial = pod.log("app", "no end");
        assert_eq!(partial["partial"], true);
        assert_eq!(partial["line"], "no end \u{1b}[2J");
        let stream = |pod: &Pod, text: &str| {
            let line = pod
                .seen
                .iter()
                .find(|line| line["line"] == text)
                .expect("a line");
            line["stream"].clone()
        };
        assert_eq!(stream(&pod, "to stdout"), "stdout");
        assert_eq!(stream(&pod, "to stderr"), "stderr");
        assert_eq!(pod.stop().0, Some(0));
    });
}

fn a_flood_holds_nobody_up() {
    alone(|| {
        let port = free_port();
        let spec = r#"
  terminationGracePeriodSeconds: 2
  containers:
  - {name: flood, image: podkit, args: [app, flood]}
  - name: app
    image: podkit
    args: [app, serve, "PORT", "1500"]
    ports: [{containerPort: PORT}]
    readinessProbe: {tcpSocket: {port: PORT}, periodSeconds: 1}
"#
        .replace("PORT", &port.to_string());
        let mut pod = Pod::start(&manifest("flood", &spec), &[]);
        pod.wait("ready app", |line| {
            line["type"] == "container" && line["container"] == "app" && line["ready"] == true
        });
        let begin = Instant::now();
        get(port).expect("an answer");
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "{:?}",
            begin.elapsed()
        );
        let resident = resident_kib(pod.child.id());
        assert!(resident < 24 * 1024, "{resident} KiB");
        assert_eq!(pod.stop().0, Some(0));
    });
}

/// In KiB. This program is not optimised and large: the figure that counts is measured by the benchmark.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}

fn out_of_memory() {
    if !std::path::Path::new("/sys/fs/cgroup/memory").exists()
        && !std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .is_ok_and(|all| all.contains("memory"))
    {
        println!("  (no memory controller here)");
        return;
    }
    alone(|| {
        let spec = r#"
  restartPolicy: Never
  containers:
  - {name: app, image: podkit, args: [app, hog, "200"], resources: {limits: {memory: 48Mi}}}
"#;
        let (code, lines, _) = Pod::start(&manifest("oom", spec), &[]).end();
        assert_eq!(code, Some(1));
        let end = lines
            .iter()
            .find(|line| line["state"] == "terminated")
            .expect("an end");
        assert_eq!(
            (&end["exitCode"], &end["reason"]),
            (&137.into(), &"OOMKilled".into())
        );
    });
}

fn eviction() {
    alone(|| {
        let spec = r#"
  volumes: [{name: data, emptyDir: {sizeLimit: 1Mi}}]
  containers:
  - name: app
    image: podkit
    args: [app, fill, /data/file, "2048"]
    volumeMounts: [{name: data, mountPath: /data}]
"#;
        let mut pod = Pod::start(&manifest("evict", spec), &[]);
        let evicted = pod.wait("Evicted", |line| line["reason"] == "Evicted");
        assert_eq!(
            evicted["message"],
            "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\"."
        );
        let (code, lines, _) = pod.end();
        assert_eq!(
            (code, &lines.last().expect("an end")["phase"]),
            (Some(1), &"Failed".into())
        );
    });
}

fn shared_processes_and_pod_json() {
    alone(|| {
        let spec = r#"
  shareProcessNamespace: true
  restartPolicy: Never
  containers:
  - {name: app, image: podkit, args: [app, orphan]}
  - {name: look, image: podkit, args: [app, exit, "0", "100"], lifecycle: {postStart: {exec: {command: [/podkit, app, cat, /run/podkit/pod.json]}}}}
  - {name: cat, image: podkit, args: [app, cat, /run/podkit/pod.json]}
"#;
        // The orphan's pipes are closed with it, or this would not end.
        let (code, lines, said) = Pod::start(&manifest("share", spec), &[]).end();
        assert_eq!(code, Some(0), "{said} {lines:#?}");
        let cat = lines
            .iter()
            .find(|line| line["type"] == "log" && line["container"] == "cat");
        let line = cat.expect("pod.json")["line"].as_str().expect("text");
        let json: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(
            (&json["pod"], &json["namespace"]),
            (&full("share").into(), &"default".into())
        );
        for container in json["containers"].as_array().expect("containers") {
            assert!(container["pid"].as_i64().expect("a pid") > 1);
            assert!(
                container["started"]
                    .as_str()
                    .expect("a time")
                    .ends_with('Z')
            );
        }
    });
}

/// Root in a container makes a set-user-id program of every file of the machine that it can write to: no other user of the
/// machine may reach one.
fn what_containers_write_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    fn walk(dir: &std::path::Path, closed: bool, found: &mut Vec<(std::path::PathBuf, bool)>) {
        let look = std::fs::metadata(dir).expect("a directory");
        let mode = look.permissions().mode();
        let closed = closed || mode & 0o077 == 0;
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let metadata = entry.metadata().expect("an entry");
            let kind = metadata.file_type();
            if kind.is_dir() {
                walk(&entry.path(), closed, found);
            } else if kind.is_file() && metadata.permissions().mode() & 0o4000 != 0 {
                found.push((entry.path(), closed));
            }
        }
    }
    alone(|| {
        let spec = r#"
  containers:
  - name: app
    image: podkit
    args: [app, suid, /etc/hosts, /etc/hostname, /etc/resolv.conf, /dev/termination-log, /data/x]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - {name: data, emptyDir: {}}
"#;
        let mut pod = Pod::start(&manifest("suid", spec), &[]);
        pod.log("app", "made");
        let mut found = Vec::new();
        walk(&pod.dir.path().join("state"), false, &mut found);
        assert_eq!(found.len(), 5, "{found:?}");
        let open: Vec<_> = found.iter().filter(|(_, closed)| !closed).collect();
        assert!(open.is_empty(), "{open:?}");
        pod.stop();
    });
}

fn the_network_files() {
    alone(|| {
        let spec = r#"
  restartPolicy: Never
  hostname: box
  containers:
  - {name: app, image: podkit, args: [app, cat, /etc/hostname, /etc/hosts, /etc/resolv.conf], env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}
"#;
        let (code, lines, _) = Pod::start(&manifest("etc", spec), &[]).end();
        assert_eq!(code, Some(0));
        let log: Vec<&str> = lines
            .iter()
            .filter_map(|line| line["line"].as_str())
            .collect();
        assert_eq!(log[0], "box");
        let hosts = "# Kubernetes-managed hosts file.";
        assert_eq!(log[1..3], [hosts, "127.0.0.1\tlocalhost"], "{log:#?}");
        assert!(
            log.iter()
                .any(|line| line.starts_with("10.87.") && line.ends_with("\tbox"))
        );
    });
}

fn killed_it_leaves_nothing_running() {
    alone(|| {
        let spec = r#"
  volumes: [{name: data, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]
  containers:
  - {name: app, image: podkit, args: [app, stubborn], volumeMounts: [{name: data, mountPath: /data}, {name: memory, mountPath: /memory}]}
"#;
        let manifest = manifest("killed", spec);
        let mut pod = Pod::start(&manifest, &[]);
        pod.ready();
        pod.signal(Signal::KILL);
        pod.child.wait().expect("its end");
        let dir = std::mem::replace(&mut pod.dir, tempfile::tempdir().expect("a directory"));
        let end = Instant::now() + Duration::from_secs(5);
        while !Machine::look().processes().is_empty() {
            assert!(Instant::now() < end, "still running: {:?}", Machine::look());
            std::thread::sleep(Duration::from_millis(10));
        }
        // Another pod's start takes away what is left of it.
        let spec = "  containers:\n  - {name: app, image: podkit, args: [app, sleep]}\n";
        let mut next = Pod::start_in(dir, &crate::support::manifest("next", spec), &[]);
        next.log("app", "sleeping");
        let state = next.dir.path().join("state");
        for side in ["run", "lib"] {
            assert!(!state.join(side).join("pods").join(full("killed")).exists());
        }
        assert_eq!(next.stop().0, Some(0));
    });
}

fn one_supervisor_per_pod() {
    alone(|| {
        let spec = "  containers:\n  - {name: app, image: podkit, args: [app, sleep]}\n";
        let manifest = manifest("once", spec);
        let mut first = Pod::start(&manifest, &[]);
        first.log("app", "sleeping");
        let state = first.dir.path().join("state");
        let output = std::process::Command::new("/proc/self/exe")
            .args(["run", "--state-dir"])
            .arg(&state)
            .arg(first.dir.path().join("pod.yaml"))
            .output()
            .expect("a second run");
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let pid = first.child.id();
        assert_eq!(
            said,
            format!(
                "pod {} runs already (its supervisor is process {pid}): stop it first\n",
                full("once")
            )
        );
        assert_eq!(first.stop().0, Some(0));
    });
}

fn a_port_that_is_taken() {
    alone(|| {
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = taken.local_addr().expect("its address").port();
        let spec = "  containers:\n  - {name: app, image: podkit, args: [app, sleep], ports: [{containerPort: PORT}]}\n".replace("PORT", &port.to_string());
        let (code, lines, said) = Pod::start(&manifest("taken", &spec), &[]).end();
        assert_eq!((code, lines.len()), (Some(1), 0));
        assert!(
            said.starts_with(&format!(
                "port {port} of container app: 127.0.0.1:{port} is taken by "
            )),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1);
        let mut pod = Pod::start(&manifest("taken", &spec), &["--no-publish"]);
        pod.log("app", "sleeping");
        assert_eq!(pod.stop().0, Some(0));
    });
}

fn standard_output_goes_away() {
    alone(|| {
        let port = free_port();
        let spec = r#"
  terminationGracePeriodSeconds: 2
  containers:
  - {name: flood, image: podkit, args: [app, flood]}
  - {name: app, image: podkit, args: [app, serve, "PORT"], ports: [{containerPort: PORT}]}
"#
        .replace("PORT", &port.to_string());
        let mut pod = Pod::start(&manifest("pipe", &spec), &[]);
        pod.log("app", "serving");
        pod.close_stdout();
        std::thread::sleep(Duration::from_millis(300));
        get(port).expect("the pod goes on");
        assert_eq!(pod.stop().0, Some(0));
    });
}

fn several_pods() {
    alone(|| {
        let spec = |code| {
            format!(
                "  restartPolicy: Never\n  containers:\n  - {{name: app-{code}, image: podkit, args: [app, exit, \"{code}\", \"100\"]}}\n"
            )
        };
        let both = format!(
            "{}---\n{}",
            manifest("a", &spec(0)),
            manifest("b", &spec(5))
        );
        let (code, lines, said) = Pod::start(&both, &[]).end();
        assert_eq!(code, Some(1), "{said}");
        let pods: Vec<_> = lines
            .iter()
            .filter(|line| line["type"] == "end")
            .map(|line| line["pod"].clone())
            .collect();
        assert_eq!(pods.len(), 2, "{lines:#?}");
        let (code, _, said) = Pod::start(&both, &["--exit-code-from", "app-5"]).end();
        assert_eq!(code, Some(5), "{said}");
        let head = format!("{}/app-0", full("a"));
        let mut pod = Pod::start(&both, &["--text"]);
        pod.wait("prefixed line", |line| {
            line.as_str()
                .is_some_and(|line| line.starts_with(&head) && line.contains("| exit 0"))
        });
        assert_eq!(pod.end().0, Some(1));
        // A stop reaches both, and so does this process's end.
        let spec = "  containers:\n  - {name: app, image: podkit, args: [app, sleep]}\n";
        let both = format!("{}---\n{}", manifest("a", spec), manifest("b", spec));
        let mut pod = Pod::start(&both, &[]);
        pod.log("app", "sleeping");
        pod.log("app", "sleeping");
        assert_eq!(pod.stop().0, Some(0));
        let mut pod = Pod::start(&both, &[]);
        // Both have their handlers: one that has none sits its grace period out.
        pod.log("app", "sleeping");
        pod.log("app", "sleeping");
        pod.signal(Signal::KILL);
    });
}

/// A Job of one container given as YAML, and fields of its spec.
fn job(name: &str, fields: &str, policy: &str, container: &str) -> String {
    let name = full(name);
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {fields}\n  template:\n    spec:\n      restartPolicy: {policy}\n      containers:\n      - {container}\n"
    )
}

fn jobs_complete_and_fail() {
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

fn many_rounds_leak_nothing() {
    alone(|| {
        let spec = r#"
  containers:
  - {name: app, image: podkit, args: [app, exit, "0", "1"]}
"#;
        // A schedule so short that the container runs on and on.
        let mut pod = Pod::start(&manifest("rounds", spec), &["--backoff-ms", "1"]);
        let look = |pod: &Pod| {
            let id = pod.child.id();
            let open = std::fs::read_dir(format!("/proc/{id}/fd"))
                .expect("fd")
                .count();
            (open, resident_kib(id))
        };
        let restart = |pod: &mut Pod, rounds: usize| {
            for _ in 0..rounds {
                pod.event("app", "Started");
            }
        };
        restart(&mut pod, 60);
        pod.state("app", "terminated");
        let (open, resident) = look(&pod);
        restart(&mut pod, 140);
        pod.state("app", "terminated");
        let (open_later, resident_later) = look(&pod);
        assert!(open_later <= open + 8, "{open} → {open_later} descriptors");
        assert!(
            resident_later <= resident + 1024,
            "{resident} → {resident_later} KiB"
        );
        assert_eq!(pod.stop().0, Some(0));
    });
}
