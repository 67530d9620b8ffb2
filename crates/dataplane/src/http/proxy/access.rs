//! The access log: a line of JSON for each request, written by a thread of its own.
//!
//! A worker collects lines in a buffer and hands it over when it is full, or after a moment, without waiting: a disk or a
//! terminal that can't keep up costs lines, which are counted, and no request. `FILE` is opened again when it was renamed or removed
//! (log rotation), which is looked at with each write.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use podkit_foundation::params::ParamType;
use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Counter, Registry};

/// Lines of one worker that are handed over together.
const BLOCK_BYTES: usize = 16 * 1024;

/// Blocks that wait for the writer at most: 4 MiB.
const BLOCKS: usize = 256;

/// How old a line gets before it is handed over.
const PATIENCE: Duration = Duration::from_millis(200);

/// Bytes of a target that are logged.
const TARGET_BYTES: usize = 2048;

/// `--access-log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTo {
    /// Standard error, between the other lines.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

impl ParamType for AccessTo {
    const TYPE_NAME: &'static str = "place";
    const EXPECTED: &'static str = "stderr or an absolute path";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "stderr" => Ok(Self::Stderr),
            _ if text.starts_with('/') => Ok(Self::File(PathBuf::from(text))),
            _ => Err(String::new()),
        }
    }
}

/// Where lines go. Clones share.
#[derive(Debug, Clone)]
pub struct AccessLog {
    blocks: SyncSender<Vec<u8>>,
    written: Counter,
    dropped: Counter,
}

impl AccessLog {
    /// The families, for a module's surface.
    pub const METRICS: &[Metric] = &[Metric {
        name: "podkit_access_log_lines_total",
        kind: "counter",
        labels: &["result"],
        doc: "Lines of --access-log: written (handed to the writer); dropped (the writer did not keep up).",
    }];

    /// Opens it and starts the writer, which ends with the last clone. An error says what can't be opened.
    pub fn open(to: &AccessTo, metrics: &Registry) -> Result<Self, std::io::Error> {
        let out = match to {
            AccessTo::Stderr => Out::Stderr,
            AccessTo::File(path) => Out::File(path.clone(), append(path)?),
        };
        let (blocks, taken) = sync_channel(BLOCKS);
        let writer = std::thread::Builder::new().name("access-log".to_owned());
        writer.spawn(move || write(&taken, out))?;
        let Metric { name, doc, .. } = Self::METRICS[0];
        let count = |word| metrics.counter(name, doc, &[("result", word)]);
        Ok(Self {
            blocks,
            written: count("written"),
            dropped: count("dropped"),
        })
    }
}

enum Out {
    Stderr,
    File(PathBuf, File),
}

fn append(path: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).open(path)
}

fn write(blocks: &Receiver<Vec<u8>>, mut out: Out) {
    let mut told = false;
    loop {
        let block = match blocks.recv_timeout(Duration::from_secs(5)) {
            Ok(block) => block,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let result = match &mut out {
            Out::Stderr => std::io::stderr().lock().write_all(&block),
            Out::File(path, file) => {
                if moved(path, file)
                    && let Ok(fresh) = append(path)
                {
                    *file = fresh;
                }
                file.write_all(&block)
            }
        };
        // Once, and again when it has worked meanwhile: a full disk must not fill the log too.
        match result {
            Ok(()) => told = false,
            Err(error) if !told => {
                told = true;
                tracing::error!(why = %error, "the access log can't be written");
            }
            Err(_) => {}
        }
    }
}

/// The file has another name by now, or none.
fn moved(path: &Path, file: &File) -> bool {
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(open)) => (there.dev(), there.ino()) != (open.dev(), open.ino()),
        (Err(_), _) => true,
        (Ok(_), Err(_)) => false,
    }
}

/// A worker's lines.
#[derive(Debug)]
pub(super) struct Lines {
    log: AccessLog,
    block: RefCell<Vec<u8>>,
    count: Cell<u64>,
}

impl Lines {
    /// Starts the task that hands over what is old. Must be called on a worker's thread.
    pub(super) fn new(log: AccessLog) -> std::rc::Rc<Self> {
        let lines = std::rc::Rc::new(Self {
            log,
            block: RefCell::default(),
            count: Cell::new(0),
        });
        let mine = std::rc::Rc::downgrade(&lines);
        drop(tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(PATIENCE).await;
                match mine.upgrade() {
                    Some(lines) => lines.hand_over(),
                    None => return,
                }
            }
        }));
        lines
    }

    fn hand_over(&self) {
        let mut block = self.block.borrow_mut();
        if block.is_empty() {
            return;
        }
        let full = std::mem::replace(&mut *block, Vec::with_capacity(BLOCK_BYTES + 4096));
        let count = self.count.take();
        match self.log.blocks.try_send(full) {
            Ok(()) => self.log.written.add(count),
            Err(_) => self.log.dropped.add(count),
        }
    }

    /// Takes a request's line.
    pub(super) fn put(&self, entry: &Entry, took: Duration) {
        {
            let mut block = self.block.borrow_mut();
            entry.line(&mut block, SystemTime::now(), took);
            self.count.set(self.count.get() + 1);
            if block.len() < BLOCK_BYTES {
                return;
            }
        }
        self.hand_over();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// What is logged of one request; used again for the connection's next one.
#[derive(Debug, Default)]
pub(super) struct Entry {
    method: RefCell<Vec<u8>>,
    host: RefCell<Vec<u8>>,
    target: RefCell<Vec<u8>>,
    trace: Cell<Option<[u8; 32]>>,
    client: Option<String>,
    upstream: RefCell<String>,
    status: Cell<u16>,
    bytes: Cell<u64>,
    tries: Cell<u32>,
}

impl Entry {
    pub(super) fn new(client: Option<&[u8]>) -> Self {
        let text = |client| String::from_utf8_lossy(client).into_owned();
        Self {
            client: client.map(text),
            ..Self::default()
        }
    }

    /// A request came.
    pub(super) fn begin(&self, method: &[u8], host: &[u8], target: &[u8], trace: Option<&[u8]>) {
        let put = |to: &RefCell<Vec<u8>>, bytes: &[u8]| {
            let mut to = to.borrow_mut();
            to.clear();
            to.extend_from_slice(&bytes[..bytes.len().min(TARGET_BYTES)]);
        };
        put(&self.method, method);
        put(&self.host, host);
        put(&self.target, target);
        self.trace
            .set(trace.and_then(|trace| trace.try_into().ok()));
        self.upstream.borrow_mut().clear();
        self.status.set(0);
        self.bytes.set(0);
        self.tries.set(0);
    }

    /// It is tried at an endpoint.
    pub(super) fn tried(&self, upstream: &str) {
        let mut name = self.upstream.borrow_mut();
        name.clear();
        name.push_str(upstream);
        self.tries.set(self.tries.get() + 1);
    }

    /// It was answered so, with so many bytes, head included.
    pub(super) fn answered(&self, status: u16, bytes: u64) {
        self.status.set(status);
        self.bytes.set(bytes);
    }

    /// Appends the line. A status of 0: nothing was answered, the client or the answer was cut.
    fn line(&self, out: &mut Vec<u8>, now: SystemTime, took: Duration) {
        out.extend_from_slice(b"{\"ts\":");
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        put(
            out,
            format_args!("{}.{:03}", since.as_secs(), since.subsec_millis()),
        );
        out.extend_from_slice(b",\"client\":");
        string(out, self.client.as_deref().unwrap_or("unix").as_bytes());
        out.extend_from_slice(b",\"method\":");
        string(out, &self.method.borrow());
        out.extend_from_slice(b",\"host\":");
        string(out, &self.host.borrow());
        out.extend_from_slice(b",\"target\":");
        string(out, &self.target.borrow());
        put(
            out,
            format_args!(
                ",\"status\":{},\"bytes\":{},\"took_ms\":{}.{:03},\"tries\":{}",
                self.status.get(),
                self.bytes.get(),
                took.as_millis(),
                took.subsec_micros() % 1000,
                self.tries.get()
            ),
        );
        if !self.upstream.borrow().is_empty() {
            out.extend_from_slice(b",\"upstream\":");
            string(out, self.upstream.borrow().as_bytes());
        }
        if let Some(trace) = self.trace.get() {
            out.extend_from_slice(b",\"trace\":");
            string(out, &trace);
        }
        out.extend_from_slice(b"}\n");
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec can't fail");
}

/// A JSON string (RFC 8259 section 7). Bytes that are not ASCII are written as the Latin-1 character of that number, so that
/// every line is UTF-8 whatever was sent.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x20..=0x7e => out.push(*byte),
            _ => put(out, format_args!("\\u{byte:04x}")),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_was_sent() {
        let entry = Entry::new(Some(b"10.0.0.7"));
        entry.begin(b"GET", b"h", b"/\"\\\n\xff", Some(&[b'a'; 32]));
        entry.tried("a:1");
        entry.tried("b:2");
        entry.answered(200, 1234);
        let mut out = Vec::new();
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_042);
        entry.line(&mut out, now, Duration::from_micros(1_234_567));
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            line,
            serde_json::json!({
                "ts": 1_700_000_000.042, "client": "10.0.0.7", "method": "GET", "host": "h", "target": "/\"\\\n\u{ff}",
                "status": 200, "bytes": 1234, "took_ms": 1234.567, "tries": 2, "upstream": "b:2", "trace": "a".repeat(32),
            })
        );
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        // The next request of the connection has nothing of the last one.
        entry.begin(b"PUT", b"", b"/", None);
        out.clear();
        entry.line(&mut out, now, Duration::ZERO);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert!(line.get("upstream").is_none() && line.get("trace").is_none());
        assert_eq!(line["status"], 0);
    }

    #[test]
    fn a_writer_that_does_not_keep_up_costs_lines_and_no_time() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(tokio::task::LocalSet::new().run_until(async {
            let (blocks, taken) = sync_channel(2);
            let log = AccessLog {
                blocks,
                written: Counter::default(),
                dropped: Counter::default(),
            };
            let lines = Lines::new(log.clone());
            let entry = Entry::new(None);
            entry.begin(b"GET", b"h", b"/", None);
            for _ in 0..1000 {
                lines.put(&entry, Duration::ZERO);
            }
            drop(lines);
            assert!(log.dropped.get() > 0);
            assert_eq!(log.dropped.get() + log.written.get(), 1000);
            drop(log);
            let lines = taken.iter().flatten().filter(|byte| *byte == b'\n');
            assert!(lines.count() >= 200);
        }));
    }

    #[test]
    fn a_file_that_was_rotated_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = AccessLog::open(&AccessTo::File(path.clone()), &Registry::default()).unwrap();
        let wait = |path: &Path, text: &str| {
            while std::fs::read_to_string(path).unwrap_or_default() != text {
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        log.blocks.send(b"one\n".to_vec()).unwrap();
        wait(&path, "one\n");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        log.blocks.send(b"two\n".to_vec()).unwrap();
        wait(&path, "two\n");
    }
}
