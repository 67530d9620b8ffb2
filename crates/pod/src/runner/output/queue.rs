//! Bytes on their way to standard output.
//!
//! One thread writes, with blocking calls: a terminal that was stopped (Ctrl-S) or a pipe that nobody reads holds up that
//! thread and, through [`Queue::room`], those who print, but no probe and no stop. Making standard output non-blocking
//! was rejected: the setting belongs to the open file, which the shell shares.
//!
//! When standard output is gone (EPIPE) the pod goes on and its output is discarded.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Screen;

/// Logs are read while less than this waits.
const ROOM: usize = 64 * 1024;
/// Beyond this even events are dropped, and counted.
const MAX: usize = 1024 * 1024;
/// What an empty buffer may keep.
const KEEP: usize = 16 * 1024;

/// See the module's text. Clones share.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when there is something to write, or no more will come.
    filled: Condvar,
    /// Told when the writer has ended.
    ended: Condvar,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    lost: u64,
    closed: bool,
    ended: bool,
    broken: bool,
}

impl State {
    /// Says where the gap is, as soon as there is room to say it.
    fn tell_lost(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 && !self.broken {
            let line = format!("podkit: {lost} lines were not shown: the output was not read\n");
            self.bytes.extend_from_slice(line.as_bytes());
        }
    }
}

impl Queue {
    /// A queue to standard output, beside what `screen` shows there.
    pub(crate) fn to_stdout(screen: Option<Arc<dyn Screen>>) -> Self {
        Self::start(move |bytes| match &screen {
            Some(screen) => aside(&**screen, io::stdout(), bytes),
            None => write_to(io::stdout(), bytes),
        })
    }

    /// The same to standard error.
    pub(crate) fn to_stderr(screen: Arc<dyn Screen>) -> Self {
        Self::start(move |bytes| aside(&*screen, io::stderr(), bytes))
    }

    /// A queue whose thread hands all bytes to `write`.
    pub(super) fn start(write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let queue = Self {
            shared: Arc::clone(&shared),
        };
        let spawned = std::thread::Builder::new()
            .name("output".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || shared.write_all(write));
        if let Err(error) = spawned {
            tracing::error!(%error, "the output thread could not be started: nothing will be shown");
            let mut state = queue.shared.lock();
            state.broken = true;
            state.ended = true;
        }
        queue
    }

    /// Appends whole lines. Never waits.
    pub(crate) fn push(&self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        if state.broken || state.closed {
            return;
        }
        if state.bytes.len() > MAX {
            state.lost += 1;
            return;
        }
        state.tell_lost();
        state.bytes.extend_from_slice(lines);
        self.shared.filled.notify_one();
    }

    /// Returns when a log may be read.
    pub(crate) async fn room(&self) {
        loop {
            let told = self.shared.room.notified();
            {
                let state = self.shared.lock();
                if state.bytes.len() < ROOM || state.broken {
                    return;
                }
            }
            told.await;
        }
    }

    /// Takes no more, and waits until all is written, for at most `patience`.
    pub(crate) fn finish(&self, patience: Duration) {
        let mut state = self.shared.lock();
        state.tell_lost();
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.lock();
            while state.bytes.is_empty() && !state.closed {
                state = self
                    .filled
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.bytes.is_empty() {
                drop(state);
                // Nothing, so that what stood beside the lines goes with them.
                let _written = write(&[]);
                self.lock().ended = true;
                self.ended.notify_all();
                return;
            }
            std::mem::swap(&mut batch, &mut state.bytes);
            drop(state);
            let written = write(&batch);
            batch.clear();
            batch.shrink_to(KEEP);
            if written.is_err() {
                let mut state = self.lock();
                state.broken = true;
                state.bytes = Vec::new();
            }
            self.room.notify_waiters();
        }
    }
}

fn aside(screen: &dyn Screen, to: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let mut written = Ok(());
    screen.aside(&mut || written = write_to(&to, bytes));
    written
}

fn write_to(to: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    // Not through std's handle: its line buffer would hold back what has no line end.
    let mut left = bytes;
    while !left.is_empty() {
        match rustix::io::write(&to, left) {
            Ok(written) => left = &left[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_writable(&to)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Somebody else has made the terminal non-blocking.
fn wait_writable(to: impl AsFd) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    match poll(&mut [PollFd::new(&to, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
