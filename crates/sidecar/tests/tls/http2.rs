//! HTTP/2 on both sides: a client by curl and one by the h2 crate, an application that speaks HTTP/1.1 and one that speaks
//! HTTP/2 with trailers, as gRPC does.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use podkit_testkit::certs::Authority;
use rustls::pki_types::ServerName;

use super::*;

/// Runs `work` on a runtime of its own.
fn run<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bounded = async { tokio::time::timeout(std::time::Duration::from_secs(20), work).await };
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, bounded);
    result.expect("it is done in time")
}

/// An application that speaks HTTP/2 in the clear: the path says what it does.
struct Grpc {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    waits: Arc<Waits>,
}

/// Requests that are never answered: how many came, and how many were cancelled.
#[derive(Default)]
struct Waits {
    begun: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Grpc {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let app = Self {
            addr: listener.local_addr().unwrap(),
            connections: Arc::default(),
            waits: Arc::default(),
        };
        let (connections, waits) = (Arc::clone(&app.connections), Arc::clone(&app.waits));
        // Ends with the test's process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    connections.fetch_add(1, Ordering::Relaxed);
                    tokio::task::spawn_local(connection(stream, Arc::clone(&waits)));
                }
            });
        });
        app
    }
}

async fn connection(stream: tokio::net::TcpStream, waits: Arc<Waits>) {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(100)
        .handshake::<_, Bytes>(stream)
        .await
        .unwrap();
    let mut served = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        served += 1;
        if request.uri().path() == "/leave" && served > 1 {
            connection.graceful_shutdown();
        }
        let waits = Arc::clone(&waits);
        tokio::task::spawn_local(async move {
            answer(request, respond, &waits).await;
        });
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, waits: &Waits) {
    let (head, mut body) = request.into_parts();
    let ok = || Response::builder().header("content-type", "application/grpc");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    match head.uri.path() {
        // Trailers only.
        "/unknown" => {
            let head = ok().header("grpc-status", "12").body(()).unwrap();
            respond.send_response(head, true).unwrap();
        }
        "/wait" => {
            waits.begun.fetch_add(1, Ordering::Relaxed);
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            if matches!(reason, Ok(Reason::CANCEL)) {
                waits.cancelled.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Each message back as it comes, then what was asked as trailers.
        _ => {
            let te = head.headers.get("te").cloned();
            trailers.insert("saw-te", te.unwrap_or_else(|| "none".parse().unwrap()));
            trailers.insert(
                "saw-host",
                head.uri.authority().unwrap().as_str().parse().unwrap(),
            );
            let mut send = respond
                .send_response(ok().body(()).unwrap(), false)
                .unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                send.send_data(data, false).unwrap();
            }
            if let Ok(Some(more)) = body.trailers().await {
                trailers.extend(more);
            }
            send.send_trailers(trailers).unwrap();
        }
    }
}

/// `podkit tls` in front of `upstream`, and who may trust it.
fn serve(upstream: &str, flags: &[(&str, &str)]) -> (Tls, Authority, tempfile::TempDir) {
    let (authority, dir) = (Authority::new("CA"), tempfile::tempdir().unwrap());
    let (cert, key) = authority.server(&["localhost"]).write(dir.path(), "server");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let mut all = vec![("cert", cert.as_str()), ("key", key.as_str())];
    all.extend(flags);
    (Tls::start_at(upstream, &all), authority, dir)
}

/// A client's connection.
async fn connect(tls: &Tls, authority: &Authority) -> SendRequest<Bytes> {
    let stream = open(tls, authority).await;
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move { drop(connection.await) });
    send
}

/// One on which nothing was said yet.
async fn open(
    tls: &Tls,
    authority: &Authority,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(tls.addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream
}

fn ask(method: &str, path: &str) -> ::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"))
}

/// All of a body, and its trailers.
async fn collect(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok((all, body.trailers().await?))
}

#[test]
fn curl_is_served_by_http_2_and_the_application_by_http_1() {
    let app = App::start();
    let tls = Tls::start(app.addr, &[("self-signed", "true")]);
    let curl = podkit_testkit::program("curl").expect("curl is missing (Debian package curl)");
    let output = Command::new(curl)
        .args([
            "--http2",
            "-sSk",
            "--max-time",
            "20",
            "-b",
            "a=1",
            "-w",
            "\nversion %{http_version}",
        ])
        .args(["-H", "X-Forwarded-For: 6.6.6.6", "-A", "test"])
        .arg(format!("https://{}/a?b=c", tls.addr))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("\nversion 2"), "{text} {:?}", output.stderr);
    assert!(text.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{text}");
    let seen = fields(&text);
    let field = |name: &str| seen.get(name).map(String::as_str);
    assert_eq!(field("host"), Some(tls.addr.to_string().as_str()));
    assert_eq!(field("via"), Some("2.0 podkit"));
    assert_eq!(field("cookie"), Some("a=1"));
    assert_eq!(field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field("x-forwarded-proto"), Some("https"));
    assert!((tls.metric("podkit_http2_connections_total") - 1.0).abs() < f64::EPSILON);
    assert!((tls.metric("podkit_http_requests_total{class=\"2xx\"}") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn without_http2_it_is_not_agreed_on() {
    let app = App::start();
    let tls = Tls::start(app.addr, &[("self-signed", "true"), ("http2", "false")]);
    let curl = podkit_testkit::program("curl").expect("curl is missing (Debian package curl)");
    let output = Command::new(curl)
        .args([
            "--http2",
            "-sSk",
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version}",
        ])
        .arg(format!("https://{}/", tls.addr))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1.1");
}

#[test]
fn a_request_that_is_malformed_harms_no_other_stream() {
    let app = App::start();
    let (tls, authority, _dir) = serve(&app.addr.to_string(), &[]);
    run(async {
        let send = connect(&tls, &authority).await;
        let check = async |request: Request<()>, expected: Result<u16, Reason>| {
            let shown = format!("{request:?}");
            let (answer, _) = send
                .clone()
                .ready()
                .await
                .unwrap()
                .send_request(request, true)
                .unwrap();
            let got = answer.await.map(|answer| answer.status().as_u16());
            let got = got.map_err(|error| error.reason().unwrap());
            assert_eq!(got, expected, "{shown}");
        };
        let get = |name: &str, value: &str| ask("GET", "/").header(name, value).body(()).unwrap();
        let broken = Err(Reason::PROTOCOL_ERROR);
        // Names another server than :authority.
        check(get("host", "other.example"), broken).await;
        check(get("host", "localhost"), Ok(200)).await;
        check(get("x", " white space first"), broken).await;
        check(get("x", "white space last\t"), broken).await;
        check(get("te", "trailers"), Ok(200)).await;
        check(get("content-length", "5"), broken).await;
        let many = (0..200).fold(ask("GET", "/"), |ask, at| {
            ask.header(format!("x-{at}"), "1")
        });
        check(many.body(()).unwrap(), Ok(431)).await;
        check(ask("GET", "/still").body(()).unwrap(), Ok(200)).await;
    });
}

#[test]
fn calls_with_trailers_go_through_from_end_to_end() {
    let app = Grpc::start();
    let (tls, authority, _dir) = serve(&format!("h2c://{}", app.addr), &[]);
    run(async {
        let send = connect(&tls, &authority).await;
        // A message at a time, each back before the next is sent.
        let request = ask("POST", "/echo")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (answer, mut up) = send
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request, false)
            .unwrap();
        up.send_data(Bytes::from_static(b"one"), false).unwrap();
        let mut answer = answer.await.unwrap().into_body();
        assert_eq!(answer.data().await.unwrap().unwrap(), "one");
        up.send_data(Bytes::from_static(b"two"), false).unwrap();
        assert_eq!(answer.data().await.unwrap().unwrap(), "two");
        let mut more = HeaderMap::new();
        more.insert("x-sum", "2".parse().unwrap());
        up.send_trailers(more).unwrap();
        let (rest, trailers) = collect(answer).await.unwrap();
        assert!(rest.is_empty());
        let trailers = trailers.unwrap();
        let trailer = |name: &str| trailers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(trailer("grpc-status"), Some("0"));
        assert_eq!(trailer("saw-te"), Some("trailers"));
        assert_eq!(trailer("saw-host"), Some("localhost"));
        assert_eq!(trailer("x-sum"), Some("2"));

        // An answer of trailers alone ends with its head.
        let request = ask("POST", "/unknown").body(()).unwrap();
        let (answer, _) = send
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request, true)
            .unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "12");
        assert!(
            answer.body().is_end_stream(),
            "a client of gRPC wants it so"
        );
    });
}

#[test]
fn many_requests_share_a_connection_and_large_bodies_come_whole() {
    let app = Grpc::start();
    let (tls, authority, _dir) = serve(&format!("h2c://{}", app.addr), &[]);
    run(async {
        let send = connect(&tls, &authority).await;
        let one = |at: usize| {
            let send = send.clone();
            async move {
                let body: Vec<u8> = (0..200_000 + at).map(|at| (at % 251) as u8).collect();
                let (answer, mut up) = send
                    .ready()
                    .await
                    .unwrap()
                    .send_request(ask("POST", "/echo").body(()).unwrap(), false)
                    .unwrap();
                let wanted = body.clone();
                let pumped = async move {
                    let mut rest = Bytes::from(body);
                    while !rest.is_empty() {
                        up.reserve_capacity(rest.len());
                        let room = std::future::poll_fn(|cx| up.poll_capacity(cx)).await;
                        let room = room.unwrap().unwrap().min(rest.len());
                        up.send_data(rest.split_to(room), false).unwrap();
                    }
                    up.send_data(Bytes::new(), true).unwrap();
                };
                let ((), answer) = tokio::join!(pumped, async {
                    collect(answer.await.unwrap().into_body()).await
                });
                let (got, trailers) = answer.unwrap();
                assert!(got == wanted, "{} bytes for {}", got.len(), wanted.len());
                assert_eq!(trailers.unwrap()["grpc-status"], "0");
            }
        };
        let tasks: Vec<_> = (0..40)
            .map(|at| tokio::task::spawn_local(one(at)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(app.connections.load(Ordering::Relaxed), 1);
}

#[test]
fn an_upstream_that_leaves_loses_no_request() {
    let app = Grpc::start();
    let (tls, authority, _dir) = serve(&format!("h2c://{}", app.addr), &[]);
    run(async {
        let send = connect(&tls, &authority).await;
        // The application says GOAWAY at the second request of each connection.
        for at in 0..50 {
            let (answer, _) = send
                .clone()
                .ready()
                .await
                .unwrap()
                .send_request(ask("GET", "/leave").body(()).unwrap(), true)
                .unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200, "request {at}");
            let (_, trailers) = collect(answer.into_body()).await.unwrap();
            assert_eq!(trailers.unwrap()["grpc-status"], "0", "request {at}");
        }
    });
    let connections = app.connections.load(Ordering::Relaxed);
    assert!(connections > 10, "it has left {connections} times");
}

#[test]
fn a_client_that_resets_cancels_at_the_upstream() {
    let app = Grpc::start();
    let (tls, authority, _dir) = serve(&format!("h2c://{}", app.addr), &[]);
    run(async {
        let send = connect(&tls, &authority).await;
        let (answer, mut up) = send
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(ask("POST", "/wait").body(()).unwrap(), true)
            .unwrap();
        while app.waits.begun.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        up.send_reset(Reason::CANCEL);
        drop(answer);
        while app.waits.cancelled.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    });
}

#[test]
fn a_client_is_told_to_leave_and_what_it_asked_is_answered() {
    let app = App::answering(|_| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".to_vec()
    });
    let (tls, authority, _dir) = serve(&app.addr.to_string(), &[]);
    run(async {
        let send = connect(&tls, &authority).await;
        let (answer, _) = send
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(ask("GET", "/").body(()).unwrap(), true)
            .unwrap();
        while tls.metric("podkit_upstream_connections_total{result=\"opened\"}") < 1.0 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        tls.lifecycle.advance(Phase::Draining);
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(collect(answer.into_body()).await.unwrap().0, b"late");
        // GOAWAY came: nothing new is taken.
        loop {
            let Ok(mut send) = send.clone().ready().await else {
                break;
            };
            let sent = send.send_request(ask("GET", "/").body(()).unwrap(), true);
            let Ok((answer, _)) = sent else {
                break;
            };
            if answer.await.is_err() {
                break;
            }
        }
    });
    podkit_testkit::until("the end", || (tls.lifecycle.in_flight() == 0).then_some(()));
}

#[test]
fn a_flood_of_pings_ends_the_connection() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = App::start();
    let (tls, authority, _dir) = serve(&app.addr.to_string(), &[("h2-max-control-frames", "2")]);
    run(async {
        let mut stream = open(&tls, &authority).await;
        // A preface with empty SETTINGS, then PING after PING: twenty are ten seconds' worth.
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for number in 0..100_u64 {
            bytes.extend_from_slice(b"\0\0\x08\x06\0\0\0\0\0");
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        stream.write_all(&bytes).await.unwrap();
        // The end comes, in whatever form.
        let mut answers = Vec::new();
        let _ended = stream.read_to_end(&mut answers).await;
    });
    podkit_testkit::until("the flood is counted", || {
        (tls.metric("podkit_http2_floods_total") >= 1.0).then_some(())
    });
}

/// What it says of its length is held against what comes before anything is forwarded.
#[test]
fn a_body_behind_a_length_of_nothing_is_malformed_and_not_forwarded() {
    let app = App::start();
    let (tls, authority, _dir) = serve(&app.addr.to_string(), &[]);
    run(async {
        let send = connect(&tls, &authority).await;
        let empty = async |body: &'static [u8]| {
            let request = ask("POST", "/empty").header("content-length", "0");
            let mut send = send.clone().ready().await.unwrap();
            let (answer, mut up) = send.send_request(request.body(()).unwrap(), false).unwrap();
            // Its head has come, and more than that is not known of it, when this is answered.
            let (other, _) = send
                .ready()
                .await
                .unwrap()
                .send_request(ask("GET", "/").body(()).unwrap(), true)
                .unwrap();
            assert_eq!(other.await.unwrap().status(), 200);
            up.send_data(Bytes::from_static(body), true).unwrap();
            let answer = answer.await.map(|answer| answer.status().as_u16());
            answer.map_err(|error| error.reason().unwrap())
        };
        let sent = || tls.metric("podkit_http_requests_total{class=\"2xx\"}");
        assert_eq!(empty(b"x").await, Err(Reason::PROTOCOL_ERROR));
        assert!((sent() - 1.0).abs() < f64::EPSILON, "the other one only");
        assert_eq!(empty(b"").await, Ok(200));
        assert!((sent() - 3.0).abs() < f64::EPSILON);
    });
    let opened = tls.metric("podkit_upstream_connections_total{result=\"opened\"}")
        + tls.metric("podkit_upstream_connections_total{result=\"reused\"}");
    assert!(
        (opened - 3.0).abs() < f64::EPSILON,
        "{opened} were forwarded"
    );
}

/// A frame of a stream.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
    bytes.extend_from_slice(payload);
    bytes
}

/// The answer to stream 1: the code of its reset, or None when it is a head.
async fn answer_to_trailers(tls: &Tls, authority: &Authority, trailers: &[u8]) -> Option<u32> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = open(tls, authority).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    // POST / of localhost, a body, and trailers.
    bytes.extend(frame(1, 4, 1, b"\x83\x87\x84\x01\x09localhost"));
    bytes.extend(frame(0, 0, 1, b"hello"));
    bytes.extend(frame(1, 5, 1, trailers));
    stream.write_all(&bytes).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let [_, a, b, kind, _, _, _, _, of] = head;
        let mut payload = vec![0; usize::from(a) << 8 | usize::from(b)];
        stream.read_exact(&mut payload).await.unwrap();
        match (kind, of) {
            (1, 1) => return None,
            (3, 1) => return Some(u32::from_be_bytes(payload.try_into().unwrap())),
            _ => {}
        }
    }
}

#[test]
fn a_pseudo_field_in_trailers_is_malformed_and_the_request_is_never_whole() {
    let (seen, requests) = mpsc::channel();
    let app = App::speaking(move |mut stream| {
        let (mut got, mut buffer) = (String::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            got.push_str(&String::from_utf8_lossy(&buffer[..count]));
            if got.ends_with("\r\n\r\n") && got.contains("\r\n0\r\n") {
                let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(ok).unwrap();
                break;
            }
        }
        seen.send(got).unwrap();
    });
    let (tls, authority, _dir) = serve(&app.addr.to_string(), &[]);
    run(async {
        let answer = answer_to_trailers(&tls, &authority, b"\x00\x01a\x01b").await;
        assert_eq!(answer, None);
        assert!(
            requests
                .recv()
                .unwrap()
                .ends_with("5\r\nhello\r\n0\r\na: b\r\n\r\n")
        );
        // `:method: GET`; `:path: /x`; a value that is not one of HTTP/1.1.
        for trailers in [
            &b"\x82"[..],
            b"\x00\x01a\x01b\x04\x02/x",
            b"\x00\x01a\x02 b",
        ] {
            let shown = trailers.escape_ascii();
            let answer = answer_to_trailers(&tls, &authority, trailers).await;
            assert_eq!(answer, Some(1), "{shown}");
            let got = requests.recv().unwrap();
            assert!(!got.contains("\r\n0\r\n"), "{shown}: {got}");
        }
    });
}
