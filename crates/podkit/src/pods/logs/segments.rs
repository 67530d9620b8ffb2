//! The log of one run of a container, over the files that it is in, while it may still be written.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One entry of the CRI's format: `TIME STREAM TAG CONTENT`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) time: &'a str,
    pub(super) content: &'a [u8],
    /// The line goes on in the next entry.
    pub(super) partial: bool,
}

impl<'a> Entry<'a> {
    /// Reads a line, with or without its end; none when it is not of that format.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = parts.next()?;
        if !matches!(stream, b"stdout" | b"stderr") {
            return None;
        }
        // Tags are separated by colons; the first says whether the line is whole.
        let partial = parts.next()?.split(|byte| *byte == b':').next()? == b"P";
        Some(Self {
            time,
            content: parts.next()?,
            partial,
        })
    }
}

/// Reads on from where it was.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    run: u64,
    open: Option<(u64, BufReader<File>)>,
    /// The beginning of a line whose end is not there yet.
    line: Vec<u8>,
}

impl Segments {
    pub(super) fn new(dir: &Path, run: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            run,
            open: None,
            line: Vec::new(),
        }
    }

    /// Hands all whole lines that are there now to `each`, which says whether to go on.
    pub(super) fn read(&mut self, each: &mut impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        loop {
            if self.open.is_none() && !self.next()? {
                return Ok(());
            }
            let Some((_, file)) = &mut self.open else {
                return Ok(());
            };
            file.read_until(b'\n', &mut self.line)?;
            if self.line.last() == Some(&b'\n') {
                let more = each(&self.line);
                self.line.clear();
                if !more {
                    return Ok(());
                }
            } else if !self.next()? {
                return Ok(());
            }
        }
    }

    /// Goes on to the next file, when there is one.
    fn next(&mut self) -> io::Result<bool> {
        let files = files(&self.dir, self.run);
        let now = self.open.as_ref().map(|(inode, _)| *inode);
        let mut later = files.iter();
        if let Some(now) = now
            && files.iter().any(|(inode, _)| *inode == now)
        {
            later.by_ref().find(|(inode, _)| *inode == now);
        }
        let Some((inode, path)) = later.next() else {
            return Ok(false);
        };
        match File::open(path) {
            Ok(file) => {
                // It may have got another name meanwhile, and another file its.
                let inode = file.metadata().map_or(*inode, |meta| meta.ino());
                self.open = Some((inode, BufReader::with_capacity(64 * 1024, file)));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The files of a run, oldest first, with their inodes.
fn files(dir: &Path, run: u64) -> Vec<(u64, PathBuf)> {
    let present = format!("{run}.log");
    let older = format!("{run}.log.");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<(bool, String, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let ours = name == present || name.starts_with(&older);
            ours.then(|| (name == present, name, entry.path()))
        })
        .collect();
    // The present one last.
    files.sort();
    let inode = |path: PathBuf| Some((path.metadata().ok()?.ino(), path));
    files
        .into_iter()
        .filter_map(|(_, _, path)| inode(path))
        .collect()
}

/// The latest run of which there is a log.
pub(super) fn latest(dir: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let run = |entry: std::fs::DirEntry| -> Option<u64> {
        entry.file_name().to_str()?.split('.').next()?.parse().ok()
    };
    entries.filter_map(run).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_cri() {
        let entry = Entry::parse(b"2026-11-20T13:00:00.000000000Z stderr P a b \n").unwrap();
        assert_eq!(entry.content, b"a b ");
        assert!(entry.partial);
        assert!(
            !Entry::parse(b"2026-11-20T13:00:00Z stdout F:x ")
                .unwrap()
                .partial
        );
        for bad in [&b""[..], b"x", b"x stdout F", b"x nothing F y"] {
            assert_eq!(Entry::parse(bad), None);
        }
    }

    #[test]
    fn files_that_are_renamed_while_they_are_read_are_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut got = Vec::new();
        let mut segments = Segments::new(dir.path(), 1);
        let mut read = |segments: &mut Segments| {
            got.clear();
            let mut each = |line: &[u8]| {
                got.push(String::from_utf8_lossy(line).trim().to_owned());
                true
            };
            segments.read(&mut each).unwrap();
            got.join(",")
        };
        assert_eq!(read(&mut segments), "");
        std::fs::write(path("0.log"), "another run\n").unwrap();
        std::fs::write(path("1.log.100"), "a\n").unwrap();
        std::fs::write(path("1.log"), "b\nc").unwrap();
        assert_eq!(read(&mut segments), "a,b");
        std::fs::write(path("1.log"), "b\ncc\n").unwrap();
        assert_eq!(read(&mut segments), "cc");
        std::fs::rename(path("1.log"), path("1.log.200")).unwrap();
        std::fs::write(path("1.log.300"), "d\n").unwrap();
        std::fs::write(path("1.log"), "e\n").unwrap();
        assert_eq!(read(&mut segments), "d,e");
        assert_eq!(latest(dir.path()), Some(1));
    }
}
