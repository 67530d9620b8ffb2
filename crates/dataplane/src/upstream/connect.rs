//! Dialling.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use podkit_foundation::params::Addr;
use rustix::io::Errno;
use tokio::net::{TcpSocket, UnixStream};

use super::resolve::lookup;
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

/// Opens one connection to `addr`; of a name, to the first of its addresses that takes it. Has no deadline of its own.
pub async fn dial(addr: &Addr) -> Result<Socket, ConnectError> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match addr {
        Addr::Unix(path) => Ok(dial_unix(path).await?),
        Addr::Port(port) => Ok(dial_tcp(SocketAddr::new(loopback, *port)).await?),
        Addr::Ip(ip, port) => Ok(dial_tcp(SocketAddr::new(*ip, *port)).await?),
        Addr::Name(name, port) => {
            let mut last = ConnectError::Name("no address".to_owned());
            for ip in lookup(name).await.map_err(ConnectError::Name)? {
                match dial_tcp(SocketAddr::new(ip, *port)).await {
                    Ok(socket) => return Ok(socket),
                    Err(error) => last = error.into(),
                }
            }
            Err(last)
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
