//! Environment variables.

use super::{DATA, container, errors, good};
use crate::plan::{ContainerPlan, FileKey, Options};

fn env(lines: &str) -> Vec<(String, String)> {
    good(&container(lines, DATA)).containers.remove(0).env
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn values_expand_what_stands_above() {
    let lines = "env:\n- {name: A, value: a}\n- {name: B, value: \"$(A)-$(C)-$$(A)\"}\n- {name: C, value: c}\n- {name: A, value: \"$(A)2\"}\n- {name: D, value: $(A)}";
    assert_eq!(
        env(lines),
        pairs(&[("A", "a2"), ("B", "a-$(C)-$(A)"), ("C", "c"), ("D", "a2")])
    );
}

#[test]
fn command_and_args_expand_the_final_values() {
    let lines = "command: [/podkit, \"$(A)\"]\nargs: [\"--x=$(B)\", \"$(NOT)\", \"$$(A)\"]\nenv: [{name: A, value: a}, {name: B, value: b}, {name: A, value: z}]";
    let plan = good(&container(lines, ""));
    assert_eq!(plan.containers[0].command, ["/podkit", "z"]);
    assert_eq!(plan.containers[0].args, ["--x=b", "$(NOT)", "$(A)"]);
}

#[test]
fn references() {
    let lines = "env:\n- {name: H, valueFrom: {configMapKeyRef: {name: c, key: host}}}\n- {name: U, valueFrom: {secretKeyRef: {name: s, key: user}}}\n\
                 - {name: P, valueFrom: {secretKeyRef: {name: s, key: pass}}}\n- {name: X, valueFrom: {secretKeyRef: {name: none, key: k, optional: true}}}\n\
                 - {name: W, valueFrom: {configMapKeyRef: {name: c, key: none, optional: true}}}\n- {name: Z, value: $(H)/$(U)/$(X)}";
    // stringData wins over data; what is optional and missing isn't set.
    assert_eq!(
        env(lines),
        pairs(&[
            ("H", "db"),
            ("U", "jane"),
            ("P", "word"),
            ("Z", "db/jane/$(X)")
        ])
    );
}

#[test]
fn whole_maps() {
    let lines = "envFrom:\n- {configMapRef: {name: c}, prefix: DB_}\n- {configMapRef: {name: none, optional: true}}\n\
                 env:\n- {name: DB_port, value: \"$(DB_port)0\"}";
    assert_eq!(env(lines), pairs(&[("DB_host", "db"), ("DB_port", "50")]));
}

#[test]
fn fields() {
    let lines = "env:\n- {name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}\n- {name: B, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}\n\
        - {name: C, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}\n- {name: D, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}\n\
        - {name: E, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['a/b']\"}}}\n- {name: F, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['none']\"}}}\n\
        - {name: G, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}\n- {name: H, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}\n\
        - {name: I, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}\n- {name: J, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}\n\
        - {name: K, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n- {name: L, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}";
    let values: Vec<_> = env(lines).into_iter().map(|(_, value)| value).collect();
    assert_eq!(
        values,
        [
            "p",
            "default",
            "u-1",
            "web",
            "note",
            "",
            "box",
            "default",
            "10.0.0.1",
            "10.0.0.1,fd00::1",
            "10.1.0.2",
            "10.1.0.2"
        ]
    );
}

#[test]
fn resources() {
    let lines = "resources: {limits: {cpu: 1500m, memory: 100Mi}}\nenv:\n- {name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}\n\
        - {name: B, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}\n- {name: C, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}\n\
        - {name: D, valueFrom: {resourceFieldRef: {resource: requests.memory, divisor: 0}}}\n- {name: E, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}\n\
        - {name: F, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1G, containerName: app}}}";
    let values: Vec<_> = env(lines).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["2", "1500", "100", "104857600", "1500", "1"]);
    let lines = "env:\n- {name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}\n- {name: B, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Gi}}}\n\
        - {name: C, valueFrom: {resourceFieldRef: {resource: requests.cpu}}}";
    let values: Vec<_> = env(lines).into_iter().map(|(_, value)| value).collect();
    // Without a limit it is the machine's capacity; without a request nothing.
    assert_eq!(values, ["4", "8", "0"]);
}

#[test]
fn what_is_missing() {
    let only = |from: &str| {
        let text = container(&format!("env: [{{name: A, valueFrom: {{{from}}}}}]"), DATA);
        errors(&text, &Options::default())
            .join("\n")
            .replace("spec.containers[0].env[0].valueFrom.", "")
    };
    assert_eq!(
        only("configMapKeyRef: {name: c, key: hots}"),
        "8:65: configMapKeyRef.key: the ConfigMap \"c\" has no key \"hots\"; did you mean host?"
    );
    assert_eq!(
        only("configMapKeyRef: {name: c, key: other}"),
        "8:65: configMapKeyRef.key: the ConfigMap \"c\" has no key \"other\"; it has host, port"
    );
    assert_eq!(
        only("configMapKeyRef: {name: confg, key: host}"),
        "8:57: configMapKeyRef.name: there is no ConfigMap \"confg\" in the files; give its file too, or say optional: true where it is referred to"
    );
    assert!(
        only("configMapKeyRef: {name: c, key: bin}")
            .ends_with("is in binaryData, which can't be a variable")
    );
    assert!(
        only("secretKeyRef: {name: s, key: raw}")
            .ends_with("not UTF-8 text, which a variable has to be")
    );
    assert!(
        only("secretKeyRef: {name: ss, key: raw}")
            .ends_with("there is no Secret \"ss\" in the files; give its file too, or say optional: true where it is referred to")
    );
    assert!(only("fieldRef: {fieldPath: metadata.nam}").ends_with("did you mean metadata.name?"));
    assert!(
        only("fieldRef: {fieldPath: metadata.labels}")
            .ends_with("one of them only: metadata.labels['KEY']")
    );
    assert!(
        only("resourceFieldRef: {resource: limits.cpus}").ends_with("did you mean limits.cpu?")
    );
    assert!(
        only("resourceFieldRef: {resource: limits.cpu, containerName: ap}")
            .ends_with("did you mean app?")
    );
    let elsewhere = DATA.replace("{name: c}", "{name: c, namespace: other}");
    let text = container("envFrom: [{configMapRef: {name: c}}]", &elsewhere);
    assert_eq!(
        errors(&text, &Options::default()),
        [
            "8:37: spec.containers[0].envFrom[0].configMapRef.name: there is no ConfigMap \"c\" in the files; the one in namespace \"other\" is out of reach from \"default\""
        ]
    );
    let text = container("envFrom: [{secretRef: {name: s}}]", DATA);
    assert!(
        errors(&text, &Options::default())[0].ends_with(
            "the value of the key \"raw\" is not UTF-8 text, which a variable has to be"
        )
    );
}

/// A container whose variable F is in a file, with more lines.
fn from_file(lines: &str) -> ContainerPlan {
    let env = "env:\n- {name: A, value: a}\n- {name: F, valueFrom: {fileKeyRef: {volumeName: made, path: d/e, key: k, optional: true}}}\n- {name: B, value: \"$(A)$(F)\"}\n- {name: C, valueFrom: {configMapKeyRef: {name: c, key: host}}}\n";
    let volumes = "  volumes: [{name: made, emptyDir: {}}]\n";
    good(&container(
        &format!("{env}{lines}"),
        &format!("{volumes}{DATA}"),
    ))
    .containers
    .remove(0)
}

/// As it starts when the file says so, or has no such key.
fn started(plan: &ContainerPlan, value: Option<&str>) -> Result<ContainerPlan, String> {
    let at_start = plan.at_start.as_ref().expect("a file to be read");
    let wanted = FileKey {
        volume: "made".into(),
        path: "d/e".into(),
        key: "k".into(),
        optional: true,
    };
    let read = |key: &FileKey| {
        assert_eq!(*key, wanted);
        Ok::<_, String>(value.map(str::to_owned))
    };
    at_start
        .complete(plan, read)
        .map_err(|error| error.to_string())
}

#[test]
fn values_out_of_files_are_there_at_the_start() {
    let plan = from_file("command: [x, \"$(F)\"]\nargs: [\"$(B)\", \"$$(F)\", \"$(NOT)\"]");
    // Before it starts.
    assert_eq!(plan.env, pairs(&[("A", "a"), ("B", "a$(F)"), ("C", "db")]));
    assert_eq!(plan.command, ["x", "$(F)"]);
    let whole = started(&plan, Some("f $(A)")).unwrap();
    assert_eq!(
        whole.env,
        pairs(&[("A", "a"), ("F", "f $(A)"), ("B", "af $(A)"), ("C", "db")])
    );
    assert_eq!(whole.command, ["x", "f $(A)"]);
    assert_eq!(whole.args, ["af $(A)", "$(F)", "$(NOT)"]);
    // What is optional and missing isn't set.
    let whole = started(&plan, None).unwrap();
    assert_eq!((whole.env, whole.command), (plan.env, plan.command));
}

#[test]
fn a_sub_path_out_of_a_file_is_made_at_the_start() {
    let mount = "volumeMounts: [{name: made, mountPath: /m, subPathExpr: \"x/$(B)\"}, {name: made, mountPath: /n, subPathExpr: \"$(A)\"}, {name: made, mountPath: /o, subPath: p}]";
    let plan = from_file(mount);
    let paths = |plan: &ContainerPlan| -> Vec<String> {
        plan.mounts
            .iter()
            .map(|mount| mount.sub_path.clone().unwrap_or_default())
            .collect()
    };
    assert_eq!(
        paths(&started(&plan, Some("/f")).unwrap()),
        ["x/a/f", "a", "p"]
    );
    assert_eq!(
        started(&plan, Some("/../../f")).unwrap_err(),
        "subPathExpr \"x/$(B)\" of volume made: \"x/a/../../f\" leads out of the volume"
    );
    let plan = from_file(&mount.replace("$(B)", "$(F)"));
    assert_eq!(
        paths(&started(&plan, Some("f")).unwrap()),
        ["x/f", "a", "p"]
    );
    assert_eq!(
        started(&plan, None).unwrap_err(),
        "subPathExpr \"x/$(F)\" of volume made: missing value for \"F\": no variable of the container has this name"
    );
}

#[test]
fn a_value_that_cannot_be_read_is_told_with_its_variable() {
    let plan = from_file("");
    let at_start = plan.at_start.as_ref().unwrap();
    let error = at_start
        .complete(&plan, |_| Err("no such file"))
        .unwrap_err();
    assert_eq!(error.to_string(), "variable F: no such file");
}

#[test]
fn without_a_container_the_volume_of_a_file_stays() {
    let text = container(
        "env: [{name: F, valueFrom: {fileKeyRef: {volumeName: made, path: e, key: k}}}]",
        "  - {name: other, image: podkit}\n  volumes: [{name: made, emptyDir: {}}, {name: unused, emptyDir: {}}]\n",
    );
    let options = Options {
        without: vec!["other".into()],
        ..Options::default()
    };
    let (plans, findings) = super::plan(&text, &options);
    assert!(!findings.has_errors(), "{findings}");
    let names: Vec<_> = plans[0]
        .volumes
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["made"]);
}
