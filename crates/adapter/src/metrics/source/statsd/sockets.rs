//! Where lines come in: bound before anything runs, so that a taken port is one line and the end.

use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use podkit_foundation::params::Addr;
use rustix::net::sockopt;

/// What is listened on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Places {
    pub(super) udp: Option<Addr>,
    pub(super) tcp: Option<Addr>,
    /// And the mode of its file.
    pub(super) unixgram: Option<(PathBuf, u32)>,
    /// Bytes that wait in the kernel.
    pub(super) read_buffer: usize,
}

/// What is bound.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) udp: Option<UdpSocket>,
    pub(super) tcp: Option<TcpListener>,
    pub(super) unixgram: Option<Unixgram>,
}

/// A socket and its file, which goes with it.
#[derive(Debug)]
pub(super) struct Unixgram {
    pub(super) socket: UnixDatagram,
    path: PathBuf,
    /// Device and inode, so that no other file is removed.
    file: (u64, u64),
}

impl Drop for Unixgram {
    fn drop(&mut self) {
        if identity(&self.path).ok() == Some(self.file) {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Binds all. An error is one line.
pub(super) fn bind(places: &Places) -> Result<Sockets, String> {
    let said = |what: &str, addr: &Addr, error: &io::Error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "address in use".to_owned(),
            io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        format!("{what} {addr}: {why}")
    };
    let udp = match &places.udp {
        None => None,
        Some(addr) => {
            let socket = on(addr, UdpSocket::bind)
                .and_then(|socket| prepare(&socket, places).map(|()| socket));
            let socket = socket.map_err(|error| said("udp", addr, &error))?;
            socket
                .set_nonblocking(true)
                .map_err(|error| said("udp", addr, &error))?;
            Some(socket)
        }
    };
    let tcp = match &places.tcp {
        None => None,
        Some(addr) => {
            let listener = on(addr, TcpListener::bind)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
            Some(listener.map_err(|error| said("tcp", addr, &error))?)
        }
    };
    let unixgram = match &places.unixgram {
        None => None,
        Some((path, mode)) => {
            let bound = unixgram(path, *mode).and_then(|bound| {
                prepare(&bound.socket, places)?;
                Ok(bound)
            });
            Some(bound.map_err(|error| said("unixgram", &Addr::Unix(path.clone()), &error))?)
        }
    };
    Ok(Sockets { udp, tcp, unixgram })
}

fn on<T>(addr: &Addr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match addr {
        Addr::Port(port) => {
            let all = |ip: IpAddr| bind(SocketAddr::new(ip, *port));
            all(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                // A machine without IPv6.
                _ => all(Ipv4Addr::UNSPECIFIED.into()),
            })
        }
        Addr::Ip(ip, port) => bind(SocketAddr::new(*ip, *port)),
        Addr::Name(name, port) if name == "localhost" => {
            bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), *port))
        }
        Addr::Name(..) | Addr::Unix(_) => Err(io::Error::other(
            "what listens takes an IP address, :port or localhost:port, not a name",
        )),
    }
}

/// Makes room in the kernel: as root more than `net.core.rmem_max` allows.
fn prepare(socket: &impl AsFd, places: &Places) -> io::Result<()> {
    let bytes = places.read_buffer;
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, bytes)?;
    }
    // The kernel says twice what it was asked for.
    let has = sockopt::socket_recv_buffer_size(socket)? / 2;
    if has < bytes {
        tracing::info!(
            asked = bytes,
            has,
            "the kernel gives the statsd socket a smaller buffer; net.core.rmem_max bounds it"
        );
    }
    Ok(())
}

fn unixgram(path: &Path, mode: u32) -> io::Result<Unixgram> {
    let socket = UnixDatagram::bind(path).or_else(|error| {
        match error.kind() == io::ErrorKind::AddrInUse && is_stale(path) {
            true => {
                std::fs::remove_file(path)?;
                UnixDatagram::bind(path)
            }
            false => Err(error),
        }
    })?;
    let bound = Unixgram {
        socket,
        path: path.to_owned(),
        file: identity(path)?,
    };
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    bound.socket.set_nonblocking(true)?;
    Ok(bound)
}

/// The file of a process that was killed: nobody takes what is sent there.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = || {
        let tried = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
        tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    is_socket && refused()
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Packets that the kernel dropped, since nobody took them in time: of the UDP socket with this inode.
pub(super) fn drops(inode: u64) -> Option<u64> {
    ["/proc/self/net/udp6", "/proc/self/net/udp"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find_map(|table| drops_of(&table, inode))
}

/// `proc_net(5)`: the tenth field is the inode, the last the drops.
fn drops_of(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let own = fields.nth(9)?.parse() == Ok(inode);
        own.then(|| fields.last()?.parse().ok()).flatten()
    })
}

/// The inode of a socket.
pub(super) fn inode(socket: &impl AsFd) -> Option<u64> {
    let stat = rustix::fs::fstat(socket).ok()?;
    Some(stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_found_by_inode() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1: 00000000:23A5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n\
             2: 00000000:23A6 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 99\n";
        assert_eq!(drops_of(table, 4711), Some(0));
        assert_eq!(drops_of(table, 4712), Some(99));
        assert_eq!(drops_of(table, 99), None);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(drops(inode(&socket).unwrap()), Some(0));
    }
}
