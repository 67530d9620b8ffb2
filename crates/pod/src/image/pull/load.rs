//! `image load`: all images of an archive, with the names that they have there.

use std::io::{self, Read};
use std::path::Path;

use super::{Archive, Cancelled, Pull, PullError, Stopped, Wanted};
use crate::image::{Digest, Location, Platform, Progress, Reference, Store};
use crate::plan::PullPolicy;

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The names that it has now.
    pub names: Vec<Reference>,
    /// Of its configuration.
    pub id: Digest,
}

/// Why an archive could not be loaded: one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(String);

impl Store {
    /// Loads what `docker save`, `podman save` or `skopeo copy` wrote, packed or not: docker-archive or OCI archive. `-` is
    /// standard input.
    pub fn load(
        &self,
        file: &Path,
        platform: &Platform,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, LoadError> {
        let said =
            |error: &dyn std::fmt::Display| LoadError(format!("{}: {error}", file.display()));
        let _hold = self.hold().map_err(|error| said(&error))?;
        let archive = if file == Path::new("-") {
            let stdin = io::stdin().lock();
            self.spool(stdin)
                .map_err(|error| LoadError(format!("standard input: {error}")))?
        } else {
            // Says the path itself.
            Archive::open(file, self).map_err(|error| LoadError(error.to_string()))?
        };
        let wanted = Wanted {
            platform: platform.clone(),
            ..Wanted::new(
                Location::Archive {
                    file: file.to_owned(),
                    name: None,
                },
                PullPolicy::IfNotPresent,
            )
        };
        let pull = Pull {
            store: self,
            wanted: &wanted,
            progress,
            cancelled: &Cancelled::default(),
        };
        let images = archive.images();
        if images.is_empty() {
            return Err(said(&"there is no image in it"));
        }
        let load = |(names, named): (Vec<Reference>, _)| -> Result<Loaded, Stopped> {
            let offered = pull.read_documents(&archive, named, None)?;
            let found = pull.take(&archive, offered)?;
            for name in &names {
                self.name(name, &found.named)?;
            }
            if names.is_empty() {
                self.keep_unnamed(&found.named)?;
            }
            Ok(Loaded {
                names,
                id: found.manifest.config.digest,
            })
        };
        let loaded: Result<Vec<Loaded>, Stopped> = images.into_iter().map(load).collect();
        loaded.map_err(|error| match error {
            Stopped::Store(error) => said(&error),
            Stopped::Pull(error) => said(&error),
            Stopped::NeverPull => said(&"it is not to be pulled"),
        })
    }

    fn spool(&self, stream: impl Read) -> Result<Archive, PullError> {
        Archive::copy(stream, self)
    }
}
