//! Several files, and directories, as `kubectl apply -f` takes them.

use std::path::{Path, PathBuf};

use crate::manifest::{Documents, Findings, load};

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")
}

fn names(documents: &Documents) -> Vec<String> {
    let maps = documents.config_maps.iter();
    maps.map(|map| map.object.metadata.name.clone().unwrap())
        .collect()
}

fn loaded(paths: &[PathBuf]) -> (Vec<String>, Findings) {
    let (documents, findings) = load(paths, crate::manifest::NameSeed::default());
    (names(&documents), findings)
}

#[test]
fn a_directory_stands_for_the_manifests_right_in_it() {
    let json = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "from-json"}}"#;
    let dir = directory(&[
        ("2.yml", &config_map("second")),
        ("1.yaml", &config_map("first")),
        ("3.json", json),
        ("README.md", "kind: Pod"),
        ("deeper/4.yaml", "not even: [yaml"),
        ("5.yaml/inner", ""),
    ]);
    let (names, findings) = loaded(&[dir.path().to_owned()]);
    assert_eq!(names, ["first", "second", "from-json"]);
    assert!(findings.iter().next().is_none(), "{findings}");
}

#[test]
fn files_and_directories_in_the_order_given() {
    let dir = directory(&[
        ("a/a.yaml", &config_map("a")),
        ("z.yaml", &config_map("z")),
        ("b/b.yaml", &config_map("b")),
    ]);
    let at = |name: &str| dir.path().join(name);
    let (names, findings) = loaded(&[at("z.yaml"), at("b"), at("a")]);
    assert_eq!(names, ["z", "b", "a"], "{findings}");
}

#[test]
fn the_same_object_in_two_files() {
    let dir = directory(&[("1.yaml", &config_map("c")), ("2.yaml", &config_map("c"))]);
    let (_, findings) = loaded(&[dir.path().to_owned()]);
    let at = |name: &str| dir.path().join(name).display().to_string();
    assert_eq!(
        findings.to_string(),
        format!(
            "{}:3:18: metadata.name: the ConfigMap \"c\" was given before, at {}:3:18\n",
            at("2.yaml"),
            at("1.yaml")
        )
    );
}

/// kubectl minds only when there is nothing in any of them.
#[test]
fn a_file_of_comments_beside_others() {
    let dir = directory(&[
        ("1.yaml", "# nothing yet\n---\n# nor here\n"),
        ("2.yaml", &config_map("c")),
    ]);
    let (names, findings) = loaded(&[dir.path().to_owned()]);
    assert_eq!(names, ["c"]);
    assert!(!findings.has_errors());
    let said = findings.to_string();
    assert!(
        said.ends_with("1.yaml: warning: there is no object in it\n"),
        "{said}"
    );

    std::fs::remove_file(dir.path().join("2.yaml")).unwrap();
    let (_, findings) = loaded(&[dir.path().to_owned()]);
    assert!(findings.has_errors(), "{findings}");
}

/// Comments, an empty document between two, a List with JSON inside: all are documents that kubectl takes.
#[test]
fn documents_of_every_form() {
    let text = format!(
        "# a comment\n---\n---\n# another\n{}---\n\n---\napiVersion: v1\nkind: List\nmetadata: {{resourceVersion: \"\"}}\nitems:\n- {}\n- {}...\n",
        config_map("one"),
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "two"}}"#,
        "apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: three}\n"
    );
    let dir = directory(&[("all.yaml", &text)]);
    let file: &Path = &dir.path().join("all.yaml");
    let (names, findings) = loaded(&[file.to_owned()]);
    assert_eq!(names, ["one", "two", "three"], "{findings}");
}
