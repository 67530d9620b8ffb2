//! `podkit check`: what would run, and what is wrong, risky, or ignored, without starting anything.
//!
//! Loading and planning find most of it; this adds what can only be seen across containers (they share one network), and
//! what the modules' own declarations tell about the containers that run them.

mod modules;
mod network;
mod report;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
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
}

/// Checks files as `podkit run` would with the same options; `-` is standard input.
pub fn check(files: &[PathBuf], options: &Options, commands: Commands<'_>) -> Report {
    let (documents, findings) = manifest::load(files);
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
    for plan in &plans {
        let pod = documents.pods.iter().find(|pod| is_of(plan, pod));
        if let Some(pod) = pod {
            let subject = Subject { plan, pod };
            let notes = &mut Notes::new(&pod.source, &mut findings);
            images(&subject, notes);
            modules::check(&subject, commands, notes);
            network::check(&subject, commands, notes);
        }
    }
    findings.sort();
    Report::new(plans, jobs, findings, commands)
}

fn is_of(plan: &PodPlan, pod: &Object<Pod>) -> bool {
    let metadata = &pod.object.metadata;
    metadata.name.as_ref() == Some(&plan.name) && namespace_of(metadata) == plan.namespace
}

/// A pod with its plan.
struct Subject<'a> {
    plan: &'a PodPlan,
    pod: &'a Object<Pod>,
}

impl<'a> Subject<'a> {
    /// The containers of the plan, with their places in the file.
    fn containers(&self) -> impl Iterator<Item = (&'a ContainerPlan, Path)> {
        let spec = self.pod.object.spec.iter();
        let places = spec.flat_map(all_containers);
        places.filter_map(|(list, i, container)| {
            let mut all = self.plan.containers.iter();
            let plan = all.find(|plan| plan.name == container.name)?;
            Some((plan, Path::root().key("spec").item(list, i)))
        })
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
    for (container, at) in subject.containers() {
        let Ok(reference) = container.image.parse::<Reference>() else {
            continue;
        };
        if reference.digest().is_none() && matches!(reference.tag(), None | Some(DEFAULT_TAG)) {
            notes.warning(
                &at.key("image"),
                format!(
                    "{:?} names no version: on a cluster it can be another image from one day to the next",
                    container.image
                ),
            );
        }
    }
}
