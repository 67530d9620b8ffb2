//! Frames that come: those of requests. Those of control are in `control`.

use super::frames::*;
use super::{Leave, MAX_STREAM, Reason, Session};
use crate::http2::flood::PREFACE;
use crate::http2::request::Shape;
use crate::net::Buf;

/// A stream that came.
#[derive(Debug)]
pub(in crate::http2) struct Born {
    pub(in crate::http2) at: usize,
    pub(in crate::http2) head: Buf,
    pub(in crate::http2) shape: Shape,
    pub(in crate::http2) to_head: bool,
    /// It says that its body is empty, but has not ended.
    pub(in crate::http2) unended: bool,
}

/// What came of the bytes.
#[derive(Debug)]
pub(in crate::http2) enum Step {
    /// More of them must come.
    More,
    Born(Born),
    /// A request that can't be taken; its stream was reset.
    Malformed(&'static str),
    /// The connection is to end.
    Fatal(Reason),
}

/// What a frame came to. None: go on.
pub(super) type Taken = Result<Option<Step>, Reason>;

/// A DATA frame that is on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arriving {
    /// Whose it is; None when it is dropped.
    at: Option<usize>,
    left: usize,
    padding: usize,
    ends: bool,
}

#[cfg(any(test, feature = "fuzz"))]
impl Arriving {
    /// Bytes that are neither with who serves it nor given back.
    pub(super) fn unread(&self) -> i64 {
        i64::try_from(self.at.map_or(0, |_| self.left)).expect("a frame's length")
    }
}

/// A header block that CONTINUATION frames go on with.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    ends: bool,
    selfish: bool,
    bytes: Vec<u8>,
    frames: usize,
}

impl Session {
    /// Looks at bytes that came; what was used is consumed.
    pub(in crate::http2) fn take(&mut self, input: &mut Buf) -> Step {
        loop {
            if self.dead {
                return Step::More;
            }
            let taken = match self.arriving {
                _ if self.preface > 0 => self.greeted(input),
                Some(arriving) => self.data(arriving, input),
                None => self.next(input),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(step)) => return step,
                Err(reason) => return Step::Fatal(reason),
            }
        }
    }

    fn greeted(&mut self, input: &mut Buf) -> Taken {
        let left = &PREFACE[PREFACE.len() - self.preface..];
        let count = left.len().min(input.len());
        if count == 0 {
            return Ok(Some(Step::More));
        }
        if input.filled()[..count] != left[..count] {
            return Err(Reason::Protocol);
        }
        self.preface -= count;
        input.consume(count);
        Ok(None)
    }

    fn next(&mut self, input: &mut Buf) -> Taken {
        let bytes = input.filled();
        let Some((&[a, b, c, kind, flags, s, t, u, v], rest)) = bytes.split_first_chunk() else {
            return Ok(Some(Step::More));
        };
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let stream = u32::from_be_bytes([s, t, u, v]) & MAX_STREAM;
        if len > MAX_FRAME {
            return Err(Reason::FrameSize);
        }
        if !self.settled && (kind != SETTINGS || flags & ACK != 0) {
            return Err(Reason::Protocol);
        }
        if let Some(block) = &self.block
            && (kind != CONTINUATION || stream != block.stream)
        {
            return Err(Reason::Protocol);
        }
        if kind == DATA {
            let padding = match flags & PADDED {
                0 => 0,
                _ if len == 0 => return Err(Reason::FrameSize),
                _ => match rest.first() {
                    Some(padding) => usize::from(*padding) + 1,
                    None => return Ok(Some(Step::More)),
                },
            };
            if padding > len {
                return Err(Reason::Protocol);
            }
            input.consume(HEADER_BYTES + padding.min(1));
            return self.data_begins(stream, len, padding, flags & END_STREAM != 0);
        }
        let Some(payload) = rest.get(..len) else {
            return Ok(Some(Step::More));
        };
        let taken = match kind {
            HEADERS => self.headers(stream, flags, payload),
            CONTINUATION => self.continuation(flags, payload),
            PRIORITY => self.priority(stream, payload),
            RST_STREAM => self.was_reset(stream, payload),
            SETTINGS => self.settings(stream, flags, payload),
            PUSH_PROMISE => Err(Reason::Protocol),
            PING => self.ping(stream, flags, payload),
            GOAWAY if stream != 0 => Err(Reason::Protocol),
            GOAWAY if payload.len() < 8 => Err(Reason::FrameSize),
            WINDOW_UPDATE => self.update(stream, payload),
            // A GOAWAY, whose sender opens no streams; or a frame that nobody knows (RFC 9113 section 5.5).
            _ => Ok(None),
        };
        input.consume(HEADER_BYTES + len);
        taken
    }

    /// It can't have been opened: one of the server's, or one that is yet to come.
    pub(super) fn is_idle(&self, stream: u32) -> bool {
        let left = matches!(self.leave, Leave::After(_));
        stream.is_multiple_of(2) || stream > self.last && !left
    }

    /// What a frame for a stream that is not open means; Ok when it is dropped.
    fn closed(&self, stream: u32) -> Result<(), Reason> {
        if let Leave::After(last) = self.leave
            && stream > last
            && !stream.is_multiple_of(2)
        {
            return Ok(());
        }
        if self.is_idle(stream) {
            return Err(Reason::Protocol);
        }
        match self.resets_forgotten || self.resets.contains(&stream) {
            true => Ok(()),
            false => Err(Reason::StreamClosed),
        }
    }

    fn data_begins(&mut self, stream: u32, len: usize, padding: usize, ends: bool) -> Taken {
        let count = i64::try_from(len).expect("a frame's length");
        self.recv_window -= count;
        if self.recv_window < 0 {
            return Err(Reason::FlowControl);
        }
        let mut at = None;
        match self.find(stream) {
            None => self.closed(stream)?,
            Some(found) => {
                let entry = &mut self.streams[found];
                if entry.is_closed() {
                    return Err(Reason::StreamClosed);
                }
                entry.recv_window -= count;
                let beyond = entry.recv_window < 0;
                if entry.recv_ended && !entry.reset {
                    self.fault(
                        found,
                        Reason::StreamClosed,
                        "bytes behind the end of a request",
                    );
                } else if beyond {
                    self.fault(
                        found,
                        Reason::FlowControl,
                        "a body is larger than its window",
                    );
                } else if !entry.reset {
                    entry.recv_taken += i64::try_from(padding).expect("a byte's worth");
                    at = Some(found);
                }
            }
        }
        // The rest is given back as it is read.
        let unread = if at.is_some() { padding } else { len };
        self.took(i64::try_from(unread).expect("a frame's length"));
        let pad_byte = padding.min(1);
        self.arriving = Some(Arriving {
            at,
            left: len - padding,
            padding: padding - pad_byte,
            ends,
        });
        Ok(None)
    }

    fn data(&mut self, mut arriving: Arriving, input: &mut Buf) -> Taken {
        let count = arriving.left.min(input.len());
        if count > 0 {
            let at = arriving.at.filter(|at| !self.streams[*at].reset);
            match at {
                Some(at) => {
                    let entry = &mut self.streams[at];
                    let left = entry.length.map(|left| left.checked_sub(count as u64));
                    if left == Some(None) {
                        let why = "the body is longer than Content-Length says";
                        self.fault(at, Reason::Protocol, why);
                        self.took(i64::try_from(arriving.left).expect("a frame's length"));
                        arriving.at = None;
                    } else {
                        entry.length = left.flatten();
                        entry.body.extend_from_slice(&input.filled()[..count]);
                        entry.wake();
                    }
                }
                None if arriving.at.take().is_some() => {
                    self.took(i64::try_from(arriving.left).expect("a frame's length"));
                }
                None => {}
            }
            arriving.left -= count;
            input.consume(count);
        }
        let skipped = match arriving.left {
            0 => arriving.padding.min(input.len()),
            _ => 0,
        };
        if skipped > 0 {
            arriving.padding -= skipped;
            input.consume(skipped);
        }
        if arriving.left + arriving.padding > 0 {
            self.arriving = Some(arriving);
            return Ok(Some(Step::More));
        }
        self.arriving = None;
        if let Some(at) = arriving.at
            && arriving.ends
        {
            self.ended(at);
        }
        Ok(None)
    }

    /// The client has said all of a stream.
    fn ended(&mut self, at: usize) {
        let entry = &mut self.streams[at];
        if entry.reset {
            return;
        }
        if entry.length.is_some_and(|left| left > 0) {
            let why = "the body is shorter than Content-Length says";
            return self.fault(at, Reason::Protocol, why);
        }
        entry.recv_ended = true;
        entry.wake();
        self.settle(at);
    }

    /// Breaks a stream off for what the client did.
    pub(super) fn fault(&mut self, at: usize, reason: Reason, why: &'static str) {
        self.faults += 1;
        self.streams[at].wrong = Some(why);
        self.reset(at, reason);
    }

    fn headers(&mut self, stream: u32, flags: u8, mut payload: &[u8]) -> Taken {
        if stream == 0 || stream.is_multiple_of(2) {
            return Err(Reason::Protocol);
        }
        let mut padding = 0;
        if flags & PADDED != 0 {
            let (len, rest) = payload.split_first().ok_or(Reason::FrameSize)?;
            (padding, payload) = (usize::from(*len), rest);
        }
        let mut selfish = false;
        if flags & WITH_PRIORITY != 0 {
            let (depends, rest) = payload.split_first_chunk().ok_or(Reason::FrameSize)?;
            selfish = u32::from_be_bytes(*depends) & MAX_STREAM == stream;
            payload = rest.get(1..).ok_or(Reason::FrameSize)?;
        }
        let len = payload.len().checked_sub(padding);
        payload = &payload[..len.ok_or(Reason::Protocol)?];
        let ends = flags & END_STREAM != 0;
        if flags & END_HEADERS != 0 {
            return self.whole(stream, ends, selfish, payload);
        }
        self.block = Some(Block {
            stream,
            ends,
            selfish,
            bytes: payload.to_vec(),
            frames: 0,
        });
        Ok(None)
    }

    fn continuation(&mut self, flags: u8, payload: &[u8]) -> Taken {
        let most = (self.head_bytes / MAX_FRAME).max(1);
        let block = self.block.as_mut().ok_or(Reason::Protocol)?;
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        if flags & END_HEADERS == 0 {
            // As many as the longest head needs, and some (CVE-2024-27316).
            return match block.frames >= (most + most / 4).max(5) {
                true => Err(Reason::EnhanceYourCalm),
                false => Ok(None),
            };
        }
        let block = self.block.take().ok_or(Reason::Protocol)?;
        self.whole(block.stream, block.ends, block.selfish, &block.bytes)
    }

    /// A whole header block.
    fn whole(&mut self, stream: u32, ends: bool, selfish: bool, block: &[u8]) -> Taken {
        let found = self.find(stream);
        let is_new = stream > self.last && !matches!(self.leave, Leave::After(_));
        let asked = &mut self.asked;
        asked.begin(self.head_bytes, !is_new);
        let decoded = self
            .decoder
            .decode(block, |name, value| asked.field(name, value));
        decoded.ok_or_else(|| match self.asked.is_bomb() {
            true => Reason::EnhanceYourCalm,
            false => Reason::Compression,
        })?;
        if is_new {
            self.last = stream;
            return Ok(self.request(stream, ends, selfish));
        }
        let Some(at) = found else {
            return self.closed(stream).map(|()| None);
        };
        let entry = &mut self.streams[at];
        if entry.is_closed() {
            return Err(Reason::StreamClosed);
        }
        match (entry.reset, entry.recv_ended) {
            (true, _) => {}
            (_, true) => self.fault(
                at,
                Reason::StreamClosed,
                "fields behind the end of a request",
            ),
            _ if !ends => self.fault(at, Reason::Protocol, "trailers don't end their stream"),
            _ if selfish => self.fault(at, Reason::Protocol, "a stream depends on itself"),
            _ => match self.asked.trailers() {
                Ok(lines) => {
                    self.streams[at].trailers = Some(lines);
                    self.ended(at);
                }
                Err(wrong) => self.fault(at, Reason::Protocol, wrong.0),
            },
        }
        Ok(None)
    }

    fn request(&mut self, stream: u32, ends: bool, selfish: bool) -> Option<Step> {
        // Also those that are over, and whose tasks did not notice yet.
        let held = u32::try_from(self.by_id.len()).unwrap_or(u32::MAX);
        if self.active >= self.most || held >= self.most.saturating_mul(2) {
            self.refuse(stream, ends, Reason::RefusedStream);
            return None;
        }
        if self.asked.is_over() {
            let mut block = Vec::new();
            self.encoder.begin(&mut block);
            self.encoder.status(&mut block, b"431");
            self.put_block_of(stream, &block, true);
            if !ends {
                self.refuse(stream, false, Reason::NoError);
            }
            return None;
        }
        let request = match self.asked.request(ends) {
            Ok(_) if selfish => Err("a stream depends on itself"),
            Ok(request) => Ok(request),
            Err(malformed) => Err(malformed.0),
        };
        match request {
            Ok(request) => Some(Step::Born(Born {
                at: self.open(stream, ends, request.length),
                unended: request.shape == Shape::Length && request.length == Some(0),
                head: request.head,
                shape: request.shape,
                to_head: request.to_head,
            })),
            Err(why) => {
                self.faults += 1;
                self.refuse(stream, ends, Reason::Protocol);
                Some(Step::Malformed(why))
            }
        }
    }
}
