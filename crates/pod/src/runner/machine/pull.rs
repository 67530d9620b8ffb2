//! A container's image before its start: asked for, there, or waited for. (Kubernetes: `imageManager.EnsureImageExists`, called by
//! `startContainer`) So are the images of the volumes that it mounts.
//!
//! An image that can't be had fails no pod, whatever the restart policy: it is asked for again, 10 s later and then twice as long
//! each time, up to 5 minutes. The events and the words of the waiting state are the kubelet's.

use std::time::{Duration, Instant};

use super::{Action, Container, Id, Machine, Now, Stage, State};
use crate::probe::go_duration;

/// The cap, in first steps, as that of the restarts.
pub(crate) const PULL_STEPS_MAX: u32 = 30;
/// `reason` of an image that may not be pulled and is not there.
const NEVER: &str = "ErrImageNeverPull";
/// For this part of the first step the state shows why it failed; then that it waits, as after the kubelet's next look.
pub(crate) const SHOWN: u32 = 10;

/// What a pull of a container's image has given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pulled {
    /// `imageID`: its name and digest.
    pub(crate) image_id: String,
    /// None: it was there.
    pub(crate) took: Option<Took>,
    /// Bytes, as in a registry.
    pub(crate) size_bytes: u64,
}

impl Pulled {
    /// The kubelet's words for people.
    pub(crate) fn told(&self, image: &str) -> String {
        match self.took {
            None => format!("Container image {image:?} already present on machine"),
            Some(took) => format!(
                "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
                go_duration(took.pull),
                go_duration(took.with_waiting),
                self.size_bytes
            ),
        }
    }
}

/// How long a pull was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Took {
    pub(crate) pull: Duration,
    /// And with the time in which others were pulled.
    pub(crate) with_waiting: Duration,
}

/// Why there is no image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PullFailure {
    /// `ErrImagePull`, `ErrImageNeverPull` or `ImageInspectError`.
    pub(crate) reason: &'static str,
    /// One line.
    pub(crate) message: String,
    /// It is this image, of a volume that the container mounts, and told as the pod's; none: the container's own.
    pub(crate) of_volume: Option<String>,
}

impl PullFailure {
    /// `reason` of the event that tells of it: the kubelet has one of its own only for what may not be pulled.
    pub(crate) fn event_reason(&self) -> &'static str {
        if self.is_never() { NEVER } else { "Failed" }
    }

    /// It may not be pulled, and so is not backed off from: it may be loaded at any time.
    pub(crate) fn is_never(&self) -> bool {
        self.reason == NEVER
    }
}

/// A container that waits to ask again for its image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PullWait {
    until: Instant,
    /// When the back-off is told of, and the failure that led to it.
    tell: Option<(Instant, PullFailure)>,
}

impl PullWait {
    pub(super) fn due(&self) -> Instant {
        self.tell.as_ref().map_or(self.until, |(at, _)| *at)
    }
}

impl Container {
    /// How long it waits after a pull that failed.
    pub(super) fn next_pull_step(&mut self, first: Duration) -> Duration {
        let step = match self.pull_step {
            None => first,
            Some(step) => (step * 2).min(first * PULL_STEPS_MAX),
        };
        self.pull_step = Some(step);
        step
    }
}

impl Machine {
    /// Asks for the image of the run that is to start.
    pub(super) fn pull(&mut self, id: Id) {
        let container = &mut self.containers[id];
        container.stage = Stage::Pulling;
        let run = container.run;
        self.actions.push(Action::Pull { id, run });
    }

    /// A registry is asked.
    pub(super) fn pulling(&mut self, id: Id) {
        let message = format!("Pulling image {:?}", self.containers[id].image);
        self.event(false, "Pulling", Some(id), message);
    }

    pub(super) fn pulled(&mut self, now: Now, id: Id, pulled: Result<Option<Pulled>, PullFailure>) {
        match pulled {
            Ok(None) => {
                self.containers[id].pull_step = None;
                self.tell_at_hand(id);
                self.create(id);
            }
            Ok(Some(pulled)) => {
                let message = pulled.told(&self.containers[id].image);
                let container = &mut self.containers[id];
                container.pull_step = None;
                container.status.image_id = pulled.image_id;
                let again = container.unmade.is_some() && pulled.took.is_none();
                self.event_again(false, "Pulled", Some(id), message, again);
                self.create(id);
            }
            Err(failure) => self.pull_failed(now, id, failure),
        }
    }

    /// Its image is one that no store has.
    pub(super) fn tell_at_hand(&mut self, id: Id) {
        let container = &self.containers[id];
        let image = &container.image;
        if let Some(what) = container.at_hand.as_ref().filter(|_| container.run == 0) {
            let message = format!("Container image {image:?} already present on machine: {what}");
            let again = container.unmade.is_some();
            self.event_again(false, "Pulled", Some(id), message, again);
        }
    }

    fn pull_failed(&mut self, now: Now, id: Id, failure: PullFailure) {
        if failure.of_volume.is_none() {
            let reason = failure.event_reason();
            self.event(true, reason, Some(id), failure.message.clone());
        }
        let error = format!("Error: {}", failure.reason);
        self.event(true, "Failed", Some(id), error);
        let first = self.first_step;
        let container = &mut self.containers[id];
        let step = container.next_pull_step(first);
        let until = now.at + step;
        container.unmade = None;
        container.status.state = State::Waiting {
            reason: failure.reason,
            message: failure.message.clone(),
            until: Some(until),
        };
        let tell = (!failure.is_never()).then(|| (now.at + first / SHOWN, failure));
        container.stage = Stage::PullWait(PullWait { until, tell });
        self.changed(id);
    }

    /// What time brings to one that waits.
    pub(super) fn tick_pull(&mut self, now: Now, id: Id) {
        let container = &mut self.containers[id];
        let Stage::PullWait(wait) = &mut container.stage else {
            return;
        };
        let until = wait.until;
        if until <= now.at {
            return self.pull(id);
        }
        let Some((_, failure)) = wait.tell.take_if(|(at, _)| *at <= now.at) else {
            return;
        };
        let image = failure.of_volume.as_ref().unwrap_or(&container.image);
        let back_off = format!("Back-off pulling image {image:?}");
        container.status.state = State::Waiting {
            reason: "ImagePullBackOff",
            message: format!("{back_off}: {}: {}", failure.reason, failure.message),
            until: Some(until),
        };
        self.changed(id);
        self.event(false, "BackOff", Some(id), back_off);
        self.event(
            true,
            "Failed",
            Some(id),
            "Error: ImagePullBackOff".to_owned(),
        );
    }
}
