//! Binding: before anything runs, so that a taken port is one line and exit 1.
//!
//! A TCP listener is one socket per worker (SO_REUSEPORT): the kernel spreads connections, no worker waits for another.
//! Since a second SO_REUSEPORT bind of the same port succeeds silently, a bind without it comes first and proves that
//! the port is free. A unix listener can't be bound twice and is shared.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use podkit_foundation::error::Failure;
use podkit_foundation::params::Addr;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// Connections that may wait for being accepted, per socket; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long a connection is silent before the kernel asks whether the peer is there, and between asking again.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// A bound address: one socket for each worker.
#[derive(Debug)]
pub struct Listener {
    bound: Bound,
    /// The TCP port, the kernel's choice when 0 was asked for.
    port: Option<u16>,
}

#[derive(Debug)]
enum Bound {
    Tcp(Mutex<Vec<TcpListener>>),
    Unix {
        listener: UnixListener,
        path: PathBuf,
        /// Device and inode of the file that was bound, so that only it is removed.
        file: (u64, u64),
    },
}

/// A worker's own socket of a [`Listener`].
#[derive(Debug)]
pub enum Port {
    /// TCP.
    Tcp(TcpListener),
    /// unix.
    Unix(UnixListener),
}

impl Listener {
    /// Binds `addr` for `workers` workers. `field` names the parameter, for the error line.
    pub fn bind(field: &str, addr: &Addr, workers: usize) -> Result<Self, Failure> {
        let failed = |cause: &dyn fmt::Display| {
            let (flag, variable) = (field.replace('_', "-"), field.to_uppercase());
            Failure::runtime(format!("--{flag} (PODKIT_{variable}) {addr}"), cause)
        };
        let bound = match addr {
            Addr::Unix(path) => bind_unix(path),
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

    /// The TCP port, the kernel's choice when 0 was asked for. None for a unix socket.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// A socket for one worker. Each of the `workers` that were bound for gets its own.
    pub fn take(&self) -> io::Result<Port> {
        match &self.bound {
            Bound::Tcp(sockets) => {
                let mut sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
                let socket = sockets.pop();
                socket
                    .map(Port::Tcp)
                    .ok_or_else(|| io::Error::other("more workers than the listener was bound for"))
            }
            Bound::Unix { listener, .. } => listener.try_clone().map(Port::Unix),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Bound::Unix { path, file, .. } = &self.bound
            && identity(path).ok() == Some(*file)
        {
            drop(std::fs::remove_file(path));
        }
    }
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
    Ok(Listener {
        bound: Bound::Tcp(Mutex::new(sockets)),
        port: Some(port),
    })
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

fn bind_unix(path: &Path) -> io::Result<Listener> {
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
    Ok(Listener {
        bound: Bound::Unix {
            listener,
            path: path.to_owned(),
            file: identity(path)?,
        },
        port: None,
    })
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
