//! Tests of the builder: manifests in, plans or findings out.

mod env;
mod expand;
mod images;
mod jobs;
mod pods;
mod spec;
mod table;
mod volumes;

use std::net::IpAddr;

use super::{Facts, Options, PodPlan, build};
use crate::manifest::{Findings, Severity, parse};

fn facts() -> Facts {
    Facts {
        uid: "u-1".into(),
        node_name: "box".into(),
        host_ips: vec![IpAddr::from([10, 0, 0, 1]), "fd00::1".parse().unwrap()],
        pod_ips: vec![IpAddr::from([10, 1, 0, 2])],
        cpu_milli: 4000,
        memory_bytes: 8 << 30,
    }
}

fn plan(text: &str, options: &Options) -> (Vec<PodPlan>, Findings) {
    let (documents, findings) = parse("f", text.as_bytes());
    assert!(!findings.has_errors(), "{findings}\n{text}");
    build(&documents, options, &facts())
}

/// The only pod of a text that has to be fine.
#[track_caller]
fn good(text: &str) -> PodPlan {
    let (mut plans, findings) = plan(text, &Options::default());
    assert!(!findings.has_errors(), "{findings}\n{text}");
    assert_eq!(plans.len(), 1);
    plans.remove(0)
}

/// Its errors, without the file's name.
fn errors(text: &str, options: &Options) -> Vec<String> {
    let (_, findings) = plan(text, options);
    let of = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    of.map(|finding| finding.to_string().trim_start_matches("f:").to_owned())
        .collect()
}

/// A pod whose container has these lines below `- name: app`, and more documents.
fn container(lines: &str, more: &str) -> String {
    let head = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: web}, annotations: {a/b: note}}\nspec:\n  containers:\n  - name: app\n    image: podkit\n";
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("{head}{lines}{more}")
}

const DATA: &str = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {host: db, port: \"5\"}\nbinaryData: {bin: /wA=}\n\
    ---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {user: am9l, raw: /wA=}\nstringData: {pass: word, user: jane}\n";
