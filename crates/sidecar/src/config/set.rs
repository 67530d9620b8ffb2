//! A set of files in memory: what a source has, and what is published.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use aws_lc_rs::digest;
use podkit_foundation::params::Size;

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    /// Permission bits.
    pub(super) mode: u32,
}

impl File {
    /// One that everybody may read.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, mode: 0o644 }
    }
}

/// How much a source may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

/// Files by name; a name may lead through directories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set(BTreeMap<String, File>);

impl Set {
    /// Adds a file. An error is a clause on its name, or on what is too much.
    pub(super) fn add(&mut self, name: &str, file: File, limits: Limits) -> Result<(), String> {
        check_name(name)?;
        self.0.insert(name.to_owned(), file);
        if self.0.len() > limits.files {
            return Err(format!(
                "has more than {} files (--max-files)",
                limits.files
            ));
        }
        let bytes: u64 = self.0.values().map(|file| file.bytes.len() as u64).sum();
        match bytes > limits.bytes {
            true => Err(format!(
                "has more than {} (--max-bytes)",
                Size(limits.bytes)
            )),
            false => Ok(()),
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &File)> {
        self.0.iter().map(|(name, file)| (name.as_str(), file))
    }

    pub(super) fn get(&self, name: &str) -> Option<&File> {
        self.0.get(name)
    }

    pub(super) fn insert(&mut self, name: &str, file: File) {
        self.0.insert(name.to_owned(), file);
    }

    /// The files of all, where the later wins. An error names two that can't be together.
    pub(super) fn merged<'a>(sets: impl Iterator<Item = &'a Self>) -> Result<Self, String> {
        let mut all = Self::default();
        for set in sets {
            all.0.extend(
                set.0
                    .iter()
                    .map(|(name, file)| (name.clone(), file.clone())),
            );
        }
        all.check()?;
        Ok(all)
    }

    /// No name is a file and a directory.
    pub(super) fn check(&self) -> Result<(), String> {
        for name in self.0.keys() {
            let above = name.match_indices('/').map(|(at, _)| &name[..at]);
            for above in above {
                if self.0.contains_key(above) {
                    return Err(format!(
                        "{above} is a file in one source and a directory, with {name}, in another"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Twelve digits that tell it from others.
    pub(super) fn version(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for (name, file) in &self.0 {
            for part in [name.as_bytes(), &file.mode.to_be_bytes(), &file.bytes] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
        }
        let digest = context.finish();
        digest.as_ref()[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Writes it into an empty directory, to be published as `out`. An error is a line that names the file there.
    pub(super) fn write(&self, dir: &Path, out: &Path) -> Result<(), String> {
        for (name, file) in &self.0 {
            write(&dir.join(name), file).map_err(|error| {
                let path = out.join(name);
                format!("{} can't be written ({error})", path.display())
            })?;
        }
        Ok(())
    }
}

fn write(path: &Path, file: &File) -> io::Result<()> {
    if let Some(above) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(above)?;
    }
    fs::write(path, &file.bytes)?;
    fs::set_permissions(path, Permissions::from_mode(file.mode))
}

/// A name must stay below the directory that it is written to.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let wrong = |why| Err(format!("the name {name:?} {why}"));
    if name.len() > 1024 || name.contains('\0') {
        return wrong("is longer than 1024 bytes or has a NUL");
    }
    for part in name.split('/') {
        match part {
            "" | "." => return wrong("has a part that is empty"),
            _ if part.starts_with("..") => return wrong("has a part that begins with \"..\""),
            _ if part.len() > 255 => return wrong("has a part of more than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        files: 3,
        bytes: 10,
    };

    fn set(files: &[(&str, &str)]) -> Set {
        let mut set = Set::default();
        for (name, text) in files {
            set.add(name, File::new(text.as_bytes().to_vec()), LIMITS)
                .unwrap();
        }
        set
    }

    #[test]
    fn the_later_wins() {
        let merged =
            Set::merged([&set(&[("a", "1"), ("b", "1")]), &set(&[("b", "2")])].into_iter());
        assert_eq!(merged, Ok(set(&[("a", "1"), ("b", "2")])));
        let why = Set::merged([&set(&[("a", "1")]), &set(&[("a/b", "2")])].into_iter());
        assert!(why.unwrap_err().starts_with("a is a file in one source"));
    }

    #[test]
    fn bounds_hold() {
        let mut one = set(&[("a", ""), ("b", ""), ("c", "")]);
        let why = one.add("d", File::new(vec![]), LIMITS).unwrap_err();
        assert_eq!(why, "has more than 3 files (--max-files)");
        let mut one = set(&[("a", "1234567890")]);
        let why = one.add("d", File::new(vec![0]), LIMITS).unwrap_err();
        assert_eq!(why, "has more than 10 (--max-bytes)");
    }

    #[test]
    fn versions_differ_by_name_mode_and_content() {
        let one = set(&[("a", "b")]);
        assert_eq!(one.version(), set(&[("a", "b")]).version());
        assert_ne!(one.version(), set(&[("ab", "")]).version());
        let mut other = one.clone();
        other.insert(
            "a",
            File {
                mode: 0o600,
                ..File::new(b"b".to_vec())
            },
        );
        assert_ne!(one.version(), other.version());
    }

    proptest! {
        /// Whatever a source calls a file, it is written below the directory or refused.
        #[test]
        fn no_name_leads_out(name in "[./a\\x00-]{0,12}") {
            if check_name(&name).is_ok() {
                let joined = Path::new("/dir").join(&name);
                prop_assert!(joined.starts_with("/dir") && joined != Path::new("/dir"));
                prop_assert!(!name.split('/').any(|part| part == ".."));
            }
        }
    }
}
