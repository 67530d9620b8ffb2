//! Where versions are kept, and what makes one of them the present one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Where a set is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// As the kubelet does: `DIR/..data` leads to the present version, `DIR/NAME` to `..data/NAME`. DIR may be a volume.
    Data(PathBuf),
    /// A link that leads to the present version below `root`.
    Link {
        /// Holds the versions.
        root: PathBuf,
        /// The link, on whichever file system.
        link: PathBuf,
    },
    /// A directory that is exchanged with the next version. The versions are beside it.
    InPlace(PathBuf),
}

/// The link to the present version.
const DATA: &str = "..data";
/// In place, the name of the present version.
const CURRENT: &str = "current";

impl Place {
    /// The same, wherever the process goes.
    pub(super) fn absolute(&self) -> io::Result<Self> {
        let absolute = |path: &PathBuf| std::path::absolute(path);
        Ok(match self {
            Self::Data(dir) => Self::Data(absolute(dir)?),
            Self::InPlace(dir) => Self::InPlace(absolute(dir)?),
            Self::Link { root, link } => Self::Link {
                root: absolute(root)?,
                link: absolute(link)?,
            },
        })
    }

    /// What people look at.
    pub fn path(&self) -> &Path {
        match self {
            Self::Data(dir) | Self::InPlace(dir) => dir,
            Self::Link { link, .. } => link,
        }
    }

    /// The directory that holds versions, staged and published.
    pub(super) fn store(&self) -> PathBuf {
        match self {
            Self::Data(dir) => dir.join("..podkit"),
            Self::Link { root, .. } => root.join(".podkit"),
            Self::InPlace(dir) => {
                let mut name = OsString::from(".");
                name.push(dir.file_name().unwrap_or_default());
                name.push(".podkit");
                dir.with_file_name(name)
            }
        }
    }

    /// The present version's name, if there is one.
    pub(super) fn current(&self) -> Option<String> {
        let name = match self {
            Self::Data(dir) => fs::read_link(dir.join(DATA)).ok()?,
            Self::Link { link, .. } => fs::read_link(link).ok()?,
            Self::InPlace(_) => return fs::read_to_string(self.store().join(CURRENT)).ok(),
        };
        let id = name.file_name()?.to_str()?.to_owned();
        self.store().join(&id).is_dir().then_some(id)
    }

    /// Where the files of the present version `id` are.
    pub(super) fn files(&self, id: &str) -> PathBuf {
        match self {
            Self::InPlace(dir) => dir.clone(),
            _ => self.store().join(id),
        }
    }

    /// The file system's number for the directory that people look at.
    pub(super) fn inode(&self) -> Option<u64> {
        fs::metadata(self.path()).ok().map(|meta| meta.ino())
    }

    /// Makes `new`, which is in the store, the present version instead of `old`. In place `old` is in the store afterwards.
    pub(super) fn swap(&self, new: &str, old: Option<&str>) -> io::Result<()> {
        let store = self.store();
        match self {
            Self::Data(dir) => {
                let target = Path::new("..podkit").join(new);
                turn(&dir.join(DATA), &dir.join("..data_tmp"), &target)
            }
            Self::Link { root, link } => {
                let near = link.parent() == Some(root.as_path());
                let target = match near {
                    true => Path::new(".podkit").join(new),
                    false => std::path::absolute(store.join(new))?,
                };
                let mut beside = OsString::from(".");
                beside.push(link.file_name().unwrap_or_default());
                beside.push(".new");
                turn(link, &link.with_file_name(beside), &target)
            }
            Self::InPlace(dir) => {
                let from = store.join(new);
                if !dir.exists() {
                    fs::rename(&from, dir)?;
                } else {
                    exchange(&from, dir)?;
                    self.put_away(new, old)?;
                }
                self.note(new)
            }
        }
    }

    /// In place, after the exchange: what was there takes its own name in the store.
    pub(super) fn put_away(&self, new: &str, old: Option<&str>) -> io::Result<()> {
        let (store, found) = (self.store(), self.store().join(new));
        match old {
            Some(old) => fs::rename(&found, store.join(old)),
            // Only an empty directory is replaced that no version was published to.
            None => fs::remove_dir(&found),
        }
    }

    /// In place: `id` is there.
    pub(super) fn note(&self, id: &str) -> io::Result<()> {
        let store = self.store();
        write_whole(&store, CURRENT, id.as_bytes())
    }

    /// Takes away what was published; nothing is there then.
    pub(super) fn withdraw(&self, id: &str) -> io::Result<()> {
        match self {
            Self::Data(dir) => {
                fs::remove_file(dir.join(DATA))?;
                self.show()
            }
            Self::Link { link, .. } => fs::remove_file(link),
            Self::InPlace(dir) => {
                fs::remove_file(self.store().join(CURRENT))?;
                fs::rename(dir, self.store().join(id))?;
                // As it was found: somebody may hold the name.
                fs::create_dir(dir)
            }
        }
    }

    /// With `..data`: makes the links to what the present version has, and takes away those to what it has not.
    pub(super) fn show(&self) -> io::Result<()> {
        let Self::Data(dir) = self else {
            return Ok(());
        };
        let data = dir.join(DATA);
        let mut names = Vec::new();
        if data.exists() {
            for entry in fs::read_dir(&data)? {
                names.push(entry?.file_name());
            }
        }
        for name in &names {
            let (link, target) = (dir.join(name), Path::new(DATA).join(name));
            if link.symlink_metadata().is_err() {
                symlink(&target, &link)?;
            }
        }
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            if !names.contains(&name) && ours(dir, &name) {
                fs::remove_file(dir.join(&name))?;
            }
        }
        Ok(())
    }

    /// Why the version in `staged` can't be published here, if it can't.
    pub(super) fn obstacle(&self, staged: &Path) -> Option<String> {
        match self {
            Self::Data(dir) => {
                let entries = fs::read_dir(staged).ok()?.flatten();
                entries.map(|entry| entry.file_name()).find_map(|name| {
                    let there = dir.join(&name);
                    if name.as_encoded_bytes().starts_with(b"..") {
                        return Some(format!(
                            "{name:?}: names that begin with \"..\" are kept for versions"
                        ));
                    }
                    let foreign = there.symlink_metadata().is_ok() && !ours(dir, &name);
                    foreign.then(|| {
                        format!(
                            "{} was not published by podkit; move it away",
                            there.display()
                        )
                    })
                })
            }
            Self::Link { link, .. } => {
                let foreign = link.symlink_metadata().is_ok_and(|meta| !meta.is_symlink());
                foreign.then(|| format!("{} is not a symbolic link; move it away", link.display()))
            }
            Self::InPlace(dir) if self.current().is_none() && dir.symlink_metadata().is_ok() => {
                let empty = !dir.is_symlink()
                    && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
                (!empty).then(|| {
                    format!(
                        "{} has files that podkit did not publish; move them away",
                        dir.display()
                    )
                })
            }
            Self::InPlace(_) => None,
        }
    }
}

fn exchange(from: &Path, dir: &Path) -> io::Result<()> {
    renameat_with(CWD, from, CWD, dir, RenameFlags::EXCHANGE).map_err(|error| match error {
        Errno::BUSY => {
            let dir = dir.display();
            io::Error::other(format!(
                "{dir} is the root of a volume, which can't be exchanged; name a directory below it"
            ))
        }
        error => error.into(),
    })
}

/// Whether `dir/name` is a link that `show` made.
fn ours(dir: &Path, name: &std::ffi::OsStr) -> bool {
    let target = fs::read_link(dir.join(name)).ok();
    target.as_deref() == Some(&*Path::new(DATA).join(name))
}

/// Makes `link` lead to `target`, by way of `beside`.
fn turn(link: &Path, beside: &Path, target: &Path) -> io::Result<()> {
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, beside)?;
    fs::rename(beside, link)
}

/// Writes a small file that is there in whole or as it was, also after a loss of power.
pub(super) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    use io::Write as _;
    let beside = dir.join(format!("{name}.new"));
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}
