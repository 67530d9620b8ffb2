//! The first stage of a pod: it makes the pod's namespaces and the process that holds them.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::MountAttrFlags;
use rustix::system::sethostname;
use rustix::thread::UnshareFlags;

use super::{Failure, Reporter, cgroups, continue_as_child, guard, inherited, null};
use super::{privileges, root, run, standard, sysctl};
use crate::sandbox::error::Doing;
use crate::sandbox::private::tree::{attach, new_filesystem};
use crate::sandbox::wire::{self, PodJob, Reply};
use crate::sys;

/// Makes the namespaces that are not the machine's, and the init.
pub(super) fn make(reporter: &Reporter, job: &PodJob) -> Result<(), Failure> {
    let (pipe, pause) = (
        inherited(job.pipe, "the init's pipe")?,
        inherited(job.pause, "the init's program")?,
    );
    let (cgroups, null) = (cgroups::open(&job.cgroups)?, null()?);
    // A host name of its own in any case: the namespace is what the guard knows the pod by.
    let mut own = UnshareFlags::NEWUTS;
    own.set(UnshareFlags::NEWNET, !job.host.network);
    own.set(UnshareFlags::NEWIPC, !job.host.ipc);
    sys::unshare(own).doing(|| "make the pod's namespaces".into())?;
    sethostname(job.hostname.as_bytes()).doing(|| "set the host name".into())?;
    sysctl::set_all(&job.sysctls)?;
    let pids = if job.host.pid { 0 } else { libc::CLONE_NEWPID };
    let namespaces = pids | libc::CLONE_NEWNS;
    continue_as_child(reporter, &Reply::Started, namespaces, &cgroups, || {
        let stdio = [&pipe, &null, &null];
        match job.host.pid {
            true => become_guard(reporter, stdio),
            false => become_pause(reporter, stdio, &pause, job.shared_pids),
        }
    })
}

/// An empty read-only root, no capability, and the pause program. A `/proc` shows the PID namespace of who makes it, which here only
/// a process inside can do: where containers share PIDs this one does it for all of them, while it is alone.
fn become_pause(
    reporter: &Reporter,
    stdio: [&OwnedFd; 3],
    pause: impl AsFd,
    shared_pids: bool,
) -> Result<Infallible, Failure> {
    if shared_pids {
        let proc = new_filesystem("proc", &[], standard::NOTHING);
        let proc = proc.doing(|| "make the pod's /proc".into())?;
        let sent = wire::send_reply(&reporter.socket, &Reply::Proc, Some(&proc));
        sent.doing(|| "hand over the pod's /proc".into())?;
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = new_filesystem("tmpfs", &[("size", "4k"), ("mode", "0555")], attributes)
        .and_then(|root| attach(&root, CWD, root::PLACE).map(|()| root))
        .doing(|| "mount the init's root".into())?;
    root::pivot(&root)?;
    run::replace_stdio(stdio)?;
    run::detach_from_caller()?;
    privileges::drop_all()?;
    sys::ignore_child_exits();
    reporter
        .tell_executing()
        .doing(|| "report the init".into())?;
    sys::exec_fd(pause, &[c"podkit-pause".to_owned()])
        .doing(|| "exec the init".into())
        .map_err(Failure::from)
}

fn become_guard(reporter: &Reporter, stdio: [&OwnedFd; 3]) -> Result<Infallible, Failure> {
    run::replace_stdio(stdio)?;
    run::detach_from_caller()?;
    reporter
        .tell_executing()
        .doing(|| "report the init".into())?;
    guard::run()
}
