//! Binding: before anything runs, so that a taken port is one line and exit 1.
//!
//! A TCP listener is one socket per worker (SO_REUSEPORT): the kernel spreads connections, no worker waits for another.
//! Since a second SO_REUSEPORT bind of the same port succeeds silently, a bind without it comes first and proves that
//! the port is free. A unix listener can't be bound twice and is shared.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podkit_foundation::error::Failure;
use podkit_foundation::params::Addr;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::sync::watch;

/// Connections that may wait for being accepted, per socket; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long a connection is silent before the kernel asks whether the peer is there, and between asking again.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// A bound address: one socket for each worker.
#[derive(Debug)]
pub struct Listener {
    /// Of each worker that has not taken its own yet.
    ports: Mutex<Vec<Vec<Door>>>,
    /// The TCP port, the kernel's choice when 0 was asked for.
    port: Option<u16>,
    /// Of a unix socket.
    file: Option<Arc<SocketFile>>,
    gate: Gate,
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Opened when connections may be accepted.
pub(super) type Gate = watch::Receiver<bool>;

/// A worker's own sockets of a [`Listener`]: one, or more when another process bound them for more workers.
#[derive(Debug)]
pub struct Port {
    pub(super) doors: Vec<Door>,
    pub(super) gate: Gate,
}

/// The file of a unix socket, removed with the last that holds it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode of the file that was bound, so that only it is removed.
    file: (u64, u64),
    /// It is another process's.
    left: AtomicBool,
}

impl SocketFile {
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: identity(path)?,
            left: AtomicBool::new(false),
        })
    }

    /// Leaves it to the other process that has the socket, or takes it from there.
    pub(super) fn leave(&self, left: bool) {
        self.left.store(left, Ordering::Relaxed);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.left.load(Ordering::Relaxed) && identity(&self.path).ok() == Some(self.file) {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

impl Listener {
    /// Binds `addr` for `workers` workers. `field` names the parameter, for the error line.
    pub fn bind(field: &str, addr: &Addr, workers: usize) -> Result<Self, Failure> {
        let failed = |cause: &dyn fmt::Display| {
            let (flag, variable) = (field.replace('_', "-"), field.to_uppercase());
            Failure::runtime(format!("--{flag} (PODKIT_{variable}) {addr}"), cause)
        };
        let bound = match addr {
            Addr::Unix(path) => bind_unix(path, workers),
            Addr::Port(port) => {
                bind_tcp(Ipv6Addr::UNSPECIFIED.into(), *port, workers).or_else(|error| {
                    match Errno::from_io_error(&error) {
                        // A machine without IPv6.
                        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                            bind_tcp(Ipv4Addr::UNSPECIFIED.into(), *port, workers)
                        }
                        _ => Err(error),
                    }
                })
            }
            Addr::Ip(ip, port) => bind_tcp(*ip, *port, workers),
            Addr::Name(name, port) if name == "localhost" => {
                bind_tcp(Ipv4Addr::LOCALHOST.into(), *port, workers)
            }
            Addr::Name(..) => {
                return Err(failed(
                    &"a listener takes an IP address, :port, localhost:port or unix:/path, not a name",
                ));
            }
        };
        bound.map_err(|error| failed(&say(&error)))
    }

    /// Of sockets that listen already, for `workers` workers. Nothing is accepted before `gate` is open.
    pub(super) fn of(
        doors: Vec<Door>,
        workers: usize,
        file: Option<Arc<SocketFile>>,
        gate: Gate,
    ) -> io::Result<Self> {
        let port = match doors.first() {
            Some(Door::Tcp(listener)) => Some(listener.local_addr()?.port()),
            _ => None,
        };
        let workers = workers.max(1);
        let mut ports: Vec<Vec<Door>> = Vec::new();
        for at in 0..workers {
            let more = match doors.get(at) {
                Some(_) => continue,
                None => doors[at % doors.len()].try_clone()?,
            };
            ports.push(vec![more]);
        }
        let shared = ports.len();
        ports.resize_with(workers, Vec::new);
        for (at, door) in doors.into_iter().enumerate() {
            ports[shared + at % (workers - shared)].push(door);
        }
        Ok(Self {
            ports: Mutex::new(ports),
            port,
            file,
            gate,
        })
    }

    /// The TCP port, the kernel's choice when 0 was asked for. None for a unix socket.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The sockets for one worker. Each of the `workers` that were bound for gets its own.
    pub fn take(&self) -> io::Result<Port> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let doors = ports
            .pop()
            .ok_or_else(|| io::Error::other("more workers than the listener was bound for"))?;
        Ok(Port {
            doors,
            gate: self.gate.clone(),
        })
    }

    /// All sockets that no worker has taken, once more.
    pub(super) fn copies(&self) -> io::Result<Vec<Door>> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.iter().flatten().map(Door::try_clone).collect()
    }

    pub(super) fn file(&self) -> Option<Arc<SocketFile>> {
        self.file.clone()
    }
}

/// A gate that is open.
pub(super) fn open() -> Gate {
    watch::channel(true).1
}

fn say(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => "address in use".to_owned(),
        Some(Errno::ADDRNOTAVAIL) => "this machine has no such address".to_owned(),
        Some(Errno::ACCESS) => {
            "permission denied (a port below net.ipv4.ip_unprivileged_port_start needs \
             CAP_NET_BIND_SERVICE; a unix socket needs a folder that can be written)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

fn bind_tcp(ip: IpAddr, port: u16, workers: usize) -> io::Result<Listener> {
    let first = tcp_socket(SocketAddr::new(ip, port), false)?;
    let port = first.local_addr()?.port();
    let sockets = if workers <= 1 {
        vec![first]
    } else {
        drop(first);
        let one = |_| tcp_socket(SocketAddr::new(ip, port), true);
        (0..workers).map(one).collect::<io::Result<_>>()?
    };
    let doors = sockets.into_iter().map(Door::Tcp).collect();
    Listener::of(doors, workers, None, open())
}

fn tcp_socket(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd =
        rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // A restart must not wait for the last connections' TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Linux hands it down to the connections that are accepted: a system call less for each.
    sockopt::set_tcp_nodelay(&socket, true)?;
    // Likewise; a peer that is gone without a word is noticed even on a tunnel that may be silent for hours.
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_AFTER)?;
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

fn bind_unix(path: &Path, workers: usize) -> io::Result<Listener> {
    let listener = UnixListener::bind(path).or_else(|error| {
        let in_use = error.kind() == io::ErrorKind::AddrInUse;
        if in_use && is_stale(path) {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        } else {
            Err(error)
        }
    })?;
    listener.set_nonblocking(true)?;
    let file = Arc::new(SocketFile::new(path)?);
    Listener::of(vec![Door::Unix(listener)], workers, Some(file), open())
}

/// A socket file that nobody answers at: what a process that was killed leaves behind. Any other file is not ours to
/// remove.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = || {
        UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    is_socket && refused()
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}
