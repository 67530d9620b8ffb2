use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use podkit_foundation::lifecycle::{Lifecycle, Phase};
use podkit_foundation::params::{ParamSet, Values};
use podkit_foundation::telemetry::metrics::Registry;
use proptest::prelude::*;
use tokio::task::LocalSet;

use super::*;
use crate::http::HttpLimits;
use crate::net::memory::{End, pair};
use crate::net::{Connections, Peer, Worker};

struct Echo;

struct Count(u64);

impl Source for Count {
    fn poll_more(&mut self, _: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<std::io::Result<bool>> {
        if self.0 == 0 {
            return Poll::Ready(Ok(false));
        }
        self.0 -= 1;
        out.extend_from_slice(b"tick\n");
        Poll::Ready(Ok(true))
    }
}

impl Handler for Echo {
    fn handle<'a>(&'a self, request: Request<'a>) -> Answer<'a> {
        Box::pin(async move {
            match request.path() {
                "/echo" => {
                    let text = String::from_utf8_lossy(request.body());
                    Response::text(
                        200,
                        format!(
                            "{} {} {:?} {text}",
                            request.method(),
                            request.query(),
                            request.host().unwrap_or("-"),
                        ),
                    )
                }
                "/stream" => Response::stream(200, "text/plain", None, Box::new(Count(2))),
                "/known" => Response::stream(200, "text/plain", Some(10), Box::new(Count(2))),
                "/wrong" => Response::stream(200, "text/plain", Some(11), Box::new(Count(2))),
                "/last" => Response {
                    close: true,
                    ..Response::not_found()
                },
                "/split" => Response::new(204).header("X", "a\r\nY: b"),
                _ => Response::not_found(),
            }
        })
    }

    fn body_use(&self) -> BodyUse {
        BodyUse::Collect(20)
    }
}

fn limits() -> HttpLimits {
    let values = Values::gather(HttpLimits::PARAMS.iter(), &|_| vec![], &|_| None);
    HttpLimits::from_values(&values).unwrap()
}

/// Serves one connection that is read and written in `pieces` and hands its client end to `client`; how much longer it was served.
fn serve<F: Future<Output = ()>>(
    pieces: &[usize],
    client: impl FnOnce(End, Lifecycle) -> F,
) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        let lifecycle = Lifecycle::new();
        let worker = Worker::new(&lifecycle, &Registry::default(), &Connections::at_most(1));
        drop(tokio::task::spawn_local(Rc::clone(&worker).watch()));
        let (near, far) = pair(pieces, 64 * 1024);
        let local = Local::new(Echo, limits());
        let serving = tokio::task::spawn_local(async move {
            local.serve_on(near, Peer::Unix, worker).await;
        });
        client(far, lifecycle).await;
        let since = tokio::time::Instant::now();
        serving.await.unwrap();
        since.elapsed()
    }))
}

/// The answers to `input`, after which the client says that it has sent all; Date lines left out.
fn answers(pieces: &[usize], input: &str) -> String {
    let mut all = String::new();
    serve(pieces, |mut end, _| {
        let (all, input) = (&mut all, input.as_bytes());
        async move {
            end.put(input).await;
            end.end().await;
            let bytes = end.get_all().await;
            let text = String::from_utf8(bytes).unwrap();
            *all = text
                .split_inclusive("\r\n")
                .filter(|line| !line.starts_with("Date: "))
                .collect();
        }
    });
    all
}

const SEQUENCE: &str = "GET /echo?a HTTP/1.1\r\nHost: h\r\n\r\n\
    \r\nPOST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\
    POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n\
    HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\n\
    GET /stream HTTP/1.1\r\nHost: h\r\n\r\n\
    GET /known HTTP/1.1\r\nHost: h\r\n\r\n\
    GET /split HTTP/1.1\r\nHost: h\r\n\r\n\
    GET /none HTTP/1.0\r\n\r\n";

const ANSWERS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 10\r\n\r\nGET a \"h\" \
    HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 15\r\n\r\nPOST  \"h\" hello\
    HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 15\r\n\r\nPOST  \"h\" abcde\
    HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 10\r\n\r\n\
    HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ntick\n\r\n5\r\ntick\n\r\n0\r\n\r\n\
    HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\ntick\ntick\n\
    HTTP/1.1 204 No Content\r\n\r\n\
    HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 10\r\nConnection: close\r\n\r\nnot found\n";

#[test]
fn a_pipelined_sequence_is_answered_in_order() {
    assert_eq!(answers(&[usize::MAX], SEQUENCE), ANSWERS);
    assert_eq!(answers(&[1], SEQUENCE), ANSWERS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn chunking_changes_nothing(pieces in proptest::collection::vec(1_usize..200, 1..20)) {
        prop_assert_eq!(answers(&pieces, SEQUENCE), ANSWERS);
    }
}

#[test]
fn what_is_refused_is_told_and_closed() {
    let check = |input: &str, expected: &str| {
        let answer = answers(&[usize::MAX], input);
        let input = &input[..input.len().min(100)];
        assert!(answer.starts_with(expected), "{input:?}: {answer}");
        assert!(answer.contains("Connection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    };
    let next = "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n";
    check(
        &format!("GET / HTTP/1.1\r\n\r\n{next}"),
        "HTTP/1.1 400 Bad Request",
    );
    check(
        &format!("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 21\r\n\r\n{next}"),
        "HTTP/1.1 413 ",
    );
    check(
        &format!(
            "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n{next}"
        ),
        "HTTP/1.1 413 ",
    );
    for chunk in [
        "x",
        "-1",
        "5 \r\n",
        "1\n",
        "11111111111111111",
        "1\r\nab\r\n",
    ] {
        let head = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{head}{chunk}\r\n"), "HTTP/1.1 400 ");
    }
    check(
        &format!("GET /{} HTTP/1.1\r\n", "a".repeat(33_000)),
        "HTTP/1.1 414 ",
    );
    check(
        &format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(33_000)),
        "HTTP/1.1 431 ",
    );
    check(&format!("\r\n\r\n{next}"), "HTTP/1.1 400 ");
    let split = answers(&[1], &format!("\r\n\r\n{next}"));
    assert!(split.starts_with("HTTP/1.1 400 "), "{split}");
    check("GET /stream HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ");
}

#[test]
fn a_body_that_is_not_what_was_said_is_cut() {
    let answer = answers(&[usize::MAX], "GET /wrong HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(
        answer.ends_with("Content-Length: 11\r\n\r\ntick\ntick\n!"),
        "{answer}"
    );
}

#[test]
fn only_who_may_be_sending_is_waited_for() {
    let check = |fields: &str, path: &str, waits: bool| {
        let mut kept = None;
        let longer = serve(&[usize::MAX], |mut end, _| {
            let kept = &mut kept;
            async move {
                let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
                end.put(request.as_bytes()).await;
                assert!(end.get_all().await.ends_with(b"\n"));
                *kept = Some(end);
            }
        });
        assert_eq!(longer > Duration::ZERO, waits, "{longer:?}");
    };
    check("Connection: close\r\n", "/none", false);
    check("Connection: close\r\n", "/known", false);
    check("", "/last", true);
}

#[test]
fn continue_is_sent_when_the_body_is_wanted() {
    serve(&[usize::MAX], |mut end, _| async move {
        end.put(
            b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
        let interim = end.get_until(b"\r\n\r\n").await;
        assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        end.put(b"ok").await;
        assert!(!end.get_until(b"\"h\" ok").await.is_empty());
    });
}

#[test]
fn slow_heads_bodies_and_idle_connections_end() {
    let check = |input: &'static str, expected: &'static str, seconds: u64| {
        serve(&[usize::MAX], |mut end, _| async move {
            let begin = tokio::time::Instant::now();
            end.put(input.as_bytes()).await;
            let text = String::from_utf8(end.get_all().await).unwrap();
            assert!(text.contains(expected), "{input:?}: {text}");
            let late = begin.elapsed().saturating_sub(Duration::from_secs(seconds));
            assert!(begin.elapsed() >= Duration::from_secs(seconds), "{input:?}");
            assert!(late < Duration::from_millis(100), "{input:?}: {late:?}");
        });
    };
    check("", "", 10);
    check("GET / HTTP/1.1\r\n", "408 Request Timeout", 10);
    check(
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc",
        "408 Request",
        30,
    );
    check("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK", 60);
}

#[test]
fn draining_closes_idle_connections_and_says_so_on_others() {
    serve(&[usize::MAX], |mut end, lifecycle| async move {
        lifecycle.advance(Phase::LameDuck);
        tokio::task::yield_now().await;
        end.put(b"GET /echo HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let text = String::from_utf8(end.get_all().await).unwrap();
        assert!(text.contains("Connection: close"), "{text}");
    });
    // A request that was on its way is still answered; an idle connection is closed soon.
    for on_its_way in [true, false] {
        serve(&[usize::MAX], |mut end, lifecycle| async move {
            let request = b"GET /echo HTTP/1.1\r\nHost: h\r\n\r\n";
            end.put(request).await;
            assert!(!end.get_until(b"\"h\" ").await.is_empty());
            lifecycle.advance(Phase::Draining);
            let begin = tokio::time::Instant::now();
            if on_its_way {
                tokio::time::advance(Duration::from_millis(300)).await;
                end.put(request).await;
            }
            let text = String::from_utf8(end.get_all().await).unwrap();
            assert_eq!(text.contains("Connection: close"), on_its_way, "{text}");
            assert_eq!(text.is_empty(), !on_its_way);
            assert!(begin.elapsed() < Duration::from_millis(600));
        });
    }
}
