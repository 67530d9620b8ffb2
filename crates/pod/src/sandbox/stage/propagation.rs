//! `mountPropagation: Bidirectional`: what the container mounts there is mounted on the machine.
//!
//! The supervisor's mount namespace only receives what is mounted on the machine, so a peer of the machine's mount can be had
//! in the machine's namespace alone: this process, which has one thread, goes there for it, and comes back.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, fstat, open, statx};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::inherited;
use crate::sandbox::error::{Doing, Failed};
use crate::sandbox::private::tree::clone_tree;
use crate::sandbox::wire::SourceJob;

/// A peer of the mount that `source` is in, with all below it. It must be a shared one, as container runtimes demand.
pub(super) fn machine_tree(
    machine: Option<&OwnedFd>,
    source: SourceJob,
    target: &Path,
) -> Result<OwnedFd, Failed> {
    let step = || format!("mount {} in both directions", target.display());
    let path = match source {
        SourceJob::Path(path) => path,
        SourceJob::Fd(number) => path_of(&inherited(number, "a volume")?).doing(step)?,
    };
    let here = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(step)?;
    let id = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let wanted = id(&here).doing(step)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = open("/proc/self/ns/mnt", flags, Mode::empty()).doing(step)?;
    let machine = machine.ok_or(io::ErrorKind::NotFound).doing(step)?;
    enter(machine).doing(step)?;
    let tree = (|| {
        let there = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let shared = is_shared(&there)?;
        let tree = clone_tree(&there, c"", true)?;
        io::Result::Ok((tree, shared && id(&there)? == wanted))
    })();
    enter(&own).doing(step)?;
    match tree.doing(step)? {
        (tree, true) => Ok(tree),
        (_, false) => Err(Failed {
            step: format!(
                "{}: {} is not in a shared mount of this machine",
                step(),
                path.display()
            ),
            errno: libc::EINVAL,
        }),
    }
}

fn enter(namespace: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Mount),
    )?)
}

fn path_of(fd: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Whether the mount that a file is in has peers or could have. (proc_pid_mountinfo(5))
fn is_shared(file: &OwnedFd) -> io::Result<bool> {
    let mask = StatxFlags::MNT_ID;
    let id = statx(file, c"", AtFlags::EMPTY_PATH, mask)?.stx_mnt_id;
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    Ok(shared(&mounts, id))
}

/// By the text of mountinfo, whose paths may be in any encoding.
pub(super) fn shared(mountinfo: &[u8], id: u64) -> bool {
    let id = id.to_string();
    let mut lines = mountinfo.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.split(|byte| *byte == b' ').next() == Some(id.as_bytes()));
    let mut fields = line.unwrap_or_default().split(|byte| *byte == b' ').skip(6);
    fields
        .by_ref()
        .take_while(|field| *field != b"-")
        .any(|field| field.starts_with(b"shared:"))
}
