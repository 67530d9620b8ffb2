//! The images of a pod's containers, from the store.
//!
//! The kubelet pulls an image when its container is to start, one after the other. Here all of them are asked for when the pod
//! begins, [`AT_ONCE`] at a time and in the order of the containers, so that the last one's image is on its way while the init
//! containers work. What people are told keeps the kubelet's order: an early pull is told of when its container's turn has come.
//! An image that an earlier container has too is asked for at its turn, and is there then: asked for early it would be pulled twice, or
//! be missing for a container that may not pull.
//!
//! The images of volumes are asked for when the pod begins too, before the containers' and once for all who mount them (KEP-4639:
//! once per pod); what comes of that is told as the pod's at once, since the kubelet pulls them before any container. A container
//! waits for those that it mounts, and when one can't be had it is asked for again by the container's own next attempt. One that no
//! container mounts keeps nobody waiting (the kubelet's error is that of the container which mounts it), and is asked for again with
//! the kubelet's back-off until it is there.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;

use super::machine::{Id, Input, PULL_STEPS_MAX, PullFailure, Pulled, SHOWN, Took};
use super::supervise::Note;
use crate::image::{EnsureError, Event, Location, Progress, Pulls, ResolvedImage, Store, Wanted};
use crate::plan::{ContainerPlan, ImageSource, PodPlan, PullPolicy, VolumeKind, VolumePlan};

/// Images that are pulled at a time; each has its own layers in flight.
const AT_ONCE: usize = 2;
/// Containers that ask for a volume's image one after the other are one attempt.
const SAME_ATTEMPT: Duration = Duration::from_secs(1);

type Ensured = Result<ResolvedImage, EnsureError>;
type Notes = mpsc::UnboundedSender<Note>;
/// What a container has got: its own image, when it has one in the store.
pub(super) type Got = Result<Option<ResolvedImage>, PullFailure>;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Images {
    asker: Asker,
    /// Of the back-off.
    first_step: Duration,
    /// By container.
    containers: Vec<Own>,
    /// By volume; kept for the pod's life.
    volumes: BTreeMap<String, Shared>,
}

/// Whom the images are asked of.
#[derive(Debug, Clone)]
struct Asker {
    store: Store,
    /// For those who show them.
    pulls: Pulls,
    gate: Arc<Semaphore>,
}

/// A container's own.
#[derive(Debug, Default)]
struct Own {
    /// What was asked for before its turn.
    early: Option<Early>,
    /// Kept for the pod's life: so long the store does not remove it.
    here: Option<ResolvedImage>,
}

/// What a container is started with.
#[derive(Debug, Default)]
pub(super) struct Here {
    pub(super) own: Option<ResolvedImage>,
    /// Those that it mounts, by volume.
    pub(super) volumes: Vec<(String, ResolvedImage)>,
}

struct Early {
    pull: JoinHandle<Ensured>,
    told: Arc<Told>,
}

impl std::fmt::Debug for Early {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Early({:?})", self.told.whose)
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        // Once it has ended it does nothing.
        self.pull.abort();
        self.told.end();
    }
}

/// The image of a volume.
#[derive(Debug)]
struct Shared {
    task: AbortHandle,
    came: watch::Receiver<Came>,
}

/// None: it is on its way.
type Came = Option<Result<ResolvedImage, Failed>>;

#[derive(Debug, Clone)]
struct Failed {
    at: Instant,
    why: PullFailure,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn here(&self) -> Option<ResolvedImage> {
        self.came.borrow().as_ref()?.as_ref().ok().cloned()
    }

    /// Whether it has to be asked for again.
    fn is_stale(&self) -> bool {
        let came = self.came.borrow();
        matches!(&*came, Some(Err(failed)) if failed.at.elapsed() > SAME_ATTEMPT)
    }
}

/// A container's own image, when its turn comes.
enum Turn {
    Early(Early),
    Now(Pin<Box<dyn Future<Output = Ensured>>>, Arc<Told>),
    /// It needs none.
    Nothing,
}

impl Images {
    /// Asks for the images of all volumes and containers. Needs a local set.
    pub(super) fn begin(
        store: Store,
        plan: &PodPlan,
        pulls: &Pulls,
        first_step: Duration,
        notes: &Notes,
    ) -> Self {
        let asker = Asker {
            store,
            pulls: pulls.clone(),
            gate: Arc::new(Semaphore::new(AT_ONCE)),
        };
        let mut images = Self {
            asker,
            first_step,
            containers: Vec::new(),
            volumes: BTreeMap::new(),
        };
        for volume in &plan.volumes {
            images.ask(plan, volume, notes);
        }
        for (id, container) in plan.containers.iter().enumerate() {
            let mut earlier = plan.containers[..id].iter();
            let first = earlier.all(|earlier| earlier.source != container.source)
                && !plan.volumes.iter().any(|volume| is_same(volume, container));
            let early = wanted(plan, container).filter(|_| first).map(|wanted| {
                let asker = &images.asker;
                let told = asker.told(Whose::Container { id, run: 0 }, &wanted.location, notes);
                let pull = tokio::task::spawn_local(asker.ensure(wanted, &told));
                Early { pull, told }
            });
            images.containers.push(Own { early, here: None });
        }
        images
    }

    /// One more container, after the others.
    pub(super) fn add(&mut self) {
        self.containers.push(Own::default());
    }

    /// Nothing is pulled any more.
    pub(super) fn end(&mut self) {
        for container in &mut self.containers {
            container.early = None;
        }
        for volume in self.volumes.values() {
            volume.task.abort();
        }
    }

    /// What was asked for early is not what the container is to have.
    pub(super) fn forget(&mut self, id: Id) {
        self.containers[id].early = None;
    }

    /// The container's turn has come; the answer is a note.
    pub(super) fn pull(&mut self, plan: &PodPlan, id: Id, run: u32, notes: &Notes) -> AbortHandle {
        let container = &plan.containers[id];
        let mounted: Vec<&str> = plan
            .image_volumes(container)
            .map(|volume| volume.name.as_str())
            .collect();
        // The kubelet has asked for all volumes' images before: an image that the container has too is there then.
        let of_note = |volume: &&VolumePlan| {
            mounted.contains(&volume.name.as_str()) || is_same(volume, container)
        };
        let mut volumes = Vec::new();
        for volume in plan.volumes.iter().filter(of_note) {
            let known = self.volumes.get(&volume.name);
            if known.is_some_and(Shared::is_stale) {
                self.ask(plan, volume, notes);
            }
            if let Some(shared) = self.volumes.get(&volume.name) {
                let needed = mounted.contains(&volume.name.as_str());
                volumes.push((shared.came.clone(), needed));
            }
        }
        let turn = match (self.containers[id].early.take(), wanted(plan, container)) {
            (Some(early), _) => Turn::Early(early),
            (None, Some(wanted)) => {
                let whose = Whose::Container { id, run };
                let told = self.asker.told(whose, &wanted.location, notes);
                Turn::Now(Box::pin(self.asker.ensure(wanted, &told)), told)
            }
            (None, None) => Turn::Nothing,
        };
        let notes = notes.clone();
        let task = tokio::task::spawn_local(async move {
            if let Some((got, waited)) = get(volumes, turn).await {
                // Nobody listens any more when the supervisor has given up.
                let _unheard = notes.send(Note::Pulled {
                    id,
                    run,
                    got: Box::new(got),
                    waited,
                });
            }
        });
        task.abort_handle()
    }

    /// Keeps what came of a pull, and says it to the machine.
    pub(super) fn pulled(
        &mut self,
        location: Option<&Location>,
        id: Id,
        run: u32,
        got: Got,
        waited: Duration,
    ) -> Input {
        let keep = |image: ResolvedImage| {
            let pulled = outcome(location, &image, waited);
            self.containers[id].here = Some(image);
            pulled
        };
        let pulled = got.map(|image| image.map(keep));
        Input::Pulled { id, run, pulled }
    }

    /// What a container is started with, once it was pulled.
    pub(super) fn here(&self, plan: &PodPlan, id: Id) -> Here {
        let volumes = plan.image_volumes(&plan.containers[id]);
        let volumes = volumes.filter_map(|volume| {
            let image = self.volumes.get(&volume.name)?.here()?;
            Some((volume.name.clone(), image))
        });
        Here {
            own: self.containers[id].here.clone(),
            volumes: volumes.collect(),
        }
    }

    /// Asks for the image of a volume, when it is one; what was asked for before is abandoned.
    fn ask(&mut self, plan: &PodPlan, volume: &VolumePlan, notes: &Notes) {
        let VolumeKind::Image {
            image,
            location,
            pull,
        } = &volume.kind
        else {
            return;
        };
        let wanted = asked(plan, location, *pull);
        let is_mounted = plan.containers.iter().any(|container| {
            plan.image_volumes(container)
                .any(|mounted| mounted.name == volume.name)
        });
        let mut step = (!is_mounted).then_some(self.first_step);
        let (first, cap) = (self.first_step, self.first_step * PULL_STEPS_MAX);
        let (tell, came) = watch::channel(None);
        let (asker, notes) = (self.asker.clone(), notes.clone());
        let (image, location) = (image.clone(), location.clone());
        let note = |notes: &Notes, warning, reason, message| {
            let _unheard = notes.send(Note::VolumeImage {
                warning,
                reason,
                message,
            });
        };
        let task = tokio::task::spawn_local(async move {
            loop {
                let begun = Instant::now();
                let told = asker.told(Whose::Volume(image.clone()), &location, &notes);
                told.turn();
                let why = match asker.ensure(wanted.clone(), &told).await {
                    Ok(here) => {
                        let pulled = outcome(Some(&location), &here, begun.elapsed());
                        note(&notes, false, "Pulled", pulled.told(&image));
                        tell.send_replace(Some(Ok(here)));
                        return;
                    }
                    Err(error) => failure(&error, Some(image.clone())),
                };
                note(&notes, true, why.event_reason(), why.message.clone());
                let at = Instant::now();
                let is_backed_off = !why.is_never();
                tell.send_replace(Some(Err(Failed { at, why })));
                let Some(wait) = step else {
                    return;
                };
                step = Some((wait * 2).min(cap));
                sleep(first / SHOWN).await;
                if is_backed_off {
                    let message = format!("Back-off pulling image {image:?}");
                    note(&notes, false, "BackOff", message);
                }
                sleep(wait.saturating_sub(first / SHOWN)).await;
            }
        });
        let task = task.abort_handle();
        self.volumes
            .insert(volume.name.clone(), Shared { task, came });
    }
}

impl Asker {
    fn told(&self, whose: Whose, image: &Location, notes: &Notes) -> Arc<Told> {
        let shown = Box::new(self.pulls.begin(image.to_string()));
        Arc::new(Told::new(whose, notes.clone(), shown))
    }

    fn ensure(&self, wanted: Wanted, told: &Arc<Told>) -> impl Future<Output = Ensured> + use<> {
        let (store, gate) = (self.store.clone(), Arc::clone(&self.gate));
        let (told, end) = (Arc::clone(told), End(Arc::clone(told)));
        async move {
            let _end = end;
            // It is never closed.
            let _turn = gate.acquire_owned().await;
            store.ensure(wanted, told).await
        }
    }
}

/// Waits for the images of volumes, of which the container needs those marked so, and then for its own; and how long it waited for
/// that. None: the pod is ending.
async fn get(volumes: Vec<(watch::Receiver<Came>, bool)>, turn: Turn) -> Option<(Got, Duration)> {
    for (mut came, needed) in volumes {
        let came = came.wait_for(Option::is_some).await.ok()?.clone()?;
        if let Err(failed) = came
            && needed
        {
            return Some((Err(failed.why), Duration::ZERO));
        }
    }
    let begun = Instant::now();
    let ensured = match turn {
        Turn::Early(mut early) => {
            early.told.turn();
            (&mut early.pull).await.ok()?
        }
        Turn::Now(pull, told) => {
            told.turn();
            pull.await
        }
        Turn::Nothing => return Some((Ok(None), Duration::ZERO)),
    };
    let got = ensured.map(Some).map_err(|error| failure(&error, None));
    Some((got, begun.elapsed()))
}

fn wanted(plan: &PodPlan, container: &ContainerPlan) -> Option<Wanted> {
    let ImageSource::Image(location) = &container.source else {
        return None;
    };
    Some(asked(plan, location, container.pull))
}

fn asked(plan: &PodPlan, location: &Location, policy: PullPolicy) -> Wanted {
    let mut wanted = Wanted::new(location.clone(), policy);
    wanted.pull_secrets = plan.pull_secrets.clone();
    wanted
}

/// Whether a volume holds the container's own image.
fn is_same(volume: &VolumePlan, container: &ContainerPlan) -> bool {
    match (&volume.kind, &container.source) {
        (VolumeKind::Image { location, .. }, ImageSource::Image(own)) => location == own,
        _ => false,
    }
}

fn failure(error: &EnsureError, of_volume: Option<String>) -> PullFailure {
    PullFailure {
        reason: error.reason(),
        message: error.to_string(),
        of_volume,
    }
}

fn outcome(location: Option<&Location>, image: &ResolvedImage, waited: Duration) -> Pulled {
    Pulled {
        image_id: image_id(location, image),
        took: image.pulled.map(|pull| Took {
            pull,
            with_waiting: waited.max(pull),
        }),
        size_bytes: image.size_bytes,
    }
}

/// `docker.io/library/nginx@sha256:…`, or the configuration's digest of what no registry has a name for, as containerd does.
fn image_id(location: Option<&Location>, image: &ResolvedImage) -> String {
    match location.and_then(Location::reference) {
        Some(reference) => reference.at(&image.digest).to_string(),
        None => image.id.to_string(),
    }
}

/// Tells of a pull when its turn has come: it may have begun early.
struct Told {
    whose: Whose,
    notes: Notes,
    /// A registry is asked.
    pulls: AtomicBool,
    /// Its container waits for it.
    turn: AtomicBool,
    told: AtomicBool,
    /// To those who show pulls.
    shown: Box<dyn Progress>,
}

/// Whom an image is for.
#[derive(Debug)]
enum Whose {
    Container {
        id: Id,
        run: u32,
    },
    /// A volume; the image as the file has it.
    Volume(String),
}

impl Told {
    fn new(whose: Whose, notes: Notes, shown: Box<dyn Progress>) -> Self {
        Self {
            whose,
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
            let note = match &self.whose {
                Whose::Container { id, run } => Note::Input(Input::Pulling { id: *id, run: *run }),
                Whose::Volume(image) => Note::VolumeImage {
                    warning: false,
                    reason: "Pulling",
                    message: format!("Pulling image {image:?}"),
                },
            };
            let _unheard = self.notes.send(note);
        }
    }
}

impl Progress for Told {
    fn event(&self, event: Event) {
        if event == Event::Pulling {
            self.pulls.store(true, Ordering::SeqCst);
            self.tell();
        }
        self.shown.event(event);
    }

    fn end(&self) {
        self.shown.end();
    }
}

/// Shows no more of a pull when it has ended or is given up.
struct End(Arc<Told>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}
