//! What a Job does next: which pods begin, and when it is complete or has failed. Without I/O.
//!
//! Counted as the Job controller does (Kubernetes: `pkg/controller/job`): a pod that fails counts against `backoffLimit`, and under
//! OnFailure its containers' restarts do. After a failure the next pod waits, 10 s and twice as long each time, up to ten minutes, until
//! one succeeds; the first step is that of `--backoff`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::plan::{JobPlan, JobPod, RestartPolicy};

/// The longest wait, in first steps.
const CAP: u32 = 60;

/// How a Job came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    BackoffLimitExceeded,
    DeadlineExceeded,
    /// Somebody asked for it.
    Stopped,
}

impl End {
    /// Of the event: its reason and its message, in the controller's words.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Complete => ("Completed", "Job completed"),
            Self::BackoffLimitExceeded => (
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
            ),
            Self::DeadlineExceeded => (
                "DeadlineExceeded",
                "Job was active longer than specified deadline",
            ),
            Self::Stopped => ("Stopped", "Job was stopped before its end"),
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct JobState {
    plan: JobPlan,
    first_step: Duration,
    deadline: Option<Instant>,
    /// Pods that run.
    active: Vec<JobPod>,
    succeeded: u32,
    /// Of an Indexed Job: the indexes that have succeeded.
    done: BTreeSet<u32>,
    failed: u32,
    /// Failures since the last success, and when the next pod may begin.
    in_a_row: u32,
    next_at: Option<Instant>,
    end: Option<End>,
}

impl JobState {
    pub(super) fn new(plan: JobPlan, first_step: Duration, now: Instant) -> Self {
        let deadline = plan.active_deadline.map(|after| now + after);
        let mut state = Self {
            plan,
            first_step,
            deadline,
            active: Vec::new(),
            succeeded: 0,
            done: BTreeSet::new(),
            failed: 0,
            in_a_row: 0,
            next_at: None,
            end: None,
        };
        state.conclude();
        state
    }

    pub(super) fn plan(&self) -> &JobPlan {
        &self.plan
    }

    /// How it ended; its pods may still be on their way out.
    pub(super) fn end(&self) -> Option<End> {
        self.end
    }

    /// The names of the pods that run.
    pub(super) fn active(&self) -> impl Iterator<Item = &str> {
        self.active.iter().map(|pod| pod.name.as_str())
    }

    /// When to be asked again.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        [self.deadline, self.next_at].into_iter().flatten().min()
    }

    /// Whether restarts are counted: only they are known by looking.
    pub(super) fn counts_restarts(&self) -> bool {
        self.end.is_none() && self.plan.pod.restart_policy == RestartPolicy::OnFailure
    }

    /// The pods that begin now. `suffix` gives five characters that no other pod has.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        mut suffix: impl FnMut() -> String,
    ) -> Vec<JobPod> {
        if self.end.is_none() && self.deadline.is_some_and(|deadline| deadline <= now) {
            self.end = Some(End::DeadlineExceeded);
        }
        if self.end.is_some() || self.next_at.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.next_at = None;
        let mut begun = Vec::new();
        while self.active.len() < self.plan.wanted(self.succeeded) as usize {
            let index = match self.plan.indexed {
                true => match self.free_index() {
                    Some(index) => Some(index),
                    None => break,
                },
                false => None,
            };
            let pod = self.plan.pod(index, &suffix());
            self.active.push(pod.clone());
            begun.push(pod);
        }
        begun
    }

    /// The least index that neither has succeeded nor runs.
    fn free_index(&self) -> Option<u32> {
        let runs = |index: u32| self.active.iter().any(|pod| pod.index == Some(index));
        (0..self.plan.completions?).find(|index| !self.done.contains(index) && !runs(*index))
    }

    /// A pod came to its end.
    pub(super) fn ended(&mut self, now: Instant, name: &str, well: bool) {
        let Some(at) = self.active.iter().position(|pod| pod.name == name) else {
            return;
        };
        let pod = self.active.swap_remove(at);
        if well {
            self.succeeded += 1;
            self.done.extend(pod.index);
            self.in_a_row = 0;
            self.next_at = None;
        } else {
            self.failed += 1;
            let step = self.first_step * 2u32.saturating_pow(self.in_a_row);
            self.in_a_row = (self.in_a_row + 1).min(31);
            self.next_at = Some(now + step.min(self.first_step * CAP));
            if self.end.is_none() && self.failed > self.plan.backoff_limit {
                self.end = Some(End::BackoffLimitExceeded);
            }
        }
        self.conclude();
    }

    /// So often the containers of the pods that run have been restarted.
    pub(super) fn restarted(&mut self, restarts: u32) {
        // (`pastBackoffLimitOnFailure`)
        let past = restarts > 0 && restarts >= self.plan.backoff_limit;
        if self.counts_restarts() && past {
            self.end = Some(End::BackoffLimitExceeded);
        }
    }

    pub(super) fn stop(&mut self) {
        self.end.get_or_insert(End::Stopped);
    }

    fn conclude(&mut self) {
        let enough = match self.plan.completions {
            Some(completions) => self.succeeded >= completions,
            None => self.succeeded > 0 && self.active.is_empty(),
        };
        if self.end.is_none() && enough {
            self.end = Some(End::Complete);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::testing::{container, plan};

    const S: Duration = Duration::from_secs(1);

    struct Story {
        job: JobState,
        begin: Instant,
        made: u32,
    }

    fn job(change: impl FnOnce(&mut JobPlan)) -> Story {
        let mut pod = plan(vec![container("app")]);
        pod.restart_policy = RestartPolicy::Never;
        let mut plan = JobPlan {
            name: "j".to_owned(),
            namespace: "default".to_owned(),
            completions: Some(1),
            parallelism: 1,
            backoff_limit: 6,
            active_deadline: None,
            indexed: false,
            pod,
        };
        change(&mut plan);
        let begin = Instant::now();
        Story {
            job: JobState::new(plan, 10 * S, begin),
            begin,
            made: 0,
        }
    }

    impl Story {
        fn at(&mut self, at: Duration) -> Vec<String> {
            let (made, begin) = (&mut self.made, self.begin);
            let pods = self.job.begin(begin + at, || {
                *made += 1;
                made.to_string()
            });
            pods.into_iter().map(|pod| pod.name).collect()
        }

        fn ended(&mut self, at: Duration, name: &str, well: bool) {
            self.job.ended(self.begin + at, name, well);
        }
    }

    #[test]
    fn one_pod_that_succeeds_completes_it() {
        let mut story = job(|_| {});
        assert_eq!(story.at(Duration::ZERO), ["j-1"]);
        assert!(story.at(S).is_empty());
        story.ended(S, "j-1", true);
        assert_eq!(story.job.end(), Some(End::Complete));
        assert!(story.at(S).is_empty());
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_the_limit() {
        let mut story = job(|plan| plan.backoff_limit = 2);
        assert_eq!(story.at(Duration::ZERO), ["j-1"]);
        story.ended(Duration::ZERO, "j-1", false);
        assert_eq!(story.job.wake_at(), Some(story.begin + 10 * S));
        assert!(story.at(9 * S).is_empty());
        assert_eq!(story.at(10 * S), ["j-2"]);
        story.ended(10 * S, "j-2", false);
        assert!(story.at(29 * S).is_empty());
        assert_eq!(story.at(30 * S), ["j-3"]);
        story.ended(30 * S, "j-3", false);
        assert_eq!(story.job.end(), Some(End::BackoffLimitExceeded));
        assert!(story.at(600 * S).is_empty());
        assert_eq!(story.job.wake_at(), None);
    }

    #[test]
    fn parallel_pods_never_exceed_what_is_left() {
        let mut story = job(|plan| (plan.completions, plan.parallelism) = (Some(3), 2));
        assert_eq!(story.at(Duration::ZERO), ["j-1", "j-2"]);
        story.ended(S, "j-1", true);
        assert_eq!(story.at(S), ["j-3"]);
        story.ended(S, "j-2", true);
        assert!(story.at(S).is_empty());
        story.ended(S, "j-3", true);
        assert_eq!(story.job.end(), Some(End::Complete));
    }

    #[test]
    fn a_work_queue_ends_when_its_last_pod_has() {
        let mut story = job(|plan| (plan.completions, plan.parallelism) = (None, 2));
        assert_eq!(story.at(Duration::ZERO).len(), 2);
        story.ended(S, "j-2", true);
        assert!(story.at(S).is_empty());
        assert_eq!(story.job.end(), None);
        story.ended(S, "j-1", true);
        assert_eq!(story.job.end(), Some(End::Complete));
    }

    #[test]
    fn each_index_succeeds_once() {
        let mut story = job(|plan| {
            (plan.completions, plan.parallelism) = (Some(3), 2);
            plan.indexed = true;
        });
        assert_eq!(story.at(Duration::ZERO), ["j-0-1", "j-1-2"]);
        story.ended(S, "j-0-1", false);
        story.ended(S, "j-1-2", true);
        // The success forgives the failure before it.
        assert_eq!(story.at(S), ["j-0-3", "j-2-4"]);
        story.ended(S, "j-0-3", true);
        story.ended(S, "j-2-4", true);
        assert_eq!(story.job.end(), Some(End::Complete));
    }

    #[test]
    fn restarts_count_under_on_failure() {
        let mut story = job(|plan| plan.pod.restart_policy = RestartPolicy::OnFailure);
        story.at(Duration::ZERO);
        story.job.restarted(5);
        assert_eq!(story.job.end(), None);
        story.job.restarted(6);
        assert_eq!(story.job.end(), Some(End::BackoffLimitExceeded));
        let mut story = job(|_| {});
        story.job.restarted(60);
        assert_eq!(story.job.end(), None);
    }

    #[test]
    fn it_is_active_for_no_longer_than_it_may() {
        let mut story = job(|plan| plan.active_deadline = Some(5 * S));
        story.at(Duration::ZERO);
        assert_eq!(story.job.wake_at(), Some(story.begin + 5 * S));
        story.at(5 * S);
        assert_eq!(story.job.end(), Some(End::DeadlineExceeded));
        story.ended(6 * S, "j-1", true);
        assert_eq!(story.job.end(), Some(End::DeadlineExceeded));
    }

    #[test]
    fn nothing_to_complete_is_complete_and_no_parallelism_is_a_pause() {
        let story = job(|plan| plan.completions = Some(0));
        assert_eq!(story.job.end(), Some(End::Complete));
        let mut story = job(|plan| plan.parallelism = 0);
        assert!(story.at(Duration::ZERO).is_empty());
        assert_eq!(story.job.end(), None);
    }
}
