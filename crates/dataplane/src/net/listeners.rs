//! The listeners of a process together: bound, given on to the process that comes after it, taken from the one before.
//!
//! A port can't be given up and bound again without refusing somebody in between, and closing a listening socket resets what
//! waits in its queue. So it is the sockets that are handed on: both processes have them for a while, and whoever accepts a
//! connection serves it. The same goes for a listener whose settings change inside a process.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use podkit_foundation::error::Failure;
use podkit_foundation::params::Addr;
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::sync::watch;

use super::listen::{Door, Listener, SocketFile};

/// The listeners of a process. Clones share.
#[derive(Debug, Clone)]
pub struct Listeners(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Opened when sockets of another process may be accepted from.
    gate: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Sockets are kept after workers have taken theirs.
    keeps: bool,
    held: Vec<Held>,
    /// From the process before, not asked for yet.
    inherited: Vec<Handed>,
}

/// Sockets that are kept, to be handed on.
#[derive(Debug)]
struct Held {
    field: String,
    addr: Addr,
    doors: Vec<Door>,
    file: Option<Arc<SocketFile>>,
}

/// The sockets of an address, on their way from one process to the next.
#[derive(Debug)]
pub(crate) struct Handed {
    /// The parameter.
    pub(crate) field: String,
    /// As it was given.
    pub(crate) addr: String,
    /// One for each worker of the process that bound them.
    pub(crate) sockets: Vec<OwnedFd>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            gate: watch::Sender::new(true),
        }))
    }
}

impl Listeners {
    /// From now on, sockets are kept so that they can be handed on. Costs a descriptor for each.
    pub fn keep(&self) {
        self.lock().keeps = true;
    }

    /// As [`Listener::bind`]; sockets of the process before are used where it had that address.
    pub fn bind(&self, field: &str, addr: &Addr, workers: usize) -> Result<Listener, Failure> {
        let text = addr.to_string();
        let mut state = self.lock();
        let at = state.inherited.iter().position(|one| one.addr == text);
        let handed = at.map(|at| state.inherited.swap_remove(at));
        drop(state);
        let listener = match handed {
            None => Listener::bind(field, addr, workers)?,
            Some(handed) => self.adopt(handed, addr, workers).map_err(|cause| {
                Failure::runtime(format!("taking over the listener {text}"), cause)
            })?,
        };
        self.hold(field, addr, &listener)
            .map_err(|cause| Failure::runtime(format!("keeping the listener {text}"), cause))?;
        Ok(listener)
    }

    /// A listener of an address that is bound already, for workers that take the place of those that have it. None when it
    /// is not bound.
    pub fn again(&self, addr: &Addr, workers: usize) -> Option<io::Result<Listener>> {
        let state = self.lock();
        let held = state.held.iter().find(|held| held.addr == *addr)?;
        let doors: io::Result<Vec<Door>> = held.doors.iter().map(Door::try_clone).collect();
        let file = held.file.clone();
        drop(state);
        Some(doors.and_then(|doors| Listener::of(doors, workers, file, self.0.gate.subscribe())))
    }

    /// Closes what is kept of an address: workers that still accept from it have it as long as they want.
    pub fn release(&self, addr: &Addr) {
        self.lock().held.retain(|held| held.addr != *addr);
    }

    /// Closes all that is kept.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        (state.keeps, state.held) = (false, Vec::new());
        state.inherited.clear();
    }

    /// The process after this one has the sockets.
    pub(crate) fn leave(&self) {
        self.leave_files(true);
        self.close();
    }

    /// Copies of all sockets, for the process after this one.
    pub(crate) fn handed(&self) -> io::Result<Vec<Handed>> {
        let state = self.lock();
        let copy = |held: &Held| {
            let sockets = held
                .doors
                .iter()
                .map(|door| door.as_fd().try_clone_to_owned());
            Ok(Handed {
                field: held.field.clone(),
                addr: held.addr.to_string(),
                sockets: sockets.collect::<io::Result<_>>()?,
            })
        };
        state.held.iter().map(copy).collect()
    }

    /// Takes the sockets of the process before: they are used by [`Listeners::bind`], and not accepted from before
    /// [`Listeners::open`].
    pub(crate) fn inherit(&self, handed: Vec<Handed>) {
        self.0.gate.send_replace(false);
        self.lock().inherited = handed;
    }

    /// Accepts from what was inherited; closes what nobody asked for.
    pub(crate) fn open(&self) {
        self.lock().inherited.clear();
        self.leave_files(false);
        self.0.gate.send_replace(true);
    }

    fn leave_files(&self, left: bool) {
        let state = self.lock();
        for file in state.held.iter().filter_map(|held| held.file.as_ref()) {
            file.leave(left);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, field: &str, addr: &Addr, listener: &Listener) -> io::Result<()> {
        let mut state = self.lock();
        if state.keeps {
            state.held.push(Held {
                field: field.to_owned(),
                addr: addr.clone(),
                doors: listener.copies()?,
                file: listener.file(),
            });
        }
        Ok(())
    }

    fn adopt(&self, handed: Handed, addr: &Addr, workers: usize) -> io::Result<Listener> {
        if handed.sockets.is_empty() {
            return Err(io::Error::other("the process before has no socket for it"));
        }
        let doors = handed.sockets.into_iter().map(|socket| door(socket, addr));
        let doors = doors.collect::<io::Result<Vec<_>>>()?;
        let file = match addr {
            Addr::Unix(path) => Some(Arc::new(SocketFile::new(path)?)),
            _ => None,
        };
        // Until this process serves, the other one may go on.
        if let Some(file) = &file {
            file.leave(true);
        }
        Listener::of(doors, workers, file, self.0.gate.subscribe())
    }
}

/// A socket that came from another process, if it is what it is said to be.
fn door(socket: OwnedFd, addr: &Addr) -> io::Result<Door> {
    let wrong = |why: &str| {
        Err(io::Error::other(format!(
            "what came is not such a socket: {why}"
        )))
    };
    if !listens(socket.as_fd())? {
        return wrong("it does not listen");
    }
    let name = rustix::net::getsockname(&socket)?;
    let is_unix = sockopt::socket_domain(&socket)? == AddressFamily::UNIX;
    if is_unix != matches!(addr, Addr::Unix(_)) {
        return wrong("it is of another family");
    }
    rustix::io::ioctl_fionbio(&socket, true)?;
    if is_unix {
        return Ok(Door::Unix(socket.into()));
    }
    let name = std::net::SocketAddr::try_from(name)?;
    let fits = match addr {
        Addr::Ip(ip, port) => name.ip() == *ip && (*port == 0 || name.port() == *port),
        Addr::Port(port) => name.ip().is_unspecified() && (*port == 0 || name.port() == *port),
        Addr::Name(_, port) => name.ip().is_loopback() && (*port == 0 || name.port() == *port),
        Addr::Unix(_) => false,
    };
    match fits {
        true => Ok(Door::Tcp(socket.into())),
        false => wrong(&format!("it listens on {name}")),
    }
}

fn listens(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_acceptconn(socket)? && sockopt::socket_type(socket)? == SocketType::STREAM)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use podkit_foundation::params::ParamType as _;

    use super::*;

    /// As between two processes: what `from` has is bound again by what is returned.
    fn next(from: &Listeners) -> Listeners {
        let to = Listeners::default();
        to.keep();
        to.inherit(from.handed().unwrap());
        to
    }

    /// How many sockets each worker has.
    fn spread(listener: &Listener, workers: usize) -> Vec<usize> {
        let mut counts: Vec<usize> = (0..workers)
            .map(|_| listener.take().unwrap().doors.len())
            .collect();
        counts.sort_unstable();
        counts
    }

    #[test]
    fn sockets_go_on_whatever_the_number_of_workers() {
        let first = Listeners::default();
        first.keep();
        let addr = Addr::parse("127.0.0.1:0").unwrap();
        let bound = first.bind("listen", &addr, 2).unwrap();
        let port = bound.port().unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut last = first;
        for (workers, expected) in [(2, vec![1, 1]), (1, vec![2]), (3, vec![1, 1, 1])] {
            let next = next(&last);
            let listener = next.bind("listen", &addr, workers).unwrap();
            assert_eq!(listener.port(), Some(port));
            assert_eq!(spread(&listener, workers), expected);
            last.leave();
            last = next;
        }
        drop(bound);
        // What waited in the queue since the first is there still, and the port is taken.
        let text = format!("127.0.0.1:{port}");
        let taken = Listener::bind("listen", &Addr::parse(&text).unwrap(), 1).unwrap_err();
        assert!(taken.to_string().ends_with("address in use"), "{taken}");
        let doors = last.lock().held.remove(0).doors;
        let accepted = doors.iter().find_map(|door| match door {
            Door::Tcp(listener) => listener.accept().ok(),
            Door::Unix(_) => None,
        });
        accepted.unwrap().0.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn a_socket_file_stays_with_the_process_that_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let addr = Addr::Unix(path.clone());
        let first = Listeners::default();
        first.keep();
        let bound = first.bind("listen", &addr, 1).unwrap();
        // One that fails before it serves.
        let failing = next(&first);
        drop(failing.bind("listen", &addr, 1).unwrap());
        drop(failing);
        assert!(path.exists());
        let second = next(&first);
        let taken = second.bind("listen", &addr, 1).unwrap();
        second.open();
        first.leave();
        drop((bound, first));
        assert!(path.exists());
        drop((taken, second));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_such_socket_is_refused() {
        let handed = |socket: OwnedFd, addr: &str| {
            let listeners = Listeners::default();
            listeners.inherit(vec![Handed {
                field: "listen".to_owned(),
                addr: addr.to_owned(),
                sockets: vec![socket],
            }]);
            let addr = Addr::parse(addr).unwrap();
            listeners.bind("listen", &addr, 1).unwrap_err().to_string()
        };
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        let line = handed(client.into(), "127.0.0.1:80");
        assert!(line.ends_with("it does not listen"), "{line}");
        let line = handed(other.try_clone().unwrap().into(), "unix:/run/x");
        assert!(line.ends_with("it is of another family"), "{line}");
        let line = handed(other.into(), "127.0.0.1:80");
        assert!(line.contains("it listens on 127.0.0.1:"), "{line}");
    }

    #[test]
    fn a_listener_that_is_kept_can_be_had_again_until_it_is_released() {
        let listeners = Listeners::default();
        listeners.keep();
        let addr = Addr::parse("127.0.0.1:0").unwrap();
        let bound = listeners.bind("listen", &addr, 1).unwrap();
        let port = bound.port();
        drop(bound);
        let again = listeners.again(&addr, 1).unwrap().unwrap();
        assert_eq!(again.port(), port);
        drop(again);
        listeners.release(&addr);
        assert!(listeners.again(&addr, 1).is_none());
        assert!(TcpStream::connect(("127.0.0.1", port.unwrap())).is_err());
    }
}
