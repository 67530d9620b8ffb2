use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use podkit_foundation::lifecycle::Lifecycle;
use podkit_foundation::telemetry::metrics::Registry;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig,
    SupportedCipherSuite,
};
use tokio::task::LocalSet;

use super::*;
use crate::net::{Connections, Worker};

/// Both sides' configurations for one suite.
fn configs(suite: Option<SupportedCipherSuite>) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = CryptoProvider {
        cipher_suites: suite.map_or_else(
            || aws_lc_rs::ALL_CIPHER_SUITES.to_vec(),
            |suite| vec![suite],
        ),
        ..aws_lc_rs::default_provider()
    };
    let provider = Arc::new(provider);
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.enable_secret_extraction = true;
    server.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

type Client = rustls::StreamOwned<ClientConnection, UnixStream>;

fn connect(config: &Arc<ClientConfig>, socket: UnixStream) -> Client {
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    rustls::StreamOwned::new(connection, socket)
}

/// Runs `client` on a thread against `server` on the other end of a socket.
fn run<T: Send + 'static, F: Future>(
    client: impl FnOnce(UnixStream) -> T + Send + 'static,
    server: impl FnOnce(Socket, Rc<Worker>) -> F,
) -> (T, F::Output) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let client = std::thread::spawn(move || client(far));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let output = runtime.block_on(LocalSet::new().run_until(async {
        let worker = Worker::new(
            &Lifecycle::new(),
            &Registry::default(),
            &Connections::at_most(1),
        );
        drop(tokio::task::spawn_local(Rc::clone(&worker).watch()));
        let socket = Socket::Unix(tokio::net::UnixStream::from_std(near).unwrap());
        tokio::time::timeout(Duration::from_secs(20), server(socket, worker))
            .await
            .unwrap()
    }));
    (client.join().unwrap(), output)
}

async fn open(socket: Socket, worker: &Rc<Worker>, config: Arc<ServerConfig>) -> TlsStream {
    let handshake = TlsStream::accept(socket, config, worker, Duration::from_secs(5)).await;
    handshake.unwrap().into_stream().unwrap()
}

async fn read(stream: &mut TlsStream) -> io::Result<Vec<u8>> {
    poll_fn(|cx| stream.poll_readable(cx)).await?;
    let mut buf = Buf::small();
    poll_fn(|cx| stream.poll_read(cx, &mut buf)).await?;
    Ok(buf.filled().to_vec())
}

async fn write(stream: &mut TlsStream, parts: &[&[u8]]) {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut sent = 0;
    while sent < total {
        let mut rest: Vec<IoSlice<'_>> = vec![
            IoSlice::new(parts[0]),
            IoSlice::new(parts.get(1).unwrap_or(&&[][..])),
        ];
        let mut rest = rest.as_mut_slice();
        IoSlice::advance_slices(&mut rest, sent);
        sent += poll_fn(|cx| stream.poll_write(cx, rest)).await.unwrap();
    }
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
}

/// Echoes until the end, each answer in two parts.
async fn echo(socket: Socket, worker: Rc<Worker>, config: Arc<ServerConfig>) {
    let mut stream = open(socket, &worker, config).await;
    loop {
        let got = read(&mut stream).await.unwrap();
        if got.is_empty() {
            return poll_fn(|cx| stream.poll_close_write(cx)).await.unwrap();
        }
        let (head, tail) = got.split_at(got.len() / 3);
        write(&mut stream, &[head, tail]).await;
    }
}

fn talk(client: &mut Client, sizes: &[usize]) {
    for size in sizes {
        let message: Vec<u8> = (0..*size).map(|at| (at % 251) as u8).collect();
        let mut got = vec![0; message.len()];
        // Both directions have bounded room.
        for (sent, got) in message.chunks(50_000).zip(got.chunks_mut(50_000)) {
            client.write_all(sent).unwrap();
            client.read_exact(got).unwrap();
        }
        assert!(got == message, "{size} bytes came back changed");
    }
}

#[test]
fn every_suite_of_both_versions_carries_data_both_ways() {
    for suite in aws_lc_rs::ALL_CIPHER_SUITES {
        if format!("{suite:?}").contains("_RSA_") {
            // The certificate is ECDSA.
            continue;
        }
        let (server, config) = configs(Some(*suite));
        let client = move |socket| {
            let mut client = connect(&config, socket);
            talk(
                &mut client,
                &[1, 300, 16_384, 16_385, 100_000, 1_000_000, 7],
            );
            client.conn.send_close_notify();
            client.flush().unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty());
            client.conn.negotiated_cipher_suite().unwrap()
        };
        let (used, ()) = run(client, |socket, worker| echo(socket, worker, server));
        assert_eq!(used, *suite);
    }
}

#[test]
fn key_updates_of_the_peer_and_of_ours_go_unnoticed() {
    let (server, config) = configs(None);
    let client = move |socket| {
        let mut client = connect(&config, socket);
        talk(&mut client, &[10]);
        for _ in 0..3 {
            client.conn.refresh_traffic_keys().unwrap();
            talk(&mut client, &[10, 40_000]);
        }
        // The server changes its key in the middle of this one.
        let mut got = [0; 4];
        client.write_all(b"next").unwrap();
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"next");
    };
    run(client, |socket, worker| async move {
        let mut stream = open(socket, &worker, server).await;
        loop {
            let got = read(&mut stream).await.unwrap();
            if got.is_empty() {
                break;
            }
            if got == b"next" {
                stream.update_send_key().unwrap();
            }
            write(&mut stream, &[&got]).await;
        }
    });
}

#[test]
fn sessions_are_resumed_by_ticket() {
    let (server, config) = configs(None);
    for (round, expected) in [HandshakeKind::Full, HandshakeKind::Resumed]
        .into_iter()
        .enumerate()
    {
        let (server, config) = (Arc::clone(&server), Arc::clone(&config));
        let client = move |socket| {
            let mut client = connect(&config, socket);
            talk(&mut client, &[10]);
            client.conn.handshake_kind().unwrap()
        };
        let (kind, ()) = run(client, |socket, worker| async move {
            let handshake = TlsStream::accept(socket, server, &worker, Duration::from_secs(5));
            let handshake = handshake.await.unwrap();
            assert_eq!(
                handshake.connection().handshake_kind(),
                Some(expected),
                "{round}"
            );
            let mut stream = handshake.into_stream().unwrap();
            let got = read(&mut stream).await.unwrap();
            write(&mut stream, &[&got]).await;
        });
        assert_eq!(kind, expected, "{round}");
    }
}

#[test]
fn data_that_comes_with_the_handshake_and_half_closes() {
    let (server, config) = configs(None);
    let client = move |socket: UnixStream| {
        let mut client = connect(&config, socket);
        // Queued with the client's Finished.
        client.conn.writer().write_all(b"early").unwrap();
        client.flush().unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        rest
    };
    let (rest, ()) = run(client, |socket, worker| async move {
        let mut stream = open(socket, &worker, server).await;
        assert_eq!(read(&mut stream).await.unwrap(), b"early");
        assert_eq!(read(&mut stream).await.unwrap(), b"");
        write(&mut stream, &[b"after your end"]).await;
        poll_fn(|cx| stream.poll_close_write(cx)).await.unwrap();
    });
    assert_eq!(rest, b"after your end");
}

#[test]
fn what_was_changed_on_the_way_is_refused_and_told() {
    let (server, config) = configs(None);
    let client = move |socket: UnixStream| {
        let mut client = connect(&config, socket);
        talk(&mut client, &[5]);
        let mut forged = vec![23, 3, 3, 0, 30];
        forged.extend_from_slice(&[7; 30]);
        client.sock.write_all(&forged).unwrap();
        client.read(&mut [0; 10]).unwrap_err().to_string()
    };
    let (told, error) = run(client, |socket, worker| async move {
        let mut stream = open(socket, &worker, server).await;
        let got = read(&mut stream).await.unwrap();
        write(&mut stream, &[&got]).await;
        read(&mut stream).await.unwrap_err().to_string()
    });
    assert_eq!(error, "TLS: BadRecordMac");
    assert!(told.contains("BadRecordMac"), "{told}");
}

#[test]
fn handshakes_that_fail_say_why() {
    let fail = |bytes: &'static [u8], close: bool, ms: u64| {
        let (server, _) = configs(None);
        let client = move |mut socket: UnixStream| {
            socket.write_all(bytes).unwrap();
            if close {
                socket.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let mut answer = Vec::new();
            drop(socket.read_to_end(&mut answer));
            answer
        };
        run(client, |socket, worker| async move {
            let accepted = TlsStream::accept(socket, server, &worker, Duration::from_millis(ms));
            accepted.await.unwrap_err()
        })
    };
    let (answer, error) = fail(b"GET / HTTP/1.1\r\n\r\n", false, 20_000);
    assert!(answer.starts_with(b"HTTP/1.1 400 ") && answer.ends_with(b"HTTPS.\n"));
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    assert!(inner.is_some(), "{error}");
    assert_eq!(
        fail(b"", true, 20_000).1.kind(),
        io::ErrorKind::UnexpectedEof
    );
    assert_eq!(fail(b"", false, 100).1.kind(), io::ErrorKind::TimedOut);
    let (answer, error) = fail(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", false, 20_000);
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(answer.first(), Some(&21), "an alert");
}

#[test]
fn records_are_measured_by_their_header() {
    assert_eq!(record::whole(b""), Ok(None));
    assert_eq!(record::whole(&[23, 3, 3, 0]), Ok(None));
    assert_eq!(record::whole(&[23, 3, 3, 0, 1]), Ok(None));
    assert_eq!(record::whole(&[23, 3, 3, 0, 1, 9, 9]), Ok(Some(6)));
    assert_eq!(
        record::whole(&[23, 3, 3, 0xff, 0xff]),
        Err(Alert::RECORD_OVERFLOW)
    );
    assert_eq!(record::whole(&[23, 9, 3, 0, 1]), Err(Alert::DECODE_ERROR));
    assert_eq!(Alert::CLOSE_NOTIFY.message(), [1, 0]);
    assert_eq!(Alert::BAD_RECORD_MAC.message(), [2, 20]);
}
