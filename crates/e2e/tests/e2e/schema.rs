//! `podkit check` against Kubernetes' own schema, as PyPI's kubernetes-validate judges by it.
//!
//! For every field that a Pod or a Job can have there are three manifests: one with a good value in it, one with a value of another
//! type, one with a field beside it that doesn't exist. What is valid there is accepted here, or refused by the name of a field with its
//! line; what is invalid there is refused here; nothing makes podkit fail otherwise. The manifests are made out of the schema that
//! the package ships, so that a field of a new Kubernetes is in the test before anybody knows of it.
//!
//! `cargo xtask test` puts the package into target/kubernetes-validate.

mod build;
mod field;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use podkit_testkit::podkit::podkit;
use podkit_testkit::{program, repository, skip};
use serde_json::{Value, json};

use build::Schema;
use field::{Case, Kind};

use crate::ground::examples;

/// The Kubernetes whose types podkit knows.
const VERSION: &str = "1.37";
/// Files in one run of podkit: fewer findings than it prints at most.
const BATCH: usize = 100;

/// Prints for each manifest of a list whether it is valid: one letter each.
const JUDGE: &str = r#"
import functools, json, sys
import kubernetes_validate.utils as utils
utils.schema_contents = functools.lru_cache(None)(utils.schema_contents)
for manifest in json.load(sys.stdin):
    try:
        utils.validate(manifest, sys.argv[1], strict=True)
        print("y", end="")
    except utils.ValidationError:
        print("n", end="")
"#;

/// Where the package is; otherwise the test says what it would need.
fn package() -> Option<PathBuf> {
    let dir = repository().join("target/kubernetes-validate");
    let there = dir.join("kubernetes_validate").is_dir() && program("python3").is_some();
    if !there {
        skip("the Python package kubernetes-validate in target/ (cargo xtask test puts it there)");
    }
    there.then_some(dir)
}

/// Which of the manifests the package takes.
fn judge(package: &Path, manifests: &[&Value]) -> Vec<bool> {
    let mut child = Command::new("python3")
        .args(["-c", JUDGE, VERSION])
        .env("PYTHONPATH", package)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), manifests).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the judge has failed");
    let letters = String::from_utf8(output.stdout).unwrap();
    letters.chars().map(|letter| letter == 'y').collect()
}

/// What podkit finds wrong, manifest by manifest.
fn errors(manifests: &[&Value]) -> Vec<Vec<Value>> {
    let dir = tempfile::tempdir().unwrap();
    let file = |i: usize| dir.path().join(format!("{i}.json")).display().to_string();
    let mut found: HashMap<String, Vec<Value>> = HashMap::new();
    let numbers: Vec<usize> = (0..manifests.len()).collect();
    for batch in numbers.chunks(BATCH) {
        let mut args = vec!["check".to_owned(), "--output=json".to_owned()];
        for &i in batch {
            let text = serde_json::to_string_pretty(manifests[i]).unwrap();
            std::fs::write(file(i), text).unwrap();
            args.push(file(i));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let finished = podkit(&args);
        assert!(
            matches!(finished.code, Some(0 | 2)) && !finished.err.contains("panicked"),
            "{:?}: {}",
            finished.code,
            finished.err
        );
        let report: Value = serde_json::from_str(&finished.out).unwrap();
        for finding in report["findings"].as_array().unwrap() {
            if finding["severity"] == "error" {
                let file = finding["file"].as_str().unwrap().to_owned();
                found.entry(file).or_default().push(finding.clone());
            }
        }
    }
    let of = |i| found.remove(&file(i)).unwrap_or_default();
    numbers.into_iter().map(of).collect()
}

#[test]
fn podkit_takes_what_kubernetes_takes_or_names_the_field() {
    let Some(package) = package() else { return };
    let schema = Schema::load(&package, VERSION);
    let mut cases: Vec<Case> = Vec::new();
    for root in ["io.k8s.api.core.v1.Pod", "io.k8s.api.batch.v1.Job"] {
        cases.extend(field::cases(&schema, root));
    }
    for (i, case) in cases.iter_mut().enumerate() {
        if case.manifest["metadata"].is_object() {
            case.manifest["metadata"]["name"] = json!(format!("m{i}"));
        }
    }
    // Otherwise the walk has gone astray, and the test with it.
    assert!(cases.len() > 1500, "{} manifests", cases.len());

    let manifests: Vec<&Value> = cases.iter().map(|case| &case.manifest).collect();
    let judged = judge(&package, &manifests);
    assert_eq!(judged.len(), cases.len());
    let found = errors(&manifests);
    let mut counts: BTreeMap<(Kind, bool, bool), usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for ((case, valid), errors) in cases.iter().zip(judged).zip(&found) {
        let taken = errors.is_empty();
        *counts.entry((case.kind, valid, taken)).or_default() += 1;
        let named = |error: &Value| {
            error["line"].as_u64() > Some(0)
                && error["path"].as_str().is_some_and(|p| !p.is_empty())
        };
        let good = match valid {
            true => errors.iter().all(named),
            false => !taken,
        };
        if !good {
            wrong.push(format!("{} ({:?}): {errors:?}", case.path, case.kind));
        }
    }
    println!("(case, valid there, taken here): {counts:?}");
    let shown = wrong
        .iter()
        .take(20)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{shown}",
        wrong.len(),
        cases.len()
    );
    let count = |kind, valid, taken| counts.get(&(kind, valid, taken)).copied().unwrap_or(0);
    // Each way was gone.
    assert!(count(Kind::Good, true, true) > 150, "{counts:?}");
    assert!(count(Kind::Good, true, false) > 100, "{counts:?}");
    assert!(count(Kind::OtherType, false, false) > 500, "{counts:?}");
    assert!(count(Kind::Unknown, false, false) > 100, "{counts:?}");
}

/// Prints how many objects of YAML files are valid; the first that is not ends it.
const JUDGE_FILES: &str = r#"
import sys, yaml
import kubernetes_validate.utils as utils
count = 0
for name in sys.argv[2:]:
    for document in yaml.safe_load_all(open(name)):
        for manifest in document.get("items", [document]):
            utils.validate(manifest, sys.argv[1], strict=True)
            count += 1
print(count)
"#;

fn documented() -> Vec<PathBuf> {
    let dir = repository().join("crates/e2e/tests/manifests");
    let files = std::fs::read_dir(dir).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// The shapes of Kubernetes' documentation, written anew: probes, hooks, sidecars, settings, users, names, storage, Jobs.
#[test]
fn what_the_documentation_shows_can_run() {
    let dir = repository().join("crates/e2e/tests/manifests");
    let finished = podkit(&["check", "--output=json", dir.to_str().unwrap()]);
    assert_eq!(finished.code, Some(0), "{}{}", finished.out, finished.err);
    let report: Value = serde_json::from_str(&finished.out).unwrap();
    assert_eq!(report["pods"].as_array().unwrap().len(), 15);
    assert_eq!(report["jobs"].as_array().unwrap().len(), 3);
    // Only what has no meaning on one machine is left out.
    let findings = report["findings"].as_array().unwrap().iter();
    let ignored: Vec<&str> = findings
        .filter(|finding| finding["severity"] == "ignored")
        .map(|finding| finding["path"].as_str().unwrap())
        .map(|path| path.rsplit('.').next().unwrap())
        .collect();
    let expected = [
        "kind",
        "automountServiceAccountToken",
        "ttlSecondsAfterFinished",
        "nodeSelector",
        "tolerations",
        // Of Kubernetes' own resources; containers are not limited by it.
        "ephemeral-storage",
        "storageClassName",
    ];
    for field in &ignored {
        assert!(expected.contains(field), "{field} is ignored");
    }
}

/// How many objects are in the files, when the package takes them all.
fn count_valid(package: &Path, files: Vec<PathBuf>) -> usize {
    let judge = Command::new("python3")
        .args(["-c", JUDGE_FILES, VERSION])
        .args(files)
        .env("PYTHONPATH", package)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&judge.stderr);
    assert!(judge.status.success(), "{said}");
    let count = String::from_utf8_lossy(&judge.stdout);
    count.trim().parse().unwrap()
}

#[test]
fn what_the_documentation_shows_is_valid_for_kubernetes() {
    let Some(package) = package() else { return };
    assert_eq!(count_valid(&package, documented()), 22);
}

#[test]
fn the_examples_are_valid_for_kubernetes() {
    let Some(package) = package() else { return };
    let files = examples();
    let least = files.len();
    assert!(count_valid(&package, files) > least);
}
