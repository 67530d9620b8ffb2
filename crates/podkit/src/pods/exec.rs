//! `podkit exec`: a command in a container, joined to this terminal; and the joining, which `attach` does too.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches};
use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamSet;
use podkit_pod::control::{
    Client, ClientError, Ended, Exec, Found, Kind, Part, Reply, Request, Size,
};
use tokio::sync::mpsc;

use super::status::list;
use super::terminal::{self, RawTerminal};
use super::{Choice, PodCommand, failed, living, many, one, pod_argument, runtime};
use crate::cli;

podkit_foundation::params! {
    /// What `exec` takes.
    pub(crate) struct ExecParams {
        /// The container; the annotation kubectl.kubernetes.io/default-container, or the first, when not given.
        container: Option<String> { short: Some('c') },
        /// Pass standard input on.
        stdin: bool { default: Some("false"), short: Some('i') },
        /// Standard input is a terminal.
        tty: bool { default: Some("false"), short: Some('t') },
        /// Say only what the command says.
        quiet: bool { default: Some("false"), short: Some('q') },
        /// The pod's namespace.
        namespace: String { default: Some("default"), short: Some('n') },
        /// Where the state of pods is, if not in /run/podkit and /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

pub(super) const EXEC: PodCommand = PodCommand {
    name: "exec",
    about: "Run a command in a container",
    usage: "exec [-it] POD -- CMD",
    help: "The exit code is the command's; 1 when it could not be run. The command ends with this process.",
    params: ExecParams::PARAMS,
    args: |command| {
        pod_argument(command).arg(
            Arg::new("command")
                .value_name("CMD")
                .num_args(1..)
                .last(true)
                .required(true)
                .help("The program and its arguments, after --"),
        )
    },
    run: exec,
};

fn exec(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = ExecParams::from_values(&cli::values(ExecParams::PARAMS, matches))?;
    let choice = Choice {
        state_dir: params.state_dir.as_ref(),
        namespace: &params.namespace,
        all_namespaces: false,
        selector: None,
        names: Vec::new(),
    };
    let found = living(&choice, &one(matches, "pod"))?;
    let container = container(&found, params.container.as_deref(), params.quiet);
    let tty = params.tty && usable_terminal(params.stdin);
    let request = Request::Exec(Exec {
        container,
        command: many(matches, "command"),
        stdin: params.stdin,
        tty,
        size: tty.then(terminal::size).flatten(),
    });
    let ended = runtime()?.block_on(join(&found, &request, params.stdin, tty));
    let ended = ended.map_err(failed(&found.name))?;
    let code = ended.exit_code.unwrap_or(0);
    if code != 0 && !params.quiet {
        eprintln!("command terminated with exit code {code}");
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// As kubectl: without a terminal the command gets none, and the caller is told.
pub(super) fn usable_terminal(stdin: bool) -> bool {
    let usable = stdin && terminal::is_terminal();
    if !usable {
        let why = match stdin {
            true => "Unable to use a TTY - input is not a terminal or the right kind of file",
            false => "Unable to use a TTY - container standard input is not passed on (-i)",
        };
        eprintln!("{why}");
    }
    usable
}

/// The container that is meant.
pub(super) fn container(found: &Found, given: Option<&str>, quiet: bool) -> String {
    if let Some(given) = given {
        return given.to_owned();
    }
    let pod = &found.pod;
    let chosen = &pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"];
    let all = list(&pod["spec"]["containers"]);
    let names: Vec<&str> = all.iter().filter_map(|one| one["name"].as_str()).collect();
    let chosen = chosen.as_str().filter(|chosen| names.contains(chosen));
    let first = names.first().copied().unwrap_or_default();
    if chosen.is_none() && names.len() > 1 && !quiet {
        let names = names.join(", ");
        eprintln!("Defaulted container \"{first}\" out of: {names}");
    }
    chosen.unwrap_or(first).to_owned()
}

/// Joins a request's streams to ours until it ends.
pub(super) async fn join(
    found: &Found,
    request: &Request,
    stdin: bool,
    tty: bool,
) -> Result<Ended, ClientError> {
    let (mut client, reply) = Client::ask(&found.run, request).await?;
    let raw = match tty {
        true => Some(RawTerminal::enter().map_err(ClientError::Io)?),
        false => None,
    };
    if tty && matches!(request, Request::Attach(_)) {
        redraw(&mut client).await?;
    }
    let ended = tokio::select! {
        ended = show(reply) => ended,
        failed = feed(client, stdin, tty) => Err(failed),
    };
    drop(raw);
    ended
}

/// Another size and then the right one: whatever has the screen draws it anew. (kubectl attach)
async fn redraw(client: &mut Client) -> Result<(), ClientError> {
    let Some(size) = terminal::size() else {
        return Ok(());
    };
    let other = Size {
        rows: size.rows.saturating_add(1),
        columns: size.columns.saturating_add(1),
    };
    for size in [other, size] {
        match client.resize(size).await {
            // The answer says why.
            Err(ClientError::Gone) => return Ok(()),
            sent => sent?,
        }
    }
    Ok(())
}

/// Writes what comes, until the end.
async fn show(mut reply: Reply) -> Result<Ended, ClientError> {
    loop {
        let frame = match reply.next().await? {
            Part::Ended(ended) => return Ok(ended),
            Part::Frame(frame) => frame,
        };
        // Blocking: what can't be shown is not to be asked for.
        let written = match frame.kind {
            Kind::Output => write(&mut io::stdout(), &frame.bytes),
            Kind::Errors => write(&mut io::stderr(), &frame.bytes),
            _ => Ok(()),
        };
        match written {
            // Nobody reads: as a program in a pipeline ends.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(Ended {
                    exit_code: Some(141),
                });
            }
            written => written.map_err(ClientError::Io)?,
        }
    }
}

fn write(to: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Sends standard input and the terminal's size. Returns only when the connection fails.
async fn feed(mut client: Client, stdin: bool, tty: bool) -> ClientError {
    let mut input = match stdin {
        true => Some(read_stdin()),
        false => None,
    };
    let mut sizes = match tty {
        true => terminal::size_changes().ok(),
        false => None,
    };
    loop {
        let sent = tokio::select! {
            bytes = next(&mut input) => match bytes {
                Some(bytes) => client.input(&bytes).await,
                None => {
                    input = None;
                    client.input(b"").await
                }
            },
            () = changed(&mut sizes) => match terminal::size() {
                Some(size) => client.resize(size).await,
                None => Ok(()),
            },
        };
        match sent {
            // The answer says why.
            Err(ClientError::Gone) => return std::future::pending().await,
            Err(error) => return error,
            Ok(()) => {}
        }
    }
}

async fn next(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

async fn changed(sizes: &mut Option<tokio::signal::unix::Signal>) {
    match sizes {
        Some(sizes) => {
            sizes.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Standard input, by a thread that reads it with blocking calls: making it non-blocking would do so to the caller's shell. The
/// thread ends with the process.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(2);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
            if send.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receive
}
