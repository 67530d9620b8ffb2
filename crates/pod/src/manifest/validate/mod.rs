//! What the API server checks beyond types (pkg/apis/core/validation), where it matters to a pod on one machine.
//! Each check says what would be right.

mod claim;
mod container;
mod env;
mod job;
mod meta;
mod pod;
mod probe;
mod security;
mod volume;

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

pub(super) use claim::claim;
pub(super) use job::job;
pub(super) use meta::{config_map, secret};

use super::finding::{Findings, Place, Severity};
use super::node::{Path, Source};

/// Notes what is wrong with an object, each with its place.
pub(crate) struct Notes<'a> {
    source: &'a Source,
    findings: &'a mut Findings,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(source: &'a Source, findings: &'a mut Findings) -> Self {
        Self { source, findings }
    }

    pub(crate) fn error(&mut self, path: &Path, message: impl Into<String>) {
        self.add(Severity::Error, path, message);
    }

    pub(crate) fn warning(&mut self, path: &Path, message: impl Into<String>) {
        self.add(Severity::Warning, path, message);
    }

    pub(crate) fn ignored(&mut self, path: &Path, message: impl Into<String>) {
        self.add(Severity::Ignored, path, message);
    }

    pub(crate) fn risk(&mut self, path: &Path, message: impl Into<String>) {
        self.add(Severity::Risk, path, message);
    }

    /// The same for an object inside this one.
    pub(crate) fn below(&mut self, path: &Path, look: impl FnOnce(&mut Notes<'_>)) {
        let source = self.source.below(path);
        look(&mut Notes::new(&source, self.findings));
    }

    /// An option of the command line is to blame.
    pub(crate) fn option(&mut self, option: &str, message: impl Into<String>) {
        self.findings
            .add(Severity::Error, Place::whole(option), "", message);
    }

    /// Notes what one of the functions of [`names`] found.
    pub(crate) fn name(&mut self, path: &Path, wrong: Option<String>) {
        if let Some(message) = wrong {
            self.error(path, message);
        }
    }

    fn add(&mut self, severity: Severity, path: &Path, message: impl Into<String>) {
        let (place, path) = (self.source.place(path), self.source.full(path));
        self.findings.add(severity, place, path, message);
    }
}

/// A Pod.
pub(super) fn pod(object: &Pod, notes: &mut Notes<'_>) {
    meta::started(&object.metadata, notes);
    match &object.spec {
        Some(given) => spec(given, notes),
        None => notes.error(&Path::root().key("spec"), "spec is missing"),
    }
}

/// `spec` of a Pod, or of a template of pods.
fn spec(spec: &PodSpec, notes: &mut Notes<'_>) {
    let at = Path::root().key("spec");
    pod::names(spec, &at, notes);
    one_of(
        spec.restart_policy.as_deref(),
        &["Always", "OnFailure", "Never"],
        &at.key("restartPolicy"),
        notes,
    );
    pod::dns(spec, &at, notes);
    pod::host(spec, &at, notes);
    pod::deadlines(spec, &at, notes);
    pod::resources(spec, &at, notes);
    if let Some(context) = &spec.security_context {
        security::pod(context, spec, &at.key("securityContext"), notes);
    }
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        volume::volume(volume, &at.item("volumes", i), notes);
    }
    containers(spec, &at, notes);
}

/// Init containers and containers with the key of their list.
pub(crate) fn all_containers(
    spec: &PodSpec,
) -> impl Iterator<Item = (&'static str, usize, &Container)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let main = spec.containers.iter().enumerate();
    init.map(|(i, c)| ("initContainers", i, c))
        .chain(main.map(|(i, c)| ("containers", i, c)))
}

fn containers(spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    if spec.containers.is_empty() {
        notes.error(&at.key("containers"), "a pod needs at least one container");
    }
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    unique(
        volumes
            .iter()
            .enumerate()
            .map(|(i, v)| (v.name.clone(), at.item("volumes", i).key("name"))),
        "volume",
        notes,
    );
    unique(
        all_containers(spec).map(|(list, i, c)| (c.name.clone(), at.item(list, i).key("name"))),
        "container",
        notes,
    );
    for (list, i, container) in all_containers(spec) {
        container::container(
            container,
            spec,
            list == "initContainers",
            &at.item(list, i),
            notes,
        );
    }
    container::host_ports(spec, at, notes);
}

/// Names that may occur only once; empty ones are somebody else's matter.
fn unique(names: impl Iterator<Item = (String, Path)>, what: &str, notes: &mut Notes<'_>) {
    let mut seen: HashMap<String, u32> = HashMap::new();
    for (name, path) in names.filter(|(name, _)| !name.is_empty()) {
        let line = notes.source.place(&path).line;
        if let Some(first) = seen.get(&name) {
            notes.error(
                &path,
                format!("there is a {what} {name:?} already, in line {first}"),
            );
        } else {
            seen.insert(name, line);
        }
    }
}

/// An enumeration of the API.
fn one_of(value: Option<&str>, allowed: &[&str], path: &Path, notes: &mut Notes<'_>) {
    let Some(value) = value.filter(|value| !value.is_empty() && !allowed.contains(value)) else {
        return;
    };
    let hint = super::nearest(value, allowed.iter().copied())
        .map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default();
    notes.error(
        path,
        format!("{value:?} is none of {}{hint}", allowed.join(", ")),
    );
}

/// A number within bounds.
fn within(value: Option<i64>, least: i64, most: i64, path: &Path, notes: &mut Notes<'_>) {
    if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
        notes.error(path, format!("{value} is not within {least} to {most}"));
    }
}
