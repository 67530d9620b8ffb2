//! The outcome of a check, for people and for programs.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::{Commands, module};
use crate::manifest::{Findings, Severity};
use crate::plan::{ContainerPlan, ImageSource, JobPlan, PodPlan, Role};

/// What a check found, and what would run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Everything that was found, by file and line.
    pub findings: Findings,
    /// The pods; complete when there are no errors.
    pub pods: Vec<PodPlan>,
    /// The Jobs; likewise.
    pub jobs: Vec<JobPlan>,
    /// Pod by pod, container by container: what runs in it, in words.
    programs: Vec<Vec<String>>,
    /// Files of other forms, and what they are.
    others: Vec<String>,
}

impl Report {
    pub(super) fn new(
        pods: Vec<PodPlan>,
        jobs: Vec<JobPlan>,
        findings: Findings,
        commands: Commands<'_>,
    ) -> Self {
        let program = |container: &ContainerPlan| match module(container, commands) {
            Some(module) => format!("podkit {}", module.name),
            None => {
                let entrypoint = match container.source {
                    ImageSource::Itself if container.command.is_empty() => Some("podkit"),
                    _ => None,
                };
                let words = container
                    .command
                    .iter()
                    .chain(&container.args)
                    .map(String::as_str);
                let words: Vec<&str> = entrypoint.into_iter().chain(words).take(2).collect();
                words.join(" ")
            }
        };
        let programs = pods
            .iter()
            .map(|pod| pod.containers.iter().map(program).collect());
        Self {
            programs: programs.collect(),
            others: Vec::new(),
            pods,
            jobs,
            findings,
        }
    }

    /// Adds what was found in a file that is no manifest; `what` it is.
    pub fn add_file(&mut self, path: &std::path::Path, what: &str, findings: Findings) {
        self.others.push(format!("{}: {what}", path.display()));
        self.findings.extend(findings);
    }

    /// The pods would start.
    pub fn is_ok(&self) -> bool {
        !self.findings.has_errors()
    }

    /// One object: `ok`, counts, `pods` with their containers, `findings` with file, line, column, severity, path and
    /// message.
    pub fn to_json(&self) -> Value {
        let count = |severity| self.findings.count(severity);
        let findings = self.findings.iter().map(|finding| {
            json!({
                "severity": finding.severity.name(),
                "file": &*finding.place.file,
                "line": finding.place.line,
                "column": finding.place.column,
                "path": finding.path,
                "message": finding.message,
            })
        });
        let pods = self.pods.iter().zip(&self.programs).map(|(pod, programs)| {
            let containers = pod
                .containers
                .iter()
                .zip(programs)
                .map(|(container, program)| {
                    json!({
                        "name": container.name,
                        "role": role(container.role),
                        "image": container.image,
                        "source": source(&container.source),
                        "program": program,
                    })
                });
            json!({
                "name": pod.name,
                "namespace": pod.namespace,
                "containers": containers.collect::<Vec<_>>(),
            })
        });
        let jobs = self.jobs.iter().map(|job| {
            json!({
                "name": job.name,
                "namespace": job.namespace,
                "completions": job.completions,
                "parallelism": job.parallelism,
                "backoffLimit": job.backoff_limit,
                "containers": job.pod.containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
            })
        });
        json!({
            "ok": self.is_ok(),
            "errors": count(Severity::Error),
            "risks": count(Severity::Risk),
            "warnings": count(Severity::Warning),
            "ignored": count(Severity::Ignored),
            "pods": pods.collect::<Vec<_>>(),
            "jobs": jobs.collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(),
        })
    }

    /// `1 error, 2 warnings, no risks, 3 ignored fields`.
    fn counts(&self) -> String {
        let part = |severity, one: &str, many: &str| match self.findings.count(severity) {
            0 => format!("no {many}"),
            1 => format!("1 {one}"),
            n => format!("{n} {many}"),
        };
        [
            part(Severity::Error, "error", "errors"),
            part(Severity::Risk, "risk", "risks"),
            part(Severity::Warning, "warning", "warnings"),
            part(Severity::Ignored, "ignored field", "ignored fields"),
        ]
        .join(", ")
    }
}

/// The findings a line each; then, when the pods would start, what runs; then a summary line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.findings)?;
        if !self.is_ok() {
            return writeln!(f, "{}: can't run", self.counts());
        }
        for other in &self.others {
            writeln!(f, "{other}")?;
        }
        for (pod, programs) in self.pods.iter().zip(&self.programs) {
            writeln!(f, "pod {} (namespace {})", pod.name, pod.namespace)?;
            let width = pod
                .containers
                .iter()
                .map(|c| c.name.len())
                .max()
                .unwrap_or(0);
            for (container, program) in pod.containers.iter().zip(programs) {
                let mut line = format!(
                    "  {:<8} {:<width$}  {program}",
                    role(container.role),
                    container.name
                );
                match &container.source {
                    ImageSource::Itself => {}
                    other => write!(line, "  ({})", source(other))?,
                }
                writeln!(f, "{}", line.trim_end())?;
            }
        }
        for job in &self.jobs {
            let completions = match job.completions {
                Some(completions) => completions.to_string(),
                None => "any".into(),
            };
            writeln!(
                f,
                "job {} (namespace {}): completions {completions}, parallelism {}, backoffLimit {}",
                job.name, job.namespace, job.parallelism, job.backoff_limit
            )?;
            for container in &job.pod.containers {
                writeln!(f, "  {:<8} {}", role(container.role), container.name)?;
            }
        }
        let containers: usize = self.pods.iter().map(|pod| pod.containers.len()).sum();
        let (pods, s) = (self.pods.len(), if self.pods.len() == 1 { "" } else { "s" });
        let c = if containers == 1 { "" } else { "s" };
        let jobs = match self.jobs.len() {
            0 => String::new(),
            1 => "1 job, ".into(),
            n => format!("{n} jobs, "),
        };
        writeln!(
            f,
            "{jobs}{pods} pod{s}, {containers} container{c}; {}",
            self.counts()
        )
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Init => "init",
        Role::Sidecar => "sidecar",
        Role::Main => "main",
    }
}

fn source(source: &ImageSource) -> String {
    match source {
        ImageSource::Itself => "podkit".into(),
        ImageSource::Host => "host".into(),
        ImageSource::Rootfs(dir) => format!("rootfs:{}", dir.display()),
        ImageSource::Image(location) => location.to_string(),
    }
}
