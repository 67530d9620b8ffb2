//! What the supervisor shows of its pod to those who ask: the object, and the events.

use std::cell::{Cell, Ref, RefCell};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tokio::sync::watch;

use super::event::EventLog;
use crate::image::Pulls;
use crate::plan::ContainerPlan;

/// Written by the supervisor, read by the connections, all on one thread.
#[derive(Debug)]
pub(crate) struct Board {
    /// The pod's JSON. Only the latest matters: whoever reads slowly misses what was in between.
    pod: watch::Sender<Arc<str>>,
    events: RefCell<EventLog>,
    /// The number of the latest event.
    told: watch::Sender<u64>,
    pulls: Pulls,
    ended: Cell<bool>,
}

impl Board {
    pub(crate) fn new(events: EventLog, pulls: Pulls) -> Self {
        Self {
            pod: watch::Sender::new(Arc::from("{}")),
            events: RefCell::new(events),
            told: watch::Sender::new(0),
            pulls,
            ended: Cell::new(false),
        }
    }

    /// The pod is like this now.
    pub(crate) fn show(&self, pod: Arc<str>) {
        self.pod.send_replace(pod);
    }

    /// One more container, after the others.
    pub(crate) fn add(&self, container: &ContainerPlan) {
        self.events.borrow_mut().add(container);
    }

    /// This has happened.
    pub(crate) fn tell(
        &self,
        warning: bool,
        reason: &str,
        container: Option<usize>,
        message: &str,
    ) {
        let mut events = self.events.borrow_mut();
        events.record(SystemTime::now(), warning, reason, container, message);
        self.told.send_replace(events.latest());
    }

    /// Nothing more will be shown or told.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        // Wakes those who wait.
        self.pod.send_modify(|_| ());
        self.told.send_modify(|_| ());
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }

    pub(super) fn watch_pod(&self) -> watch::Receiver<Arc<str>> {
        self.pod.subscribe()
    }

    pub(super) fn watch_events(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// The images that are on their way.
    pub(crate) fn pulls(&self) -> &Pulls {
        &self.pulls
    }

    pub(super) fn events(&self) -> Ref<'_, EventLog> {
        self.events.borrow()
    }

    /// Pod and events, for when nobody is there to be asked.
    pub(crate) fn record(&self) -> Value {
        let pod: Value = serde_json::from_str(&self.pod.borrow()).unwrap_or_default();
        serde_json::json!({"pod": pod, "events": self.events.borrow().after(0)})
    }
}
