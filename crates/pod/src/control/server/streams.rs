//! A process's input and output: pipes, or a terminal for both.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::sandbox::Terminal;

/// How long a terminal's kernel thread may take.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// What a process writes.
pub(super) enum Source {
    Pipe(Receiver),
    Terminal(Rc<Terminal>),
}

impl Source {
    pub(super) fn pipe(fd: OwnedFd) -> io::Result<Self> {
        Receiver::from_owned_fd(fd).map(Self::Pipe)
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.readable().await,
            Self::Terminal(terminal) => terminal.readable().await,
        }
    }

    /// What there is now; 0 bytes at the end.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_read(buffer),
            Self::Terminal(terminal) => terminal.try_read(buffer),
        }
    }
}

impl Source {
    /// What is still there of a process that has ended; none when that is all. A terminal's kernel thread may have some on its
    /// way, which is waited for when others have the terminal open and there is no end to be seen.
    pub(super) async fn rest(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            // Not through the runtime: it may not have seen yet that there is something.
            let read = match self {
                Self::Pipe(pipe) => rustix::io::read(pipe, &mut *buffer),
                Self::Terminal(terminal) => rustix::io::read(terminal.as_fd(), &mut *buffer),
            };
            match (read, self) {
                (Ok(count @ 1..), _) => return Some(count),
                (Err(Errno::INTR), _) => {}
                (Err(Errno::AGAIN), Self::Terminal(terminal)) => match terminal.try_read(buffer) {
                    Ok(count @ 1..) => return Some(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let more = tokio::time::timeout(ON_ITS_WAY, terminal.readable()).await;
                        more.ok()?.ok()?;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }
}

/// What a process reads.
pub(super) enum Sink {
    Pipe(Sender),
    Terminal(Rc<Terminal>),
}

impl Sink {
    pub(super) fn pipe(fd: OwnedFd) -> io::Result<Self> {
        Sender::from_owned_fd(fd).map(Self::Pipe)
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Terminal(terminal) => terminal.write_all(bytes).await,
        }
    }
}
