//! The local store: the packs that were fetched, in git's own form, read by gix.
//!
//! ```text
//! ROOT/.podkit-git/NAME/url              what it is a copy of; another URL begins anew
//! ROOT/.podkit-git/NAME/have             the last commit that is here with all that belongs to it, then the shallow ones
//! ROOT/.podkit-git/NAME/objects/pack/    packs and their indexes
//! ```
//!
//! It is a cache: whatever is wrong with it, it is thrown away and fetched again. What is published never depends on it.

use std::fs::{self, File};
use std::io::{self, BufRead, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use gix_hash::{Kind, ObjectId};
use gix_object::Find as _;

/// With so many packs the next change begins anew: every one costs descriptors and time to look things up.
const PACKS_MAX: usize = 48;

/// The objects of a repository.
pub(super) struct Objects {
    handle: gix_odb::Handle,
}

/// An object that was asked for is not there or not readable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Missing(pub(super) String);

impl Objects {
    /// Of an `objects` directory.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let options = gix_odb::store::init::Options::default();
        let handle = gix_odb::at_opts(directory, Kind::Sha1, None, options)?;
        Ok(Self { handle })
    }

    /// Puts the object's bytes into the buffer.
    pub(super) fn read(
        &self,
        id: &gix_hash::oid,
        kind: gix_object::Kind,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Missing> {
        let found = self.handle.try_find(id, buffer);
        let data = found
            .map_err(|error| Missing(format!("{kind} {id}: {error}")))?
            .ok_or_else(|| Missing(format!("{kind} {id} is missing")))?;
        if data.kind != kind {
            return Err(Missing(format!("{id} is a {}, not a {kind}", data.kind)));
        }
        // A flipped bit in a store must not be published.
        let computed = gix_object::compute_hash(Kind::Sha1, kind, data.data);
        match computed.is_ok_and(|computed| *computed == *id) {
            true => Ok(()),
            false => Err(Missing(format!("{kind} {id} is not what was stored"))),
        }
    }

    /// The commit that an object leads to, through tags.
    pub(super) fn peel(&self, id: ObjectId) -> Result<ObjectId, Missing> {
        let (mut id, mut buffer) = (id, Vec::new());
        for _ in 0..10 {
            let found = self.handle.try_find(&id, &mut buffer);
            let data = found
                .map_err(|error| Missing(format!("{id}: {error}")))?
                .ok_or_else(|| Missing(format!("{id} is missing")))?;
            match data.kind {
                gix_object::Kind::Commit => return Ok(id),
                gix_object::Kind::Tag => {
                    let tag = gix_object::TagRefIter::from_bytes(data.data, Kind::Sha1);
                    let target = tag.target_id();
                    id = target.map_err(|error| Missing(format!("tag {id}: {error}")))?;
                }
                kind => return Err(Missing(format!("{id} is a {kind}, not a commit"))),
            }
        }
        Err(Missing(format!("{id}: too many tags lead to it")))
    }
}

/// A store on the disk.
pub(super) struct Store {
    path: PathBuf,
    url: String,
}

impl Store {
    /// Opens or makes it. One that holds something else is thrown away, and what a killed process left too.
    pub(super) fn open(path: PathBuf, url: String) -> io::Result<Self> {
        let store = Self { path, url };
        let same = fs::read_to_string(store.path.join("url")).is_ok_and(|found| found == store.url);
        match same {
            true => store.sweep()?,
            false => store.reset()?,
        }
        Ok(store)
    }

    /// Throws everything away.
    pub(super) fn reset(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(self.packs())?;
        // Last: a store without it is no store.
        fs::write(self.path.join("url"), &self.url)
    }

    fn packs(&self) -> PathBuf {
        self.path.join("objects/pack")
    }

    pub(super) fn objects(&self) -> io::Result<Objects> {
        Objects::open(&self.path.join("objects"))
    }

    /// Removes what is no pack with its index.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.packs())? {
            let path = entry?.path();
            let other = match path.extension().and_then(|end| end.to_str()) {
                Some("idx") => "pack",
                Some("pack") => "idx",
                _ => "",
            };
            if other.is_empty() || !path.with_extension(other).exists() {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// The last commit that is complete, and the commits whose parents are not here.
    pub(super) fn have(&self) -> Option<(ObjectId, Vec<ObjectId>)> {
        let text = fs::read_to_string(self.path.join("have")).ok()?;
        let ids: Result<Vec<ObjectId>, _> = text
            .lines()
            .map(|line| ObjectId::from_hex(line.as_bytes()))
            .collect();
        let mut ids = ids.ok()?.into_iter();
        Some((ids.next()?, ids.collect()))
    }

    /// Notes that a commit is complete.
    pub(super) fn note(&self, commit: ObjectId, shallow: &[ObjectId]) -> io::Result<()> {
        let mut text = format!("{commit}\n");
        for commit in shallow {
            text += &format!("{commit}\n");
        }
        let new = self.path.join("have.new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(new, self.path.join("have"))
    }

    /// Whether there are so many packs that it is better to begin anew.
    pub(super) fn is_crowded(&self) -> bool {
        fs::read_dir(self.packs()).is_ok_and(|entries| entries.count() >= 2 * PACKS_MAX)
    }

    /// Takes a pack in and makes its index. `thin`: its deltas may build on objects that are here.
    pub(super) fn take(&self, pack: &mut dyn BufRead, thin: bool) -> Result<(), String> {
        let base = thin
            .then(|| self.objects().map(|objects| objects.handle))
            .transpose()
            .map_err(|error| error.to_string())?;
        let options = gix_pack::bundle::write::Options {
            thread_limit: Some(1),
            ..Default::default()
        };
        let outcome = gix_pack::Bundle::write_to_directory(
            pack,
            Some(&self.packs()),
            &mut gix_utils::progress::Discard,
            &AtomicBool::new(false),
            base,
            Kind::Sha1,
            options,
        );
        let outcome = outcome.map_err(|error| causes(&error))?;
        let sync = |path: &Option<PathBuf>| match path {
            Some(path) => File::open(path)?.sync_data(),
            None => Ok(()),
        };
        let kept = outcome.keep_path.as_ref().map_or(Ok(()), fs::remove_file);
        sync(&outcome.data_path)
            .and_then(|()| sync(&outcome.index_path))
            .and(kept)
            .map_err(|error| error.to_string())
    }
}

/// An error and what it hides, on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text.replace('\n', ": ")
}
