//! A client's connection of HTTP/2 as one state (no I/O): frames come in, the streams' bytes and frames to be sent are kept here.
//!
//! What a stream sends is written as frames into the connection's one buffer at once, as far as the windows and the bound on
//! what waits allow; else the stream waits. So there is no queue for each stream, and all that a turn's streams
//! have to say goes in one write. Rejected: the h2 crate, which this was before: its store of streams, its queues and its
//! maps of fields took two fifths of all instructions of a short request.

mod asked;
mod control;
mod frames;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod send;
mod streams;
mod take;

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

pub(super) use asked::Asked;
pub(super) use frames::{HEADER_BYTES, MAX_FRAME, Reason};
pub(super) use streams::Handle;
pub(super) use take::{Born, Step};

use super::hpack::{Decoder, Encoder};
use super::limits::Http2Limits;
use crate::net::{Buf, LARGE_BYTES, SMALL_BYTES};
use frames::*;
use streams::Entry;
use take::{Arriving, Block};

/// What a window is before anything is said about it (RFC 9113 section 6.9.2).
const FIRST_WINDOW: i64 = 65_535;
/// The largest.
const MAX_WINDOW: i64 = (1 << 31) - 1;
/// The largest id of a stream.
const MAX_STREAM: u32 = (1 << 31) - 1;

/// Frames of control that wait beside answers before nothing more is read.
const CONTROL_ROOM: usize = 64 * 1024;

/// Streams that we reset and that are remembered: what was on its way for them is dropped.
const RESETS_KEPT: usize = 1024;

/// What the PING says that goes with the first GOAWAY.
const LEAVING: [u8; 8] = *b"leaving.";

/// How far a GOAWAY in two steps is (RFC 9113 section 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    No,
    /// The first was sent; the answer to the PING behind it says that the client knows.
    Asked,
    /// Streams behind this one are not served.
    After(u32),
}

/// The connection.
#[derive(Debug)]
pub(super) struct Session {
    /// To be sent.
    out: Option<Buf>,
    /// Bytes of it beyond which streams wait.
    out_most: usize,
    /// The connection's task.
    task: Option<Waker>,

    /// Bytes of the client's preface that did not come yet.
    preface: usize,
    /// The client's first SETTINGS came.
    settled: bool,
    arriving: Option<Arriving>,
    block: Option<Block>,
    decoder: Decoder,
    encoder: Encoder,
    asked: Asked,
    /// Room for a header block that is encoded.
    scratch: Vec<u8>,

    streams: Vec<Entry>,
    free: Vec<usize>,
    /// Those that are held, by id: it only grows.
    by_id: VecDeque<(u32, usize)>,
    /// The last that was opened.
    last: u32,
    /// Those that are not over for both sides.
    active: u32,
    most: u32,
    /// Those that we reset, while the client may not know.
    resets: VecDeque<u32>,
    resets_forgotten: bool,
    /// Those that wait to send of their body, for room or for the connection's window.
    waiting: VecDeque<(usize, u32)>,
    /// Those that wait for room for a head.
    crowded: Vec<(usize, u32)>,

    /// What the client may still be sent.
    window: i64,
    /// The same of a new stream.
    first_window: i64,
    /// What the client may still send, and what was taken of it since it was told.
    recv_window: i64,
    recv_taken: i64,
    recv_most: i64,
    stream_window: i64,
    /// What a stream may get beyond its window while the client may not know of it.
    lenience: i64,
    head_bytes: usize,

    /// Streams that the client made us break off, and that were not asked for yet.
    faults: usize,
    leave: Leave,
    dead: bool,
}

impl Session {
    /// `head_bytes` of a head at most.
    pub(super) fn new(limits: &Http2Limits, head_bytes: usize) -> Self {
        let stream_window = i64::from(limits.stream_window());
        let recv_most = i64::from(limits.connection_window());
        let mut session = Self {
            out: None,
            out_most: limits.send_buffer(),
            task: None,
            preface: super::flood::PREFACE.len(),
            settled: false,
            arriving: None,
            block: None,
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            asked: Asked::default(),
            scratch: Vec::new(),
            streams: Vec::new(),
            free: Vec::new(),
            by_id: VecDeque::new(),
            last: 0,
            active: 0,
            most: limits.h2_max_streams,
            resets: VecDeque::new(),
            resets_forgotten: false,
            waiting: VecDeque::new(),
            crowded: Vec::new(),
            window: FIRST_WINDOW,
            first_window: FIRST_WINDOW,
            recv_window: recv_most,
            recv_taken: 0,
            recv_most,
            stream_window,
            lenience: (FIRST_WINDOW - stream_window).max(0),
            head_bytes,
            faults: 0,
            leave: Leave::No,
            dead: false,
        };
        session.greet(limits);
        session
    }

    fn greet(&mut self, limits: &Http2Limits) {
        let list = u32::try_from(self.head_bytes).unwrap_or(u32::MAX);
        let told = [
            (MAX_CONCURRENT_STREAMS, limits.h2_max_streams),
            (INITIAL_WINDOW_SIZE, limits.stream_window()),
            (MAX_HEADER_LIST_SIZE, list),
            (ENABLE_CONNECT_PROTOCOL, 1),
        ];
        self.put_frame(SETTINGS, 0, 0, told.len() * 6);
        for (id, value) in told {
            self.put(&id.to_be_bytes());
            self.put(&value.to_be_bytes());
        }
        let more = self.recv_most - FIRST_WINDOW;
        if more > 0 {
            self.put_update(0, more);
        }
    }

    /// The preface came.
    pub(super) fn is_open(&self) -> bool {
        self.preface == 0
    }

    /// Nothing more is read before something was sent.
    pub(super) fn is_full(&self) -> bool {
        self.waits() >= self.out_most + CONTROL_ROOM
    }

    /// How many streams the client made us break off since this was asked last.
    pub(super) fn take_faults(&mut self) -> usize {
        std::mem::take(&mut self.faults)
    }

    fn waits(&self) -> usize {
        self.out.as_ref().map_or(0, Buf::len)
    }

    /// Who is told when there is something to be sent.
    pub(super) fn set_task(&mut self, waker: &Waker) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            self.task = Some(waker.clone());
        }
    }

    fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// What is to be sent, if there is something.
    pub(super) fn to_send(&self) -> Option<&[u8]> {
        self.out.as_ref().map(Buf::filled)
    }

    /// So much of it was sent.
    pub(super) fn sent(&mut self, count: usize) {
        if let Some(out) = &mut self.out {
            out.consume(count);
            if out.is_empty() {
                self.out = None;
            }
        }
    }

    /// Makes room for so many bytes more.
    fn room(&mut self, bytes: usize) -> &mut Buf {
        let out = self.out.get_or_insert_with(Buf::small);
        let wanted = out.len() + bytes;
        if out.spare().len() < bytes && wanted > SMALL_BYTES && wanted <= LARGE_BYTES {
            let mut large = Buf::large();
            large.put(out.filled());
            *out = large;
        }
        out.reserve(bytes);
        out
    }

    fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).put(bytes);
    }

    fn put_frame(&mut self, kind: u8, flags: u8, stream: u32, len: usize) {
        self.room(HEADER_BYTES + len)
            .put(&header(kind, flags, stream, len));
    }

    fn put_update(&mut self, stream: u32, more: i64) {
        self.put_frame(WINDOW_UPDATE, 0, stream, 4);
        let more = u32::try_from(more).expect("a window's size");
        self.put(&more.to_be_bytes());
    }

    fn put_reset(&mut self, stream: u32, reason: Reason) {
        self.put_frame(RST_STREAM, 0, stream, 4);
        self.put(&(reason as u32).to_be_bytes());
    }

    fn put_goaway(&mut self, last: u32, reason: Reason) {
        self.put_frame(GOAWAY, 0, 0, 8);
        self.put(&last.to_be_bytes());
        self.put(&(reason as u32).to_be_bytes());
    }

    /// Ends it: the client is told why, and nothing is served any more.
    pub(super) fn end(&mut self, reason: Reason) {
        self.put_goaway(self.last, reason);
        self.die();
    }

    /// Asks the client to go elsewhere; what is on its way is still served.
    pub(super) fn leave(&mut self) {
        if self.leave == Leave::No {
            self.leave = Leave::Asked;
            self.put_goaway(MAX_STREAM, Reason::NoError);
            self.put_frame(PING, 0, 0, LEAVING.len());
            self.put(&LEAVING);
        }
    }

    /// The client knows that it is to go, and nothing of it is served any more.
    pub(super) fn has_left(&self) -> bool {
        matches!(self.leave, Leave::After(_)) && self.by_id.is_empty()
    }

    /// Every stream is broken off.
    pub(super) fn die(&mut self) {
        self.dead = true;
        for (_, at) in &self.by_id {
            self.streams[*at].wake();
        }
    }

    /// The client took so many bytes off the connection's window, which are read by now.
    fn took(&mut self, bytes: i64) {
        self.recv_taken += bytes;
        if self.recv_taken * 2 >= self.recv_most && !self.dead {
            self.recv_window += self.recv_taken;
            self.put_update(0, self.recv_taken);
            self.recv_taken = 0;
            self.wake_task();
        }
    }

    /// Lets the next of those that wait try, if there is something for it.
    pub(super) fn pass_on(&mut self) {
        if self.waits() < self.out_most {
            for (at, id) in std::mem::take(&mut self.crowded) {
                self.call(at, id);
            }
        }
        while self.window > 0 && self.waits() < self.out_most {
            let Some((at, id)) = self.waiting.pop_front() else {
                return;
            };
            if self.call(at, id) {
                return;
            }
        }
    }

    /// Wakes one that waits, if it still does.
    fn call(&mut self, at: usize, id: u32) -> bool {
        let entry = &mut self.streams[at];
        let waits = entry.id == id && std::mem::take(&mut entry.queued);
        if waits {
            entry.wake();
        }
        waits
    }
}

/// The session as its streams hold it.
pub(super) type Shared = Rc<std::cell::RefCell<Session>>;

#[cfg(test)]
mod tests;
