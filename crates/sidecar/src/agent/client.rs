//! The other side: a sidecar asks the agent of the application.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::wire::{ANSWER_MAX, Answer, Ask, Outcome};
use crate::publish::words;

/// How much longer than the command the answer may take.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of a failed command's output in an error.
const SAID: usize = 1024;

/// Why something was not done, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotDone {
    /// The line.
    pub why: String,
    /// Who was to do it is not there now: that tells nothing of what was to be done.
    pub away: bool,
}

impl From<String> for NotDone {
    fn from(why: String) -> Self {
        Self { why, away: false }
    }
}

/// Has the agent at `socket` run a command line, split into words as a shell does; `{}` is the staged directory. Blocks. An
/// error is one line.
pub fn run(
    socket: &Path,
    command: &str,
    staged: Option<&Path>,
    timeout: Duration,
) -> Result<(), NotDone> {
    run_words(socket, &words(command)?, staged, timeout)
}

/// The same for words.
pub fn run_words(
    socket: &Path,
    words: &[String],
    staged: Option<&Path>,
    timeout: Duration,
) -> Result<(), NotDone> {
    let words = match staged {
        Some(staged) => {
            let staged = staged.to_str().ok_or_else(|| {
                let path = staged.display();
                format!("{path}: its name is not UTF-8, which the agent takes only")
            })?;
            words
                .iter()
                .map(|word| word.replace("{}", staged))
                .collect()
        }
        None => words.to_vec(),
    };
    let shown = words.join(" ");
    let ask = Ask {
        words,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let at = socket.display();
    let answer = exchange(socket, &ask, timeout + GRACE).map_err(|error| {
        let away = |why| NotDone { why, away: true };
        match error.kind() {
            io::ErrorKind::NotFound => away(format!(
                "no agent at {at}; expected `podkit agent` around the application, its --socket in a shared volume"
            )),
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => away(format!("the agent at {at} is gone")),
            io::ErrorKind::UnexpectedEof => {
                away(format!("the agent at {at} ended before it had answered"))
            }
            io::ErrorKind::PermissionDenied => {
                format!("this user may not reach the agent's socket {at}").into()
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("the agent at {at} does not answer").into()
            }
            _ => format!("the agent at {at}: {error}").into(),
        }
    })?;
    let why = match answer.outcome {
        Outcome::Exited(0) => return Ok(()),
        Outcome::Exited(code) => format!("exit code {code}"),
        Outcome::Signalled(signal) => format!("ended by signal {signal}"),
        Outcome::TimedOut(ms) => format!("not done within {ms} ms"),
        Outcome::Refused(why) => {
            return Err(format!("the agent refuses \"{shown}\": {why}").into());
        }
    };
    let lines: Vec<&str> = answer.output.lines().map(str::trim).collect();
    let said = lines.join("; ");
    let from = said.len().saturating_sub(SAID);
    let from = (from..=said.len()).find(|at| said.is_char_boundary(*at));
    match from.map_or("", |from| &said[from..]) {
        "" => Err(format!("{shown}: {why}").into()),
        said => Err(format!("{shown}: {why}: {said}").into()),
    }
}

fn exchange(socket: &Path, ask: &Ask, patience: Duration) -> io::Result<Answer> {
    let end = Instant::now() + patience;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(patience))?;
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    // An agent that refuses at once need not have read all of it.
    let written = stream.write_all(&line);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(b"\n") {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => {
                written?;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() as u64 > ANSWER_MAX {
            return Err(io::Error::other("its answer is too long"));
        }
    }
    serde_json::from_slice(&answer)
        .map_err(|error| io::Error::other(format!("not an answer ({error})")))
}
