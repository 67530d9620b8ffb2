//! A connection of HTTP/2 as a whole, at the byte level.

use super::*;
use crate::http2::PREFACE;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// The client's preface and settings.
fn greeting() -> Vec<u8> {
    [&PREFACE[..], &frame(4, 0, 0, b"")].concat()
}

/// Headers that end their stream: `:scheme: http`, `:path: /`, `:authority: h` behind a method.
fn asks(stream: u8, method: u8) -> Vec<u8> {
    frame(1, 5, stream, &[method, 0x86, 0x84, 1, 1, b'h'])
}

/// GET in the static table.
const METHOD: u8 = 0x82;

/// Where HTTP/2 is spoken by prior knowledge.
fn plain(script: &[&[Do]]) -> Rig {
    Rig {
        scheme: "http",
        ..Rig::new(script)
    }
}

/// A client that sends much that is answered, and reads nothing before it has sent all: what waits for it is bounded, so that nothing
/// more is read for a while; then all of it is.
#[test]
fn a_client_that_reads_late_is_waited_for() {
    let ping = |at: u64| frame(6, 0, 0, &at.to_be_bytes());
    let last = frame(6, 1, 0, &36_000_u64.to_be_bytes());
    let rig = plain(&[]).with("PODKIT_H2_MAX_CONTROL_FRAMES", "1000000");
    rig.run(|mut end| async move {
        end.put(&greeting()).await;
        let pings: Vec<u8> = (0..=36_000).flat_map(ping).collect();
        end.put(&pings).await;
        let got = end.get_until(&last).await;
        assert!(got.ends_with(&last));
        assert!(got.len() > 36_001 * 17);
    });
}

/// Requests that we are made to break off are as dear as those that the client breaks off itself.
#[test]
fn a_client_that_makes_us_reset_streams_is_told_to_go() {
    let rig = plain(&[]).with("PODKIT_H2_MAX_CONTROL_FRAMES", "1");
    rig.run(|mut end| async move {
        end.put(&greeting()).await;
        for stream in 0..20 {
            // No method.
            end.put(&asks(1 + 2 * stream, 0x84)).await;
        }
        let got = end.get_all().await;
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0];
        let at = memchr::memmem::find(&got, &goaway).expect("GOAWAY");
        // ENHANCE_YOUR_CALM
        assert_eq!(got[at + 13..at + 17], [0, 0, 0, 11]);
    });
}

#[test]
fn requests_are_answered_in_any_pieces() {
    for pieces in [vec![1], vec![7, 2], vec![usize::MAX]] {
        let answer = [Read("\r\n\r\n"), Write(OK), Do::End];
        let mut rig = plain(&[&answer, &answer]);
        rig.pieces = pieces;
        let (got, _) = rig.run(|mut end| async move {
            end.put(&greeting()).await;
            for stream in [1, 3] {
                end.put(&asks(stream, METHOD)).await;
                // DATA with END_STREAM.
                let tail = frame(0, 1, stream, b"ok");
                assert!(end.get_until(&tail).await.ends_with(&tail));
            }
            end.end().await;
        });
        assert!(got.concat().starts_with("GET / HTTP/1.1\r\nhost: h\r\n"));
    }
}
