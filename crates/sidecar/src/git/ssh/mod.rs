//! Conversations with a server over ssh, for a thread that may wait: russh on the thread's runtime. No ssh program is needed.
//!
//! ```text
//!   dial ─▶ keys exchanged ─▶ the server's key held against known_hosts ─▶ the user's keys, one after the other
//!        ─▶ GIT_PROTOCOL=version=2, git-upload-pack 'PATH' ─▶ greeting ─▶ commands
//! ```
//!
//! Files are read for each conversation, and one look is one conversation: whoever renews a key needs no restart.

mod keys;
mod known_hosts;
mod short;
mod url;

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::{Buf as _, Bytes};
use russh::client::{self, AuthResult, Handle};
use russh::keys::{
    Algorithm, EcdsaCurve, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey,
    PublicKeyOrCertificate,
};
use russh::{AlgorithmKind, Channel, ChannelMsg, Disconnect, Preferred, SshId};
use tokio::runtime::Runtime;

use crate::dial;

use self::known_hosts::Verdict;
use super::credentials;
use super::http::{CONNECT, within};
use super::wire::{self, Greeting, Pack, Reference, Shallow, Wanted};

pub use self::keys::KeyFiles;
pub(super) use self::keys::read as read_key;
pub(super) use self::known_hosts::KnownHosts;
pub use self::url::SshUrl;

/// From the connection to the greeting. Some servers look users up elsewhere.
const GREETING: Duration = Duration::from_secs(30);
/// A server that says nothing is asked whether it is there; after three times it is held to be gone.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// To say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Of what the server's program complains of.
const COMPLAINT_BYTES_MAX: usize = 2 << 10;
/// What the server may send before it is read. It decides on the memory of a fetch.
const WINDOW_BYTES: u32 = 1 << 20;

/// Who asks, and who is believed to be the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// Private keys, tried in this order.
    pub(super) keys: Vec<PathBuf>,
    /// The file of the passphrase of those that are encrypted.
    pub(super) passphrase: Option<PathBuf>,
    /// None: whoever answers is believed.
    pub(super) known_hosts: Option<PathBuf>,
}

impl Settings {
    fn read_keys(&self) -> Result<Vec<PrivateKey>, String> {
        let file = self.passphrase.as_ref();
        let passphrase = file.map(|file| credentials::read("--ssh-key-passphrase-file", file));
        let passphrase = passphrase.transpose()?;
        let read = |path: &PathBuf| {
            read_key(path, passphrase.as_deref()).map_err(|why| format!("--ssh-key-file {why}"))
        };
        self.keys.iter().map(read).collect()
    }

    fn read_known_hosts(&self) -> Result<Option<(KnownHosts, PathBuf)>, String> {
        let Some(path) = &self.known_hosts else {
            return Ok(None);
        };
        let known = KnownHosts::read(path);
        let known = known.map_err(|why| format!("--ssh-known-hosts-file {why}"))?;
        Ok(Some((known, path.clone())))
    }
}

/// A server's git-upload-pack, greeted.
pub(super) struct Conversation {
    url: SshUrl,
    runtime: Arc<Runtime>,
    handle: Handle<Host>,
    channel: Channel<client::Msg>,
    deadline: Instant,
    rest: Bytes,
    /// What the server's program wrote besides.
    complaint: Vec<u8>,
    exit_code: Option<u32>,
    /// Why no more comes.
    ended: Option<String>,
    greeting: Greeting,
}

impl Conversation {
    /// Connects, and reads what the server can do.
    pub(super) fn open(
        runtime: Arc<Runtime>,
        url: &SshUrl,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<Self, String> {
        let shown = |why: String| format!("{url}: {why}");
        // Before anybody is asked: what is wrong here needs no server to be seen.
        let keys = settings.read_keys()?;
        let host = Host {
            url: url.clone(),
            known: settings.read_known_hosts()?,
        };
        let connecting = within(
            deadline.min(Instant::now() + CONNECT),
            dial::tcp(&url.host, url.port),
        );
        let stream = runtime
            .block_on(connecting)
            .unwrap_or_else(|| Err("it takes too long".to_owned()))
            .map_err(|why| shown(format!("connecting to {why}")))?;
        let greeting = async {
            let mut handle = client::connect_stream(Arc::new(config(&host)), stream, host)
                .await
                .map_err(Stopped::into_text)?;
            show_keys(&mut handle, url, &keys, settings).await?;
            let channel = start(&handle, url).await.map_err(|error| told(&error))?;
            Ok((handle, channel))
        };
        let (handle, channel) = runtime
            .block_on(within(deadline.min(Instant::now() + GREETING), greeting))
            .unwrap_or_else(|| Err("the server does not answer as ssh does in time".to_owned()))
            .map_err(shown)?;
        let mut conversation = Self {
            url: url.clone(),
            runtime,
            handle,
            channel,
            deadline,
            rest: Bytes::new(),
            complaint: Vec::new(),
            exit_code: None,
            ended: None,
            greeting: Greeting::Two,
        };
        conversation.greeting = wire::read_greeting(&mut conversation)
            .map_err(|error| format!("{}: {error}", conversation.url))?;
        Ok(conversation)
    }

    /// Asks for references. What was asked for is among them; an old server names all.
    pub(super) fn references(&mut self, names: &[String]) -> Result<Vec<Reference>, String> {
        if let Greeting::Old(old) = &self.greeting {
            return Ok(old.references.clone());
        }
        self.send(wire::ls_refs(names))?;
        wire::read_refs(&mut *self).map_err(|error| format!("{}: {error}", self.url))
    }

    /// Asks for a pack; it comes from the reader returned.
    pub(super) fn fetch(&mut self, wanted: &Wanted) -> Result<(Shallow, Pack<&mut Self>), String> {
        let url = self.url.clone();
        let shown = |error: io::Error| format!("{url}: {error}");
        let old = match &self.greeting {
            Greeting::Two => None,
            Greeting::Old(old) => Some(wire::fetch_old(wanted, old).map_err(shown)?),
        };
        match old {
            None => {
                self.send(wire::fetch(wanted))?;
                wire::read_fetch(self).map_err(shown)
            }
            Some(request) => {
                self.send(request)?;
                wire::read_fetch_old(self, wanted).map_err(shown)
            }
        }
    }

    fn send(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        let sent = within(self.deadline, self.channel.data_bytes(bytes));
        match self.runtime.block_on(sent) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(format!("{}: {}", self.url, told(&error))),
            None => Err(format!("{} does not take what is sent", self.url)),
        }
    }

    /// Why no more comes.
    fn end(&mut self) -> String {
        let complaint = wire::line(&self.complaint);
        match (complaint.is_empty(), self.exit_code) {
            (false, _) => format!("the server says: {complaint}"),
            (true, Some(code)) => format!("git-upload-pack ended there with exit code {code}"),
            (true, None) => {
                // The task that held the connection knows why it ended.
                let ended = within(Instant::now() + GOODBYE, &mut self.handle);
                match self.runtime.block_on(ended) {
                    Some(Err(stopped)) => stopped.into_text(),
                    Some(Ok(())) | None => CLOSED.to_owned(),
                }
            }
        }
    }
}

impl Read for Conversation {
    /// Never 0: git's answers have ends of their own, so that the end of the conversation is a fault.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            if let Some(why) = &self.ended {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why.clone()));
            }
            let waiting = within(self.deadline, self.channel.wait());
            let message = self.runtime.block_on(waiting);
            let message = message.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?;
            match message {
                Some(ChannelMsg::Data { data }) => self.rest = data,
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    let room = COMPLAINT_BYTES_MAX.saturating_sub(self.complaint.len());
                    self.complaint
                        .extend_from_slice(&data[..data.len().min(room)]);
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => self.exit_code = Some(exit_status),
                Some(ChannelMsg::Failure) => {
                    return Err(io::Error::other("the server does not run git-upload-pack"));
                }
                // After the last byte its exit code may come still.
                Some(ChannelMsg::Close) | None => self.ended = Some(self.end()),
                Some(_) => {}
            }
        }
        let count = self.rest.len().min(out.len());
        out[..count].copy_from_slice(&self.rest[..count]);
        self.rest.advance(count);
        Ok(count)
    }
}

impl Drop for Conversation {
    /// Says that nothing more is wanted, so that the server's program ends well and nothing is left open.
    fn drop(&mut self) {
        let goodbye = async {
            if self.ended.is_none() {
                self.channel.data_bytes(wire::FLUSH).await?;
                self.channel.eof().await?;
            }
            let reason = Disconnect::ByApplication;
            self.handle.disconnect(reason, "", "").await?;
            (&mut self.handle)
                .await
                .map_err(|_| russh::Error::Disconnect)
        };
        // Whoever is gone needs no goodbye.
        drop(
            self.runtime
                .block_on(within(Instant::now() + GOODBYE, goodbye)),
        );
    }
}

/// What is spoken. SHA-1 has no part in it: of an rsa key no `ssh-rsa` signatures.
fn config(host: &Host) -> client::Config {
    let mut keys = KINDS.to_vec();
    if let Some((known, _)) = &host.known {
        let kinds = known.kinds(&host.url.host, host.url.port);
        let is_known = |key: &Algorithm| match key {
            Algorithm::Rsa { .. } => kinds.contains(&"ssh-rsa"),
            key => kinds.contains(&key.as_str()),
        };
        keys.sort_by_key(|key| !is_known(key));
    }
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-podkit_",
            env!("CARGO_PKG_VERSION")
        ))),
        window_size: WINDOW_BYTES,
        preferred: Preferred {
            key: Cow::Owned(keys),
            ..Preferred::DEFAULT
        },
        keepalive_interval: Some(KEEPALIVE),
        ..client::Config::default()
    }
}

const fn ecdsa(curve: EcdsaCurve) -> Algorithm {
    Algorithm::Ecdsa { curve }
}

const fn rsa(hash: HashAlg) -> Algorithm {
    Algorithm::Rsa { hash: Some(hash) }
}

/// Kinds of host keys that are taken.
const KINDS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    ecdsa(EcdsaCurve::NistP256),
    ecdsa(EcdsaCurve::NistP384),
    ecdsa(EcdsaCurve::NistP521),
    rsa(HashAlg::Sha512),
    rsa(HashAlg::Sha256),
];

/// Shows the user's keys until one is taken.
async fn show_keys(
    handle: &mut Handle<Host>,
    url: &SshUrl,
    keys: &[PrivateKey],
    settings: &Settings,
) -> Result<(), String> {
    let mut tried = Vec::new();
    for (key, path) in keys.iter().zip(&settings.keys) {
        let mut hash = None;
        if key.algorithm().is_rsa() {
            let best = handle.best_supported_rsa_hash().await;
            hash = match best.map_err(|error| told(&error))? {
                Some(None) => {
                    return Err(format!(
                        "the server takes signatures of rsa keys by SHA-1 only, which are not made; expected a key of another kind in {}",
                        path.display()
                    ));
                }
                Some(best) => best,
                None => Some(HashAlg::Sha512),
            };
        }
        let signer = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), hash);
        let shown = handle.authenticate_publickey(&url.user, signer).await;
        match shown.map_err(|error| told(&error))? {
            AuthResult::Success => return Ok(()),
            AuthResult::Failure {
                partial_success: true,
                ..
            } => return Err(format!("the server wants more of {} than a key", url.user)),
            AuthResult::Failure { .. } => {
                let print = key.public_key().fingerprint(HashAlg::Sha256);
                tried.push(format!("{} ({} {print})", path.display(), key.algorithm()));
            }
        }
    }
    Err(format!(
        "the server does not let {} in with the key {}",
        url.user,
        tried.join(" nor ")
    ))
}

/// Asks for version 2 of the protocol, then for the program.
async fn start(handle: &Handle<Host>, url: &SshUrl) -> Result<Channel<client::Msg>, russh::Error> {
    let channel = handle.channel_open_session().await?;
    // A server that has no ear for it answers in the old version.
    channel.set_env(false, "GIT_PROTOCOL", "version=2").await?;
    channel.exec(true, url.command()).await?;
    Ok(channel)
}

/// The server, as far as it is known.
struct Host {
    url: SshUrl,
    known: Option<(KnownHosts, PathBuf)>,
}

/// Why a connection ended.
#[derive(Debug)]
enum Stopped {
    /// The server's key is not its.
    Key(String),
    Ssh(russh::Error),
}

impl From<russh::Error> for Stopped {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl Stopped {
    fn into_text(self) -> String {
        match self {
            Self::Key(why) => why,
            Self::Ssh(error) => told(&error),
        }
    }
}

impl client::Handler for Host {
    type Error = Stopped;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Stopped> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.check(key).map_err(Stopped::Key).map(|()| true)
            }
            // It was not asked for.
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }
}

impl Host {
    fn check(&self, key: &PublicKey) -> Result<(), String> {
        let Some((known, path)) = &self.known else {
            return Ok(());
        };
        let bytes = key.to_bytes().map_err(|error| error.to_string())?;
        let (path, SshUrl { host, port, .. }) = (path.display(), &self.url);
        let shown = format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256));
        match known.check(host, *port, &bytes) {
            Verdict::Known => Ok(()),
            Verdict::Unknown => Err(format!(
                "the host key of {host} port {port} is not known: {shown} is not in {path}; when it is right, ssh-keyscan -p {port} {host} writes the line for it"
            )),
            Verdict::Changed { line, expected } => {
                let expected = PublicKey::from_bytes(&expected);
                let expected = expected
                    .map(|key| key.fingerprint(HashAlg::Sha256).to_string())
                    .unwrap_or_default();
                Err(format!(
                    "the host key of {host} port {port} has changed: {shown} instead of {expected} in {path} line {line}; someone may be in between"
                ))
            }
            Verdict::Revoked { line } => Err(format!(
                "the host key of {host} port {port} is revoked: {shown} by {path} line {line}"
            )),
        }
    }
}

const CLOSED: &str = "the server closed the connection";

/// russh's errors, in words that tell what to do.
fn told(error: &russh::Error) -> String {
    match error {
        russh::Error::NoCommonAlgo {
            kind: AlgorithmKind::Key,
            theirs,
            ..
        } => {
            let kinds = KINDS.map(|kind| kind.as_str().to_owned());
            format!(
                "the server has host keys of {} only; expected one of {} (ssh-rsa is signed by SHA-1, which proves nothing any more)",
                theirs.join(", "),
                kinds.join(", ")
            )
        }
        russh::Error::NoCommonAlgo { kind, theirs, .. } => format!(
            "nothing in common with the server in {kind:?}: it speaks {}",
            theirs.join(", ")
        ),
        russh::Error::HUP | russh::Error::Disconnect => CLOSED.to_owned(),
        russh::Error::IO(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            CLOSED.to_owned()
        }
        russh::Error::KeepaliveTimeout => "the server is gone".to_owned(),
        russh::Error::Version => "this is no ssh server".to_owned(),
        other => format!("ssh: {other}"),
    }
}
