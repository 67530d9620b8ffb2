//! Volumes that are made of more than one thing: projected, downwardAPI, claims.

use std::collections::BTreeMap;

use super::{DATA, container, errors, good, plan};
use crate::manifest::Severity;
use crate::plan::downward::quoted;
use crate::plan::{Options, PullPolicy, VolumeKind};

fn text(volume: &str, more: &str) -> String {
    let volumes = format!("  volumes:\n  - {{name: v, {volume}}}\n{more}");
    let lines = "args: [echo]\nresources: {limits: {cpu: 1500m, memory: 64Mi}}";
    container(lines, &volumes)
}

/// Path → content and mode.
fn files(volume: &str) -> BTreeMap<String, (String, u32)> {
    let plan = good(&text(volume, DATA));
    let VolumeKind::Files {
        files,
        secret: true,
    } = &plan.volumes[0].kind
    else {
        panic!("{:?}", plan.volumes)
    };
    let files = files.iter().map(|(path, file)| {
        let content = String::from_utf8(file.bytes.clone()).unwrap();
        (path.clone(), (content, file.mode))
    });
    files.collect()
}

fn wrong(volume: &str) -> String {
    errors(&text(volume, DATA), &Options::default())
        .join("\n")
        .replace("spec.volumes[0].", "")
}

#[test]
fn the_pods_own_fields_as_files() {
    let found = files(
        "downwardAPI: {defaultMode: 0400, items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, \
         {path: a/name, mode: 0444, fieldRef: {fieldPath: metadata.name}}, {path: app, fieldRef: {fieldPath: \"metadata.labels['app']\"}}, \
         {path: notes, fieldRef: {fieldPath: metadata.annotations}}, \
         {path: cpu, resourceFieldRef: {containerName: app, resource: limits.cpu}}, \
         {path: cpu_m, resourceFieldRef: {containerName: app, resource: limits.cpu, divisor: 1m}}, \
         {path: mem, resourceFieldRef: {containerName: app, resource: requests.memory, divisor: 1Mi}}]}",
    );
    let file = |path: &str| (found[path].0.as_str(), found[path].1);
    assert_eq!(file("labels"), ("app=\"web\"", 0o400));
    assert_eq!(file("a/name"), ("p", 0o444));
    assert_eq!(file("app"), ("web", 0o400));
    assert_eq!(file("notes"), ("a/b=\"note\"", 0o400));
    assert_eq!(
        (file("cpu").0, file("cpu_m").0, file("mem").0),
        ("2", "1500", "64")
    );
    assert!(
        wrong("downwardAPI: {items: [{path: a, fieldRef: {fieldPath: status.podIP}}]}")
            .contains("\"status.podIP\" can't be a file; there are metadata.name")
    );
    assert!(
        wrong("downwardAPI: {items: [{path: a, resourceFieldRef: {containerName: ap, resource: limits.cpu}}]}")
            .ends_with("there is no container \"ap\"; did you mean app?")
    );
}

#[test]
fn values_are_quoted_as_go_does() {
    for (text, expected) in [
        ("plain", "\"plain\""),
        ("a\"b\\c", "\"a\\\"b\\\\c\""),
        ("a\nb\tc\r", "\"a\\nb\\tc\\r\""),
        ("\u{7f}\u{1}", "\"\\x7f\\x01\""),
        ("é \u{a0}", "\"é \\u00a0\""),
    ] {
        assert_eq!(quoted(text), expected);
    }
}

#[test]
fn several_sources_in_one_volume() {
    let found = files(
        "projected: {defaultMode: 0440, sources: [{configMap: {name: c, items: [{key: host, path: db/host}]}}, \
         {secret: {name: s, items: [{key: user, path: user, mode: 0400}]}}, {configMap: {name: none, optional: true}}, \
         {downwardAPI: {items: [{path: ns, fieldRef: {fieldPath: metadata.namespace}}]}}]}",
    );
    let file = |path: &str| (found[path].0.as_str(), found[path].1);
    assert_eq!(file("db/host"), ("db", 0o440));
    assert_eq!(file("user"), ("jane", 0o400));
    assert_eq!(file("ns"), ("default", 0o440));
    assert_eq!(found.len(), 3);
    assert!(
        wrong("projected: {sources: [{configMap: {name: c}}, {downwardAPI: {items: [{path: host, fieldRef: {fieldPath: metadata.name}}]}}]}")
            .ends_with("\"host\" and \"host\" are in each other's way")
    );
    assert!(
        wrong("projected: {sources: [{secret: {name: none}}]}")
            .ends_with("there is no Secret \"none\" in the files; give its file too, or say optional: true where it is referred to")
    );
}

#[test]
fn what_a_cluster_mounts_into_every_pod_is_ignored() {
    let volume = "projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 3607}}, \
                  {configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}}, \
                  {downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}}]}";
    let (plans, findings) = plan(&text(volume, ""), &Options::default());
    assert!(!findings.has_errors(), "{findings}");
    assert_eq!(findings.count(Severity::Ignored), 1, "{findings}");
    let VolumeKind::Files { files, .. } = &plans[0].volumes[0].kind else {
        panic!()
    };
    assert_eq!(files.keys().collect::<Vec<_>>(), ["namespace"]);
}

#[test]
fn claims() {
    let claim = "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\n\
                 spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
    let volume = "persistentVolumeClaim: {claimName: data, readOnly: true}";
    let expected = |request_bytes| VolumeKind::Claim {
        namespace: "default".into(),
        name: "data".into(),
        read_only: true,
        request_bytes,
    };
    let (plans, findings) = plan(&text(volume, claim), &Options::default());
    assert!(findings.is_empty(), "{findings}");
    assert_eq!(plans[0].volumes[0].kind, expected(Some(1 << 30)));
    let (plans, findings) = plan(&text(volume, ""), &Options::default());
    assert_eq!(findings.count(Severity::Warning), 1, "{findings}");
    assert_eq!(plans[0].volumes[0].kind, expected(None));
    let ephemeral = "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}";
    let plan = good(&text(ephemeral, ""));
    assert_eq!(
        plan.volumes[0].kind,
        VolumeKind::EmptyDir { limit_bytes: None }
    );
}

#[test]
fn images_as_volumes() {
    let image = |volume: &str| {
        let plan = good(&text(&format!("image: {volume}"), ""));
        match plan.volumes[0].kind.clone() {
            VolumeKind::Image {
                image,
                location,
                pull,
            } => (image, location.to_string(), pull),
            other => panic!("{other:?}"),
        }
    };
    let (as_written, whole, pull) = image("{reference: data}");
    assert_eq!(as_written, "data");
    assert!(whole.ends_with("data:latest"), "{whole}");
    assert_eq!(pull, PullPolicy::Always);
    let pull = |volume: &str| image(volume).2;
    assert_eq!(
        pull("{reference: \"r.example/data:1\"}"),
        PullPolicy::IfNotPresent
    );
    assert_eq!(
        pull("{reference: \"r.example/data:1\", pullPolicy: Never}"),
        PullPolicy::Never
    );
    assert!(
        wrong("image: {reference: Data}")
            .contains("image.reference: couldn't parse image name \"Data\"")
    );
    assert_eq!(
        wrong("image: {reference: podkit}"),
        "11:34: image.reference: \"podkit\" is this program itself, which is in no registry; `podkit install DIR` in an init container copies it into an emptyDir"
    );
}

#[test]
fn the_images_that_a_container_mounts() {
    let lines = "args: [echo]\nvolumeMounts: [{name: b, mountPath: /b}, {name: b, mountPath: /c, subPath: c}, {name: e, mountPath: /e}]";
    let volumes = "  volumes: [{name: a, image: {reference: a}}, {name: b, image: {reference: b}}, {name: e, emptyDir: {}}]\n";
    let plan = good(&container(lines, volumes));
    let mounted = plan.image_volumes(&plan.containers[0]);
    let names: Vec<&str> = mounted.map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["b"]);
}
