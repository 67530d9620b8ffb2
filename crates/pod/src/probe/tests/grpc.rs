//! The gRPC probe against a server that speaks HTTP/2 by the same crate, and against some that don't.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::attempts::{LONG, Loopback, SECOND, Silent, long_passes, no_exec, self_signed};
use crate::probe::health::{self, Message};
use crate::probe::*;

/// What the server does with the one call.
#[derive(Clone)]
struct Answer {
    status: u16,
    content_type: Option<&'static str>,
    data: Vec<u8>,
    trailers: Vec<(&'static str, &'static str)>,
}

impl Answer {
    fn new(data: &[u8], grpc_status: &'static str) -> Self {
        Self {
            status: 200,
            content_type: Some("application/grpc"),
            data: data.to_vec(),
            trailers: vec![("grpc-status", grpc_status)],
        }
    }

    fn serving(status: u8) -> Self {
        Self::new(&[0, 0, 0, 0, 2, 8, status], "0")
    }
}

type Served = tokio::task::JoinHandle<(String, Vec<u8>)>;

/// Answers one call, `chunk` bytes a frame, and gives its path and message back.
async fn server(answer: Answer, chunk: usize) -> (u16, Served) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, answer, chunk).await
    });
    (port, task)
}

/// The same over TLS, with these protocols on offer.
async fn tls_server(answer: Answer, protocols: &[&[u8]]) -> (u16, Served) {
    let mut config = self_signed();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(acceptor.accept(stream).await.unwrap(), answer, 1).await
    });
    (port, task)
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: Answer,
    chunk: usize,
) -> (String, Vec<u8>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    // The connection moves only while it is polled.
    let moving = tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let (head, mut body) = request.into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(head.headers["te"], "trailers");
    assert_eq!(head.headers["user-agent"], PROBE_AGENT);
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        message.extend_from_slice(&data.unwrap());
    }
    let mut response = ::http::Response::builder().status(answer.status);
    if let Some(content_type) = answer.content_type {
        response = response.header("content-type", content_type);
    }
    let mut trailers = ::http::HeaderMap::new();
    for (name, value) in answer.trailers {
        trailers.insert(name, value.parse().unwrap());
    }
    if answer.data.is_empty() {
        let mut response = response.body(()).unwrap();
        response.headers_mut().extend(trailers);
        respond.send_response(response, true).unwrap();
    } else {
        let mut send = respond
            .send_response(response.body(()).unwrap(), false)
            .unwrap();
        for part in answer.data.chunks(chunk) {
            send.send_data(bytes::Bytes::copy_from_slice(part), false)
                .unwrap();
        }
        send.send_trailers(trailers).unwrap();
    }
    // Until the prober has gone.
    moving.await.unwrap();
    (head.uri.path().to_owned(), message)
}

fn grpc(port: u16, service: &str) -> Action {
    let service = service.to_owned();
    let tls = false;
    Action::Grpc { tls, port, service }
}

async fn look(answer: Answer) -> Outcome {
    let (port, task) = server(answer, 1).await;
    let outcome = attempt(&grpc(port, "liveness"), LONG, &Loopback, &no_exec()).await;
    let (path, message) = task.await.unwrap();
    assert_eq!(path, "/grpc.health.v1.Health/Check");
    assert_eq!(message, b"\0\0\0\0\x0a\x0a\x08liveness");
    outcome
}

fn failure(text: &str) -> Outcome {
    Outcome::Failure(text.to_owned())
}

#[tokio::test]
async fn the_status_decides_in_the_kubelets_words() {
    assert_eq!(look(Answer::serving(1)).await, Outcome::Success);
    for (status, word) in [
        (0, "UNKNOWN"),
        (2, "NOT_SERVING"),
        (3, "SERVICE_UNKNOWN"),
        (7, "7"),
    ] {
        let expected = format!("service unhealthy (responded with {word:?})");
        assert_eq!(look(Answer::serving(status)).await, failure(&expected));
    }
    // An empty message is the default, UNKNOWN.
    assert_eq!(
        look(Answer::new(&[0; 5], "0")).await,
        failure("service unhealthy (responded with \"UNKNOWN\")")
    );
}

#[tokio::test]
async fn with_tls_any_certificate_will_do_and_http2_is_agreed_on() {
    let probe = |port| Action::Grpc {
        tls: true,
        port,
        service: "liveness".to_owned(),
    };
    let (port, served) = tls_server(Answer::serving(1), &[b"h2"]).await;
    let outcome = attempt(&probe(port), LONG, &Loopback, &no_exec()).await;
    assert_eq!(outcome, Outcome::Success);
    let (path, _) = served.await.unwrap();
    assert_eq!(path, "/grpc.health.v1.Health/Check");
    // Without ALPN, and without TLS.
    let (untold, served) = tls_server(Answer::serving(1), &[]).await;
    let (plain, plainly) = server(Answer::serving(1), 1).await;
    for port in [untold, plain] {
        let outcome = attempt(&probe(port), SECOND / 2, &Loopback, &no_exec()).await;
        let expected = format!(
            "timeout: failed to connect service \"127.0.0.1:{port}\" within 500ms: context deadline exceeded"
        );
        assert_eq!(outcome, failure(&expected));
    }
    served.abort();
    plainly.abort();
}

#[tokio::test]
async fn a_call_that_fails_is_told_with_its_code() {
    let rpc = |code: &str, text: &str| {
        failure(&format!(
            "error: health rpc probe failed: rpc error: code = {code} desc = {text}"
        ))
    };
    let mut unknown = Answer::new(&[], "5");
    unknown.trailers.push(("grpc-message", "unknown%20service"));
    assert_eq!(look(unknown).await, rpc("NotFound", "unknown service"));
    let mut unimplemented = Answer::new(&[], "12");
    unimplemented
        .trailers
        .push(("grpc-message", "unknown method Check"));
    assert_eq!(
        look(unimplemented).await,
        failure(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown method Check"
        )
    );
    assert_eq!(
        look(Answer::new(&[], "4")).await,
        failure("timeout: health rpc did not complete within 30s")
    );
    assert_eq!(look(Answer::new(&[], "99")).await, rpc("Code(99)", ""));
    assert_eq!(
        look(Answer::new(&[1, 0, 0, 0, 0], "0")).await,
        rpc(
            "Internal",
            "grpc: compressed flag set with identity or empty encoding"
        )
    );
    assert_eq!(
        look(Answer::new(&[0, 0, 0, 0, 1, 0xff], "0")).await,
        rpc(
            "Internal",
            "grpc: failed to unmarshal the received message: invalid wire format"
        )
    );
    let mut page = Answer::new(b"<html>", "0");
    (page.status, page.content_type) = (404, Some("text/html"));
    assert_eq!(
        look(page).await,
        failure(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unexpected HTTP status code received from server: 404 (Not Found); transport: received unexpected content-type \"text/html\""
        )
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_who_speaks_http2_is_a_timeout_of_the_connection() {
    // Nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let expected = failure(&format!(
        "timeout: failed to connect service \"127.0.0.1:{port}\" within 2s: context deadline exceeded"
    ));
    let outcome = attempt(&grpc(port, ""), SECOND * 2, &Loopback, &no_exec()).await;
    assert_eq!(outcome, expected);
    // Nothing answers.
    let outcome = attempt(&grpc(7, ""), SECOND * 2, &Silent, &no_exec()).await;
    assert_eq!(
        outcome,
        failure(
            "timeout: failed to connect service \"10.87.0.2:7\" within 2s: context deadline exceeded"
        )
    );
    // Something else answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _gone = stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    });
    let outcome = attempt(&grpc(port, ""), SECOND * 2, &Loopback, &no_exec()).await;
    let Outcome::Failure(text) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        text.starts_with("timeout: failed to connect service"),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_that_takes_the_call_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let _call = connection.accept().await.unwrap().unwrap();
        long_passes().await;
        while connection.accept().await.is_some() {}
    });
    assert_eq!(
        attempt(&grpc(port, ""), LONG, &Loopback, &no_exec()).await,
        failure("timeout: health rpc did not complete within 30s")
    );
}

#[tokio::test]
async fn a_server_that_comes_up_within_the_time_is_seen() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Two connections break before HTTP/2 is spoken.
    let task = tokio::spawn(async move {
        for _ in 0..2 {
            drop(listener.accept().await.unwrap());
        }
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        let response = ::http::Response::builder()
            .header("content-type", "application/grpc+proto")
            .body(())
            .unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        send.send_data(vec![0, 0, 0, 0, 2, 8, 1].into(), false)
            .unwrap();
        let mut trailers = ::http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        send.send_trailers(trailers).unwrap();
        while connection.accept().await.is_some() {}
    });
    let outcome = attempt(&grpc(port, ""), LONG, &Loopback, &no_exec()).await;
    assert_eq!(outcome, Outcome::Success);
    task.await.unwrap();
}

#[test]
fn fields_that_are_not_known_are_passed_over() {
    // 2: varint 300, 3: "ab", 1: 1, 4: fixed32, 5: fixed64, 1: 2
    let message = [
        0x10, 0xac, 0x02, 0x1a, 2, b'a', b'b', 8, 1, 0x25, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0, 0, 0,
        0, 8, 2,
    ];
    assert_eq!(health::status(&message), Some(2));
    assert_eq!(health::status(&message[..message.len() - 1]), None);
    // A group, a field 0, a varint of eleven bytes.
    for bad in [
        &[0x0b][..],
        &[0x00, 0x00],
        &[
            8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
        ],
    ] {
        assert_eq!(health::status(bad), None, "{bad:x?}");
    }
    // -1 as every generator writes it.
    let minus = [8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(health::status(&minus), Some(-1));
    assert_eq!(health::plain_message(b"50%25 %zz %e2%82%ac%"), "50% %zz €%");
}

proptest! {
    #[test]
    fn a_message_is_whole_when_all_of_it_is_there(
        service in "[a-z./]{0,40}",
        rest in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = health::request(&service);
        let length = bytes.len();
        let whole = bytes[5..].to_vec();
        bytes.extend(rest);
        for cut in 0..bytes.len() {
            let expected = if cut < length { Message::Partial } else { Message::Whole(&whole) };
            prop_assert_eq!(health::message(&bytes[..cut]), expected);
        }
    }

    #[test]
    fn no_bytes_bring_the_reader_down(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _status = health::status(&bytes);
        let _message = health::message(&bytes);
        let _text = health::plain_message(&bytes);
    }
}
