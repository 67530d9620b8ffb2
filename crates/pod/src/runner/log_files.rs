//! The containers' logs on disk, in the format of the CRI, where the kubelet would have them.
//!
//! ```text
//!   LIB/pods/POD/logs/CONTAINER/RESTART.log                2026-11-20T13:00:00.000000000Z stdout F a line
//!                               RESTART.log.TIME           older parts of it, the last so many
//! ```
//!
//! `P` in place of `F`: the line goes on in the next entry. The logs of the present run and of the one before it are kept.
//! One thread writes for the whole pod, as much at once as has come in the meantime, so that a disk that hangs holds up those
//! who print and nobody else. No fsync: after a crash of the machine there is no pod to ask for. Older parts are not compressed, as
//! the kubelet's are: they are few, and read by programs that know nothing of podkit. (Kubernetes: `pkg/kubelet/logs`,
//! CRI-API's log format)

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::logs::Line;
use super::output::Stream;

/// Logs are read while less than this waits to be written.
const ROOM: usize = 256 * 1024;
/// What an empty buffer may keep.
const KEEP: usize = 32 * 1024;

/// How much of a run's log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// A file's size in bytes, after which a new one begins. (`containerLogMaxSize`)
    pub(super) size: u64,
    /// How many files, the present one among them. (`containerLogMaxFiles`)
    pub(super) files: usize,
}

/// Where the logs of a pod's containers go. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LogFiles {
    dir: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when there is something to write, or no more will come.
    filled: Condvar,
    ended: Condvar,
    written: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Of each container; more come when the pod's definition is edited.
    dirs: Vec<PathBuf>,
    waiting: Vec<Entry>,
    bytes: usize,
    /// How many bytes have ever come, and how many of them are written.
    come: u64,
    done: u64,
    closed: bool,
    ended: bool,
}

/// Whole lines of one run.
#[derive(Debug)]
struct Entry {
    container: usize,
    run: u32,
    bytes: Vec<u8>,
}

impl LogFiles {
    /// Below `dir`, a directory for each of these containers, by their places.
    pub(super) fn new(dir: &Path, containers: &[String], limits: Limits) -> Self {
        let shared = Arc::new(Shared::default());
        shared.lock().dirs = containers.iter().map(|name| dir.join(name)).collect();
        let writer = Writer {
            dirs: Vec::new(),
            limits,
            open: HashMap::new(),
            failing: false,
        };
        let files = Self {
            dir: dir.to_owned(),
            shared: Arc::clone(&shared),
        };
        let spawned = std::thread::Builder::new()
            .name("logs".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || shared.write_all(writer));
        if let Err(error) = spawned {
            tracing::error!(%error, "the logs' thread could not be started: no logs will be kept");
            let mut state = files.shared.lock();
            state.closed = true;
            state.ended = true;
        }
        files
    }

    /// One more container, after the others.
    pub(super) fn add(&self, container: &str) {
        let dir = self.dir.join(container);
        self.shared.lock().dirs.push(dir);
    }

    /// Takes lines that came now. Never waits.
    pub(super) fn append(&self, container: usize, run: u32, stream: Stream, lines: &[Line<'_>]) {
        if lines.is_empty() {
            return;
        }
        let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
        let mut state = self.shared.lock();
        if state.closed {
            return;
        }
        let same = |last: &&mut Entry| (last.container, last.run) == (container, run);
        if state.waiting.last_mut().filter(same).is_none() {
            state.waiting.push(Entry {
                container,
                run,
                bytes: Vec::new(),
            });
        }
        let Some(entry) = state.waiting.last_mut() else {
            return;
        };
        let before = entry.bytes.len();
        for line in lines {
            format_line(&time, stream, line, &mut entry.bytes);
        }
        let more = entry.bytes.len() - before;
        state.bytes += more;
        state.come += more as u64;
        self.shared.filled.notify_one();
    }

    /// Returns when a log may be read.
    pub(super) async fn room(&self) {
        self.until(|state| state.bytes < ROOM).await;
    }

    /// Returns when all that has come is written.
    pub(super) async fn flushed(&self) {
        let come = self.shared.lock().come;
        self.until(|state| state.done >= come).await;
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        loop {
            let told = self.shared.written.notified();
            {
                let state = self.shared.lock();
                if holds(&state) || state.ended {
                    return;
                }
            }
            told.await;
        }
    }

    /// Takes no more, and waits until all is written, for at most `patience`.
    pub(super) fn finish(&self, patience: Duration) {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.filled.notify_one();
        let (state, _timed_out) = self
            .shared
            .ended
            .wait_timeout_while(state, patience, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
    }
}

/// `TIME STREAM TAG LINE`.
fn format_line(time: &str, stream: Stream, line: &Line<'_>, to: &mut Vec<u8>) {
    to.extend_from_slice(time.as_bytes());
    to.extend_from_slice(match stream {
        Stream::Stdout => b" stdout ",
        Stream::Stderr => b" stderr ",
    });
    to.extend_from_slice(if line.partial { b"P " } else { b"F " });
    to.extend_from_slice(&line.bytes);
    to.push(b'\n');
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut writer: Writer) {
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() && !state.closed {
                state = self
                    .filled
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.waiting.is_empty() {
                state.ended = true;
                drop(state);
                self.ended.notify_all();
                self.written.notify_waiters();
                return;
            }
            let batch = std::mem::take(&mut state.waiting);
            let bytes = std::mem::take(&mut state.bytes) as u64;
            if writer.dirs.len() != state.dirs.len() {
                writer.dirs.clone_from(&state.dirs);
            }
            drop(state);
            for mut entry in batch {
                writer.write(&entry);
                entry.bytes.shrink_to(KEEP);
            }
            self.lock().done += bytes;
            self.written.notify_waiters();
        }
    }
}

/// The files, on their thread.
#[derive(Debug)]
struct Writer {
    dirs: Vec<PathBuf>,
    limits: Limits,
    open: HashMap<usize, Open>,
    /// The last write failed, and that was told.
    failing: bool,
}

#[derive(Debug)]
struct Open {
    run: u32,
    file: File,
    size: u64,
}

impl Writer {
    fn write(&mut self, entry: &Entry) {
        let written = self.try_write(entry);
        if let Err(error) = &written
            && !self.failing
        {
            let dir = self.dirs[entry.container].display();
            tracing::warn!(dir = %dir, %error, "a container's log could not be written");
        }
        self.failing = written.is_err();
    }

    fn try_write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut left = &entry.bytes[..];
        while !left.is_empty() {
            let max = self.limits.size;
            let open = self.file(entry.container, entry.run)?;
            let room = usize::try_from(max.saturating_sub(open.size)).unwrap_or(usize::MAX);
            let take = match left.get(..room) {
                None => left.len(),
                Some(fits) => match memchr::memrchr(b'\n', fits) {
                    Some(end) => end + 1,
                    None if open.size > 0 => {
                        self.rotate(entry.container, entry.run)?;
                        continue;
                    }
                    // A line that is longer than a file may be.
                    None => memchr::memchr(b'\n', left).map_or(left.len(), |end| end + 1),
                },
            };
            open.file.write_all(&left[..take])?;
            open.size += take as u64;
            left = &left[take..];
        }
        Ok(())
    }

    /// The file of a run. A run's first line ends the log of the run before the last.
    fn file(&mut self, container: usize, run: u32) -> io::Result<&mut Open> {
        let known = self.open.get(&container).map(|open| open.run);
        if known != Some(run) {
            let dir = &self.dirs[container];
            std::fs::create_dir_all(dir)?;
            for (of, path) in parts(dir) {
                if of + 1 < run {
                    std::fs::remove_file(path)?;
                }
            }
            let open = Open {
                run,
                file: open(dir, run)?,
                size: 0,
            };
            self.open.insert(container, open);
        }
        self.open
            .get_mut(&container)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rotate(&mut self, container: usize, run: u32) -> io::Result<()> {
        let dir = &self.dirs[container];
        self.open.remove(&container);
        // Digits only, so that the names are in the order of time.
        let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
        let time: String = time.chars().filter(char::is_ascii_digit).collect();
        std::fs::rename(
            dir.join(format!("{run}.log")),
            dir.join(format!("{run}.log.{time}")),
        )?;
        let mut older: Vec<PathBuf> = parts(dir)
            .into_iter()
            .filter(|(of, path)| *of == run && path.extension().is_some_and(|end| end != "log"))
            .map(|(_, path)| path)
            .collect();
        older.sort();
        let keep = self.limits.files.saturating_sub(1);
        for path in &older[..older.len().saturating_sub(keep)] {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn open(dir: &Path, run: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    options.open(dir.join(format!("{run}.log")))
}

/// Every file of a container's logs, with its run.
fn parts(dir: &Path) -> Vec<(u32, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let part = |entry: std::fs::DirEntry| {
        let run = entry
            .file_name()
            .to_str()?
            .split('.')
            .next()?
            .parse()
            .ok()?;
        Some((run, entry.path()))
    };
    entries.filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: &[u8], partial: bool) -> Line<'_> {
        Line {
            bytes: bytes.into(),
            partial,
            end_only: false,
        }
    }

    fn files(dir: &Path, size: u64, files: usize) -> LogFiles {
        LogFiles::new(dir, &["app".to_owned()], Limits { size, files })
    }

    #[test]
    fn lines_are_written_as_the_cri_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let logs = files(dir.path(), 1 << 20, 5);
        logs.append(0, 0, Stream::Stdout, &[line(b"one", false)]);
        logs.append(
            0,
            0,
            Stream::Stderr,
            &[line(b"par", true), line(b"t", false)],
        );
        logs.finish(Duration::from_secs(10));
        let text = std::fs::read_to_string(dir.path().join("app/0.log")).unwrap();
        let lines: Vec<(&str, &str)> = text.lines().map(|line| line.split_at(30)).collect();
        assert_eq!(
            lines.iter().map(|(_, rest)| *rest).collect::<Vec<_>>(),
            [" stdout F one", " stderr P par", " stderr F t"]
        );
        assert!(
            lines[0].0.ends_with('Z') && lines[0].0.contains('T'),
            "{text}"
        );
    }

    #[test]
    fn a_full_file_makes_room_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let logs = files(dir.path(), 1000, 3);
        for n in 0..200 {
            logs.append(
                0,
                0,
                Stream::Stdout,
                &[line(format!("{n:010}").as_bytes(), false)],
            );
        }
        // Longer than a file may be: a file of its own.
        logs.append(0, 0, Stream::Stdout, &[line(&[b'x'; 3000], false)]);
        logs.finish(Duration::from_secs(10));
        let mut parts = parts(&dir.path().join("app"));
        parts.sort();
        assert_eq!(parts.len(), 3, "{parts:?}");
        let sizes: Vec<u64> = parts
            .iter()
            .map(|(_, path)| path.metadata().unwrap().len())
            .collect();
        assert!(
            sizes.iter().filter(|size| **size > 1000).count() == 1,
            "{sizes:?}"
        );
        let all: String = parts
            .iter()
            .map(|(_, path)| std::fs::read_to_string(path).unwrap())
            .collect();
        assert!(all.contains("0000000199") && !all.contains("0000000001 "));
    }

    #[test]
    fn the_run_before_is_kept_and_no_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let logs = files(dir.path(), 1000, 3);
        for run in 0..4 {
            logs.append(0, run, Stream::Stdout, &[line(b"x", false)]);
        }
        logs.finish(Duration::from_secs(10));
        let mut runs: Vec<u32> = parts(&dir.path().join("app"))
            .into_iter()
            .map(|(run, _)| run)
            .collect();
        runs.sort_unstable();
        assert_eq!(runs, [2, 3]);
    }

    #[tokio::test]
    async fn flushed_means_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let logs = files(dir.path(), 1 << 20, 3);
        logs.append(0, 0, Stream::Stdout, &[line(b"x", false)]);
        logs.flushed().await;
        assert!(dir.path().join("app/0.log").metadata().unwrap().len() > 30);
        logs.finish(Duration::from_secs(10));
        // Nothing more will come: nobody waits.
        logs.append(0, 0, Stream::Stdout, &[line(b"y", false)]);
        logs.flushed().await;
    }
}
