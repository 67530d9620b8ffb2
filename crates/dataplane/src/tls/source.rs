//! Where the server's certificates come from: files in pairs, a directory of pairs, or one made in memory. This finds
//! and reads them; [`Pair::check`](super::pair::Pair::check) judges them.
//!
//! A directory is read by the conventions that are found in the field: `tls.crt` with `tls.key` (Kubernetes Secrets,
//! cert-manager), `fullchain.pem` with `privkey.pem` (certbot), `NAME.crt` or `NAME.pem` with `NAME.key`, `NAME.pem` with the
//! key inside (HAProxy); one level of directories below it is read the same way. Names that begin with a dot are
//! left out: the kubelet keeps its versions there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::pair::{Cause, Part, Problem};
use crate::watch::io_words;

/// A certificate or key file is at most this large, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Pairs in one process at most.
pub(crate) const PAIRS_MAX: usize = 1_024;

/// Where pairs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `--cert` and `--key`; without a key the certificate's file holds it too.
    Files(Vec<(PathBuf, Option<PathBuf>)>),
    /// `--cert-dir`.
    Directory {
        /// The directory.
        path: PathBuf,
        /// With `--self-signed`: serve a certificate made in memory, with these further names, until there is a pair.
        until: Option<Vec<String>>,
    },
    /// `--self-signed`, with further names.
    SelfSigned(Vec<String>),
}

/// A pair as found: where it is, and its bytes.
#[derive(Debug)]
pub(crate) struct Found {
    /// The name for pages and metrics: the path, or within a directory what is before the suffix.
    pub(crate) name: String,
    /// The chain's file.
    pub(crate) certificate: PathBuf,
    /// The key's file; the same as the chain's when it holds both.
    pub(crate) key: PathBuf,
    /// The contents of both, or why there are none.
    pub(crate) bytes: Result<(Vec<u8>, Vec<u8>), Problem>,
}

/// All that was found at one look.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// The pairs, the default one first.
    pub(crate) found: Vec<Found>,
    /// The files and directories that this depends on, for the watch.
    pub(crate) depends: Vec<PathBuf>,
}

impl Source {
    /// Reads everything. An error is about the whole (a directory that can't be listed).
    pub(crate) fn read(&self) -> Result<Reading, String> {
        match self {
            Self::Files(pairs) => {
                let mut reading = Reading::default();
                for (certificate, key) in pairs {
                    let key = key.as_ref().unwrap_or(certificate);
                    let name = certificate.display().to_string();
                    reading.add(name, certificate.clone(), key.clone());
                }
                Ok(reading)
            }
            Self::Directory { path, .. } => read_directory(path),
            Self::SelfSigned(_) => Ok(Reading::default()),
        }
    }
}

impl Reading {
    fn add(&mut self, name: String, certificate: PathBuf, key: PathBuf) {
        self.depends.push(certificate.clone());
        self.depends.push(key.clone());
        let bytes = read_both(&certificate, &key);
        self.found.push(Found {
            name: self.unused(name, &certificate),
            certificate,
            key,
            bytes,
        });
    }

    fn add_broken(&mut self, name: String, certificate: PathBuf, key: PathBuf, problem: Problem) {
        self.found.push(Found {
            name: self.unused(name, &certificate),
            certificate,
            key,
            bytes: Err(problem),
        });
    }

    /// The name, or the path when another pair has it (`shop.crt` beside `shop/tls.crt`): metrics need them apart.
    fn unused(&self, name: String, certificate: &Path) -> String {
        match self.found.iter().any(|found| found.name == name) {
            true => certificate.display().to_string(),
            false => name,
        }
    }
}

/// Reads both files of one version: the chain is read again after the key, and when it changed meanwhile
/// (the kubelet swapped the directory between the two) both are.
fn read_both(certificate: &Path, key: &Path) -> Result<(Vec<u8>, Vec<u8>), Problem> {
    let chain_of = || read_file(certificate).map_err(|why| unreadable(Part::Certificate, why));
    let mut chain = chain_of()?;
    if certificate == key {
        return Ok((chain.clone(), chain));
    }
    for _ in 0..3 {
        let key = read_file(key).map_err(|why| unreadable(Part::Key, why))?;
        let again = chain_of()?;
        if again == chain {
            return Ok((chain, key));
        }
        chain = again;
    }
    Err(unreadable(
        Part::Certificate,
        "changes faster than it can be read".to_owned(),
    ))
}

fn unreadable(part: Part, why: String) -> Problem {
    Problem::new(Cause::Unreadable, part, why)
}

/// A small regular file's bytes, or a clause that says why not.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    crate::watch::read_file(path, FILE_BYTES_MAX)
}

fn read_directory(top: &Path) -> Result<Reading, String> {
    let mut reading = Reading::default();
    let (stems, directories) = list(top)?;
    reading.depends.push(top.to_owned());
    reading.add_stems(top, "", &stems);
    for name in directories {
        let path = top.join(&name);
        reading.depends.push(path.clone());
        match list(&path) {
            Ok((stems, _)) => reading.add_stems(&path, &name, &stems),
            Err(why) => {
                let problem = Problem::new(Cause::Unreadable, Part::Certificate, why);
                reading.add_broken(name, path.clone(), path, problem);
            }
        }
    }
    if reading.found.len() > PAIRS_MAX {
        let count = reading.found.len();
        return Err(format!("holds {count} pairs; at most {PAIRS_MAX} are read"));
    }
    Ok(reading)
}

/// The files of a directory by what is before their suffix, and its directories.
type Listing = (BTreeMap<String, BTreeSet<&'static str>>, Vec<String>);

fn list(directory: &Path) -> Result<Listing, String> {
    let entries = fs::read_dir(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => "is not a directory".to_owned(),
        _ => io_words(directory, &error),
    })?;
    let mut stems: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    let mut directories = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| io_words(directory, &error))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // A file system's own directory, which only root may read, is where a volume begins.
        if name.starts_with('.') || name == "lost+found" {
            continue;
        }
        if fs::metadata(entry.path()).is_ok_and(|meta| meta.is_dir()) {
            directories.push(name);
            continue;
        }
        for suffix in ["crt", "pem", "key"] {
            if let Some(stem) = name.strip_suffix(suffix).and_then(|s| s.strip_suffix('.')) {
                stems.entry(stem.to_owned()).or_default().insert(suffix);
            }
        }
    }
    directories.sort();
    Ok((stems, directories))
}

impl Reading {
    fn add_stems(
        &mut self,
        directory: &Path,
        within: &str,
        stems: &BTreeMap<String, BTreeSet<&'static str>>,
    ) {
        let has = |stem: &str, suffix: &str| stems.get(stem).is_some_and(|s| s.contains(suffix));
        // certbot's four files are one pair; cert.pem and chain.pem are parts of fullchain.pem.
        let certbot = has("fullchain", "pem") && has("privkey", "pem");
        if certbot {
            let name = if within.is_empty() {
                "fullchain"
            } else {
                within
            };
            self.add(
                name.to_owned(),
                directory.join("fullchain.pem"),
                directory.join("privkey.pem"),
            );
        }
        // tls first: it is the default for clients that name no host.
        let order = stems.iter().filter(|(stem, _)| *stem == "tls");
        let order = order.chain(stems.iter().filter(|(stem, _)| *stem != "tls"));
        for (stem, suffixes) in order {
            if certbot && ["fullchain", "privkey", "cert", "chain"].contains(&stem.as_str()) {
                continue;
            }
            let name = match (within, stem.as_str()) {
                ("", stem) => stem.to_owned(),
                (within, "tls") => within.to_owned(),
                (within, stem) => format!("{within}/{stem}"),
            };
            let file = |suffix: &str| directory.join(format!("{stem}.{suffix}"));
            let chain = if suffixes.contains("crt") {
                "crt"
            } else {
                "pem"
            };
            match (suffixes.contains(chain), suffixes.contains("key")) {
                (true, true) => self.add(name, file(chain), file("key")),
                (true, false) if chain == "pem" && holds_key(&file("pem")) => {
                    self.add(name, file("pem"), file("pem"));
                }
                // cert-manager and others put the authority's certificate beside the pair.
                (true, false) if stem_is_authority(stem) => {}
                (true, false) => {
                    let text = format!("has no key beside it; expected {stem}.key");
                    let problem = Problem::new(Cause::Incomplete, Part::Certificate, text);
                    self.add_broken(name, file(chain), file("key"), problem);
                }
                (false, _) => {
                    let text =
                        format!("has no certificate beside it; expected {stem}.crt or {stem}.pem");
                    let problem = Problem::new(Cause::Incomplete, Part::Key, text);
                    self.add_broken(name, file("crt"), file("key"), problem);
                }
            }
        }
    }
}

fn stem_is_authority(stem: &str) -> bool {
    matches!(
        stem,
        "ca" | "cacert" | "cacerts" | "ca-bundle" | "ca-certificates" | "ca-chain"
    )
}

fn holds_key(path: &Path) -> bool {
    read_file(path).is_ok_and(|bytes| memchr::memmem::find(&bytes, b"PRIVATE KEY-----").is_some())
}
