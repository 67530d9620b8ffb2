//! The containers' standard output and error: pipes (or a terminal) in, whole lines out.
//!
//! Each pipe has a task of its own, which reads while the output has room; a container that floods then waits in
//! its own write, and takes turns of [`CHUNK`] bytes with the others. All tasks share one buffer; a line that has no
//! end yet is all that a pipe keeps.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::console::{Console, Piece};
use super::log_files::LogFiles;
use super::message::LogTail;
use super::output::{Item, Output, Stream};
use crate::sandbox::Source;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// A longer line is shown in parts (as the CRI's log format does).
const LINE_MAX: usize = 16 * 1024;
/// After this long without its end, the beginning of a line is shown: a prompt, a progress message.
const PATIENCE: Duration = Duration::from_millis(500);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// Whose log it is, and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) container: usize,
    pub(super) run: u32,
    pub(super) stream: Stream,
    pub(super) output: Output,
    pub(super) files: LogFiles,
    /// Where those are who attach.
    pub(super) console: Arc<Console>,
    /// The end of the log is kept.
    pub(super) tail: Option<LogTail>,
}

/// Shows and keeps what comes out of `source` until its last writer is gone. An error says that it can't be read.
pub(super) async fn follow(source: Source, log: Log) -> std::io::Result<()> {
    let mut lines = Lines::new(LINE_MAX);
    loop {
        log.output.room().await;
        log.files.room().await;
        let readable = if lines.partial.is_empty() {
            source.readable().await
        } else {
            match tokio::time::timeout(PATIENCE, source.readable()).await {
                Ok(readable) => readable,
                Err(_) => {
                    log.take(&lines.flush());
                    continue;
                }
            }
        };
        readable?;
        let (read, piece) = BUFFER.with_borrow_mut(|buffer| {
            let read = source.try_read(buffer);
            let Ok(count) = read else {
                return (read, None);
            };
            log.take(&lines.feed(&buffer[..count]));
            (read, log.piece(&buffer[..count]))
        });
        if let Some(piece) = piece {
            log.console.show(&piece).await;
        }
        match read {
            Ok(0) => {
                log.take(&lines.flush());
                return Ok(());
            }
            Ok(_) => tokio::task::yield_now().await,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

impl Log {
    /// What those who are attached are to see.
    fn piece(&self, bytes: &[u8]) -> Option<Piece> {
        let shown = !bytes.is_empty() && self.console.is_watched();
        shown.then(|| Piece {
            errors: self.stream == Stream::Stderr,
            bytes: bytes.into(),
        })
    }

    fn take(&self, lines: &[Line<'_>]) {
        if let Some(tail) = &self.tail {
            for line in lines {
                tail.push(&line.bytes, line.partial);
            }
        }
        let shown = lines.iter().filter(|line| !line.end_only);
        self.output.show_all(shown.map(|line| Item::Log {
            container: self.container,
            stream: self.stream,
            line: &line.bytes,
            partial: line.partial,
        }));
        self.files
            .append(self.container, self.run, self.stream, lines);
    }
}

/// A line, or the part of one.
#[derive(Debug, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) bytes: std::borrow::Cow<'a, [u8]>,
    pub(super) partial: bool,
    /// Only the end of a line whose last part was shown already.
    pub(super) end_only: bool,
}

/// Cuts a stream into lines, whatever the pieces in which it comes.
#[derive(Debug)]
pub(super) struct Lines {
    /// A longer line comes in parts.
    max: usize,
    /// The beginning of a line, shorter than that.
    partial: Vec<u8>,
    /// A part of the present line has been shown: its end alone is not an empty line.
    shown: bool,
}

impl Lines {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            partial: Vec::new(),
            shown: false,
        }
    }

    pub(super) fn feed<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<Line<'a>> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            let end = memchr_newline(bytes);
            let room = self.max - self.partial.len();
            let take = end.unwrap_or(bytes.len()).min(room);
            let whole = end == Some(take);
            let (now, rest) = bytes.split_at(take);
            bytes = &rest[usize::from(whole)..];
            if !whole && take < room {
                self.partial.extend_from_slice(now);
                break;
            }
            let line = if self.partial.is_empty() {
                now.into()
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(now);
                line.into()
            };
            self.put(&mut lines, line, !whole);
        }
        lines
    }

    /// What there is of the last line.
    fn flush(&mut self) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial).into();
            self.put(&mut lines, line, true);
        }
        lines
    }

    fn put<'a>(
        &mut self,
        lines: &mut Vec<Line<'a>>,
        bytes: std::borrow::Cow<'a, [u8]>,
        partial: bool,
    ) {
        let end_only = self.shown && !partial && bytes.is_empty();
        self.shown = partial;
        lines.push(Line {
            bytes,
            partial,
            end_only,
        });
    }
}

fn memchr_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let mut lines = Lines::new(LINE_MAX);
        let mut out = vec![];
        let text = |line: Line<'_>| {
            (
                String::from_utf8_lossy(&line.bytes).into_owned(),
                line.partial,
            )
        };
        for piece in pieces {
            let whole = lines.feed(piece).into_iter();
            out.extend(whole.filter(|line| !line.end_only).map(text));
        }
        out.extend(lines.flush().into_iter().map(text));
        out
    }

    fn whole(line: &str) -> (String, bool) {
        (line.to_owned(), false)
    }

    #[test]
    fn lines_come_whole_from_any_pieces() {
        assert_eq!(
            all(&[b"a\n", b"b", b"c\n\nd\n"]),
            ["a", "bc", "", "d"].map(whole)
        );
        assert_eq!(all(&[b"no end"]), [("no end".to_owned(), true)]);
        assert!(all(&[b""]).is_empty());
    }

    #[test]
    fn a_long_line_comes_in_parts_and_keeps_no_more_than_one() {
        let long = vec![b'x'; LINE_MAX * 2];
        let parts = all(&[&long, b"\nnext\n"]);
        let sizes: Vec<_> = parts
            .iter()
            .map(|(line, partial)| (line.len(), *partial))
            .collect();
        assert_eq!(sizes, [(LINE_MAX, true), (LINE_MAX, true), (4, false)]);
    }

    #[test]
    fn the_end_of_a_line_that_was_shown_is_not_an_empty_line() {
        let mut lines = Lines::new(LINE_MAX);
        assert!(lines.feed(b"Password: ").is_empty());
        assert_eq!(lines.flush().len(), 1);
        assert!(lines.feed(b"\n")[0].end_only);
        assert!(!lines.feed(b"\n")[0].end_only);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_in_any_chunking(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..2000),
            cuts in proptest::collection::vec(1usize..50, 0..100),
        ) {
            let mut lines = Lines::new(LINE_MAX);
            let mut out = vec![];
            let mut rest = &text[..];
            let mut cuts = cuts.into_iter().chain(std::iter::repeat(7));
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                rest = later;
                for line in lines.feed(now) {
                    out.extend_from_slice(&line.bytes);
                    if !line.partial { out.push(b'\n'); }
                }
            }
            for line in lines.flush() { out.extend_from_slice(&line.bytes); }
            prop_assert_eq!(out, text);
        }
    }
}
