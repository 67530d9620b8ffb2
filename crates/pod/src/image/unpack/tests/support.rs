//! Tars made by hand, and a place to unpack them in that tells who got out.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tar::{EntryType, Header};

use crate::image::digest::{Algorithm, Digest};
use crate::image::unpack::{Owners, layer};

/// A tar in the making, by hand: the crate's own builder refuses what has to be tried.
#[derive(Default)]
pub(super) struct Tar(Vec<u8>);

impl Tar {
    pub(super) fn entry(
        mut self,
        kind: EntryType,
        path: &[u8],
        link: &[u8],
        mode: u32,
        data: &[u8],
    ) -> Self {
        let mut header = Header::new_ustar();
        let bytes = header.as_old_mut();
        bytes.name[..path.len()].copy_from_slice(path);
        bytes.linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000);
        header.set_size(data.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, path: &str, data: &str) -> Self {
        self.entry(
            EntryType::Regular,
            path.as_bytes(),
            b"",
            0o644,
            data.as_bytes(),
        )
    }

    pub(super) fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path.as_bytes(), b"", mode, b"")
    }

    pub(super) fn symlink(self, path: &str, to: &str) -> Self {
        self.entry(
            EntryType::Symlink,
            path.as_bytes(),
            to.as_bytes(),
            0o777,
            b"",
        )
    }

    pub(super) fn hardlink(self, path: &str, to: &str) -> Self {
        self.entry(EntryType::Link, path.as_bytes(), to.as_bytes(), 0o644, b"")
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            data.extend(format!("{length} {key}=").bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, b"pax", b"", 0o644, &data)
    }

    pub(super) fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(super) struct Place {
    pub(super) dir: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        Self { dir }
    }

    pub(super) fn unpack(&self, name: &str, tar: Tar, below: &[&str]) -> io::Result<PathBuf> {
        let into = self.dir.path().join(name);
        let below: Vec<_> = below
            .iter()
            .map(|name| self.dir.path().join(name))
            .collect();
        let owners = Owners::of_this_process();
        let bytes = tar.done();
        let (tree, digest) = layer(bytes.as_slice(), &into, owners, Algorithm::Sha256)?;
        assert_eq!(digest, Digest::of(&bytes));
        tree.finish(&below)?;
        Ok(into)
    }

    /// What a hostile layer must have left alone.
    pub(super) fn untouched(&self) {
        let outside = self.dir.path().join("outside");
        let names: Vec<_> = fs::read_dir(&outside)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
        assert_eq!(outside.join("secret").metadata().unwrap().nlink(), 1);
    }
}

/// Owners, device nodes and `trusted.` attributes need it.
pub(super) fn root() -> bool {
    crate::image::owns_machine()
}

pub(super) fn opaque(path: &std::path::Path) -> bool {
    let name = if root() {
        "trusted.overlay.opaque"
    } else {
        "user.overlay.opaque"
    };
    let mut value = [0; 1];
    rustix::fs::getxattr(path, name, &mut value).is_ok() && value == *b"y"
}
