//! A process's input and output: pipes, or a terminal for both.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::Terminal;

/// How long a terminal's kernel thread may take.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// What a process writes.
#[derive(Debug)]
pub(crate) enum Source {
    Pipe(Receiver),
    Terminal(Arc<Terminal>),
}

impl Source {
    pub(crate) fn pipe(fd: OwnedFd) -> io::Result<Self> {
        Receiver::from_owned_fd(fd).map(Self::Pipe)
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.readable().await,
            Self::Terminal(terminal) => terminal.readable().await,
        }
    }

    /// What there is now; 0 bytes at the end.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_read(buffer),
            Self::Terminal(terminal) => terminal.try_read(buffer),
        }
    }
}

impl Source {
    /// What is still there of a process that has ended; none when that is all. A terminal's kernel thread may have some on its
    /// way, which is waited for when others have the terminal open and there is no end to be seen.
    pub(crate) async fn rest(&self, buffer: &mut [u8]) -> Option<usize> {
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
#[derive(Debug)]
pub(crate) enum Sink {
    Pipe(Sender),
    Terminal(Arc<Terminal>),
}

impl Sink {
    pub(crate) fn pipe(fd: OwnedFd) -> io::Result<Self> {
        Sender::from_owned_fd(fd).map(Self::Pipe)
    }

    /// Writes it all. Several may write at once: their bytes mix, as those of people at one terminal.
    pub(crate) async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => write_pipe(pipe, bytes).await,
            Self::Terminal(terminal) => terminal.write_all(bytes).await,
        }
    }
}

async fn write_pipe(pipe: &Sender, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        pipe.writable().await?;
        match pipe.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
