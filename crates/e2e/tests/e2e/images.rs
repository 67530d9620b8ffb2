//! Images: from a registry, an archive and podkit itself, run as their configuration says, and kept as long as they are used.
//!
//! The images and their registry are of other programs' making. Each test has a store of its own, by `--state-dir`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use podkit_testkit::images::{PROGRAMS, Registry, archive};
use podkit_testkit::podkit::{Pod, binary, is_event, podkit};
use podkit_testkit::process::{Finished, run};
use podkit_testkit::{program, skip, until};
use serde_json::{Value, json};

use crate::ground::{Ground, events, log_of, manifest};

/// What the images' program says: how it was called, and as whom, where, with what.
const APP: &str = "#!/bin/sh\necho $0 $@; id -u; id -g; pwd; echo $GREETING; cat /etc/words\n";

/// A ground with a store and a place for files, or nothing where an image's program can't be had.
struct Images {
    dir: tempfile::TempDir,
    // Last: what is above is gone when the network goes.
    ground: Ground,
}

impl Images {
    fn new() -> Option<Self> {
        let mut programs = vec!["busybox"];
        programs.extend(PROGRAMS);
        let ground = Ground::with(&programs)?;
        if !is_static(&program("busybox")?) {
            skip("a static busybox (busybox-static)");
            return None;
        }
        // The name is one that a look for leftovers knows.
        let dir = tempfile::Builder::new().prefix("podkit-images-").tempdir();
        Some(Self {
            dir: dir.unwrap(),
            ground,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn state(&self) -> String {
        self.path("state").display().to_string()
    }

    /// `podkit image …` with the test's store.
    fn image(&self, args: &[&str]) -> Finished {
        let mut all = vec!["image", args[0], "--state-dir"];
        let state = self.state();
        all.push(&state);
        all.extend(&args[1..]);
        podkit(&all)
    }

    fn list(&self) -> Vec<Value> {
        let listed = self.image(&["ls", "-o", "json"]).ok();
        serde_json::from_str::<Value>(&listed)
            .unwrap()
            .as_array()
            .unwrap()
            .clone()
    }

    fn run(&self, spec: &str) -> Pod {
        Pod::run_text(&manifest(spec), &["--state-dir", &self.state()])
    }

    /// A docker-archive with an image of this name: two layers, the second of which changes a file of the first.
    fn archive(&self, name: &str) -> PathBuf {
        self.archive_as(name, "1234:5678")
    }

    /// The same with this user.
    fn archive_as(&self, name: &str, user: &str) -> PathBuf {
        let files = self.path("files");
        for below in ["first/bin", "first/etc", "first/srv/data", "second/etc"] {
            fs::create_dir_all(files.join(below)).unwrap();
        }
        let at = |path: &str| files.join(path);
        fs::copy(program("busybox").unwrap(), at("first/bin/busybox")).unwrap();
        for applet in ["sh", "id", "cat", "sleep"] {
            let link = at("first/bin").join(applet);
            if !link.is_symlink() {
                std::os::unix::fs::symlink("busybox", link).unwrap();
            }
        }
        fs::write(at("first/bin/app"), APP).unwrap();
        make_executable(&at("first/bin/app"));
        fs::write(at("first/etc/words"), "of the first layer\n").unwrap();
        fs::write(at("second/etc/words"), "of the second layer\n").unwrap();
        let config = json!({
            "Entrypoint": ["/bin/app"],
            "Cmd": ["from", "cmd"],
            "Env": ["PATH=/bin", "GREETING=of the image"],
            "User": user,
            "WorkingDir": "/srv/data",
            "Labels": { "made-by": "a test" },
        });
        archive(&files, name, &["first", "second"], &config)
    }

    /// Ends with nothing left of the pods, and nothing in the store that is not an image of its own.
    fn assert_clean(&self) {
        self.ground.assert_clean();
        let pods = self.path("state/pods");
        let left: Vec<_> = fs::read_dir(pods).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn an_image_of_a_registry_runs_as_its_configuration_says() {
    let Some(images) = Images::new() else { return };
    let registry = Registry::start(images.dir.path());
    let image = registry.push(&images.archive("app:1"));
    let spec = format!(
        "restartPolicy: Never
containers:
- name: app
  image: {image}
  imagePullPolicy: Always
- name: two
  image: {image}
  imagePullPolicy: Never
  args: [of, the, pod]
  workingDir: /etc
- name: three
  image: {image}
  imagePullPolicy: IfNotPresent
  command: [/bin/sh, /bin/app]
  env: [{{name: GREETING, value: of the pod}}]
  securityContext: {{runAsUser: 77}}"
    );
    let wrote = |pod: &mut Pod| {
        let code = pod.process.wait().code();
        assert_eq!(code, Some(0), "{}", pod.process.shown());
        // The group of the image's user is no part of what the kubelet asks for, so under containerd too it is 0.
        let words = "of the second layer";
        let image = "of the image";
        assert_eq!(
            log_of(pod, "app"),
            ["/bin/app from cmd", "1234", "0", "/srv/data", image, words]
        );
        assert_eq!(
            log_of(pod, "two"),
            ["/bin/app of the pod", "1234", "0", "/etc", image, words]
        );
        // Of a command of the pod's the image's own arguments are no part, as in the API.
        assert_eq!(
            log_of(pod, "three"),
            ["/bin/app", "77", "0", "/srv/data", "of the pod", words]
        );
    };
    let told = ["Pulling", "Pulled", "Failed", "ErrImageNeverPull"];
    let mut pod = images.run(&spec);
    wrote(&mut pod);
    // The second and the third have what the first brought: even the one that may not pull.
    assert_eq!(
        events(&pod, &told),
        ["app Pulling", "app Pulled", "two Pulled", "three Pulled"]
    );
    let message = |pod: &Pod, container: &str, reason: &str| {
        pod.wait_event(container, reason)["message"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        message(&pod, "app", "Pulling"),
        format!("Pulling image \"{image}\"")
    );
    let pulled = message(&pod, "app", "Pulled");
    let begin = format!("Successfully pulled image \"{image}\" in ");
    assert!(pulled.starts_with(&begin), "{pulled}");
    let present = format!("Container image \"{image}\" already present on machine");
    assert_eq!(message(&pod, "two", "Pulled"), present);

    // Without the registry what is here is enough, except for Always.
    drop(registry);
    let mut pod = images.run(&spec.replace("Always", "IfNotPresent"));
    wrote(&mut pod);
    assert_eq!(
        events(&pod, &told),
        ["app Pulled", "two Pulled", "three Pulled"]
    );
    let mut pod = images.run(&spec);
    let failed = message(&pod, "app", "Failed");
    assert!(
        failed.starts_with(&format!("Failed to pull image \"{image}\": ")),
        "{failed}"
    );
    pod.stop();
    images.assert_clean();
}

#[test]
fn an_image_that_may_not_be_pulled_is_not() {
    let Some(images) = Images::new() else { return };
    let registry = Registry::start(images.dir.path());
    let image = registry.push(&images.archive("app:1"));
    let spec = format!("containers:\n- name: app\n  image: {image}\n  imagePullPolicy: Never");
    let mut pod = images.run(&spec);
    let said = pod.wait_event("app", "ErrImageNeverPull");
    assert_eq!(
        said["message"],
        format!("Container image \"{image}\" is not present with pull policy of Never")
    );
    pod.stop();
    assert_eq!(images.list(), Vec::<Value>::new());
    drop(registry);
    images.assert_clean();
}

#[test]
fn an_image_is_listed_inspected_and_kept_while_it_is_used() {
    let Some(images) = Images::new() else { return };
    let registry = Registry::start(images.dir.path());
    let image = registry.push(&images.archive("app:1"));
    let pulled = images.image(&["pull", "-q", &image]).ok();
    let (name, digest) = pulled.trim().split_once('@').unwrap();
    assert_eq!(format!("{name}:1"), image);
    let mut remote = Command::new("skopeo");
    remote.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"]);
    let remote = run("skopeo", remote.arg(format!("docker://{image}"))).ok();
    assert_eq!(digest, remote.trim());

    let listed = images.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["name"], image);
    assert_eq!(listed[0]["digest"], digest);
    assert_eq!(listed[0]["used"], false);
    let table = images.image(&["ls"]).ok();
    assert!(table.lines().nth(1).unwrap().starts_with(name), "{table}");
    let inspected: Value = serde_json::from_str(&images.image(&["inspect", &image]).ok()).unwrap();
    let inspected = &inspected[0];
    assert_eq!(inspected["names"], json!([image]));
    assert_eq!(inspected["id"], listed[0]["id"]);
    assert_eq!(inspected["config"]["Entrypoint"], json!(["/bin/app"]));
    assert_eq!(inspected["config"]["User"], "1234:5678");
    assert_eq!(inspected["labels"], json!({ "made-by": "a test" }));
    assert_eq!(inspected["layers"].as_array().unwrap().len(), 2);

    let mut pod = images.run(&format!(
        "terminationGracePeriodSeconds: 1\ncontainers:\n- name: app\n  image: {image}\n  \
         command: [/bin/sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.02; done']"
    ));
    pod.wait_ready();
    assert_eq!(images.list()[0]["used"], true);
    let refused = images.image(&["rm", &image]);
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    let why = format!("{image} is used by a pod that runs: stop it first");
    assert!(refused.err.contains(&why), "{}", refused.err);
    images.image(&["prune", "--all"]).ok();
    assert_eq!(images.list().len(), 1);
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());

    let removed = images.image(&["rm", &image]).ok();
    assert_eq!(
        removed,
        format!("Untagged: {image}\nDeleted: {digest}\n"),
        "{removed}"
    );
    assert_eq!(images.list(), Vec::<Value>::new());
    let gone = images.image(&["inspect", &image]);
    assert_eq!(gone.code, Some(1), "{}", gone.out);
    drop(registry);
    images.assert_clean();
}

/// And `podkit install` brings podkit into an image that has none.
#[test]
fn a_loaded_archive_runs_with_podkit_installed_beside_it() {
    let Some(images) = Images::new() else { return };
    let archive = images.archive("e2e/app:1");
    let loaded = images
        .image(&["load", "-q", archive.to_str().unwrap()])
        .ok();
    assert_eq!(loaded, "Loaded image: e2e/app:1\n");
    let spec = "restartPolicy: Never
volumes:
- name: tools
  emptyDir: {}
initContainers:
- name: install
  image: podkit
  args: [install, /tools]
  volumeMounts: [{name: tools, mountPath: /tools}]
containers:
- name: app
  image: e2e/app:1
  imagePullPolicy: Never
  command: [/bin/sh, -c, '/bin/app; /tools/podkit --version']
  volumeMounts: [{name: tools, mountPath: /tools, readOnly: true}]";
    let mut pod = images.run(spec);
    let code = pod.process.wait().code();
    assert_eq!(code, Some(0), "{}", pod.process.shown());
    assert_eq!(log_of(&pod, "install"), ["/tools/podkit"]);
    let version = podkit(&["--version"]).ok();
    let lines = log_of(&pod, "app");
    assert_eq!(lines.first().unwrap(), "/bin/app");
    assert_eq!(lines.last().unwrap(), version.trim());
    let pulling = pod
        .said()
        .iter()
        .any(|said| is_event(said, "app", "Pulling"));
    assert!(!pulling, "{}", pod.process.shown());
    images.assert_clean();
}

/// The image of a volume that nobody mounts keeps nobody waiting, and is asked for until it is there.
#[test]
fn the_image_of_a_volume_that_nobody_mounts_is_asked_for_again() {
    let Some(images) = Images::new() else { return };
    let spec = "restartPolicy: Never
terminationGracePeriodSeconds: 0
volumes:
- name: data
  image: {reference: 'e2e/data:1', pullPolicy: Never}
containers:
- name: app
  image: x
  command: [sleep, '60']";
    let state = images.state();
    let args = [
        "--state-dir",
        &state,
        "--backoff",
        "100ms",
        "--image",
        "app=host",
    ];
    let mut pod = Pod::run_text(&manifest(spec), &args);
    pod.wait_event("app", "Started");
    pod.wait_event("", "ErrImageNeverPull");
    let archive = images.archive("e2e/data:1");
    images
        .image(&["load", "-q", archive.to_str().unwrap()])
        .ok();
    let pulled = pod.wait_event("", "Pulled");
    let message = pulled["message"].as_str().unwrap_or_default();
    assert!(message.contains("e2e/data:1"), "{pulled}");
    pod.stop();
    images.assert_clean();
}

#[test]
fn what_may_not_be_root_waits_when_its_image_says_no_other_user() {
    let Some(images) = Images::new() else { return };
    let archive = images.archive_as("e2e/app:1", "");
    let spec = "restartPolicy: Never
containers:
- name: app
  image: e2e/app:1
  securityContext: {runAsNonRoot: true}";
    let (state, source) = (
        images.state(),
        format!("docker-archive:{}", archive.display()),
    );
    let source = format!("app={source}");
    let args = [
        "--state-dir",
        &state,
        "--backoff",
        "100ms",
        "--image",
        &source,
    ];
    let mut pod = Pod::run_text(&manifest(spec), &args);
    let why = "container has runAsNonRoot and image will run as root";
    let failed = pod.wait_event("app", "Failed");
    assert_eq!(failed["message"], format!("Error: {why}"));
    let shown = |command: &str| podkit(&[command, "e2e", "--state-dir", &state]).ok();
    let row = shown("ps").lines().nth(1).unwrap().to_owned();
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(row[1..4], ["0/1", "CreateContainerConfigError", "0"]);
    // As often as it is tried: the event has a count, the output says it once.
    let page = until("the count", || {
        let page = shown("describe");
        let told = page
            .lines()
            .find(|line| line.contains("Error: container"))?;
        told.contains("(x").then(|| page.clone())
    });
    assert!(page.contains("Status:       Pending"), "{page}");
    assert!(
        page.contains("Reason:       CreateContainerConfigError"),
        "{page}"
    );
    assert!(page.contains(&format!("Message:      {why}")), "{page}");
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    let said = pod.said();
    let told = said.iter().filter(|said| is_event(said, "app", "Failed"));
    assert_eq!(told.count(), 1, "{}", pod.process.shown());
    images.assert_clean();
}

/// podkit's own image: as often as it is made the same; a binary that would not run alone in it is refused.
#[test]
fn podkit_makes_its_own_image_when_it_is_static() {
    let Some(images) = Images::new() else { return };
    let build = |file: &str| {
        let output = format!("docker-archive:{}", images.path(file).display());
        podkit(&["image", "build", "-o", &output, "-t", "e2e/own:1"])
    };
    let built = build("one.tar");
    if !is_static(binary()) {
        assert_eq!(built.code, Some(1), "{}", built.out);
        assert!(
            built.err.contains("this binary is not static"),
            "{}",
            built.err
        );
        assert!(!images.path("one.tar").exists());
        return;
    }
    assert_eq!(built.ok(), build("two.tar").ok());
    let read = |file: &str| fs::read(images.path(file)).unwrap();
    assert!(
        read("one.tar") == read("two.tar"),
        "two images of one binary"
    );
    let file = images.path("one.tar").display().to_string();
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--config"]);
    let seen = run("skopeo", skopeo.arg(format!("docker-archive:{file}"))).ok();
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["config"]["Entrypoint"], json!(["/podkit"]));
    assert_eq!(seen["config"]["User"], "65532:65532");

    let loaded = images.image(&["load", "-q", &file]).ok();
    assert_eq!(loaded, "Loaded image: e2e/own:1\n");
    let mut pod = images.run(
        "restartPolicy: Never\ncontainers:\n- name: app\n  image: e2e/own:1\n  imagePullPolicy: Never\n  args: [--version]",
    );
    assert_eq!(
        pod.process.wait().code(),
        Some(0),
        "{}",
        pod.process.shown()
    );
    assert_eq!(log_of(&pod, "app"), [podkit(&["--version"]).ok().trim()]);
    images.assert_clean();
}

/// Whether a program names no loader.
fn is_static(program: &Path) -> bool {
    let bytes = fs::read(program).unwrap();
    let head = &bytes[..bytes.len().min(4096)];
    !head.windows(4).any(|part| part == b"/ld-")
}

fn make_executable(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}
