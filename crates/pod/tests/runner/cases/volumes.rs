//! What containers hand to each other through volumes.

use super::*;

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
        let failed = pod.event("app", "Failed")["message"].clone();
        assert_eq!(
            failed,
            "Error: variable A: environment variable key \"A\" of the file \"app.env\" in volume made: there is no such file"
        );
        let waits = pod.state_json("late-env")["status"]["containerStatuses"][0].clone();
        assert_eq!(
            waits["state"]["waiting"]["reason"], "CreateContainerConfigError",
            "{waits}"
        );
        // And tried again; what was never made was not restarted.
        pod.log("app", r#"A=Some("here")"#);
        let runs = pod.state_json("late-env")["status"]["containerStatuses"][0].clone();
        assert_eq!(runs["restartCount"], 0, "{runs}");
        assert_eq!(pod.stop().0, Some(0));
    });
}
