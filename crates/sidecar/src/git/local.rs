//! Repositories on this machine: their references are read, and their objects where they are; no program is started.

use std::fs;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use gix_hash::ObjectId;

use super::wire::Reference;

/// Symbolic references that may follow each other.
const HOPS_MAX: usize = 5;

/// A repository, opened for reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repository {
    /// Of references that all worktrees share.
    common: PathBuf,
    /// Of HEAD.
    own: PathBuf,
}

impl Repository {
    /// Of a bare repository, a worktree, or its `.git`.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let inner = path.join(".git");
        let own = match fs::read_to_string(&inner) {
            Ok(text) => {
                let to = text.trim_end().strip_prefix("gitdir: ");
                path.join(to.ok_or_else(|| format!("{shown}/.git is not git's"))?)
            }
            Err(_) if inner.is_dir() => inner,
            Err(_) => path.to_owned(),
        };
        let common = match fs::read_to_string(own.join("commondir")) {
            Ok(text) => own.join(text.trim_end()),
            Err(_) => own.clone(),
        };
        if !common.join("objects").is_dir() || !own.join("HEAD").exists() {
            return Err(match path.exists() {
                true => format!("{shown} is no git repository"),
                false => format!("{shown} is not there"),
            });
        }
        let config = fs::read_to_string(common.join("config")).unwrap_or_default();
        let config = config.to_ascii_lowercase().replace([' ', '\t'], "");
        if config.contains("objectformat=sha256") {
            return Err(format!("{shown} names objects by SHA-256; expected SHA-1"));
        }
        if config.contains("refstorage=reftable") {
            return Err(format!(
                "{shown} keeps its references in a reftable; expected files (git refs migrate --ref-format=files)"
            ));
        }
        Ok(Self { common, own })
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.common.join("objects")
    }

    /// Those of the names that are there. Tags are not yet peeled.
    pub(super) fn references(&self, names: &[String]) -> Result<Vec<Reference>, String> {
        let mut found = Vec::new();
        for name in names {
            if let Some(id) = self.resolve(name)? {
                let name = name.clone();
                found.push(Reference { name, id });
            }
        }
        Ok(found)
    }

    fn resolve(&self, name: &str) -> Result<Option<ObjectId>, String> {
        let mut name = name.to_owned();
        for _ in 0..HOPS_MAX {
            let base = if name == "HEAD" {
                &self.own
            } else {
                &self.common
            };
            let text = match fs::read_to_string(base.join(&name)) {
                Ok(text) => text,
                Err(error) if gone(&error) => return self.packed(&name),
                Err(error) => return Err(format!("{}: {error}", base.join(&name).display())),
            };
            match text.trim_end().strip_prefix("ref: ") {
                Some(next) if next.starts_with("refs/") && !next.contains("..") => {
                    name = next.to_owned();
                }
                Some(next) => return Err(format!("{name} leads to \"{next}\"")),
                None => {
                    let id = ObjectId::from_hex(text.trim_end().as_bytes());
                    return id.map(Some).map_err(|_| format!("{name} holds no commit"));
                }
            }
        }
        Err(format!("{name}: symbolic references lead in a circle"))
    }

    fn packed(&self, name: &str) -> Result<Option<ObjectId>, String> {
        let path = self.common.join("packed-refs");
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        for line in BufReader::new(file).lines() {
            let line = line.map_err(|error| format!("{}: {error}", path.display()))?;
            if let Some((id, found)) = line.split_once(' ')
                && found == name
            {
                let id = ObjectId::from_hex(id.as_bytes());
                return id.map(Some).map_err(|_| format!("{name} holds no commit"));
            }
        }
        Ok(None)
    }
}

fn gone(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
}

/// A bundle: references, and a pack behind them (gitformat-bundle(5)).
pub(super) struct Bundle {
    pub(super) references: Vec<Reference>,
    /// Commits that whoever unpacks it must have.
    pub(super) needs: Vec<ObjectId>,
    /// The pack.
    pub(super) pack: BufReader<fs::File>,
}

impl Bundle {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let failed = |error: io::Error| format!("{shown}: {error}");
        let mut pack = BufReader::with_capacity(64 << 10, fs::File::open(path).map_err(failed)?);
        let mut next = || -> Result<String, String> {
            let mut line = Vec::new();
            let read = pack.by_ref().take(64 << 10).read_until(b'\n', &mut line);
            read.map_err(failed)?;
            match line.pop() {
                Some(b'\n') => Ok(String::from_utf8_lossy(&line).into_owned()),
                _ => Err(format!("{shown} is no bundle, or is cut short")),
            }
        };
        let version = next()?;
        if !matches!(version.as_str(), "# v2 git bundle" | "# v3 git bundle") {
            return Err(format!("{shown} is no bundle of version 2 or 3"));
        }
        let (mut references, mut needs) = (Vec::new(), Vec::new());
        let wrong = |line: &str| format!("{shown}: \"{line}\" is no line of a bundle");
        loop {
            let line = next()?;
            if line.is_empty() {
                break;
            }
            match line.strip_prefix('@') {
                None => {}
                Some("object-format=sha1") => continue,
                Some(other) => return Err(format!("{shown} needs {other}, which is not there")),
            }
            let need = line.strip_prefix('-');
            let (id, name) = need.unwrap_or(&line).split_once(' ').unwrap_or((&line, ""));
            let id = id.trim_start_matches('-');
            let id = ObjectId::from_hex(id.as_bytes()).map_err(|_| wrong(&line))?;
            match need {
                Some(_) => needs.push(id),
                None => references.push(Reference {
                    name: name.to_owned(),
                    id,
                }),
            }
        }
        Ok(Self {
            references,
            needs,
            pack,
        })
    }
}
