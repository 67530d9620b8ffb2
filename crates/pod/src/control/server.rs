//! The supervisor's end of the control socket: a task for each connection, on the supervisor's thread.
//!
//! A connection never holds up the pod: it waits for its own client alone, takes no lock, and there are at most
//! [`CONNECTIONS_MAX`]. What a client starts ends with its connection.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::board::Board;
use super::wire::{self, Frame, Frames, INPUT_MAX, Kind, Refusal, Request};
use crate::net::PodNet;
use crate::runner::Subject;

mod attach;
mod exec;
mod forward;

/// The socket's name in the pod's run directory.
pub(super) const SOCKET: &str = "control.sock";

/// Connections at once; one more is refused at once.
const CONNECTIONS_MAX: usize = 128;
/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long clients may take to read the end, when the pod ends.
const END_TIME: Duration = Duration::from_millis(200);

/// What connections ask of the supervisor.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Stop the pod; with its own grace period when none is given.
    Stop(Option<Duration>),
    /// The present run of a container, by its name; none: it does not run.
    Subject(String, oneshot::Sender<Result<Subject, Refusal>>),
}

/// The listening socket and its connections.
#[derive(Debug)]
pub(crate) struct Server {
    board: Rc<Board>,
    accepting: AbortHandle,
    ends: oneshot::Receiver<()>,
}

/// What a connection stands on.
#[derive(Debug, Clone)]
struct Context {
    board: Rc<Board>,
    net: Arc<PodNet>,
    asks: mpsc::UnboundedSender<Asked>,
}

impl Server {
    /// Listens in the pod's run directory. Needs a `LocalSet`.
    pub(crate) fn listen(
        dir: &Path,
        board: Rc<Board>,
        net: Arc<PodNet>,
        asks: mpsc::UnboundedSender<Asked>,
    ) -> io::Result<Self> {
        // Through its directory's descriptor: a path of more than 107 bytes is too long for a socket.
        let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
        let listener = UnixListener::bind(&path)?;
        // Whoever was quicker than this is told from his user id.
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o600))?;
        let context = Context {
            board: Rc::clone(&board),
            net,
            asks,
        };
        let (last, ends) = oneshot::channel();
        let accepting = tokio::task::spawn_local(accept(listener, context, last)).abort_handle();
        Ok(Self {
            board,
            accepting,
            ends,
        })
    }

    /// Lets those who watch read the end, for a moment, and closes all connections.
    pub(crate) async fn close(self) {
        self.board.end();
        // Whoever is still there is not waited for.
        let _patience = tokio::time::timeout(END_TIME, self.ends).await;
        self.accepting.abort();
    }
}

/// Accepts until the pod ends, then waits for the connections. Whoever aborts this aborts them.
async fn accept(listener: UnixListener, context: Context, _last: oneshot::Sender<()>) {
    let places = Rc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut changes = context.board.watch_events();
    while !context.board.ended() {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (context, places) = (context.clone(), Rc::clone(&places));
                    connections.spawn_local(async move {
                        let place = places.try_acquire();
                        let talk = connection(stream, context, place.is_ok()).await;
                        if let Err(error) = talk {
                            tracing::debug!(%error, "a control connection has ended");
                        }
                    });
                }
                // Out of descriptors: others may be closed meanwhile.
                Err(error) => {
                    tracing::warn!(%error, "no control connection can be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = changes.changed() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The two halves of a connection.
struct Peer {
    input: Input,
    output: Out,
}

/// Frames from the client.
struct Input {
    read: OwnedReadHalf,
    frames: Frames,
    buffer: Box<[u8]>,
}

/// Frames to the client.
struct Out {
    write: OwnedWriteHalf,
}

impl Input {
    /// The next frame; none at the end.
    async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let next = self.frames.next();
            if let Some(frame) = next.map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            let count = self.read.read(&mut self.buffer).await?;
            if count == 0 {
                return Ok(None);
            }
            self.frames.feed(&self.buffer[..count]);
        }
    }

    /// Returns when the client has gone; what it still sends is of no meaning.
    async fn gone(&mut self) {
        while matches!(self.read.read(&mut self.buffer).await, Ok(1..)) {}
    }
}

impl Input {
    /// Whether the client is gone, though not all that it sent has been taken.
    fn hung_up(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let socket: &UnixStream = self.read.as_ref();
        let mut look = [PollFd::new(socket, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut look, Some(&now)).is_ok() && look[0].revents().contains(PollFlags::HUP)
    }
}

impl Out {
    async fn frame(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(&wire::frame(kind, bytes)).await
    }

    async fn end(&mut self, end: &serde_json::Value) -> io::Result<()> {
        self.frame(Kind::End, end.to_string().as_bytes()).await
    }

    async fn refuse(&mut self, refusal: &Refusal) -> io::Result<()> {
        self.write.write_all(&wire::refused(refusal)).await
    }
}

async fn connection(stream: UnixStream, context: Context, place: bool) -> io::Result<()> {
    let allowed = stream.peer_cred()?.uid();
    let (read, write) = stream.into_split();
    let mut output = Out { write };
    output.write.write_all(&wire::hello()).await?;
    let me = rustix::process::geteuid().as_raw();
    if allowed != 0 && allowed != me {
        let refusal = Refusal::new("Forbidden", "the pod belongs to another user");
        return output.refuse(&refusal).await;
    }
    if !place {
        let busy = format!("{CONNECTIONS_MAX} connections are open: try again later");
        let refusal = Refusal::new("TooManyRequests", busy);
        return output.refuse(&refusal).await;
    }
    let mut input = Input {
        read,
        frames: Frames::new(INPUT_MAX),
        buffer: vec![0; 16 * 1024].into_boxed_slice(),
    };
    let line = tokio::time::timeout(REQUEST_TIME, request_line(&mut input)).await;
    let request = match line.map_err(|_| io::ErrorKind::TimedOut)?? {
        Some(line) => Request::read(&line),
        None => Err(Refusal::new("BadRequest", "the request is too long")),
    };
    match request {
        Ok(request) => serve(request, Peer { input, output }, context).await,
        Err(refusal) => output.refuse(&refusal).await,
    }
}

/// The first line; none when it is too long. What comes behind it belongs to the frames.
async fn request_line(input: &mut Input) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let count = input.read.read(&mut input.buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = &input.buffer[..count];
        if let Some(end) = memchr::memchr(b'\n', bytes) {
            line.extend_from_slice(&bytes[..end]);
            input.frames.feed(&bytes[end + 1..]);
            return Ok(Some(line));
        }
        line.extend_from_slice(bytes);
        if line.len() > wire::REQUEST_MAX {
            return Ok(None);
        }
    }
}

async fn serve(request: Request, mut peer: Peer, context: Context) -> io::Result<()> {
    match request {
        Request::Hello => peer.output.end(&serde_json::json!({})).await,
        Request::Pod { watch } => {
            let Peer { input, output } = &mut peer;
            tokio::select! {
                shown = pod(output, &context, watch) => shown,
                () = input.gone() => Ok(()),
            }
        }
        Request::Events { watch } => {
            let Peer { input, output } = &mut peer;
            tokio::select! {
                told = events(output, &context, watch) => told,
                () = input.gone() => Ok(()),
            }
        }
        Request::Pulls { watch } => {
            let Peer { input, output } = &mut peer;
            tokio::select! {
                told = pulls(output, &context, watch) => told,
                () = input.gone() => Ok(()),
            }
        }
        Request::Stop { grace_seconds } => {
            let grace = grace_seconds.map(Duration::from_secs);
            // It listens for as long as the pod lives.
            let _heard = context.asks.send(Asked::Stop(grace));
            peer.output.end(&serde_json::json!({})).await
        }
        Request::Exec(exec) => match subject(&context, &exec.container).await {
            Ok(subject) => exec::exec(exec, subject, peer).await,
            Err(refusal) => peer.output.refuse(&refusal).await,
        },
        Request::Attach(attach) => match subject(&context, &attach.container).await {
            Ok(subject) => attach::attach(&attach, &subject, peer).await,
            Err(refusal) => peer.output.refuse(&refusal).await,
        },
        Request::Forward { port } => forward::forward(port, &context.net, peer).await,
    }
}

async fn pod(output: &mut Out, context: &Context, watch: bool) -> io::Result<()> {
    let mut pods = context.board.watch_pod();
    loop {
        let ended = context.board.ended();
        let pod: Arc<str> = pods.borrow_and_update().clone();
        output.frame(Kind::Json, pod.as_bytes()).await?;
        if !watch || ended {
            return output.end(&serde_json::json!({})).await;
        }
        // The board lives as long as this.
        let _changed = pods.changed().await;
    }
}

async fn events(output: &mut Out, context: &Context, watch: bool) -> io::Result<()> {
    let mut told = context.board.watch_events();
    let mut seen = 0;
    loop {
        let ended = context.board.ended();
        told.mark_unchanged();
        let events = context.board.events().after(seen);
        seen = context.board.events().latest();
        for event in events {
            output
                .frame(Kind::Json, event.to_string().as_bytes())
                .await?;
        }
        if !watch || ended {
            return output.end(&serde_json::json!({})).await;
        }
        let _changed = told.changed().await;
    }
}

async fn pulls(output: &mut Out, context: &Context, watch: bool) -> io::Result<()> {
    let board = &context.board;
    // The pod's end wakes those who wait for events.
    let (mut look, mut end) = (board.pulls().look(), board.watch_events());
    loop {
        let ended = board.ended();
        let told = serde_json::json!({"pulls": look.underway()});
        output
            .frame(Kind::Json, told.to_string().as_bytes())
            .await?;
        if !watch || ended {
            return output.end(&serde_json::json!({})).await;
        }
        let over = async {
            while !board.ended() {
                let _changed = end.changed().await;
            }
        };
        tokio::select! {
            () = look.changed() => {}
            () = over => {}
        }
    }
}

/// The present run of a container.
async fn subject(context: &Context, container: &str) -> Result<Subject, Refusal> {
    let (answer, is_answered) = oneshot::channel();
    let _heard = context
        .asks
        .send(Asked::Subject(container.to_owned(), answer));
    is_answered
        .await
        .unwrap_or_else(|_| Err(Refusal::new("NotFound", "the pod is about to end")))
}
