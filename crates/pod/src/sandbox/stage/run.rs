//! From a process in its place to the program: descriptors, limits, privileges, exec.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{OwnedFd, RawFd};

use rustix::fs::{FileType, Mode};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::paths::{self, Kind};
use super::{Failure, Reporter, accounts, terminal};
use crate::sandbox::capability;
use crate::sandbox::error::{Doing, Failed, reason};
use crate::sandbox::spec::{Rlimit, RlimitKind, WindowSize};
use crate::sandbox::wire::{Identity, Run, StdioJob};
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

/// Sets `oom_score_adj`, as far as the machine permits: lowering it needs CAP_SYS_RESOURCE.
pub(super) fn set_oom_score(reporter: &Reporter, score: Option<i32>) {
    let Some(score) = score else { return };
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        let why = reason(error.raw_os_error().unwrap_or(libc::EIO));
        reporter.warn(format!(
            "oom_score_adj stays as it is: {score} is refused ({why})"
        ));
    }
}

/// Executes the program: the `first` of a container, or a command in one. Returns only to say why not, and only while
/// nothing has been closed.
pub(super) fn run(
    reporter: &Reporter,
    run: &Run,
    standard: &Standard,
    first: bool,
) -> Result<Infallible, Failure> {
    let identity = &run.identity;
    let uid = match (identity.uid, &identity.image_user) {
        (Some(uid), _) => uid,
        (None, Some(user)) => accounts::uid_of(user)?,
        (None, None) => 0,
    };
    detach_from_caller()?;
    match standard {
        Standard::Fds(fds) => {
            for fd in fds {
                own_pipe(fd, uid);
            }
            let [stdin, stdout, stderr] = fds;
            replace_stdio([stdin, stdout, stderr])?;
        }
        Standard::Terminal(size) => {
            let terminal = terminal::open(reporter, *size, uid)?;
            if first {
                terminal::show_as_console(&terminal)?;
            }
            rustix::process::ioctl_tiocsctty(&terminal)
                .doing(|| "take the terminal over".into())?;
            replace_stdio([&terminal, &terminal, &terminal])?;
        }
    }
    for limit in &identity.rlimits {
        set_rlimit(reporter, *limit)?;
    }
    // From here on only the socket is open: a working directory such as /proc/self/fd/7 can lead nowhere (CVE-2024-21626).
    // The owners of what is closed are never dropped, since this does not return.
    sys::close_all_but(&reporter.socket);
    let Err(failure) = finish(reporter, run, uid);
    reporter.fail(failure);
    sys::exit_now(127)
}

fn finish(reporter: &Reporter, run: &Run, uid: u32) -> Result<Infallible, Failure> {
    let identity = &run.identity;
    let account = accounts::look_up(uid);
    let gid = identity.gid.unwrap_or(account.gid);
    let mut env = identity.env.clone();
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".into(), account.home));
    }
    // The image says how many there are: each is looked for in a set.
    let (mut groups, mut known) = (vec![gid], BTreeSet::from([gid]));
    let others = identity.groups.iter().chain(&account.groups);
    groups.extend(others.filter(|group| known.insert(**group)));
    enter_directory(identity)?;
    warn_of_missing(reporter, identity)?;
    become_user(uid, gid, &groups, identity)?;
    exec(reporter, &run.argv, &env)
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

fn warn_of_missing(reporter: &Reporter, identity: &Identity) -> Result<(), Failed> {
    let ours = rustix::thread::capabilities(None).doing(|| "read the capabilities".into())?;
    let missing =
        CapabilitySet::from_bits_retain(identity.wanted & identity.capabilities) - ours.permitted;
    for (number, _) in capability::each(missing) {
        reporter.warn(format!(
            "the capability {} is not there to be given",
            capability::name(number)
        ));
    }
    Ok(())
}

fn become_user(uid: u32, gid: u32, groups: &[u32], identity: &Identity) -> Result<(), Failed> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    // The bounding set first: dropping from it needs a capability that the user may not have.
    restrict_bounding_set(identity.capabilities)?;
    let groups: Vec<_> = groups
        .iter()
        .map(|gid| rustix::fs::Gid::from_raw(*gid))
        .collect();
    let (user, group) = (
        rustix::fs::Uid::from_raw(uid),
        rustix::fs::Gid::from_raw(gid),
    );
    set_thread_groups(&groups).doing(|| "set the groups".into())?;
    set_thread_res_gid(group, group, group).doing(|| format!("become group {gid}"))?;
    set_thread_res_uid(user, user, user).doing(|| format!("become user {uid}"))?;
    // Another user than root has lost them with the change, as on Kubernetes.
    let kept = if uid == 0 { identity.capabilities } else { 0 };
    set_capabilities(kept, identity.no_new_privileges)
}

/// Leaves this process and whatever it executes with at most these capabilities.
pub(super) fn restrict_capabilities(
    capabilities: u64,
    no_new_privileges: bool,
) -> Result<(), Failed> {
    restrict_bounding_set(capabilities)?;
    set_capabilities(capabilities, no_new_privileges)
}

fn restrict_bounding_set(capabilities: u64) -> Result<(), Failed> {
    use rustix::thread::{capability_is_in_bounding_set, remove_capability_from_bounding_set};
    let others = CapabilitySet::from_bits_retain(!capabilities);
    for (number, capability) in capability::each(others) {
        match capability_is_in_bounding_set(capability) {
            // Numbers above the kernel's last are invalid.
            Err(_) => break,
            Ok(false) => {}
            Ok(true) => remove_capability_from_bounding_set(capability)
                .doing(|| format!("drop the capability {}", capability::name(number)))?,
        }
    }
    Ok(())
}

fn set_capabilities(capabilities: u64, no_new_privileges: bool) -> Result<(), Failed> {
    let step = || "set the capabilities".to_owned();
    rustix::thread::clear_ambient_capability_set().doing(step)?;
    let ours = rustix::thread::capabilities(None).doing(step)?;
    let kept = ours.permitted & CapabilitySet::from_bits_retain(capabilities);
    // Nothing inheritable (CVE-2022-24769).
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).doing(step)?;
    if no_new_privileges {
        rustix::thread::set_no_new_privs(true).doing(|| "set no_new_privs".into())?;
    }
    Ok(())
}

/// Executes the program, looked up in the container's own `PATH` when it has no slash. (exec(3), execvp)
fn exec(
    reporter: &Reporter,
    argv: &[String],
    env: &[(String, String)],
) -> Result<Infallible, Failure> {
    let string = |text: String| CString::new(text).doing(|| "pass the command".into());
    let program = &argv[0];
    let path = env
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map_or("", |(_, value)| value.as_str());
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.clone()]
    } else {
        path.split(':')
            .map(|directory| if directory.is_empty() { "." } else { directory })
            .map(|directory| format!("{directory}/{program}"))
            .collect()
    };
    let c_argv = argv
        .iter()
        .cloned()
        .map(string)
        .collect::<Result<Vec<_>, _>>()?;
    let c_env = env
        .iter()
        .map(|(name, value)| string(format!("{name}={value}")))
        .collect::<Result<Vec<_>, _>>()?;
    reporter.tell_executing();
    let mut refused = None;
    for candidate in candidates {
        let Err(error) = sys::exec(&string(candidate.clone())?, &c_argv, &c_env);
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let failed = Failed {
            step: format!("exec {candidate}"),
            errno,
        };
        match errno {
            _ if program.contains('/') => return Err(failed.into()),
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => refused = Some(failed),
            _ => return Err(failed.into()),
        }
    }
    Err(refused.map_or_else(|| Failure::NotFound(program.clone()), Failure::from))
}
