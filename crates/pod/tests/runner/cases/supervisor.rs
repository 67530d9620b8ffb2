//! The supervisor itself: one for each pod, and nothing is left when it has gone.

use super::*;

pub(super) fn shared_processes_and_pod_json() {
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

pub(super) fn killed_it_leaves_nothing_running() {
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
        let end = Instant::now() + Duration::from_secs(30);
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

pub(super) fn one_supervisor_per_pod() {
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

pub(super) fn several_pods() {
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

pub(super) fn many_rounds_leak_nothing() {
    alone(|| {
        let spec = r#"
  containers:
  - {name: app, image: podkit, args: [app, exit, "0", "1"]}
"#;
        // A schedule so short that the container runs on and on.
        let mut pod = Pod::start(&manifest("rounds", spec), &["--backoff-ms", "1"]);
        let look = |pod: &Pod| {
            let id = pod.child.id();
            // The least of some: a pipe of a start that is under way is none that stays.
            let open = (0..20).map(|_| {
                std::thread::sleep(Duration::from_millis(2));
                std::fs::read_dir(format!("/proc/{id}/fd"))
                    .expect("fd")
                    .count()
            });
            (open.min().expect("a look"), resident_kib(id))
        };
        let restart = |pod: &mut Pod, rounds: usize| {
            for _ in 0..rounds {
                pod.event("app", "Started");
            }
        };
        restart(&mut pod, 30);
        pod.state("app", "terminated");
        let (open, resident) = look(&pod);
        restart(&mut pod, 60);
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

pub(super) fn two_namespaces_have_a_pod_of_the_same_name() {
    alone(|| {
        let spec = "  containers:\n  - {name: app, image: podkit, args: [app, sleep]}\n";
        let one = manifest("same", spec);
        let other = one.replace("metadata:\n", "metadata:\n  namespace: prod\n");
        let mut pods = Pod::start(&format!("{one}---\n{other}"), &[]);
        for namespace in ["default", "prod"] {
            let ready = |line: &serde_json::Value| {
                line["type"] == "pod" && line["namespace"] == namespace && line["ready"] == true
            };
            // Before it has said something it may not have its handler yet, and the kernel keeps SIGTERM from a first process without one.
            let said =
                |line: &serde_json::Value| line["type"] == "log" && line["namespace"] == namespace;
            for (what, there) in [("ready", &ready as &dyn Fn(&_) -> bool), ("a line", &said)] {
                if !pods.seen.iter().any(there) {
                    pods.wait(what, there);
                }
            }
        }
        let machine = podkit_pod::control::Machine::at(Some(&pods.dir.path().join("state")));
        let address = |namespace: &str| {
            let found = machine.pod(namespace, &full("same")).expect("it is there");
            found.pod["status"]["podIP"]
                .as_str()
                .expect("an address")
                .to_owned()
        };
        assert_ne!(address("default"), address("prod"));
        let (code, lines, said) = pods.stop();
        assert_eq!(code, Some(0), "{said} {lines:#?}");
    });
}
