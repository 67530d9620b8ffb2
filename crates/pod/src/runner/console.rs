//! The streams of a container's first process as those who attach to it see them: what it writes from now on, each of them all
//! of it, and its standard input, which is one for all. (Kubernetes: the CRI's `Attach`)
//!
//! What is written goes to the log first and to the attached after it. One that does not read is waited for, as a reader of a
//! pipe would be, and not for longer than [`SLOW_MAX`]: then it is let go, since a forgotten window may not stop a container.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::mpsc;

use super::output::Stream;
use crate::plan::StdinPlan;
use crate::sandbox::{Process, Signal, Sink, Source, Stdio, Terminal, WindowSize};

/// How long one who is attached and does not read holds up the container.
pub(crate) const SLOW_MAX: Duration = Duration::from_secs(5);
/// Pieces of output (of at most 16 KiB) that wait for one who is attached.
const PIECES: usize = 16;

/// Something that a container has written.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// To standard error.
    pub(crate) errors: bool,
    pub(crate) bytes: Arc<[u8]>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Console {
    plan: StdinPlan,
    stdin: Mutex<Option<Arc<Sink>>>,
    terminal: Option<Arc<Terminal>>,
    attached: Mutex<Vec<mpsc::Sender<Piece>>>,
    /// Streams that have not come to their end.
    open: AtomicUsize,
}

/// What a container writes to its streams, to be read.
pub(super) type Outputs = Vec<(Stream, Source)>;

/// The supervisor's ends, while the container is not started.
#[derive(Debug)]
pub(super) struct Streams {
    plan: StdinPlan,
    stdin: Option<OwnedFd>,
    /// None with a terminal.
    outputs: Option<[OwnedFd; 2]>,
}

impl Streams {
    /// Both ends of what the container's first process reads and writes.
    pub(super) fn make(plan: StdinPlan) -> io::Result<(Self, Stdio)> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        if plan.tty {
            let streams = Self {
                plan,
                stdin: None,
                outputs: None,
            };
            return Ok((streams, Stdio::Terminal(WindowSize::default())));
        }
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let (stdin_end, stdin) = match plan.open {
            true => pipe().map(|(read, write)| (Some(read), Some(write)))?,
            false => (None, None),
        };
        let stdio = Stdio::Fds {
            stdin: stdin_end,
            stdout: Some(stdout_end),
            stderr: Some(stderr_end),
        };
        let streams = Self {
            plan,
            stdin,
            outputs: Some([stdout, stderr]),
        };
        Ok((streams, stdio))
    }

    /// Joins them to the runtime, once the process runs. On an error that is killed.
    pub(super) fn join(self, process: &Process) -> io::Result<(Console, Outputs)> {
        let joined = self.of(process);
        if joined.is_err() {
            process.signal(Signal::KILL)?;
        }
        joined
    }

    fn of(self, process: &Process) -> io::Result<(Console, Outputs)> {
        let (stdin, terminal, outputs) = match self.outputs {
            Some([stdout, stderr]) => {
                let outputs = vec![
                    (Stream::Stdout, Source::pipe(stdout)?),
                    (Stream::Stderr, Source::pipe(stderr)?),
                ];
                (self.stdin.map(Sink::pipe).transpose()?, None, outputs)
            }
            None => {
                let terminal = process
                    .take_terminal()
                    .ok_or_else(|| io::Error::other("there is no terminal"))?;
                let terminal = Arc::new(Terminal::new(terminal)?);
                let stdin = self
                    .plan
                    .open
                    .then(|| Sink::Terminal(Arc::clone(&terminal)));
                // As with the CRI: what comes out of a terminal is standard output.
                let outputs = vec![(Stream::Stdout, Source::Terminal(Arc::clone(&terminal)))];
                (stdin, Some(terminal), outputs)
            }
        };
        let console = Console {
            plan: self.plan,
            stdin: Mutex::new(stdin.map(Arc::new)),
            terminal,
            attached: Mutex::default(),
            open: AtomicUsize::new(outputs.len()),
        };
        Ok((console, outputs))
    }
}

impl Console {
    /// Its terminal, with `tty`.
    pub(crate) fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_deref()
    }

    /// What is written from now on. It ends when the streams do; before that only for one who was too slow.
    pub(crate) fn attach(&self) -> mpsc::Receiver<Piece> {
        let (send, receive) = mpsc::channel(PIECES);
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.ended() {
            attached.push(send);
        }
        receive
    }

    /// Whether all that was written has been shown.
    pub(crate) fn ended(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// Joins standard input; why not, for people.
    pub(crate) fn type_in(&self) -> Result<Typing<'_>, String> {
        if !self.plan.open {
            return Err("it has no standard input: its `stdin` is not true".to_owned());
        }
        if self.stdin().is_none() {
            let why =
                "its standard input is closed: the first who was attached has left (stdinOnce)";
            return Err(why.to_owned());
        }
        Ok(Typing(self))
    }

    fn stdin(&self) -> Option<Arc<Sink>> {
        self.stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether anybody is to be shown what is written.
    pub(super) fn is_watched(&self) -> bool {
        let attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        !attached.is_empty()
    }

    /// Shows a piece to all who are attached, and lets those go who have left or do not read.
    pub(super) async fn show(&self, piece: &Piece) {
        let all = self
            .attached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for one in all {
            if one.send_timeout(piece.clone(), SLOW_MAX).await.is_err() {
                self.attached
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|other| !other.same_channel(&one));
            }
        }
    }

    /// One of the streams has come to its end.
    pub(super) fn stream_ended(&self) {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            attached.clear();
        }
    }
}

/// Somebody types into a container. With `stdinOnce` nobody does after it.
#[derive(Debug)]
pub(crate) struct Typing<'a>(&'a Console);

impl Typing<'_> {
    /// Where to; none when it has been closed.
    pub(crate) fn sink(&self) -> Option<Arc<Sink>> {
        self.0.stdin()
    }

    /// There is nothing more to come. Without `stdinOnce` the container is not told, since the next may have something; a
    /// terminal has no end. (containerd: `Container.Attach`)
    pub(crate) fn over(&self) {
        if self.0.plan.once && !self.0.plan.tty {
            self.0
                .stdin
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
        }
    }
}

impl Drop for Typing<'_> {
    fn drop(&mut self) {
        self.over();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn console(once: bool) -> (Console, std::fs::File) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let console = Console {
            plan: StdinPlan {
                open: true,
                once,
                tty: false,
            },
            stdin: Mutex::new(Some(Arc::new(Sink::pipe(write).unwrap()))),
            terminal: None,
            attached: Mutex::default(),
            open: AtomicUsize::new(2),
        };
        (console, read.into())
    }

    fn piece(text: &str) -> Piece {
        Piece {
            errors: false,
            bytes: text.as_bytes().into(),
        }
    }

    #[tokio::test]
    async fn all_who_are_attached_see_the_same() {
        let (console, _) = console(false);
        assert!(!console.is_watched());
        let (mut one, mut two) = (console.attach(), console.attach());
        console.show(&piece("a")).await;
        for seen in [&mut one, &mut two] {
            assert_eq!(&*seen.recv().await.unwrap().bytes, b"a");
        }
        drop(one);
        console.show(&piece("b")).await;
        assert_eq!(console.attached.lock().unwrap().len(), 1);
        console.stream_ended();
        assert!(!console.ended());
        console.stream_ended();
        assert_eq!(&*two.recv().await.unwrap().bytes, b"b");
        assert!(two.recv().await.is_none() && console.ended());
        assert!(console.attach().recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_let_go() {
        let (console, _) = console(false);
        let mut slow = console.attach();
        for _ in 0..PIECES {
            console.show(&piece("x")).await;
        }
        let begun = tokio::time::Instant::now();
        console.show(&piece("too much")).await;
        assert_eq!(begun.elapsed(), SLOW_MAX);
        assert!(!console.is_watched() && !console.ended());
        for _ in 0..PIECES {
            assert_eq!(&*slow.recv().await.unwrap().bytes, b"x");
        }
        assert!(slow.recv().await.is_none());
    }

    #[tokio::test]
    async fn standard_input_closes_once_or_never() {
        let (console, mut stdin) = console(true);
        let typing = console.type_in().unwrap();
        typing.sink().unwrap().write_all(b"hi\n").await.unwrap();
        drop(typing);
        let mut read = String::new();
        stdin.read_to_string(&mut read).unwrap();
        assert_eq!(read, "hi\n");
        assert!(console.type_in().unwrap_err().contains("stdinOnce"));

        let (console, _stdin) = self::console(false);
        console.type_in().unwrap().over();
        assert!(console.type_in().unwrap().sink().is_some());
    }
}
