//! Objects to plans: every reference followed, every default filled in, nothing left to look up.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec};

use super::facts::{Facts, FactsFor, IMAGE_OPTION, Options, WITHOUT_OPTION};
use super::{
    PodPlan, RestartPolicy, Role, container::container, host, images, job, pod, resources, stored,
    volumes,
};
use crate::manifest::{
    Documents, Findings, Notes, Object, Path, Place, Severity, all_containers, namespace_of,
    nearest,
};

/// The plans of all pods, in the order of the files. They may run when the findings have no error.
///
/// A Pod that had errors when it was loaded isn't among `documents`; what refers to a broken ConfigMap or Secret is
/// not blamed for it.
pub fn build(
    documents: &Documents,
    options: &Options,
    facts: &dyn FactsFor,
) -> (Vec<PodPlan>, Findings) {
    let mut findings = Findings::new();
    check_options(documents, options, &mut findings);
    let none = documents.pods.is_empty() && documents.jobs.is_empty();
    if none && !documents.is_broken("Pod") && !documents.is_broken("Job") {
        let message = "there is no Pod and no Job in the files: nothing to run";
        findings.add(Severity::Error, Place::whole("manifest"), "", message);
    }
    let of_jobs = job::pods(documents, options);
    let plans = documents
        .pods
        .iter()
        .chain(&of_jobs)
        .filter_map(|pod| plan(pod, documents, options, facts, &mut findings))
        .collect();
    findings.sort();
    (plans, findings)
}

/// The pods that [`build`] plans, as objects: those of the files, and those of the options' Jobs.
pub(crate) fn objects(documents: &Documents, options: &Options) -> Vec<Object<Pod>> {
    let mut pods = documents.pods.clone();
    pods.extend(job::pods(documents, options));
    pods
}

/// The plan of one pod, which needs not be among the documents as it is.
pub(crate) fn one(
    pod: &Object<Pod>,
    documents: &Documents,
    options: &Options,
    facts: &dyn FactsFor,
) -> (Option<PodPlan>, Findings) {
    let mut findings = Findings::new();
    let plan = plan(pod, documents, options, facts, &mut findings);
    findings.sort();
    (plan, findings)
}

/// Options that name a container name one that there is.
fn check_options(documents: &Documents, options: &Options, findings: &mut Findings) {
    if documents.is_broken("Pod") {
        return;
    }
    let pods = documents.pods.iter();
    let pods = pods.filter_map(|pod| pod.object.spec.as_ref());
    let jobs = documents.jobs.iter();
    let jobs = jobs.filter_map(|job| job.object.spec.as_ref()?.template.spec.as_ref());
    let specs = pods.chain(jobs);
    let known: Vec<&str> = specs
        .flat_map(all_containers)
        .map(|(_, _, container)| container.name.as_str())
        .collect();
    let named = options.images.iter().map(|(name, _)| (IMAGE_OPTION, name));
    let named = named.chain(options.without.iter().map(|name| (WITHOUT_OPTION, name)));
    for (option, name) in named.filter(|(_, name)| !known.contains(&name.as_str())) {
        let message = format!("there is no container {name:?}{}", or_known(name, &known));
        findings.add(Severity::Error, Place::whole(option), "", message);
    }
}

/// The nearest of the known names, or all.
fn or_known(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("; did you mean {near}?"),
        None if known.is_empty() => String::new(),
        None => format!("; there are {}", known.join(", ")),
    }
}

/// What a container's parts are resolved against.
pub(super) struct Context<'a> {
    pub(super) documents: &'a Documents,
    pub(super) options: &'a Options,
    pub(super) facts: Facts,
    pub(super) pod: &'a Pod,
    pub(super) spec: &'a PodSpec,
    pub(super) file: &'a str,
}

impl Context<'_> {
    /// Something that owns the machine, or much of it: a risk that is listed, where `--allow-privileged` permits it.
    pub(super) fn privilege(&self, at: &Path, what: &str, notes: &mut Notes<'_>) {
        if self.options.allow_privileged {
            notes.risk(at, what);
        } else {
            notes.error(at, format!("{what}; --allow-privileged permits it"));
        }
    }

    pub(super) fn namespace(&self) -> &str {
        namespace_of(&self.pod.metadata)
    }

    /// A ConfigMap; `None` when there is none, which is noted at `at` unless it is optional.
    pub(super) fn config_map(
        &self,
        name: &str,
        optional: bool,
        at: &Path,
        notes: &mut Notes<'_>,
    ) -> Option<&ConfigMap> {
        let found = self.documents.config_map(self.namespace(), name);
        if found.is_none() && !optional {
            let all = self
                .documents
                .config_maps
                .iter()
                .map(|o| &o.object.metadata);
            self.missing("ConfigMap", name, all, at, notes);
        }
        found
    }

    /// What a Secret holds, `stringData` over `data`; likewise.
    pub(super) fn secret(
        &self,
        name: &str,
        optional: bool,
        at: &Path,
        notes: &mut Notes<'_>,
    ) -> Option<BTreeMap<&str, Vec<u8>>> {
        let Some(secret) = self.documents.secret(self.namespace(), name) else {
            if !optional {
                let all = self.documents.secrets.iter().map(|o| &o.object.metadata);
                self.missing("Secret", name, all, at, notes);
            }
            return None;
        };
        let data = secret.data.iter().flatten();
        let text = secret.string_data.iter().flatten();
        let data = data.map(|(key, bytes)| (key.as_str(), bytes.0.clone()));
        let text = text.map(|(key, text)| (key.as_str(), text.clone().into_bytes()));
        Some(data.chain(text).collect())
    }

    fn missing<'m>(
        &self,
        kind: &str,
        name: &str,
        all: impl Iterator<Item = &'m k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>
        + Clone,
        at: &Path,
        notes: &mut Notes<'_>,
    ) {
        if self
            .documents
            .is_broken_object(kind, self.namespace(), name)
        {
            return;
        }
        let elsewhere = all.clone().find(|meta| meta.name.as_deref() == Some(name));
        let here = all.filter(|meta| namespace_of(meta) == self.namespace());
        let hint = match elsewhere {
            Some(meta) => format!(
                "; the one in namespace {:?} is out of reach from {:?}",
                namespace_of(meta),
                self.namespace()
            ),
            None => nearest(name, here.filter_map(|meta| meta.name.as_deref()))
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_else(|| {
                    "; give its file too, or say optional: true where it is referred to".into()
                }),
        };
        notes.error(
            at,
            format!("there is no {kind} {name:?} in the files{hint}"),
        );
    }

    /// Another container of the pod.
    pub(super) fn container(
        &self,
        name: &str,
        at: &Path,
        notes: &mut Notes<'_>,
    ) -> Option<&Container> {
        let known: Vec<_> = all_containers(self.spec).map(|(_, _, c)| c).collect();
        let found = known.iter().find(|container| container.name == name);
        if found.is_none() {
            let names: Vec<_> = known.iter().map(|c| c.name.as_str()).collect();
            notes.error(
                at,
                format!("there is no container {name:?}{}", or_known(name, &names)),
            );
        }
        found.copied()
    }
}

pub(super) fn plan(
    object: &Object<Pod>,
    documents: &Documents,
    options: &Options,
    facts: &dyn FactsFor,
    findings: &mut Findings,
) -> Option<PodPlan> {
    let Object { object, source } = object;
    let spec = object.spec.as_ref()?;
    let name = object.metadata.name.clone()?;
    let namespace = namespace_of(&object.metadata).to_owned();
    let context = Context {
        documents,
        options,
        facts: facts.facts(&namespace, &name),
        pod: object,
        spec,
        file: source.file(),
    };
    let notes = &mut Notes::new(source, findings);
    let annotations = object.metadata.annotations.clone().unwrap_or_default();
    images::check_annotations(&annotations, spec, notes);

    let at = Path::root().key("spec");
    let mut containers = Vec::new();
    let mut mounted = HashSet::new();
    for (list, i, one) in all_containers(spec) {
        if options.without.contains(&one.name) {
            continue;
        }
        let at = at.item(list, i);
        mounted.extend(
            one.volume_mounts
                .iter()
                .flatten()
                .map(|mount| mount.name.as_str()),
        );
        mounted.extend(file_volumes(one));
        host::check_mounts(one, &at, &context, notes);
        containers.extend(container(one, role(list, one), &at, &context, notes));
    }
    if !containers.iter().any(|c| c.role == Role::Main)
        && spec
            .containers
            .iter()
            .all(|c| options.without.contains(&c.name))
    {
        let message = format!("leaves the pod {name:?} without a container");
        notes.option(WITHOUT_OPTION, message);
    }
    // A volume that nobody mounts may lack its ConfigMap when the container that wanted it is left out.
    let keep = |name: &str| options.without.is_empty() || mounted.contains(name);
    let volumes = spec.volumes.iter().flatten().enumerate();
    let volumes = volumes
        .filter(|(_, volume)| keep(&volume.name))
        .filter_map(|(i, volume)| volumes::volume(volume, &at.item("volumes", i), &context, notes))
        .collect();

    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    let hostname = pod::hostname(spec, &name);
    Some(PodPlan {
        subdomain: pod::subdomain(spec, &hostname, &namespace, &at, notes),
        hostname,
        hostname_as_fqdn: spec.set_hostname_as_fqdn == Some(true),
        host: pod::host(spec, &at, &context, notes),
        host_aliases: pod::host_aliases(spec),
        dns: pod::dns(spec),
        security: pod::security(spec, &at, &context, notes),
        pull_secrets: pod::pull_secrets(spec, &at, &context, notes),
        active_deadline: pod::active_deadline(spec),
        resources: resources::of_pod(spec.resources.as_ref(), &containers),
        name,
        namespace,
        labels: object.metadata.labels.clone().unwrap_or_default(),
        annotations,
        spec: stored::spec(spec, options),
        facts: context.facts.clone(),
        share_process_namespace: spec.share_process_namespace == Some(true),
        restart_policy: policy(spec.restart_policy.as_deref()).unwrap_or(RestartPolicy::Always),
        grace: Duration::from_secs(u64::try_from(grace).unwrap_or(0)),
        volumes,
        ..PodPlan::new("", containers)
    })
}

/// The volumes whose files its variables are in.
fn file_volumes(container: &Container) -> impl Iterator<Item = &str> {
    let sources = container.env.iter().flatten();
    let sources = sources.filter_map(|variable| variable.value_from.as_ref());
    let files = sources.filter_map(|source| source.file_key_ref.as_ref());
    files.map(|file| file.volume_name.as_str())
}

pub(super) fn policy(text: Option<&str>) -> Option<RestartPolicy> {
    match text? {
        "Always" => Some(RestartPolicy::Always),
        "OnFailure" => Some(RestartPolicy::OnFailure),
        "Never" => Some(RestartPolicy::Never),
        _ => None,
    }
}

fn role(list: &str, container: &Container) -> Role {
    match (list, container.restart_policy.as_deref()) {
        ("initContainers", Some("Always")) => Role::Sidecar,
        ("initContainers", _) => Role::Init,
        _ => Role::Main,
    }
}
