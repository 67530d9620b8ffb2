//! The stage: this binary, executed anew with one thread, that makes one process of the pod and ends.
//!
//! It gets a [`Job`] over its socket, joins namespaces, and forks the process beside itself (`CLONE_PARENT`), so that the
//! supervisor is its parent. The child does the rest: mounts, cgroups, privileges, exec. Whatever fails goes back over the
//! socket with the step and the error; a successful exec closes it.
//!
//! Who is in a PID namespace may see and, with CAP_SYS_PTRACE, trace everything in it. So where a process is to be born among others (a
//! command in a container, a container that shares PIDs) the stage stays outside, and has become what the program is to be before
//! the process is born ([`Prepared::bear`](run::Prepared::bear)): it has no descriptor of the machine's then, and no capability
//! that the container lacks.

mod accounts;
mod cgroups;
mod devices;
mod guard;
mod paths;
mod pod;
mod privileges;
mod propagation;
mod root;
mod run;
mod standard;
mod sysctl;
mod terminal;

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

use self::cgroups::Cgroups;
pub(super) use self::root::PLACE;
use super::error::{Doing, Failed};
use super::in_user_namespace;
use super::private::AREA;
use super::private::tree::clone_tree;
use super::process::pids_of;
use super::wire::{self, Access, Host, Job, MountJob, Reply, Run, SourceJob};
use crate::image::Root;
use crate::plan::Propagation;
use crate::sys;

/// argv[0] of a stage.
pub(super) const STAGE: &CStr = c"podkit-stage";

/// Becomes the stage, and does not return, when this process was started as one. To be the first thing that `main` calls,
/// before any thread is started.
pub fn run_if_stage() {
    let mut args = std::env::args_os();
    if args
        .next()
        .is_none_or(|name| name.as_bytes() != STAGE.to_bytes())
    {
        return;
    }
    let number = args.next().and_then(|number| number.to_str()?.parse().ok());
    sys::exit_now(match number.map(stage) {
        Some(Ok(())) => 0,
        _ => 1,
    })
}

/// Why the start is over.
enum Failure {
    Step(Failed),
    NotFound(String),
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        Self::Step(failed)
    }
}

/// What the stage and its child report to.
struct Reporter {
    socket: UnixStream,
}

impl Reporter {
    fn warn(&self, line: String) {
        // A supervisor that is gone needs no warning.
        drop(wire::send_reply(&self.socket, &Reply::Warning(line), None));
    }

    /// Just before the exec.
    fn tell_executing(&self) -> io::Result<()> {
        wire::send_reply(&self.socket, &Reply::Executing, None)
    }

    fn tell(&self, reply: &Reply, process: &OwnedFd) -> Result<(), Failed> {
        wire::send_reply(&self.socket, reply, Some(process))
            .doing(|| "report the new process".into())
    }

    /// By the child, since one that ends at once could not be asked any more. The namespace itself: the kernel gives the number of one that
    /// is gone to the next.
    fn tell_mount_namespace(&self) {
        if let Ok(namespace) = File::open("/proc/self/ns/mnt") {
            let namespace = OwnedFd::from(namespace);
            drop(wire::send_reply(
                &self.socket,
                &Reply::MountNamespace,
                Some(&namespace),
            ));
        }
    }

    fn fail(&self, failure: Failure) {
        let reply = match failure {
            Failure::Step(Failed { step, errno }) => Reply::Failed { step, errno },
            Failure::NotFound(program) => Reply::NotFound(program),
        };
        drop(wire::send_reply(&self.socket, &reply, None));
    }
}

fn stage(number: RawFd) -> io::Result<()> {
    // Before anything else: from here on no process of the pod may look into this one.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    sys::mark_all_close_on_exec(3)?;
    let reporter = Reporter {
        socket: UnixStream::from(sys::inherited(number)?),
    };
    let job = wire::receive_job(&reporter.socket)?;
    let started = match job {
        Job::Pod(job) => pod::make(&reporter, &job),
        Job::Container {
            init,
            own_pids,
            root,
            binary,
            mounts,
            read_only_root,
            access,
            host,
            machine,
            shm,
            proc,
            run,
        } => {
            let filesystem = Filesystem {
                root,
                own_binary: privileges::may_mount(&run.identity),
                binary,
                read_only: read_only_root,
                access,
                host,
                shm,
                proc,
                mounts: Vec::new(),
            };
            container(&reporter, init, own_pids, machine, filesystem, mounts, run)
        }
        Job::Exec { container, run } => exec(&reporter, container, &run),
    };
    if let Err(failure) = started {
        reporter.fail(failure);
    }
    Ok(())
}

/// Keeps a new process back until the stage has reported it: what a stage says counts from then on.
struct Order(io::PipeReader, io::PipeWriter);

impl Order {
    fn new() -> Result<Self, Failed> {
        let (read, write) = io::pipe().doing(|| "make a pipe".into())?;
        Ok(Self(read, write))
    }

    /// In the new process: until the stage has ended.
    fn wait(self) {
        let Self(mut read, write) = self;
        drop(write);
        // Nothing is ever written.
        drop(io::Read::read(&mut read, &mut [0]));
    }
}

/// Joins the cgroups, forks the process, reports it as what it is, and ends the stage.
fn continue_as_child(
    reporter: &Reporter,
    what: &Reply,
    namespaces: i32,
    cgroups: &Cgroups,
    child: impl FnOnce() -> Result<Infallible, Failure>,
) -> Result<(), Failure> {
    cgroups.enter_version_1()?;
    let (alone, order) = (sys::one_thread().doing(|| "fork".into())?, Order::new()?);
    let forked = match sys::fork_sibling(&alone, namespaces, cgroups.birthplace()) {
        Err(_) if cgroups.birthplace().is_some() => {
            // The move says why it is not possible, where it isn't.
            cgroups.enter_version_2()?;
            sys::fork_sibling(&alone, namespaces, None)
        }
        forked => forked,
    };
    match forked.doing(|| "fork".into())? {
        Some((_, pidfd)) => Ok(reporter.tell(what, &pidfd)?),
        None => {
            order.wait();
            let Err(failure) = child();
            reporter.fail(failure);
            sys::exit_now(127)
        }
    }
}

fn inherited(number: RawFd, what: &str) -> Result<OwnedFd, Failed> {
    sys::inherited(number).doing(|| format!("take over {what}"))
}

/// A descriptor of the private `/dev/null`, whatever the container's own has become.
fn null() -> Result<OwnedFd, Failed> {
    let path = format!("{AREA}/dev/null");
    rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open {path}"))
}

/// The root file system of a container, as it will be.
struct Filesystem {
    root: Root,
    binary: PathBuf,
    /// The container gets a copy of the binary, and not a mount.
    own_binary: bool,
    read_only: bool,
    access: Access,
    host: Host,
    shm: PathBuf,
    /// The pod's, where PIDs are shared.
    proc: Option<PathBuf>,
    mounts: Vec<Volume>,
}

/// One mount whose source is at hand.
struct Volume {
    tree: OwnedFd,
    target: PathBuf,
    read_only: bool,
    recursive_read_only: bool,
    propagation: Propagation,
    optional: bool,
}

fn container(
    reporter: &Reporter,
    init: RawFd,
    own_pids: bool,
    machine: Option<RawFd>,
    mut filesystem: Filesystem,
    mounts: Vec<MountJob>,
    mut run: Run,
) -> Result<(), Failure> {
    let init = inherited(init, "the pod's init")?;
    let stdio = run::take_stdio(&run.stdio, &null()?)?;
    let machine = machine.map(|fd| inherited(fd, "the machine's mounts"));
    let machine = machine.transpose()?;
    // Before the fork into a new mount namespace: a tree can be cloned only from one's own.
    for MountJob {
        source,
        target,
        read_only,
        recursive_read_only,
        propagation,
        optional,
    } in mounts
    {
        let tree = match source {
            source if propagation == Propagation::Bidirectional => {
                propagation::machine_tree(machine.as_ref(), source, &target)?
            }
            SourceJob::Path(path) => clone_tree(rustix::fs::CWD, &path, true)
                .doing(|| format!("mount {}: open {}", target.display(), path.display()))?,
            SourceJob::Fd(number) => inherited(number, "a volume").and_then(|fd| {
                clone_tree(fd, c"", true).doing(|| format!("mount {}", target.display()))
            })?,
        };
        filesystem.mounts.push(Volume {
            tree,
            target,
            read_only,
            recursive_read_only,
            propagation,
            optional,
        });
    }
    let cgroups = cgroups::open(&run.identity.cgroups)?;
    run::set_oom_score(reporter, run.identity.oom_score_adj);
    let shared = ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    move_into_thread_name_spaces(init.as_fd(), others(&init, shared)?)
        .doing(|| "join the pod's namespaces".into())?;
    let (what, namespaces) = match own_pids {
        true => (Reply::Started, libc::CLONE_NEWNS | libc::CLONE_NEWPID),
        false => (Reply::Stage, libc::CLONE_NEWNS),
    };
    let views = std::mem::take(&mut run.identity.cgroups);
    continue_as_child(reporter, &what, namespaces, &cgroups, || {
        let alone = sys::one_thread().doing(|| "fork".into())?;
        if !own_pids {
            enter_pids(&init)?;
        }
        if !own_pids {
            // While /proc is the machine's: an image could have anything in its place, and what is named here is killed.
            reporter.tell_mount_namespace();
        }
        let root = root::build(reporter, filesystem, &views)?;
        root::pivot(&root)?;
        if cgroups.any() {
            sys::unshare(UnshareFlags::NEWCGROUP).doing(|| "make a cgroup namespace".into())?;
        }
        let prepared = run::prepare(reporter, &run, stdio, true)?;
        match own_pids {
            true => prepared.finish(reporter),
            false => prepared.bear(reporter, &alone),
        }
    })
}

/// Who is born of this process from here on is in the PID namespace of `init`.
fn enter_pids(init: &OwnedFd) -> Result<(), Failed> {
    let pids = others(init, ThreadNameSpaceType::PROCESS_ID)?;
    // Without root, one of the machine's is this one's own.
    if pids.is_empty() {
        return Ok(());
    }
    move_into_thread_name_spaces(init.as_fd(), pids)
        .doing(|| "enter the pod's PID namespace".into())
}

/// Which of these namespaces of a process are not this one's already. In a user namespace nobody may join the machine's, not
/// even who is there.
fn others(
    process: &OwnedFd,
    namespaces: ThreadNameSpaceType,
) -> Result<ThreadNameSpaceType, Failed> {
    if !in_user_namespace() {
        return Ok(namespaces);
    }
    let step = || "look at the pod's namespaces".to_owned();
    let (pid, _) = pids_of(process.as_fd()).doing(step)?;
    let mut others = namespaces;
    for (kind, name) in [
        (ThreadNameSpaceType::NETWORK, "net"),
        (ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION, "ipc"),
        (ThreadNameSpaceType::PROCESS_ID, "pid"),
        (ThreadNameSpaceType::CONTROL_GROUP, "cgroup"),
    ] {
        let inode =
            |of: &str| std::fs::metadata(format!("/proc/{of}/ns/{name}")).map(|ns| ns.ino());
        // Who has no memory any more because it is ending belongs to nobody, says ptrace's check.
        let theirs = inode(&pid.to_string()).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => rustix::io::Errno::SRCH.into(),
            _ => error,
        });
        if inode("self").doing(step)? == theirs.doing(step)? {
            others -= kind;
        }
    }
    Ok(others)
}

/// Makes a process in a container that runs. A process can't be born in a cgroup by who is as harmless as the program is to be, so the
/// stage goes on as one that was born there.
fn exec(reporter: &Reporter, container: RawFd, run: &Run) -> Result<(), Failure> {
    let container = inherited(container, "the container")?;
    let stdio = run::take_stdio(&run.stdio, &null()?)?;
    let cgroups = cgroups::open(&run.identity.cgroups)?;
    run::set_oom_score(reporter, run.identity.oom_score_adj);
    cgroups.enter_version_1()?;
    let alone = sys::one_thread().doing(|| "fork".into())?;
    if let Some(birthplace) = cgroups.birthplace() {
        // Before the namespaces: the directory of a cgroup must not come along.
        let order = Order::new()?;
        match sys::fork_sibling(&alone, 0, Some(birthplace)) {
            Ok(Some((_, pidfd))) => return Ok(reporter.tell(&Reply::Stage, &pidfd)?),
            Ok(None) => order.wait(),
            Err(_) => cgroups.enter_version_2()?,
        }
    }
    drop(cgroups);
    let all = ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::MOUNT;
    move_into_thread_name_spaces(container.as_fd(), others(&container, all)?)
        .doing(|| "join the container's namespaces".into())?;
    drop(container);
    run::prepare(reporter, run, stdio, false)?.bear(reporter, &alone)
}

#[cfg(test)]
mod tests;
