//! The protocol of the control socket, without I/O: the request's line and the frames after it.
//!
//! ```text
//!   client ──▶ {"podkit":1,"do":"exec","container":"app","command":["sh"],"stdin":true}\n   then frames I, R
//!   server ──▶ frames: H (what it is) … J | O | E … X (the end)
//!   frame:     kind, 1 byte │ length, 4 bytes, little endian │ that many bytes
//! ```
//!
//! Made to be extended: fields that are not known are ignored, frames that are not known are skipped, a request that is not
//! known is refused by name. JSON lines alone were rejected: a terminal's bytes would have to be escaped.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The version of the protocol. It changes only when an old client could misunderstand an answer.
pub const VERSION: u32 = 1;

/// The longest request: the arguments of a command can have 2 MiB (`ARG_MAX`).
pub(crate) const REQUEST_MAX: usize = 4 << 20;
/// The longest frame that a client may send.
pub(crate) const INPUT_MAX: usize = 64 << 10;
/// The longest frame that a server may send: a pod with all its text.
pub(crate) const OUTPUT_MAX: usize = 16 << 20;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
pub enum Request {
    /// Nothing but the greeting.
    Hello,
    /// The pod as an object, in one J; with `watch` again after every change, until its end.
    Pod {
        /// Go on.
        #[serde(default)]
        watch: bool,
    },
    /// Its events, a J each, oldest first; with `watch` new ones and those whose count has grown, until the pod's end.
    Events {
        /// Go on.
        #[serde(default)]
        watch: bool,
    },
    /// The images that are on their way, in one J; with `watch` again after changes, until the pod's end.
    Pulls {
        /// Go on.
        #[serde(default)]
        watch: bool,
    },
    /// The pod is to end. X comes at once; the pod is gone when its lock is free.
    Stop {
        /// Instead of the pod's own grace period; 0 kills.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            rename = "graceSeconds"
        )]
        grace_seconds: Option<u64>,
    },
    /// Runs a command in a container; see [`Exec`].
    Exec(Exec),
    /// Joins the first process of a container; see [`Attach`].
    Attach(Attach),
    /// A connection to a port of the pod's loopback: I and O carry its bytes, an empty one its end.
    Forward {
        /// The port.
        port: u16,
    },
}

/// A command in a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// The container.
    pub container: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Frames I are its standard input, which an empty one ends.
    #[serde(default)]
    pub stdin: bool,
    /// Its input and output are a terminal; all output comes as O, and frames R set its size.
    #[serde(default)]
    pub tty: bool,
    /// The terminal's first size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
}

/// What the first process of a container writes from now on, and reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attach {
    /// The container.
    pub container: String,
    /// Frames I are its standard input; an empty one ends that when the container has `stdinOnce`. Frames R set the size of
    /// its terminal, if it has one.
    #[serde(default)]
    pub stdin: bool,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// Why a request is not done; the reasons are those of Kubernetes' `metav1.Status` where it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// `BadRequest`, `NotFound`, `Forbidden`, `Unsupported`, `TooManyRequests`, `InternalError`.
    pub reason: String,
    /// One line for people.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(reason: &str, message: impl fmt::Display) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.to_string(),
        }
    }
}

impl Request {
    /// The line that asks for it.
    pub fn line(&self) -> Vec<u8> {
        let mut request = json!({"podkit": VERSION});
        if let (Value::Object(request), Ok(Value::Object(fields))) =
            (&mut request, serde_json::to_value(self))
        {
            request.extend(fields);
        }
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// Reads a line, without its end.
    pub(crate) fn read(line: &[u8]) -> Result<Self, Refusal> {
        let bad = |what: &dyn fmt::Display| Refusal::new("BadRequest", what);
        let request: Value = serde_json::from_slice(line)
            .map_err(|error| bad(&format!("not a request: {error}")))?;
        if request.get("podkit").and_then(Value::as_u64).is_none() {
            return Err(bad(
                &"not a request: \"podkit\", the protocol's version, is missing",
            ));
        }
        let Some(what) = request.get("do").and_then(Value::as_str).map(str::to_owned) else {
            return Err(bad(&"not a request: \"do\" is missing"));
        };
        if !CAPABILITIES.contains(&what.as_str()) {
            let version = podkit_foundation::VERSION;
            let message =
                format!("this pod was started by podkit {version}, which does not know {what:?}");
            return Err(Refusal::new("Unsupported", message));
        }
        serde_json::from_value(request).map_err(|error| bad(&format!("{what}: {error}")))
    }
}

/// What can be asked for.
pub(crate) const CAPABILITIES: &[&str] = &[
    "hello", "pod", "events", "pulls", "stop", "exec", "attach", "forward",
];

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `H`, from the server, first: `{"podkit":1,"version":"0.1.0","capabilities":[…]}`.
    Hello,
    /// `J`, from the server: an object.
    Json,
    /// `O`, from the server: bytes of standard output; none: its end.
    Output,
    /// `E`, from the server: bytes of standard error.
    Errors,
    /// `X`, from the server, last: `{}`, `{"exitCode":N}` or `{"error":{"reason":…,"message":…}}`.
    End,
    /// `I`, from the client: bytes of standard input; none: its end.
    Input,
    /// `R`, from the client: `{"rows":N,"columns":N}`.
    Resize,
    /// Of a later version.
    Unknown(u8),
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Hello => b'H',
            Self::Json => b'J',
            Self::Output => b'O',
            Self::Errors => b'E',
            Self::End => b'X',
            Self::Input => b'I',
            Self::Resize => b'R',
            Self::Unknown(byte) => byte,
        }
    }

    fn of(byte: u8) -> Self {
        match byte {
            b'H' => Self::Hello,
            b'J' => Self::Json,
            b'O' => Self::Output,
            b'E' => Self::Errors,
            b'X' => Self::End,
            b'I' => Self::Input,
            b'R' => Self::Resize,
            other => Self::Unknown(other),
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// What it carries.
    pub bytes: Vec<u8>,
}

/// The five bytes before a frame of `length` bytes.
pub(crate) fn head(kind: Kind, length: usize) -> [u8; 5] {
    // Longer ones are never made: see the limits above.
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [kind.byte(), length[0], length[1], length[2], length[3]]
}

/// A whole frame.
pub(crate) fn frame(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(5 + bytes.len());
    frame.extend_from_slice(&head(kind, bytes.len()));
    frame.extend_from_slice(bytes);
    frame
}

/// The greeting.
pub(crate) fn hello() -> Vec<u8> {
    let hello = json!({
        "podkit": VERSION,
        "version": podkit_foundation::VERSION,
        "capabilities": CAPABILITIES,
    });
    frame(Kind::Hello, hello.to_string().as_bytes())
}

/// The last frame of a request that was not done.
pub(crate) fn refused(refusal: &Refusal) -> Vec<u8> {
    let end = json!({"error": refusal});
    frame(Kind::End, end.to_string().as_bytes())
}

/// Takes frames out of a stream, whatever the pieces in which it comes.
#[derive(Debug)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// How much of it has been taken.
    taken: usize,
    max: usize,
}

/// A frame longer than it may be: whoever sent it is not to be talked to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is too long")]
pub(crate) struct TooLong(usize);

impl Frames {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
            max,
        }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame; those of a later version are skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, TooLong> {
        loop {
            let rest = &self.bytes[self.taken..];
            let Some((&[kind, a, b, c, d], rest)) = rest.split_first_chunk::<5>() else {
                return Ok(None);
            };
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            if length > self.max {
                return Err(TooLong(length));
            }
            let Some(bytes) = rest.get(..length) else {
                return Ok(None);
            };
            let bytes = bytes.to_vec();
            self.taken += 5 + length;
            match Kind::of(kind) {
                Kind::Unknown(_) => {}
                kind => return Ok(Some(Frame { kind, bytes })),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a client of version 1 sends: these bytes must be understood for as long as such pods and clients are about.
    const RECORDED: &[(&str, &str)] = &[
        (r#"{"podkit":1,"do":"hello"}"#, "Hello"),
        (
            r#"{"podkit":1,"do":"pod","watch":true}"#,
            "Pod { watch: true }",
        ),
        (r#"{"podkit":1,"do":"pod"}"#, "Pod { watch: false }"),
        (r#"{"podkit":1,"do":"events"}"#, "Events { watch: false }"),
        (
            r#"{"podkit":1,"do":"pulls","watch":true}"#,
            "Pulls { watch: true }",
        ),
        (
            r#"{"podkit":1,"do":"stop"}"#,
            "Stop { grace_seconds: None }",
        ),
        (
            r#"{"podkit":1,"do":"stop","graceSeconds":5}"#,
            "Stop { grace_seconds: Some(5) }",
        ),
        (
            r#"{"podkit":1,"do":"exec","container":"app","command":["sh","-c","true"]}"#,
            r#"Exec(Exec { container: "app", command: ["sh", "-c", "true"], stdin: false, tty: false, size: None })"#,
        ),
        (
            r#"{"podkit":1,"do":"exec","container":"app","command":["sh"],"stdin":true,"tty":true,"size":{"rows":24,"columns":80}}"#,
            r#"Exec(Exec { container: "app", command: ["sh"], stdin: true, tty: true, size: Some(Size { rows: 24, columns: 80 }) })"#,
        ),
        (
            r#"{"podkit":1,"do":"attach","container":"app"}"#,
            r#"Attach(Attach { container: "app", stdin: false })"#,
        ),
        (
            r#"{"podkit":1,"do":"attach","container":"app","stdin":true}"#,
            r#"Attach(Attach { container: "app", stdin: true })"#,
        ),
        (
            r#"{"podkit":1,"do":"forward","port":80}"#,
            "Forward { port: 80 }",
        ),
    ];

    #[test]
    fn version_1_is_understood() {
        for (line, expected) in RECORDED {
            let request = Request::read(line.as_bytes()).unwrap();
            assert_eq!(format!("{request:?}"), *expected, "{line}");
        }
    }

    #[test]
    fn what_is_sent_is_what_was_recorded() {
        for (line, _) in RECORDED {
            let request = Request::read(line.as_bytes()).unwrap();
            let sent: Value = serde_json::from_slice(&request.line()).unwrap();
            let mut recorded: Value = serde_json::from_str(line).unwrap();
            // Defaults may be written out.
            for (name, value) in sent.as_object().unwrap() {
                let recorded = recorded.as_object_mut().unwrap();
                assert_eq!(
                    recorded.entry(name).or_insert(false.into()),
                    value,
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn a_later_version_is_understood_as_far_as_it_goes() {
        let later = br#"{"podkit":7,"do":"pod","watch":true,"since":"yesterday","trace":{"id":1}}"#;
        assert_eq!(Request::read(later), Ok(Request::Pod { watch: true }));
        let unknown = Request::read(br#"{"podkit":7,"do":"freeze"}"#).unwrap_err();
        assert_eq!(unknown.reason, "Unsupported");
        let version = podkit_foundation::VERSION;
        assert_eq!(
            unknown.message,
            format!("this pod was started by podkit {version}, which does not know \"freeze\"")
        );
    }

    #[test]
    fn what_is_no_request_is_refused_in_one_line() {
        for line in [
            &b""[..],
            b"GET / HTTP/1.1\r",
            b"[]",
            b"{\"podkit\":1}",
            b"{\"do\":\"hello\"}",
            b"{\"podkit\":1,\"do\":\"exec\"}",
            b"{\"podkit\":1,\"do\":\"forward\",\"port\":70000}",
            b"\xff\xfe",
        ] {
            let refusal = Request::read(line).unwrap_err();
            assert_eq!(refusal.reason, "BadRequest");
            assert!(!refusal.message.contains('\n'), "{refusal}");
        }
    }

    #[test]
    fn every_request_is_among_the_capabilities() {
        for (line, _) in RECORDED {
            let request: Value = serde_json::from_str(line).unwrap();
            assert!(CAPABILITIES.contains(&request["do"].as_str().unwrap()));
        }
        assert!(CAPABILITIES.iter().all(|name| {
            RECORDED
                .iter()
                .any(|(line, _)| line.contains(&format!("{name:?}")))
        }));
    }

    #[test]
    fn the_bytes_of_a_frame() {
        assert_eq!(frame(Kind::Output, b"hi\n"), b"O\x03\0\0\0hi\n");
        assert_eq!(frame(Kind::Input, b""), b"I\0\0\0\0");
    }

    #[test]
    fn unknown_frames_are_skipped_and_long_ones_are_not_read() {
        let mut frames = Frames::new(100);
        frames.feed(b"Z\x02\0\0\0??J\x02\0\0\0{}");
        let frame = frames.next().unwrap().unwrap();
        assert_eq!((frame.kind, frame.bytes), (Kind::Json, b"{}".to_vec()));
        frames.feed(b"O\xff\xff\xff\xff");
        assert_eq!(frames.next(), Err(TooLong(0xffff_ffff)));
    }

    proptest! {
        #[test]
        fn frames_come_whole_from_any_pieces(
            sent in proptest::collection::vec((0usize..7, proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
            cuts in proptest::collection::vec(1usize..40, 1..50),
        ) {
            let kinds = [Kind::Hello, Kind::Json, Kind::Output, Kind::Errors, Kind::End, Kind::Input, Kind::Resize];
            let sent: Vec<Frame> = sent.into_iter().map(|(kind, bytes)| Frame { kind: kinds[kind], bytes }).collect();
            let stream: Vec<u8> = sent.iter().flat_map(|f| frame(f.kind, &f.bytes)).collect();
            let (mut frames, mut got, mut rest) = (Frames::new(300), vec![], &stream[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                frames.feed(now);
                while let Some(frame) = frames.next().unwrap() { got.push(frame); }
            }
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut frames = Frames::new(200);
            frames.feed(&bytes);
            while let Ok(Some(_)) = frames.next() {}
            let _refused = Request::read(&bytes);
        }
    }
}
