//! What is wrong with images as volumes, and with variables out of the files of volumes.

use super::{container, errors, spec};

#[test]
fn variables_out_of_files() {
    let only = |from: &str| {
        let lines = format!("env: [{{name: A, valueFrom: {{fileKeyRef: {from}}}}}]");
        let volumes = "  volumes: [{name: made, emptyDir: {}}, {name: bare}, {name: claim, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}]\n";
        errors(&(container(&lines) + volumes))
            .join("\n")
            .replace("spec.containers[0].env[0].valueFrom.fileKeyRef.", "")
    };
    assert_eq!(only("{volumeName: made, path: a/b.env, key: K}"), "");
    assert_eq!(
        only("{volumeName: bare, path: b, key: k, optional: true}"),
        ""
    );
    assert_eq!(
        only("{volumeName: mode, path: b, key: k}"),
        "8:58: volumeName: there is no volume \"mode\"; did you mean made?"
    );
    assert_eq!(
        only("{volumeName: claim, path: b, key: k}"),
        "8:58: volumeName: the volume \"claim\" is not an emptyDir, and variables are read out of no other"
    );
    assert!(
        only("{volumeName: made, path: ../b, key: k}")
            .ends_with("path: \"../b\" may not begin with ..")
    );
    assert!(
        only("{volumeName: made, path: a/../b, key: k}")
            .ends_with("path: \"a/../b\" leads out of the volume")
    );
    assert!(
        only("{volumeName: made, path: /b, key: k}").ends_with("path: \"/b\" has to be relative")
    );
    assert!(
        only("{volumeName: made, path: \"\", key: k}")
            .ends_with("path: a path in the volume is missing")
    );
    assert!(
        only("{volumeName: made, path: b, key: a=b}")
            .ends_with("printable ASCII characters other than =")
    );
    assert!(only("{volumeName: made, path: b, key: \"\"}").ends_with("key: a key is missing"));
    assert!(
        only("{volumeName: \"\", path: b, key: k}")
            .ends_with("volumeName: the volume's name is missing")
    );
    let long = format!("{{volumeName: made, path: b, key: {}}}", "k".repeat(129));
    assert!(only(&long).ends_with("key: may have at most 128 bytes"));
    assert!(
        only("{volumeName: made, path: b, key: k, optionel: true}")
            .ends_with("did you mean optional?")
    );
}

#[test]
fn images_as_volumes() {
    let only = |volume: &str| {
        let text = spec(&format!("volumes: [{{name: v, {volume}}}]"));
        errors(&text).join("\n").replace("spec.volumes[0].", "")
    };
    assert_eq!(only("image: {reference: data, pullPolicy: Never}"), "");
    assert!(only("image: {}").ends_with("image.reference: the reference of an image is missing"));
    assert!(
        only("image: {reference: \" a\"}").ends_with("image.reference: space around the image")
    );
    assert!(
        only("image: {reference: a, pullPolicy: always}")
            .contains("image.pullPolicy: \"always\" is none of Always, IfNotPresent, Never")
    );
    assert!(only("image: {referense: a}").contains("did you mean reference?"));
    assert!(
        only("image: {reference: a}, emptyDir: {}")
            .ends_with("may not specify more than 1 volume type")
    );
}
