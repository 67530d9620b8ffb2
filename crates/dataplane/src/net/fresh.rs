//! A connection that was just accepted. The kernel is asked for its bytes before epoll is told of it: often a request is there
//! already, and when the connection ends with its answer two system calls were saved.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, getsockname, recv, send, sendmsg, shutdown,
};

/// Not known to epoll.
#[derive(Debug)]
pub struct Fresh {
    /// Non-blocking. None once it was taken.
    fd: Option<OwnedFd>,
    tcp: bool,
    /// The last read took all that there was.
    drained: bool,
    /// What is sent waits for the end, to go in one packet with it.
    last: bool,
}

impl Fresh {
    pub(super) fn new(fd: OwnedFd, tcp: bool) -> Self {
        Self {
            fd: Some(fd),
            tcp,
            drained: false,
            last: false,
        }
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// A read may give something, as far as is known.
    pub(super) fn may_have_bytes(&self) -> bool {
        !self.drained
    }

    /// Hands the descriptor over; this is of no use afterwards.
    pub(super) fn take(&mut self) -> io::Result<OwnedFd> {
        self.fd.take().ok_or_else(gone)
    }

    pub(super) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.fd.as_ref().map(OwnedFd::as_fd).ok_or_else(gone)
    }

    /// None when it would have to wait.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let room = into.len();
        let read = receive(self.fd()?, into)?;
        self.drained = read.is_none_or(|count| is_short(count, room));
        Ok(read)
    }

    /// None when it would have to wait.
    pub(super) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        let flags = match self.last {
            true => SendFlags::NOSIGNAL | SendFlags::MORE,
            false => SendFlags::NOSIGNAL,
        };
        transmit_with(self.fd()?, parts, flags)
    }

    /// What is sent from now on may wait for the end.
    pub(super) fn last(&mut self) {
        self.last = true;
    }

    pub(super) fn close_write(&self) -> io::Result<()> {
        Ok(shutdown(self.fd()?, Shutdown::Write)?)
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        getsockname(self.fd().ok()?).ok()?.try_into().ok()
    }
}

/// Reads what is there; None when it would have to wait.
pub(super) fn receive(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Option<usize>> {
    now(|| recv(fd, &mut *into, RecvFlags::empty()).map(|(count, _)| count))
}

/// Sends what there is room for; None when it would have to wait.
pub(super) fn transmit(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    transmit_with(fd, parts, SendFlags::NOSIGNAL)
}

fn transmit_with(
    fd: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    flags: SendFlags,
) -> io::Result<Option<usize>> {
    match parts {
        [one] => now(|| send(fd, one, flags)),
        many => now(|| {
            let mut control = SendAncillaryBuffer::default();
            sendmsg(fd, many, &mut control, flags)
        }),
    }
}

/// Less than there was room for (or was to be sent) was moved, which on Linux says that the next call would have to wait. Not the
/// end, after which nothing more is told.
pub(super) fn is_short(count: usize, whole: usize) -> bool {
    (1..whole).contains(&count)
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// The call's result; None when it would have to wait.
fn now(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        return match call() {
            Ok(count) => Ok(Some(count)),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::task::Poll;

    use super::Fresh;
    use crate::net::{Buf, Socket, Transport};

    async fn read(socket: &mut Socket) -> Vec<u8> {
        let mut buf = Buf::small();
        poll_fn(|cx| socket.poll_readable(cx)).await.unwrap();
        poll_fn(|cx| socket.poll_read(cx, &mut buf)).await.unwrap();
        buf.filled().to_vec()
    }

    #[tokio::test]
    async fn it_is_watched_when_it_has_to_be_waited_for() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut socket = Socket::Fresh(Fresh::new(near.into(), false));
        far.write_all(b"one").unwrap();
        assert_eq!(read(&mut socket).await, b"one");
        assert!(!socket.is_watched(), "nothing was waited for");
        let part = [std::io::IoSlice::new(b"answer")];
        let written = poll_fn(|cx| socket.poll_write(cx, &part)).await;
        assert_eq!(written.unwrap(), 6);
        assert!(!socket.is_watched(), "there was room");
        far.read_exact(&mut [0; 6]).unwrap();
        let looked = poll_fn(|cx| Poll::Ready(socket.poll_readable(cx).is_ready())).await;
        assert!(!looked, "nothing is there");
        assert!(socket.is_watched());
        far.write_all(b"two").unwrap();
        assert_eq!(read(&mut socket).await, b"two");
        drop(far);
        assert_eq!(read(&mut socket).await, b"", "the end");
    }

    #[tokio::test]
    async fn the_last_bytes_go_with_the_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut socket = Socket::Fresh(Fresh::new(near.into(), true));
        let part = [std::io::IoSlice::new(b"one")];
        poll_fn(|cx| socket.poll_write(cx, &part)).await.unwrap();
        let mut got = [0; 3];
        far.read_exact(&mut got).unwrap();
        socket.last();
        poll_fn(|cx| socket.poll_write(cx, &part)).await.unwrap();
        far.set_nonblocking(true).unwrap();
        let early = far.read(&mut got).unwrap_err();
        assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
        drop(socket);
        far.set_nonblocking(false).unwrap();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"one");
    }

    #[tokio::test]
    async fn without_bytes_it_is_waited_for() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut socket = Socket::Fresh(Fresh::new(near.into(), false));
        let mut buf = Buf::small();
        let first = poll_fn(|cx| std::task::Poll::Ready(socket.poll_read(cx, &mut buf))).await;
        assert!(first.is_pending());
        assert!(socket.is_watched());
        far.write_all(b"one").unwrap();
        assert_eq!(read(&mut socket).await, b"one");
    }
}
