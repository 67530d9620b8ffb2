//! `--watch` above the supervisors: which pods come and go with an edit of the files, and which are to be restarted as a whole.
//!
//! What changes inside a pod its own supervisor sees and does. Both look at the same files, each on its own, and what either sees
//! last is the same: so they need not talk.

use std::collections::BTreeMap;
use std::time::SystemTime;

use podkit_dataplane::watch::{Watch, places};
use podkit_foundation::error::Failure;
use tokio::sync::{mpsc, oneshot};

use super::super::change::{self, Change};
use super::super::definition;
use super::super::prepare::{self, Pods};
use super::super::{OutputFormat, RunOptions};
use super::{Crowd, ask_all};
use crate::plan::{JobPlan, PodPlan};

/// Reading a manifest takes more of a stack than a thread has by default.
const READ_STACK_BYTES: usize = 4 << 20;

/// The pods that are to be, by `NAMESPACE/NAME`.
#[derive(Debug, Default)]
pub(super) struct Edits {
    present: BTreeMap<String, PodPlan>,
    /// As they are in the files.
    jobs: Vec<JobPlan>,
}

/// What the files say after an edit, or why that can't be done.
pub(super) type Edit = Result<Pods, Failure>;

impl Edits {
    pub(super) fn new(pods: &Pods) -> Self {
        Self {
            present: by_name(pods),
            jobs: pods.jobs().to_vec(),
        }
    }

    /// The pod, while it is in the files.
    pub(super) fn plan(&self, pod: &str) -> Option<&PodPlan> {
        self.present.get(pod)
    }

    /// Applies an edit: starts and stops supervisors.
    pub(super) fn apply(&mut self, pods: &Pods, crowd: &mut Crowd<'_>) -> Result<(), Failure> {
        let present = std::mem::replace(&mut self.present, by_name(pods));
        for name in present
            .keys()
            .filter(|name| !self.present.contains_key(*name))
        {
            if let Some(supervisor) = crowd.living(name) {
                (supervisor.again, supervisor.leaves) = (false, true);
                ask_all([&*supervisor]);
            }
        }
        for (name, edited) in &self.present {
            let before = present.get(name);
            match crowd.living(name) {
                // It is on its way out, or about to be restarted: it comes back as what it is by then.
                Some(supervisor) if supervisor.leaves => supervisor.again = true,
                Some(supervisor) => {
                    let fields = before.map(|before| whole(before, edited));
                    let fields = fields.unwrap_or_default();
                    if !fields.is_empty() {
                        (supervisor.again, supervisor.leaves) = (true, true);
                        ask_all([&*supervisor]);
                        let line = restarting(crowd.options.output, edited, &fields);
                        crowd.queue.push(line.as_bytes());
                    }
                }
                None if before != Some(edited) => crowd.start_later(name, edited)?,
                // It has ended as what it still is.
                None => {}
            }
        }
        if self.jobs != pods.jobs() {
            self.jobs = pods.jobs().to_vec();
            crowd.warn("the edit of a Job is for the next start: Jobs stay as they began");
        }
        Ok(())
    }
}

fn by_name(pods: &Pods) -> BTreeMap<String, PodPlan> {
    let plans = pods.plans().iter().cloned();
    plans
        .map(|plan| (format!("{}/{}", plan.namespace, plan.name), plan))
        .collect()
}

fn whole(before: &PodPlan, edited: &PodPlan) -> Vec<&'static str> {
    match change::between(before, |_| false, edited.clone()) {
        Change::Whole(fields) => fields,
        Change::Containers { .. } => Vec::new(),
    }
}

/// The event of a pod that is restarted as a whole: told here, because its own supervisor may have been ended before it has looked.
fn restarting(format: OutputFormat, pod: &PodPlan, fields: &[&str]) -> String {
    let message = format!(
        "{} changed, which no running pod can take: the whole pod is restarted",
        fields.join(", ")
    );
    match format {
        OutputFormat::Text => format!("{} * Restarting: {message}\n", pod.name),
        OutputFormat::Json => {
            let ts = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            let line = serde_json::json!({
                "ts": ts,
                "type": "event",
                "pod": pod.name,
                "namespace": pod.namespace,
                "level": "Normal",
                "reason": "Restarting",
                "message": message,
            });
            format!("{line}\n")
        }
    }
}

/// Sends what the files say after each edit; of those with an error in the files the supervisors tell.
pub(super) fn follow(options: &RunOptions, pods: &Pods) -> mpsc::UnboundedReceiver<Edit> {
    let (edits, inbox) = mpsc::unbounded_channel();
    let (options, mut sum) = (options.clone(), pods.sum());
    tokio::task::spawn_local(async move {
        let mut watch = Watch::new();
        loop {
            // Before they are looked at: what is written meanwhile is seen.
            watch.follow(&places(&options.files));
            let now = definition::sum(&options.files);
            if now != sum {
                sum = now;
                let Some(read) = read(options.clone()).await else {
                    return;
                };
                let Ok(pods) = read else { continue };
                let edit = prepare::suits(&options, &pods).map(|()| pods);
                if edits.send(edit).is_err() {
                    return;
                }
            }
            watch.changed().await;
        }
    });
    inbox
}

/// Reads the files on a thread of its own; `None` when there can be none.
async fn read(options: RunOptions) -> Option<Result<Pods, Failure>> {
    let (answer, answered) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("read".to_owned())
        .stack_size(READ_STACK_BYTES)
        .spawn(move || {
            // Nobody listens any more when all pods have ended.
            let _unheard = answer.send(prepare::read(&options));
        });
    if let Err(error) = spawned {
        tracing::error!(%error, "the files can't be followed: no thread to read them");
        return None;
    }
    answered.await.ok()
}
