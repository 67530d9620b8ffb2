//! The pod's files, followed: what an edit brings to the pod as it runs.

use std::sync::{Arc, PoisonError};

use podkit_dataplane::watch::{Watch, places};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::super::change::{self, Change};
use super::super::definition::{Definition, Reread};
use super::super::machine::{Event, Id, Input, Replan};
use super::{Note, Supervisor};
use crate::plan::{PodPlan, VolumeKind};

/// Reading a manifest takes more of a stack than starting a container.
const READ_STACK_BYTES: usize = 4 << 20;
/// So many of an edit's errors are told; `check` lists them all.
const ERRORS_TOLD: usize = 3;

/// What is followed, and how.
#[derive(Debug)]
pub(in super::super) struct Followed {
    pub(in super::super) definition: Definition,
    /// `--watch`: the edited spec is applied.
    pub(in super::super) apply: bool,
}

impl Supervisor {
    /// Begins to look at the files, when they can be looked at again.
    pub(super) fn follow_files(&mut self) -> Option<AbortHandle> {
        let mut definition = self.followed.take()?.definition;
        let notes = self.notes.clone();
        let task = tokio::task::spawn_local(async move {
            let mut watch = Watch::new();
            loop {
                // Before they are looked at: what is written meanwhile is seen.
                watch.follow(&places(definition.files()));
                let Some((given_back, reread)) = read(definition).await else {
                    return;
                };
                definition = given_back;
                if notes.send(Note::Reread(reread)).is_err() {
                    return;
                }
                watch.changed().await;
            }
        });
        Some(task.abort_handle())
    }

    /// The files were read again.
    pub(super) fn reread(&mut self, reread: Reread) {
        if self.machine.stopping() {
            return;
        }
        match reread {
            Reread::Same => {}
            // With --watch the process above ends this one.
            Reread::Gone if self.apply => {}
            Reread::Gone => {
                let message = "the pod is in its files no more; it goes on as it is".to_owned();
                self.tell_pod(true, "ManifestGone", message);
            }
            Reread::Refused(lines) => self.refuse(&lines),
            Reread::Now { plan, remarks } => {
                for remark in remarks {
                    self.tell_pod(true, remark.reason, remark.message);
                }
                self.replan(*plan);
            }
        }
    }

    /// Nothing of the edit is applied.
    fn refuse(&mut self, lines: &[String]) {
        let mut told = lines[..lines.len().min(ERRORS_TOLD)].join("; ");
        if lines.len() > ERRORS_TOLD {
            told.push_str(&format!("; and {} more", lines.len() - ERRORS_TOLD));
        }
        let message = format!("the edited files are refused, and nothing is changed: {told}");
        self.tell_pod(true, "ManifestRefused", message);
    }

    pub(super) fn tell_pod(&mut self, warning: bool, reason: &'static str, message: String) {
        if warning && self.output.is_none() {
            // Where a detached pod's troubles are looked for.
            tracing::warn!(reason, "{message}");
        }
        self.tell(&Event {
            warning,
            reason,
            container: None,
            message,
            again: false,
        });
    }

    fn replan(&mut self, edited: PodPlan) {
        let present = self.ground.plan();
        if !self.apply {
            return self.replan_live(&present, edited);
        }
        let change = change::between(&present, |id| self.machine.is_removed(id), edited);
        match change {
            // The process above ends this one, says so, and starts the pod anew.
            Change::Whole(_) => {}
            Change::Containers {
                plan,
                changed,
                removed,
            } => {
                let from = self.machine.exit_code_from();
                if let Some(id) = from.filter(|id| removed.contains(id)) {
                    let name = &present.containers[id].name;
                    let why = format!("container {name} of --exit-code-from is gone");
                    return self.refuse(&[why]);
                }
                self.put_in_force(&present, *plan, changed, removed);
            }
        }
    }

    /// The containers stay what they are, until they are restarted for another reason: then their variables are the new ones.
    fn replan_live(&mut self, present: &Arc<PodPlan>, mut edited: PodPlan) {
        if edited.containers.len() != present.containers.len() {
            // The spec is the same, and so this can't be.
            return self.refuse(&["the containers are others".to_owned()]);
        }
        for (new, old) in edited.containers.iter_mut().zip(&present.containers) {
            // An annotation may name another source; that is for the next start of the pod.
            (new.source, new.pull) = (old.source.clone(), old.pull);
        }
        self.put_in_force(present, edited, Vec::new(), Vec::new());
    }

    fn put_in_force(
        &mut self,
        present: &Arc<PodPlan>,
        plan: PodPlan,
        changed: Vec<Id>,
        removed: Vec<Id>,
    ) {
        if **present == plan && changed.is_empty() {
            return;
        }
        let plan = Arc::new(plan);
        *self
            .ground
            .plan
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&plan);
        // Before a container is restarted: it begins with what the edit says.
        self.update_volumes(&plan);
        self.object.redefine(&plan);
        for (id, container) in plan.containers.iter().enumerate() {
            if id >= present.containers.len() {
                self.output.add(&container.name);
                self.files.add(&container.name);
                self.board.add(container);
                self.images.add();
                self.running.push(None);
                self.tasks.push(Vec::new());
                self.was_ready.push(false);
            } else if changed.contains(&id) {
                self.images.forget(id);
            }
        }
        let replan = Replan {
            plan,
            changed,
            removed,
        };
        self.inputs.push_back(Input::Replan(Box::new(replan)));
        self.stale = true;
    }

    /// Swaps the files of the published volumes whose files are others.
    fn update_volumes(&mut self, plan: &PodPlan) {
        let mut told = Vec::new();
        {
            let volumes = self.ground.volumes.lock();
            let volumes = volumes.unwrap_or_else(PoisonError::into_inner);
            for volume in &plan.volumes {
                let VolumeKind::Files { files, .. } = &volume.kind else {
                    continue;
                };
                match volumes.update(&volume.name, files) {
                    Ok(false) => {}
                    Ok(true) => {
                        let message = format!("Updated the files of volume {}", volume.name);
                        told.push((false, "VolumeUpdated", message));
                    }
                    Err(error) => {
                        let message = format!("{error}; its files stay as they were");
                        told.push((true, "FailedMount", message));
                    }
                }
            }
        }
        for (warning, reason, message) in told {
            self.tell_pod(warning, reason, message);
        }
    }
}

/// Reads the files on a thread of its own; `None` when there can be none.
async fn read(mut definition: Definition) -> Option<(Definition, Reread)> {
    let (answer, answered) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("read".to_owned())
        .stack_size(READ_STACK_BYTES)
        .spawn(move || {
            let reread = definition.reread();
            // Nobody listens any more when the pod has ended.
            let _unheard = answer.send((definition, reread));
        });
    if let Err(error) = spawned {
        tracing::error!(%error, "the files can't be followed: no thread to read them");
        return None;
    }
    answered.await.ok()
}
