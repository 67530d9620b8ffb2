//! Where a pod's supervisor keeps what it must keep, and who may.
//!
//! ```text
//!   RUN/pods/KEY.lock      held by the supervisor while it lives; its pid is in it
//!   RUN/pods/KEY/          state.json; control.sock; shared/ (pod.json, seen by topz)
//!   RUN/addresses/         one locked file for each pod's address; in /run/podkit for all that share the machine's network
//!   LIB/seccomp/           profiles for localhostProfile, whoever puts them there
//!   LIB/pods/KEY/          all that containers write to, closed to others: etc/ (hosts, hostname, resolv.conf);
//!                          volumes/ on disk; roots/CONTAINER/ (what it writes to its root file system);
//!                          messages/CONTAINER (its termination message); logs/CONTAINER/RESTART.log; supervisor.log;
//!                          ended.json (of a pod that has ended)
//!   LIB/claims/NAMESPACE/NAME/   what a persistentVolumeClaim holds; stays
//! ```
//!
//! KEY is the pod's name in the namespace `default`, else `NAMESPACE_NAME` ([`crate::plan::pod_key`]).
//! RUN is `/run/podkit` and LIB `/var/lib/podkit` for root, see [`place`]; `--state-dir DIR` puts both below DIR. The lock goes with its process:
//! whoever finds it free knows that the supervisor is dead, and may take away what it left. Nothing stays after a
//! stop, not even an empty directory of podkit's. Only of a detached pod that comes to its end by itself (or whose supervisor is
//! killed) status, events and logs stay, since nobody may have seen them: until it is stopped, or run again.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::place;
use crate::sandbox::in_user_namespace;
use crate::volume::remove_tree;

/// A lock that is held for a moment only is waited for.
const CLAIM_TRIES: u32 = 5;
const CLAIM_PAUSE: Duration = Duration::from_millis(10);

/// The two directories.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    run: PathBuf,
    lib: PathBuf,
    addresses: PathBuf,
    /// Directories to take away when they are empty, innermost first.
    ours: Vec<PathBuf>,
}

impl Layout {
    pub(crate) fn new(state_dir: Option<&Path>) -> Self {
        let (run, lib) = (place::run(state_dir), place::lib(state_dir));
        let ours = vec![
            run.join("pods"),
            run.join("addresses"),
            run.clone(),
            lib.join("pods"),
            lib.clone(),
        ];
        Self {
            addresses: run.join("addresses"),
            run,
            lib,
            ours,
        }
    }

    /// The addresses of root's pods are the machine's own, wherever the rest of the state is.
    pub(super) fn with_machine_addresses(mut self) -> Self {
        let run = PathBuf::from("/run/podkit");
        // Root of a user namespace has a network of its own.
        let machines = rustix::process::geteuid().is_root() && !in_user_namespace();
        if machines && self.run != run {
            self.addresses = run.join("addresses");
            self.ours.extend([self.addresses.clone(), run]);
        }
        self
    }

    /// Where the files of `localhostProfile` are, as the kubelet has them below its own root directory.
    pub(super) fn seccomp(&self) -> PathBuf {
        self.lib.join("seccomp")
    }

    /// Where the pods' addresses are held.
    pub(super) fn addresses(&self) -> PathBuf {
        self.addresses.clone()
    }

    /// Where what belongs to a pod is.
    pub(crate) fn paths(&self, pod: &str) -> Paths {
        Paths {
            run: self.run.join("pods").join(pod),
            lib: self.lib.join("pods").join(pod),
            claims: self.lib.join("claims"),
        }
    }

    /// Makes this process the supervisor of `pod`. What an earlier one left is gone then.
    pub(super) fn claim(&self, pod: &str) -> Result<Claim, ClaimError> {
        let claim = self.take(pod)?;
        let error = |error| ClaimError::Io(claim.paths.run.clone(), error);
        claim.clear().map_err(error)?;
        let paths = claim.paths();
        for (dir, mode) in [
            // Before what is in it: a container writes to files of the machine there, set-user-id programs if it likes, and
            // nobody else may reach them.
            (paths.lib.clone(), 0o700),
            (paths.etc(), 0o755),
            (paths.shared(), 0o755),
        ] {
            make_dir(&dir, mode).map_err(error)?;
        }
        Ok(claim)
    }

    /// The same without touching what there is of it: dropping the claim takes it away.
    pub(super) fn take(&self, pod: &str) -> Result<Claim, ClaimError> {
        let path = self.lock_path(pod);
        place::secure(&self.run).map_err(|error| ClaimError::Io(self.run.clone(), error))?;
        let error = |error| ClaimError::Io(path.clone(), error);
        let mut tries = 0;
        let mut file = loop {
            match self.lock(&path, true).map_err(error)? {
                Found::Ours(file) => break file,
                // Somebody may only have looked whether it is free, see `dead`.
                Found::Held | Found::Absent if tries < CLAIM_TRIES => tries += 1,
                Found::Held | Found::Absent => {
                    let holder = std::fs::read_to_string(&path).unwrap_or_default();
                    let pod = pod.to_owned();
                    let holder = holder.trim().to_owned();
                    return Err(ClaimError::Runs { pod, holder });
                }
            }
            std::thread::sleep(CLAIM_PAUSE);
        };
        file.set_len(0).map_err(error)?;
        writeln!(file, "{}", std::process::id()).map_err(error)?;
        Ok(Claim {
            layout: self.clone(),
            lock: path.clone(),
            paths: self.paths(pod),
            keep: Cell::new(false),
            _file: file,
        })
    }

    /// The directories in which each pod has an entry.
    pub(crate) fn pods(&self) -> [PathBuf; 2] {
        [self.run.join("pods"), self.lib.join("pods")]
    }

    /// All pods of which there is something.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for pods in self.pods() {
            for entry in std::fs::read_dir(pods).into_iter().flatten().flatten() {
                if let Ok(name) = entry.file_name().into_string() {
                    let name = name.strip_suffix(".lock").unwrap_or(&name);
                    names.insert(name.to_owned());
                }
            }
        }
        names
    }

    /// Pods whose supervisors have died and left something, other than what is meant to stay.
    pub(super) fn dead(&self) -> Vec<String> {
        let free = |pod: &String| match OpenOptions::new().read(true).open(self.lock_path(pod)) {
            Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        let died = |pod: &String| {
            let paths = self.paths(pod);
            paths.run.exists() || !paths.ended().exists()
        };
        let names = self.names().into_iter();
        names.filter(|pod| free(pod) && died(pod)).collect()
    }

    /// Takes the address files of dead supervisors away.
    pub(super) fn sweep_addresses(&self) {
        for entry in std::fs::read_dir(self.addresses())
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Ok(Found::Ours(_held)) = self.lock(&entry.path(), false) {
                // While it is locked: so it is nobody else's.
                discard(std::fs::remove_file(entry.path()), &entry.path());
            }
        }
    }

    pub(crate) fn lock_path(&self, pod: &str) -> PathBuf {
        self.run.join("pods").join(format!("{pod}.lock"))
    }

    /// Locks the file that is at `path` *now*: the last holder may remove it between the open and the lock.
    fn lock(&self, path: &Path, create: bool) -> io::Result<Found> {
        loop {
            if create && let Some(dir) = path.parent() {
                make_dir(dir, 0o755)?;
            }
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(create).mode(0o644);
            let file = match options.open(path) {
                Ok(file) => file,
                // Another supervisor took the empty directory away.
                Err(error) if create && error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
                Err(error) => return Err(error),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Found::Held),
                Err(error) => return Err(error.into()),
            }
            let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
            let locked = file.metadata().map(id)?;
            if std::fs::metadata(path)
                .map(id)
                .is_ok_and(|now| now == locked)
            {
                return Ok(Found::Ours(file));
            }
        }
    }
}

enum Found {
    Ours(File),
    Held,
    Absent,
}

/// Why a pod can't be started here.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    #[error("pod {} runs already (its supervisor is process {holder}): stop it first", crate::plan::of_pod_key(pod).1)]
    Runs { pod: String, holder: String },
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

/// This process is the pod's supervisor, until this is dropped; then nothing of it is left on disk.
#[derive(Debug)]
pub(super) struct Claim {
    layout: Layout,
    lock: PathBuf,
    paths: Paths,
    /// Its status and its logs stay.
    keep: Cell<bool>,
    _file: File,
}

/// Where what belongs to a pod is.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    run: PathBuf,
    lib: PathBuf,
    claims: PathBuf,
}

impl Paths {
    /// `hosts`, `hostname` and `resolv.conf`.
    pub(super) fn etc(&self) -> PathBuf {
        self.lib.join("etc")
    }

    /// What containers may see of the pod's state: `pod.json`.
    pub(super) fn shared(&self) -> PathBuf {
        self.run.join("shared")
    }

    /// The run directory.
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// `state.json`.
    pub(crate) fn state(&self) -> PathBuf {
        self.run.join("state.json")
    }

    /// `ended.json`.
    pub(crate) fn ended(&self) -> PathBuf {
        self.lib.join("ended.json")
    }

    /// The containers' logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.lib.join("logs")
    }

    /// What the supervisor of a detached pod has to say.
    pub(super) fn supervisor_log(&self) -> PathBuf {
        self.lib.join("supervisor.log")
    }

    /// Whether there is anything.
    pub(crate) fn exist(&self) -> bool {
        self.run.exists() || self.lib.exists()
    }

    /// Volumes on disk.
    pub(super) fn volumes(&self) -> PathBuf {
        self.lib.join("volumes")
    }

    /// Claims, which outlive every pod.
    pub(super) fn claims(&self) -> PathBuf {
        self.claims.clone()
    }

    /// The files of the containers' termination messages.
    pub(super) fn messages(&self) -> PathBuf {
        self.lib.join("messages")
    }

    /// What a container writes to its root file system.
    pub(super) fn scratch(&self, container: &str) -> PathBuf {
        self.lib.join("roots").join(container)
    }
}

impl Claim {
    /// What it is part of.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Lets status, events and logs stay when this is dropped. (`ended.json`: `{"pod":…,"events":[…]}`)
    pub(super) fn keep(&self, record: &serde_json::Value) -> io::Result<()> {
        replace_private(&self.paths.ended(), record.to_string().as_bytes())?;
        self.keep.set(true);
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        remove(&self.paths.run)?;
        if !self.keep.get() {
            return remove(&self.paths.lib);
        }
        for entry in std::fs::read_dir(&self.paths.lib)? {
            let path = entry?.path();
            let stays = [
                self.paths.ended(),
                self.paths.logs(),
                self.paths.supervisor_log(),
            ];
            if !stays.contains(&path) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        discard(self.clear(), &self.paths.run);
        discard(std::fs::remove_file(&self.lock), &self.lock);
        for dir in &self.layout.ours {
            // Not empty: another pod's.
            let _shared = std::fs::remove_dir(dir);
        }
    }
}

/// Makes a directory of this mode, whatever the umask, and those above it.
fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    loop {
        match builder.create(dir) {
            // Its parent went away in between, with another pod.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(()) => return std::fs::set_permissions(dir, Permissions::from_mode(mode)),
        }
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    remove_tree(dir).map_err(|error| {
        io::Error::new(error.kind(), format!("removing {}: {error}", dir.display()))
    })
}

fn discard(result: io::Result<()>, path: &Path) {
    if let Err(error) = result {
        tracing::warn!(path = %path.display(), %error, "could not be removed");
    }
}

/// Writes a file so that a reader sees the old or the new, whole.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, bytes)?;
    std::fs::rename(&next, path)
}

/// The same for what may hold secrets: only for the owner.
pub(super) fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&next)?.write_all(bytes)?;
    std::fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_claimed_once_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path()));
        let claim = layout.claim("web").unwrap();
        std::fs::create_dir(claim.paths().volumes()).unwrap();
        std::fs::write(claim.paths().volumes().join("file"), "x").unwrap();
        replace(&claim.paths().state(), b"{}").unwrap();
        let again = layout.claim("web").unwrap_err().to_string();
        let me = std::process::id();
        assert_eq!(
            again,
            format!("pod web runs already (its supervisor is process {me}): stop it first")
        );
        let other = layout.claim("other").unwrap();
        drop(claim);
        assert!(layout.dead().is_empty());
        drop(other);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_dead_supervisor_left_is_found_and_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path()));
        let pods = dir.path().join("run/pods");
        std::fs::create_dir_all(pods.join("web/etc")).unwrap();
        std::fs::write(pods.join("web.lock"), "123\n").unwrap();
        std::fs::create_dir_all(dir.path().join("lib/pods/web/volume")).unwrap();
        std::fs::create_dir_all(layout.addresses()).unwrap();
        std::fs::write(layout.addresses().join("10.87.0.2"), "").unwrap();
        assert_eq!(layout.dead(), ["web"]);
        layout.sweep_addresses();
        let claim = layout.claim("web").unwrap();
        assert!(!dir.path().join("lib/pods/web/volume").exists());
        drop(claim);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_kept_of_an_ended_pod_is_its_status_and_its_logs() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path()));
        let claim = layout.claim("web").unwrap();
        let paths = claim.paths().clone();
        std::fs::create_dir_all(paths.logs().join("app")).unwrap();
        std::fs::create_dir_all(paths.volumes()).unwrap();
        claim.keep(&serde_json::json!({"pod": {}})).unwrap();
        drop(claim);
        assert!(paths.logs().join("app").exists() && paths.ended().exists());
        assert!(!paths.volumes().exists() && !dir.path().join("run").exists());
        assert!(layout.dead().is_empty());
        assert!(layout.names().contains("web"));
        // A new one, or a stop, takes it away.
        drop(layout.claim("web").unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_reboot_left_is_found_too() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path()));
        std::fs::create_dir_all(dir.path().join("lib/pods/web/logs")).unwrap();
        assert_eq!(layout.dead(), ["web"]);
        drop(layout.take("web").unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
