//! What streams send: windows, turns, the bound on what waits.

use super::*;

/// Bytes of each DATA frame that was sent, by stream.
fn sizes(frames: &[Frame]) -> Vec<(u32, usize)> {
    let data = frames.iter().filter(|frame| frame.0 == DATA);
    data.map(|frame| (frame.2, frame.3.len())).collect()
}

#[test]
fn a_stream_sends_what_its_window_allows() {
    let mut rig = Rig::open(|_| ());
    rig.gives(&settings(&[(INITIAL_WINDOW_SIZE, 5)]));
    let mut served = rig.serves(&get(1));
    served.answer(false);
    rig.sent();
    assert_eq!((served.send(9), served.send(4)), (Some(5), None));
    assert_eq!(sizes(&rig.sent()), [(1, 5)]);
    rig.gives(&update(1, 3));
    assert!(served.is_woken());
    assert_eq!((served.send(4), served.send(1)), (Some(3), None));
    // Smaller than what is on its way: the window is negative then.
    rig.gives(&settings(&[(INITIAL_WINDOW_SIZE, 1)]));
    rig.gives(&update(1, 4));
    assert!(!served.is_woken());
    assert_eq!(served.send(1), None);
    rig.gives(&update(1, 1));
    assert!(served.is_woken());
    assert_eq!((served.send(9), served.send(8)), (Some(1), None));
    // And larger.
    rig.gives(&settings(&[
        (INITIAL_WINDOW_SIZE, 99),
        (INITIAL_WINDOW_SIZE, 7),
    ]));
    assert!(served.is_woken());
    assert_eq!((served.send(9), served.send(3)), (Some(6), None));
}

#[test]
fn a_window_does_not_grow_beyond_its_most() {
    let most = u32::try_from(MAX_WINDOW).unwrap();
    Rig::open(|_| ()).breaks(&update(0, most), Reason::FlowControl);
    let mut rig = Rig::open(|_| ());
    let mut served = rig.serves(&get(1));
    rig.gives(&update(0, most - 65_535));
    rig.gives(&update(1, most - 65_535));
    rig.gives(&update(1, 1));
    assert_eq!(rig.sent(), [seen(&reset(1, Reason::FlowControl))]);
    let broken = served.with(|handle, cx| handle.poll_data(cx, b"x", false));
    assert!(matches!(broken, Poll::Ready(Err(_))));
    let mut rig = Rig::open(|_| ());
    let _served = rig.serves(&get(1));
    rig.gives(&update(1, most - 65_535));
    rig.breaks(
        &settings(&[(INITIAL_WINDOW_SIZE, 65_536)]),
        Reason::FlowControl,
    );
    // By nothing: the stream's fault alone.
    let mut rig = Rig::open(|_| ());
    let _served = rig.serves(&get(1));
    rig.gives(&update(1, 0));
    assert_eq!(rig.sent(), [seen(&reset(1, Reason::Protocol))]);
}

/// Three streams that wait for the connection's window, after the first used all of it.
fn waiting() -> (Rig, [Served; 3]) {
    let mut rig = Rig::open(|limits| limits.h2_send_buffer.0 = 1 << 20);
    let mut served = [1, 3, 5].map(|stream| rig.serves(&get(stream)));
    assert_eq!(served[0].send(65_535), Some(65_535));
    for (served, stream) in served.iter_mut().zip([1, 3, 5]) {
        rig.gives(&update(stream, 1000));
        assert_eq!(served.send(10), None);
        served.is_woken();
    }
    rig.sent();
    (rig, served)
}

#[test]
fn those_that_wait_for_the_connection_take_turns() {
    let (mut rig, mut served) = waiting();
    rig.gives(&update(0, 25));
    for turn in 0..3 {
        let woken = served.each_ref().map(Served::is_woken);
        assert_eq!(woken, [0, 1, 2].map(|at| at == turn));
        let taken = [Some(10), Some(10), Some(5)][turn];
        assert_eq!(served[turn].send(10), taken);
    }
    assert_eq!(sizes(&rig.sent()), [(1, 10), (3, 10), (5, 5)]);
}

#[test]
fn one_that_is_reset_or_let_go_leaves_the_list() {
    for by_client in [true, false] {
        let (mut rig, [first, mut second, third]) = waiting();
        if by_client {
            rig.gives(&reset(1, Reason::Cancel));
            assert!(first.is_woken());
        }
        drop(first);
        rig.gives(&update(0, 10));
        assert!(second.is_woken() && !third.is_woken());
        assert_eq!(second.send(10), Some(10));
        assert_eq!(sizes(&rig.sent()), [(3, 10)]);
        drop(second);
        drop(third);
        assert!(rig.session.borrow().waiting.is_empty());
    }
    // Let go between its turn and its sending: the next has it.
    let (mut rig, [first, second, _]) = waiting();
    rig.gives(&update(0, 10));
    assert!(first.is_woken() && !second.is_woken());
    drop(first);
    assert!(second.is_woken());
}

#[test]
fn one_that_can_not_use_its_turn_passes_it_on() {
    let (mut rig, [mut first, second, _]) = waiting();
    // Its own window is negative now.
    rig.gives(&settings(&[(INITIAL_WINDOW_SIZE, 0)]));
    rig.gives(&update(3, 100_000));
    rig.gives(&update(0, 10));
    assert!(first.is_woken() && !second.is_woken());
    assert_eq!(first.send(10), None);
    assert!(second.is_woken());
}

#[test]
fn what_waits_for_a_slow_client_is_bounded() {
    let mut rig = Rig::open(|limits| limits.h2_send_buffer.0 = 16 << 10);
    let mut served = [1, 3].map(|stream| rig.serves(&get(stream)));
    assert_eq!(served[0].send(60_000), Some(MAX_FRAME));
    assert_eq!(served[0].send(60_000), None);
    let room = served[1].with(|handle, cx| handle.poll_room(cx));
    assert!(room.is_pending());
    assert_eq!(sizes(&rig.sent()), [(1, MAX_FRAME)]);
    assert!(served.iter().all(Served::is_woken));
    let room = served[1].with(|handle, cx| handle.poll_room(cx));
    assert!(room.is_ready());
}

#[test]
fn a_long_head_goes_on_in_continuation_frames() {
    let mut rig = Rig::open(|_| ());
    let mut served = rig.serves(&get(1));
    let value = "x".repeat(40_000);
    let lines = format!("X-Long: {value}\r\nConnection: close\r\nServer: s\r\n\r\n");
    served
        .handle
        .head(b"204", lines.as_bytes(), true, b"server")
        .unwrap();
    let frames = rig.sent();
    let shapes = frames
        .iter()
        .map(|frame| (frame.0, frame.1, frame.3.len() == MAX_FRAME));
    assert_eq!(
        shapes.collect::<Vec<_>>(),
        [
            (HEADERS, END_STREAM, true),
            (CONTINUATION, 0, true),
            (CONTINUATION, END_HEADERS, false)
        ]
    );
    let block: Vec<u8> = frames.into_iter().flat_map(|frame| frame.3).collect();
    let mut fields = Vec::new();
    let mut decoder = Decoder::new();
    let read = decoder.decode(&block, |name, value| {
        fields.push((name.to_vec(), value.to_vec()));
        true
    });
    assert!(read.is_some());
    let wanted = [(":status", "204"), ("x-long", &value)];
    let wanted = wanted.map(|(name, value)| (name.into(), value.into()));
    assert_eq!(fields, wanted);
    assert_eq!(rig.active(), 0);
}

#[test]
fn trailers_end_a_stream() {
    let mut rig = Rig::open(|_| ());
    let mut served = rig.serves(&get(1));
    served.answer(false);
    rig.sent();
    served.handle.trailers(b"Grpc-Status: 0\r\n\r\n").unwrap();
    let frames = rig.sent();
    assert_eq!(frames.len(), 1);
    assert_eq!(
        (frames[0].0, frames[0].1),
        (HEADERS, END_HEADERS | END_STREAM)
    );
    assert!(frames[0].3.ends_with(b"\x0bgrpc-status\x010"));
    drop(served);
    assert_eq!(rig.sent(), [], "it was over");
}
