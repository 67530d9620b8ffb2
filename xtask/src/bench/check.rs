//! `podkit check` of long files, each of another shape. There is no peer that checks as much without a cluster: the figure is absolute.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use podkit_testkit::process::run as run_command;
use podkit_testkit::stats;

use super::report::{Goal, Report, rounds};
use super::{Effort, size};

/// Lines of each file, about.
const LINES: usize = 10_000;
const GOAL_MILLIS: f64 = 50.0;

/// A file and what `check` exits with.
struct Shape {
    name: &'static str,
    text: String,
    exit_code: i32,
}

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let shapes = shapes();
    let mut millis: Vec<Vec<f64>> = vec![Vec::new(); shapes.len()];
    let path = |at: usize| dir.path().join(format!("{at}.yaml"));
    for (at, shape) in shapes.iter().enumerate() {
        std::fs::write(path(at), &shape.text)?;
    }
    for _ in 0..effort.rounds * 3 {
        for (at, shape) in shapes.iter().enumerate() {
            let started = Instant::now();
            let finished = run_command(
                "podkit check",
                Command::new(binary).arg("check").arg(path(at)),
            );
            millis[at].push(started.elapsed().as_secs_f64() * 1e3);
            if finished.code != Some(shape.exit_code) {
                bail!(
                    "{}: exit code {:?}\n{}",
                    shape.name,
                    finished.code,
                    finished.err
                );
            }
        }
    }
    let effort = Effort {
        rounds: effort.rounds * 3,
        ..effort
    };
    let mut report = Report::new(
        "check",
        "Checking a manifest",
        &size::peers(binary, &[]),
        effort,
    );
    report.paragraph("From the command to its end, nothing pinned.");
    let rows: Vec<Vec<String>> = shapes
        .iter()
        .zip(&millis)
        .map(|(shape, millis)| {
            vec![
                shape.name.to_owned(),
                shape.text.lines().count().to_string(),
                rounds(millis),
            ]
        })
        .collect();
    report.table("`podkit check`", &["file", "lines", "ms"], &rows);
    let slowest = millis
        .iter()
        .map(|millis| stats::median(millis))
        .fold(0.0, f64::max);
    report.goals(&[Goal {
        what: format!("a file of {LINES} lines within {GOAL_MILLIS} ms, whatever its shape"),
        measured: slowest,
        bound: GOAL_MILLIS,
        below: true,
        note: "",
    }]);
    report.finish(effort)
}

fn shapes() -> Vec<Shape> {
    let good = |name, text| Shape {
        name,
        text,
        exit_code: 0,
    };
    let (one, lines) = (pod(0, 1), pod(0, 1).lines().count());
    let pods: Vec<String> = (0..LINES / (lines + 1)).map(|at| pod(at, 1)).collect();
    let keys = (0..LINES - 50).fold(String::new(), |mut text, at| {
        writeln!(text, "  key{at}: value {at}").expect("writing to a String can't fail");
        text
    });
    let block = (0..LINES - 50).fold(String::new(), |mut text, at| {
        writeln!(text, "    line {at} of a long file").expect("writing to a String can't fail");
        text
    });
    let variables = (1..LINES / 2 - 10).fold(String::new(), |mut text, at| {
        writeln!(text, "    - name: V{at}\n      value: \"$(V{})\"", at - 1)
            .expect("writing to a String can't fail");
        text
    });
    let unknown = (0..LINES - lines).fold(String::new(), |mut text, at| {
        writeln!(text, "  containersx{at}: 1").expect("writing to a String can't fail");
        text
    });
    let config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n";
    let uses_it = "  - name: w\n    configMap: {name: c}\n";
    vec![
        good("many pods", pods.join("---\n")),
        good("a pod of many containers", pod(0, LINES / (lines - 8))),
        good(
            "a ConfigMap of many keys",
            format!("{config_map}{keys}---\n{one}{uses_it}"),
        ),
        good(
            "a ConfigMap of one long value",
            format!("{config_map}  long: |\n{block}---\n{one}{uses_it}"),
        ),
        good(
            "a container of many variables, each of the last one",
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: c\n    image: app:1\n    env:\n\
                 \x20   - name: V0\n      value: x\n{variables}"
            ),
        ),
        Shape {
            name: "many pods with two mistakes each",
            text: pods
                .join("---\n")
                .replace("containerPort", "containerprt")
                .replace("periodSeconds: 5", "periodSeconds: five"),
            exit_code: 2,
        },
        // Each is looked for among the names that it may have been meant as.
        Shape {
            name: "a pod of many unknown fields",
            text: format!("{one}{unknown}"),
            exit_code: 2,
        },
    ]
}

fn pod(at: usize, containers: usize) -> String {
    let container = |at: usize| {
        format!(
            "  - name: c{at}\n    image: registry.example/app:1.{at}\n    args: [serve, --port, \"80\"]\n    env:\n    - name: A\n      value: \"1\"\n\
             \x20   - name: B\n      valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}\n    ports:\n    - containerPort: {0}\n\
             \x20   resources:\n      requests: {{cpu: 100m, memory: 64Mi}}\n      limits: {{memory: 128Mi}}\n\
             \x20   readinessProbe:\n      httpGet: {{path: /readyz, port: {0}}}\n      periodSeconds: 5\n\
             \x20   volumeMounts:\n    - name: v\n      mountPath: /data\n    securityContext:\n      runAsUser: 1000\n      readOnlyRootFilesystem: true\n",
            1024 + at
        )
    };
    let containers: String = (0..containers).map(container).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p{at}\nspec:\n  containers:\n{containers}  volumes:\n  - name: v\n    emptyDir: {{}}\n"
    )
}
