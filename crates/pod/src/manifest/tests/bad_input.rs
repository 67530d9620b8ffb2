//! What must be met with one clear line.

use super::{check, container, errors, found, spec};
use crate::manifest::{NameSeed, Severity, load, parse};

#[test]
fn a_typo_names_the_nearest_field() {
    check(
        &container("imagePulPolicy: Never"),
        "8:5: spec.containers[0].imagePulPolicy: unknown field; did you mean imagePullPolicy?",
    );
    check(
        &container("livenessProbe:\n  httpget: {port: 80}"),
        "9:7: spec.containers[0].livenessProbe.httpget: unknown field; did you mean httpGet?",
    );
}

#[test]
fn a_field_at_the_wrong_level_names_its_owner() {
    check(
        &spec("readOnlyRootFilesystem: true"),
        "6:3: spec.readOnlyRootFilesystem: unknown field of a PodSpec; it is a field of SecurityContext: check the indentation",
    );
}

#[test]
fn a_wrong_type_says_path_found_and_expected() {
    check(
        &container("ports: [{containerPort: \"80\"}]"),
        "8:29: spec.containers[0].ports[0].containerPort: expected a whole number, found the text \"80\"; without quotes it is one",
    );
    check(
        &container("env:\n- name: A\n  value: 1"),
        "10:14: spec.containers[0].env[0].value: expected a text, found the number 1; quote it: \"1\"",
    );
    check(
        &container("env:\n- name: A\n  value: yes"),
        "10:14: spec.containers[0].env[0].value: expected a text, found the boolean true (YAML reads yes so); quote it: \"yes\"",
    );
    check(
        &container("args: tls"),
        "8:11: spec.containers[0].args: expected a list, found the text \"tls\"; a list is [a, b], or lines that begin with -",
    );
    check(
        &container("securityContext: [a]"),
        "8:22: spec.containers[0].securityContext: expected an object, found a list",
    );
    check(
        &spec("shareProcessNamespace: \"true\""),
        "6:26: spec.shareProcessNamespace: expected true or false, found the text \"true\"",
    );
    check(
        &spec("terminationGracePeriodSeconds: 1.5"),
        "6:34: spec.terminationGracePeriodSeconds: expected a whole number, found the number 1.5",
    );
    check(
        &container("ports: [{containerPort: 4294967296}]"),
        "8:29: spec.containers[0].ports[0].containerPort: 4294967296 doesn't fit into 32 bits",
    );
}

#[test]
fn every_error_of_a_file_is_there() {
    let text = container(
        "imagePulPolicy: x\nargs: tls\nvolumeDevices: [x]\nenv:\n- {name: A, value: 1}\n- {nam: B}",
    );
    let lines: Vec<_> = errors(&text)
        .iter()
        .map(|e| e.split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(lines, ["8", "9", "10", "12", "13"]);
}

#[test]
fn errors_of_types_inside_ignored_fields_are_errors_too() {
    check(
        &spec("tolerations:\n- {key: a, operatr: Exists}"),
        "7:14: spec.tolerations[0].operatr: unknown field; did you mean operator?",
    );
    check(
        &spec("affinity: {nodeAffinity: 3}"),
        "6:28: spec.affinity.nodeAffinity: expected an object, found the number 3",
    );
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    check(
        &spec("hostUsers: false"),
        "6:3: spec.hostUsers: refused: a pod as root has the machine's users; run podkit as another user for a user namespace",
    );
    check(
        &spec("securityContext: {appArmorProfile: {type: RuntimeDefault}}"),
        "6:21: spec.securityContext.appArmorProfile: refused: no AppArmor profiles are loaded for containers here",
    );
    check(
        &spec("volumes: [{name: v, nfs: {server: s, path: /}}]"),
        "6:23: spec.volumes[0].nfs: refused: a cluster's storage; mount it on this machine and use a hostPath volume",
    );
    let ephemeral = spec("ephemeralContainers: [{name: d}]");
    assert!(errors(&ephemeral)[0].starts_with("6:3: spec.ephemeralContainers: refused: "));
}

#[test]
fn values_that_ask_for_what_is_done_anyway_pass() {
    let text = spec(
        "hostNetwork: false\nhostPID: false\nhostUsers: true\nos: {name: linux}\nreadinessGates: []\n\
         securityContext: {seccompProfile: {type: Unconfined}, sysctls: [], fsGroup: null}",
    );
    super::good(&text);
    let text = container(
        "stdin: false\ntty: false\nsecurityContext: {privileged: false, procMount: Default}",
    );
    super::good(&text);
}

#[test]
fn ignored_fields_are_listed_with_the_reason() {
    let text = spec("nodeSelector: {disk: ssd}\nschedulerName: x");
    assert_eq!(
        found(&text, Severity::Ignored),
        [
            "6:3: ignored: spec.nodeSelector: nothing is scheduled on one machine",
            "7:3: ignored: spec.schedulerName: nothing is scheduled on one machine",
        ]
    );
}

#[test]
fn kinds_and_versions() {
    const KINDS: &str = "Pod, Job, ConfigMap, Secret, PersistentVolumeClaim and List";
    check(
        "apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 2}\n",
        &format!("2:7: kind: refused: Deployment is not supported yet; {KINDS} are"),
    );
    check(
        "apiVersion: v1\nkind: pod\n",
        "2:7: kind: unknown kind pod; did you mean Pod?",
    );
    check(
        "apiVersion: v1\nkind: Node\n",
        &format!("2:7: kind: refused: Node is not supported; {KINDS} are"),
    );
    for kind in ["Service", "StatefulSet", "Thing"] {
        check(
            &format!("apiVersion: serving.knative.dev/v1\nkind: {kind}\n"),
            &format!(
                "2:7: kind: refused: {kind} of serving.knative.dev is not supported; {KINDS} are"
            ),
        );
    }
    check(
        "apiVersion: v1\nkind: Job\n",
        "1:13: apiVersion: \"v1\" is not the version of a Job: batch/v1",
    );
    assert_eq!(
        found(
            "apiVersion: v1\nkind: Service\nspec: {anything: 1}\n",
            Severity::Ignored
        ),
        [
            "2:7: ignored: kind: Service: nothing resolves or balances Services; a pod's ports are on this machine's loopback"
        ]
    );
    check(
        "kind: Pod\n",
        "1:1: apiVersion: apiVersion is missing: v1 for a Pod",
    );
    check(
        "apiVersion: v2\nkind: Pod\n",
        "1:13: apiVersion: \"v2\" is not the version of a Pod: v1",
    );
    check(
        "apiVersion: v1\n",
        "1:1: kind: kind is missing: Pod, Job, ConfigMap, Secret, PersistentVolumeClaim and List",
    );
    check("- a\n", "1:1: expected an object, found a list");
    check(
        "hello\n",
        "1:1: expected an object, found the text \"hello\"",
    );
}

#[test]
fn names_that_occur_twice() {
    let text = spec("initContainers: [{name: app, image: podkit}]");
    // The init container comes first in the order of start, the other in that of the file.
    check(
        &text,
        "5:23: spec.containers[0].name: there is a container \"app\" already, in line 6",
    );
    let text = spec("volumes: [{name: v}, {name: v}]");
    check(
        &text,
        "6:31: spec.volumes[1].name: there is a volume \"v\" already, in line 6",
    );
    let text =
        container("ports:\n- {name: http, containerPort: 1}\n- {name: http, containerPort: 2}");
    check(
        &text,
        "10:14: spec.containers[0].ports[1].name: there is a port \"http\" already, in line 9",
    );
    let two = format!("{}---\n{}", spec(""), spec(""));
    check(
        &two,
        "9:18: metadata.name: the Pod \"p\" was given before, at f:3:18",
    );
}

#[test]
fn names_have_a_form() {
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: My_Pod}\nspec: {containers: [{name: app, image: podkit}]}\n",
        "3:18: metadata.name: \"My_Pod\" is not a DNS name: lower-case letters, digits, - and ., beginning and ending with a letter or digit",
    );
    check(
        &spec("initContainers: [{name: a.b, image: podkit}]"),
        "6:27: spec.initContainers[0].name: \"a.b\" is not a DNS label: lower-case letters, digits and -, beginning and ending with a letter or digit",
    );
    check(
        "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: app, image: podkit}]}\n",
        "1:1: metadata.name: metadata.name is missing",
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {generateName: X-}\nspec: {containers: [{name: app, image: podkit}]}\n",
        "3:26: metadata.generateName: \"X\" is not a DNS name: lower-case letters, digits, - and ., beginning and ending with a letter or digit",
    );
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: X-}\n",
        "3:26: metadata.generateName: \"X\" is not a DNS name: lower-case letters, digits, - and ., beginning and ending with a letter or digit",
    );
}

#[test]
fn mounts() {
    let with = |mount: &str| {
        let volumes = "volumes: [{name: data}]\n";
        spec(volumes).replace(
            "image: podkit}",
            &format!("image: podkit, volumeMounts: [{mount}]}}"),
        )
    };
    let only = |mount: &str| errors(&with(mount)).join("\n");
    assert_eq!(
        only("{name: dat, mountPath: /d}"),
        "5:65: spec.containers[0].volumeMounts[0].name: there is no volume \"dat\"; did you mean data?"
    );
    assert!(only("{name: data, mountPath: d}").ends_with("\"d\" has to be absolute"));
    assert!(only("{name: data, mountPath: /}").ends_with("the root itself can't be mounted over"));
    assert!(only("{name: data, mountPath: /a/../b}").ends_with("may not have .."));
    assert!(
        only("{name: data, mountPath: /d, subPath: a/../../b}")
            .ends_with("leads out of the volume")
    );
    assert!(only("{name: data, mountPath: /d, subPath: /b}").ends_with("has to be relative"));
    assert_eq!(only("{name: data, mountPath: /d, subPathExpr: $(A)/b}"), "");
    assert!(
        only("{name: data, mountPath: /d, subPathExpr: b, subPath: a}")
            .ends_with("subPathExpr: subPathExpr and subPath are mutually exclusive")
    );
    assert!(
        only("{name: data, mountPath: /d, recursiveReadOnly: Enabled}")
            .ends_with("recursiveReadOnly: may only be specified when readOnly is true")
    );
    assert!(
        only("{name: data, mountPath: /d, readOnly: true, recursiveReadOnly: IfPossible, mountPropagation: HostToContainer}")
            .ends_with("may only be specified when mountPropagation is None or not specified")
    );
    assert!(
        only("{name: data, mountPath: /d, mountPropagation: Bidirectional}").ends_with(
            "Bidirectional mount propagation is available only to privileged containers"
        )
    );
    assert!(
        only("{name: data, mountPath: /d}, {name: data, mountPath: /d/}")
            .ends_with("there is a mount at \"/d\" already, in line 5")
    );
    assert_eq!(only("{name: data, mountPath: /d, subPath: a/b}"), "");
}

#[test]
fn probes_and_hooks() {
    let only = |lines: &str| {
        let errors = errors(&container(lines)).join("\n");
        errors.replace("spec.containers[0].", "")
    };
    assert_eq!(
        only("livenessProbe: {successThreshold: 2, tcpSocket: {port: 1}}"),
        "8:39: livenessProbe.successThreshold: has to be 1 for a livenessProbe"
    );
    assert_eq!(
        only("readinessProbe: {successThreshold: 2, tcpSocket: {port: 1}}"),
        ""
    );
    assert_eq!(
        only("startupProbe: {periodSeconds: -1, tcpSocket: {port: 1}}"),
        "8:35: startupProbe.periodSeconds: can't be negative"
    );
    assert_eq!(
        only("startupProbe: {periodSeconds: 0, tcpSocket: {port: 1}}"),
        ""
    );
    assert_eq!(
        only("startupProbe: {periodSeconds: 3}"),
        "8:5: startupProbe: nothing to do: give exec, httpGet, tcpSocket or grpc"
    );
    assert_eq!(
        only("startupProbe: {grpc: {port: 0}}"),
        "8:33: startupProbe.grpc.port: 0 is not within 1 to 65535"
    );
    assert_eq!(
        only("startupProbe: {exec: {command: [a]}, tcpSocket: {port: 1}}"),
        "8:5: startupProbe: more than one of exec, httpGet, tcpSocket or grpc"
    );
    assert_eq!(
        only("startupProbe: {httpGet: {port: 70000}}"),
        "8:36: startupProbe.httpGet.port: 70000 is not within 1 to 65535"
    );
    assert_eq!(
        only("startupProbe: {httpGet: {port: \"80\"}}"),
        "8:36: startupProbe.httpGet.port: the port name \"80\" has to have a letter: a port's number is written without quotes"
    );
    assert_eq!(
        only("startupProbe: {httpGet: {port: [1]}}"),
        "8:36: startupProbe.httpGet.port: expected a number or a text, found a list"
    );
    assert_eq!(
        only("readinessProbe: {terminationGracePeriodSeconds: 3, tcpSocket: {port: 1}}"),
        "8:53: readinessProbe.terminationGracePeriodSeconds: has no meaning for a readinessProbe: it restarts nothing"
    );
    assert_eq!(
        only(
            "startupProbe: {httpGet: {port: 1, httpHeaders: [{name: \"a b\", value: \"x\\r\\ny\"}]}}"
        ),
        "8:60: startupProbe.httpGet.httpHeaders[0].name: \"a b\" is not the name of an HTTP header\n\
         8:74: startupProbe.httpGet.httpHeaders[0].value: control characters can't be in a header"
    );
    assert_eq!(
        only("lifecycle: {preStop: {sleep: {seconds: 31}}}"),
        "8:44: lifecycle.preStop.sleep.seconds: 31 is not within 0 and terminationGracePeriodSeconds (30)"
    );
    assert_eq!(
        only("lifecycle: {postStart: {exec: {}}}"),
        "8:29: lifecycle.postStart.exec.command: a command is missing"
    );
}

#[test]
fn init_containers_and_sidecars() {
    check(
        &spec("initContainers:\n- {name: i, image: podkit, restartPolicy: Nevr}"),
        "7:45: spec.initContainers[0].restartPolicy: \"Nevr\" is none of Always, OnFailure, Never; did you mean Never?",
    );
    check(
        &spec("initContainers:\n- {name: i, image: podkit, livenessProbe: {tcpSocket: {port: 1}}}"),
        "7:30: spec.initContainers[0].livenessProbe: an init container has none; with restartPolicy: Always it is a sidecar and may",
    );
    super::good(&spec(
        "initContainers:\n- {name: i, image: podkit, restartPolicy: Always, livenessProbe: {tcpSocket: {port: 1}}}",
    ));
    super::good(&container(
        "restartPolicy: Never\nrestartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]",
    ));
    check(
        &container(
            "restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]",
        ),
        "6:5: spec.containers[0].restartPolicy: must specify restartPolicy when restart rules are used",
    );
    let rule = |rule: &str| {
        let rules = format!("restartPolicy: Never\nrestartPolicyRules: [{rule}]");
        errors(&container(&rules)).join("\n")
    };
    assert!(
        rule("{action: Restart}").ends_with("restartPolicyRules[0].exitCodes: must be specified")
    );
    assert!(
        rule("{action: Stop, exitCodes: {operator: In, values: [1]}}")
            .contains("is none of Restart, RestartAllContainers")
    );
    assert!(
        rule("{action: Restart, exitCodes: {operator: In, values: [256]}}")
            .ends_with("values[0]: 256 is not within 0 to 255")
    );
    assert!(
        rule("{action: Restart, exitCodes: {operator: NotIn, values: []}}")
            .ends_with("values: at least one value must be specified")
    );
}

#[test]
fn environment() {
    let only = |lines: &str| {
        errors(&container(lines))
            .join("\n")
            .replace("spec.containers[0].", "")
    };
    assert!(only("env: [{name: A=B}]").ends_with("printable ASCII characters other than ="));
    assert!(only("env: [{value: x}]").ends_with("a variable needs a name"));
    assert!(
        only("env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]")
            .ends_with("env[0].valueFrom: both value and valueFrom")
    );
    assert!(
        only("env: [{name: A, valueFrom: {}}]")
            .ends_with("secretKeyRef, fieldRef, resourceFieldRef, fileKeyRef")
    );
    assert!(
        only("envFrom: [{prefix: A_}]")
            .ends_with("envFrom[0]: give one of configMapRef and secretRef")
    );
    assert!(
        only("command: [\"a\\0b\"]")
            .ends_with("command[0]: a NUL byte can't be passed to a program")
    );
}

#[test]
fn config_maps_and_secrets() {
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a/b: x}\n",
        "4:13: data['a/b']: the key \"a/b\" has characters other than letters, digits, -, _ and .",
    );
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {m: 3}\n",
        "4:11: data.m: expected a text, found the number 3; quote it: \"3\"",
    );
    let bad = errors(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: c}\ndata: {a: hello!, b: '?', c: aGk=}\n",
    );
    assert_eq!(bad.len(), 2);
    assert!(
        bad[0].starts_with("4:11: data.a: not base64 ("),
        "{}",
        bad[0]
    );
    assert!(
        bad[1].starts_with("4:22: data.b: not base64 ("),
        "{}",
        bad[1]
    );
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: x}\nbinaryData: {a: aGk=}\n",
        "5:17: binaryData.a: this key is in data too",
    );
    check(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: c}\ntype: kubernetes.io/tls\nstringData: {tls.crt: x}\n",
        "4:7: type: a Secret of type kubernetes.io/tls needs the key tls.key",
    );
}

#[test]
fn volumes() {
    let only = |volume: &str| {
        errors(&spec(&format!("volumes:\n- {{name: v, {volume}}}")))
            .join("\n")
            .replace("spec.volumes[0].", "")
    };
    assert!(
        only("configMap: {name: c, defaultMode: 644}")
            .ends_with("644 is not a mode from 0 to 0777 (511); octal needs a leading 0: 0644")
    );
    assert_eq!(only("configMap: {name: c, defaultMode: 0644}"), "");
    assert!(
        only("configMap: {name: c, items: [{key: a, path: ../b}]}")
            .ends_with("may not begin with ..")
    );
    assert!(
        only("configMap: {name: c, items: [{key: a, path: a/../b}]}")
            .ends_with("leads out of the volume")
    );
    assert!(
        only("emptyDir: {sizeLimit: 1GB}")
            .contains("\"GB\" is not a suffix of a quantity (did you mean Gi or G?)")
    );
    assert!(only("emptyDir: {medium: HugePages}").contains("\"HugePages\" is none of Memory"));
    assert!(only("hostPath: {path: data}").ends_with("\"data\" has to be absolute"));
    assert!(only("hostPath: {path: /a/../b}").ends_with("may not have .."));
    assert!(
        only("hostPath: {path: /a, type: Dir}").contains("is none of DirectoryOrCreate, Directory")
    );
    assert!(
        only("emptyDir: {}, hostPath: {path: /a}")
            .ends_with("may not specify more than 1 volume type")
    );
}

#[test]
fn resources_and_security() {
    let only = |lines: &str| {
        errors(&container(lines))
            .join("\n")
            .replace("spec.containers[0].", "")
    };
    assert!(only("resources: {limits: {cpu: 1, memory: 64Mb}}").contains("did you mean Mi or M?"));
    assert!(only("resources: {limits: {nvidia.com/gpu: 1}}").contains("is not supported"));
    assert!(
        only("resources: {limits: {cpu: 1}, requests: {cpu: 2}}")
            .contains("asks for 2, more than the limit of 1")
    );
    assert!(only("resources: {limits: {cpu: -1}}").ends_with("limits.cpu: can't be negative"));
    assert_eq!(
        found(
            &container("resources: {limits: {memory: 100m}}"),
            Severity::Warning
        ),
        [
            "8:34: warning: spec.containers[0].resources.limits.memory: \"100m\" is 0.1 bytes; did you mean M or Mi?"
        ]
    );
    assert!(
        only("securityContext: {capabilities: {add: [CAP_NET_ADMIN]}}")
            .ends_with("did you mean NET_ADMIN?")
    );
    assert!(
        only("securityContext: {capabilities: {add: [NET_ADMN]}}")
            .ends_with("did you mean NET_ADMIN?")
    );
    assert!(only("securityContext: {runAsUser: -1}").ends_with("-1 is not within 0 to 2147483647"));
    assert!(
        only(
            "securityContext: {allowPrivilegeEscalation: false, capabilities: {add: [SYS_ADMIN]}}"
        )
        .ends_with("can't be false together with the capability SYS_ADMIN")
    );
}

#[test]
fn host_ports_are_taken_once() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - {name: a, image: podkit, ports: [{containerPort: 1, hostPort: 80}]}\n  - {name: b, image: podkit, ports: [{containerPort: 2, hostPort: 80}]}\n";
    check(
        text,
        "7:67: spec.containers[1].ports[0].hostPort: port 80 of the machine is taken by container \"a\"",
    );
}

#[test]
fn a_wrong_type_says_what_would_be_right() {
    let at = |lines: &str| errors(&container(lines)).join("\n");
    assert_eq!(
        at("command: sleep 10"),
        "8:14: spec.containers[0].command: expected a list, found the text \"sleep 10\"; a list is [a, b], or lines that begin with -"
    );
    assert_eq!(
        at("livenessProbe: {tcpSocket: {port: 1}, periodSeconds: 5s}"),
        "8:58: spec.containers[0].livenessProbe.periodSeconds: expected a whole number, found the text \"5s\""
    );
}

/// kubernetes-validate takes `{}` there and nothing else.
#[test]
fn types_without_fields() {
    let job = |mode: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: j}}\nspec:\n  scheduling: {{disruptionMode: {{all: {mode}}}}}\n  \
             template: {{spec: {{restartPolicy: Never, containers: [{{name: a, image: podkit}}]}}}}\n"
        )
    };
    super::good(&job("{}"));
    let at = "5:38: spec.scheduling.disruptionMode.all";
    check(
        &job("x"),
        &format!("{at}: expected an object, found the text \"x\""),
    );
    check(
        &job("{a: b}"),
        "5:39: spec.scheduling.disruptionMode.all.a: unknown field",
    );
}

#[test]
fn files_that_are_no_manifests() {
    let whole = |bytes: &[u8]| parse("f", bytes).1.to_string();
    assert_eq!(whole(b""), "f: empty: there is no object in it\n");
    assert_eq!(
        whole(b"# only a comment\n---\n"),
        "f: empty: there is no object in it\n"
    );
    assert_eq!(
        whole(b"\x7fELF\x02\x01\x01\0\0"),
        "f:1:8: not a text: a NUL byte\n"
    );
    assert_eq!(
        whole(b"kind: Pod\nna\xffme: x\n"),
        "f:2:3: not UTF-8 text\n"
    );
    assert_eq!(
        whole(b"\xff\xfek\0i\0"),
        "f:1:1: this is UTF-16; save it as UTF-8\n"
    );
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no.yaml");
    let message =
        |path: &std::path::Path| load(&[path.to_owned()], NameSeed::default()).1.to_string();
    assert_eq!(
        message(&missing),
        format!("{}: no such file\n", missing.display())
    );
    let nothing = format!(
        "{}: no .yaml, .yml or .json file in this directory\n",
        dir.path().display()
    );
    std::fs::write(dir.path().join("notes.txt"), "kind: Pod").unwrap();
    assert_eq!(message(dir.path()), nothing);
    assert!(load(&[], NameSeed::default()).1.has_errors());
    let endless = std::path::Path::new("/dev/zero");
    assert_eq!(message(endless), "/dev/zero: larger than 16 MiB\n");
}

#[test]
fn findings_are_bounded() {
    let text = spec(&"x: 1\n".repeat(5000));
    let (_, findings) = parse("f", text.as_bytes());
    let shown = findings.to_string();
    assert_eq!(shown.lines().count(), 1001);
    // One unknown field, and the rest the same key again.
    assert!(
        shown.ends_with("and 4000 more\n"),
        "{}",
        &shown[shown.len() - 40..]
    );
    assert_eq!(findings.count(Severity::Error), 5000);
}
