//! The socket: who may ask, for what, and how many at a time.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use podkit_foundation::error::Failure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use super::life::{Children, settle};
use super::params::AgentParams;
use super::run;
use super::wire::{ASK_MAX, Answer, Ask, Outcome};

/// How long an ask, and an answer, may take to go over the socket.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket's file, removed at the end when it is still this one.
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl Door {
    /// Listens. A socket that nobody answers at any more is replaced, any other file is not.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let open = || {
            if is_stale(path) {
                fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            // Connecting wants the right to write: the directory says who may.
            fs::set_permissions(path, Permissions::from_mode(0o666))?;
            let file = fs::symlink_metadata(path)?;
            Ok(Self {
                listener,
                path: path.to_owned(),
                identity: (file.dev(), file.ino()),
            })
        };
        open().map_err(|error: io::Error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => {
                    "its directory is not there; expected one in a volume that the sidecars share"
                        .to_owned()
                }
                io::ErrorKind::AddrInUse => {
                    "another process answers there, or it is no socket".to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    "this user may not write to its directory (fsGroup of the pod gives the right)"
                        .to_owned()
                }
                _ => error.to_string(),
            };
            Failure::runtime(format!("--socket (PODKIT_SOCKET) {}", path.display()), why)
        })
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours {
            fs::remove_file(&self.path).ok();
        }
    }
}

fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = || {
        std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    is_socket && refused()
}

/// What answers the askers.
pub(super) struct Desk {
    pub(super) params: AgentParams,
    pub(super) children: Rc<Children>,
    pub(super) settled: fn(),
    pub(super) asking: Cell<u32>,
}

impl Desk {
    /// Answers one connection to its end.
    pub(super) async fn serve(&self, mut asker: UnixStream) {
        if self.asking.get() >= self.params.max_asks {
            let most = self.params.max_asks;
            warn!(most, "one asker too many; refused");
            let why = format!("{most} are asking already (--max-asks); ask again later");
            return send(&mut asker, &Answer::refused(why)).await;
        }
        self.asking.set(self.asking.get() + 1);
        if let Some(answer) = self.answer(&mut asker).await {
            send(&mut asker, &answer).await;
        }
        self.asking.set(self.asking.get() - 1);
        settle(self.settled);
    }

    async fn answer(&self, asker: &mut UnixStream) -> Option<Answer> {
        let uid = match asker.peer_cred() {
            Ok(who) => who.uid(),
            Err(error) => return Some(Answer::refused(format!("who asks? ({error})"))),
        };
        let users = &self.params.allow_uid;
        if !users.is_empty() && !users.contains(&uid) {
            warn!(uid, "a user that --allow-uid does not name; refused");
            let why = format!("user {uid} may not ask (--allow-uid of the agent)");
            return Some(Answer::refused(why));
        }
        let ask = match tokio::time::timeout(PATIENCE, receive(asker)).await {
            Ok(Ok(ask)) => ask,
            Ok(Err(why)) => {
                warn!(uid, why, "not an ask; refused");
                return Some(Answer::refused(why));
            }
            Err(_) => return Some(Answer::refused("the ask did not come in time")),
        };
        let command = ask.words.join(" ");
        if ask.words.is_empty() || !self.params.allow.iter().any(|rule| rule.allows(&ask.words)) {
            warn!(uid, command, "no --allow has this; refused");
            return Some(Answer::refused("no --allow of the agent has it"));
        }
        let timeout = self
            .params
            .timeout
            .min(Duration::from_millis(ask.timeout_ms));
        let answer = run::run(&self.children, &ask.words, timeout, asker).await;
        match answer.as_ref().map(|answer| &answer.outcome) {
            None => warn!(uid, command, "who asked has gone; killed"),
            Some(Outcome::Exited(code)) => info!(uid, command, code, "ran"),
            Some(Outcome::Signalled(signal)) => warn!(uid, command, signal, "ended by a signal"),
            Some(Outcome::TimedOut(ms)) => warn!(uid, command, ms, "took too long; killed"),
            Some(Outcome::Refused(why)) => warn!(uid, command, why, "could not run"),
        }
        answer
    }
}

async fn receive(asker: &mut UnixStream) -> Result<Ask, String> {
    let mut line = Vec::new();
    let mut buffer = vec![0; 4096];
    while !line.ends_with(b"\n") {
        match asker.read(&mut buffer).await {
            Ok(count @ 1..) => line.extend_from_slice(&buffer[..count]),
            Ok(0) => return Err("it ended within its line".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        if line.len() > ASK_MAX {
            return Err(format!("longer than {ASK_MAX} bytes"));
        }
    }
    serde_json::from_slice(&line).map_err(|error| format!("not an ask ({error})"))
}

async fn send(asker: &mut UnixStream, answer: &Answer) {
    let mut line = serde_json::to_vec(answer).expect("an answer always serialises");
    line.push(b'\n');
    // Who has gone needs no answer.
    tokio::time::timeout(PATIENCE, asker.write_all(&line))
        .await
        .ok();
}
