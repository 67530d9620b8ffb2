//! Streams that are over, or were never there.

use super::*;

#[test]
fn what_comes_for_a_stream_that_is_not_there() {
    let head = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
    for bytes in [
        data(5, 1, false),
        data(0, 1, false),
        data(2, 1, false),
        head(0),
        head(2),
        reset(5, Reason::Cancel),
        reset(2, Reason::Cancel),
        reset(0, Reason::Cancel),
        update(5, 1),
        update(2, 1),
    ] {
        let mut rig = Rig::open(|_| ());
        let _served = rig.serves(&get(3));
        rig.breaks(&bytes, Reason::Protocol);
    }
}

#[test]
fn what_comes_behind_the_end_of_a_request() {
    for bytes in [data(1, 1, false), get(1)] {
        let mut rig = Rig::open(|_| ());
        let mut served = rig.serves(&get(1));
        rig.gives(&bytes);
        assert_eq!(rig.sent(), [seen(&reset(1, Reason::StreamClosed))]);
        assert_eq!(rig.session.borrow_mut().take_faults(), 1);
        assert_eq!(served.read(), Some(Err(())));
        // Its answer is over as well, whether who served it has let it go or not.
        for held in [true, false] {
            let mut rig = Rig::open(|_| ());
            let mut served = Some(rig.serves(&get(1)));
            served.as_mut().unwrap().answer(true);
            assert_eq!(rig.active(), 0);
            served = served.filter(|_| held);
            rig.gives(&update(1, 1));
            rig.breaks(&bytes, Reason::StreamClosed);
            drop(served);
        }
    }
}

#[test]
fn what_was_on_its_way_to_a_stream_that_we_reset_is_dropped() {
    let mut rig = Rig::open(|_| ());
    let mut served = rig.serves(&post(1, None));
    served.answer(true);
    drop(served);
    let frames = rig.sent();
    assert_eq!(frames[1..], [seen(&reset(1, Reason::NoError))]);
    rig.gives(&[data(1, 10, false), update(1, 1), get(1)].concat());
    rig.gives(&reset(1, Reason::Cancel));
    // While it is held, too.
    let mut served = rig.serves(&post(3, None));
    served.handle.reset(Reason::Internal);
    rig.gives(&[data(3, 10, false), update(3, 1), get(3)].concat());
    assert_eq!(rig.sent(), [seen(&reset(3, Reason::Internal))]);
    drop(served);
    rig.gives(&data(3, 10, false));
    assert_eq!(rig.sent(), []);
    // But not what follows the client's own.
    let _served = rig.serves(&post(5, None));
    rig.gives(&reset(5, Reason::Cancel));
    rig.breaks(&data(5, 1, false), Reason::StreamClosed);
}

#[test]
fn a_reset_breaks_off_who_serves_it() {
    let mut rig = Rig::open(|_| ());
    let mut served = rig.serves(&post(1, None));
    rig.gives(&data(1, 3, false));
    let waits = served.with(|handle, cx| handle.poll_reset(cx));
    assert!(waits.is_pending());
    rig.gives(&reset(1, Reason::Cancel));
    assert!(served.is_woken());
    assert_eq!(served.read(), Some(Err(())));
    let head = served.with(|handle, cx| handle.poll_room(cx));
    assert!(matches!(head, Poll::Ready(Err(_))));
    drop(served);
    assert_eq!(rig.sent(), [], "the client knows");
}

/// Rapid reset: requests that are broken off at once, faster than those who serve them notice.
#[test]
fn streams_are_bounded_while_they_are_open_and_while_they_are_held() {
    let mut rig = Rig::open(|limits| limits.h2_max_streams = 2);
    let refused = |stream| [seen(&reset(stream, Reason::RefusedStream))];
    let mut served = vec![rig.serves(&get(1)), rig.serves(&get(3))];
    rig.gives(&get(5));
    assert_eq!(rig.sent(), refused(5));
    for stream in [1, 3] {
        rig.gives(&reset(stream, Reason::Cancel));
    }
    assert_eq!(rig.active(), 0);
    for stream in [7, 9] {
        served.push(rig.serves(&get(stream)));
        rig.gives(&reset(stream, Reason::Cancel));
    }
    rig.gives(&get(11));
    assert_eq!(rig.sent(), refused(11));
    served.pop();
    served.push(rig.serves(&get(13)));
    assert_eq!(rig.active(), 1);
    served.clear();
    assert_eq!(rig.active(), 0);
}

#[test]
fn a_stream_does_not_depend_on_itself() {
    let priority = |stream: u32| frame(PRIORITY, 0, stream, &[0, 0, 0, 1, 9]);
    let mut rig = Rig::open(|_| ());
    let _served = rig.serves(&get(1));
    rig.gives(&priority(3));
    assert_eq!(rig.sent(), []);
    rig.gives(&priority(1));
    assert_eq!(rig.sent(), [seen(&reset(1, Reason::Protocol))]);
    let flags = END_HEADERS | END_STREAM | WITH_PRIORITY;
    let block = [&[0, 0, 0, 3, 9], GET].concat();
    let step = rig.step(&frame(HEADERS, flags, 3, &block));
    assert!(matches!(step, Step::Malformed(_)));
    rig.serves(&frame(HEADERS, flags, 5, &block));
}
