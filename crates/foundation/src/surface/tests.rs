#![allow(dead_code, reason = "a declaration is tested, not every field of it")]

use super::*;
use crate::params::{Addr, ParamSet};

crate::params! {
    /// For the tests.
    struct Params {
        /// Where it listens.
        listen: Vec<Addr> { default: Some(":8080") },
        /// How many | at most.
        most: u32 { default: Some("10"), bounds: Some((1, 100)), unit: "things" },
        /// The password.
        password: Option<String> { secret: true, live: true },
    }
}

const SPEC: ModuleSpec = ModuleSpec {
    name: "sample",
    group: Group::TryingOut,
    summary: "A module for the tests.",
    about: "It does nothing.",
    admin_port: 9699,
    data_path: true,
    config: None,
    params: &[Params::PARAMS],
    ports: &[Port {
        param: "listen",
        port: Some(8080),
        protocol: "HTTP",
        doc: "Requests.",
    }],
    endpoints: &[Endpoint {
        path: "/",
        doc: "A page of its own.",
        open: false,
    }],
    files: &[FileUse {
        name: "--password-file",
        doc: "The password.",
    }],
    needs: &[Need {
        feature: "sight",
        doc: "a shared PID namespace",
        kind: NeedKind::SharedPid,
    }],
    metrics: &[Metric {
        name: "sample_total",
        kind: "counter",
        labels: &["a"],
        doc: "Samples.",
    }],
};

#[test]
fn every_rendering_has_every_part() {
    let (text, markdown) = (render::text(&SPEC), render::markdown(&SPEC));
    for word in [
        "listen",
        "PODKIT_MOST",
        "9699",
        "/readyz",
        "SIGHUP",
        "sample_total",
        "admin-open",
        "workers",
    ] {
        assert!(text.contains(word), "{word} is not in the text:\n{text}");
        assert!(
            markdown.contains(word),
            "{word} is not in the page:\n{markdown}"
        );
    }
    assert!(
        markdown.contains("How many \\| at most."),
        "a bar would break the table"
    );
    assert_eq!(
        text.matches("A page").count(),
        1,
        "a module's own page takes the contract's place"
    );
}

#[test]
fn the_dockerfile_exposes_labels_and_hides_secrets() {
    let file = render::dockerfile(&SPEC);
    for line in [
        "EXPOSE 8080\n",
        "EXPOSE 9699\n",
        "ENV PODKIT_LISTEN=\":8080\"\n",
        "LABEL org.opencontainers.image.title=\"podkit sample\"\n",
        "LABEL org.label-schema.schema-version=\"1.0\"\n",
        "CMD [\"sample\"]\n",
    ] {
        assert!(file.contains(line), "{line} is not in\n{file}");
    }
    assert!(!file.contains("ENV PODKIT_PASSWORD"));
}

#[test]
fn diff_tells_breaking_changes_from_additions() {
    let old = json::program(&[&SPEC]);
    assert_eq!(diff::between(&old, &old), []);
    let check = |edit: &dyn Fn(&mut serde_json::Value), breaking: bool, line: &str| {
        let mut new = old.clone();
        edit(&mut new["modules"][0]);
        let changes = diff::between(&old, &new);
        assert_eq!(
            changes,
            [diff::Change {
                breaking,
                line: line.to_owned()
            }]
        );
    };
    let param =
        |module: &mut serde_json::Value, at: usize, field: &str, value: serde_json::Value| {
            module["parameters"][at][field] = value;
        };
    check(
        &|m| param(m, 1, "default", "11".into()),
        true,
        "sample --most: default \"10\" → \"11\"",
    );
    check(
        &|m| param(m, 1, "bounds", [2, 100].into()),
        true,
        "sample --most: bounds [1,100] → [2,100]",
    );
    let mut wider = old.clone();
    param(&mut wider["modules"][0], 1, "bounds", [0, 200].into());
    assert_eq!(diff::between(&old, &wider), [], "wider bounds break nobody");
    check(
        &|m| param(m, 2, "required", true.into()),
        true,
        "sample --password: is required now",
    );
    let drop_first = |m: &mut serde_json::Value, part: &str| {
        m[part].as_array_mut().unwrap().remove(0);
    };
    check(
        &|m| drop_first(m, "parameters"),
        true,
        "sample --listen: is gone",
    );
    check(
        &|m| drop_first(m, "metrics"),
        true,
        "sample metric sample_total: is gone",
    );
    let mut grown = old.clone();
    grown["modules"][0]["name"] = "other".into();
    let lines: Vec<_> = diff::between(&old, &grown)
        .into_iter()
        .map(|change| change.line)
        .collect();
    assert_eq!(lines, ["sample: the module is gone", "other: a new module"]);
}
