//! One repository: what its reference leads to now, and the files of a commit.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use gix_hash::{Kind, ObjectId};
use gix_object::{CommitRefIter, Kind as ObjectKind};
use hyper::{Method, StatusCode};
use tracing::{info, warn};

use super::checkout::{self, Gitlink, Trouble};
use super::credentials::{Credentials, Door};
use super::http::{Answer, Client, Request};
use super::local::{Bundle, Repository};
use super::location::{Location, Revision, Url};
use super::pack::{self, Objects};
use super::params::Submodules;
use super::signers::Signers;
use super::sparse::Sparse;
use super::ssh::{self, Conversation};
use super::store::Store;
use super::submodule;
use super::wire::{self, Greeting, Pack, Reference, Wanted};

/// Submodules in each other at most.
const NESTED_MAX: usize = 8;

/// What of a repository is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) location: Location,
    pub(super) revision: Revision,
    pub(super) depth: u32,
    pub(super) sparse: Option<PathBuf>,
    pub(super) submodules: Submodules,
    pub(super) signers: Option<PathBuf>,
    pub(super) credentials: Credentials,
    pub(super) ssh: ssh::Settings,
    /// Where the store may be.
    pub(super) store: PathBuf,
}

/// A repository, asked again and again.
pub(super) struct Source {
    wish: Wish,
    door: Door,
    /// The server's address, once it has said that it speaks version 2.
    greeted: Option<Url>,
    /// Over ssh: what a look has begun, so that a fetch needs no other connection.
    conversation: Option<Conversation>,
    nested: usize,
}

/// How objects are had.
enum Held {
    /// A repository on this machine: they are where they are.
    There(Repository),
    /// In the store.
    Stored(Store),
}

impl Source {
    pub(super) fn new(wish: Wish) -> Self {
        Self {
            door: Door::new(wish.credentials.clone()),
            wish,
            greeted: None,
            conversation: None,
            nested: 0,
        }
    }

    /// Where the store is, or may be.
    pub(super) fn store_path(&self) -> &Path {
        &self.wish.store
    }

    /// Until the next look no connection is needed. That of http is kept, where the server keeps it.
    pub(super) fn rest(&mut self) {
        self.conversation = None;
    }

    /// The commit that the reference leads to now. Of a server this is one small request, once it is known.
    pub(super) fn look(
        &mut self,
        client: &mut Client,
        deadline: Instant,
    ) -> Result<ObjectId, String> {
        if let Revision::Commit(id) = self.wish.revision {
            return Ok(id);
        }
        let names = self.wish.revision.names();
        let references = match &self.wish.location {
            Location::Http(_) => self.ask(client, deadline, &names)?,
            Location::Ssh(url) => {
                let runtime = client.runtime();
                let conversation = Conversation::open(runtime, url, &self.wish.ssh, deadline)?;
                self.conversation.insert(conversation).references(&names)?
            }
            Location::Path(path) if path.is_file() => Bundle::open(path)?.references,
            Location::Path(path) => {
                let repository = Repository::open(path)?;
                let mut references = repository.references(&names)?;
                let objects = Objects::open(&repository.objects(), &self.wish.store);
                let objects = objects.map_err(|error| error.to_string())?;
                for reference in &mut references {
                    reference.id = objects
                        .peel(reference.id)
                        .map_err(|error| error.to_string())?;
                }
                references
            }
        };
        self.wish.revision.choose(&references).ok_or_else(|| {
            format!(
                "{} has no branch or tag {}",
                self.wish.location, self.wish.revision
            )
        })
    }

    /// Writes the files of a commit into an empty directory. A store that is at fault is made anew, once.
    pub(super) fn fill(
        &mut self,
        client: &mut Client,
        deadline: Instant,
        commit: ObjectId,
        into: &Path,
    ) -> Result<(), Unfilled> {
        let failed = match self.try_fill(client, deadline, commit, into) {
            Err(Failed::Store(why)) if self.is_stored() => {
                warn!(why, "the local store is no good; it is made anew");
                self.store()
                    .and_then(|store| store.reset())
                    .map_err(|error| self.disk(&error))
                    .and_then(|()| {
                        empty(into).map_err(|error| Failed::disk(into, &error))?;
                        self.try_fill(client, deadline, commit, into)
                    })
            }
            tried => tried,
        };
        failed.map_err(|failed| match failed {
            Failed::Store(why) | Failed::Other(why) => Unfilled { why, full: false },
            Failed::Full(why) => Unfilled { why, full: true },
        })
    }

    /// What a file system has to do with a failure of the store.
    fn disk(&self, error: &io::Error) -> Failed {
        Failed::disk(&self.wish.store, error)
    }

    fn try_fill(
        &mut self,
        client: &mut Client,
        deadline: Instant,
        commit: ObjectId,
        into: &Path,
    ) -> Result<(), Failed> {
        let held = self.hold(client, deadline, commit)?;
        let objects = match &held {
            Held::There(repository) => Objects::open(&repository.objects(), &self.wish.store),
            Held::Stored(store) => store.objects(),
        };
        let objects = objects.map_err(|error| self.disk(&error))?;
        let commit = objects.peel(commit).map_err(|error| self.disk(&error))?;
        if let Some(signers) = &self.wish.signers {
            let signers = Signers::read(signers).map_err(Failed::Other)?;
            let mut bytes = Vec::new();
            let read = objects.read(&commit, ObjectKind::Commit, &mut bytes);
            read.map_err(|error| self.disk(&error))?;
            verify(&bytes, commit, &signers)?;
        }
        let tree = checkout::tree_of(&objects, commit).map_err(|error| self.disk(&error))?;
        let sparse = self.wish.sparse.as_deref().map(Sparse::read).transpose();
        let sparse = sparse.map_err(Failed::Other)?;
        let links = checkout::write(&objects, tree, into, sparse.as_ref())?;
        if self.wish.submodules == Submodules::Off {
            return Ok(());
        }
        self.submodules(client, deadline, &links, into)
    }

    /// Sees to it that the commit's objects are to be had.
    fn hold(
        &mut self,
        client: &mut Client,
        deadline: Instant,
        commit: ObjectId,
    ) -> Result<Held, Failed> {
        let at = self.wish.store.clone();
        let store_failed = |error: io::Error| Failed::disk(&at, &error);
        match self.wish.location.clone() {
            Location::Path(path) if !path.is_file() => {
                Ok(Held::There(Repository::open(&path).map_err(Failed::Other)?))
            }
            Location::Path(path) => {
                let store = self.store().map_err(store_failed)?;
                let mut bundle = Bundle::open(&path).map_err(Failed::Other)?;
                if store.have().is_some_and(|(have, _)| have == commit) {
                    return Ok(Held::Stored(store));
                }
                let objects = store.objects().map_err(store_failed)?;
                if let Some(need) = bundle
                    .needs
                    .iter()
                    .find(|need| objects.peel(**need).is_err())
                {
                    let why = format!(
                        "{} builds on commit {need}, which is not here",
                        path.display()
                    );
                    return Err(Failed::Other(why));
                }
                store
                    .take(&mut bundle.pack)
                    .map_err(|error| match pack::is_bad(&error) {
                        true => Failed::Other(format!("{}: {error}", path.display())),
                        false => store_failed(error),
                    })?;
                store.note(commit, &[]).map_err(store_failed)?;
                Ok(Held::Stored(store))
            }
            Location::Http(_) | Location::Ssh(_) => {
                let store = self.store().map_err(store_failed)?;
                if store.have().is_some_and(|(have, _)| have == commit) {
                    return Ok(Held::Stored(store));
                }
                if store.is_crowded() {
                    info!("the local store has many packs; it is made anew");
                    store.reset().map_err(store_failed)?;
                }
                self.fetch(client, deadline, &store, commit)?;
                Ok(Held::Stored(store))
            }
        }
    }

    fn store(&self) -> io::Result<Store> {
        let url = format!("{}\ndepth {}\n", self.wish.location, self.wish.depth);
        Store::open(self.wish.store.clone(), url)
    }

    fn is_stored(&self) -> bool {
        match &self.wish.location {
            Location::Http(_) | Location::Ssh(_) => true,
            Location::Path(path) => path.is_file(),
        }
    }

    /// Asks a server for references.
    fn ask(
        &mut self,
        client: &mut Client,
        deadline: Instant,
        names: &[String],
    ) -> Result<Vec<Reference>, String> {
        let answer = self.command(client, deadline, wire::ls_refs(names))?;
        let mut body = answer.body;
        let references = wire::read_refs(&mut body).map_err(|error| error.to_string())?;
        // Read to its end the connection can be used again.
        io::copy(&mut body, &mut io::sink()).map_err(|error| error.to_string())?;
        Ok(references)
    }

    fn fetch(
        &mut self,
        client: &mut Client,
        deadline: Instant,
        store: &Store,
        commit: ObjectId,
    ) -> Result<(), Failed> {
        let before = store.have();
        let (have, mut shallow) = match before {
            Some((have, shallow)) => (Some(have), shallow),
            None => (None, Vec::new()),
        };
        let wanted = Wanted {
            want: commit,
            have,
            shallow: shallow.clone(),
            depth: self.wish.depth,
        };
        let change = match self.wish.location.clone() {
            Location::Ssh(url) => {
                let begun = self.conversation.take().map_or_else(
                    || Conversation::open(client.runtime(), &url, &self.wish.ssh, deadline),
                    Ok,
                );
                let mut conversation = begun.map_err(Failed::Other)?;
                let (change, mut pack) = conversation.fetch(&wanted).map_err(Failed::Other)?;
                self.take(store, &mut pack, have)?;
                change
            }
            _ => {
                let answer = self.command(client, deadline, wire::fetch(&wanted));
                let read = wire::read_fetch(answer.map_err(Failed::Other)?.body);
                let (change, mut pack) = read.map_err(|error| Failed::Other(error.to_string()))?;
                self.take(store, &mut pack, have)?;
                change
            }
        };
        shallow.retain(|commit| !change.unshallow.contains(commit));
        for commit in change.shallow {
            if !shallow.contains(&commit) {
                shallow.push(commit);
            }
        }
        let noted = store.note(commit, &shallow);
        noted.map_err(|error| self.disk(&error))
    }

    /// Puts a pack into the store.
    fn take(
        &self,
        store: &Store,
        pack: &mut Pack<impl Read>,
        have: Option<ObjectId>,
    ) -> Result<(), Failed> {
        if let Err(error) = store.take(pack) {
            return Err(match (pack.broken.take(), have) {
                // The connection is to blame, or the server: the store is as it was.
                (Some(broken), _) => Failed::Other(broken),
                (None, None) if pack::is_bad(&error) => Failed::Other(error.to_string()),
                // What deltas build on may be spoilt, or the disk is full.
                _ => self.disk(&error),
            });
        }
        let read = pack.read_to_end(&mut Vec::new());
        read.map_err(|error| Failed::Other(error.to_string()))?;
        Ok(())
    }

    /// Sends a command; first, when the server isn't known yet, the greeting.
    fn command<'a>(
        &mut self,
        client: &'a mut Client,
        deadline: Instant,
        body: Vec<u8>,
    ) -> Result<Answer<'a>, String> {
        let Location::Http(first) = &self.wish.location else {
            return Err("is not on a server".to_owned());
        };
        let authorization = self.door.authorization(client, deadline)?;
        let url = match &self.greeted {
            Some(url) => url.clone(),
            None => {
                let request = Request {
                    method: Method::GET,
                    path: "/info/refs?service=git-upload-pack",
                    headers: &[("Git-Protocol", "version=2")],
                    content_type: None,
                    body: Vec::new(),
                    authorization: authorization.clone(),
                };
                let answer = client.send(first, request, deadline)?;
                good(&answer, self.door.credentials()).inspect_err(|_| self.door.forget())?;
                let mut body = answer.body;
                let url = answer.url;
                let greeting = wire::read_greeting(&mut body);
                if greeting.map_err(|error| format!("{url}: {error}"))? != Greeting::Two {
                    return Err(format!(
                        "{url}: the server speaks an old protocol; expected protocol version 2 (git 2.18 or newer)"
                    ));
                }
                io::copy(&mut body, &mut io::sink()).map_err(|error| error.to_string())?;
                url
            }
        };
        let moved = (url.tls, &url.host, url.port) != (first.tls, &first.host, first.port);
        let request = Request {
            method: Method::POST,
            path: "/git-upload-pack",
            headers: &[
                ("Git-Protocol", "version=2"),
                ("Accept", "application/x-git-upload-pack-result"),
            ],
            content_type: Some("application/x-git-upload-pack-request"),
            body,
            // Another host than the one that was named is shown nothing.
            authorization: authorization.filter(|_| !moved),
        };
        self.greeted = None;
        let answer = client.send(&url, request, deadline)?;
        good(&answer, self.door.credentials()).inspect_err(|_| self.door.forget())?;
        self.greeted = Some(url);
        Ok(answer)
    }

    fn submodules(
        &mut self,
        client: &mut Client,
        deadline: Instant,
        links: &[Gitlink],
        into: &Path,
    ) -> Result<(), Failed> {
        if links.is_empty() {
            return Ok(());
        }
        if self.nested == NESTED_MAX {
            let why = format!("more than {NESTED_MAX} submodules in each other");
            return Err(Failed::Other(why));
        }
        let text = fs::read_to_string(into.join(".gitmodules"));
        let text = text.map_err(|error| {
            let why = format!(".gitmodules, which says where submodules are: {error}");
            Failed::Other(why)
        })?;
        for link in links {
            let location = submodule::find(&text, &link.path, &self.wish.location);
            let location = location.map_err(Failed::Other)?;
            let mut source = Self::new(Wish {
                credentials: match submodule::is_same_host(&location, &self.wish.location) {
                    true => self.wish.credentials.clone(),
                    false => Credentials::Nobody,
                },
                ssh: self.wish.ssh.clone(),
                location,
                revision: Revision::Commit(link.commit),
                depth: 1,
                sparse: None,
                submodules: match self.wish.submodules {
                    Submodules::Recursive => Submodules::Recursive,
                    Submodules::Shallow | Submodules::Off => Submodules::Off,
                },
                // The commit that names them is what is signed; it names each by its id.
                signers: None,
                store: self
                    .wish
                    .store
                    .join("modules")
                    .join(submodule::store_name(&link.path)),
            });
            source.nested = self.nested + 1;
            source
                .fill(client, deadline, link.commit, &into.join(&link.path))
                .map_err(|unfilled| {
                    let why = format!("submodule {}: {}", link.path, unfilled.why);
                    match unfilled.full {
                        true => Failed::Full(why),
                        false => Failed::Other(why),
                    }
                })?;
        }
        Ok(())
    }
}

/// Why a commit's files can't be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfilled {
    pub(super) why: String,
    /// A disk is full.
    pub(super) full: bool,
}

enum Failed {
    /// The store is at fault: it is worth making it anew.
    Store(String),
    /// A disk is full.
    Full(String),
    Other(String),
}

impl Failed {
    /// Of what was to be read or written there.
    fn disk(path: &Path, error: &io::Error) -> Self {
        let why = format!("{}: {error}", path.display());
        match (pack::is_bad(error), pack::is_full(error)) {
            (true, _) => Self::Store(error.to_string()),
            (_, true) => Self::Full(why),
            _ => Self::Other(why),
        }
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Store(why) => Self::Store(why),
            Trouble::Tree(why) => Self::Other(why),
            Trouble::Disk { path, error } => match pack::is_full(&error) {
                true => Self::Full(format!("{}: {error}", path.display())),
                false => Self::Other(format!("{}: {error}", path.display())),
            },
        }
    }
}

/// Whether a server's answer is one to read, else what is wrong in words that tell what to do.
fn good(answer: &Answer<'_>, credentials: &Credentials) -> Result<(), String> {
    let url = &answer.url;
    let nobody = *credentials == Credentials::Nobody;
    match answer.status {
        StatusCode::OK => {
            let kind = answer.headers.get(hyper::header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            match kind.starts_with("application/x-git-upload-pack-") {
                true => Ok(()),
                false => Err(format!(
                    "{url} answers with {kind:?}: it is no git repository"
                )),
            }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if nobody => Err(format!(
            "{url} answers {}: it wants credentials (--password-file, or --github-app-id)",
            answer.status
        )),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(format!(
            "{url} answers {}: the credentials are not right",
            answer.status
        )),
        StatusCode::NOT_FOUND => Err(format!(
            "{url} answers {}: there is no such repository, or it is not for us to see",
            answer.status
        )),
        status => Err(format!("{url} answers {status}")),
    }
}

fn verify(bytes: &[u8], commit: ObjectId, signers: &Signers) -> Result<(), Failed> {
    let refused =
        |why: &str| Failed::Other(format!("commit {commit} {why}: it is refused (--verify)"));
    let found = CommitRefIter::signature(bytes, Kind::Sha1);
    let found = found.map_err(|error| refused(&format!("can't be read ({error})")))?;
    let (signature, signed) = found.ok_or_else(|| refused("is not signed"))?;
    let signature = String::from_utf8_lossy(signature.as_ref());
    let by = signers.check(&signed.to_bstring(), &signature);
    let by = by.map_err(|why| refused(&why))?;
    info!(%commit, by, "signature is good");
    Ok(())
}

/// Removes what is in a directory.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
