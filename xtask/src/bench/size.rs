//! The size of the release binary, which is an image by itself: at most 12 MB, stripped.

use std::path::Path;

use anyhow::Result;

use super::Effort;
use super::report::{Goal, Report, figure};
use podkit_testkit::peers::version;

#[expect(clippy::cast_precision_loss, reason = "bytes of a file")]
pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    let megabytes = std::fs::metadata(binary)?.len() as f64 / 1e6;
    let versions = [("podkit", podkit_version(binary))];
    let mut report = Report::new("size", "Size of the binary", &versions, effort);
    let mut rows = vec![vec![
        "podkit (everything, static)".to_owned(),
        figure(megabytes),
    ]];
    for name in ["nginx", "haproxy", "podman", "runc"] {
        if let Some(path) = podkit_testkit::program(name) {
            let bytes = std::fs::metadata(&path)?.len() as f64 / 1e6;
            rows.push(vec![
                format!("{name} (without its shared libraries)"),
                figure(bytes),
            ]);
        }
    }
    report.table("Megabytes on disk", &["program", "MB"], &rows);
    report.goals(&[Goal {
        what: "stripped release binary at most 12 MB".to_owned(),
        measured: megabytes,
        bound: 12.0,
        below: true,
        note: "",
    }]);
    report.finish(effort)
}

/// `podkit 0.1.0`.
pub(crate) fn podkit_version(binary: &Path) -> String {
    let output = podkit_testkit::process::run(
        "podkit",
        std::process::Command::new(binary).arg("--version"),
    );
    output.out.lines().next().unwrap_or("?").to_owned()
}

/// The peers' versions.
pub(crate) fn peers(binary: &Path, names: &[&'static str]) -> Vec<(&'static str, String)> {
    let mut all = vec![("podkit", podkit_version(binary))];
    for name in names {
        let args: &[&str] = match *name {
            "nginx" | "haproxy" | "wrk" => &["-v"],
            "caddy" => &["version"],
            _ => &["--version"],
        };
        all.push((name, version(name, args)));
    }
    all
}
