//! `podkit check`: what would run, and what is wrong, risky, or ignored, without starting anything.
//!
//! Loading and planning find most of it; this adds what can only be seen across containers (they share one network), and
//! what the modules' own declarations tell about the containers that run them.

mod modules;
mod network;
mod report;
mod wrappers;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use podkit_foundation::params::{Param, ParamError, Values};
use podkit_foundation::surface::ModuleSpec;

pub use report::Report;

use crate::image::{DEFAULT_TAG, Reference};
use crate::manifest::{self, Findings, Notes, Object, Path, all_containers, namespace_of};
use crate::plan::{self, ContainerPlan, Facts, ImageSource, Options, PodPlan};

/// What the binary offers: the registry lives there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Commands<'a> {
    /// The modules that `args[0]` may name.
    pub modules: &'a [&'a ModuleSpec],
    /// Other words of the command line that a container may run.
    pub others: &'a [&'a str],
    /// Those of them that run an application: `podkit NAME FLAGS -- CMD`.
    pub wrappers: &'a [Wrapper],
}

/// A command of podkit's that is the first process of an application's container, in an image of any kind.
#[derive(Debug, Clone, Copy)]
pub struct Wrapper {
    /// The word of the command line.
    pub name: &'static str,
    /// Its flags.
    pub params: &'static [Param],
    /// What it says of their values.
    pub check: fn(&Values) -> Result<(), ParamError>,
}

/// Checks files as `podkit run` would with the same options; `-` is standard input.
pub fn check(files: &[PathBuf], options: &Options, commands: Commands<'_>) -> Report {
    let (documents, findings) = manifest::load(files, options.name_seed);
    judge(&documents, findings, options, commands)
}

fn judge(
    documents: &manifest::Documents,
    mut findings: Findings,
    options: &Options,
    commands: Commands<'_>,
) -> Report {
    let (plans, planned) = plan::build(documents, options, &Facts::placeholder());
    findings.extend(planned);
    let (jobs, planned) = plan::jobs(documents, options, &Facts::placeholder());
    findings.extend(planned);
    let pods: HashMap<_, _> = documents.pods.iter().map(|pod| (name(pod), pod)).collect();
    for plan in &plans {
        if let Some(pod) = pods.get(&(plan.namespace.as_str(), plan.name.as_str())) {
            let subject = Subject::new(plan, pod);
            let notes = &mut Notes::new(&pod.source, &mut findings);
            images(&subject, notes);
            modules::check(&subject, commands, notes);
            wrappers::check(&subject, commands, notes);
            network::check(&subject, commands, notes);
        }
    }
    findings.sort();
    Report::new(plans, jobs, findings, commands)
}

/// Namespace and name.
fn name(pod: &Object<Pod>) -> (&str, &str) {
    let metadata = &pod.object.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    (namespace_of(metadata), name)
}

/// A pod with its plan.
struct Subject<'a> {
    plan: &'a PodPlan,
    /// The containers of the plan, with their places in the file.
    containers: Vec<(&'a ContainerPlan, Path)>,
    /// The images of its volumes as the file has them, likewise.
    image_volumes: Vec<(&'a str, Path)>,
}

impl<'a> Subject<'a> {
    fn new(plan: &'a PodPlan, pod: &'a Object<Pod>) -> Self {
        let plans = plan.containers.iter();
        let plans: HashMap<_, _> = plans.map(|one| (one.name.as_str(), one)).collect();
        let places = pod.object.spec.iter().flat_map(all_containers);
        let containers = places.filter_map(|(list, i, container)| {
            let plan = *plans.get(container.name.as_str())?;
            Some((plan, Path::root().key("spec").item(list, i)))
        });
        let volumes = pod.object.spec.iter().flat_map(|spec| &spec.volumes);
        let volumes = volumes.flatten().enumerate();
        let image_volumes = volumes.filter_map(|(i, volume)| {
            let image = volume.image.as_ref()?.reference.as_deref()?;
            let at = Path::root().key("spec").item("volumes", i);
            Some((image, at.key("image").key("reference")))
        });
        Self {
            plan,
            containers: containers.collect(),
            image_volumes: image_volumes.collect(),
        }
    }

    fn containers(&self) -> impl Iterator<Item = (&'a ContainerPlan, &Path)> {
        self.containers.iter().map(|(plan, at)| (*plan, at))
    }
}

/// The module that a container of podkit's own image runs.
fn module<'a>(container: &ContainerPlan, commands: Commands<'a>) -> Option<&'a ModuleSpec> {
    let word = command_word(container)?;
    commands
        .modules
        .iter()
        .copied()
        .find(|module| module.name == word)
}

/// `args[0]` of a container whose entrypoint is podkit.
fn command_word(container: &ContainerPlan) -> Option<&str> {
    (container.source == ImageSource::Itself && container.command.is_empty())
        .then(|| container.args.first())?
        .map(String::as_str)
}

/// An image without a version is another one tomorrow.
fn images(subject: &Subject<'_>, notes: &mut Notes<'_>) {
    let containers = subject.containers();
    let containers = containers.map(|(container, at)| (container.image.as_str(), at.key("image")));
    for (image, at) in containers.chain(subject.image_volumes.iter().cloned()) {
        let Ok(reference) = image.parse::<Reference>() else {
            continue;
        };
        if reference.digest().is_none() && matches!(reference.tag(), None | Some(DEFAULT_TAG)) {
            notes.warning(
                &at,
                format!(
                    "{image:?} names no version: on a cluster it can be another image from one day to the next"
                ),
            );
        }
    }
}
