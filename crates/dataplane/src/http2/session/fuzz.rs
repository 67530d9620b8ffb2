//! The target of the fuzzer: what a client of HTTP/2 sends.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use podkit_foundation::fuzz::{Target, pieces};
use podkit_foundation::params::{ParamSet, Values};

use super::{Handle, Session, Shared, Step};
use crate::http::head::{RequestHead, Scanner};
use crate::http2::halves::Lane;
use crate::http2::limits::Http2Limits;
use crate::net::Buf;

/// Frames of any kind. Every head that is served is one head of HTTP/1.1, and whatever comes of the streams, the client's windows
/// add up in the end.
pub(crate) const SESSION: Target = Target {
    name: "http2-session",
    seeds: &[
        b"\x09PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x01\x01h\
          \0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\xffPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\x05\0\0\x06\x01\x04\0\0\0\x01\x83\x86\x84\x01\x01h\
          \0\0\x03\0\0\0\0\0\x01abc\0\0\x04\x08\0\0\0\0\x01\0\0\0\x09\0\0\x05\x01\x05\0\0\0\x01\x40\x01x\x01y",
        b"\x03PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x02\x01\x01\0\0\0\x01\x82\x86\
          \0\0\x11\x09\x04\0\0\0\x01\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff\x90",
        b"\x40PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x04\0\0\0\x03\x83\x86\x84\x01\x01h\
          \0\0\x05\0\x09\0\0\0\x03\x02ab\0\0\0\0\x04\x03\0\0\0\0\x03\0\0\0\x08",
    ],
    run: |bytes| {
        let values = Values::gather(Http2Limits::PARAMS.iter(), &|_| vec![], &|_| None);
        let limits = Http2Limits::from_values(&values).expect("the defaults are right");
        let session: Shared = Rc::new(RefCell::new(Session::new(&limits, 8192)));
        let (mut input, mut served) = (Buf::small(), Vec::new());
        for piece in pieces(bytes) {
            input.reserve(piece.len());
            input.put(piece);
            loop {
                let step = session.borrow_mut().take(&mut input);
                match step {
                    Step::More => break,
                    Step::Malformed(_) => {}
                    Step::Fatal(_) => return,
                    Step::Born(born) => {
                        one_head(born.head.filled());
                        served.push(Handle::new(&session, born.at));
                    }
                }
            }
            // The oldest is let go when there are some.
            if served.len() > 3 {
                drop(served.remove(0));
            }
            served.iter_mut().for_each(turn);
            let mut session = session.borrow_mut();
            let waits = session.waits();
            session.sent(waits);
            session.pass_on();
        }
        served.clear();
        session.borrow().check();
    },
};

/// Reads what came, and sends as much.
fn turn(handle: &mut Handle) {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = handle.poll_ready(&mut cx) else {
        return;
    };
    let mut got = Buf::small();
    handle.read(handle.unread(), &mut got);
    if !got.is_empty() {
        drop(handle.poll_data(&mut cx, got.filled(), false));
    }
}

fn one_head(head: &[u8]) {
    if let Ok(found) = Scanner::default().find(head, true) {
        assert_eq!(found, Some(head.len()), "a head and nothing behind it");
        let mut parsed = RequestHead::default();
        if parsed.parse(head, 100).is_ok() {
            assert_eq!(parsed.byte_len(), head.len());
        }
    }
}

impl Session {
    /// That nothing is left when all streams were let go, and that the client's window is whole, less what is still on its way.
    pub(super) fn check(&self) {
        assert_eq!(self.active, 0);
        assert!(self.by_id.is_empty() && self.waiting.is_empty() && self.crowded.is_empty());
        let coming = self.arriving.map_or(0, |arriving| arriving.unread());
        assert_eq!(self.recv_window + self.recv_taken + coming, self.recv_most);
    }
}
