//! What is wrong with a file is said before anything starts: `podkit check` and `podkit run` alike, exit code 2, one line a fault.

use podkit_testkit::podkit::podkit;

use crate::ground::{examples, line_of, manifest};

/// Checks a pod's spec, and that both commands refuse it with lines that hold these parts.
fn refused(spec: &str, parts: &[&str]) {
    refused_text(&manifest(spec), parts);
}

fn refused_text(text: &str, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pod.yaml");
    std::fs::write(&file, text).unwrap();
    for command in ["check", "run"] {
        let finished = podkit(&[command, file.to_str().unwrap()]);
        let said = format!("{}{}", finished.out, finished.err);
        assert_eq!(finished.code, Some(2), "{command}: {said}\n{text}");
        for part in parts {
            assert!(said.contains(part), "{command}: no {part} in {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}

const APP: &str = "containers:\n- name: app\n  image: none\n  command: [sleep, infinity]\n";

/// Refuses a pod whose line that holds `mark` is wrong, and names that line.
fn refused_at(spec: &str, mark: &str, parts: &[&str]) {
    let text = manifest(spec);
    let place = format!("pod.yaml:{}:", line_of(&text, mark));
    refused_text(&text, parts);
    refused_text(&text, &[&place]);
}

#[test]
fn an_unknown_field_is_named_with_line_and_nearest_name() {
    let spec = format!("{APP}  readinesProbe: {{}}\n");
    refused_at(&spec, "readinesProbe", &["readinesProbe", "readinessProbe"]);
}

#[test]
fn a_wrong_type_is_named() {
    let spec = format!("{APP}  ports: [{{containerPort: http}}]\n");
    refused_at(&spec, "containerPort", &["containerPort", "http"]);
    refused(
        &format!("{APP}terminationGracePeriodSeconds: soon\n"),
        &["terminationGracePeriodSeconds"],
    );
    refused("containers: none\n", &["containers"]);
}

#[test]
fn two_containers_of_one_name_are_refused() {
    refused(
        &format!("{APP}- name: app\n  image: none\n  command: [sleep, infinity]\n"),
        &["app", "name"],
    );
}

#[test]
fn a_key_that_the_config_map_lacks_is_named() {
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{mode: fast}}\n---\n{}",
        manifest(&format!(
            "{APP}  env:\n  - name: MODE\n    valueFrom: {{configMapKeyRef: {{name: settings, key: mood}}}}\n"
        ))
    );
    refused_text(&text, &["settings", "mood"]);
}

#[test]
fn a_config_map_that_is_not_there_is_named() {
    refused(
        &format!("{APP}volumes:\n- name: v\n  configMap: {{name: nowhere}}\n"),
        &["nowhere"],
    );
}

#[test]
fn a_name_that_is_no_images_is_refused() {
    refused(
        "containers:\n- name: web\n  image: Nginx:1.28\n",
        &["couldn't parse image name", "Nginx", "lowercase"],
    );
}

#[test]
fn a_sub_path_that_escapes_is_refused() {
    let spec = format!(
        "{APP}  volumeMounts: [{{name: v, mountPath: /mnt, subPath: ../../etc}}]\nvolumes: [{{name: v, emptyDir: {{}}}}]\n"
    );
    refused(&spec, &["subPath"]);
}

#[test]
fn a_mount_of_a_volume_that_is_not_there_is_refused() {
    refused(
        &format!("{APP}  volumeMounts: [{{name: gone, mountPath: /mnt}}]\n"),
        &["gone"],
    );
}

#[test]
fn what_is_not_supported_yet_is_refused_by_name() {
    refused(&format!("{APP}hostNetwork: true\n"), &["hostNetwork"]);
    refused_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {}\n",
        &["Deployment"],
    );
}

#[test]
fn broken_yaml_and_missing_files_are_one_clear_line() {
    refused_text("apiVersion: v1\nkind: [Pod\n", &["pod.yaml:"]);
    refused_text("", &["pod.yaml"]);
    let finished = podkit(&["run", "/not/there.yaml"]);
    assert_eq!(finished.code, Some(2), "{}", finished.err);
    assert!(finished.err.contains("/not/there.yaml"), "{}", finished.err);
}

#[test]
fn the_machine_is_not_given_away_without_a_word() {
    let spec = format!(
        "{APP}  volumeMounts: [{{name: etc, mountPath: /mnt}}]\nvolumes: [{{name: etc, hostPath: {{path: /etc}}}}]\n"
    );
    refused(&spec, &["--allow-privileged"]);
}

#[test]
fn every_example_is_sound() {
    for file in examples() {
        let checked = podkit(&["check", "-o", "json", file.to_str().unwrap()]);
        let report: serde_json::Value = serde_json::from_str(&checked.out).unwrap();
        let findings = report["findings"].as_array().unwrap();
        // That it reads files of this machine is a risk, and meant.
        let wrong: Vec<_> = findings
            .iter()
            .filter(|one| one["severity"] != "risk")
            .collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", file.display());
    }
}

#[test]
fn a_wrong_flag_of_the_agent_is_named_with_its_line() {
    let text = manifest(
        "\
containers:
- name: app
  image: example/nginx:1
  command:
  - /tools/podkit
  - agent
  - --allow=nginx* -t
  - --alow=true
  - --
  - nginx
",
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pod.yaml");
    std::fs::write(&file, &text).unwrap();
    let checked = podkit(&["check", file.to_str().unwrap()]);
    assert_eq!(checked.code, Some(2), "{}", checked.out);
    for (mark, part) in [
        (
            "nginx* -t",
            "--allow of agent: \"nginx* -t\" is not right (\"nginx*\": a * is a whole word)",
        ),
        ("--alow", "agent has no flag --alow; did you mean --allow?"),
    ] {
        let place = format!("pod.yaml:{}:", line_of(&text, mark));
        let line = checked.out.lines().find(|line| line.contains(&place));
        assert!(
            line.is_some_and(|line| line.contains(part)),
            "{}",
            checked.out
        );
    }
}
