//! A file of variables in a volume, as `fileKeyRef` reads it: a subset of the shell's assignments, in which every value is in single
//! quotes. (Kubernetes: KEP-3721; pkg/kubelet/util/env/env_util.go, `ParseEnv`)
//!
//! ```text
//!   # a comment, and blank lines
//!   NAME='a literal value'   # nothing in it is expanded or escaped
//!   LONG='first line
//!   second line'
//!   NONE= 'not read'         # as in a shell: NONE is empty
//! ```
//!
//! A key with an empty value is as good as none, as for the kubelet, which can't tell them apart: an optional variable is not set, and
//! any other keeps the container from starting. (pkg/kubelet/kubelet_pods.go, `makeEnvironmentVariables`)
//!
//! The first line that has the key counts, and nothing behind it is looked at. A container wrote the file: it is read with a bound,
//! only when it is a regular file, and no link leads out of the volume.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::sub_path::{self, SubPathError};
use super::{VolumeError, Volumes};
use crate::plan::FileKey;

/// The kubelet's bounds, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const VALUE_BYTES_MAX: usize = 32 * 1024;

/// Why a key has no value.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// The volume can't be read.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// There is no such file, or the key is not in it, or it is no file of variables.
    #[error("environment variable key {key:?} of the file {path:?} in volume {volume}: {why}")]
    Value {
        /// The volume.
        volume: String,
        /// Where in it.
        path: String,
        /// The key.
        key: String,
        /// In one line.
        why: String,
    },
}

/// Why a text is no file of variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid environment variable format at line {line}: {what}")]
struct Malformed {
    /// From 1 on.
    line: usize,
    what: &'static str,
}

impl Volumes {
    /// The value of a key of a file in a volume; none when it is optional and not there.
    pub fn env_value(&self, wanted: &FileKey) -> Result<Option<String>, EnvFileError> {
        let failed = |why: String| EnvFileError::Value {
            volume: wanted.volume.clone(),
            path: wanted.path.clone(),
            key: wanted.key.clone(),
            why,
        };
        let root = self.open(&wanted.volume)?;
        let text = match read(&root, Path::new(&wanted.path)) {
            Ok(bytes) => String::from_utf8(bytes)
                .map_err(|_| failed("the file is not UTF-8 text".to_owned()))?,
            Err(Unread::Missing) if wanted.optional => return Ok(None),
            Err(unread) => return Err(failed(unread.to_string())),
        };
        match value(&text, &wanted.key) {
            Ok(Some(value)) if value.len() > VALUE_BYTES_MAX => Err(failed(format!(
                "the value has {} bytes, and may have at most {VALUE_BYTES_MAX}",
                value.len()
            ))),
            Ok(Some(value)) if value.contains('\0') => Err(failed(
                "the value has a NUL byte, which can't be in a variable".to_owned(),
            )),
            Ok(value) => match value.filter(|value| !value.is_empty()) {
                None if !wanted.optional => Err(failed(
                    "the file has no such key, or its value is empty".to_owned(),
                )),
                value => Ok(value),
            },
            Err(malformed) => Err(failed(malformed.to_string())),
        }
    }
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("there is no such file")]
    Missing,
    #[error("the path leads out of the volume")]
    Escape,
    #[error("it is not a regular file")]
    NotFile,
    #[error("the file has more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("{0}")]
    Io(std::io::Error),
}

/// The bytes of a file below `root`.
fn read(root: &OwnedFd, path: &Path) -> Result<Vec<u8>, Unread> {
    let file = match sub_path::find(root, path) {
        Ok(file) => file,
        Err(SubPathError::Escape) => return Err(Unread::Escape),
        Err(SubPathError::Io(error)) => {
            let missing = [Errno::NOENT, Errno::NOTDIR].map(Errno::raw_os_error);
            return Err(match error.raw_os_error() {
                Some(number) if missing.contains(&number) => Unread::Missing,
                _ => Unread::Io(error),
            });
        }
    };
    let stat = fstat(&file).map_err(|error| Unread::Io(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Unread::NotFile);
    }
    // The very file that was looked at: to open a pipe or a device could have an effect.
    let file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(Unread::Io)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(Unread::Io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Unread::TooLarge);
    }
    Ok(bytes)
}

/// The value of `key`. What stands behind it may be anything.
fn value(text: &str, key: &str) -> Result<Option<String>, Malformed> {
    let blank = [' ', '\t'];
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let bad = |line, what| Err(Malformed { line, what });
        let line = line.trim_start_matches(blank);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, rest)) = line.split_once('=') else {
            return bad(number, "missing '='");
        };
        if name.is_empty() {
            return bad(number, "empty variable name");
        }
        if name.ends_with(blank) {
            return bad(number, "whitespace before '=' is not allowed");
        }
        if rest.starts_with(blank) {
            // As in a shell, the assignment ends there.
            if name == key {
                return Ok(Some(String::new()));
            }
            continue;
        }
        let Some(mut rest) = rest.strip_prefix('\'') else {
            return bad(number, "value must be enclosed in single quotes");
        };
        let (mut value, mut last) = (String::new(), number);
        let behind = loop {
            if let Some((end, behind)) = rest.split_once('\'') {
                value.push_str(end);
                break behind.trim_start_matches(blank);
            }
            value.push_str(rest);
            value.push('\n');
            match lines.next() {
                Some(next) => (rest, last) = next,
                None => return bad(number, "unclosed single quote"),
            }
        };
        if !behind.is_empty() && !behind.starts_with('#') {
            return bad(last, "unexpected content after closing quote");
        }
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, key: &str) -> Result<Option<String>, String> {
        value(text, key).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(text: &str, key: &str, expected: Option<&str>) {
        assert_eq!(of(text, key), Ok(expected.map(str::to_owned)), "{text:?}");
    }

    #[track_caller]
    fn bad(text: &str, expected: &str) {
        let expected = format!("invalid environment variable format at {expected}");
        assert_eq!(of(text, "KEY"), Err(expected), "{text:?}");
    }

    #[test]
    fn values_are_literal_and_in_single_quotes() {
        check("KEY='a b'", "KEY", Some("a b"));
        check(
            "A='1'\n\tKEY='$(A) ${A} \\n \"x\" #'\n",
            "KEY",
            Some("$(A) ${A} \\n \"x\" #"),
        );
        check("KEY=''\n", "KEY", Some(""));
        check("A='1'\nKEY='2' # a comment\nB='3'", "KEY", Some("2"));
        check("KEY='2'\t#\n", "KEY", Some("2"));
        check("A='x=y'\nKEY='a=b'\n", "KEY", Some("a=b"));
    }

    #[test]
    fn values_may_span_lines() {
        check(
            "A='x\nKEY='\nKEY='one\n\n# two\n three'\n",
            "KEY",
            Some("one\n\n# two\n three"),
        );
        check("KEY='a\r\nb'\r\n", "KEY", Some("a\nb"));
    }

    #[test]
    fn comments_and_blank_lines_are_skipped() {
        check("# KEY='no'\n\n  \t\n  # no\nKEY='yes'", "KEY", Some("yes"));
        check("", "KEY", None);
        check("OTHER='x'\n", "KEY", None);
    }

    #[test]
    fn the_first_one_counts_and_nothing_behind_it_is_read() {
        check("KEY='1'\nKEY='2'\nnonsense", "KEY", Some("1"));
    }

    #[test]
    fn space_behind_the_sign_ends_the_assignment() {
        check("KEY= 'x'\n", "KEY", Some(""));
        check("A= 'x'\nKEY='y'\n", "KEY", Some("y"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_told_by_a_line_that_it_has(text in "[KA='# \t\r\n\"x]{0,60}") {
            if let Err(malformed) = value(&text, "K") {
                assert!((1..=text.lines().count()).contains(&malformed.line), "{malformed}");
            }
        }

        #[test]
        fn what_is_written_is_read(before in "[^'\r]{0,20}", written in "[^'\r]{0,60}", behind in ".{0,20}") {
            let text = format!("A='{before}'\n# '\nKEY='{written}'\n{behind}");
            assert_eq!(value(&text, "KEY"), Ok(Some(written)));
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line() {
        bad("\nnonsense\nKEY='x'", "line 2: missing '='");
        bad("='x'", "line 1: empty variable name");
        bad(
            "A='1'\nKEY ='x'",
            "line 2: whitespace before '=' is not allowed",
        );
        bad("KEY=x", "line 1: value must be enclosed in single quotes");
        bad(
            "KEY=\"x\"",
            "line 1: value must be enclosed in single quotes",
        );
        bad("KEY=", "line 1: value must be enclosed in single quotes");
        bad("KEY='x'y", "line 1: unexpected content after closing quote");
        bad(
            "A='\n\n'KEY='x'",
            "line 3: unexpected content after closing quote",
        );
        bad("# c\nKEY='x\ny\n", "line 2: unclosed single quote");
    }
}
