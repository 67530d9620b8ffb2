//! The tar format in its dialects, in any pieces, and what it may not ask for.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, symlink};

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::support::{Place, Tar};
use crate::image::digest::Algorithm;
use crate::image::unpack::archive::{self, Kind, Reader};
use crate::image::unpack::{Owners, layer};

#[test]
fn sparse_files() {
    let place = Place::new();
    let data = b"front--back";
    let map = "2\n0\n7\n1000000\n4\n";
    let mut in_data = map.as_bytes().to_vec();
    in_data.resize(512, 0);
    in_data.extend(data);
    let tar = Tar::default()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"one"),
            ("GNU.sparse.realsize", b"1000010"),
        ])
        .entry(
            EntryType::Regular,
            b"GNUSparseFile.0/one",
            b"",
            0o644,
            &in_data,
        )
        .pax(&[
            ("GNU.sparse.size", b"1000010"),
            ("GNU.sparse.map", b"0,7,1000000,4"),
            ("GNU.sparse.name", b"two"),
        ])
        .entry(EntryType::Regular, b"GNUSparseFile.0/two", b"", 0o644, data)
        .file("after", "whole");
    let root_dir = place.unpack("l", tar, &[]).unwrap();
    let mut expected = b"front--".to_vec();
    expected.resize(1_000_000, 0);
    expected.extend(b"back");
    expected.resize(1_000_010, 0);
    for name in ["one", "two"] {
        assert!(fs::read(root_dir.join(name)).unwrap() == expected, "{name}");
        assert!(root_dir.join(name).metadata().unwrap().blocks() < 100);
    }
    assert_eq!(fs::read(root_dir.join("after")).unwrap(), b"whole");
    let wrong = Tar::default()
        .pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"8,7")])
        .entry(EntryType::Regular, b"x", b"", 0o644, b"1234567");
    assert!(
        place
            .unpack("w", wrong, &[])
            .unwrap_err()
            .to_string()
            .contains("the map of a sparse file")
    );
}

/// GNU tar itself writes what is read: old sparse files, long names and links, in three formats.
#[test]
fn what_gnu_tar_writes() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let long = "long ".repeat(40);
    fs::create_dir_all(source.join(&long)).unwrap();
    fs::write(source.join(&long).join(&long), "x").unwrap();
    symlink(&long, source.join("link")).unwrap();
    fs::hard_link(source.join(&long).join(&long), source.join("hard")).unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    for piece in 0..40u64 {
        use std::os::unix::fs::FileExt;
        sparse.write_all_at(b"piece", piece * 1_000_000).unwrap();
    }
    sparse.set_len(50_000_000).unwrap();
    for format in ["gnu", "posix", "oldgnu"] {
        let tar = dir.path().join(format);
        let status = std::process::Command::new("tar")
            .args(["-S", "-C"])
            .arg(&source)
            .arg(format!("--format={format}"))
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status();
        let Ok(status) = status else { return };
        assert!(status.success());
        let into = dir.path().join(format!("{format}.out"));
        let owners = Owners::of_this_process();
        let file = fs::File::open(&tar).unwrap();
        let (tree, _) = layer(file, &into, owners, Algorithm::Sha256).unwrap();
        tree.finish(&[]).unwrap();
        let same = std::process::Command::new("diff")
            .arg("-r")
            .args([&source, &into])
            .output()
            .unwrap();
        assert!(
            same.status.success(),
            "{format}: {}",
            String::from_utf8_lossy(&same.stdout)
        );
        assert_eq!(into.join("hard").metadata().unwrap().nlink(), 2);
        assert!(into.join("sparse").metadata().unwrap().blocks() < 2000);
    }
}

#[test]
fn memory_is_bounded() {
    // A long name of 10 GB, a map of a million pieces.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(10_000_000_000);
    header.set_cksum();
    let error = Reader::new(header.as_bytes().as_slice())
        .next()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("an extension of 10000000000 bytes"),
        "{error}"
    );
    let mut data = b"1000000\n".to_vec();
    data.resize(512, 0);
    let tar = Tar::default()
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"1")])
        .entry(EntryType::Regular, b"x", b"", 0, &data)
        .done();
    let error = Reader::new(tar.as_slice()).next().unwrap_err();
    assert!(error.to_string().contains("too many pieces"), "{error}");
}

/// Gives bytes in pieces of chosen sizes.
struct Chunks<'a>(&'a [u8], Vec<usize>, usize);

impl Read for Chunks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let size = self.1[self.2 % self.1.len()];
        self.2 += 1;
        let (now, later) = self.0.split_at(size.min(into.len()).min(self.0.len()));
        into[..now.len()].copy_from_slice(now);
        self.0 = later;
        Ok(now.len())
    }
}

fn all(reader: &mut Reader<impl Read>) -> io::Result<Vec<(archive::Entry, Vec<u8>)>> {
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        let mut data = Vec::new();
        if let Kind::File { .. } = entry.kind {
            while data.len() < 100_000 {
                let mut piece = [0; 100];
                match reader.read(&mut piece)? {
                    0 => break,
                    read => data.extend(&piece[..read]),
                }
            }
        }
        entries.push((entry, data));
    }
    Ok(entries)
}

proptest! {
    /// However the bytes come, and whatever they are.
    #[test]
    fn any_chunking_gives_the_same(
        files in proptest::collection::vec(("[a-z]{1,90}", proptest::collection::vec(any::<u8>(), 0..1500)), 0..6),
        flip in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        chunks in proptest::collection::vec(1usize..700, 1..8),
    ) {
        let mut tar = Tar::default();
        for (name, data) in &files {
            tar = tar.pax(&[("path", name.repeat(2).as_bytes()), ("mtime", b"-1.5")])
                .entry(EntryType::Regular, b"x", b"", 0o644, data);
        }
        let mut bytes = tar.done();
        let whole = flip.is_none();
        if let Some((at, byte)) = flip {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let at_once = all(&mut Reader::new(bytes.as_slice()));
        let in_pieces = all(&mut Reader::new(Chunks(&bytes, chunks, 0)));
        prop_assert_eq!(format!("{at_once:?}"), format!("{in_pieces:?}"));
        if whole {
            let entries = at_once.unwrap();
            prop_assert_eq!(entries.len(), files.len());
            for ((entry, data), (name, expected)) in entries.iter().zip(&files) {
                prop_assert_eq!(&entry.path, &name.repeat(2).into_bytes());
                prop_assert_eq!(entry.mtime, (-2, 500_000_000));
                prop_assert_eq!(data, expected);
            }
        }
    }
}
