//! A connected socket, and what the protocols above need of anything that carries bytes.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

use super::buffer::Buf;
use super::fresh::{Fresh, is_short, receive, transmit};

/// Bytes that are read at a time at most: what fits into one large buffer when it is sealed for TLS.
const READ_BYTES: usize = 128 * 1024;

/// Carries bytes both ways: a socket, or TLS over one. All calls are made by one task.
pub trait Transport {
    /// Ready when a read may give something: there are bytes, the end, or an error. Holds no buffer while it waits.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The same for who waits for the next message, of which epoll has to tell first: as that happens while other tasks had their
    /// turn, it need not count against this task's.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_readable(cx)
    }

    /// Reads what is there into the spare room of `into` (there must be some). 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buf) -> Poll<io::Result<usize>>;

    /// Takes bytes to be sent, as many as it can without waiting; returns how many. What was taken may still have to
    /// be flushed.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// What is written next is the last, and the end follows it at once: both may go together.
    fn last(&mut self) {}

    /// Ready when all that was taken is with the kernel.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says to the peer that nothing more will come; reading goes on.
    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says what has to be said before this is dropped, so that the peer takes it for an orderly end.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close_write(cx)
    }

    /// What comes wakes who waits for it at no cost. False: to wait costs a system call more.
    fn is_watched(&self) -> bool {
        true
    }

    /// Makes the end that follows one that the peer can't take for an orderly one: what was cut must not look like
    /// something that ended.
    fn abort(&mut self);
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer. An IPv4 peer of a dual-stack listener is shown as IPv4.
    Ip(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl Peer {
    /// Its IP address, if it has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(addr) => Some(addr.ip()),
            Self::Unix => None,
        }
    }

    /// It is on this machine's (in a pod: this pod's) loopback, or on a unix socket.
    pub fn is_local(self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A connected TCP or unix stream socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
    /// Either of them, accepted and not waited for yet.
    Fresh(Fresh),
}

impl Socket {
    /// Tells this thread's epoll of it, if that was not done yet.
    pub fn watch(&mut self) -> io::Result<()> {
        if let Self::Fresh(fresh) = self {
            let fd = fresh.take()?;
            *self = match fresh.is_tcp() {
                true => Self::Tcp(TcpStream::from_std(fd.into())?),
                false => Self::Unix(UnixStream::from_std(fd.into())?),
            };
        }
        Ok(())
    }

    /// The address that the peer came to. None of a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
            Self::Fresh(fresh) => fresh.local_addr(),
        }
    }

    /// Ready when there are bytes or the end came, as far as this thread's epoll has told, and when it was never asked.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Fresh(fresh) = self {
            if fresh.may_have_bytes() {
                return Poll::Ready(Ok(()));
            }
            self.watch()?;
        }
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Fresh(_) => unreachable!("it is watched"),
        }
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch()?;
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
            Self::Fresh(_) => unreachable!("it is watched"),
        }
    }

    /// Reads until `into` is full or nothing is left; [`Transport::poll_read`] for a plain slice.
    pub fn poll_read_slice(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(count) = self.read_now(into)? {
                return Poll::Ready(Ok(count));
            }
            ready!(self.poll_read_ready(cx))?;
        }
    }

    /// None when nothing is there, as far as is known: whoever was told that there is something reads without asking again.
    fn read_now(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Fresh(fresh) if fresh.may_have_bytes() => fresh.read(into),
            watched => {
                let whole = into.len();
                watched.now(Interest::READABLE, whole, |fd| receive(fd, into))
            }
        }
    }

    /// None when there is no room, as far as is known.
    fn write_now(&mut self, parts: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        match self {
            Self::Fresh(fresh) => fresh.write(parts),
            watched => {
                let whole = parts.iter().map(|part| part.len()).sum();
                watched.now(Interest::WRITABLE, whole, |fd| transmit(fd, parts))
            }
        }
    }

    /// Moves bytes, up to `whole` of them, unless epoll has yet to tell that this can be done.
    fn now(
        &self,
        interest: Interest,
        whole: usize,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<Option<usize>>,
    ) -> io::Result<Option<usize>> {
        let mut moved = Ok(None);
        let call = |fd: BorrowedFd<'_>| {
            moved = call(fd);
            match moved {
                Ok(Some(count)) if !is_short(count, whole) => Ok(()),
                Err(_) => Ok(()),
                // This makes tokio wait for epoll's next word.
                Ok(_) => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            }
        };
        let told = match self {
            Self::Tcp(stream) => stream.try_io(interest, || call(stream.as_fd())),
            Self::Unix(stream) => stream.try_io(interest, || call(stream.as_fd())),
            Self::Fresh(_) => Ok(()),
        };
        // It says no more than `moved` does.
        drop(told);
        moved
    }

    /// Nothing came that was not read: no bytes and not the end. Takes a byte where epoll has told of something.
    pub fn is_quiet(&mut self) -> bool {
        matches!(self.read_now(&mut [0]), Ok(None))
    }
}

impl Transport for Socket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let told = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || Ok(())),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || Ok(())),
            Self::Fresh(_) => return self.poll_read_ready(cx),
        };
        match told {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => self.poll_read_ready(cx),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buf) -> Poll<io::Result<usize>> {
        let room = into.spare();
        let most = room.len().min(READ_BYTES);
        let count = ready!(self.poll_read_slice(cx, &mut room[..most]))?;
        into.added(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(count) = self.write_now(parts)? {
                return Poll::Ready(Ok(count));
            }
            ready!(self.poll_write_ready(cx))?;
        }
    }

    fn last(&mut self) {
        if let Self::Fresh(fresh) = self {
            fresh.last();
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Fresh(fresh) => Poll::Ready(fresh.close_write()),
        }
    }

    /// The kernel sends what is left, and the end behind it.
    fn poll_farewell(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn is_watched(&self) -> bool {
        !matches!(self, Self::Fresh(_))
    }

    /// The kernel forgets what was not sent and resets the connection. A unix peer gets a plain end: there is nothing
    /// else.
    fn abort(&mut self) {
        match self {
            Self::Tcp(stream) => reset_at_end(stream),
            Self::Fresh(fresh) if fresh.is_tcp() => drop(fresh.fd().map(reset_at_end)),
            Self::Unix(_) | Self::Fresh(_) => {}
        }
    }
}

fn reset_at_end(fd: impl AsFd) {
    // It may be gone already.
    rustix::net::sockopt::set_socket_linger(fd, Some(std::time::Duration::ZERO)).ok();
}
