//! Where an image comes from: a registry, or what other tools left on this machine, in the words of containers-transports(5).

use std::fmt;
use std::path::{Path, PathBuf};

use super::reference::{InvalidReference, Reference};

/// An image that layers are made of, by its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A registry, or the store where it was pulled to before: `image:` of a container.
    Registry(Reference),
    /// `oci:DIR[:TAG]`: an OCI image layout.
    Layout {
        /// The directory.
        dir: PathBuf,
        /// Which of its images; none: the only one.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:REF]` or `oci-archive:FILE[:TAG]`: what `docker save` and `podman save` write. What the file
    /// holds says which.
    Archive {
        /// The file.
        file: PathBuf,
        /// Which of its images; none: the only one.
        name: Option<String>,
    },
    /// `docker-daemon:REF`: a Docker Engine on this machine.
    Daemon(Reference),
}

/// The words in front of the colon.
pub const TRANSPORTS: [&str; 5] = [
    "docker://",
    "oci:",
    "docker-archive:",
    "oci-archive:",
    "docker-daemon:",
];

/// Why a text is no place of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLocation {
    /// The name is wrong.
    #[error("{0}: {1}")]
    Reference(String, InvalidReference),
    /// The path is missing behind the colon.
    #[error("{0} needs {1} behind the colon")]
    Empty(&'static str, &'static str),
    /// What should be there is not.
    #[error("{}: {reason}", path.display())]
    Path {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Location {
    /// Reads a place that starts with one of [`TRANSPORTS`]; none when the text starts with none of them. A relative path is
    /// below `base`. The file or directory has to be there.
    pub fn parse(text: &str, base: &Path) -> Option<Result<Self, InvalidLocation>> {
        let reference = |text: &str| {
            let parsed = text.parse::<Reference>();
            let parsed = parsed.map(Reference::with_default_tag);
            parsed.map_err(|error| InvalidLocation::Reference(text.to_owned(), error))
        };
        let (transport, rest) = TRANSPORTS
            .iter()
            .find_map(|transport| Some((*transport, text.strip_prefix(transport)?)))?;
        Some(match transport {
            "docker://" => reference(rest).map(Self::Registry),
            "docker-daemon:" => reference(rest).map(Self::Daemon),
            "oci:" => split_path(rest, base, "oci:", "a directory").and_then(|(dir, tag)| {
                if dir.join("oci-layout").is_file() {
                    Ok(Self::Layout { dir, tag })
                } else {
                    let reason = "no OCI image layout (there is no file oci-layout)".to_owned();
                    Err(InvalidLocation::Path { path: dir, reason })
                }
            }),
            transport => split_path(rest, base, transport, "a file").and_then(|(file, name)| {
                if file.is_file() {
                    Ok(Self::Archive { file, name })
                } else {
                    let reason = "not a file".to_owned();
                    Err(InvalidLocation::Path { path: file, reason })
                }
            }),
        })
    }

    /// The registry's name for it, where there is one.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Registry(reference) | Self::Daemon(reference) => Some(reference),
            Self::Layout { .. } | Self::Archive { .. } => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |f: &mut fmt::Formatter<'_>, transport, path: &Path, name: &Option<String>| {
            write!(f, "{transport}:{}", path.display())?;
            match name {
                Some(name) => write!(f, ":{name}"),
                None => Ok(()),
            }
        };
        match self {
            Self::Registry(reference) => f.write_str(&reference.familiar()),
            Self::Layout { dir, tag } => path(f, "oci", dir, tag),
            Self::Archive { file, name } => path(f, "docker-archive", file, name),
            Self::Daemon(reference) => write!(f, "docker-daemon:{}", reference.familiar()),
        }
    }
}

/// A path with a colon in it is one when it is there; otherwise the first colon ends the path, as everywhere else.
fn split_path(
    text: &str,
    base: &Path,
    transport: &'static str,
    what: &'static str,
) -> Result<(PathBuf, Option<String>), InvalidLocation> {
    let (path, name) = match text.split_once(':') {
        Some((path, name)) if !base.join(text).exists() => (path, Some(name.to_owned())),
        _ => (text, None),
    };
    if path.is_empty() || name.as_deref() == Some("") {
        return Err(InvalidLocation::Empty(
            transport.trim_end_matches(':'),
            what,
        ));
    }
    let path = base.join(path);
    match path.canonicalize() {
        Ok(path) => Ok((path, name)),
        Err(error) => Err(InvalidLocation::Path {
            path,
            reason: error.to_string(),
        }),
    }
}
