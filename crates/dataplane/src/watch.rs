//! Knowing when files changed that are read again then (certificates, manifests): inotify on every directory that their paths lead through, and a look once
//! a minute for what inotify can't see (network file systems, a volume mounted over).
//!
//! A path to a certificate is rarely a plain file: the kubelet's `tls.crt` is a link to `..data/tls.crt`, `..data` a link to
//! the version's directory, and a renewal replaces `..data` by rename. So each path is walked by component, and the
//! directory that holds each link, and the last entry, is watched for its entries; the directories above are watched for
//! being moved or deleted. What does not exist yet is awaited in the deepest directory that does.
//! Rejected: watching the files themselves (a rename over them goes unseen), and the notify crate (it resolves links once).

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use podkit_foundation::params::Size;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

/// The bytes of a regular file that has `most` at most, or a clause that says why not.
pub fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let meta = fs::metadata(path).map_err(|error| io_words(path, &error))?;
    if !meta.is_file() {
        return Err("is not a file".to_owned());
    }
    if meta.len() > most {
        let (found, most) = (meta.len(), Size(most));
        return Err(format!("has {found} bytes; at most {most} is read"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| io_words(path, &error))?;
    // It may grow between the two calls.
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| io_words(path, &error))?;
    Ok(bytes)
}

/// What is wrong with a file or directory, as a clause that follows its path.
pub(crate) fn io_words(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if path.is_symlink() => {
            let to = fs::read_link(path).unwrap_or_default();
            format!("is a link to {}, which does not exist", to.display())
        }
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => {
            let uid = rustix::process::geteuid().as_raw();
            match fs::metadata(path) {
                Ok(meta) => format!(
                    "can't be read by user id {uid} (mode {:04o}, owner {}:{})",
                    meta.mode() & 0o7777,
                    meta.uid(),
                    meta.gid()
                ),
                Err(_) => {
                    format!("can't be reached by user id {uid} (a directory above it is closed)")
                }
            }
        }
        _ => format!("can't be read ({error})"),
    }
}

/// Calls `look` now, and again whenever one of `files` may have changed, for as long as the process lives.
pub async fn look_after(files: &[PathBuf], look: impl Fn()) {
    let mut watch = Watch::new();
    loop {
        // Places first, then files: what changes in between wakes the watch.
        let before = places(files);
        watch.follow(&before);
        look();
        let after = places(files);
        if after != before {
            watch.follow(&after);
            look();
        }
        watch.changed().await;
    }
}

/// What is wanted of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interest {
    /// That it is moved or deleted.
    Itself,
    /// Its entries too.
    Entries,
}

/// The directories that the meaning of these paths depends on. Follow them anew after every change: a link may lead elsewhere now.
pub fn places(paths: &[PathBuf]) -> BTreeMap<PathBuf, Interest> {
    let mut places = BTreeMap::new();
    for path in paths {
        walk(path, &mut places);
    }
    places
}

fn walk(path: &Path, places: &mut BTreeMap<PathBuf, Interest>) {
    let mut want = |directory: &Path, interest| {
        let known = places.entry(directory.to_owned()).or_insert(interest);
        *known = interest.max(*known);
    };
    let Ok(absolute) = std::path::absolute(path) else {
        return;
    };
    let mut rest: VecDeque<OsString> = parts(&absolute);
    let mut here = PathBuf::from("/");
    // As the kernel does: 40 links at most (path_resolution(7)).
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&part);
        match fs::symlink_metadata(&next) {
            Ok(meta) if meta.is_dir() => {
                want(&next, Interest::Itself);
                here = next;
            }
            Ok(meta) if meta.is_symlink() && links < 40 => {
                links += 1;
                want(&here, Interest::Entries);
                let Ok(target) = fs::read_link(&next) else {
                    return;
                };
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for part in parts(&target).into_iter().rev() {
                    rest.push_front(part);
                }
            }
            // The file, or nothing yet.
            Ok(_) | Err(_) => {
                want(&here, Interest::Entries);
                return;
            }
        }
    }
    want(&here, Interest::Entries);
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

/// Waits for changes in places.
#[derive(Debug)]
pub struct Watch {
    inotify: Option<AsyncFd<OwnedFd>>,
    following: BTreeMap<PathBuf, i32>,
    quiet: Duration,
}

/// How long nothing must happen before the files are read: a renewal writes more than one.
const QUIET: Duration = Duration::from_millis(100);
/// How long reading is put off at most while things keep happening.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the files are read although nothing was seen.
const RESYNC: Duration = Duration::from_secs(60);
/// The same where there is no inotify.
const RESYNC_BLIND: Duration = Duration::from_secs(5);

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch {
    /// Must be called inside a tokio runtime.
    pub fn new() -> Self {
        let open = || -> io::Result<AsyncFd<OwnedFd>> {
            let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            #[expect(
                deprecated,
                reason = "its successor is unsafe for the sake of types that lend their descriptor; an OwnedFd doesn't"
            )]
            AsyncFd::new(fd)
        };
        let inotify = open().inspect_err(|error| {
            tracing::warn!(
                %error,
                "no inotify (fs.inotify.max_user_instances?): files are read every 5 s instead"
            );
        });
        Self {
            inotify: inotify.ok(),
            following: BTreeMap::new(),
            quiet: QUIET,
        }
    }

    /// Another moment in which nothing must happen, for files that come in whole.
    pub fn with_quiet(self, quiet: Duration) -> Self {
        Self { quiet, ..self }
    }

    /// Watches these places and no others.
    pub fn follow(&mut self, places: &BTreeMap<PathBuf, Interest>) {
        let Some(inotify) = &self.inotify else {
            return;
        };
        let mut following = BTreeMap::new();
        for (directory, interest) in places {
            let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
            // Not what is written to a file that stays open: a log in the same directory would be an event a line.
            let entries = WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::DELETE
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::ATTRIB;
            let flags = match interest {
                Interest::Itself => itself,
                Interest::Entries => itself | entries,
            };
            // The same directory again gives the same number, with the new flags. One that may not be read, or
            // is gone again, is left to the resync.
            match inotify::add_watch(inotify, directory, flags) {
                Ok(number) => {
                    following.insert(directory.clone(), number);
                }
                Err(error) => tracing::debug!(
                    directory = %directory.display(), %error, "this directory can't be watched"
                ),
            }
        }
        for (_, number) in std::mem::take(&mut self.following) {
            if !following.values().any(|kept| *kept == number) {
                // Fails when the directory is gone, and the watch with it.
                inotify::remove_watch(inotify, number).ok();
            }
        }
        self.following = following;
    }

    /// Returns when something happened in the places and then nothing for a moment, or when it is time to look anyway.
    pub async fn changed(&mut self) {
        let Some(inotify) = &self.inotify else {
            return sleep(RESYNC_BLIND).await;
        };
        if timeout_at(Instant::now() + RESYNC, drain(inotify))
            .await
            .is_err()
        {
            return;
        }
        let latest = Instant::now() + PATIENCE;
        loop {
            let quiet = (Instant::now() + self.quiet).min(latest);
            let more = timeout_at(quiet, drain(inotify)).await.is_ok();
            if !more || Instant::now() >= latest {
                return;
            }
        }
    }
}

/// The most events that are taken before others get their turn.
const TURN: usize = 1024;

/// Waits for events and takes those that are there.
async fn drain(inotify: &AsyncFd<OwnedFd>) {
    let mut taken = false;
    loop {
        let Ok(mut ready) = inotify.readable().await else {
            return std::future::pending().await;
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(inotify, &mut buffer);
        for _ in 0..TURN {
            if events.next().is_err() {
                ready.clear_ready();
                break;
            }
            taken = true;
        }
        if taken {
            return;
        }
    }
}
