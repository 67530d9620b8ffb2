//! From a process in its place to the program: descriptors, limits, privileges, exec.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{OwnedFd, RawFd};

use rustix::fs::{FileType, Mode};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::accounts::{self, Account};
use super::paths::{self, Kind};
use super::{Failure, Reporter, privileges, terminal};
use crate::sandbox::error::{Doing, Failed, reason};
use crate::sandbox::spec::{Rlimit, RlimitKind, WindowSize};
use crate::sandbox::wire::{Identity, Reply, Run, StdioJob};
use crate::sys;

/// What becomes standard input, output, error.
pub(super) enum Standard {
    Fds([OwnedFd; 3]),
    /// To be made in the container.
    Terminal(WindowSize),
}

/// What was given, or the null device.
pub(super) fn take_stdio(job: &StdioJob, null: &OwnedFd) -> Result<Standard, Failed> {
    let numbers = match job {
        StdioJob::Fds(numbers) => numbers,
        StdioJob::Terminal(size) => return Ok(Standard::Terminal(*size)),
    };
    let take = |number: Option<RawFd>| match number {
        Some(number) => {
            sys::inherited(number).doing(|| "take over standard input and output".into())
        }
        None => null.try_clone().doing(|| "open the null device".into()),
    };
    let [stdin, stdout, stderr] = *numbers;
    Ok(Standard::Fds([take(stdin)?, take(stdout)?, take(stderr)?]))
}

/// Puts descriptors in the places of standard input, output, error.
pub(super) fn replace_stdio(fds: [&OwnedFd; 3]) -> Result<(), Failed> {
    let step = || "set standard input and output".to_owned();
    rustix::stdio::dup2_stdin(fds[0]).doing(step)?;
    rustix::stdio::dup2_stdout(fds[1]).doing(step)?;
    rustix::stdio::dup2_stderr(fds[2]).doing(step)
}

/// A session of its own with no keys in it, default signals, the usual umask.
pub(super) fn detach_from_caller() -> Result<(), Failed> {
    // Fails only for a process that leads a session already: then there is nothing to leave.
    rustix::process::setsid().ok();
    match sys::leave_session_keyring() {
        // A kernel without keys, or a filter around us, which holds the container too.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        result => result.doing(|| "make a session keyring".into())?,
    }
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok(())
}

/// Sets `oom_score_adj`. Below what this process has it needs CAP_SYS_RESOURCE; without that it stays, as containerd's
/// `restrict_oom_score_adj` has it, and nothing is said: nobody asked for it by name.
pub(super) fn set_oom_score(reporter: &Reporter, score: Option<i32>) {
    const FILE: &str = "/proc/self/oom_score_adj";
    let Some(score) = score else { return };
    let Err(error) = std::fs::write(FILE, score.to_string()) else {
        return;
    };
    let own = std::fs::read_to_string(FILE).ok();
    let own = own.and_then(|text| text.trim().parse::<i32>().ok());
    let lower = own.is_some_and(|own| score < own);
    if !(lower && error.kind() == std::io::ErrorKind::PermissionDenied) {
        let why = reason(error.raw_os_error().unwrap_or(libc::EIO));
        reporter.warn(format!(
            "oom_score_adj stays as it is: {score} is refused ({why})"
        ));
    }
}

/// A process that is all that its program may be, and no more: its user, capabilities, limits and descriptors.
pub(super) struct Prepared<'a> {
    identity: &'a Identity,
    program: Program,
    terminal: bool,
}

/// Does what needs rights, and gives them up: for the `first` process of a container, or for a command in one. Returns only while
/// nothing has been closed, or with everything closed but the socket and standard input, output, error; a failure in between ends
/// this process.
pub(super) fn prepare<'a>(
    reporter: &Reporter,
    run: &'a Run,
    standard: Standard,
    first: bool,
) -> Result<Prepared<'a>, Failure> {
    let identity = &run.identity;
    let account = accounts::resolve(identity)?;
    let uid = account.uid;
    detach_from_caller()?;
    let terminal = matches!(standard, Standard::Terminal(_));
    match standard {
        Standard::Fds(fds) => {
            for fd in &fds {
                own_pipe(fd, uid);
            }
            let [stdin, stdout, stderr] = &fds;
            replace_stdio([stdin, stdout, stderr])?;
        }
        Standard::Terminal(size) => {
            let terminal = terminal::open(reporter, size, uid)?;
            if first {
                terminal::show_as_console(&terminal)?;
            }
            replace_stdio([&terminal, &terminal, &terminal])?;
        }
    }
    for limit in &identity.rlimits {
        set_rlimit(reporter, *limit)?;
    }
    // From here on only the socket is open: a working directory such as /proc/self/fd/7 can lead nowhere (CVE-2024-21626).
    // The owners of what is closed are never dropped, since nobody returns to them.
    sys::close_all_but(&reporter.socket);
    let prepared = become_program(reporter, run, &account, terminal);
    prepared.or_else(|failure| end(reporter, failure))
}

fn become_program<'a>(
    reporter: &Reporter,
    run: &'a Run,
    account: &Account,
    terminal: bool,
) -> Result<Prepared<'a>, Failure> {
    let identity = &run.identity;
    let mut env = identity.env.clone();
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".into(), account.home.clone()));
    }
    enter_directory(identity)?;
    privileges::warn_of_missing(reporter, identity)?;
    let program = Program::new(&run.argv, &env)?;
    privileges::become_user(account, identity)?;
    Ok(Prepared {
        identity,
        program,
        terminal,
    })
}

/// Tells the supervisor, and ends this process.
fn end(reporter: &Reporter, failure: Failure) -> ! {
    reporter.fail(failure);
    sys::exit_now(127)
}

impl Prepared<'_> {
    /// Executes the program, by a process that leads a session and that nobody can trace.
    pub(super) fn finish(self, reporter: &Reporter) -> ! {
        let Err(failure) = self.execute(reporter, false);
        end(reporter, failure)
    }

    /// Forks what executes the program, in the PID namespace that this process has entered for its children, and ends this one. What can
    /// be traced there has no right beyond the program's: the filter that takes one to be installed is installed before the fork, so
    /// that its profile must allow what comes then.
    pub(super) fn bear(self, reporter: &Reporter, alone: &sys::OneThread) -> ! {
        let confined = self.identity.traceable && privileges::confining_takes_rights(self.identity);
        if confined {
            if let Err(failed) = privileges::confine(self.identity) {
                end(reporter, failed.into());
            }
            // Who could not report the new process must not make it.
            if reporter.tell_executing().is_err() {
                sys::exit_now(127);
            }
        }
        match sys::fork_sibling(alone, 0, None) {
            Ok(Some((_, pidfd))) => {
                // A supervisor that is gone takes the process along.
                drop(reporter.tell(&Reply::Started, &pidfd));
                sys::exit_now(0)
            }
            Ok(None) => {
                // A session of its own as long as that one's leader is somebody else, which it always is: it has another id.
                rustix::process::setsid().ok();
                let Err(failure) = self.execute(reporter, confined);
                end(reporter, failure)
            }
            Err(error) => {
                let step = match confined {
                    true => "fork (the seccomp profile must allow it)",
                    false => "fork",
                };
                let Err(failed) = Err::<Infallible, _>(error).doing(|| step.into());
                end(reporter, failed.into())
            }
        }
    }

    fn execute(&self, reporter: &Reporter, confined: bool) -> Result<Infallible, Failure> {
        if self.terminal {
            rustix::process::ioctl_tiocsctty(std::io::stdin())
                .doing(|| "take the terminal over".into())?;
        }
        if !confined {
            // The last word while every system call is still allowed. A supervisor that is gone needs it not.
            drop(reporter.tell_executing());
            privileges::confine(self.identity)?;
        }
        self.program.exec()
    }
}

/// A pipe of the supervisor's belongs to root; `/dev/stdout` could not be opened by another user.
fn own_pipe(fd: &OwnedFd, uid: u32) {
    let is_pipe = rustix::fs::fstat(fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    if uid != 0 && is_pipe {
        // Where that is not permitted the descriptors themselves still work.
        rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None).ok();
    }
}

fn set_rlimit(reporter: &Reporter, limit: Rlimit) -> Result<(), Failed> {
    let resource = match limit.kind {
        RlimitKind::Nofile => Resource::Nofile,
        RlimitKind::Nproc => Resource::Nproc,
        RlimitKind::Core => Resource::Core,
        RlimitKind::Memlock => Resource::Memlock,
    };
    let wanted = rustix::process::Rlimit {
        current: limit.soft,
        maximum: limit.hard,
    };
    match setrlimit(resource, wanted) {
        Err(rustix::io::Errno::PERM) => {}
        result => return result.doing(|| format!("set the limit {:?}", limit.kind)),
    }
    let most = getrlimit(resource).maximum;
    let least = |wanted: Option<u64>| match (wanted, most) {
        (Some(wanted), Some(most)) => Some(wanted.min(most)),
        (wanted, most) => wanted.or(most),
    };
    let clamped = rustix::process::Rlimit {
        current: least(limit.soft),
        maximum: least(limit.hard),
    };
    setrlimit(resource, clamped).doing(|| format!("set the limit {:?}", limit.kind))?;
    reporter.warn(format!(
        "the limit {:?} is clamped to the machine's {most:?}",
        limit.kind
    ));
    Ok(())
}

/// Goes to the working directory, made when absent as container runtimes do. Nothing on the way may leave the root: neither
/// `/proc/self/fd/7` nor, in a shared PID namespace, a neighbour's `/proc/PID/root` (CVE-2024-21626).
fn enter_directory(identity: &Identity) -> Result<(), Failed> {
    let cwd = &identity.cwd;
    let step = || format!("change to the working directory {}", cwd.display());
    let directory = paths::root()
        .and_then(|root| paths::place(root, cwd, Kind::Directory))
        .doing(step)?;
    rustix::process::fchdir(directory).doing(step)
}

/// What is executed, made ready while memory may still be had.
struct Program {
    argv: Vec<CString>,
    env: Vec<CString>,
    /// Where it may be: the places of the container's own `PATH` when it has no slash. (exec(3), execvp)
    candidates: Vec<CString>,
}

impl Program {
    fn new(argv: &[String], env: &[(String, String)]) -> Result<Self, Failed> {
        let string = |text: String| CString::new(text).doing(|| "pass the command".into());
        let program = &argv[0];
        let path = env
            .iter()
            .rev()
            .find(|(name, _)| name == "PATH")
            .map_or("", |(_, value)| value.as_str());
        let candidates = if program.contains('/') {
            vec![string(program.clone())?]
        } else {
            path.split(':')
                .map(|directory| if directory.is_empty() { "." } else { directory })
                .map(|directory| string(format!("{directory}/{program}")))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            argv: argv.iter().cloned().map(string).collect::<Result<_, _>>()?,
            env: env
                .iter()
                .map(|(name, value)| string(format!("{name}={value}")))
                .collect::<Result<_, _>>()?,
            candidates,
        })
    }

    fn exec(&self) -> Result<Infallible, Failure> {
        let program = self.argv[0].to_string_lossy();
        let mut refused = None;
        for candidate in &self.candidates {
            let Err(error) = sys::exec(candidate, &self.argv, &self.env);
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            let failed = Failed {
                step: format!("exec {}", candidate.to_string_lossy()),
                errno,
            };
            match errno {
                _ if program.contains('/') => return Err(failed.into()),
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => refused = Some(failed),
                _ => return Err(failed.into()),
            }
        }
        Err(refused.map_or_else(|| Failure::NotFound(program.into_owned()), Failure::from))
    }
}
