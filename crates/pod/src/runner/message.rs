//! What a container leaves to be read when it has ended: its termination message.
//!
//! Each run finds a new, empty file at its `terminationMessagePath`; the last 4096 bytes of what is in it then are the message. With
//! the policy FallbackToLogsOnError a failed run that has written none is explained by the end of its log. All containers of a
//! pod together have 12 KiB. (Kubernetes: `getTerminationMessage`, `readLastStringFromContainerLogs`, `normalizeStatus`)

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::plan::PodPlan;
use crate::sandbox::Mount;

/// `MaxContainerTerminationMessageLength`
const FILE_BYTES: u64 = 4096;
/// `MaxContainerTerminationMessageLogLength`
const LOG_BYTES: usize = 2048;
/// `MaxContainerTerminationMessageLogLines`
const LOG_LINES: usize = 80;
/// `MaxPodTerminationMessageLogLength`
const POD_BYTES: usize = 12 * 1024;

/// The message of one run.
#[derive(Debug)]
pub(super) struct Message {
    file: PathBuf,
    /// Bytes for this container among all.
    share: usize,
}

impl Message {
    /// A new file for the run of a container, below `dir`, which is made when absent.
    pub(super) fn prepare(dir: &Path, container: &str, plan: &PodPlan) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = dir.join(container);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = File::options();
        let made = options
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&file)?;
        // Any user of the container may write to it, whatever the umask.
        made.set_permissions(std::fs::Permissions::from_mode(0o666))?;
        Ok(Self {
            file,
            share: POD_BYTES / plan.containers.len().max(1),
        })
    }

    /// The file in the container. Where its path can't be made (the machine's own programs) the container runs without.
    pub(super) fn mount(&self, path: &Path) -> Mount {
        Mount::path(&self.file, path).optional()
    }

    /// The message of a run that has ended. `log`: the end of its log, when that may stand for it.
    pub(super) fn read(&self, log: Option<&LogTail>) -> String {
        let mut message = match self.written() {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!(
                "Error on reading termination log {}: {error}",
                self.file.display()
            ),
        };
        if message.is_empty()
            && let Some(log) = log
        {
            message = log.text();
        }
        let mut share = self.share;
        while !message.is_char_boundary(share.min(message.len())) {
            share -= 1;
        }
        message.truncate(share);
        message
    }

    fn written(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.file)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(FILE_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The end of a run's log, both streams as they came. Copies are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct LogTail {
    bytes: Rc<RefCell<VecDeque<u8>>>,
}

impl LogTail {
    /// A line, or the beginning of one (`partial`).
    pub(super) fn push(&self, line: &[u8], partial: bool) {
        let mut bytes = self.bytes.borrow_mut();
        let end: &[u8] = if partial { b"" } else { b"\n" };
        bytes.extend(line.iter().chain(end));
        let over = bytes.len().saturating_sub(LOG_BYTES);
        bytes.drain(..over);
    }

    /// The last lines, at most [`LOG_LINES`], of the last [`LOG_BYTES`].
    fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.borrow().iter().copied().collect();
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let mut ends = text.iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
        let from = ends.nth(LOG_LINES - 1).map_or(0, |(at, _)| at + 1);
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::testing::{container, plan};

    fn message(containers: usize) -> (tempfile::TempDir, Message) {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan((0..containers).map(|_| container("app")).collect());
        let message = Message::prepare(&dir.path().join("messages"), "app", &plan).unwrap();
        (dir, message)
    }

    #[test]
    fn the_end_of_the_file_is_the_message() {
        let (_dir, message) = message(1);
        assert_eq!(message.read(None), "");
        let mode = std::fs::metadata(&message.file)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o666);
        std::fs::write(&message.file, "out of luck").unwrap();
        assert_eq!(message.read(None), "out of luck");
        let long = "a".repeat(5000) + "end";
        std::fs::write(&message.file, &long).unwrap();
        assert_eq!(message.read(None), long[long.len() - 4096..]);
        std::fs::remove_file(&message.file).unwrap();
        assert!(
            message
                .read(None)
                .starts_with("Error on reading termination log ")
        );
    }

    #[test]
    fn many_containers_have_less_each() {
        let (_dir, message) = message(100);
        std::fs::write(&message.file, "é".repeat(200)).unwrap();
        // 122 bytes, and no half characters.
        assert_eq!(message.read(None), "é".repeat(61));
    }

    #[test]
    fn the_log_stands_in_only_for_an_empty_file() {
        let (_dir, message) = message(1);
        let log = LogTail::default();
        log.push(b"Traceback:", false);
        log.push(b"  no ", true);
        log.push(b"file", false);
        assert_eq!(message.read(Some(&log)), "Traceback:\n  no file\n");
        std::fs::write(&message.file, "said").unwrap();
        assert_eq!(message.read(Some(&log)), "said");
    }

    #[test]
    fn of_a_log_the_last_lines_are_kept() {
        let log = LogTail::default();
        for line in 0..500 {
            log.push(format!("{line}").as_bytes(), false);
        }
        let text = log.text();
        assert!(
            text.starts_with("420\n") && text.ends_with("499\n"),
            "{text}"
        );
        log.push(&vec![b'x'; 3000], false);
        assert_eq!(log.text(), "x".repeat(2047) + "\n");
    }
}
