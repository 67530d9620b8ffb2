//! Versions of a set of two files that must belong together: what a source has, and what a template made of it. For readers that look
//! for halves.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// The template, for the file `t` of the source.
pub const TEMPLATE: &str = "n={{ v.n }}";
/// The parameter that makes the second file of it.
pub const MADE: &str = "--template=t=made";

/// The source's file `v.json` in this version; the sizes of neighbours differ.
pub fn text(number: u64) -> String {
    let pad = usize::try_from(number * 37 % 20_000).unwrap_or(0);
    format!(r#"{{"n": {number}, "pad": "{}"}}"#, "x".repeat(pad))
}

/// Makes `v.json` of the source this version, by rename.
pub fn write(source: &Path, number: u64) {
    let fresh = source.with_extension("fresh");
    fs::write(&fresh, text(number))
        .and_then(|()| fs::rename(&fresh, source.join("v.json")))
        .unwrap_or_else(|error| panic!("{}: {error}", source.display()));
}

/// The version that is published in `out`, or why what is there is none. Reads the files of one directory, whatever is turned
/// meanwhile.
pub fn look(out: &Path) -> Result<Option<u64>, String> {
    let Ok(dir) = File::open(out.join("..data")) else {
        return Ok(None);
    };
    let dir = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    let read =
        |name: &str| fs::read_to_string(dir.join(name)).map_err(|error| format!("{name}: {error}"));
    let (source, made) = (read("v.json")?, read("made")?);
    let value: serde_json::Value =
        serde_json::from_str(&source).map_err(|error| format!("{source:?}: {error}"))?;
    match value["n"].as_u64() {
        Some(number) if made == format!("n={number}") && source == text(number) => Ok(Some(number)),
        _ => Err(format!("{source} and {made:?}")),
    }
}
