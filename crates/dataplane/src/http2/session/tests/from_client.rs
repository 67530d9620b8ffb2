//! What streams get: bodies, windows, header blocks.

use super::*;

#[test]
fn a_body_comes_in_any_pieces() {
    let mut rig = Rig::open(|_| ());
    let mut served = rig.serves(&post(1, None));
    assert_eq!(served.read(), None);
    let padded = [&[3][..], b"def", &[0; 3]].concat();
    let frames = [
        frame(DATA, 0, 1, b"abc"),
        frame(DATA, PADDED, 1, &padded),
        frame(DATA, END_STREAM, 1, b""),
    ];
    let mut got = Vec::new();
    for byte in frames.concat() {
        rig.gives(&[byte]);
        got.extend(served.read().unwrap_or(Ok(Vec::new())).unwrap());
    }
    assert_eq!(got, b"abcdef");
    assert!(served.handle.is_ended());
    let mut rig = Rig::open(|_| ());
    let mut served = rig.serves(&post(1, None));
    rig.gives(&frames[0][..10]);
    assert_eq!(
        served.read(),
        Some(Ok(b"a".to_vec())),
        "not only whole frames"
    );
}

#[test]
fn a_client_that_minds_its_window_gets_it_back_as_it_is_read() {
    let mut rig = Rig::open(|limits| {
        limits.h2_stream_window.0 = 1000;
        limits.h2_connection_window.0 = 64 << 10;
    });
    let mut served = rig.serves(&post(1, None));
    rig.gives(&data(1, 499, false));
    assert_eq!(served.read().unwrap().unwrap().len(), 499);
    assert_eq!(rig.sent(), []);
    rig.gives(&frame(DATA, PADDED, 1, &[0, b'x']));
    rig.gives(&data(1, 499, false));
    assert_eq!(rig.sent(), [], "nothing of it was read");
    assert_eq!(served.read().unwrap().unwrap().len(), 500);
    assert_eq!(rig.sent(), [seen(&update(1, 1000))]);
    // Beyond it.
    rig.gives(&data(1, 1000, false));
    rig.gives(&data(1, 1, false));
    assert_eq!(rig.sent(), [seen(&reset(1, Reason::FlowControl))]);
    assert_eq!(served.read(), Some(Err(())));
    assert!(served.handle.is_malformed());
}

#[test]
fn a_small_window_holds_once_the_client_knows_of_it() {
    for knows in [false, true] {
        let mut rig = Rig::new(|limits| limits.h2_stream_window.0 = 1000);
        rig.gives(&[PREFACE.to_vec(), settings(&[])].concat());
        let _first = rig.serves(&post(1, None));
        if knows {
            rig.gives(&acknowledged());
        }
        let _second = rig.serves(&post(3, None));
        rig.sent();
        let large = [data(1, 1001, false), data(3, 1001, false)].concat();
        rig.gives(&large);
        let wanted = [1, 3].map(|stream| seen(&reset(stream, Reason::FlowControl)));
        assert_eq!(rig.sent(), if knows { &wanted[..] } else { &[] });
        // What was sent before counts.
        rig.gives(&acknowledged());
        rig.gives(&data(3, 1, false));
        assert_eq!(rig.sent(), if knows { &[] } else { &wanted[1..] });
    }
}

#[test]
fn the_connections_window_holds_for_all_bodies_together() {
    let edit = |limits: &mut Http2Limits| limits.h2_connection_window.0 = 64 << 10;
    let full = |stream| [0; 4].map(|_| data(stream, MAX_FRAME, false)).concat();
    let mut rig = Rig::open(edit);
    let _served = rig.serves(&post(1, None));
    rig.gives(&full(1));
    rig.breaks(&data(1, 1, false), Reason::FlowControl);
    // What nobody reads is given back: of a stream that is let go, and of one that is not there.
    let mut rig = Rig::open(edit);
    let served = rig.serves(&post(1, None));
    rig.gives(&full(1));
    drop(served);
    assert_eq!(
        rig.sent(),
        [seen(&reset(1, Reason::Cancel)), seen(&update(0, 64 << 10))]
    );
    rig.gives(&full(1));
    let half = seen(&update(0, 32 << 10));
    assert_eq!(rig.sent(), [half.clone(), half]);
}

#[test]
fn a_body_is_as_long_as_it_says() {
    for (bytes, right) in [
        (data(1, 5, true), true),
        ([data(1, 2, false), data(1, 3, true)].concat(), true),
        (data(1, 4, true), false),
        (data(1, 6, false), false),
        ([data(1, 5, false), data(1, 1, true)].concat(), false),
        (
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0, 1, b'x', 1, b'y']),
            false,
        ),
    ] {
        let mut rig = Rig::open(|_| ());
        let _served = rig.serves(&post(1, Some("5")));
        rig.gives(&bytes);
        let wanted = [seen(&reset(1, Reason::Protocol))];
        assert_eq!(
            rig.sent(),
            if right { &[] } else { &wanted[..] },
            "{bytes:?}"
        );
        assert_eq!(rig.session.borrow_mut().take_faults(), usize::from(!right));
    }
}

#[test]
fn trailers_come_behind_a_body_once() {
    let block = [0, 1, b'x', 1, b'y'];
    let trailers = |flags| frame(HEADERS, END_HEADERS | flags, 1, &block);
    let mut rig = Rig::open(|_| ());
    let mut served = rig.serves(&post(1, None));
    rig.gives(&[data(1, 3, false), trailers(END_STREAM)].concat());
    assert_eq!(served.read(), Some(Ok(b"ddd".to_vec())));
    assert!(served.handle.is_ended());
    assert_eq!(served.handle.take_trailers(), Some(b"x: y\r\n".to_vec()));
    rig.gives(&trailers(END_STREAM));
    assert_eq!(rig.sent(), [seen(&reset(1, Reason::StreamClosed))]);
    let mut rig = Rig::open(|_| ());
    let _served = rig.serves(&post(1, None));
    rig.gives(&trailers(0));
    assert_eq!(rig.sent(), [seen(&reset(1, Reason::Protocol))]);
}

#[test]
fn a_head_comes_in_pieces_that_nothing_parts() {
    let piece = |kind, flags, bytes: &[u8]| frame(kind, flags, 1, bytes);
    let begin = || piece(HEADERS, END_STREAM, &GET[..2]);
    let mut rig = Rig::open(|_| ());
    rig.gives(&begin());
    rig.gives(&piece(CONTINUATION, 0, &GET[2..4]));
    rig.serves(&piece(CONTINUATION, END_HEADERS, &GET[4..]));
    for between in [
        get(3),
        frame(PING, 0, 0, &[0; 8]),
        frame(CONTINUATION, END_HEADERS, 3, GET),
        data(1, 1, false),
        frame(99, 0, 0, &[]),
    ] {
        let mut rig = Rig::open(|_| ());
        rig.gives(&begin());
        rig.breaks(&between, Reason::Protocol);
    }
    let alone = piece(CONTINUATION, END_HEADERS, GET);
    Rig::open(|_| ()).breaks(&alone, Reason::Protocol);
}

#[test]
fn pieces_of_a_head_are_few() {
    for len in [0, 1, MAX_FRAME] {
        let mut rig = Rig::open(|_| ());
        rig.gives(&frame(HEADERS, 0, 1, &[]));
        let next = frame(CONTINUATION, 0, 1, &vec![0; len]);
        for _ in 0..4 {
            rig.gives(&next);
        }
        rig.breaks(&next, Reason::EnhanceYourCalm);
    }
}

/// A head of `count` fields that count 4,033 bytes each: the first in full, the others by its index.
fn large(stream: u32, count: usize) -> Vec<u8> {
    let name = [&[0x40, 0x7f, 0xa1, 0x1e][..], &[b'n'; 4000], &[0]].concat();
    let block = [GET, &name, &vec![0xbe; count - 1]].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

#[test]
fn a_head_that_is_too_large_is_refused_and_one_that_is_a_bomb_ends_all() {
    let mut rig = Rig::open(|_| ());
    rig.serves(&large(1, 8));
    rig.sent();
    rig.gives(&large(3, 9));
    // A status that has no index: 431.
    let block = [0x08, 3, b'4', b'3', b'1'];
    let answer = frame(HEADERS, END_HEADERS | END_STREAM, 3, &block);
    assert_eq!(rig.sent(), [seen(&answer)]);
    rig.gives(&large(5, 60));
    rig.breaks(&large(7, 100), Reason::EnhanceYourCalm);
}

#[test]
fn a_malformed_request_is_reset_and_the_next_one_served() {
    let mut rig = Rig::open(|_| ());
    let step = rig.step(&frame(HEADERS, END_HEADERS, 1, &GET[1..]));
    assert!(matches!(step, Step::Malformed(":method is missing")));
    rig.gives(&data(1, 10, true));
    assert_eq!(rig.sent(), [seen(&reset(1, Reason::Protocol))]);
    assert_eq!(rig.session.borrow_mut().take_faults(), 1);
    rig.serves(&get(3));
}
