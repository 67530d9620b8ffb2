//! What is written must be what is.

use std::path::Path;

use podkit_testkit::podkit::{binary, podkit};
use podkit_testkit::{reference, repository};

#[test]
fn the_reference_is_current() {
    let changed = reference::write(binary());
    assert!(
        changed.is_empty(),
        "these were stale and are written anew; look at them and commit them: {}",
        changed.join(", ")
    );
}

/// Links of all Markdown files to files of the repository.
#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    markdown(&repository(), &mut |path, text| {
        for target in text.split("](").skip(1) {
            let target = target.split([')', '#', ' ']).next().unwrap_or_default();
            let foreign = target.contains("://") || target.is_empty();
            let folder = path.parent().expect("a file is in a folder");
            if !foreign && !folder.join(target).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    });
    // The benchmarks' pages come with the first `cargo xtask bench`.
    broken.retain(|line| !line.contains("docs/benchmarks"));
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Modules that the README says are there are there, and the others are refused as not there yet, not as typos.
#[test]
fn the_readme_names_the_modules_that_are_there() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let rows = readme.lines().filter(|line| {
        line.starts_with('|') && (line.ends_with("| yes |") || line.ends_with("| not yet |"))
    });
    let surface = surface();
    let known: Vec<&str> = surface["modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|module| module["name"].as_str().unwrap())
        .collect();
    let mut there = Vec::new();
    for row in rows {
        let names: Vec<&str> = row
            .split('|')
            .nth(2)
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        for name in names {
            if row.ends_with("| yes |") {
                there.push(name);
                continue;
            }
            let refused = podkit(&[name]);
            assert_eq!(refused.code, Some(2), "{name}");
            assert!(refused.err.contains("yet"), "{name}: {}", refused.err);
        }
    }
    there.sort_unstable();
    let mut known = known;
    known.sort_unstable();
    assert_eq!(there, known);
}

#[test]
fn a_surface_does_not_break_itself() {
    let file = repository().join("docs/reference/surface.json");
    let file = file.to_str().unwrap();
    assert_eq!(podkit(&["explain", "--diff", file]).code, Some(0));
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old.json");
    let mut surface = surface();
    surface["modules"][0]["parameters"][0]["name"] = "gone-since".into();
    std::fs::write(&old, surface.to_string()).unwrap();
    let broken = podkit(&["explain", "--diff", old.to_str().unwrap()]);
    assert_eq!(broken.code, Some(1), "{}{}", broken.out, broken.err);
    assert!(broken.out.contains("gone-since"), "{}", broken.out);
}

#[test]
fn completions_know_the_modules() {
    for shell in ["bash", "zsh", "fish"] {
        let script = podkit(&["completions", shell]).ok();
        assert!(
            script.contains("topz") && script.contains("client-ca"),
            "{shell}"
        );
    }
}

/// `podkit explain -o json`.
pub(crate) fn surface() -> serde_json::Value {
    serde_json::from_str(&podkit(&["explain", "-o", "json"]).ok()).unwrap()
}

fn markdown(dir: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
            markdown(&path, see);
        } else if name.ends_with(".md") {
            see(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
