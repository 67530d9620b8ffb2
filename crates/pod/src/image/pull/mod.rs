//! Asking for an image: from the store when it is there and the policy permits, from where it comes otherwise.
//!
//! ```text
//!   origin (registry, layout, archive)  ──▶ documents: index, manifest, configuration, each checked
//!        └─ up to 3 at once ──▶ blob: received, hashed ──▶ unpacked beside it ──▶ finished in order ──▶ named
//! ```
//!
//! It all happens on threads of its own with blocking calls: a pull is rare, needs no scheduling by the supervisor's
//! runtime, and gives all its memory back when it ends.

mod archive;
mod daemon;
mod error;
mod layers;
mod load;
mod origin;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub(super) use self::archive::Archive;
use self::daemon::Daemon;
pub(super) use self::error::PullError;
pub use self::load::{LoadError, Loaded};
use self::origin::Layout;
pub(super) use self::origin::{Origin, check_document};
use super::manifest::{ConfigFile, Descriptor, Document, INDEX_DEPTH_MAX, Manifest};
use super::registry::{Keyring, Registry};
use super::store::{Found, Lock};
use super::{
    Digest, EnsureError, Event, Inspected, Location, Platform, Progress, Reference, ResolvedImage,
    Store, StoreError,
};
use crate::plan::PullPolicy;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which image.
    pub location: Location,
    /// Whether a registry is asked. The other locations are always looked at.
    pub policy: PullPolicy,
    /// For what machine.
    pub platform: Platform,
    /// `imagePullSecrets`, each as JSON (`.dockerconfigjson` or `.dockercfg`); the user's own configuration is asked after them.
    pub pull_secrets: Vec<Vec<u8>>,
    /// `--authfile`: the configuration that is asked in place of the user's own.
    pub authfile: Option<PathBuf>,
}

impl Wanted {
    /// For this machine, without secrets.
    pub fn new(location: Location, policy: PullPolicy) -> Self {
        Self {
            location,
            policy,
            platform: Platform::host(),
            pull_secrets: Vec::new(),
            authfile: None,
        }
    }
}

/// Says that nobody waits any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    pub(super) fn check(&self) -> Result<(), PullError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(PullError::fatal("the pull was abandoned"));
        }
        Ok(())
    }

    pub(super) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Cancels when it is dropped.
struct OnDrop(Cancelled);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Store {
    /// Gives the image, unpacked: from the store when it is there and the policy permits, pulled otherwise. Runs on threads of
    /// its own, so the caller's runtime stays free and its stacks may be small; dropping the future abandons the pull.
    pub async fn ensure(
        &self,
        wanted: Wanted,
        progress: Arc<dyn Progress>,
    ) -> Result<ResolvedImage, EnsureError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (store, cancelled) = (self.clone(), Cancelled::default());
        let _abandons = OnDrop(cancelled.clone());
        let image = wanted.location.to_string();
        let run = move || {
            // Nobody waits any more: then it is nobody's.
            let _taken = sender.send(ensure(&store, &wanted, &*progress, &cancelled));
        };
        let failed = |cause: &str| EnsureError::Pull {
            image: image.clone(),
            cause: cause.to_owned(),
        };
        std::thread::Builder::new()
            .name("pull".to_owned())
            .spawn(run)
            .map_err(|error| failed(&format!("starting a thread: {error}")))?;
        match receiver.await {
            Ok(result) => result,
            Err(_) => Err(failed("the pull ended without a word")),
        }
    }

    /// Looks at an image where it is, without its layers.
    pub fn inspect_remote(
        &self,
        location: &Location,
        platform: &Platform,
    ) -> Result<Inspected, EnsureError> {
        let wanted = Wanted {
            platform: platform.clone(),
            ..Wanted::new(location.clone(), PullPolicy::Always)
        };
        let pull = Pull {
            store: self,
            wanted: &wanted,
            progress: &super::Quiet,
            cancelled: &Cancelled::default(),
        };
        let image = location.to_string();
        pull.look().map_err(|stopped| stopped.tell(image))
    }

    /// The same for a caller that has nothing else to do.
    pub fn ensure_blocking(
        &self,
        wanted: &Wanted,
        progress: &dyn Progress,
    ) -> Result<ResolvedImage, EnsureError> {
        ensure(self, wanted, progress, &Cancelled::default())
    }
}

fn ensure(
    store: &Store,
    wanted: &Wanted,
    progress: &dyn Progress,
    cancelled: &Cancelled,
) -> Result<ResolvedImage, EnsureError> {
    let image = wanted.location.to_string();
    let pull = Pull {
        store,
        wanted,
        progress,
        cancelled,
    };
    pull.run().map_err(|stopped| stopped.tell(image))
}

/// Why there is no image.
enum Stopped {
    NeverPull,
    Store(StoreError),
    Pull(PullError),
}

impl Stopped {
    fn tell(self, image: String) -> EnsureError {
        match self {
            Self::NeverPull => EnsureError::NeverPull(image),
            Self::Store(error) => EnsureError::Store {
                image,
                cause: error.to_string(),
            },
            Self::Pull(error) => EnsureError::Pull {
                image,
                cause: error.to_string(),
            },
        }
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<PullError> for Stopped {
    fn from(error: PullError) -> Self {
        Self::Pull(error)
    }
}

/// One request, on its way.
struct Pull<'a> {
    store: &'a Store,
    wanted: &'a Wanted,
    progress: &'a dyn Progress,
    cancelled: &'a Cancelled,
}

/// What an origin has for a name.
pub(super) struct Offered {
    /// What the name stands for.
    pub(super) named: Descriptor,
    /// The documents on the way to the manifest, and it: digest and bytes.
    pub(super) documents: Vec<(Digest, Vec<u8>)>,
    pub(super) digest: Digest,
    pub(super) manifest: Manifest,
    pub(super) config: ConfigFile,
}

impl Pull<'_> {
    fn run(&self) -> Result<ResolvedImage, Stopped> {
        // Nothing is removed until the image's own lock is held.
        let _hold = self.store.hold()?;
        match &self.wanted.location {
            Location::Registry(reference) => self.registry(reference),
            Location::Layout { dir, tag } => {
                let layout = Layout::open(dir)?;
                let named = layout.choose(tag.as_deref())?;
                self.local(&layout, named)
            }
            Location::Archive { file, name } => {
                let archive = Archive::open(file, self.store)?;
                let named = archive.choose(name.as_deref())?;
                self.local(&archive, named)
            }
            Location::Daemon(reference) => self.daemon(reference, &Daemon::of_environment()?),
        }
    }

    fn registry(&self, reference: &Reference) -> Result<ResolvedImage, Stopped> {
        let here = match self.store.named(reference)? {
            Some(named) => self.store.found(&named, &self.wanted.platform)?,
            None => None,
        };
        match (self.wanted.policy, here) {
            (PullPolicy::Never | PullPolicy::IfNotPresent, Some(found))
                if self.is_whole(&found) =>
            {
                self.resolved(&found, None)
            }
            (PullPolicy::Never, _) => Err(Stopped::NeverPull),
            (_, here) => self.ask_registry(reference, here),
        }
    }

    /// As the kubelet says it: pulled, even when it turns out that all is here.
    fn ask_registry(
        &self,
        reference: &Reference,
        here: Option<Found>,
    ) -> Result<ResolvedImage, Stopped> {
        let started = Instant::now();
        self.progress.event(Event::Pulling);
        let wanted = self.wanted;
        let keyring = Keyring::new(&wanted.pull_secrets, wanted.authfile.as_deref())
            .map_err(PullError::fatal)?;
        let registry = Registry::new(reference, &keyring)?;
        if let Some(found) = here.filter(|found| self.is_whole(found))
            && registry.digest()?.as_ref() == Some(&found.named.digest)
        {
            return self.resolved(&found, Some(started));
        }
        let (named, bytes) = registry.named()?;
        let offered = self.read_documents(&registry, named, Some(bytes))?;
        let found = self.take(&registry, offered)?;
        self.store.name(reference, &found.named)?;
        self.resolved(&found, Some(started))
    }

    /// The documents of an image, from where it is.
    fn look(&self) -> Result<Inspected, Stopped> {
        let offered = match &self.wanted.location {
            Location::Registry(reference) => {
                let keyring = Keyring::new(&[], self.wanted.authfile.as_deref());
                let registry = Registry::new(reference, &keyring.map_err(PullError::fatal)?)?;
                let (named, bytes) = registry.named()?;
                self.read_documents(&registry, named, Some(bytes))?
            }
            Location::Layout { dir, tag } => {
                let layout = Layout::open(dir)?;
                let named = layout.choose(tag.as_deref())?;
                self.read_documents(&layout, named, None)?
            }
            Location::Archive { file, name } => {
                self.store.prepare()?;
                let archive = Archive::open(file, self.store)?;
                let named = archive.choose(name.as_deref())?;
                self.read_documents(&archive, named, None)?
            }
            Location::Daemon(reference) => {
                self.store.prepare()?;
                let archive = Daemon::of_environment()?.save(reference, self.store)?;
                let named = archive.choose(None)?;
                self.read_documents(&archive, named, None)?
            }
        };
        let config = offered.documents.last().map(|(_, bytes)| bytes.as_slice());
        let layers: u64 = offered.manifest.layers.iter().map(|layer| layer.size).sum();
        Ok(Inspected {
            names: Vec::new(),
            digest: offered.named.digest.clone(),
            manifest_digest: offered.digest.clone(),
            size_bytes: layers + offered.manifest.config.size,
            config_json: serde_json::from_slice(config.unwrap_or_default()).unwrap_or_default(),
            manifest: offered.manifest,
            config: offered.config,
        })
    }

    /// From a Docker Engine: the image that has the name there now.
    fn daemon(&self, reference: &Reference, daemon: &Daemon) -> Result<ResolvedImage, Stopped> {
        let id = daemon.id(reference)?;
        let source = self.wanted.location.to_string();
        if let Some(named) = self.store.sourced(&source)?
            && let Some(found) = self.store.found(&named, &self.wanted.platform)?
            && found.manifest.config.digest == id
            && self.is_whole(&found)
        {
            return self.resolved(&found, None);
        }
        let archive = daemon.save(reference, self.store)?;
        let named = archive.choose(None)?;
        self.local(&archive, named)
    }

    /// From this machine: what is there is what is meant, whatever the policy.
    fn local(&self, origin: &dyn Origin, named: Descriptor) -> Result<ResolvedImage, Stopped> {
        let started = Instant::now();
        let source = self.wanted.location.to_string();
        if let Some(found) = self.store.found(&named, &self.wanted.platform)?
            && self.is_whole(&found)
        {
            self.store.note_source(&source, &found.named)?;
            return self.resolved(&found, None);
        }
        self.progress.event(Event::Pulling);
        let offered = self.read_documents(origin, named, None)?;
        let found = self.take(origin, offered)?;
        self.store.note_source(&source, &found.named)?;
        self.resolved(&found, Some(started))
    }

    /// From what a name stands for to the image's configuration.
    fn read_documents(
        &self,
        origin: &dyn Origin,
        mut named: Descriptor,
        mut first: Option<Vec<u8>>,
    ) -> Result<Offered, PullError> {
        let mut documents = Vec::new();
        let mut descriptor = named.clone();
        for _ in 0..INDEX_DEPTH_MAX {
            self.cancelled.check()?;
            let bytes = match first.take() {
                Some(bytes) => bytes,
                None => origin.document(&descriptor)?,
            };
            let said = Some(descriptor.media_type.as_str());
            let document = Document::parse(&bytes, said)
                .map_err(|error| PullError::fatal(format!("{}: {error}", descriptor.digest)))?;
            documents.push((descriptor.digest.clone(), bytes));
            if documents.len() == 1 {
                // A registry may call it something that is no use to who reads the store.
                document.media_type().clone_into(&mut named.media_type);
            }
            match document {
                Document::Index(index) => {
                    let chosen = index.choose(&self.wanted.platform);
                    descriptor = chosen.map_err(PullError::fatal)?.clone();
                }
                Document::Manifest(manifest) => {
                    let bytes = origin.document(&manifest.config)?;
                    let config = ConfigFile::parse(&bytes).map_err(|error| {
                        PullError::fatal(format!("{}: {error}", manifest.config.digest))
                    })?;
                    documents.push((manifest.config.digest.clone(), bytes));
                    return Ok(Offered {
                        named,
                        documents,
                        digest: descriptor.digest,
                        manifest,
                        config,
                    });
                }
            }
        }
        Err(PullError::fatal(
            "an index of indexes of indexes: that is too deep",
        ))
    }

    /// Receives and unpacks the layers, and stores the documents. The image has no name yet.
    fn take(&self, origin: &dyn Origin, offered: Offered) -> Result<Found, Stopped> {
        let Offered {
            named,
            documents,
            digest,
            manifest,
            config,
        } = offered;
        let wanted = &self.wanted.platform;
        let there = config.platform();
        if !there.architecture.is_empty() && wanted.rank(&there).is_none() {
            let cause = format!("the image is for {there}, not for {wanted}");
            return Err(PullError::fatal(cause).into());
        }
        layers::take(
            self.store,
            origin,
            &manifest,
            &config,
            self.progress,
            self.cancelled,
        )?;
        let manifest_bytes = documents.iter().find(|(of, _)| *of == digest);
        let manifest_bytes = manifest_bytes.map_or(0, |(_, bytes)| bytes.len() as u64);
        for (digest, bytes) in &documents {
            self.store.put_document(digest, bytes)?;
        }
        Ok(Found {
            named,
            digest,
            manifest,
            manifest_bytes,
            config,
        })
    }

    /// All its layers are unpacked.
    fn is_whole(&self, found: &Found) -> bool {
        let mut chain_ids = found.config.chain_ids().into_iter();
        chain_ids.all(|chain_id| self.store.layer(&chain_id).is_some())
    }

    fn resolved(&self, found: &Found, started: Option<Instant>) -> Result<ResolvedImage, Stopped> {
        let lease = self.store.lease(&found.digest)?;
        let mut layers: Vec<_> = found
            .config
            .chain_ids()
            .iter()
            .filter_map(|chain_id| self.store.layer(chain_id))
            .collect();
        layers.reverse();
        if layers.is_empty() {
            let root = self.store.root();
            layers.push(self.store.empty_layer().map_err(StoreError::io(root))?);
        }
        Ok(ResolvedImage {
            digest: found.digest.clone(),
            id: found.manifest.config.digest.clone(),
            platform: found.config.platform(),
            layers,
            user_xattrs: !super::owns_machine(),
            config: found.config.config.clone().unwrap_or_default().into(),
            size_bytes: found.size_bytes(),
            pulled: started.map(|started| started.elapsed()),
            lease: Arc::new(lease.into_fd()),
        })
    }
}

impl Store {
    /// Says that an image is in use, as long as the descriptor is open.
    fn lease(&self, manifest: &Digest) -> Result<Lock, StoreError> {
        let path = self.lease_path(manifest);
        Lock::shared(&path).map_err(StoreError::io(&path))
    }
}
