//! The local store: the packs that were fetched, in git's own form.
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
use std::path::PathBuf;

use gix_hash::ObjectId;

use super::pack::{self, Objects};

/// With so many packs the next change begins anew: every one costs descriptors and time to look things up.
const PACKS_MAX: usize = 48;

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
        if !same || store.sweep().is_err() {
            store.reset()?;
        }
        Ok(store)
    }

    /// Throws everything away.
    pub(super) fn reset(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                fs::remove_file(&self.path)?;
            }
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
        Objects::open(&self.path.join("objects"), &self.path)
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

    /// Takes a pack in and makes its index. Its deltas may build on objects that are here.
    pub(super) fn take(&self, pack: &mut dyn BufRead) -> io::Result<()> {
        let number = |entry: io::Result<fs::DirEntry>| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_prefix("pack-")?.get(..8)?.parse::<u32>().ok()
        };
        let last = fs::read_dir(self.packs())?.filter_map(number).max();
        // The older come first: deltas build on what is before them.
        let name = format!("pack-{:08}", last.map_or(0, |last| last + 1));
        pack::take(pack, &self.packs(), &name, &self.path, &self.objects()?)
    }
}
