//! Dialling.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpSocket, UnixStream};

use crate::net::Socket;

/// Why there is no connection to an upstream.
#[derive(Debug)]
pub enum ConnectError {
    /// It took longer than `--connect-timeout`.
    Timeout,
    /// Nobody listens there.
    Refused,
    /// Its name has no address.
    Name(String),
    /// This process or machine can't open another connection.
    Exhausted(io::Error),
    /// It does not speak TLS as it should, or its certificate is not trusted.
    Tls(io::Error),
    /// Anything else.
    Failed(io::Error),
}

impl ConnectError {
    /// The status code that tells the client.
    pub fn status(&self) -> u16 {
        match self {
            Self::Timeout => 504,
            Self::Refused | Self::Exhausted(_) => 503,
            Self::Name(_) | Self::Tls(_) | Self::Failed(_) => 502,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("connecting took too long"),
            Self::Refused => f.write_str("nobody listens there"),
            Self::Name(why) => write!(f, "its name can't be resolved: {why}"),
            Self::Exhausted(error) => write!(f, "no more connections can be opened: {error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::CONNREFUSED | Errno::NOENT) => Self::Refused,
            Some(Errno::TIMEDOUT) => Self::Timeout,
            Some(
                Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL,
            ) => Self::Exhausted(error),
            _ => Self::Failed(error),
        }
    }
}

pub(super) async fn dial_tcp(addr: SocketAddr) -> io::Result<Socket> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    socket.connect(addr).await.map(Socket::Tcp)
}

/// A unix listener whose queue is full refuses with EAGAIN instead of making the caller wait.
pub(super) async fn dial_unix(path: &Path) -> io::Result<Socket> {
    let mut pause = Duration::from_millis(1);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            other => return other.map(Socket::Unix),
        }
    }
}
