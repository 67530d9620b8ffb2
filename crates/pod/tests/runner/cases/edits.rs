//! The files of a pod that runs are edited.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

impl Pod {
    fn edit(&self, text: &str) {
        std::fs::write(self.dir.path().join("pod.yaml"), text).expect("the manifest");
    }

    /// Waits for an event of the pod itself.
    fn told(&mut self, reason: &str) -> String {
        let line = self.wait(reason, |line| {
            line["type"] == "event" && line["reason"] == reason && line["container"].is_null()
        });
        line["message"].as_str().expect("a message").to_owned()
    }

    fn process(&self, pod: &str, container: &str) -> Value {
        let state = self.state_json(pod);
        let lists = ["containerStatuses", "initContainerStatuses"];
        let all = lists
            .iter()
            .filter_map(|list| state["status"][list].as_array());
        let one = all.flatten().find(|one| one["name"] == container);
        one.map_or(Value::Null, |one| one["containerID"].clone())
    }
}

const LIVE: &str = r#"
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: podkit
    args: [app, follow, /v]
    env: [{name: WORD, valueFrom: {configMapKeyRef: {name: c, key: a}}}]
    volumeMounts:
    - {name: v, mountPath: /v}
    - {name: v, mountPath: /one, subPath: a}
  volumes:
  - name: v
    projected:
      sources:
      - configMap: {name: c}
      - downwardAPI: {items: [{path: label, fieldRef: {fieldPath: "metadata.labels['tier']"}}]}
"#;

fn live(value: &str) -> String {
    let pod =
        manifest("live", LIVE).replace("spec:", &format!("  labels: {{tier: {value}}}\nspec:"));
    format!(
        "{pod}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{a: {value}, b: {value}}}\n"
    )
}

pub(super) fn volumes_follow_their_files() {
    alone(|| {
        let mut pod = Pod::start(&live("v0"), &[]);
        pod.log("app", "sees v0 v0 v0 one=v0 env=v0");
        let before = pod.process("live", "app");
        for round in 1..=5 {
            pod.edit(&live(&format!("v{round}")));
            // Neither what is mounted by subPath nor a variable of a process follows.
            pod.log(
                "app",
                &format!("sees v{round} v{round} v{round} one=v0 env=v0"),
            );
        }
        pod.edit("kind: [\n");
        let refused = pod.told("ManifestRefused");
        assert!(refused.contains("pod.yaml:"), "{refused}");
        let text = live("v6");
        let (alone, _) = text.split_once("---").expect("two documents");
        pod.edit(alone);
        let gone = pod.told("FailedMount");
        assert!(gone.contains("ConfigMap \"c\" is gone"), "{gone}");
        // The label has followed all the same.
        pod.log("app", "sees v5 v5 v6 one=v0 env=v0");
        assert_eq!(pod.process("live", "app"), before);
        assert_eq!(pod.state_json("live")["metadata"]["labels"]["tier"], "v6");
        let (code, lines, said) = pod.stop();
        assert_eq!(code, Some(0), "{said}");
        let torn = lines.iter().find(|line| line["line"] == "torn");
        assert_eq!(torn, None);
        let starts = story(&lines)
            .into_iter()
            .filter(|word| word == "app Started");
        assert_eq!(starts.count(), 1);
    });
}

fn watched(app: &str, adapter: &str, more: &str) -> String {
    let spec = format!(
        r#"
  terminationGracePeriodSeconds: 5
  initContainers:
  - {{name: adapter, image: podkit, restartPolicy: Always, args: [app, sleep, {adapter}]}}
  containers:
  - name: app
    image: podkit
    args: [app, sleep, {app}]
    env: [{{name: WORD, valueFrom: {{configMapKeyRef: {{name: c, key: k}}}}}}]
{more}"#
    );
    manifest("watched", &spec)
}

fn map(value: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{k: {value}}}\n")
}

pub(super) fn only_what_changed_is_restarted() {
    alone(|| {
        let text = |app: &str, adapter: &str, more: &str, value: &str| {
            watched(app, adapter, more) + &map(value)
        };
        let mut pod = Pod::start(&text("one", "one", "", "x"), &["--watch"]);
        pod.ready();
        // Whoever is to be ended has its handler, here and below.
        pod.sleeping(2);
        let (app, adapter) = (
            pod.process("watched", "app"),
            pod.process("watched", "adapter"),
        );
        assert!(app.is_string() && adapter.is_string());
        // The adapter is another.
        pod.edit(&text("one", "two", "", "x"));
        pod.event("adapter", "Started");
        pod.ready();
        pod.sleeping(3);
        assert_eq!(pod.process("watched", "app"), app);
        let adapter_now = pod.process("watched", "adapter");
        assert_ne!(adapter_now, adapter);
        // The application is another, and then its variable.
        pod.edit(&text("two", "two", "", "x"));
        let killing = pod.event("app", "Killing");
        assert_eq!(
            killing["message"],
            "Container app definition changed, will be restarted"
        );
        pod.event("app", "Started");
        pod.ready();
        pod.sleeping(4);
        let app_now = pod.process("watched", "app");
        assert_ne!(app_now, app);
        pod.edit(&text("two", "two", "", "z"));
        pod.event("app", "Started");
        pod.ready();
        pod.sleeping(5);
        assert_ne!(pod.process("watched", "app"), app_now);
        assert_eq!(pod.process("watched", "adapter"), adapter_now);
        // A bad edit changes nothing.
        pod.edit(&text("two", "two", "    argz: []\n", "z"));
        let refused = pod.told("ManifestRefused");
        assert!(refused.contains("argz"), "{refused}");
        // One more, and one less.
        let app = pod.process("watched", "app");
        let more = "  - {name: more, image: podkit, args: [app, sleep]}\n";
        pod.edit(&text("two", "two", more, "z"));
        pod.log("more", "sleeping");
        pod.edit(&text("two", "two", "", "z"));
        pod.state("more", "terminated");
        assert_eq!(pod.process("watched", "more"), Value::Null);
        assert_eq!(pod.process("watched", "app"), app);
        let (code, lines, said) = pod.stop();
        assert_eq!(code, Some(0), "{said} {lines:#?}");
    });
}

pub(super) fn pods_come_and_go_and_are_restarted_as_a_whole() {
    alone(|| {
        let text = |name: &str, more: &str| {
            let spec = format!(
                "{more}  containers:\n  - {{name: app, image: podkit, args: [app, sleep]}}\n"
            );
            manifest(name, &spec)
        };
        let other = |line: &Value| line["pod"] == full("other");
        let mut pod = Pod::start(&text("first", ""), &["--watch"]);
        pod.ready();
        pod.sleeping(1);
        let uid = |pod: &Pod| pod.state_json("first")["metadata"]["uid"].clone();
        let before = uid(&pod);
        pod.edit(&(text("first", "") + "---\n" + &text("other", "")));
        pod.wait("the other pod", |line| other(line) && line["ready"] == true);
        pod.sleeping(2);
        assert_eq!(uid(&pod), before);
        pod.edit(&text("first", ""));
        pod.wait("its end", |line| other(line) && line["type"] == "end");
        pod.edit(&text("first", "  hostname: anew\n"));
        let why = pod.told("Restarting");
        assert_eq!(
            why,
            "hostname changed, which no running pod can take: the whole pod is restarted"
        );
        pod.wait("its end", |line| line["type"] == "end");
        pod.ready();
        pod.sleeping(3);
        assert_ne!(uid(&pod), before);
        let (code, lines, said) = pod.stop();
        assert_eq!(code, Some(0), "{said} {lines:#?}");
    });
}

pub(super) fn a_name_that_is_made_up_is_kept_over_an_edit() {
    alone(|| {
        let spec = "  terminationGracePeriodSeconds: 1\n  containers:\n  - {name: app, image: podkit, args: [app, sleep]}\n";
        let pod = |prefix: &str| manifest(prefix, spec).replace("name: rt", "generateName: rt");
        let job = manifest(
            "job-",
            "  template:\n    spec:\n      restartPolicy: Never\n      containers:\n      - {name: app, image: podkit, \
             args: [app, exit, \"0\"]}",
        );
        let job = job.replace("name: rt", "generateName: rt");
        let job = job.replace("v1\nkind: Pod", "batch/v1\nkind: Job");
        let text = [pod("a-"), pod("a-"), job].join("---\n");
        let mut run = Pod::start(&text, &["--watch"]);
        // In whatever order.
        let (pods, jobs) = (RefCell::new(BTreeSet::new()), RefCell::new(BTreeSet::new()));
        let all = |line: &Value, count| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            if line["line"] == "sleeping" {
                pods.borrow_mut().insert(text("pod"));
            } else if line["message"] == "Job completed" {
                jobs.borrow_mut().insert(text("job"));
            }
            pods.borrow().len() == count && jobs.borrow().len() == 1
        };
        run.wait("two pods and the Job", |line| all(line, 2));
        let old = pods.borrow().clone();
        for (name, prefix) in old
            .iter()
            .zip(["a-", "a-"])
            .chain(jobs.borrow().iter().zip(["job-"]))
        {
            assert!(name.starts_with(&full(prefix)), "{name}");
            assert_eq!(name.len(), full(prefix).len() + 5, "{name}");
        }
        // Another one above them: those that run are what they were.
        run.edit(&format!("{}---\n{text}", pod("b-")));
        run.wait("a new pod", |line| all(line, 3));
        let new = pods.borrow().difference(&old).next().cloned();
        assert!(new.is_some_and(|new| new.starts_with(&full("b-"))));
        let (code, lines, said) = run.stop();
        assert_eq!(code, Some(0), "{said}");
        for pod in old {
            let of_it = |line: &&Value| line["pod"] == pod && line["line"] == "sleeping";
            assert_eq!(lines.iter().filter(of_it).count(), 1, "{pod}: {lines:#?}");
        }
        let leaves = lines.iter().filter(|line| line["type"] == "end");
        assert_eq!(leaves.count(), 4, "each once: {lines:#?}");
    });
}
