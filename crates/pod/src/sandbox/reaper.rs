//! One thread per pod that reaps its processes as soon as they end, whoever waits for them or not.
//!
//! The kernel makes this necessary: the first process of a PID namespace can't finish ending while another process of that
//! namespace waits to be reaped, and a command run in a container is our child, not its. A probe whose caller gave up would
//! keep its container from ending. SIGCHLD was rejected: it belongs to the whole process, and pidfds need no handler.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::process::Process;

/// The thread does next to nothing; its stack should cost as much.
const STACK: usize = 64 << 10;

/// Those of a pod's processes that have not ended.
#[derive(Debug)]
pub(super) struct Reaper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    living: Mutex<Living>,
}

#[derive(Debug, Default)]
struct Living {
    next: u64,
    processes: HashMap<u64, Process>,
}

impl Reaper {
    /// Begins with the pod's init, which ends last: the thread ends with it.
    pub(super) fn start(init: &Process) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let shared = Arc::new(Shared {
            epoll,
            living: Mutex::default(),
        });
        let reaper = Self {
            shared,
            thread: Mutex::default(),
        };
        reaper.add(init)?;
        let shared = Arc::clone(&reaper.shared);
        let thread = std::thread::Builder::new()
            .name("reaper".into())
            .stack_size(STACK)
            .spawn(move || shared.run())?;
        *reaper.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(reaper)
    }

    /// Reaps this one too.
    pub(super) fn add(&self, process: &Process) -> io::Result<()> {
        let mut living = self.shared.living();
        let id = living.next;
        living.next += 1;
        living.processes.insert(id, process.clone());
        let added = epoll::add(
            &self.shared.epoll,
            process.pidfd(),
            EventData::new_u64(id),
            EventFlags::IN,
        );
        if added.is_err() {
            living.processes.remove(&id);
        }
        Ok(added?)
    }

    /// How many live.
    pub(super) fn living(&self) -> usize {
        self.shared.living().processes.len()
    }

    /// Waits for the thread. To be called when the init has ended.
    pub(super) fn join(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the pod's reaper panicked");
        }
    }
}

impl Shared {
    fn living(&self) -> MutexGuard<'_, Living> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(16);
        while !self.living().processes.is_empty() {
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the pod's processes can't be watched any more");
                    return;
                }
            }
            for event in events.drain(..) {
                let id = event.data.u64();
                let mut living = self.living();
                let Some(process) = living.processes.get(&id) else {
                    continue;
                };
                if let Ok(None) = process.try_wait() {
                    continue;
                }
                // An ended process stays readable.
                epoll::delete(&self.epoll, process.pidfd()).ok();
                living.processes.remove(&id);
            }
        }
    }
}
