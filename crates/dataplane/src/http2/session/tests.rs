//! Frames in, frames out; no I/O.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use podkit_foundation::params::{ParamSet, Values};

use super::*;
use crate::http2::flood::PREFACE;
use crate::http2::halves::Lane;

mod closed;
mod from_client;
mod to_client;

const HEAD_BYTES: usize = 32 * 1024;

#[derive(Debug, Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A frame: kind, flags, stream, payload.
type Frame = (u8, u8, u32, Vec<u8>);

/// A stream that is served, and how often its task was woken.
struct Served {
    handle: Handle,
    woken: Arc<Count>,
}

impl Served {
    fn is_woken(&self) -> bool {
        self.woken.0.swap(0, Ordering::Relaxed) > 0
    }

    fn with<R>(&mut self, what: impl FnOnce(&mut Handle, &mut Context<'_>) -> R) -> R {
        let waker = Waker::from(Arc::clone(&self.woken));
        what(&mut self.handle, &mut Context::from_waker(&waker))
    }

    /// How many bytes of a body of so many are taken; None: it waits.
    fn send(&mut self, count: usize) -> Option<usize> {
        let body = vec![b'x'; count];
        match self.with(|handle, cx| handle.poll_data(cx, &body, false)) {
            Poll::Ready(taken) => Some(taken.unwrap()),
            Poll::Pending => None,
        }
    }

    /// What came of the body. None: it waits; Error: it is broken off.
    fn read(&mut self) -> Option<Result<Vec<u8>, ()>> {
        let Poll::Ready(ready) = self.with(|handle, cx| handle.poll_ready(cx)) else {
            return None;
        };
        let mut out = Buf::small();
        self.handle.read(self.handle.unread(), &mut out);
        Some(ready.map(|()| out.filled().to_vec()).map_err(drop))
    }

    fn answer(&mut self, ends: bool) {
        self.handle.head(b"200", b"\r\n", ends, b"").unwrap();
    }
}

struct Rig {
    session: Shared,
    input: Buf,
}

impl Rig {
    /// As it begins.
    fn new(edit: impl FnOnce(&mut Http2Limits)) -> Self {
        let values = Values::gather(Http2Limits::PARAMS.iter(), &|_| vec![], &|_| None);
        let mut limits = Http2Limits::from_values(&values).unwrap();
        edit(&mut limits);
        Self {
            session: Rc::new(RefCell::new(Session::new(&limits, HEAD_BYTES))),
            input: Buf::small(),
        }
    }

    /// After both sides' settings.
    fn open(edit: impl FnOnce(&mut Http2Limits)) -> Self {
        let mut rig = Self::new(edit);
        rig.gives(&[PREFACE.to_vec(), settings(&[]), acknowledged()].concat());
        rig.sent();
        rig
    }

    fn step(&mut self, bytes: &[u8]) -> Step {
        self.input.reserve(bytes.len());
        self.input.put(bytes);
        self.session.borrow_mut().take(&mut self.input)
    }

    /// These bytes ask for nothing that is served, and break nothing.
    #[track_caller]
    fn gives(&mut self, bytes: &[u8]) {
        let step = self.step(bytes);
        assert!(matches!(step, Step::More), "{step:?}");
    }

    #[track_caller]
    fn serves(&mut self, bytes: &[u8]) -> Served {
        let step = self.step(bytes);
        let Step::Born(born) = step else {
            panic!("{step:?}");
        };
        Served {
            handle: Handle::new(&self.session, born.at),
            woken: Arc::default(),
        }
    }

    #[track_caller]
    fn breaks(&mut self, bytes: &[u8], why: Reason) {
        let step = self.step(bytes);
        let Step::Fatal(reason) = step else {
            panic!("{step:?}");
        };
        assert_eq!(reason, why);
    }

    /// What was sent since this was asked last.
    fn sent(&mut self) -> Vec<Frame> {
        let mut session = self.session.borrow_mut();
        let bytes = session.to_send().unwrap_or_default().to_vec();
        session.sent(bytes.len());
        session.pass_on();
        let (mut frames, mut rest) = (Vec::new(), bytes.as_slice());
        while let Some((&[a, b, c, kind, flags, s, t, u, v], behind)) = rest.split_first_chunk() {
            let (payload, behind) =
                behind.split_at(u32::from_be_bytes([0, a, b, c]).try_into().unwrap());
            frames.push((
                kind,
                flags,
                u32::from_be_bytes([s, t, u, v]),
                payload.to_vec(),
            ));
            rest = behind;
        }
        assert!(rest.is_empty(), "whole frames");
        frames
    }

    fn active(&self) -> u32 {
        self.session.borrow().active
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&header(kind, flags, stream, payload.len()), payload].concat()
}

fn settings(told: &[(u16, u32)]) -> Vec<u8> {
    let told: Vec<u8> = told
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, &told)
}

fn acknowledged() -> Vec<u8> {
    frame(SETTINGS, ACK, 0, &[])
}

/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: h`.
const GET: &[u8] = &[0x82, 0x86, 0x84, 1, 1, b'h'];

/// A request without a body.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, GET)
}

/// A request whose body follows, of this length if one is given.
fn post(stream: u32, length: Option<&str>) -> Vec<u8> {
    let mut block = [&[0x83], &GET[1..]].concat();
    if let Some(length) = length {
        // content-length: name 28 of the static table.
        block.extend([0x0f, 13, u8::try_from(length.len()).unwrap()]);
        block.extend(length.as_bytes());
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}

fn data(stream: u32, count: usize, ends: bool) -> Vec<u8> {
    frame(
        DATA,
        if ends { END_STREAM } else { 0 },
        stream,
        &vec![b'd'; count],
    )
}

fn update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn reset(stream: u32, reason: Reason) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &(reason as u32).to_be_bytes())
}

/// A frame as it is sent.
fn seen(bytes: &[u8]) -> Frame {
    let &[_, _, _, kind, flags, s, t, u, v] = bytes.first_chunk().unwrap();
    (
        kind,
        flags,
        u32::from_be_bytes([s, t, u, v]),
        bytes[HEADER_BYTES..].to_vec(),
    )
}

fn goaway(last: u32, reason: Reason) -> Frame {
    let payload = [last.to_be_bytes(), (reason as u32).to_be_bytes()].concat();
    (GOAWAY, 0, 0, payload)
}

#[test]
fn both_sides_say_what_they_take_first() {
    let mut rig = Rig::new(|limits| limits.h2_max_streams = 7);
    let told = settings(&[
        (MAX_CONCURRENT_STREAMS, 7),
        (INITIAL_WINDOW_SIZE, 256 << 10),
        (MAX_HEADER_LIST_SIZE, 32 << 10),
        (ENABLE_CONNECT_PROTOCOL, 1),
    ]);
    let more = update(0, (1 << 20) - 65_535);
    assert_eq!(rig.sent(), [seen(&told), seen(&more)]);
    for byte in PREFACE {
        assert!(!rig.session.borrow().is_open());
        rig.gives(&[*byte]);
    }
    assert!(rig.session.borrow().is_open());
    for byte in settings(&[(ENABLE_PUSH, 0), (99, 1)]) {
        assert_eq!(rig.sent(), []);
        rig.gives(&[byte]);
    }
    assert_eq!(rig.sent(), [seen(&acknowledged())]);

    Rig::new(|_| ()).breaks(b"PRI * HTTP/2.1", Reason::Protocol);
    for first in [get(1), acknowledged(), frame(PING, 0, 0, &[0; 8])] {
        let mut rig = Rig::new(|_| ());
        rig.gives(PREFACE);
        rig.breaks(&first, Reason::Protocol);
    }
}

#[test]
fn frames_that_are_not_right_end_the_connection() {
    for (bytes, reason) in [
        (
            header(DATA, 0, 1, MAX_FRAME + 1).to_vec(),
            Reason::FrameSize,
        ),
        (frame(PING, 0, 0, &[0; 7]), Reason::FrameSize),
        (frame(PING, 0, 1, &[0; 8]), Reason::Protocol),
        (frame(SETTINGS, 0, 0, &[0; 5]), Reason::FrameSize),
        (frame(SETTINGS, ACK, 0, &[0; 6]), Reason::FrameSize),
        (frame(SETTINGS, 0, 1, &[]), Reason::Protocol),
        (settings(&[(ENABLE_PUSH, 2)]), Reason::Protocol),
        (settings(&[(MAX_FRAME_SIZE, 16_383)]), Reason::Protocol),
        (settings(&[(MAX_FRAME_SIZE, 1 << 24)]), Reason::Protocol),
        (
            settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]),
            Reason::FlowControl,
        ),
        (frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Reason::FrameSize),
        (update(0, 0), Reason::Protocol),
        (frame(RST_STREAM, 0, 1, &[0; 5]), Reason::FrameSize),
        (frame(PRIORITY, 0, 1, &[0; 4]), Reason::FrameSize),
        (frame(PRIORITY, 0, 0, &[0; 5]), Reason::Protocol),
        (frame(PUSH_PROMISE, 0, 1, &[0; 4]), Reason::Protocol),
        (frame(GOAWAY, 0, 1, &[0; 8]), Reason::Protocol),
        (frame(GOAWAY, 0, 0, &[0; 7]), Reason::FrameSize),
        (frame(HEADERS, PADDED, 1, &[]), Reason::FrameSize),
        (frame(HEADERS, PADDED, 1, &[9, 0]), Reason::Protocol),
        (frame(HEADERS, WITH_PRIORITY, 1, &[0; 4]), Reason::FrameSize),
        (frame(HEADERS, END_HEADERS, 1, &[0x80]), Reason::Compression),
        (
            [post(1, None), frame(DATA, PADDED, 1, &[2, 0])].concat(),
            Reason::Protocol,
        ),
    ] {
        let mut rig = Rig::open(|_| ());
        let mut step = rig.step(&bytes);
        if let Step::Born(_) = step {
            step = rig.step(&[]);
        }
        let Step::Fatal(got) = step else {
            panic!("{bytes:?}: {step:?}");
        };
        assert_eq!(got, reason, "{bytes:?}");
    }
    // A frame that nobody knows, a PING, a GOAWAY: all is well.
    let mut rig = Rig::open(|_| ());
    rig.gives(&frame(77, 0xff, 9, b"what"));
    rig.gives(&frame(GOAWAY, 0, 0, &[0; 8]));
    rig.gives(&frame(PING, 0, 0, b"12345678"));
    assert_eq!(rig.sent(), [seen(&frame(PING, ACK, 0, b"12345678"))]);
}

/// What a client floods us with is answered up to a bound; then nothing is read before the answers are.
#[test]
fn answers_to_floods_are_bounded() {
    for flood in [settings(&[]), frame(PING, 0, 0, &[0; 8])] {
        let mut rig = Rig::open(|_| ());
        let many = (0..100_000).take_while(|_| {
            let full = rig.session.borrow().is_full();
            if !full {
                rig.gives(&flood);
            }
            !full
        });
        let count = many.count();
        let waits = rig.session.borrow().waits();
        assert!((128 << 10..129 << 10).contains(&waits), "{waits}");
        assert_eq!(rig.sent().len(), count);
        assert!(!rig.session.borrow().is_full());
    }
}

#[test]
fn a_connection_is_left_in_two_steps() {
    let mut rig = Rig::open(|_| ());
    let first = rig.serves(&post(1, None));
    rig.session.borrow_mut().leave();
    let asked = frame(PING, 0, 0, &LEAVING);
    assert_eq!(
        rig.sent(),
        [goaway(MAX_STREAM, Reason::NoError), seen(&asked)]
    );
    // It was on its way when the client was told.
    let second = rig.serves(&get(3));
    rig.gives(&frame(PING, ACK, 0, b"another."));
    assert_eq!(rig.sent(), []);
    rig.gives(&frame(PING, ACK, 0, &LEAVING));
    assert_eq!(rig.sent(), [goaway(3, Reason::NoError)]);
    // Not served, but read, so that what follows can be.
    let indexed = [GET, &[0x40, 1, b'a', 1, b'b']].concat();
    rig.gives(&frame(HEADERS, END_HEADERS, 5, &indexed));
    rig.gives(&data(5, 10, true));
    rig.gives(&[reset(5, Reason::Cancel), update(5, 1)].concat());
    rig.gives(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xbe]));
    assert_eq!(rig.sent(), []);
    assert!(!rig.session.borrow().has_left());
    drop(first);
    assert!(!rig.session.borrow().has_left());
    drop(second);
    assert!(rig.session.borrow().has_left());
}

#[test]
fn an_end_breaks_all_off() {
    let mut rig = Rig::open(|_| ());
    let mut served = rig.serves(&post(1, None));
    assert_eq!(served.read(), None);
    rig.session.borrow_mut().end(Reason::EnhanceYourCalm);
    assert!(served.is_woken());
    assert_eq!(served.read(), Some(Err(())));
    drop(served);
    rig.gives(&get(3));
    assert_eq!(rig.sent(), [goaway(1, Reason::EnhanceYourCalm)]);
}

mod any {
    use proptest::prelude::*;

    use super::*;

    fn some_frame() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop_oneof![
            Just(GET.to_vec()),
            Just(vec![0; 4]),
            Just(vec![0, 0, 0, 9]),
            Just(vec![0x7f, 0xff, 0xff, 0xff]),
            Just(vec![0; 8]),
            Just(vec![b'd'; 3000]),
            proptest::collection::vec(any::<u8>(), 0..20),
        ];
        let kind = prop_oneof![3 => Just(HEADERS), 3 => Just(DATA), 4 => 0_u8..11];
        let flags = prop_oneof![
            Just(0),
            Just(END_HEADERS),
            Just(END_HEADERS | END_STREAM),
            any::<u8>()
        ];
        (kind, flags, 0_u32..12, payload)
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
    }

    #[derive(Debug, Clone)]
    enum Act {
        Frame(Vec<u8>),
        Send(usize, usize),
        Read(usize),
        Drop(usize),
        Flush,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => some_frame().prop_map(Act::Frame),
            2 => (0_usize..4, 1_usize..90_000).prop_map(|(which, count)| Act::Send(which, count)),
            2 => (0_usize..4).prop_map(Act::Read),
            1 => (0_usize..4).prop_map(Act::Drop),
            1 => Just(Act::Flush),
        ]
    }

    proptest! {
        /// Whatever comes: no panic, streams are counted right, and once all are let go the client has its whole window again.
        #[test]
        fn what_comes_is_accounted_for(acts in proptest::collection::vec(act(), 1..60)) {
            let mut rig = Rig::open(|limits| limits.h2_max_streams = 3);
            let mut served = Vec::new();
            for act in acts {
                match act {
                    Act::Frame(bytes) => {
                        let mut step = rig.step(&bytes);
                        loop {
                            match step {
                                Step::Born(born) => served.push(Served {
                                    handle: Handle::new(&rig.session, born.at),
                                    woken: Arc::default(),
                                }),
                                Step::Malformed(_) => {}
                                Step::More => break,
                                Step::Fatal(_) => return Ok(()),
                            }
                            step = rig.step(&[]);
                        }
                    }
                    Act::Send(which, count) => {
                        if let Some(served) = served.get_mut(which) {
                            let body = vec![0; count];
                            drop(served.with(|handle, cx| handle.poll_data(cx, &body, false)));
                        }
                    }
                    Act::Read(which) => drop(served.get_mut(which).map(Served::read)),
                    Act::Drop(which) if which < served.len() => drop(served.remove(which)),
                    Act::Drop(_) => {}
                    Act::Flush => drop(rig.sent()),
                }
                prop_assert!(rig.active() <= 3);
                prop_assert!(rig.session.borrow().by_id.len() <= 6);
            }
            served.clear();
            rig.session.borrow().check();
        }
    }
}
