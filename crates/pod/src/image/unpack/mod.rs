//! Layers to directories: a stranger's archive becomes a tree for overlayfs and can touch nothing outside it.
//!
//! ```text
//!   blob ──▶ compression ──▶ archive (entries) ──▶ tree (openat2 below the layer's root)
//!                  └──▶ digest of the tar: the layer's diff_id
//! ```
//!
//! A layer is unpacked alone, so that several can be at once. What it leaves to the layers below it (directories that it never
//! names, hard links to their files) is noted and [`finished`](tree::Tree::finish) when these are there.

pub(super) mod archive;
pub(super) mod compression;
mod finish;
mod place;
pub(super) mod tree;

#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::Path;

pub(super) use self::tree::{Owners, Tree};
use super::digest::{Algorithm, Digest, Hasher};

/// Entries of one layer: more inodes than file systems have by default.
const ENTRIES_MAX: u64 = 20_000_000;

/// Unpacks a layer, packed as its first bytes say, into the new directory `into`. Gives the tree, to be finished when the
/// layers below are there, and the digest of its tar.
pub(super) fn layer(
    source: impl Read,
    into: &Path,
    owners: Owners,
    algorithm: Algorithm,
) -> io::Result<(Tree, Digest)> {
    let unpacked = compression::unpacked(source)?;
    let hashing = Hashing {
        source: unpacked,
        hasher: Hasher::new(algorithm),
    };
    let mut tree = Tree::create(into, owners)?;
    let mut reader = archive::Reader::new(hashing);
    let mut entries = 0;
    while let Some(entry) = reader.next()? {
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(io::Error::other(format!("more than {ENTRIES_MAX} entries")));
        }
        tree.add(&entry, &mut reader)
            .map_err(|error| at(&entry.path, &error))?;
    }
    // The digest is of all bytes, and the packing has a checksum at its end.
    let mut rest = reader.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    Ok((tree, rest.hasher.finish()))
}

fn at(path: &[u8], error: &io::Error) -> io::Error {
    let path = String::from_utf8_lossy(path);
    io::Error::new(error.kind(), format!("{path:?}: {error}"))
}

/// Hashes what is read.
struct Hashing<R> {
    source: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.hasher.update(&into[..read]);
        Ok(read)
    }
}
