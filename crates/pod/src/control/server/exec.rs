//! A command in a container, its input and output joined to a connection.
//!
//! The command is read no faster than the client reads, and it ends with the connection: whoever is gone can't want it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::json;

use super::super::wire::{Exec, Frame, Kind, Refusal, Size};
use super::{Input, Out, Peer};
use crate::runner::Subject;
use crate::sandbox::{
    ExecSpec, Process, Signal, Sink, Source, StartError, Stdio, Terminal, WindowSize,
};

/// Bytes of output read at once, and sent as one frame.
const CHUNK: usize = 16 * 1024;

/// How often it is looked whether a client is still there while its process does not take its input.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn exec(exec: Exec, subject: Subject, peer: Peer) -> io::Result<()> {
    let Peer {
        mut input,
        mut output,
    } = peer;
    let begun = match begin(&exec, &subject).await {
        Ok(begun) => begun,
        Err(error) => return output.refuse(&refusal(&exec, &error)).await,
    };
    let process = Killed(begun.process);
    let (mut stdout, mut stderr) = (Some(begun.stdout), begun.stderr);
    let mut buffer = vec![0; CHUNK];
    let status = {
        let mut fed = std::pin::pin!(feed(&mut input, begun.stdin, begun.terminal));
        loop {
            tokio::select! {
                status = process.0.exited() => break status?,
                // Dropping the process kills it.
                gone = &mut fed => return gone,
                more = readable(&stdout) => {
                    more?;
                    take(&mut stdout, Kind::Output, &mut buffer, &mut output).await?;
                }
                more = readable(&stderr) => {
                    more?;
                    take(&mut stderr, Kind::Errors, &mut buffer, &mut output).await?;
                }
            }
        }
    };
    // What it wrote last; what it left behind in the background is not waited for.
    for (source, kind) in [(stdout, Kind::Output), (stderr, Kind::Errors)] {
        let Some(source) = source else { continue };
        while let Some(count) = source.rest(&mut buffer).await {
            output.frame(kind, &buffer[..count]).await?;
        }
    }
    output.end(&json!({"exitCode": status.code()})).await
}

struct Begun {
    process: Process,
    stdin: Option<Sink>,
    stdout: Source,
    stderr: Option<Source>,
    terminal: Option<Arc<Terminal>>,
}

async fn begin(exec: &Exec, subject: &Subject) -> io::Result<Begun> {
    if exec.tty {
        let size = exec.size.map_or(WindowSize::default(), window);
        let process = start(exec, subject, Stdio::Terminal(size)).await?;
        let terminal = process
            .take_terminal()
            .ok_or_else(|| io::Error::other("there is no terminal"))?;
        let terminal = Arc::new(Terminal::new(terminal)?);
        return Ok(Begun {
            process,
            stdin: exec.stdin.then(|| Sink::Terminal(Arc::clone(&terminal))),
            stdout: Source::Terminal(Arc::clone(&terminal)),
            stderr: None,
            terminal: Some(terminal),
        });
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = pipe()?;
    let (stdin_end, stdin) = match exec.stdin {
        true => pipe().map(|(read, write)| (Some(read), Some(write)))?,
        false => (None, None),
    };
    let stdio = Stdio::Fds {
        stdin: stdin_end,
        stdout: Some(stdout_end),
        stderr: Some(stderr_end),
    };
    Ok(Begun {
        process: start(exec, subject, stdio).await?,
        stdin: stdin.map(Sink::pipe).transpose()?,
        stdout: Source::pipe(stdout)?,
        stderr: Some(Source::pipe(stderr)?),
        terminal: None,
    })
}

async fn start(exec: &Exec, subject: &Subject, stdio: Stdio) -> io::Result<Process> {
    let spec = ExecSpec {
        argv: exec.command.clone(),
        stdio,
    };
    let (ground, running) = (Arc::clone(&subject.ground), Arc::clone(&subject.running));
    // A stage is executed and waited for.
    let start = move || ground.sandbox.exec(&running.process, &spec);
    tokio::task::spawn_blocking(start)
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)
}

fn window(size: Size) -> WindowSize {
    WindowSize {
        rows: size.rows,
        columns: size.columns,
    }
}

fn refusal(exec: &Exec, error: &io::Error) -> Refusal {
    let start = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<StartError>());
    let reason = match start {
        Some(StartError::NotRunning) => "NotFound",
        Some(_) => "BadRequest",
        None => "InternalError",
    };
    Refusal::new(reason, format!("container {}: {error}", exec.container))
}

/// Returns when there is something to read; never, once the stream has ended.
async fn readable(source: &Option<Source>) -> io::Result<()> {
    match source {
        Some(source) => source.readable().await,
        None => std::future::pending().await,
    }
}

/// Sends what is there of one stream.
async fn take(
    source: &mut Option<Source>,
    kind: Kind,
    buffer: &mut [u8],
    output: &mut Out,
) -> io::Result<()> {
    let Some(open) = source else {
        return Ok(());
    };
    match open.try_read(buffer) {
        Ok(0) => *source = None,
        Ok(count) => output.frame(kind, &buffer[..count]).await?,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Gives the command what the client sends. Returns when the client is gone.
async fn feed(
    input: &mut Input,
    mut stdin: Option<Sink>,
    terminal: Option<Arc<Terminal>>,
) -> io::Result<()> {
    while let Some(frame) = input.next().await? {
        resize(&frame, terminal.as_deref());
        if frame.kind != Kind::Input {
            continue;
        }
        if frame.bytes.is_empty() {
            stdin = None;
        }
        let Some(sink) = &stdin else { continue };
        match give(input, sink, &frame.bytes).await {
            Given::All => {}
            // It reads no more; what comes is of no use to it.
            Given::Closed => stdin = None,
            Given::Gone => return Ok(()),
        }
    }
    Ok(())
}

/// Follows the client's window.
pub(super) fn resize(frame: &Frame, terminal: Option<&Terminal>) {
    if frame.kind == Kind::Resize
        && let Some(terminal) = terminal
        && let Ok(size) = serde_json::from_slice(&frame.bytes)
    {
        // A terminal whose other end is closed has no size.
        let _resized = terminal.resize(window(size));
    }
}

/// What became of input.
pub(super) enum Given {
    All,
    /// The process reads no more.
    Closed,
    /// The client has left while the process did not read.
    Gone,
}

/// Gives a process what its client has sent, however long it takes.
pub(super) async fn give(input: &Input, sink: &Sink, bytes: &[u8]) -> Given {
    let mut written = std::pin::pin!(sink.write_all(bytes));
    loop {
        match tokio::time::timeout(LOOK, &mut written).await {
            Ok(Ok(())) => return Given::All,
            Ok(Err(_)) => return Given::Closed,
            Err(_) if input.hung_up() => return Given::Gone,
            Err(_) => {}
        }
    }
}

/// Whoever gives up on a command ends it.
struct Killed(Process);

impl Drop for Killed {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None))
            && let Err(error) = self.0.signal(Signal::KILL)
        {
            tracing::warn!(pid = self.0.pid(), %error, "a command could not be killed");
        }
    }
}
