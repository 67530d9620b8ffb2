//! Tests of the loader. The manifests stand in the tests, so that lines and columns can be seen.

mod bad_input;
mod bad_volumes;
mod files;
mod pod_spec;
mod quantities;
mod schema;
mod valid;
mod yaml;

use super::{Documents, Severity, parse};
pub(crate) use valid::FULL;

/// A pod whose container has these lines below `- name: app`, indented by four.
fn container(lines: &str) -> String {
    let head = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: app\n    image: podkit\n";
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("{head}{lines}")
}

/// A pod with these lines in its spec, indented by two, and one container.
fn spec(lines: &str) -> String {
    let head = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: app, image: podkit}]\n";
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!("{head}{lines}")
}

/// The errors of a text, without the file's name.
fn errors(text: &str) -> Vec<String> {
    found(text, Severity::Error)
}

fn found(text: &str, severity: Severity) -> Vec<String> {
    let (_, findings) = parse("f", text.as_bytes());
    let of = findings
        .iter()
        .filter(|finding| finding.severity == severity);
    of.map(|finding| finding.to_string().trim_start_matches("f:").to_owned())
        .collect()
}

/// What a valid text holds.
#[track_caller]
fn good(text: &str) -> Documents {
    let (documents, findings) = parse("f", text.as_bytes());
    assert!(!findings.has_errors(), "{findings}\n{text}");
    documents
}

/// Exactly this one error.
#[track_caller]
fn check(text: &str, error: &str) {
    assert_eq!(errors(text), [error], "{text}");
}
