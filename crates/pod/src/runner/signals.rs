//! What people and service managers ask of the supervisor.

use std::io;
use std::os::fd::OwnedFd;

use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and, unless it was ignored from the start (nohup), SIGHUP: a terminal that was closed.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
    /// The process that supervises several supervisors holds the other end.
    parent: Option<Receiver>,
    asked: bool,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Stop in order.
    Stop,
    /// Asked before: kill.
    Kill,
}

impl Signals {
    /// Takes the signals from here on. With `parent` its end of file is asked for a stop, too.
    pub(super) fn new(parent: Option<OwnedFd>) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if hangup_ignored() {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
            parent: parent.map(Receiver::from_owned_fd).transpose()?,
            asked: false,
        })
    }

    /// The next one. Can be dropped and called again.
    pub(super) async fn next(&mut self) -> Ask {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => break,
                () = received(&mut self.hangup) => break,
                () = ended(&mut self.parent), if self.parent.is_some() => {
                    self.parent = None;
                    // A second stop is not meant by it.
                    if !self.asked {
                        break;
                    }
                }
            }
        }
        let again = std::mem::replace(&mut self.asked, true);
        if again { Ask::Kill } else { Ask::Stop }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Returns when the other end is closed; what comes before is of no meaning.
async fn ended(parent: &mut Option<Receiver>) {
    let Some(pipe) = parent else {
        return std::future::pending().await;
    };
    let mut byte = [0; 64];
    loop {
        if pipe.readable().await.is_err() {
            return;
        }
        match pipe.try_read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Bit 0 of `SigIgn`, read before a handler is installed. (proc(5))
fn hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}
