//! `--takeover SOCKET`: a process gives its listening sockets to the one that takes its place.
//!
//! ```text
//!   the new process                           the one that serves
//!   hello: module ───────────────────────────▶
//!                 ◀────────────────────────── sockets: address, descriptors (SCM_RIGHTS); … ; end
//!   builds, checks upstreams
//!   accepts; ready ──────────────────────────▶
//!                 ◀────────────────────────── leaving: it drains
//!   listens on SOCKET
//! ```
//!
//! Until `ready` nothing has changed for the old process: when the new one ends before, it goes on. Messages are JSON, one a
//! packet (SOCK_SEQPACKET). Both look who the other is: the same user, or root.
//!
//! Rejected: inheriting descriptors by exec, as nginx does (the new process would be a child of the old one, and no service
//! manager could start it).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamError;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Service;
use crate::admin::Change;
use crate::net::{Handed, Listeners, SocketFile};

/// How long the other process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a new process may take until it is able to serve.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Descriptors in a packet; the kernel takes 253 (SCM_MAX_FD).
const BATCH: usize = 64;
/// Bytes of a packet at most.
const PACKET: usize = 4096;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Message {
    Hello { module: String, pid: u32 },
    Sockets { field: String, addr: String },
    End,
    Refused { why: String },
    Ready,
    Leaving,
}

/// The process whose place this one takes.
#[derive(Debug)]
pub(super) struct Former {
    socket: OwnedFd,
}

impl Former {
    /// Asks the process that answers at `path` for its listening sockets. None when there is none.
    pub(super) fn find(
        path: &Path,
        module: &str,
        listeners: &Listeners,
    ) -> Result<Option<Self>, Failure> {
        let failed = |cause: &dyn std::fmt::Display| {
            Failure::runtime(
                format!("--takeover (PODKIT_TAKEOVER) {}", path.display()),
                cause,
            )
        };
        let addr = address(path)?;
        let socket = socket().map_err(|cause| failed(&cause))?;
        match rustix::net::connect(&socket, &addr) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
            Err(cause) => return Err(failed(&cause)),
        }
        let handed = ask(&socket, module).map_err(|cause| failed(&cause))?;
        info!(
            listeners = handed.len(),
            "taking over from the process that serves"
        );
        listeners.inherit(handed);
        Ok(Some(Self { socket }))
    }

    /// Tells it that this process serves. It drains then; when it is gone already, that is no fault.
    pub(super) fn dismiss(self) {
        let told = send(&self.socket, &Message::Ready, &[]).and_then(|()| receive(&self.socket));
        match told {
            Ok((Message::Leaving, _)) => info!("taken over; the former process drains"),
            Ok((other, _)) => warn!(?other, "the former process does not say that it drains"),
            Err(error) => warn!(why = %error, "the former process does not answer any more"),
        }
    }
}

fn ask(socket: &OwnedFd, module: &str) -> io::Result<Vec<Handed>> {
    trusted(socket)?;
    let hello = Message::Hello {
        module: module.to_owned(),
        pid: std::process::id(),
    };
    send(socket, &hello, &[])?;
    let mut handed: Vec<Handed> = Vec::new();
    loop {
        let (message, sockets) = receive(socket)?;
        match message {
            Message::Sockets { field, addr } => {
                match handed.iter_mut().find(|one| one.addr == addr) {
                    Some(known) => known.sockets.extend(sockets),
                    None => handed.push(Handed {
                        field,
                        addr,
                        sockets,
                    }),
                }
            }
            Message::End => return Ok(handed),
            Message::Refused { why } => return Err(io::Error::other(why)),
            other => return Err(io::Error::other(format!("an unexpected answer: {other:?}"))),
        }
    }
}

/// Returns when the service can do its work.
pub(super) async fn able(service: &dyn Service) -> Result<(), Failure> {
    let begun = tokio::time::Instant::now();
    loop {
        let failed = service
            .checks()
            .into_iter()
            .find_map(|(name, result)| Some((name, result.err()?)));
        let Some((name, why)) = failed else {
            return Ok(());
        };
        if begun.elapsed() >= START_PATIENCE {
            let what = format!(
                "taking over: not ready within {} s",
                START_PATIENCE.as_secs()
            );
            return Err(Failure::runtime(what, format_args!("{name}: {why}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Listens at `path` for a process that takes the place of this one, in a thread of its own until that has happened. Keep what is
/// returned: it is the socket's file.
pub(super) fn offer(
    path: &Path,
    module: &'static str,
    listeners: &Listeners,
    changes: mpsc::Sender<Change>,
) -> Result<SocketFile, Failure> {
    let failed = |cause: io::Error| {
        Failure::runtime(
            format!("--takeover (PODKIT_TAKEOVER) {}", path.display()),
            cause,
        )
    };
    let listening = listen(path).map_err(failed)?;
    let file = SocketFile::new(path).map_err(failed)?;
    let offer = Offer {
        path: path.to_owned(),
        module,
        listeners: listeners.clone(),
        changes,
    };
    std::thread::Builder::new()
        .name("takeover".to_owned())
        .spawn(move || offer.serve(&listening))
        .map_err(failed)?;
    Ok(file)
}

struct Offer {
    path: PathBuf,
    module: &'static str,
    listeners: Listeners,
    changes: mpsc::Sender<Change>,
}

impl Offer {
    fn serve(&self, listening: &OwnedFd) {
        loop {
            let accepted = rustix::net::accept_with(listening, SocketFlags::CLOEXEC);
            let accepted = match accepted {
                Ok(accepted) => accepted,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => {
                    return warn!(path = %self.path.display(), why = %error, "--takeover ended");
                }
            };
            match self.hand_over(&accepted) {
                Ok(()) => return,
                Err(error) => warn!(why = %error, "not taken over; going on"),
            }
        }
    }

    /// Gives the sockets away; an error says why this process goes on.
    fn hand_over(&self, socket: &OwnedFd) -> io::Result<()> {
        trusted(socket)?;
        set_patience(socket, PATIENCE)?;
        let (message, _) = receive(socket)?;
        let Message::Hello { module, pid } = message else {
            return Err(io::Error::other("the other process does not say hello"));
        };
        if module != self.module {
            let why = format!("there is podkit {}, not {module}", self.module);
            send(socket, &Message::Refused { why: why.clone() }, &[])?;
            return Err(io::Error::other(why));
        }
        let handed = self.listeners.handed()?;
        if handed.is_empty() {
            let why = "the process that is there is stopping";
            send(
                socket,
                &Message::Refused {
                    why: why.to_owned(),
                },
                &[],
            )?;
            return Err(io::Error::other("stopping"));
        }
        for one in handed {
            for sockets in one.sockets.chunks(BATCH) {
                let message = Message::Sockets {
                    field: one.field.clone(),
                    addr: one.addr.clone(),
                };
                send(socket, &message, sockets)?;
            }
        }
        send(socket, &Message::End, &[])?;
        info!(pid, "a process takes over; serving until it is ready");
        set_patience(socket, START_PATIENCE + PATIENCE)?;
        match receive(socket) {
            Ok((Message::Ready, _)) => {}
            Ok((other, _)) => return Err(io::Error::other(format!("unexpected: {other:?}"))),
            Err(error) => {
                let why = format!("the process that would take over is gone ({error})");
                return Err(io::Error::other(why));
            }
        }
        // It serves whether it hears this or not.
        drop(send(socket, &Message::Leaving, &[]));
        self.changes
            .blocking_send(Change::HandOver)
            .map_err(|_| io::Error::other("this process has ended"))
    }
}

/// Binds beside `path` and moves that there, so that there is always a socket that somebody answers at.
fn listen(path: &Path) -> io::Result<OwnedFd> {
    let is_other = |file: std::fs::Metadata| !file.file_type().is_socket();
    if std::fs::symlink_metadata(path).is_ok_and(is_other) {
        return Err(io::Error::other("there is a file that is not a socket"));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&beside)?)?;
    // Nobody can connect before it listens.
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, 4)?;
    set_patience(&socket, Duration::ZERO)?;
    std::fs::rename(&beside, path)?;
    Ok(socket)
}

fn address(path: &Path) -> Result<SocketAddrUnix, Failure> {
    // Room for what `listen` adds.
    let most = 107 - ".4194304".len();
    let long = path.as_os_str().len() > most;
    let addr = SocketAddrUnix::new(path);
    match addr {
        Ok(addr) if !long => Ok(addr),
        _ => {
            let why = format!(
                "\"{}\" is too long for a socket; at most {most} bytes",
                path.display()
            );
            Err(ParamError::new("takeover", why).into())
        }
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    set_patience(&socket, PATIENCE)?;
    Ok(socket)
}

/// Zero: forever.
fn set_patience(socket: &OwnedFd, patience: Duration) -> io::Result<()> {
    let patience = Some(patience).filter(|patience| !patience.is_zero());
    sockopt::set_socket_timeout(socket, Timeout::Recv, patience)?;
    sockopt::set_socket_timeout(socket, Timeout::Send, patience)?;
    Ok(())
}

/// The other side is the same user, or root.
fn trusted(socket: &OwnedFd) -> io::Result<()> {
    let user = sockopt::socket_peercred(socket)?.uid;
    match user == rustix::process::geteuid() || user.is_root() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "the other process is user {}'s; it must be the same user's or root's",
            user.as_raw()
        ))),
    }
}

fn send(socket: &OwnedFd, message: &Message, sockets: &[OwnedFd]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(
            socket,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

fn receive(socket: &OwnedFd) -> io::Result<(Message, Vec<OwnedFd>)> {
    let mut bytes = [0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })
    .map_err(|error| match error {
        Errno::AGAIN => io::Error::other("no answer in time"),
        error => error.into(),
    })?;
    let sockets = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => sockets.collect(),
        _ => Vec::new(),
    });
    let sockets = sockets.collect();
    match received.bytes {
        0 => Err(io::Error::other("it ended")),
        count => Ok((serde_json::from_slice(&bytes[..count])?, sockets)),
    }
}
