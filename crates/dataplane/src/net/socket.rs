//! A connected socket, and what the protocols above need of anything that carries bytes.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::buffer::Buf;

/// Bytes that are read at a time at most: what fits into one large buffer when it is sealed for TLS.
const READ_BYTES: usize = 128 * 1024;

/// Carries bytes both ways: a socket, or TLS over one. All calls are made by one task.
pub trait Transport {
    /// Ready when a read may give something: there are bytes, the end, or an error. Holds no buffer while it waits.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads what is there into the spare room of `into` (there must be some). 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buf) -> Poll<io::Result<usize>>;

    /// Takes bytes to be sent, as many as it can without waiting; returns how many. What was taken may still have to
    /// be flushed.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Ready when all that was taken is with the kernel.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says to the peer that nothing more will come; reading goes on.
    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

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
}

impl Socket {
    /// The address that the peer came to. None of a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Ready when there are bytes or the end came, as far as this thread's epoll has told: no system call.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Reads until `into` is full or nothing is left; [`Transport::poll_read`] for a plain slice.
    pub fn poll_read_slice(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut target = ReadBuf::new(into);
        // tokio's own poll_read notes a short read, so that the next one does not ask the kernel in vain.
        ready!(match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut target),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut target),
        })?;
        Poll::Ready(Ok(target.filled().len()))
    }
}

impl Transport for Socket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
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
        match (self, parts) {
            (Self::Tcp(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Self::Unix(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Self::Tcp(stream), many) => Pin::new(stream).poll_write_vectored(cx, many),
            (Self::Unix(stream), many) => Pin::new(stream).poll_write_vectored(cx, many),
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// The kernel forgets what was not sent and resets the connection. A unix peer gets a plain end: there is nothing
    /// else.
    fn abort(&mut self) {
        if let Self::Tcp(stream) = self {
            rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO)).ok();
        }
    }
}
