//! What the supervisor and the stage say to each other, over one stream socket: the supervisor sends a [`Job`], the
//! stage and its child answer with [`Reply`]s. The end of the stream means that the program has been executed, since
//! the socket is close-on-exec.
//!
//! A message is its length (4 bytes, little endian) and JSON: a few hundred bytes, parsed in some ten microseconds. Each
//! reply is one send, so that the stage's and its child's do not mix.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::Pid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::seccomp::Filter;
use super::spec::{Rlimit, WindowSize};
use super::user_namespace::Ids;
use crate::image::Root;
use crate::plan::Propagation;

/// What the stage is to do. Descriptors are numbers that were kept open for it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Become the init of a new pod.
    Pod(PodJob),
    /// Start a container.
    Container {
        /// The pod's init.
        init: RawFd,
        /// A PID namespace of its own.
        own_pids: bool,
        root: Root,
        /// Where this binary can be mounted from.
        binary: PathBuf,
        mounts: Vec<MountJob>,
        read_only_root: bool,
        /// What is shown of the machine.
        access: Access,
        host: Host,
        /// The machine's mount namespace, when a mount needs it.
        machine: Option<RawFd>,
        /// The pod's `/dev/shm`, in the private mounts.
        shm: PathBuf,
        /// Its `/proc` there, where it has one.
        proc: Option<PathBuf>,
        run: Run,
    },
    /// Run a command in a container.
    Exec {
        /// Its process.
        container: RawFd,
        run: Run,
    },
}

/// What a new pod has.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PodJob {
    pub(super) hostname: String,
    pub(super) host: Host,
    /// Its containers share a PID namespace of the pod's own, which a `/proc` is made for.
    pub(super) shared_pids: bool,
    /// In the pod's own namespaces, by name.
    pub(super) sysctls: Vec<(String, String)>,
    /// The end of the pipe that the init reads.
    pub(super) pipe: RawFd,
    /// The program that the init becomes.
    pub(super) pause: RawFd,
    pub(super) cgroups: Vec<PathBuf>,
}

/// The machine's namespaces in place of the pod's own.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Host {
    pub(super) network: bool,
    pub(super) pid: bool,
    pub(super) ipc: bool,
}

/// How much of the machine a container sees in `/proc`, `/sys` and `/dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Access {
    /// As containers have it.
    Usual,
    /// `procMount: Unmasked`: all of `/proc`.
    UnmaskedProc,
    /// All of all three.
    Privileged,
}

/// One mount.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MountJob {
    pub(super) source: SourceJob,
    pub(super) target: PathBuf,
    pub(super) read_only: bool,
    pub(super) recursive_read_only: bool,
    pub(super) propagation: Propagation,
    pub(super) optional: bool,
}

/// Where it comes from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SourceJob {
    Path(PathBuf),
    Fd(RawFd),
}

/// How the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) argv: Vec<String>,
    pub(super) stdio: StdioJob,
    pub(super) identity: Identity,
}

/// Its standard input, output, error.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum StdioJob {
    Fds([Option<RawFd>; 3]),
    Terminal(WindowSize),
}

/// What a container and the commands in it have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: PathBuf,
    pub(super) uid: Option<u32>,
    /// Counts when there is no `uid`.
    pub(super) image_user: Option<String>,
    pub(super) gid: Option<u32>,
    pub(super) groups: Vec<u32>,
    /// The ids that there are.
    pub(super) ids: Ids,
    /// The image's `/etc/group` adds none.
    pub(super) groups_strict: bool,
    pub(super) capabilities: u64,
    /// Those that were asked for by name: missing ones are worth a warning.
    pub(super) wanted: u64,
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: Option<Filter>,
    /// Somebody in its PID namespace may have CAP_SYS_PTRACE.
    pub(super) traceable: bool,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) rlimits: Vec<Rlimit>,
    pub(super) cgroups: Vec<PathBuf>,
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The stage ends, and another goes on in its place; that one's pidfd comes with the message.
    Stage,
    /// The process exists; its pidfd comes with the message.
    Started,
    /// The `/proc` of the pod's PID namespace comes with the message.
    Proc,
    /// The container's mount namespace, by which its processes are known, comes with the message.
    MountNamespace,
    /// The other end of the process's terminal comes with the message.
    Terminal,
    /// All is done but the exec. Without it the end of the stream means that the process was killed.
    Executing,
    /// Something asked for could not be had; the start goes on.
    Warning(String),
    /// The start is over.
    Failed { step: String, errno: i32 },
    /// The program is nowhere in `PATH`.
    NotFound(String),
}

/// Larger messages are a mistake: an environment can have 2 MiB (`ARG_MAX`) and JSON may double it.
const LIMIT: u32 = 8 << 20;

fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4)
        .ok()
        .filter(|length| *length <= LIMIT);
    let length = length.ok_or(io::ErrorKind::FileTooLarge)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Sends a job.
pub(super) fn send_job(mut socket: &UnixStream, job: &Job) -> io::Result<()> {
    socket.write_all(&encode(job)?)
}

/// Reads a job.
pub(super) fn receive_job(mut socket: &UnixStream) -> io::Result<Job> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    receive_body(socket, length)
}

fn receive_body<T: DeserializeOwned>(mut socket: &UnixStream, length: [u8; 4]) -> io::Result<T> {
    let length = u32::from_le_bytes(length);
    if length > LIMIT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length as usize];
    socket.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

/// Sends a reply, with a descriptor when there is one, in one piece.
pub(super) fn send_reply(
    socket: &UnixStream,
    reply: &Reply,
    fd: Option<&OwnedFd>,
) -> io::Result<()> {
    let bytes = encode(reply)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let sent = rustix::io::retry_on_intr(|| {
        sendmsg(
            socket,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// A reply as it came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) reply: Reply,
    pub(super) fd: Option<OwnedFd>,
    /// By the kernel's word, where the socket asks for it (SO_PASSCRED).
    pub(super) sender: Option<Pid>,
}

/// Reads a reply; none at the end of the stream.
pub(super) fn receive_reply(socket: &UnixStream) -> io::Result<Option<Received>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    // A signal interrupts this call whatever its handler says, since the socket has a time limit (signal(7)).
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut length)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let (mut fd, mut sender) = (None, None);
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fd = fds.next(),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
            _ => {}
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    (&*socket).read_exact(&mut length[received.bytes..])?;
    let reply = receive_body(socket, length)?;
    Ok(Some(Received { reply, fd, sender }))
}
