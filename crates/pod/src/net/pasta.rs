//! The way out for pods of an unprivileged user: pasta (passt.top), which carries a pod's packets by sockets of its own.
//!
//! It gets the pod's address plan, as far as it goes: eth0 with the pod's address in a /16, 10.87.0.1 as gateway. It forwards
//! no ports (the publisher does) and does not lead the gateway's address to the machine's loopback, where services are that
//! nobody meant for pods. IPv4 only, as for root.
//!
//! It runs in the pod's PID namespace, so that it ends with the pod's init whatever becomes of the supervisor: a signal on
//! the parent's death would be lost when it enters the user namespace.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::egress::NoEgress;
use super::veth::{GATEWAY, INTERFACE};

const PROGRAM: &str = "pasta";
const PREFIX_BITS: &str = "16";
/// What it makes the pod's interface of. Some machines let only root open it.
const TUN: &str = "/dev/net/tun";
/// What is read of what it says when it fails.
const WORDS_BYTES: u64 = 4096;

/// The namespaces of a pod.
#[derive(Debug, Clone, Copy)]
pub struct Namespaces<'a> {
    /// Its network namespace.
    pub network: BorrowedFd<'a>,
    /// The user namespace that owns it, when this process is not in there itself.
    pub user: Option<BorrowedFd<'a>>,
    /// The PID namespace that ends with the pod.
    pub processes: Option<BorrowedFd<'a>>,
}

/// A running pasta. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Pasta(Child);

impl Pasta {
    /// Starts it and waits until the pod's interface is up, some milliseconds.
    pub(super) fn start(namespaces: Namespaces<'_>, address: Ipv4Addr) -> Result<Self, NoEgress> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => no_way(
                "install pasta (Debian's and Fedora's package passt) for a way out",
                TUN,
            ),
            _ => no_way(&format!("starting pasta: {error}"), TUN),
        };
        let processes = namespaces.processes.map(|fd| fd.try_clone_to_owned());
        let processes = processes.transpose().map_err(failed)?;
        // It writes its process id when all is done, and says nothing else there.
        let (ready, done) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let words = memfd_create("pasta", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        let words = words.map_err(|e| failed(e.into()))?;
        let (mut command, _kept) = command(namespaces, address).map_err(failed)?;
        command
            .stdout(Stdio::from(done))
            .stderr(Stdio::from(words.try_clone().map_err(failed)?));
        // A thread of its own: its next child is born in that PID namespace.
        let child = std::thread::spawn(move || {
            if let Some(processes) = &processes {
                let kind = Some(LinkNameSpaceType::ProcessID);
                move_into_link_name_space(processes.as_fd(), kind)?;
            }
            command.spawn()
        });
        let child = child
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("its thread has panicked")));
        let this = Self(child.map_err(failed)?);
        let mut number = [0; 1];
        match File::from(ready).read(&mut number) {
            Ok(1) => {
                // What it says from now on nobody reads: it shall not fill memory.
                if let Err(error) = fcntl_add_seals(&words, SealFlags::GROW) {
                    tracing::debug!(%error, "pasta's messages are not bounded");
                }
                Ok(this)
            }
            _ => Err(no_way(&format!("pasta: {}", last_words(words)), TUN)),
        }
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = ended {
            tracing::warn!(pid = self.0.id(), %error, "pasta was not ended");
        }
    }
}

/// Why there is no way out, and whether `tun` is in the way too: who installs pasta shall not find that out afterwards.
pub(super) fn no_way(why: &str, tun: &str) -> NoEgress {
    let opened = File::options().read(true).write(true).open(tun);
    match opened {
        Err(error) if !why.contains(tun) => NoEgress::new(format!(
            "{why}; pasta needs {tun}, which this user can't open: {error}"
        )),
        _ => NoEgress::new(why),
    }
}

/// The command, and what has to stay open until it is started.
fn command(
    namespaces: Namespaces<'_>,
    address: Ipv4Addr,
) -> io::Result<(Command, Option<OwnedFd>)> {
    let mut command = Command::new(PROGRAM);
    command
        .args(["--foreground", "--quiet", "--config-net", "--ipv4-only"])
        .args(["--address", &address.to_string()])
        .args(["--netmask", PREFIX_BITS])
        .args(["--gateway", &GATEWAY.to_string(), "--no-map-gw"])
        .args(["--ns-ifname", INTERFACE])
        .args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"])
        .args(["--pid", "/proc/self/fd/1", "--no-netns-quit"])
        .args(["--netns", "/proc/self/fd/0"])
        .stdin(Stdio::from(namespaces.network.try_clone_to_owned()?));
    let Some(user) = namespaces.user else {
        return Ok((command, None));
    };
    // Inherited under its own number: a plain dup has no close-on-exec.
    let user = rustix::io::dup(user)?;
    let path = format!("/proc/self/fd/{}", user.as_raw_fd());
    command.args(["--userns", &path]);
    Ok((command, Some(user)))
}

/// The last line that says something.
fn last_words(words: OwnedFd) -> String {
    let mut file = File::from(words);
    let mut text = Vec::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(WORDS_BYTES).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let telling = |line: &&str| !line.is_empty() && !line.contains("to syslog");
    match (read, text.lines().rev().find(telling)) {
        (Ok(_), Some(line)) => line.trim().to_owned(),
        _ => "it ended without a word".to_owned(),
    }
}
