//! The images of a pod's containers, from the store.
//!
//! The kubelet pulls an image when its container is to start, one after the other. Here all of them are asked for when the pod
//! begins, [`AT_ONCE`] at a time and in the order of the containers, so that the last one's image is on its way while the init
//! containers work. What people are told keeps the kubelet's order: an early pull is told of when its container's turn has come.
//! An image that an earlier container has too is asked for at its turn, and is there then: asked for early it would be pulled twice, or
//! be missing for a container that may not pull.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinHandle};

use super::machine::{Id, Input, PullFailure, Pulled, Took};
use super::output::Output;
use super::supervise::Note;
use crate::image::{EnsureError, Event, Location, Progress, ResolvedImage, Store, Wanted};
use crate::plan::{ContainerPlan, ImageSource, PodPlan};

/// Images that are pulled at a time; each has its own layers in flight.
const AT_ONCE: usize = 2;

type Ensured = Result<ResolvedImage, EnsureError>;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Images {
    store: Store,
    output: Output,
    gate: Arc<Semaphore>,
    /// By container: what was asked for before its turn.
    early: Vec<Option<Early>>,
    /// Kept for the pod's life: so long the store removes none of them.
    here: Vec<Option<ResolvedImage>>,
}

struct Early {
    pull: JoinHandle<Ensured>,
    told: Arc<Told>,
}

impl std::fmt::Debug for Early {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Early({})", self.told.id)
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        // Once it has ended it does nothing.
        self.pull.abort();
        self.told.end();
    }
}

impl Images {
    /// Asks for the images of all containers. Needs a local set.
    pub(super) fn begin(
        store: Store,
        plan: &PodPlan,
        output: &Output,
        notes: &mpsc::UnboundedSender<Note>,
    ) -> Self {
        let mut images = Self {
            store,
            output: output.clone(),
            gate: Arc::new(Semaphore::new(AT_ONCE)),
            early: Vec::new(),
            here: Vec::new(),
        };
        for (id, container) in plan.containers.iter().enumerate() {
            let mut earlier = plan.containers[..id].iter();
            let first = earlier.all(|earlier| earlier.source != container.source);
            let early = wanted(plan, container).filter(|_| first).map(|wanted| {
                let shown = output.pull(&container.name);
                let told = Arc::new(Told::new(id, 0, notes.clone(), shown));
                let pull = images.ensure(wanted, &told);
                Early { pull, told }
            });
            images.early.push(early);
            images.here.push(None);
        }
        images
    }

    /// One more container, after the others.
    pub(super) fn add(&mut self) {
        self.early.push(None);
        self.here.push(None);
    }

    /// Nothing is pulled any more.
    pub(super) fn end(&mut self) {
        self.early.clear();
    }

    /// What was asked for early is not what the container is to have.
    pub(super) fn forget(&mut self, id: Id) {
        self.early[id] = None;
    }

    /// The container's turn has come; the answer is a note. `None`: there is no image to be had.
    pub(super) fn pull(
        &mut self,
        plan: &PodPlan,
        id: Id,
        run: u32,
        notes: &mpsc::UnboundedSender<Note>,
    ) -> Option<AbortHandle> {
        let begun = Instant::now();
        let early = self.early[id].take();
        let early = match early {
            Some(early) => early,
            None => {
                let container = &plan.containers[id];
                let shown = self.output.pull(&container.name);
                let told = Arc::new(Told::new(id, run, notes.clone(), shown));
                let pull = self.ensure(wanted(plan, container)?, &told);
                Early { pull, told }
            }
        };
        early.told.turn();
        let notes = notes.clone();
        let task = tokio::task::spawn_local(async move {
            let mut early = early;
            let Ok(ensured) = (&mut early.pull).await else {
                return;
            };
            let begun = begun.elapsed();
            // Nobody listens any more when the supervisor has given up.
            let _unheard = notes.send(Note::Pulled {
                id,
                run,
                ensured: Box::new(ensured),
                waited: begun,
            });
        });
        Some(task.abort_handle())
    }

    /// Keeps what came of a pull, and says it to the machine.
    pub(super) fn pulled(
        &mut self,
        location: Option<&Location>,
        id: Id,
        run: u32,
        ensured: Ensured,
        waited: std::time::Duration,
    ) -> Input {
        let pulled = match ensured {
            Ok(image) => {
                let pulled = Pulled {
                    image_id: image_id(location, &image),
                    took: image.pulled.map(|pull| Took {
                        pull,
                        with_waiting: waited.max(pull),
                    }),
                    size_bytes: image.size_bytes,
                };
                self.here[id] = Some(image);
                Ok(pulled)
            }
            Err(error) => Err(PullFailure {
                reason: error.reason(),
                message: error.to_string(),
            }),
        };
        Input::Pulled { id, run, pulled }
    }

    /// The image of a container, once it was pulled.
    pub(super) fn here(&self, id: Id) -> Option<ResolvedImage> {
        self.here[id].clone()
    }

    fn ensure(&self, wanted: Wanted, told: &Arc<Told>) -> JoinHandle<Ensured> {
        let (store, gate) = (self.store.clone(), Arc::clone(&self.gate));
        let told: Arc<dyn Progress> = Arc::<Told>::clone(told);
        tokio::task::spawn_local(async move {
            // It is never closed.
            let _turn = gate.acquire_owned().await;
            store.ensure(wanted, told).await
        })
    }
}

fn wanted(plan: &PodPlan, container: &ContainerPlan) -> Option<Wanted> {
    let ImageSource::Image(location) = &container.source else {
        return None;
    };
    let mut wanted = Wanted::new(location.clone(), container.pull);
    wanted.pull_secrets = plan.pull_secrets.clone();
    Some(wanted)
}

/// `docker.io/library/nginx@sha256:…`, or the configuration's digest of what no registry has a name for, as containerd does.
fn image_id(location: Option<&Location>, image: &ResolvedImage) -> String {
    match location.and_then(Location::reference) {
        Some(reference) => reference.at(&image.digest).to_string(),
        None => image.id.to_string(),
    }
}

/// Tells of a pull that began early when its turn has come.
struct Told {
    id: Id,
    run: u32,
    notes: mpsc::UnboundedSender<Note>,
    /// A registry is asked.
    pulls: AtomicBool,
    /// Its container waits for it.
    turn: AtomicBool,
    told: AtomicBool,
    /// On the terminal.
    shown: Option<Arc<dyn Progress>>,
}

impl Told {
    fn new(
        id: Id,
        run: u32,
        notes: mpsc::UnboundedSender<Note>,
        shown: Option<Arc<dyn Progress>>,
    ) -> Self {
        Self {
            id,
            run,
            notes,
            pulls: AtomicBool::new(false),
            turn: AtomicBool::new(false),
            told: AtomicBool::new(false),
            shown,
        }
    }

    fn turn(&self) {
        self.turn.store(true, Ordering::SeqCst);
        self.tell();
    }

    fn tell(&self) {
        let due = self.pulls.load(Ordering::SeqCst) && self.turn.load(Ordering::SeqCst);
        if due && !self.told.swap(true, Ordering::SeqCst) {
            let (id, run) = (self.id, self.run);
            let _unheard = self.notes.send(Note::Input(Input::Pulling { id, run }));
        }
    }
}

impl Progress for Told {
    fn event(&self, event: Event) {
        if event == Event::Pulling {
            self.pulls.store(true, Ordering::SeqCst);
            self.tell();
        }
        if let Some(shown) = &self.shown {
            shown.event(event);
        }
    }

    fn end(&self) {
        if let Some(shown) = &self.shown {
            shown.end();
        }
    }
}
