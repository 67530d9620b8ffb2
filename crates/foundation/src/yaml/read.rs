//! Files to text, bounded.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::reader::MAX_FILE_BYTES;

/// The bytes of a file, or of standard input for `-`. The error is one line without the name.
pub fn file(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = if path == Path::new("-") {
        bounded(std::io::stdin().lock())
    } else {
        File::open(path).and_then(bounded)
    };
    let bytes = bytes.map_err(|error| explain(&error))?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(format!("larger than {} MiB", MAX_FILE_BYTES >> 20));
    }
    Ok(bytes)
}

fn bounded(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source
        .take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What went wrong with a file, for people.
pub fn explain(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file".into(),
        ErrorKind::PermissionDenied => "can't be read: permission denied".into(),
        _ => format!("can't be read: {error}"),
    }
}

/// UTF-8 text, or the 1-based line and column where it stops being that, and why.
pub fn text(bytes: &[u8]) -> Result<&str, (u32, u32, &'static str)> {
    let (valid, why) = match std::str::from_utf8(bytes) {
        Ok(text) => match text.find('\0') {
            None => return Ok(text),
            Some(at) => (&text[..at], "not a text: a NUL byte"),
        },
        Err(error) => {
            let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or("");
            if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
                (valid, "this is UTF-16; save it as UTF-8")
            } else {
                (valid, "not UTF-8 text")
            }
        }
    };
    let line = valid.matches('\n').count() + 1;
    let column = valid.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Err((small(line), small(column), why))
}
