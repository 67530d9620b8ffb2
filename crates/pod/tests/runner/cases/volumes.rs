//! What containers hand to each other through volumes.

use podkit_pod::image::{Store, StoreError};

use super::*;
use crate::registry::Registry;

pub(super) fn variables_out_of_a_file() {
    alone(|| {
        let spec = r##"
  volumes: [{name: made, emptyDir: {}}, {name: data, emptyDir: {}}]
  initContainers:
  - name: init
    image: podkit
    args: [app, write, /made/app.env, "# made\nTOKEN='a $(B)\nc' # it\nDIR='sub'\n"]
    volumeMounts: [{name: made, mountPath: /made}]
  containers:
  - name: app
    image: podkit
    args: [app, say, "arg $(DIR)", TOKEN=, BOTH=, NONE=]
    env:
    - {name: TOKEN, valueFrom: {fileKeyRef: {volumeName: made, path: app.env, key: TOKEN}}}
    - {name: DIR, valueFrom: {fileKeyRef: {volumeName: made, path: ./app.env, key: DIR}}}
    - {name: BOTH, value: "<$(DIR)>"}
    - {name: NONE, valueFrom: {fileKeyRef: {volumeName: made, path: none.env, key: X, optional: true}}}
    volumeMounts: [{name: data, mountPath: /data, subPathExpr: "$(DIR)/x"}]
"##;
        let mut pod = Pod::start(&manifest("env-file", spec), &[]);
        pod.log("app", "arg sub");
        pod.log("app", r#"TOKEN=Some("a $(B)\nc")"#);
        pod.log("app", r#"BOTH=Some("<sub>")"#);
        pod.log("app", "NONE=None");
        pod.log("app", "said");
        assert_eq!(pod.stop().0, Some(0));
    });
}

pub(super) fn a_variable_whose_file_comes_late() {
    alone(|| {
        let spec = r#"
  volumes: [{name: made, emptyDir: {medium: Memory}}]
  containers:
  - name: app
    image: podkit
    args: [app, say, A=]
    env: [{name: A, valueFrom: {fileKeyRef: {volumeName: made, path: app.env, key: A}}}]
  - name: writer
    image: podkit
    restartPolicy: Never
    args: [app, write, /made/app.env, "A='here'", "300"]
    volumeMounts: [{name: made, mountPath: /made}]
"#;
        let mut pod = Pod::start(&manifest("late-env", spec), &[]);
        pod.wait("the wait for it", |line| {
            let why = &line["reason"];
            line["container"] == "app"
                && line["state"] == "waiting"
                && why == "CreateContainerConfigError"
        });
        let failed = pod.event("app", "Failed")["message"].clone();
        assert_eq!(
            failed,
            "Error: variable A: environment variable key \"A\" of the file \"app.env\" in volume made: there is no such file"
        );
        // And tried again; what was never made was not restarted.
        pod.log("app", r#"A=Some("here")"#);
        let runs = pod.state_json("late-env")["status"]["containerStatuses"][0].clone();
        assert_eq!(runs["restartCount"], 0, "{runs}");
        pod.log("app", "said");
        assert_eq!(pod.stop().0, Some(0));
    });
}

const LAYERS: [&[(&str, u32, &str)]; 2] = [
    &[
        ("a/one", 0o644, "first\n"),
        ("a/two", 0o644, "second\n"),
        ("gone", 0o644, "gone\n"),
        ("tool", 0o755, "#!/bin/sh\n"),
    ],
    &[("a/two", 0o644, "better\n"), (".wh.gone", 0o644, "")],
];

pub(super) fn an_image_as_a_volume() {
    alone(|| {
        let registry = Registry::start(&LAYERS, true);
        let image = registry.reference();
        let spec = format!(
            r#"
  securityContext: {{fsGroup: 0}}
  volumes: [{{name: data, image: {{reference: "{image}"}}}}]
  initContainers:
  - name: init
    image: podkit
    args: [app, cat, /data/a/one, /data/gone]
    volumeMounts: [{{name: data, mountPath: /data}}]
  containers:
  - name: app
    image: podkit
    args: [app, cat, /some/two]
    restartPolicy: Never
    volumeMounts: [{{name: data, mountPath: /some, subPath: a}}]
  - name: bad
    image: podkit
    args: [app, violate, /data, /data/tool]
    restartPolicy: Never
    volumeMounts: [{{name: data, mountPath: /data}}]
  - {{name: stays, image: podkit, args: [app, sleep]}}
"#
        );
        let mut pod = Pod::start(&manifest("image-volume", &spec), &[]);
        let of_pod = |reason: &'static str| {
            move |line: &serde_json::Value| line["container"].is_null() && line["reason"] == reason
        };
        let pulling = pod.wait("pulling", of_pod("Pulling"));
        assert_eq!(pulling["message"], format!("Pulling image {image:?}"));
        let pulled = pod.wait("pulled", of_pod("Pulled"))["message"].clone();
        let pulled = pulled.as_str().expect("text");
        let expected = format!("Successfully pulled image {image:?} in ");
        assert!(pulled.starts_with(&expected), "{pulled}");
        pod.log("init", "first");
        pod.log("init", "/data/gone: No such file");
        pod.sleeping(1);
        pod.wait_or_seen_log("app", "better");
        pod.wait_or_seen_log("bad", "Err(ReadOnlyFilesystem) Err(PermissionDenied)");

        // The store keeps what is mounted.
        let store = Store::new(Some(&pod.dir.path().join("state")));
        let images = [image];
        let refused = store.remove(&images).expect_err("it is in use");
        assert!(matches!(refused, StoreError::InUse(_)), "{refused}");
        store.prune(true).expect("the others");
        let removed = store.remove(&images);
        assert!(matches!(removed, Err(StoreError::InUse(_))), "{removed:?}");
        let (code, lines, said) = pod.stop();
        assert_eq!(code, Some(0), "{said}");
        let asked = lines.iter().filter(|line| line["reason"] == "Pulling");
        assert_eq!(asked.count(), 1, "once for the pod: {lines:#?}");
    });
}

pub(super) fn an_image_volume_that_comes_late() {
    alone(|| {
        let registry = Registry::start(&LAYERS, false);
        let image = registry.reference();
        let spec = format!(
            r#"
  volumes: [{{name: data, image: {{reference: "{image}"}}}}]
  containers:
  - name: app
    image: podkit
    args: [app, say, there]
    volumeMounts: [{{name: data, mountPath: /data}}]
  - {{name: other, image: podkit, args: [app, sleep]}}
"#
        );
        let args = ["--backoff-ms", "1100"];
        let mut pod = Pod::start(&manifest("late-image", &spec), &args);
        let failed = pod.wait("a failed pull", |line| {
            line["container"].is_null() && line["reason"] == "Failed"
        });
        let failed = failed["message"].as_str().expect("text");
        let expected = format!("Failed to pull image {image:?}: ");
        assert!(failed.starts_with(&expected), "{failed}");
        let error = pod.event("app", "Failed");
        assert_eq!(error["message"], "Error: ErrImagePull");
        let back_off = pod.event("app", "BackOff");
        assert_eq!(
            back_off["message"],
            format!("Back-off pulling image {image:?}")
        );
        // Who does not mount it runs.
        pod.wait_or_seen_log("other", "sleeping");
        registry.open();
        pod.log("app", "there");
        pod.log("app", "said");
        assert_eq!(pod.stop().0, Some(0));
    });
}

pub(super) fn a_directory_that_an_image_lacks() {
    alone(|| {
        let registry = Registry::start(&LAYERS, true);
        let spec = format!(
            r#"
  volumes: [{{name: data, image: {{reference: "{}"}}}}]
  containers:
  - name: app
    image: podkit
    args: [app, sleep]
    volumeMounts: [{{name: data, mountPath: /data, subPath: a/one}}]
"#,
            registry.reference()
        );
        let mut pod = Pod::start(&manifest("lacking", &spec), &[]);
        let failed = pod.event("app", "Failed");
        assert_eq!(
            failed["message"],
            "Error: subPath \"a/one\" of volume data: the image has no such directory, and nothing else of an image is mounted"
        );
        assert_eq!(pod.stop().0, Some(0));
    });
}

pub(super) fn a_volume_that_can_t_be_had_names_its_pod() {
    alone(|| {
        let spec = |path| {
            format!(
                "  restartPolicy: Never\n  containers:\n  - {{name: app, image: podkit, args: [app, exit, \"0\"]}}\n  \
                 volumes:\n  - {{name: v, hostPath: {{path: {path}, type: Directory}}}}\n"
            )
        };
        let (good, bad) = (spec("/usr"), spec("/dev/null"));
        let both = format!("{}---\n{}", manifest("good", &good), manifest("bad", &bad));
        let (code, _, said) = Pod::start(&both, &[]).end();
        assert_eq!(code, Some(1), "{said}");
        let line = format!(
            "pod default/{}: volume v: hostPath type check failed: /dev/null is not a directory",
            full("bad")
        );
        assert!(said.contains(&line), "{said}");
    });
}
