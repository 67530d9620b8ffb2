//! `podkit run --watch`: the file of a pod that runs is edited, in the foreground and detached.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use podkit_testkit::podkit::{Pod, podkit};
use podkit_testkit::{machine, until};
use serde_json::Value;

use crate::ground::{Ground, is_ready, lib_dir, log_of, manifest, process_of};

/// The file, and its texts: a pod whose application and adapter differ in an argument, and a ConfigMap that the application follows.
struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod.yaml");
        std::fs::write(&path, text).unwrap();
        Self { _dir: dir, path }
    }

    /// As most editors save: a new file under the old name.
    fn edit(&self, text: &str) {
        let next = self.path.with_extension("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, &self.path).unwrap();
    }

    fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

fn pod(app: u32, adapter: u32, value: &str) -> String {
    let spec = format!(
        "terminationGracePeriodSeconds: 1
volumes:
- name: live
  configMap: {{name: live}}
containers:
- name: app
  image: none
  command: [sh, -c, 'sleep {app} & while :; do cat /mnt/word; sleep 0.05; done']
  volumeMounts: [{{name: live, mountPath: /mnt}}]
- name: adapter
  image: none
  command: [sleep, '{adapter}']"
    );
    let map = format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: live}}\ndata: {{word: \"{value}\\n\"}}\n"
    );
    manifest(&spec) + &map
}

/// A second pod, with more of its container.
fn other(number: u32, more: &str) -> String {
    let spec = format!(
        "terminationGracePeriodSeconds: 1\ncontainers:\n- name: app\n  image: none\n  command: [sleep, '{number}']\n{more}"
    );
    "---\n".to_owned() + &manifest(&spec).replace("name: e2e", "name: other")
}

fn running(pod: &Pod, part: &str) -> u32 {
    until(part, || process_of(pod, part))
}

fn told(pod: &Pod, mark: usize, reason: &str) -> String {
    let (_, event) = pod.wait_from(mark, reason, |said| {
        said["type"] == "event" && said["reason"] == reason
    });
    event["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn only_what_an_edit_changed_is_restarted() {
    let Some(ground) = Ground::new() else { return };
    let file = File::new(&pod(7201, 7301, "one"));
    let mut run = Pod::run(&file.path, &["--watch", "--backoff", "50ms"]);
    run.wait_ready();
    let (app, adapter) = (running(&run, "sleep 7201"), running(&run, "sleep 7301"));
    run.wait("the word", |said| said["line"] == "one");

    // A volume follows, and nothing is restarted.
    file.edit(&pod(7201, 7301, "two"));
    run.wait("the new word", |said| said["line"] == "two");
    assert_eq!(running(&run, "sleep 7201"), app);
    assert_eq!(running(&run, "sleep 7301"), adapter);

    file.edit(&pod(7202, 7301, "two"));
    let app = running(&run, "sleep 7202");
    assert_eq!(running(&run, "sleep 7301"), adapter, "the adapter goes on");
    until("the old one's end", || {
        process_of(&run, "sleep 7201").is_none().then_some(())
    });

    file.edit(&pod(7202, 7302, "two"));
    let adapter = running(&run, "sleep 7302");
    assert_eq!(running(&run, "sleep 7202"), app, "the application goes on");

    // Half of a bad edit is not applied.
    let mark = run.mark();
    file.edit(&pod(7203, 7303, "three").replace("volumeMounts", "volumMounts"));
    let refused = told(&run, mark, "ManifestRefused");
    assert!(refused.contains("did you mean volumeMounts?"), "{refused}");
    assert!(refused.contains("pod.yaml:"), "{refused}");
    assert!(!log_of(&run, "app").contains(&"three".to_owned()));
    assert_eq!(running(&run, "sleep 7202"), app);
    assert_eq!(running(&run, "sleep 7302"), adapter);

    // And the next good one is.
    file.edit(&pod(7202, 7302, "four"));
    run.wait("the last word", |said| said["line"] == "four");
    assert_eq!(running(&run, "sleep 7202"), app);
    assert_eq!(run.stop(), 0, "{}", run.process.shown());
    ground.assert_clean();
}

#[test]
fn pods_come_and_go_with_their_file() {
    let Some(ground) = Ground::new() else { return };
    let first = pod(7211, 7311, "one");
    let file = File::new(&first);
    let mut run = Pod::run(&file.path, &["--watch"]);
    run.wait_ready();
    let app = running(&run, "sleep 7211");
    file.edit(&(first.clone() + &other(7411, "")));
    run.wait("the other pod", |said| {
        said["pod"] == "other" && is_ready(said, true)
    });
    let added = running(&run, "sleep 7411");
    file.edit(&first);
    run.wait("its end", |said| {
        said["pod"] == "other" && said["type"] == "end"
    });
    until("its process's end", || {
        machine::tree(run.process.pid())
            .iter()
            .all(|pid| *pid != added)
            .then_some(())
    });
    assert_eq!(running(&run, "sleep 7211"), app, "the first goes on");
    // What an edit can't do is said.
    let job = "---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: work}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: w, image: podkit, args: [echo]}]}}}\n";
    file.edit(&(first + job));
    run.wait("the warning", |said| {
        let message = said["message"].as_str().unwrap_or_default();
        said["type"] == "warning" && message.contains("Jobs stay as they began")
    });
    assert_eq!(run.stop(), 0, "{}", run.process.shown());
    ground.assert_clean();
}

/// Detached pods, stopped when the test fails.
struct Detached;

impl Drop for Detached {
    fn drop(&mut self) {
        for name in ["e2e", "other"] {
            if lib_dir().join("pods").join(name).exists() {
                podkit(&["stop", name, "--force"]);
            }
        }
    }
}

fn ok(args: &[&str]) -> String {
    podkit(args).ok()
}

fn status(pod: &str) -> Value {
    let shown = podkit(&["ps", pod, "-o", "json"]);
    let pod: Value = serde_json::from_str(&shown.out).unwrap_or_default();
    pod["status"].clone()
}

#[test]
fn a_pod_that_a_detached_run_can_not_begin_later_is_told_of() {
    let Some(ground) = Ground::new() else { return };
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = |more: &str| format!("  ports: [{{containerPort: {port}}}]\n{more}");
    let first = pod(7221, 7321, "one");
    let file = File::new(&first);
    let _pods = Detached;
    ok(&["run", "-d", "--watch", "--wait", file.name()]);
    file.edit(&(first.clone() + &other(7421, &ports(""))));
    let failed = until("its status", || {
        let status = status("other");
        (status["phase"] == "Failed").then_some(status)
    });
    let why = format!("127.0.0.1:{port}");
    let message = failed["message"].as_str().unwrap_or_default();
    assert!(message.contains(&why), "{failed}");
    let shown = ok(&["ps", "other", "--no-headers"]);
    assert!(shown.contains("UnexpectedAdmissionError"), "{shown}");
    for command in ["events", "describe"] {
        let shown = ok(&[command, "other"]);
        assert!(shown.contains(&why), "{command}: {shown}");
    }
    let log = std::fs::read_to_string(lib_dir().join("pods/e2e/supervisor.log")).unwrap();
    assert!(log.contains("pod default/other has not begun"), "{log}");
    assert!(log.contains(&why), "{log}");
    assert_eq!(status("e2e")["phase"], "Running");

    // A run of its own takes its place.
    drop(taken);
    let own = File::new(&other(7421, &ports("")));
    let begun = ok(&["run", "-d", "--wait", own.name()]);
    assert!(begun.contains("pod/other ready"), "{begun}");
    assert_eq!(status("other")["phase"], "Running");
    ok(&["stop", "other"]);

    // With another edit it is tried again.
    file.edit(&(first.clone() + &other(7422, &ports(""))));
    until("its start", || {
        (status("other")["phase"] == "Running").then_some(())
    });
    file.edit(&first);
    until("its end", || {
        let shown = ok(&["ps", "--no-headers"]);
        (shown.lines().count() == 1).then_some(())
    });
    ok(&["stop", "e2e"]);
    ground.assert_clean();
}
