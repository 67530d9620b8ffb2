//! A Job: how many pods of one template run, one after another and beside each other, until how many have succeeded.
//!
//! Who runs a Job gives each pod its name and, in an Indexed Job, its index ([`JobPod`] in [`Options`]); [`super::build`] then plans
//! these pods like any other, so that `metadata.name` in a variable is the pod's own.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::facts::{FactsFor, JobPod, Options};
use super::{PodPlan, build::plan};
use crate::manifest::{Documents, Findings, Object, Path, Place, namespace_of, template};

/// `backoffLimit` when absent.
const BACKOFF_LIMIT: u32 = 6;
/// Where an Indexed Job's pod finds its index. (batch/v1 `JobCompletionIndexAnnotation`)
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_FIELD: &str = "metadata.annotations['batch.kubernetes.io/job-completion-index']";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Labels of a Job's pods, the second for those who learned the first name.
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// One Job. (Kubernetes API: batch/v1 Job)
#[derive(Debug, Clone, PartialEq)]
pub struct JobPlan {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, `default` when absent.
    pub namespace: String,
    /// `spec.completions`: so many pods have to succeed. None: any success ends it, when no pod runs any more.
    pub completions: Option<u32>,
    /// `spec.parallelism`: so many run at a time, 1 when absent. 0: none starts.
    pub parallelism: u32,
    /// `spec.backoffLimit`: with more failed pods (restarts of containers counted where the policy is OnFailure) the Job has failed with
    /// BackoffLimitExceeded; 6 when absent.
    pub backoff_limit: u32,
    /// `spec.activeDeadlineSeconds`: after that the Job has failed with DeadlineExceeded.
    pub active_deadline: Option<Duration>,
    /// `spec.completionMode: Indexed`: each index from 0 to `completions` has to succeed once.
    pub indexed: bool,
    /// The first pod, as it would be: under a name that ends in `xxxxx`.
    pub pod: PodPlan,
}

impl JobPlan {
    /// How many pods are to be running when so many have succeeded. (Kubernetes: `manageJob`)
    pub fn wanted(&self, succeeded: u32) -> u32 {
        match self.completions {
            Some(completions) => self.parallelism.min(completions.saturating_sub(succeeded)),
            // A success ends it; those that run may finish.
            None if succeeded > 0 => 0,
            None => self.parallelism,
        }
    }

    /// The pod of this run: `suffix` is five characters that no other pod of the Job has had, `index` that of an Indexed Job.
    pub fn pod(&self, index: Option<u32>, suffix: &str) -> JobPod {
        let name = match index {
            Some(index) => format!("{}-{index}-{suffix}", self.name),
            None => format!("{}-{suffix}", self.name),
        };
        JobPod {
            namespace: self.namespace.clone(),
            job: self.name.clone(),
            name,
            index,
        }
    }
}

/// The Jobs of the files, in order. They may run when the findings have no error.
pub fn jobs(
    documents: &Documents,
    options: &Options,
    facts: &dyn FactsFor,
) -> (Vec<JobPlan>, Findings) {
    let mut findings = Findings::new();
    let plans = documents
        .jobs
        .iter()
        .filter_map(|job| one(job, documents, options, facts, &mut findings))
        .collect();
    findings.sort();
    (plans, findings)
}

fn one(
    job: &Object<Job>,
    documents: &Documents,
    options: &Options,
    facts: &dyn FactsFor,
    findings: &mut Findings,
) -> Option<JobPlan> {
    let spec = job.object.spec.as_ref()?;
    let number = |given: Option<i32>| given.and_then(|n| u32::try_from(n).ok());
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let name = job.object.metadata.name.clone()?;
    let index = indexed.then_some(0);
    let first = match index {
        Some(index) => format!("{name}-{index}-xxxxx"),
        None => format!("{name}-xxxxx"),
    };
    let pod = pod(job, &first, index)?;
    let pod = plan(&pod, documents, options, facts, findings)?;
    let parallelism = number(spec.parallelism);
    // Without either it is one pod; with parallelism alone, a work queue.
    let completions = number(spec.completions).or(parallelism.is_none().then_some(1));
    Some(JobPlan {
        namespace: namespace_of(&job.object.metadata).to_owned(),
        name,
        completions,
        parallelism: parallelism.unwrap_or(1),
        backoff_limit: number(spec.backoff_limit).unwrap_or(BACKOFF_LIMIT),
        active_deadline: spec
            .active_deadline_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        indexed,
        pod,
    })
}

/// The pods of Jobs that the options name, as objects.
pub(super) fn pods(documents: &Documents, options: &Options) -> Vec<Object<Pod>> {
    let wanted = options.job_pods.iter();
    wanted
        .filter_map(|wanted| {
            let job = documents.jobs.iter().find(|job| {
                let metadata = &job.object.metadata;
                metadata.name.as_ref() == Some(&wanted.job)
                    && namespace_of(metadata) == wanted.namespace
            })?;
            pod(job, &wanted.name, wanted.index)
        })
        .collect()
}

fn pod(job: &Object<Job>, name: &str, index: Option<u32>) -> Option<Object<Pod>> {
    let metadata = &job.object.metadata;
    let spec = job.object.spec.as_ref()?;
    let mut pod = template(metadata, &spec.template, name, &job.source);
    let job_name = metadata.name.clone().unwrap_or_default();
    let labels = pod.object.metadata.labels.get_or_insert_default();
    for label in NAME_LABELS {
        labels.insert(label.to_owned(), job_name.clone());
    }
    let Some(index) = index else { return Some(pod) };
    labels.insert(INDEX.to_owned(), index.to_string());
    let annotations = pod.object.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    let spec = pod.object.spec.as_mut()?;
    // The name that others of the Job know it by; a host name of the template's own is kept.
    if spec.hostname.as_deref().unwrap_or_default().is_empty() {
        spec.hostname = Some(format!("{job_name}-{index}"));
    }
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
            continue;
        }
        env.push(EnvVar {
            name: INDEX_VARIABLE.to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: None,
                    field_path: INDEX_FIELD.to_owned(),
                }),
                ..EnvVarSource::default()
            }),
        });
    }
    Some(pod)
}

/// Where a Job stands in its file: for those who have something to say about it.
pub fn place_of(documents: &Documents, job: &JobPlan) -> Place {
    let found = documents.jobs.iter().find(|one| {
        let metadata = &one.object.metadata;
        metadata.name.as_ref() == Some(&job.name) && namespace_of(metadata) == job.namespace
    });
    let place = found.map(|job| job.source.place(&Path::root().key("kind")));
    place.unwrap_or_else(|| Place::whole("manifest"))
}
