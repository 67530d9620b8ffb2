//! Environment variables.

use super::{DATA, container, errors, good};
use crate::plan::Options;

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
