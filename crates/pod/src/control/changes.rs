//! Waiting for what is on disk of pods to change, and for their supervisors to end, without looking again and again: inotify on
//! the directories, and the processes' descriptors. A pod that ended well takes its files away; of a supervisor that was killed
//! only its process tells.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Found, Life};

/// What happens at once is one change.
const PAUSE: Duration = Duration::from_millis(10);
/// How often one looks when not all can be watched.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// See the module's text.
#[derive(Debug, Default)]
pub struct Changes {
    inotify: Option<OwnedFd>,
    /// The numbers of the directories that are watched; none is given twice.
    watched: BTreeSet<i32>,
    /// Something can't be watched.
    blind: bool,
}

impl Changes {
    /// Watches the entries of these directories, and what is written to them; of one that isn't there, the nearest above it that is.
    /// True when one is new: what has changed in it before is not told of, and one has to look again.
    pub fn follow(&mut self, dirs: impl IntoIterator<Item = PathBuf>) -> bool {
        self.blind = false;
        let mut new = false;
        for dir in dirs {
            match self.watch(&dir) {
                Ok(number) => new |= self.watched.insert(number),
                Err(error) => {
                    tracing::debug!(dir = %dir.display(), %error, "this directory can't be watched");
                    self.blind = true;
                }
            }
        }
        new
    }

    fn watch(&mut self, dir: &Path) -> io::Result<i32> {
        let inotify = match self.inotify.take() {
            Some(inotify) => inotify,
            None => inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
        };
        let inotify = self.inotify.insert(inotify);
        let flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONLYDIR;
        for dir in dir.ancestors() {
            match inotify::add_watch(&*inotify, dir, flags) {
                Err(rustix::io::Errno::NOENT) => {}
                watched => return Ok(watched?),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Returns when something has changed since the last call, or the supervisor of one of these pods has ended.
    pub fn wait<'a>(&self, pods: impl IntoIterator<Item = &'a Found>) -> io::Result<()> {
        let (mut ends, mut blind) = (Vec::new(), self.blind);
        for pod in pods {
            let Life::Lives { pid } = pod.life else {
                continue;
            };
            let pid = Pid::from_raw(pid);
            match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
                Some(Ok(end)) => ends.push(end),
                // It has just ended, or has only begun.
                Some(Err(_)) | None => blind = true,
            }
        }
        let all = self.inotify.iter().chain(&ends);
        let mut all: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let most = blind.then_some(&LOOK);
        rustix::io::retry_on_intr(|| poll(&mut all, most))?;
        std::thread::sleep(PAUSE);
        if let Some(inotify) = &self.inotify {
            drain(inotify.as_fd())?;
        }
        Ok(())
    }
}

fn drain(inotify: impl AsFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(inotify, &mut buffer);
    loop {
        match events.next() {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    fn found(dir: &Path, pid: i32) -> Found {
        Found {
            key: "web".to_owned(),
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            pod: serde_json::Value::Null,
            events: Vec::new(),
            life: Life::Lives { pid },
            run: dir.to_owned(),
            logs: dir.to_owned(),
        }
    }

    #[test]
    fn what_happens_in_a_directory_wakes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("pods/web");
        let mut changes = Changes::default();
        assert!(changes.follow([inner.clone()]));
        assert!(!changes.follow([inner.clone()]));
        std::fs::create_dir_all(&inner).unwrap();
        changes.wait([]).unwrap();
        assert!(changes.follow([inner.clone()]));
        let file = inner.join("0.log");
        for text in ["a", "ab"] {
            std::fs::write(&file, text).unwrap();
            changes.wait([]).unwrap();
        }
        std::fs::read(&file).unwrap();
        let begun = Instant::now();
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            std::fs::remove_file(&file).unwrap();
        });
        changes.wait([]).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(250));
        late.join().unwrap();
    }

    #[test]
    fn the_end_of_a_supervisor_wakes() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut changes = Changes::default();
        changes.follow([dir.path().to_owned()]);
        let pod = found(dir.path(), i32::try_from(child.id()).unwrap());
        let stdin = child.stdin.take();
        let begun = Instant::now();
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(stdin);
        });
        changes.wait([&pod]).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(250));
        late.join().unwrap();
        child.wait().unwrap();
    }
}
