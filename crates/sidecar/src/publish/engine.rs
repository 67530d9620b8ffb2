//! The engine: one place, its versions, and the way of a new one into force.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode as Bits, OFlags, flock, open};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::action::Context;
use super::params::PublishParams;
use super::place::{Place, write_whole};
use super::tree;

/// Where and how.
#[derive(Debug, Clone)]
pub struct PublishSettings {
    /// Where.
    pub place: Place,
    /// How.
    pub params: PublishParams,
}

/// Publishes versions to one place. There is one engine for a place, over all processes.
#[derive(Debug)]
pub struct Engine {
    settings: PublishSettings,
    store: PathBuf,
    /// Locked for as long as it is held.
    _lock: OwnedFd,
    /// Of the next staged directory.
    count: u64,
    /// A version that a former process left unconfirmed was taken back.
    put_back: Option<String>,
}

/// A directory to fill. Removed again unless it is published.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    kept: bool,
}

impl Staged {
    /// Where the files go.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// A version that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its name in the store.
    pub id: String,
    /// Its files.
    pub files: usize,
}

/// The step that refused a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// It is empty, lost too much, or there is something in its way.
    Guard,
    /// `--validate`.
    Validate,
    /// The file system.
    Write,
    /// `--reload`.
    Reload,
    /// `--confirm`.
    Confirm,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Guard,
        Self::Validate,
        Self::Write,
        Self::Reload,
        Self::Confirm,
    ];

    /// The word for logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Validate => "validate",
            Self::Write => "write",
            Self::Reload => "reload",
            Self::Confirm => "confirm",
        }
    }
}

/// What was done about a version that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Back {
    /// Nobody ever saw it.
    Unseen,
    /// The former version is in force, and was reloaded.
    RolledBack(String),
    /// The former version is in force, and its reload failed: an application that does not run gets it when it starts.
    NotReloaded(String, String),
    /// There was none: nothing is published.
    Withdrawn,
    /// That failed too.
    Failed(String),
}

impl fmt::Display for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unseen => f.write_str("refused; what is published stays"),
            Self::RolledBack(old) => write!(f, "refused; {old} is back"),
            Self::NotReloaded(old, why) => {
                write!(f, "refused; {old} is back, its reload failed: {why}")
            }
            Self::Withdrawn => f.write_str("refused; nothing is published"),
            Self::Failed(why) => write!(f, "refused, and the former version is not back: {why}"),
        }
    }
}

/// Why a version is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", step.word())]
pub struct Refused {
    /// Where it ended.
    pub step: Step,
    /// Why.
    pub why: String,
    /// And then.
    pub back: Back,
    /// It was not judged at all, since who was to judge it is not there now: it may be taken in a moment.
    pub again: bool,
}

impl Refused {
    /// Nobody saw it.
    pub fn unseen(step: Step, why: impl Into<String>) -> Self {
        Self {
            step,
            why: why.into(),
            back: Back::Unseen,
            again: false,
        }
    }
}

/// What a swap is about to do; written before it, removed once it is confirmed.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    new: String,
    new_inode: u64,
    old: Option<String>,
    /// In place, of the directory that people look at.
    old_inode: Option<u64>,
    /// It must not stay unless it was confirmed.
    confirm: bool,
}

const JOURNAL: &str = "journal";
/// Begins the names of staged directories.
const STAGED: &str = "new-";
/// How long another process may have the place while this one starts.
const LOCKED: Duration = Duration::from_secs(1);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(50);

impl Engine {
    /// Opens the place, and ends what a process that was killed had begun. An error is one line.
    pub fn open(mut settings: PublishSettings) -> Result<Self, String> {
        settings.place = settings
            .place
            .absolute()
            .map_err(|error| error.to_string())?;
        let store = settings.place.store();
        let failed =
            |error: io::Error| format!("{} can't be published to ({error})", store.display());
        if let Place::InPlace(dir) = &settings.place
            && is_mount(dir)
        {
            return Err(format!(
                "{} is the root of a volume, which can't be exchanged; expected a directory below it",
                dir.display()
            ));
        }
        fs::create_dir_all(&store).map_err(failed)?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let lock = open(store.join("lock"), flags, Bits::from_raw_mode(0o600))
            .map_err(|error| failed(error.into()))?;
        // A process that was killed has it for a moment longer in what it was about to start.
        let patience = Instant::now() + LOCKED;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if Instant::now() < patience => std::thread::sleep(AGAIN),
                Err(Errno::WOULDBLOCK) => {
                    let place = settings.place.path().display();
                    return Err(format!("another process publishes to {place}"));
                }
                done => break done.map_err(|error| failed(error.into()))?,
            }
        }
        let mut engine = Self {
            settings,
            store: store.clone(),
            _lock: lock,
            count: 0,
            put_back: None,
        };
        engine.recover().map_err(failed)?;
        Ok(engine)
    }

    /// The present version's name, if there is one.
    pub fn current(&self) -> Option<String> {
        self.settings.place.current()
    }

    /// Where the files of the present version are.
    pub fn current_files(&self) -> Option<PathBuf> {
        Some(self.settings.place.files(&self.current()?))
    }

    /// Where versions are, staged and published.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Where people look.
    pub fn place(&self) -> &Path {
        self.settings.place.path()
    }

    /// When `open` had to take back what was never confirmed, the application may have loaded it: reloads, and returns a line
    /// that says so.
    pub fn resume(&mut self) -> Option<String> {
        let line = self.put_back.take()?;
        match self.current_files().map(|tree| self.reload(&tree)) {
            Some(Err(why)) => Some(format!("{line}; its reload failed: {why}")),
            _ => Some(line),
        }
    }

    /// A fresh directory on the same file system.
    pub fn stage(&mut self) -> Result<Staged, Refused> {
        self.count += 1;
        let path = self.store.join(format!("{STAGED}{}", self.count));
        let made = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir(&path),
        };
        made.map_err(|error| Refused::unseen(Step::Write, self.unwritten(&error)))?;
        Ok(Staged { path, kept: false })
    }

    /// Puts what was staged into force, or leaves (or puts back) the former version and says why. `version` becomes a part of
    /// its name.
    pub fn publish(&mut self, mut staged: Staged, version: &str) -> Result<Published, Refused> {
        let params = &self.settings.params;
        let write = |error: io::Error| Refused::unseen(Step::Write, self.unwritten(&error));
        let files = self.guard(&staged.path)?;
        tree::own(&staged.path, params.chown, params.chmod).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => "; --chown to another user needs CAP_CHOWN",
                _ => "",
            };
            Refused::unseen(Step::Write, format!("owner and mode: {error}{hint}"))
        })?;
        let (tree, timeout) = (staged.path.as_path(), params.action_timeout);
        for action in &params.validate {
            let done = action.run(Context {
                tree,
                agent: &params.agent_socket,
                timeout,
            });
            done.map_err(|error| Refused {
                again: error.away,
                ..Refused::unseen(Step::Validate, error.why)
            })?;
        }
        tree::sync(&staged.path).map_err(write)?;
        let old = self.current();
        let id = self.name(version).map_err(write)?;
        let journal = Journal {
            new_inode: fs::metadata(&staged.path).map_err(write)?.ino(),
            new: id.clone(),
            old_inode: self.settings.place.inode(),
            old: old.clone(),
            confirm: !params.reload.is_empty() || !params.confirm.is_empty(),
        };
        fs::rename(&staged.path, self.store.join(&id)).map_err(write)?;
        staged.path = self.store.join(&id);
        // Where there is nothing to end after a crash, the version's own name only must be on the disk before the link to it.
        let exchanged = matches!(self.settings.place, Place::InPlace(_));
        if journal.confirm || exchanged {
            let line = serde_json::to_vec(&journal).expect("a journal is JSON");
            write_whole(&self.store, JOURNAL, &line).map_err(write)?;
        } else {
            let store = fs::File::open(&self.store);
            store.and_then(|store| store.sync_all()).map_err(write)?;
        }
        if let Err(error) = self.switch(&id, old.as_deref()) {
            // Some of it may be done; the journal knows.
            staged.kept = true;
            let why = self.unwritten(&error);
            let back = self.back(&id, old.as_deref());
            return Err(Refused {
                back,
                ..Refused::unseen(Step::Write, why)
            });
        }
        staged.kept = true;
        if let Err((step, why)) = self.taken(&id) {
            let back = match self.back(&id, old.as_deref()) {
                // It reached the application neither time: that has the former version.
                Back::NotReloaded(old, again) if again == why => Back::RolledBack(old),
                back => back,
            };
            return Err(Refused {
                back,
                ..Refused::unseen(step, why)
            });
        }
        self.forget().map_err(write)?;
        self.clean();
        Ok(Published { id, files })
    }

    fn unwritten(&self, error: &io::Error) -> String {
        format!("{} can't be written ({error})", self.place().display())
    }

    /// The number of files, when they may be published.
    fn guard(&self, staged: &Path) -> Result<usize, Refused> {
        let refused = |why: String| Err(Refused::unseen(Step::Guard, why));
        let write = |error: io::Error| Refused::unseen(Step::Write, self.unwritten(&error));
        let files = tree::files(staged).map_err(write)?;
        if files.is_empty() {
            return refused("the source has no files".to_owned());
        }
        if let Some(why) = self.settings.place.obstacle(staged) {
            return refused(why);
        }
        let Some(current) = self.current_files() else {
            return Ok(files.len());
        };
        let before = tree::files(&current).map_err(write)?;
        let gone = before.difference(&files).count();
        let most = self.settings.params.max_vanish;
        if gone * 100 > before.len() * usize::from(most.0) {
            let example = before.difference(&files).next();
            let example = example
                .map(|path| path.display().to_string())
                .unwrap_or_default();
            return refused(format!(
                "{gone} of {} files vanished ({example}, …), more than --max-vanish {}%",
                before.len(),
                most.0
            ));
        }
        Ok(files.len())
    }

    /// A name that sorts behind all others.
    fn name(&self, version: &str) -> io::Result<String> {
        let last = self.versions()?.into_iter().chain(self.current()).max();
        let last = last.and_then(|id| number(&id)).unwrap_or(0);
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let word: String = version.chars().filter(|c| good(*c)).take(40).collect();
        Ok(format!("{:08}-{word}", last + 1))
    }

    /// The versions in the store.
    fn versions(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.store)? {
            let name = entry?.file_name();
            found.extend(
                name.to_str()
                    .filter(|name| number(name).is_some())
                    .map(str::to_owned),
            );
        }
        Ok(found)
    }

    fn switch(&self, new: &str, old: Option<&str>) -> io::Result<()> {
        let place = &self.settings.place;
        place.swap(new, old)?;
        place.show()?;
        // The rename itself must outlive a loss of power too.
        let around = match place {
            Place::Data(dir) => Some(dir.as_path()),
            Place::Link { link, .. } => link.parent(),
            Place::InPlace(dir) => dir.parent(),
        };
        around.map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    }

    /// Whether the application took the version.
    fn taken(&self, id: &str) -> Result<(), (Step, String)> {
        let tree = self.settings.place.files(id);
        self.reload(&tree).map_err(|why| (Step::Reload, why))?;
        self.confirm(&tree).map_err(|why| (Step::Confirm, why))
    }

    fn reload(&self, tree: &Path) -> Result<(), String> {
        let params = &self.settings.params;
        let context = Context {
            tree,
            agent: &params.agent_socket,
            timeout: params.action_timeout,
        };
        let mut actions = params.reload.iter();
        actions.try_for_each(|action| action.run(context).map_err(|error| error.why))
    }

    fn confirm(&self, tree: &Path) -> Result<(), String> {
        let params = &self.settings.params;
        let end = Instant::now() + params.confirm_timeout;
        for action in &params.confirm {
            loop {
                let timeout = end.saturating_duration_since(Instant::now()).max(AGAIN);
                let context = Context {
                    tree,
                    agent: &params.agent_socket,
                    timeout,
                };
                match action.run(context) {
                    Ok(()) => break,
                    Err(error) if Instant::now() + AGAIN >= end => {
                        let patience = params.confirm_timeout.as_millis();
                        return Err(format!("not within {patience} ms: {error}"));
                    }
                    Err(_) => std::thread::sleep(AGAIN),
                }
            }
        }
        Ok(())
    }

    /// Puts `old` back into force instead of `new`, and reloads it.
    fn back(&self, new: &str, old: Option<&str>) -> Back {
        let done = match old {
            Some(old) => self.put(new, old),
            None => self.withdraw(new),
        };
        let done = done
            .and_then(|()| self.forget())
            .map_err(|error| error.to_string());
        self.clean();
        match (done, old) {
            (Err(why), _) => Back::Failed(why),
            (Ok(()), None) => Back::Withdrawn,
            (Ok(()), Some(old)) => match self.reload(&self.settings.place.files(old)) {
                Ok(()) => Back::RolledBack(old.to_owned()),
                Err(why) => Back::NotReloaded(old.to_owned(), why),
            },
        }
    }

    /// `old` is in force afterwards, whether `new` was or not; `new` is gone.
    fn put(&self, new: &str, old: &str) -> io::Result<()> {
        self.settle(new, Some(old))?;
        if self.current().as_deref() == Some(new) {
            self.switch(old, Some(new))?;
        }
        self.settings.place.show()?;
        self.remove(new)
    }

    fn withdraw(&self, new: &str) -> io::Result<()> {
        self.settle(new, None)?;
        if self.current().as_deref() == Some(new) {
            self.settings.place.withdraw(new)?;
        }
        self.remove(new)
    }

    fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.store.join(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// In place: what an exchange that did not come to its end left under the wrong name.
    fn settle(&self, new: &str, old: Option<&str>) -> io::Result<()> {
        let place = &self.settings.place;
        let Some(journal) = self.journal().filter(|journal| journal.new == new) else {
            return Ok(());
        };
        let (Place::InPlace(_), Some(inode)) = (place, place.inode()) else {
            return Ok(());
        };
        if inode == journal.new_inode {
            if self.store.join(new).exists() {
                place.put_away(new, old)?;
            }
            return place.note(new);
        }
        // On the way back: the old one is there again, the new one may still have its name.
        let Some(old) = old.filter(|_| Some(inode) == journal.old_inode) else {
            return Ok(());
        };
        if self.store.join(old).exists() {
            place.put_away(old, Some(new))?;
        }
        place.note(old)
    }

    fn journal(&self) -> Option<Journal> {
        serde_json::from_slice(&fs::read(self.store.join(JOURNAL)).ok()?).ok()
    }

    fn forget(&self) -> io::Result<()> {
        match fs::remove_file(self.store.join(JOURNAL)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Ends what a killed process had begun.
    fn recover(&mut self) -> io::Result<()> {
        if let Some(journal) = self.journal() {
            let (new, old) = (journal.new.as_str(), journal.old.as_deref());
            self.settle(new, old)?;
            let there = self.current().as_deref() == Some(new);
            if there && journal.confirm {
                let line = match old {
                    Some(old) => {
                        self.put(new, old)?;
                        format!("{new} was never confirmed; {old} is back")
                    }
                    None => {
                        self.withdraw(new)?;
                        format!("{new} was never confirmed; it is withdrawn")
                    }
                };
                self.put_back = Some(line);
            }
            self.forget()?;
        }
        self.settings.place.show()?;
        for entry in fs::read_dir(&self.store)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(STAGED.as_bytes()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        self.clean();
        Ok(())
    }

    /// Removes versions that are neither in force nor among the last `--keep` before, and those that never were in force.
    fn clean(&self) {
        let Ok(mut ids) = self.versions() else {
            return;
        };
        let current = self.current();
        ids.retain(|id| Some(id) != current.as_ref());
        ids.sort_unstable();
        let ahead = |id: &String| current.as_ref().is_none_or(|current| id > current);
        let (ahead, mut behind): (Vec<_>, Vec<_>) = ids.into_iter().partition(ahead);
        let keep = self.settings.params.keep as usize;
        behind.truncate(behind.len().saturating_sub(keep));
        for id in ahead.into_iter().chain(behind) {
            // What can't be removed now is tried again with the next version.
            fs::remove_dir_all(self.store.join(id)).ok();
        }
    }
}

/// The number that a version's name begins with.
fn number(id: &str) -> Option<u64> {
    let (digits, _) = id.split_once('-')?;
    let right = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| right)
}

/// Whether `dir` is where a file system is mounted.
fn is_mount(dir: &Path) -> bool {
    let Some(parent) = dir.parent() else {
        return true;
    };
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    match (device(dir), device(parent)) {
        (Ok(own), Ok(above)) => own != above,
        _ => false,
    }
}
